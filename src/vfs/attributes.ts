/** Attributes: getattr, setattr, statfs, and what a change of owner or content does to set-id bits. */
import { FS } from '../errors.ts'
import { type Attr, altered, isDirectory, isRegular, S_ISUID } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ACCESS_ACL, aclAfterChmod, decodeAcl, encodeAcl } from './acl.ts'
import type { Core } from './core.ts'
import type { SetStat, Stat } from './filesystem.ts'
import { givenMode, givenOwner } from './given.ts'
import { type Place, volumeOf } from './place.ts'

export const S_ISGID = 0o2000
const S_IXGRP = 0o010
const CAPABILITY = 'security.capability'

/** Larger files cannot be addressed with exact numbers. */
export const FILE_BYTES_MAX = Number.MAX_SAFE_INTEGER

export function getattr(core: Core, node: number): Stat {
  if (core.isSnapshots(node)) return core.snapshotsStat(volumeOf(node))
  return core.stat(core.place(node))
}

export function setattr(core: Core, node: number, change: SetStat): Stat {
  const place = core.writable(node)
  const now = core.now()
  const changes: Change[] = []
  let attr = altered(place.attr, { ctime: change.ctime ?? now })
  if (change.size !== undefined) attr = resize(place, attr, change.size, changes, now)
  if (change.mode !== undefined) {
    attr.mode = givenMode(core.guard, place, core.gates.storedMode(place, change.mode))
    changes.push(...chmodAcl(place, attr))
  }
  if (change.uid !== undefined || change.gid !== undefined) {
    if (change.uid !== undefined) attr.uid = givenOwner(core.guard, place, change.uid)
    if (change.gid !== undefined) attr.gid = change.gid
    if (change.mode === undefined && !isDirectory(attr)) attr.mode = withoutSetId(attr.mode)
    attr = dropCapability(place, attr, changes)
  }
  if (change.killSuidGid === true) attr.mode = withoutSetId(attr.mode)
  if (change.size !== undefined) attr = dropCapability(place, attr, changes)
  if (change.atime !== undefined) attr.atime = change.atime === 'now' ? now : change.atime
  if (change.mtime !== undefined) attr.mtime = change.mtime === 'now' ? now : change.mtime
  changes.push({ kind: 'attr', volume: place.volume.number, ino: place.ino, attr })
  core.volumes.commit(changes)
  if (change.size !== undefined) core.mapped.resized(node, place.attr.size, change.size)
  return core.stat({ ...place, attr })
}

/** Mode bits after somebody without CAP_FSETID changed owner or content (inode_owner_or_capable(9) rules). */
export function withoutSetId(mode: number): number {
  const bits = mode & ~S_ISUID
  return (mode & S_IXGRP) !== 0 ? bits & ~S_ISGID : bits
}

/** File capabilities belong to the content and owner that they were given to. */
export function dropCapability(place: Place, attr: Attr, changes: Change[]): Attr {
  if (attr.xattrs === 0 || place.volume.xattr(place.ino, CAPABILITY) === undefined) return attr
  changes.push({ kind: 'xattr', volume: place.volume.number, ino: place.ino, name: CAPABILITY, value: null })
  return altered(attr, { xattrs: attr.xattrs - 1 })
}

function resize({ volume, ino }: Place, attr: Attr, size: number, changes: Change[], now: Attr['mtime']): Attr {
  if (isDirectory(attr)) throw FS.EISDIR
  if (!isRegular(attr)) throw FS.EINVAL
  if (size > FILE_BYTES_MAX) throw FS.EFBIG
  let { allocated } = attr
  if (allocated > 0 && size <= attr.size) {
    // Also behind the old end: space that was allocated there with FALLOC_FL_KEEP_SIZE goes as well.
    const length = FILE_BYTES_MAX - size
    allocated -= volume.allocatedIn(ino, size, length)
    changes.push({ kind: 'clear', volume: volume.number, ino, offset: size, length, allocate: false })
  }
  return altered(attr, { size, allocated, mtime: now })
}

function chmodAcl({ volume, ino, attr: before }: Place, attr: Attr): Change[] {
  if (before.xattrs === 0) return []
  const acl = volume.xattr(ino, ACCESS_ACL)
  if (acl === undefined) return []
  return [
    { kind: 'xattr', volume: volume.number, ino, name: ACCESS_ACL, value: encodeAcl(aclAfterChmod(decodeAcl(acl), attr.mode)) },
  ]
}
