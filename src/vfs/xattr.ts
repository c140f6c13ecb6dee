/** Extended attributes; POSIX ACLs are two of them and belong to the mode. */
import { FS } from '../errors.ts'
import { altered, isDirectory } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { xattrCost } from '../volume/xattrbytes.ts'
import { ACCESS_ACL, type AclEntry, aclMode, DEFAULT_ACL, decodeAcl, encodeAcl } from './acl.ts'
import { S_ISGID } from './attributes.ts'
import { type Core, nodeOf, type Place, volumeOf } from './core.ts'
import { shownAcl, snapshotsAcl, storedMode } from './guard.ts'

/** linux/limits.h */
const NAME_BYTES_MAX = 255
const VALUE_BYTES_MAX = 65536
/** Of all extended attributes of an inode together, two of the largest. */
const INODE_BYTES_MAX = 2 * (VALUE_BYTES_MAX + 512)
/** setxattr(2) */
const XATTR_CREATE = 1
const XATTR_REPLACE = 2

/**
 * Asked of every file by `ls -l` (lgetfilecon(3)), which the kernel does not remember; but ls(1) does not go on asking where labels
 * are not supported at all. One that was stored is there all the same, for who copies it.
 */
const SELINUX = 'security.selinux'

const NAMESPACES = ['user.', 'trusted.', 'security.']

export function getxattr(core: Core, node: number, name: string): Uint8Array {
  checkName(name)
  if (name === ACCESS_ACL && core.guard.guards(volumeOf(node))) return encodeAcl(aclOf(core, node))
  if (core.isSnapshots(node)) throw absent(name)
  const place = core.place(node)
  const shown = name === ACCESS_ACL ? core.gates.acl(place) : undefined
  if (shown !== undefined) return encodeAcl(shown)
  const { volume, ino, attr } = place
  const value = attr.xattrs === 0 ? undefined : volume.xattr(ino, name)
  if (value === undefined) throw absent(name)
  return value
}

function absent(name: string): Error {
  return name === SELINUX ? FS.EOPNOTSUPP : FS.ENODATA
}

/** Compiled of the permission bits and of what relations give: the kernel asks for it, and getfacl(1). */
function aclOf(core: Core, node: number): AclEntry[] {
  if (!core.isSnapshots(node)) return shownAcl(core.guard, core.place(node))
  return snapshotsAcl(core.guard, core.place(nodeOf(volumeOf(node), ROOT_INO)))
}

export function listxattr(core: Core, node: number): string[] {
  if (core.isSnapshots(node)) return []
  const { volume, ino, attr } = core.place(node)
  return attr.xattrs === 0 ? [] : volume.xattrs(ino)
}

export function setxattr(core: Core, node: number, name: string, value: Uint8Array, flags: number, killSgid: boolean): void {
  checkName(name)
  if (value.length > VALUE_BYTES_MAX) throw FS.E2BIG
  const place = core.writable(node)
  if (name === ACCESS_ACL || name === DEFAULT_ACL) {
    setAcl(core, place, name, value, killSgid)
    return
  }
  const exists = has(place, name)
  if (exists && flags & XATTR_CREATE) throw FS.EEXIST
  if (!exists && flags & XATTR_REPLACE) throw FS.ENODATA
  commit(core, place, name, Buffer.from(value), place.attr.mode)
}

/**
 * Lets an inode have an extended attribute, or not.
 * @throws ENOSPC beyond what one inode may have, as on ext4; EDQUOT beyond what a quota leaves
 */
function admit(core: Core, { volume, ino, attr }: Place, name: string, value: Uint8Array): void {
  const more = xattrCost(name, value) - xattrCost(name, attr.xattrs === 0 ? undefined : volume.xattr(ino, name))
  if (more <= 0) return
  if ((attr.xattrs === 0 ? 0 : volume.xattrBytesOf(ino)) + more > INODE_BYTES_MAX) throw FS.ENOSPC
  core.quotas.admit(volume.number, more, 0)
}

export function removexattr(core: Core, node: number, name: string): void {
  checkName(name)
  const place = core.writable(node)
  if (!has(place, name)) {
    // Removing an ACL that is not there is how a program makes sure of it.
    if (name === ACCESS_ACL || name === DEFAULT_ACL) return
    throw FS.ENODATA
  }
  commit(core, place, name, null, place.attr.mode)
}

function setAcl(core: Core, place: Place, name: string, value: Uint8Array, killSgid: boolean): void {
  const entries = decodeAcl(value)
  if (name === DEFAULT_ACL) {
    if (!isDirectory(place.attr)) throw entries.length === 0 ? FS.EINVAL : FS.EACCES
    commit(core, place, name, entries.length === 0 ? null : encodeAcl(entries), place.attr.mode)
    return
  }
  if (entries.length === 0) {
    commit(core, place, name, null, place.attr.mode)
    return
  }
  if (core.guard.guards(place.volume.number)) {
    setSharedBits(core, place, entries, killSgid)
    return
  }
  const stored = core.gates.storedAcl(place, entries)
  const { mode, exact } = aclMode(stored)
  const bits = (place.attr.mode & ~0o777) | mode
  commit(core, place, name, exact ? null : encodeAcl(stored), killSgid ? bits & ~S_ISGID : bits)
}

/**
 * Where relations decide, an ACL says no more than a mode does: who is named in it was compiled from grants, or copied
 * by a tool from a file where it was. Storing that would freeze it.
 */
function setSharedBits(core: Core, place: Place, entries: readonly AclEntry[], killSgid: boolean): void {
  const { mode } = aclMode(entries)
  const bits = storedMode(core.guard, place, (place.attr.mode & ~0o777) | mode)
  commit(core, place, ACCESS_ACL, null, killSgid ? bits & ~S_ISGID : bits)
}

function commit(core: Core, place: Place, name: string, value: Uint8Array | null, mode: number): void {
  const { volume, ino, attr } = place
  if (value !== null) admit(core, place, name, value)
  const count = attr.xattrs + (value === null ? 0 : 1) - (has(place, name) ? 1 : 0)
  const after = altered(attr, { mode, xattrs: count, ctime: core.now() })
  const changes: Change[] = [{ kind: 'attr', volume: volume.number, ino, attr: after }]
  if (value !== null || count !== attr.xattrs) changes.push({ kind: 'xattr', volume: volume.number, ino, name, value })
  core.volumes.commit(changes)
}

function has({ volume, ino, attr }: Place, name: string): boolean {
  return attr.xattrs > 0 && volume.xattr(ino, name) !== undefined
}

function checkName(name: string): void {
  if (name.length > NAME_BYTES_MAX) throw FS.ERANGE
  if (name === ACCESS_ACL || name === DEFAULT_ACL) return
  if (!NAMESPACES.some((namespace) => name.startsWith(namespace))) throw FS.EOPNOTSUPP
  if (NAMESPACES.includes(name)) throw FS.EINVAL
}
