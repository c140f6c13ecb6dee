/**
 * What every operation needs: node ids, the way from a node to its volume and inode, and the time.
 */
import { FS } from '../errors.ts'
import { type Attr, altered, isDirectory, S_IFMT, S_IFREG } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import type { Dirent } from '../volume/dirent.ts'
import { ROOT_INO, SNAPSHOTS_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import { Crowds } from './crowds.ts'
import type { Caller, Stat, Time } from './filesystem.ts'
import { Gates } from './gates.ts'
import { ANYBODY, frozenPlace, type Guard, READ, shownMode, shownOwner } from './guard.ts'
import type { KnownNodes } from './known.ts'
import type { GateName } from './lasting.ts'
import { MappedPages } from './mapped.ts'
import { OtherNames } from './othernames.ts'
import { inoOfNode, nodeOf, type Place, volumeOf } from './place.ts'
import type { Quotas } from './quotas.ts'
import { TaintedFiles } from './tainted.ts'
import { Tidings } from './tidings.ts'
import { StaleSizes } from './touched.ts'

/** The name under which a workspace shows its snapshots, unless its record has another. */
export const SNAPSHOTS_NAME = '.snapshots'

/** What the filesystem asks about workspaces and snapshots; `src/workspaces` answers. */
export interface Registry {
  /** the volume of a snapshot's view, or undefined when there is no such view */
  view(number: number): Volume | undefined
  /** where a snapshot of this workspace is seen: the node of its root in its view */
  snapshotNode(volume: number, name: string): number | undefined
  snapshotNames(volume: number): Iterable<{ name: string; node: number }>
  /** the name in a workspace's root under which it shows its snapshots; an own entry of that name hides it */
  snapshotsNameOf(volume: number): string
  /** grows when a snapshot is taken, changed or deleted */
  readonly snapshotsRevision: number
  /** in a view, the view of a workspace that lay inside; elsewhere the workspace itself */
  nested(volume: number, nested: number): number
  /** true when a directory that is made here becomes a workspace */
  makesWorkspace(volume: number, directory: number): boolean
  /** true when a directory of this name, there, would be one in which directories that are made become workspaces */
  makesWorkspaces(volume: number, directory: number, name: string): boolean
  /**
   * The changes that make a workspace of this name in that directory, and its number.
   * @param charged the subject whose limit it counts for
   */
  addWorkspace(volume: number, directory: number, name: string, charged?: string): { number: number; changes: Change[] }
  /** the changes that remove an empty workspace; throws EBUSY when it still has snapshots */
  removeWorkspace(number: number): Change[]
  /** the changes that record a workspace's new place */
  moveWorkspace(number: number, directory: number, name: string): Change[]
  /** the node of the directory that holds a workspace's root, or undefined for the root of all */
  parentOf(volume: number): number | undefined
  /** the name of a workspace that lies in none, and where; undefined for others */
  gateNameOf(volume: number): GateName | undefined
}

/** A restore that the kernel has not been told of to the end. */
export interface Replacement {
  /** true while pages that the kernel has of an inode are of the state that was replaced */
  isStale(ino: number): boolean
  /** true for an inode that the restore changed, also when its pages are fresh */
  isReplaced(ino: number): boolean
}

/**
 * Whether a write may change the mode of an inode. The kernel leaves it to us to clear set-uid and set-gid bits
 * (FUSE_HANDLE_KILLPRIV_V2), no answer to a write, fallocate or copy_file_range carries the mode, and execve(2) honours
 * the mode that the kernel has. So the kernel asks for the attributes of such a file at each look.
 */
function hasSetId(mode: number): boolean {
  return (mode & 0o6000) !== 0 && (mode & S_IFMT) === S_IFREG
}

export interface CoreOptions {
  volumes: Volumes
  registry: Registry
  guard: Guard
  quotas: Quotas
  known: KnownNodes
  now(): Time
  /** owner of what belongs to nobody: the hidden snapshot directories */
  owner: { uid: number; gid: number }
  /** what snapshots do not show, because the mount would let it take effect */
  hidesFromViews: { setId: boolean; devices: boolean }
}

export class Core {
  readonly volumes: Volumes
  readonly registry: Registry
  readonly guard: Guard
  readonly quotas: Quotas
  readonly known: KnownNodes
  readonly now: () => Time
  readonly otherNames = new OtherNames()
  readonly gates: Gates
  readonly mapped: MappedPages
  readonly crowds: Crowds
  readonly tainted: TaintedFiles
  /** by volume */
  readonly replacements = new Map<number, Set<Replacement>>()
  readonly staleSizes = new StaleSizes()
  /** threads of ours that touch files through the mount: what they ask for changes nothing */
  readonly touchers = new Set<number>()
  readonly tidings = new Tidings(this)
  /** how often it was looked whether relations let a user do something, and how often they did not */
  accessChecks = 0
  accessRefusals = 0
  readonly #options: CoreOptions

  constructor(options: CoreOptions) {
    this.volumes = options.volumes
    this.registry = options.registry
    this.guard = options.guard
    this.quotas = options.quotas
    this.known = options.known
    this.now = options.now
    this.#options = options
    this.gates = new Gates(this)
    this.mapped = new MappedPages(this)
    this.crowds = new Crowds(options.guard)
    this.tainted = new TaintedFiles(this)
  }

  /**
   * The inode of a node.
   * @throws ESTALE when its workspace or snapshot is gone, ENOENT when the inode is
   */
  place(node: number): Place {
    const number = volumeOf(node)
    const ino = inoOfNode(node)
    const volume = this.volumes.get(number) ?? this.registry.view(number)
    if (volume === undefined) throw FS.ESTALE
    const attr = volume.attr(ino) ?? this.#ghost(volume, ino)
    if (attr === undefined) throw FS.ENOENT
    return { volume, ino, attr }
  }

  /** The same, for an operation that changes it. @throws EROFS in a snapshot */
  writable(node: number): Place {
    this.#refuseReadOnly(node)
    return this.place(node)
  }

  /** @throws ENOTDIR when the node is something else, ENOENT when it was removed */
  directory(node: number): Place {
    const place = this.place(node)
    if (!isDirectory(place.attr)) throw FS.ENOTDIR
    return place
  }

  writableDirectory(node: number): Place {
    this.#refuseReadOnly(node)
    const place = this.directory(node)
    if (place.attr.nlink === 0) throw FS.ENOENT
    return place
  }

  /**
   * The inode of a node, if relations give the caller all of these permission bits on it.
   * @throws EACCES; otherwise as `place`
   */
  permitted(caller: Caller, node: number, bits: number): Place {
    const place = this.ruling(node)
    this.demand(caller, place, bits)
    return place
  }

  /** The inode whose rights a node has: itself, and for the hidden directory of snapshots the workspace's root. */
  ruling(node: number): Place {
    return this.place(this.isSnapshots(node) ? nodeOf(volumeOf(node), ROOT_INO) : node)
  }

  /** @throws EACCES when relations do not give the caller all of these permission bits */
  demand(caller: Caller, place: Place, bits: number): void {
    if (bits !== 0) this.#check(caller, (this.guard.rwx(caller.uid, place) & bits) === bits)
  }

  /** @throws EACCES when relations give the caller nothing at all on it */
  visible(caller: Caller, place: Place): Place {
    this.#check(caller, this.guard.rwx(caller.uid, place) !== 0)
    return place
  }

  #check(caller: Caller, isAllowed: boolean): void {
    // Nobody refuses root.
    if (caller.uid !== 0) this.accessChecks++
    if (isAllowed) return
    this.accessRefusals++
    throw FS.EACCES
  }

  isSnapshots(node: number): boolean {
    return inoOfNode(node) === SNAPSHOTS_INO
  }

  /** Where an entry of a directory leads. */
  target(volume: Volume, entry: Dirent): Place {
    if (entry.volume === 0) return this.place(nodeOf(volume.number, entry.ino))
    return this.place(nodeOf(this.registry.nested(volume.number, entry.volume), ROOT_INO))
  }

  /**
   * The kernel holds a directory as removed, and as long as somebody is in it no name can be made in that inode
   * of the kernel's again. Should a restore bring the directory back, the kernel has to make itself another.
   */
  buried(node: number): void {
    this.known.bury(volumeOf(node), inoOfNode(node))
  }

  /** The same for all of a workspace: nobody knows in which state it comes back, and what the kernel holds is of another. */
  buriedVolume(volume: number): void {
    this.known.buryVolume(volume)
  }

  /** Whether a volume, which is there, shows a snapshot. */
  isView(volume: number): boolean {
    return this.volumes.get(volume) === undefined
  }

  /** An inode with the permissions that are shown of it: in a snapshot there are fewer. */
  shownPlace(place: Place): Place {
    return this.isView(place.volume.number) ? frozenPlace(place) : place
  }

  /** What the kernel is told of an inode. */
  stat(place: Place): Stat {
    const { volume, ino, attr } = place
    const node = nodeOf(volume.number, ino)
    const uid = shownOwner(this.guard, place)
    const stat: Stat = {
      node,
      generation: this.known.generation(volume.number, ino),
      mode: shownMode(this.guard, this.shownPlace(place), uid),
      nlink: attr.nlink,
      uid,
      gid: attr.gid,
      rdev: attr.rdev,
      size: attr.size,
      allocated: attr.allocated,
      atime: attr.atime,
      mtime: attr.mtime,
      ctime: attr.ctime,
      btime: attr.btime,
    }
    if (hasSetId(attr.mode)) stat.isFleeting = true
    if (attr.rdev !== 0 || stat.isFleeting === true) this.#hideFromView(stat, volume.number)
    return volume.number === 0 ? { ...stat, ...this.gates.shownAs(place) } : stat
  }

  /** A set-id program or a device that the administrator removed or chmodded must not go on working from a snapshot. */
  #hideFromView(stat: Stat, volume: number): void {
    const { setId, devices } = this.#options.hidesFromViews
    if (this.volumes.get(volume) !== undefined) return
    if (setId && hasSetId(stat.mode)) stat.mode &= ~0o6000
    if (devices) stat.rdev = 0
  }

  /** The same, for an answer that makes the kernel hold a reference to the node. */
  statKnown(place: Place): Stat {
    this.known.add(place.volume.number, place.ino)
    return this.stat(place)
  }

  /** The same, for an entry of a directory. @param thread that asked for a name which the kernel may know already */
  statEntry(directory: Place, place: Place, thread?: number): Stat {
    const stat = this.statKnown(place)
    const isGate = this.#isGate(directory, place)
    if (isGate ? !this.gates.keeps(directory, place, thread) : this.guard.isMixed(directory)) stat.isPrivate = true
    else if (isGate && thread !== undefined) stat.isFleeting = true
    return stat
  }

  /** The same, for a listing, whose entries the kernel may not take. */
  statListed(directory: Place, place: Place): Stat {
    const stat = this.stat(place)
    const isGate = this.#isGate(directory, place)
    if (isGate ? !this.gates.isKept(directory, place) : this.guard.isMixed(directory)) stat.isPrivate = true
    return stat
  }

  /** Whether an entry leads from where everybody may go into a workspace. */
  #isGate(directory: Place, place: Place): boolean {
    return (
      place.volume !== directory.volume && !this.guard.guards(directory.volume.number) && this.guard.guards(place.volume.number)
    )
  }

  /** The hidden directory that lists a workspace's snapshots. */
  snapshotsStat(volume: number): Stat {
    const root = this.place(nodeOf(volume, ROOT_INO))
    const { uid, gid } = this.#options.owner
    // Who may read the workspace may: its own bits say so to the kernel.
    const isForAll = (this.guard.rwx(ANYBODY, root) & READ) !== 0 && this.guard.uidsOn(root) !== undefined
    const isOpen = !this.guard.guards(volume) || isForAll
    const mode = isOpen ? 0o040555 : 0o040550
    return { ...this.stat(root), node: nodeOf(volume, SNAPSHOTS_INO), mode, nlink: 2, uid, gid, size: 0, allocated: 0 }
  }

  /** See Filesystem. */
  isStale(node: number): boolean {
    if (this.replacements.size === 0) return false
    const replacements = this.replacements.get(volumeOf(node)) ?? []
    // All are asked: each notes what it was asked for.
    return [...replacements].map((one) => one.isStale(inoOfNode(node))).includes(true)
  }

  /** See Filesystem. */
  appendsAt(node: number): number | undefined {
    if (this.staleSizes.isEmpty && this.replacements.size === 0) return undefined
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    const isReplaced = [...(this.replacements.get(number) ?? [])].some((one) => one.isReplaced(ino))
    if (!isReplaced && !this.staleSizes.has(node)) return undefined
    this.staleSizes.misplaced(node)
    return this.volumes.get(number)?.attr(ino)?.size
  }

  /** A thread of ours touched a file: whoever writes to it from now on has asked for its size after this. */
  touched(node: number): Stat {
    this.staleSizes.settled(node)
    return this.stat(this.place(node))
  }

  /**
   * What is held and lives on only in a state before a restore becomes an inode without a name; those states can go then.
   * Yields now and then: the kernel may hold much, and may ask for it meanwhile.
   */
  *layGhosts(): Generator<void, void> {
    for (const number of this.volumes.numbers()) {
      const volume = this.volumes.get(number)
      if (volume === undefined || volume.ghosts.length === 0) continue
      const laid = [...volume.ghosts]
      for (const ino of this.known.of(number)) {
        if (volume.attr(ino) === undefined) this.#ghost(volume, ino)
        yield
      }
      volume.ghosts.splice(0, volume.ghosts.length, ...volume.ghosts.filter((ghost) => !laid.includes(ghost)))
    }
  }

  #refuseReadOnly(node: number): void {
    if (this.isSnapshots(node) || this.volumes.get(volumeOf(node)) === undefined) {
      if (this.registry.view(volumeOf(node)) !== undefined || this.isSnapshots(node)) throw FS.EROFS
    }
  }

  /**
   * An inode that a restore removed while somebody still has it open: it lives on without a name.
   * Only inodes that the kernel knows are asked for, so only those are brought back.
   */
  #ghost(volume: Volume, ino: number): Attr | undefined {
    for (const ghost of volume.ghosts.toReversed()) {
      const attr = ghost.attr(ino)
      if (attr === undefined) continue
      const revived = altered(attr, { nlink: 0 })
      const base = { volume: volume.number, ino }
      const changes: Change[] = [
        { kind: 'attr', ...base, attr: revived },
        { kind: 'orphan', ...base, present: true },
        ...contentChanges(ghost, ino, volume.number, ino),
      ]
      this.volumes.commit(changes)
      return revived
    }
    return undefined
  }
}

/** Changes that give an inode the content of one in a merged volume: link target, xattrs, data by reference. */
export function contentChanges(from: Volume, fromIno: number, volume: number, ino: number): Change[] {
  const changes: Change[] = []
  const target = from.link(fromIno)
  if (target !== undefined) changes.push({ kind: 'link', volume, ino, target })
  for (const name of from.xattrs(fromIno)) {
    changes.push({ kind: 'xattr', volume, ino, name, value: from.xattr(fromIno, name) ?? null })
  }
  for (const [offset, piece] of from.pieces(fromIno, 0, Number.MAX_SAFE_INTEGER)) {
    if (piece.kind === 'raw') throw FS.EIO
    changes.push({ kind: 'refer', volume, ino, offset, length: piece.length, source: piece })
  }
  return changes
}
