/** What differs between two states of a volume, inode for inode. */
import { ByteReader } from '../bytes.ts'
import type { Attr } from '../volume/attr.ts'
import { type Bucket, type Dirent, decodeBucket } from '../volume/dirent.ts'
import { inoOf, Kind, kindOf, stringPart } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'

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
