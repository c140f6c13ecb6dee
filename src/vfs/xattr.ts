/** Extended attributes; POSIX ACLs are two of them and belong to the mode. */
import { FS } from '../errors.ts'
import { altered, groupBits, isDirectory, isRegular, withMask } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { xattrCost } from '../volume/xattrbytes.ts'
import { ACCESS_ACL, type AclEntry, aclMode, DEFAULT_ACL, decodeAcl, encodeAcl, isOpenAcl } from './acl.ts'
import { S_ISGID } from './attributes.ts'
import type { Core } from './core.ts'
import { givenAclMode, givenDefaultAcl } from './given.ts'
import { shownAcl, snapshotsAcl, WRITE } from './guard.ts'
import { type Place, volumeOf } from './place.ts'

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

/** @param asker uid, whom an ACL that has not room for all names */
export function getxattr(core: Core, node: number, name: string, asker: number): Uint8Array {
  checkName(name)
  if (name === ACCESS_ACL && core.guard.guards(volumeOf(node))) return encodeAcl(aclOf(core, node, asker))
  if (core.isSnapshots(node)) throw absent(name)
  const place = core.place(node)
  const shown = name === ACCESS_ACL ? core.gates.acl(place) : undefined
  if (shown !== undefined) return encodeAcl(shown)
  const { volume, ino, attr } = place
  const value = attr.xattrs === 0 ? undefined : volume.xattr(ino, name)
  if (value === undefined || isFormerDefault(core, place, name, value)) throw absent(name)
  return name === ACCESS_ACL && isRegular(attr) && core.isView(volume.number) ? withoutWriting(value) : value
}

/**
 * Workspaces had an open default ACL, as long as they did without the umask. Nobody set it, so it is as if it were not there; a
 * default ACL that a program sets is stored in another way (givenDefaultAcl).
 */
export function isFormerDefault(core: Core, { volume }: Pick<Place, 'volume'>, name: string, value: Uint8Array): boolean {
  return name === DEFAULT_ACL && isOpenAcl(value) && core.guard.guards(volume.number)
}

/** As a snapshot shows a file: nobody may open it for writing (frozenPlace). */
function withoutWriting(value: Uint8Array): Uint8Array {
  return encodeAcl(decodeAcl(value).map((entry) => ({ ...entry, perm: entry.perm & ~WRITE })))
}

function absent(name: string): Error {
  return name === SELINUX ? FS.EOPNOTSUPP : FS.ENODATA
}

/** Compiled of the permission bits and of what relations give: the kernel asks for it, and getfacl(1). */
function aclOf(core: Core, node: number, asker: number): AclEntry[] {
  const place = core.ruling(node)
  const names = core.crowds.names(asker, node, place)
  return core.isSnapshots(node) ? snapshotsAcl(core.guard, place, names) : shownAcl(core.guard, core.shownPlace(place), names)
}

export function listxattr(core: Core, node: number): string[] {
  if (core.isSnapshots(node)) return []
  const place = core.place(node)
  const { volume, ino, attr } = place
  if (attr.xattrs === 0) return []
  const names = volume.xattrs(ino)
  const value = names.includes(DEFAULT_ACL) ? volume.xattr(ino, DEFAULT_ACL) : undefined
  const isFormer = value !== undefined && isFormerDefault(core, place, DEFAULT_ACL, value)
  return isFormer ? names.filter((name) => name !== DEFAULT_ACL) : names
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
    const isGuarded = core.guard.guards(place.volume.number)
    const stored = isGuarded && entries.length > 0 ? givenDefaultAcl(entries) : encodeAcl(entries)
    commit(core, place, name, entries.length === 0 ? null : stored, place.attr.mode)
    return
  }
  if (entries.length === 0) {
    commit(core, place, name, null, place.attr.mode)
    return
  }
  if (core.guard.guards(place.volume.number)) {
    const mode = givenAclMode(core.guard, place, entries)
    commit(core, place, name, null, killSgid ? mode & ~S_ISGID : mode)
    return
  }
  const stored = core.gates.storedAcl(place, entries)
  const { mode, exact } = aclMode(stored)
  const kept = (place.attr.mode & ~0o777 & (killSgid ? ~S_ISGID : -1)) | mode
  const bits = place.volume.number === 0 ? kept : withMask(kept, groupBits(kept))
  commit(core, place, name, exact ? null : encodeAcl(stored), bits)
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
