/** What differs between two states of a volume, as files and directories. */

import { ByteReader } from '../bytes.ts'
import type { Change } from '../control/service.ts'
import { ancestors } from '../volume/ancestors.ts'
import { type Attr, isDirectory, MODE_BITS, maskOf, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../volume/attr.ts'
import { type Bucket, type Dirent, decodeBucket } from '../volume/dirent.ts'
import { inoOf, Kind, kindOf, ROOT_INO, stringPart } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import { namesIfKnown, shownName } from '../workspaces/paths.ts'

/** How one inode differs; entries are those of a directory. */
export interface InodeDiff {
  ino: number
  before: Attr | undefined
  after: Attr | undefined
  data: boolean
  xattr: boolean
  target: boolean
  removed: Dirent[]
  added: Dirent[]
}

/** Every inode that differs between two states of a volume, ascending; shared parts of the trees are not read. */
export function* inodeDiffs(before: Volume, after: Volume): Generator<InodeDiff> {
  let current: InodeDiff | undefined
  for (const { key, before: old, after: fresh } of before.tree.diff(before.root, after.root)) {
    const ino = inoOf(key)
    if (ino === 0) continue
    if (current === undefined || current.ino !== ino) {
      if (current !== undefined) yield current
      const [left, right] = [before.attr(ino), after.attr(ino)]
      current = { ino, before: left, after: right, data: false, xattr: false, target: false, removed: [], added: [] }
    }
    const kind = kindOf(key)
    if (kind === Kind.window) current.data = true
    else if (kind === Kind.xattr) current.xattr ||= stringPart(key) !== ''
    else if (kind === Kind.link) current.target = true
    else if (kind === Kind.dirent) diffBuckets(bucketOf(old), bucketOf(fresh), current)
  }
  if (current !== undefined) yield current
}

function bucketOf(value: Buffer | undefined): Bucket {
  return value === undefined ? [] : decodeBucket(new ByteReader(value))
}

function diffBuckets(before: Bucket, after: Bucket, into: InodeDiff): void {
  const same = (a: Dirent, b: Dirent): boolean =>
    a.name === b.name && a.ino === b.ino && a.volume === b.volume && a.type === b.type
  into.removed.push(...before.filter((entry) => !after.some((other) => same(entry, other))))
  into.added.push(...after.filter((entry) => !before.some((other) => same(entry, other))))
}

/** Whether names in a directory are for whoever asks for the differences. */
export type Sees = (volume: Volume, directory: number) => boolean

export interface Scope {
  /** names in front of every path */
  prefix?: readonly string[]
  /** every directory when not given */
  sees?: Sees | undefined
}

/**
 * The differences as people want them: paths that came, went, or changed, below one directory.
 * @param directory only what lies in it; a path is relative to it
 */
export function* pathChanges(
  before: Volume,
  after: Volume,
  directory: number,
  { prefix = [], sees = () => true }: Scope = {},
): Generator<Change> {
  const where = (volume: Volume, ino: number): string[] | undefined =>
    sees(volume, ino) ? below(volume, ino, directory) : undefined
  for (const diff of inodeDiffs(before, after)) {
    for (const entry of diff.removed) {
      const twin = diff.added.find((other) => other.name === entry.name)
      const parent = where(before, diff.ino)
      if (parent === undefined || (twin !== undefined && twin.type === entry.type)) continue
      yield { path: shown([...prefix, ...parent, entry.name]), change: 'removed', kind: kindOfType(entry.type), what: [] }
    }
    for (const entry of diff.added) {
      const parent = where(after, diff.ino)
      if (parent === undefined) continue
      const twin = diff.removed.find((other) => other.name === entry.name)
      const path = shown([...prefix, ...parent, entry.name])
      if (twin === undefined || twin.type !== entry.type) yield { path, change: 'added', kind: kindOfType(entry.type), what: [] }
      else yield { path, change: 'modified', kind: kindOfType(entry.type), what: ['content'] }
    }
    const { before: old, after: fresh } = diff
    if (old === undefined || fresh === undefined || fresh.nlink === 0 || old.nlink === 0) continue
    const what = whatDiffers(diff, old, fresh)
    if (what.length === 0) continue
    const names = isDirectory(fresh)
      ? sees(after, fresh.parent || ROOT_INO) && below(after, diff.ino, directory)
      : whereFile(after, diff.ino, fresh, where)
    if (!names) continue
    yield { path: shown([...prefix, ...names]), change: 'modified', kind: kindOfType(fresh.mode & S_IFMT), what }
  }
}

function whatDiffers(diff: InodeDiff, old: Attr, fresh: Attr): string[] {
  const what: string[] = []
  if (diff.data || old.size !== fresh.size) what.push('content')
  // The mask too: it is what those who were granted may do.
  if ((old.mode & MODE_BITS) !== (fresh.mode & MODE_BITS) || maskOf(old.mode) !== maskOf(fresh.mode)) what.push('mode')
  if (old.uid !== fresh.uid || old.gid !== fresh.gid) what.push('owner')
  // A directory's time changes with its entries, which are reported themselves.
  const sameTime = old.mtime.s === fresh.mtime.s && old.mtime.ns === fresh.mtime.ns
  if (!sameTime && !isDirectory(fresh)) what.push('mtime')
  if (diff.xattr) what.push('xattr')
  if (diff.target) what.push('target')
  return what.filter((word) => word !== 'content' || !isDirectory(fresh))
}

/** Names from `directory` down to a directory in it; undefined when it is elsewhere, and when damage leaves no way to it. */
function below(volume: Volume, ino: number, directory: number): string[] | undefined {
  const names = namesIfKnown(volume, ino)
  if (names === undefined || directory === ROOT_INO) return names
  // By inodes: two directories may have had the same names one after the other, and names may be damaged.
  const depth = [...ancestors(volume, ino)].indexOf(directory)
  return depth < 0 ? undefined : names.slice(names.length - depth)
}

/** The same for a file, by the name that it had last; a file with several names may be reported by another. */
function whereFile(
  volume: Volume,
  ino: number,
  attr: Attr,
  where: (volume: Volume, directory: number) => string[] | undefined,
): string[] | undefined {
  const found =
    volume.entry(attr.parent, attr.name)?.ino === ino ? { parent: attr.parent, name: attr.name } : findName(volume, ino)
  if (found === undefined) return undefined
  const parent = where(volume, found.parent)
  return parent === undefined ? undefined : [...parent, found.name]
}

/** The slow way, for a file whose last name was removed while it has others. */
function findName(volume: Volume, ino: number): { parent: number; name: string } | undefined {
  // What is added while a set is walked is walked as well; a damaged directory may lie in itself.
  const directories = new Set([ROOT_INO])
  for (const parent of directories) {
    for (const [, entry] of volume.entries(parent)) {
      if (entry.volume !== 0) continue
      if (entry.ino === ino) return { parent, name: entry.name }
      if (entry.type === S_IFDIR) directories.add(entry.ino)
    }
  }
  return undefined
}

function kindOfType(type: number): Change['kind'] {
  if (type === S_IFREG) return 'file'
  if (type === S_IFDIR) return 'directory'
  return type === S_IFLNK ? 'symlink' : 'other'
}

function shown(names: readonly string[]): string {
  return names.length === 0 ? '.' : names.map(shownName).join('/')
}
