/** File content: read, write, fallocate, copy_file_range. Holes are looked for in seek.ts. */
import type { WantedChunk } from '../cas/reader.ts'
import { FS } from '../errors.ts'
import { type Attr, altered, isDirectory, isRegular } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import type { Piece } from '../volume/piece.ts'
import { dropCapability, FILE_BYTES_MAX, withoutSetId } from './attributes.ts'
import type { Core } from './core.ts'
import { pageAfter } from './pages.ts'
import type { Place } from './place.ts'

/** linux/falloc.h */
const FALLOC_FL_KEEP_SIZE = 0x01
const FALLOC_FL_PUNCH_HOLE = 0x02
const FALLOC_FL_ZERO_RANGE = 0x10
/** One answer of copy_file_range: the kernel asks again for the rest. */
const COPY_BYTES_MAX = 0x7fff_f000

export function read(core: Core, node: number, offset: number, size: number, into: Buffer, at: number): number {
  const { volume, ino, attr } = regular(core.place(node))
  const length = Math.min(size, attr.size - offset)
  if (length <= 0) return 0
  let filled = offset
  const chunks: WantedChunk[] = []
  let hasHolePage = false
  for (const [start, piece] of volume.pieces(ino, offset, length)) {
    // Differences first: near the largest offset a sum of positions would be rounded.
    const to = at + (start - offset)
    if (start > filled) {
      into.fill(0, at + (filled - offset), to)
      hasHolePage ||= pageAfter(filled) < start
    }
    if (piece.kind === 'zero') hasHolePage ||= pageAfter(start) < start + piece.length
    if (piece.kind === 'chunk') chunks.push({ address: piece.address, offset: piece.offset, length: piece.length, at: to })
    else readPiece(core, piece, into, to)
    filled = start + piece.length
  }
  into.fill(0, at + (filled - offset), at + length)
  hasHolePage ||= pageAfter(filled) < offset + length
  core.mapped.handed(node, offset, size, attr.size, hasHolePage)
  core.volumes.content.readChunks(volume.domain, chunks, into)
  return length
}

function readPiece(core: Core, piece: Exclude<Piece, { kind: 'chunk' }>, into: Buffer, at: number): void {
  if (piece.kind === 'raw') core.volumes.readRaw(piece, into, at)
  else if (piece.kind === 'zero') into.fill(0, at, at + piece.length)
  else throw FS.EIO
}

export function write(
  core: Core,
  node: number,
  offset: number,
  buffer: Buffer,
  start: number,
  length: number,
  killSuidGid: boolean,
): number {
  const place = regular(core.writable(node))
  if (offset + length > FILE_BYTES_MAX) throw FS.EFBIG
  if (length === 0) return 0
  const { volume, ino } = place
  const changes: Change[] = [{ kind: 'write', volume: volume.number, ino, offset, length, from: 0 }]
  const attr = changed(core, place, changes, offset, length, true, killSuidGid)
  changes.push({ kind: 'attr', volume: volume.number, ino, attr })
  core.quotas.admit(volume.number, attr.allocated - place.attr.allocated, 0)
  const grows = attr.size > place.attr.size || attr.allocated > place.attr.allocated
  core.volumes.commit(changes, { buffer, start, length }, grows ? 'data' : 'overwrite')
  return length
}

/** Attributes after [offset, offset + length) was filled. */
function changed(
  core: Core,
  place: Place,
  changes: Change[],
  offset: number,
  length: number,
  extend: boolean,
  killSuidGid: boolean,
): Attr {
  const { volume, ino, attr } = place
  const now = core.now()
  const fresh = attr.allocated === 0 ? length : length - volume.allocatedIn(ino, offset, length)
  const after = altered(attr, {
    size: extend ? Math.max(attr.size, offset + length) : attr.size,
    allocated: attr.allocated + fresh,
    mode: killSuidGid ? withoutSetId(attr.mode) : attr.mode,
    mtime: now,
    ctime: now,
  })
  return dropCapability(place, after, changes)
}

export interface Allocation {
  /** FALLOC_FL_* bits */
  mode: number
  offset: number
  length: number
  killSuidGid: boolean
}

export function fallocate(core: Core, node: number, wanted: Allocation, bytesFree: () => number): void {
  const { mode, offset, length } = wanted
  const place = regular(core.writable(node))
  if (length <= 0) throw FS.EINVAL
  if (offset + length > FILE_BYTES_MAX) throw FS.EFBIG
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0
  const action = mode & ~FALLOC_FL_KEEP_SIZE
  if (action === FALLOC_FL_PUNCH_HOLE && keepSize) punch(core, place, wanted)
  else if (action === FALLOC_FL_ZERO_RANGE) {
    if (length > bytesFree()) throw FS.ENOSPC
    allocate(core, place, [[offset, length]], wanted, !keepSize)
  } else if (action === 0) {
    const holes = holesIn(place, offset, length)
    if (holes.reduce((sum, hole) => sum + hole[1], 0) > bytesFree()) throw FS.ENOSPC
    allocate(core, place, holes, wanted, !keepSize)
  } else throw FS.EOPNOTSUPP
}

function allocate(core: Core, place: Place, ranges: [number, number][], wanted: Allocation, extend: boolean): void {
  const { volume, ino } = place
  const changes: Change[] = ranges.map(([at, bytes]) => ({
    kind: 'clear',
    volume: volume.number,
    ino,
    offset: at,
    length: bytes,
    allocate: true,
  }))
  if (
    !volume.mayReserve(
      ino,
      ranges.reduce((sum, [, bytes]) => sum + bytes, 0),
    )
  )
    throw FS.EFBIG
  const attr = changed(core, place, changes, wanted.offset, wanted.length, extend, wanted.killSuidGid)
  changes.push({ kind: 'attr', volume: volume.number, ino, attr })
  core.quotas.admit(volume.number, attr.allocated - place.attr.allocated, 0)
  core.volumes.commit(changes)
}

function punch(core: Core, place: Place, { offset, length, killSuidGid }: Allocation): void {
  const { volume, ino, attr } = place
  const now = core.now()
  const freed = volume.allocatedIn(ino, offset, length)
  const mode = killSuidGid ? withoutSetId(attr.mode) : attr.mode
  const changes: Change[] = [{ kind: 'clear', volume: volume.number, ino, offset, length, allocate: false }]
  const after = dropCapability(place, altered(attr, { mode, allocated: attr.allocated - freed, mtime: now, ctime: now }), changes)
  changes.push({ kind: 'attr', volume: volume.number, ino, attr: after })
  core.volumes.commit(changes)
}

function holesIn({ volume, ino }: Place, offset: number, length: number): [number, number][] {
  const holes: [number, number][] = []
  let at = offset
  for (const [start, piece] of volume.pieces(ino, offset, length)) {
    if (start > at) holes.push([at, start - at])
    at = start + piece.length
  }
  if (at < offset + length) holes.push([at, offset + length - at])
  return holes
}

export function copyFileRange(
  core: Core,
  node: number,
  offset: number,
  toNode: number,
  toOffset: number,
  length: number,
  killSuidGid: boolean,
): number {
  const from = regular(core.place(node))
  const to = regular(core.writable(toNode))
  // Chunks are shared within a domain only: elsewhere the kernel copies the bytes.
  if (from.volume.domain !== to.volume.domain) throw FS.EXDEV
  const bytes = Math.min(length, from.attr.size - offset, COPY_BYTES_MAX)
  if (bytes <= 0) return 0
  if (toOffset + bytes > FILE_BYTES_MAX) throw FS.EFBIG
  const base = { volume: to.volume.number, ino: to.ino }
  const isLive = core.volumes.get(from.volume.number) !== undefined
  const changes: Change[] = isLive
    ? [
        {
          kind: 'copy',
          ...base,
          offset: toOffset,
          length: bytes,
          fromVolume: from.volume.number,
          fromIno: from.ino,
          fromOffset: offset,
        },
      ]
    : referChanges(from, offset, bytes, base, toOffset)
  const now = core.now()
  const lost = to.attr.allocated === 0 ? 0 : to.volume.allocatedIn(to.ino, toOffset, bytes)
  const gained = from.volume.allocatedIn(from.ino, offset, bytes) - lost
  const attr = altered(to.attr, {
    size: Math.max(to.attr.size, toOffset + bytes),
    allocated: to.attr.allocated + gained,
    mode: killSuidGid ? withoutSetId(to.attr.mode) : to.attr.mode,
    mtime: now,
    ctime: now,
  })
  const after = dropCapability(to, attr, changes)
  changes.push({ kind: 'attr', ...base, attr: after })
  core.quotas.admit(base.volume, gained, 0)
  core.volumes.commit(changes)
  return bytes
}

function referChanges(
  from: Place,
  offset: number,
  bytes: number,
  base: { volume: number; ino: number },
  toOffset: number,
): Change[] {
  const changes: Change[] = [{ kind: 'clear', ...base, offset: toOffset, length: bytes, allocate: false }]
  for (const [at, piece] of from.volume.pieces(from.ino, offset, bytes)) {
    if (piece.kind === 'raw') throw FS.EXDEV
    changes.push({ kind: 'refer', ...base, offset: toOffset + (at - offset), length: piece.length, source: piece })
  }
  return changes
}

export function regular(place: Place): Place {
  if (isDirectory(place.attr)) throw FS.EISDIR
  if (!isRegular(place.attr)) throw FS.EINVAL
  return place
}
