/** What differs between two states of a volume, by path: what came, went, moved or changed, each path once. */
import type { ChangeInfo } from '../api/snapshots.ts'
import { ancestors } from '../volume/ancestors.ts'
import { type Attr, isDirectory, MODE_BITS, maskOf, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../volume/attr.ts'
import type { Dirent } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Piece } from '../volume/piece.ts'
import type { Volume } from '../volume/volume.ts'
import { namesIfKnown, shownName } from '../workspaces/paths.ts'
import { type InodeDiff, inodeDiffs } from './inodediffs.ts'

/** Whether names in a directory are for whoever asks for the differences. */
export type Sees = (volume: Volume, directory: number) => boolean

export interface Scope {
  /** names in front of every path */
  prefix?: readonly string[]
  /** every directory when not given */
  sees?: Sees | undefined
}

/** A change, and where it stands among others: by names, byte for byte, a directory before what lies in it. */
export interface Listed {
  key: string
  change: ChangeInfo
}

/**
 * The differences below one directory, in no order.
 * @param directory only what lies in it; a path is relative to it
 */
export function pathChanges(before: Volume, after: Volume, directory: number, scope: Scope = {}): Generator<Listed | undefined> {
  return new Comparison(before, after, directory, scope).run()
}

/** Directories of which it is remembered what has taken their place. */
const COUNTERPARTS_MAX = 100_000

interface Move {
  from: string[]
  to: string[]
}

class Comparison {
  readonly #before: Volume
  readonly #after: Volume
  readonly #directory: number
  readonly #prefix: readonly string[]
  readonly #sees: Sees
  readonly #later = new Map<number, number | undefined>()
  readonly #earlier = new Map<number, number | undefined>()
  /** workspaces inside, whose place is in the entries that lead to them alone */
  readonly #gone = new Map<number, string[]>()
  readonly #come = new Map<number, string[]>()

  constructor(before: Volume, after: Volume, directory: number, { prefix = [], sees = () => true }: Scope) {
    this.#before = before
    this.#after = after
    this.#directory = directory
    this.#prefix = prefix
    this.#sees = sees
  }

  /** Yields undefined where nothing is to be said, so that whoever reads this can pause. */
  *run(): Generator<Listed | undefined> {
    for (const diff of inodeDiffs(this.#before, this.#after)) {
      yield undefined
      for (const entry of diff.removed) yield this.#removed(diff.ino, entry)
      for (const entry of diff.added) yield this.#added(diff.ino, entry)
      yield this.#changed(diff)
    }
    for (const [number, from] of this.#gone) {
      const to = this.#come.get(number)
      yield to === undefined ? this.#listed(from, 'removed', S_IFDIR, []) : this.#renamed({ from, to }, S_IFDIR, [])
    }
    for (const [number, to] of this.#come) if (!this.#gone.has(number)) yield this.#listed(to, 'added', S_IFDIR, [])
  }

  #removed(directory: number, entry: Dirent): Listed | undefined {
    const parent = this.#where(this.#before, directory)
    if (parent === undefined || (entry.volume === 0 && this.#moveOf(entry.ino) !== undefined)) return undefined
    const later = this.#laterOf(directory)
    const twin = later === undefined ? undefined : this.#after.entry(later, entry.name)
    // What has taken its place is told of as changed, or as moved to there.
    if (twin !== undefined && later !== undefined && this.#where(this.#after, later) !== undefined) return undefined
    const names = [...parent, entry.name]
    if (entry.volume === 0) return this.#listed(names, 'removed', entry.type, [])
    this.#gone.set(entry.volume, names)
    return undefined
  }

  #added(directory: number, entry: Dirent): Listed | undefined {
    const parent = this.#where(this.#after, directory)
    if (parent === undefined || (entry.volume === 0 && this.#moveOf(entry.ino) !== undefined)) return undefined
    const names = [...parent, entry.name]
    const earlier = this.#earlierOf(directory)
    const twin = earlier === undefined ? undefined : this.#before.entry(earlier, entry.name)
    const isReplaced =
      twin !== undefined &&
      earlier !== undefined &&
      this.#where(this.#before, earlier) !== undefined &&
      (twin.volume !== 0 || this.#moveOf(twin.ino) === undefined)
    if (isReplaced) {
      const what = this.#replacedBy(twin, entry)
      return what.length === 0 ? undefined : this.#listed(names, 'modified', entry.type, what)
    }
    if (entry.volume === 0) return this.#listed(names, 'added', entry.type, [])
    this.#come.set(entry.volume, names)
    return undefined
  }

  /** How something differs from what had its name before. */
  #replacedBy(twin: Dirent, entry: Dirent): string[] {
    if (twin.type !== entry.type) return ['type']
    if (twin.volume !== 0 || entry.volume !== 0) return ['content']
    const [old, fresh] = [this.#before.attr(twin.ino), this.#after.attr(entry.ino)]
    if (old === undefined || fresh === undefined) return ['content']
    return whatDiffers(old, fresh, {
      data: !hasSameBytes(piecesOf(this.#before, twin.ino), piecesOf(this.#after, entry.ino)),
      xattr: xattrsOf(this.#before, twin.ino) !== xattrsOf(this.#after, entry.ino),
      target: linkOf(this.#before, twin.ino) !== linkOf(this.#after, entry.ino),
    })
  }

  /** What is there in both states. */
  #changed(diff: InodeDiff): Listed | undefined {
    const { ino, before: old, after: fresh } = diff
    if (old === undefined || fresh === undefined || fresh.nlink === 0 || old.nlink === 0) return undefined
    const what = whatDiffers(old, fresh, diff)
    const type = fresh.mode & S_IFMT
    const move = this.#moveOf(ino)
    // A directory of its name took the place of the one that it was in.
    if (move !== undefined && keyOf(move.from) !== keyOf(move.to)) return this.#renamed(move, type, what)
    if (what.length === 0) return undefined
    const names = move?.to ?? this.#namesInBoth(ino, old, fresh)
    return names === undefined ? undefined : this.#listed(names, 'modified', type, what)
  }

  /** A path that the inode has in both states; what has none is told of as added. */
  #namesInBoth(ino: number, old: Attr, fresh: Attr): string[] | undefined {
    if (ino === ROOT_INO || isDirectory(fresh)) {
      if (ino !== ROOT_INO && !isSamePlace(old, fresh)) return undefined
      return this.#sees(this.#after, fresh.parent || ROOT_INO) ? below(this.#after, ino, this.#directory) : undefined
    }
    for (const { parent, name } of [fresh, old]) {
      const earlier = this.#earlierOf(parent)
      const isInBoth =
        this.#after.entry(parent, name)?.ino === ino && earlier !== undefined && this.#before.entry(earlier, name)?.ino === ino
      const where = isInBoth ? this.#where(this.#after, parent) : undefined
      if (where !== undefined) return [...where, name]
    }
    const found = fresh.nlink > 1 ? this.#findName(ino) : undefined
    const where = found && this.#where(this.#after, found.parent)
    return where === undefined || found === undefined ? undefined : [...where, found.name]
  }

  /** The slow way, for a file with several names of which the last was given after the first state. */
  #findName(ino: number): { parent: number; name: string } | undefined {
    // What is added while a set is walked is walked as well; a damaged directory may lie in itself.
    const directories = new Set([ROOT_INO])
    for (const parent of directories) {
      for (const [, entry] of this.#after.entries(parent)) {
        if (entry.volume !== 0) continue
        const earlier = entry.ino === ino ? this.#earlierOf(parent) : undefined
        if (earlier !== undefined && this.#before.entry(earlier, entry.name)?.ino === ino) return { parent, name: entry.name }
        if (entry.type === S_IFDIR) directories.add(entry.ino)
      }
    }
    return undefined
  }

  /**
   * Where an inode was and is, if it has one name and that is another now. Not where it took the place of a file that is gone:
   * then that path has changed, and the old one is gone.
   */
  #moveOf(ino: number, asked: Set<number> = new Set()): Move | undefined {
    const [old, fresh] = [this.#before.attr(ino), this.#after.attr(ino)]
    if (ino === ROOT_INO || old === undefined || fresh === undefined || isSamePlace(old, fresh)) return undefined
    const isTree = isDirectory(old) && isDirectory(fresh) && old.nlink > 0 && fresh.nlink > 0
    if (!isTree && (old.nlink !== 1 || fresh.nlink !== 1)) return undefined
    const [from, to] = [this.#where(this.#before, old.parent), this.#where(this.#after, fresh.parent)]
    if (from === undefined || to === undefined) return undefined
    const earlier = this.#earlierOf(fresh.parent)
    const occupant = earlier === undefined ? undefined : this.#before.entry(earlier, fresh.name)
    // A directory that is replaced was empty; things that change places have all moved.
    const isFree = occupant === undefined || occupant.ino === ino || (isTree && occupant.type === S_IFDIR)
    if (!isFree && (occupant.volume !== 0 || !this.#movesToo(occupant.ino, asked.add(ino)))) return undefined
    return { from: [...from, old.name], to: [...to, fresh.name] }
  }

  #movesToo(ino: number, asked: Set<number>): boolean {
    return asked.has(ino) || this.#moveOf(ino, asked) !== undefined
  }

  /** The directory that has the place, in the second state, of one of the first. */
  #laterOf(ino: number): number | undefined {
    return counterpart(ino, this.#before, this.#after, this.#later)
  }

  #earlierOf(ino: number): number | undefined {
    return counterpart(ino, this.#after, this.#before, this.#earlier)
  }

  /** Names down to a directory, if it lies in the one that is compared, and may be listed. */
  #where(volume: Volume, ino: number): string[] | undefined {
    const directory = ino || ROOT_INO
    return this.#sees(volume, directory) ? below(volume, directory, this.#directory) : undefined
  }

  #listed(names: readonly string[], change: ChangeInfo['change'], type: number, what: string[]): Listed {
    const all = [...this.#prefix, ...names]
    return { key: keyOf(all), change: { path: shown(all), change, kind: kindOfType(type), what } }
  }

  #renamed({ from, to }: Move, type: number, what: string[]): Listed {
    const listed = this.#listed(to, 'renamed', type, what)
    return { ...listed, change: { ...listed.change, from: shown([...this.#prefix, ...from]) } }
  }
}

/** The directory of another state that has the path of this one: itself, or what took its place when it went. */
function counterpart(
  ino: number,
  volume: Volume,
  other: Volume,
  known: Map<number, number | undefined>,
  depth = 0,
): number | undefined {
  if (ino === ROOT_INO || isAlive(other, ino)) return ino
  if (known.has(ino)) return known.get(ino)
  const attr = volume.attr(ino)
  // A damaged directory may lie in itself.
  const parent = attr === undefined || depth > 4096 ? undefined : counterpart(attr.parent, volume, other, known, depth + 1)
  const entry = attr === undefined || parent === undefined ? undefined : other.entry(parent, attr.name)
  const found = entry?.volume === 0 && entry.type === S_IFDIR && !isAlive(volume, entry.ino) ? entry.ino : undefined
  if (known.size >= COUNTERPARTS_MAX) known.clear()
  known.set(ino, found)
  return found
}

function isAlive(volume: Volume, ino: number): boolean {
  return (volume.attr(ino)?.nlink ?? 0) > 0
}

function isSamePlace(old: Attr, fresh: Attr): boolean {
  return old.parent === fresh.parent && old.name === fresh.name
}

function whatDiffers(old: Attr, fresh: Attr, of: Pick<InodeDiff, 'data' | 'xattr' | 'target'>): string[] {
  const what: string[] = []
  const isTree = isDirectory(fresh)
  if (!isTree && (fresh.mode & S_IFMT) !== S_IFLNK && (of.data || old.size !== fresh.size)) what.push('content')
  // The mask too: it is what those who were granted may do.
  if ((old.mode & MODE_BITS) !== (fresh.mode & MODE_BITS) || maskOf(old.mode) !== maskOf(fresh.mode)) what.push('mode')
  if (old.uid !== fresh.uid || old.gid !== fresh.gid) what.push('owner')
  // A directory's time changes with its entries, which are reported themselves.
  if (!isTree && (old.mtime.s !== fresh.mtime.s || old.mtime.ns !== fresh.mtime.ns)) what.push('mtime')
  if (of.xattr) what.push('xattr')
  if (of.target) what.push('target')
  return what
}

function piecesOf(volume: Volume, ino: number): Iterable<[at: number, piece: Piece]> {
  return volume.pieces(ino, 0, Number.MAX_SAFE_INTEGER)
}

/** By addresses: what is cut in the same way and is equal has the same. */
function hasSameBytes(before: Iterable<[number, Piece]>, after: Iterable<[number, Piece]>): boolean {
  const others = after[Symbol.iterator]()
  for (const [at, piece] of before) {
    const other = others.next()
    if (other.done === true || !isSamePiece([at, piece], other.value)) return false
  }
  return others.next().done === true
}

function isSamePiece([at, piece]: [number, Piece], [otherAt, other]: [number, Piece]): boolean {
  if (at !== otherAt || piece.length !== other.length) return false
  if (piece.kind === 'zero') return other.kind === 'zero'
  return piece.kind === 'chunk' && other.kind === 'chunk' && piece.address === other.address && piece.offset === other.offset
}

function xattrsOf(volume: Volume, ino: number): string {
  const values = volume.xattrs(ino).map((name) => [name, Buffer.from(volume.xattr(ino, name) ?? []).toString('latin1')])
  return JSON.stringify(values.sort())
}

function linkOf(volume: Volume, ino: number): string {
  return Buffer.from(volume.link(ino) ?? []).toString('latin1')
}

/** Names from `directory` down to a directory in it; undefined when it is elsewhere, and when damage leaves no way to it. */
function below(volume: Volume, ino: number, directory: number): string[] | undefined {
  const names = namesIfKnown(volume, ino)
  if (names === undefined || directory === ROOT_INO) return names
  // By inodes: two directories may have had the same names one after the other, and names may be damaged.
  const depth = [...ancestors(volume, ino)].indexOf(directory)
  return depth < 0 ? undefined : names.slice(names.length - depth)
}

function kindOfType(type: number): ChangeInfo['kind'] {
  if (type === S_IFREG) return 'file'
  if (type === S_IFDIR) return 'directory'
  return type === S_IFLNK ? 'symlink' : 'other'
}

/** NUL sorts before whatever a name may have. */
function keyOf(names: readonly string[]): string {
  return names.join('\0')
}

function shown(names: readonly string[]): string {
  return names.length === 0 ? '.' : names.map(shownName).join('/')
}
