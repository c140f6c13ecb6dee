/** Names: lookup, and making and removing directory entries. */
import { FS } from '../errors.ts'
import { type Attr, altered, groupBits, isDirectory, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, withMask } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type Dirent, freeIndex, slotOf } from '../volume/dirent.ts'
import { INO_MAX, ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import { xattrCost } from '../volume/xattrbytes.ts'
import { ACCESS_ACL, DEFAULT_ACL, decodeAcl, encodeAcl, inheritAcl } from './acl.ts'
import { S_ISGID } from './attributes.ts'
import type { Core } from './core.ts'
import type { Caller, Stat } from './filesystem.ts'
import { ENTER, READ } from './guard.ts'
import { inoOfNode, nodeOf, type Place, volumeOf } from './place.ts'
import { isFormerDefault } from './xattr.ts'

export const NAME_BYTES_MAX = 255
/** PATH_MAX less the closing NUL (linux/limits.h) */
const TARGET_BYTES_MAX = 4095
const O_EXCL = 0o200
/** As many as ext4 takes (EXT4_LINK_MAX): names take room that no quota counts. */
const LINKS_MAX = 65_000

export function lookup(core: Core, caller: Caller, parent: number, name: string): Stat | undefined {
  if (name.length > NAME_BYTES_MAX) throw FS.ENAMETOOLONG
  if (core.isSnapshots(parent)) return lookupSnapshot(core, caller, parent, name)
  const directory = core.directory(parent)
  core.demand(caller, directory, ENTER)
  if (name === '..') return core.statKnown(core.visible(caller, parentOf(core, directory)))
  const entry = directory.volume.entry(directory.ino, name)
  if (entry !== undefined) {
    return core.statEntry(directory, core.visible(caller, core.target(directory.volume, entry)), caller.pid)
  }
  // A snapshot shows no snapshots of its own.
  if (!isReserved(core, directory, name) || core.isView(directory.volume.number)) return undefined
  core.demand(caller, directory, READ)
  return { ...core.snapshotsStat(directory.volume.number), isPrivate: core.guard.isMixed(directory) }
}

function lookupSnapshot(core: Core, caller: Caller, parent: number, name: string): Stat | undefined {
  const root = core.permitted(caller, parent, READ)
  if (name === '..') return core.statKnown(root)
  const node = core.registry.snapshotNode(volumeOf(parent), name)
  return node === undefined ? undefined : core.statKnown(core.place(node))
}

/**
 * The inode of a handle that was made before the kernel dropped it. Whether the handle is of this inode, and of this mount, the
 * kernel sees by the generation.
 * @returns undefined for what has no name any more, and for what relations do not show to the caller: node numbers can be guessed
 */
export function lookupNode(core: Core, caller: Caller, node: number): Stat | undefined {
  if (core.isSnapshots(node)) return undefined
  const number = volumeOf(node)
  const volume = core.volumes.get(number) ?? core.registry.view(number)
  const ino = inoOfNode(node)
  // Not core.place: an inode that a restore removed does not come back for a handle.
  const attr = volume?.attr(ino)
  if (volume === undefined || attr === undefined || attr.nlink === 0) return undefined
  const place = { volume, ino, attr }
  if (core.guard.rwx(caller.uid, place) === 0) return undefined
  // Without its directory it cannot be told what the kernel may keep: the next look asks in the usual way.
  return { ...core.statKnown(place), isPrivate: true, isFleeting: true }
}

/** The directory that holds this one. */
export function parentOf(core: Core, { volume, ino, attr }: Place): Place {
  if (ino !== ROOT_INO) return core.place(nodeOf(volume.number, attr.parent || ROOT_INO))
  return core.place(core.registry.parentOf(volume.number) ?? nodeOf(0, ROOT_INO))
}

export function mknod(core: Core, caller: Caller, parent: number, name: string, mode: number, rdev: number, umask: number): Stat {
  if ((mode & S_IFMT) === S_IFDIR) throw FS.EPERM
  const type = (mode & S_IFMT) === 0 ? S_IFREG : mode & S_IFMT
  return make(core, caller, parent, name, { mode: (mode & 0o7777) | type, rdev, umask })
}

export function create(
  core: Core,
  caller: Caller,
  parent: number,
  name: string,
  mode: number,
  umask: number,
  openFlags: number,
): Stat {
  const directory = core.writableDirectory(parent)
  const existing = directory.volume.entry(directory.ino, name)
  if (existing !== undefined) {
    if (openFlags & O_EXCL) throw FS.EEXIST
    const place = core.target(directory.volume, existing)
    if (isDirectory(place.attr)) throw FS.EISDIR
    return core.statEntry(directory, core.visible(caller, place))
  }
  checkName(core, directory, name)
  return makeIn(core, caller, directory, name, { mode: (mode & 0o7777) | S_IFREG, rdev: 0, umask })
}

export function symlink(core: Core, caller: Caller, parent: number, name: string, target: Uint8Array): Stat {
  if (target.length === 0) throw FS.ENOENT
  if (target.length > TARGET_BYTES_MAX) throw FS.ENAMETOOLONG
  return make(core, caller, parent, name, { mode: 0o777 | S_IFLNK, rdev: 0, umask: 0, target: Buffer.from(target) })
}

export function readlink(core: Core, node: number): Uint8Array {
  const { volume, ino, attr } = core.place(node)
  const target = volume.link(ino)
  if ((attr.mode & S_IFMT) !== S_IFLNK || target === undefined) throw FS.EINVAL
  return target
}

export function mkdir(core: Core, caller: Caller, parent: number, name: string, mode: number, umask: number): Stat {
  const directory = core.writableDirectory(parent)
  const wanted = { mode: (mode & 0o7777) | S_IFDIR, rdev: 0, umask }
  if (!core.registry.makesWorkspace(directory.volume.number, directory.ino)) return make(core, caller, parent, name, wanted)
  const charged = core.guard.chargedSubject(caller.uid)
  checkFree(core, directory, name)
  core.quotas.admitWorkspace(charged)
  const maker = { charged, more: (number: number) => core.guard.owned(number, caller.uid) }
  return makeWorkspace(core, caller, parent, name, wanted, maker).stat
}

/**
 * Makes a directory that is a workspace: the root of a volume of its own.
 * @param maker the subject whose limit it counts for, and what else is to be committed at the same instant
 */
export function makeWorkspace(
  core: Core,
  caller: Caller,
  parent: number,
  name: string,
  wanted: { mode: number; umask: number },
  { charged, more = () => [] }: { charged?: string | undefined; more?: (number: number) => Change[] } = {},
): { stat: Stat; number: number } {
  const directory = core.writableDirectory(parent)
  checkFree(core, directory, name)
  core.quotas.admit(directory.volume.number, 0, 1)
  const { number, changes } = core.registry.addWorkspace(directory.volume.number, directory.ino, name, charged)
  const inode = newInode(core, caller, directory, number, ROOT_INO, { ...wanted, rdev: 0 })
  // The root of a volume has its place and name in the catalog.
  const attr = altered(inode.attr, { parent: 0, name: '' })
  core.volumes.commit([
    ...changes,
    { kind: 'attr', volume: number, ino: ROOT_INO, attr },
    ...inode.changes,
    entryChange(directory, name, { type: S_IFDIR, ino: ROOT_INO, volume: number }),
    touched(core, directory, 1),
    ...more(number),
  ])
  core.guard.moved(number)
  return { stat: core.statEntry(directory, core.place(nodeOf(number, ROOT_INO))), number }
}

export function tmpfile(core: Core, caller: Caller, parent: number, mode: number, umask: number): Stat {
  const directory = core.writableDirectory(parent)
  const { volume } = directory
  admitPlain(core, caller, volume)
  const ino = nextIno(volume)
  const inode = newInode(core, caller, directory, volume.number, ino, { mode: (mode & 0o7777) | S_IFREG, rdev: 0, umask })
  core.quotas.admit(volume.number, bytesOf(inode.changes), 1)
  // Rights come from the directory: a caller may have a grant on that one alone.
  const attr = altered(inode.attr, { nlink: 0, parent: directory.ino })
  core.volumes.commit([
    { kind: 'attr', volume: volume.number, ino, attr },
    ...inode.changes,
    { kind: 'orphan', volume: volume.number, ino, present: true },
  ])
  return core.statKnown({ volume, ino, attr })
}

export function link(core: Core, caller: Caller, node: number, newParent: number, newName: string): Stat {
  const directory = core.writableDirectory(newParent)
  const { volume, ino, attr: before } = core.writable(node)
  if (volume !== directory.volume) throw FS.EXDEV
  if (isDirectory(before)) throw FS.EPERM
  checkFree(core, directory, newName)
  if (before.nlink >= LINKS_MAX) throw FS.EMLINK
  admitPlain(core, caller, volume, before.nlink)
  core.otherNames.remember(volume.number, ino, before)
  const attr = altered(before, { nlink: before.nlink + 1, ctime: core.now(), parent: directory.ino, name: newName })
  const base = { volume: volume.number, ino }
  core.volumes.commit([
    { kind: 'attr', ...base, attr },
    ...(before.nlink === 0 ? [{ kind: 'orphan', ...base, present: false } as const] : []),
    entryChange(directory, newName, { type: attr.mode & S_IFMT, ino, volume: 0 }),
    touched(core, directory, 0),
  ])
  core.guard.moved(volume.number, { ino, from: before.parent, to: directory.ino })
  return core.statEntry(directory, { volume, ino, attr })
}

export function unlink(core: Core, parent: number, name: string): void {
  const directory = core.writableDirectory(parent)
  const entry = existing(core, directory, name)
  const place = core.target(directory.volume, entry)
  if (isDirectory(place.attr)) throw FS.EISDIR
  core.volumes.commit([removeEntry(directory, entry), ...unlinked(core, place, directory, name), touched(core, directory, 0)])
}

export function rmdir(core: Core, parent: number, name: string): void {
  const directory = core.writableDirectory(parent)
  const entry = existing(core, directory, name)
  const place = core.target(directory.volume, entry)
  if (!isDirectory(place.attr)) throw FS.ENOTDIR
  core.volumes.commit([removeEntry(directory, entry), ...removedDirectory(core, entry, place), touched(core, directory, -1)])
  // What was seen inside of a workspace that is gone led to the one around it.
  if (entry.volume !== 0) {
    core.guard.gone([entry.volume])
    core.gates.expireSoon([directory.volume.number])
  }
  core.buried(nodeOf(place.volume.number, place.ino))
}

/** The kernel gives back references to a node: one without a name goes with the last. */
export function forget(core: Core, node: number, times: number): void {
  const ino = inoOfNode(node)
  const held = !core.known.remove(volumeOf(node), ino, times)
  if (!held) {
    core.crowds.forget(node)
    core.staleSizes.settled(node)
    core.mapped.forgotten(node)
  }
  const volume = core.volumes.get(volumeOf(node))
  if (held || volume === undefined || !volume.orphanInos.has(ino)) return
  core.volumes.dropOrphan(volume.number, ino)
}

/** What happens to an inode when one of its names goes. */
export function unlinked(core: Core, { volume, ino, attr: before }: Place, directory: Place, name: string): Change[] {
  const attr = altered(before, { nlink: before.nlink - 1, ctime: core.now() })
  // Rights come from the directory of the recorded name: one that is left has to take its place.
  const wasRecorded = before.parent === directory.ino && before.name === name
  if (attr.nlink > 0 && wasRecorded) Object.assign(attr, core.otherNames.besides(volume, ino, { parent: directory.ino, name }))
  const base = { volume: volume.number, ino }
  const changes: Change[] = [{ kind: 'attr', ...base, attr }]
  core.guard.removed(volume.number, ino)
  if (attr.nlink > 0 && wasRecorded) core.guard.moved(volume.number, { ino, from: directory.ino, to: attr.parent })
  // Somebody may have it open: it goes when the kernel forgets it, or at the next mount.
  if (attr.nlink === 0) changes.push({ kind: 'orphan', ...base, present: true })
  return changes
}

/** What happens to an empty directory when its name goes. @throws ENOTEMPTY, EBUSY */
export function removedDirectory(core: Core, entry: Dirent, place: Place): Change[] {
  if (place.volume.hasEntries(place.ino)) throw FS.ENOTEMPTY
  if (entry.volume !== 0) {
    core.guard.moved(0)
    return core.registry.removeWorkspace(entry.volume)
  }
  core.guard.removed(place.volume.number, place.ino)
  const attr = altered(place.attr, { nlink: 0, ctime: core.now() })
  const base = { volume: place.volume.number, ino: place.ino }
  return [
    { kind: 'attr', ...base, attr },
    { kind: 'orphan', ...base, present: true },
  ]
}

/** The entry of that name. @throws ENOENT */
export function existing(core: Core, directory: Place, name: string): Dirent {
  if (name.length > NAME_BYTES_MAX) throw FS.ENAMETOOLONG
  const entry = directory.volume.entry(directory.ino, name)
  if (entry === undefined) throw isReserved(core, directory, name) ? FS.EROFS : FS.ENOENT
  return entry
}

/** @throws EEXIST, ENAMETOOLONG, EINVAL when an entry of this name cannot be made */
export function checkFree(core: Core, directory: Place, name: string): void {
  checkName(core, directory, name)
  if (directory.volume.entry(directory.ino, name) !== undefined) throw FS.EEXIST
}

function checkName(core: Core, directory: Place, name: string): void {
  if (name.length > NAME_BYTES_MAX) throw FS.ENAMETOOLONG
  if (name.length === 0 || name.includes('/') || name.includes('\0')) throw FS.EINVAL
  if (name === '.' || name === '..' || isReserved(core, directory, name)) throw FS.EEXIST
}

/** True for the name under which a workspace shows its snapshots; an entry of that name, where there is one, comes first. */
export function isReserved(core: Core, directory: Place, name: string): boolean {
  return directory.ino === ROOT_INO && name === core.registry.snapshotsNameOf(directory.volume.number)
}

/** The change that puts an entry into a directory, in place of the one at `index` if that is given. */
export function entryChange(
  directory: Place,
  name: string,
  to: { type: number; ino: number; volume: number },
  replaced?: Dirent,
): Change {
  const { volume, ino } = directory
  const slot = slotOf(name)
  const index = replaced?.index ?? freeIndex(volume.bucket(ino, slot))
  // Sixteen names of one directory share 48 bits of hash: nobody gets there by accident.
  if (index === -1) throw FS.ENOSPC
  return {
    kind: 'entry',
    volume: volume.number,
    ino,
    slot,
    entry: { index, name, type: to.type, ino: to.ino, volume: to.volume },
  }
}

export function removeEntry(directory: Place, entry: Dirent): Change {
  return { kind: 'unentry', volume: directory.volume.number, ino: directory.ino, slot: slotOf(entry.name), index: entry.index }
}

/** A directory whose entries changed. @param links by how many its subdirectories grew */
export function touched(core: Core, { volume, ino, attr }: Place, links: number): Change {
  const now = core.now()
  return { kind: 'attr', volume: volume.number, ino, attr: altered(attr, { nlink: attr.nlink + links, mtime: now, ctime: now }) }
}

interface Wanted {
  mode: number
  rdev: number
  umask: number
  target?: Buffer
}

function make(core: Core, caller: Caller, parent: number, name: string, wanted: Wanted): Stat {
  const directory = core.writableDirectory(parent)
  checkFree(core, directory, name)
  return makeIn(core, caller, directory, name, wanted)
}

/** The same in a directory that is known to be free of that name. */
function makeIn(core: Core, caller: Caller, directory: Place, name: string, wanted: Wanted): Stat {
  const { volume } = directory
  admitPlain(core, caller, volume)
  const ino = nextIno(volume)
  const inode = newInode(core, caller, directory, volume.number, ino, wanted)
  core.quotas.admit(volume.number, bytesOf(inode.changes), 1)
  const attr = altered(inode.attr, { parent: directory.ino, name })
  core.volumes.commit([
    { kind: 'attr', volume: volume.number, ino, attr },
    ...inode.changes,
    ...(wanted.target === undefined ? [] : [{ kind: 'link', volume: volume.number, ino, target: wanted.target } as const]),
    entryChange(directory, name, { type: attr.mode & S_IFMT, ino, volume: 0 }),
    touched(core, directory, isDirectory(attr) ? 1 : 0),
  ])
  return core.statEntry(directory, { volume, ino, attr })
}

/**
 * Outside of workspaces all users list the same directories, and no user may fill them.
 * @param links names that what is linked has already: it may be another's
 * @throws EDQUOT
 */
function admitPlain(core: Core, { uid }: Caller, volume: Volume, links = 0): void {
  if (volume.number !== 0) return
  core.quotas.admitPlain(core.guard.chargedSubject(uid), () => Math.max(links, volume.namesOf(uid)))
}

/** What the ACLs that a new inode inherits count for. */
function bytesOf(changes: readonly Change[]): number {
  let bytes = 0
  for (const change of changes) if (change.kind === 'xattr') bytes += xattrCost(change.name, change.value)
  return bytes
}

/** Attributes of a new inode, and the ACLs that its directory gives it. */
function newInode(
  core: Core,
  caller: Caller,
  directory: Place,
  volume: number,
  ino: number,
  wanted: Wanted,
): { attr: Attr; changes: Change[] } {
  const isDir = (wanted.mode & S_IFMT) === S_IFDIR
  const inherits = (directory.attr.mode & S_ISGID) !== 0
  const changes: Change[] = []
  const xattr = (name: string, value: Uint8Array): void => {
    changes.push({ kind: 'xattr', volume, ino, name, value })
  }
  const { mode, mask } = newMode(core, directory, volume, wanted, xattr)
  const now = core.now()
  const attr: Attr = {
    mode: mask === undefined ? mode : withMask(mode, mask),
    nlink: isDir ? 2 : 1,
    uid: caller.uid,
    gid: inherits ? directory.attr.gid : caller.gid,
    rdev: wanted.rdev,
    size: wanted.target?.length ?? 0,
    allocated: 0,
    xattrs: changes.length,
    atime: now,
    mtime: now,
    ctime: now,
    btime: now,
    parent: 0,
    name: '',
  }
  return { attr, changes }
}

/**
 * The mode of a new inode, and its mask, where it has one: the bits that the program wanted for the group before the umask took
 * some, so that what is shared by grants is shared under umask 022 too. A default ACL stands in for the umask and names no one here
 * (relations do).
 */
function newMode(
  core: Core,
  directory: Place,
  volume: number,
  wanted: Wanted,
  xattr: (name: string, value: Uint8Array) => void,
): { mode: number; mask: number | undefined } {
  const isDir = (wanted.mode & S_IFMT) === S_IFDIR
  if ((wanted.mode & S_IFMT) === S_IFLNK) return { mode: wanted.mode, mask: undefined }
  const asked = isDir && (directory.attr.mode & S_ISGID) !== 0 ? wanted.mode | S_ISGID : wanted.mode
  const masked = (mode: number, mask: number): { mode: number; mask: number | undefined } => ({
    mode,
    mask: volume === 0 ? undefined : groupBits(mask),
  })
  const defaults = directory.attr.xattrs === 0 ? undefined : directory.volume.xattr(directory.ino, DEFAULT_ACL)
  if (defaults === undefined || isFormerDefault(core, directory, DEFAULT_ACL, defaults))
    return masked(asked & ~wanted.umask, asked)
  const inherited = inheritAcl(decodeAcl(defaults), asked)
  if (inherited.access !== undefined && !core.guard.guards(volume)) xattr(ACCESS_ACL, encodeAcl(inherited.access))
  if (isDir) xattr(DEFAULT_ACL, Buffer.from(defaults))
  return masked(inherited.mode, inherited.mode)
}

function nextIno(volume: Volume): number {
  const ino = volume.super.inoNext
  if (ino > INO_MAX) throw FS.ENOSPC
  return ino
}
