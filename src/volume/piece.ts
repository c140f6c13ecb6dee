/**
 * Where the bytes of a file are. A file is cut into windows of 1 MiB; a window is a sorted list of
 * pieces that do not overlap, and what no piece covers is a hole. A fresh write is a piece that
 * points into the log (`raw`); a checkpoint seals it into chunks, and then it points at those.
 */
import { type ByteReader, ByteWriter } from '../bytes.ts'
import { ADDRESS_BYTES, type Address } from '../cas/address.ts'
import { NexusError } from '../errors.ts'

export const WINDOW_BYTES = 1024 * 1024

/** Bytes in a record of the log, not yet in a chunk; never in a tree. */
export interface RawSource {
  kind: 'raw'
  segment: number
  /** where the record's data starts, so that its checksum can be verified */
  base: number
  /** where this piece starts */
  offset: number
}

/** Part of a chunk, starting `offset` bytes into it. */
export interface ChunkSource {
  kind: 'chunk'
  address: Address
  offset: number
}

/** Space that was allocated and never written: reads as zeros, counts as allocated. */
export interface ZeroSource {
  kind: 'zero'
}

/** Bytes that were found damaged when they were to be sealed: reading them is EIO. */
export interface DamagedSource {
  kind: 'damaged'
}

export type Source = RawSource | ChunkSource | ZeroSource | DamagedSource

export type Piece = Source & {
  /** bytes from the start of the window */
  start: number
  length: number
}

export type Window = readonly Piece[]

/** All of it allocated and never written. */
export const ZERO_WINDOW: Window = Object.freeze([Object.freeze({ kind: 'zero', start: 0, length: WINDOW_BYTES } as const)])

/** The piece at [start, start + length) of a window that begins `skip` bytes into a source, or into another piece. */
export function pieceOf(source: Source, skip: number, start: number, length: number): Piece {
  const { kind } = source
  if (kind === 'raw') return { kind, segment: source.segment, base: source.base, offset: source.offset + skip, start, length }
  if (kind === 'chunk') return { kind, address: source.address, offset: source.offset + skip, start, length }
  return { kind, start, length }
}

/** The part of a piece that starts `skip` bytes into it. */
export function slicePiece(piece: Piece, skip: number, length: number): Piece {
  return pieceOf(piece, skip, piece.start + skip, length)
}

/** Index of the first piece that ends behind `at`. */
function firstBehind(window: Window, at: number): number {
  let low = 0
  let high = window.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const piece = window[middle] as Piece
    if (piece.start + piece.length <= at) low = middle + 1
    else high = middle
  }
  return low
}

/** The pieces that cover some of [start, end), cut to it. */
export function piecesIn(window: Window, start: number, end: number): Piece[] {
  const found: Piece[] = []
  if (start >= end) return found
  for (let i = firstBehind(window, start); i < window.length; i++) {
    const piece = window[i] as Piece
    if (piece.start >= end) break
    const from = Math.max(piece.start, start)
    const to = Math.min(piece.start + piece.length, end)
    found.push(
      from === piece.start && to === piece.start + piece.length ? piece : slicePiece(piece, from - piece.start, to - from),
    )
  }
  return found
}

/** The window with [start, end) replaced by `pieces`, which lie inside it. */
export function splice(window: Window, start: number, end: number, pieces: readonly Piece[]): Window {
  const first = firstBehind(window, start)
  let last = first
  while (last < window.length && (window[last] as Piece).start < end) last++
  const result = window.slice(0, first)
  const head = window[first]
  if (head !== undefined && first < last && head.start < start) result.push(slicePiece(head, 0, start - head.start))
  result.push(...pieces)
  const tail = window[last - 1]
  if (tail !== undefined && first < last && tail.start + tail.length > end) {
    result.push(slicePiece(tail, end - tail.start, tail.start + tail.length - end))
  }
  for (let i = last; i < window.length; i++) result.push(window[i] as Piece)
  return result
}

/** Stored form of a window: for each piece start and length (varints), then its source. */
export function encodeWindow(window: Window): Buffer {
  const out = new ByteWriter(64 + window.length * (ADDRESS_BYTES + 8))
  for (const piece of joined(window)) writeSource(out.varint(piece.start).varint(piece.length), piece)
  return out.view()
}

/** The window with as few pieces as say the same, so that the tree does not tell how it was written. */
function joined(window: Window): Window {
  const pieces: Piece[] = []
  for (const piece of window) {
    const last = pieces.at(-1)
    if (last !== undefined && goesOn(last, piece))
      pieces[pieces.length - 1] = pieceOf(last, 0, last.start, last.length + piece.length)
    else pieces.push(piece)
  }
  return pieces
}

/** True when the bytes of a piece come right behind those of another, in the file and where they are from. */
function goesOn(last: Piece, piece: Piece): boolean {
  if (last.start + last.length !== piece.start || last.kind !== piece.kind) return false
  if (last.kind !== 'chunk' || piece.kind !== 'chunk') return last.kind !== 'raw'
  return last.address === piece.address && last.offset + last.length === piece.offset
}

export function decodeWindow(input: ByteReader): Window {
  const window: Piece[] = []
  for (let end = 0; !input.done; ) {
    const start = input.varint(WINDOW_BYTES)
    const length = input.varint(WINDOW_BYTES - start)
    if (length === 0 || start < end) throw new NexusError('NEXUS_CORRUPT', 'stored pieces of a file overlap')
    window.push(pieceOf(readSource(input), 0, start, length))
    end = start + length
  }
  return window
}

/**
 * Bytes of [from, to) that lie in a piece of the stored window which is `memory[start, end)`: what its pieces would say, without
 * making them.
 * @returns undefined for what `encodeWindow` does not make: who wants to know what is wrong decodes it
 */
export function countEncoded(memory: Buffer, start: number, end: number, from: number, to: number): number | undefined {
  let bytes = 0
  let at = start
  for (let behind = 0; at < end; ) {
    const first = shortVarint(memory, at)
    at += first & 3
    const length = shortVarint(memory, at)
    at += length & 3
    const piece = first >>> 2
    const next = piece + (length >>> 2)
    if (first === 0 || length < 4 || piece < behind || next > WINDOW_BYTES) return undefined
    const kind = memory[at++]
    if (kind === kinds.chunk) {
      const offset = shortVarint(memory, at)
      if (offset === 0) return undefined
      at += (offset & 3) + ADDRESS_BYTES
    } else if (kind !== kinds.zero && kind !== kinds.damaged) return undefined
    bytes += Math.max(0, Math.min(next, to) - Math.max(piece, from))
    behind = next
  }
  return at === end ? bytes : undefined
}

/** A varint with its length in bytes, as 4 × number + length, so that nothing is allocated; 0 when it has more than three. */
function shortVarint(memory: Buffer, at: number): number {
  const a = memory[at] as number
  if (a < 0x80) return (a << 2) | 1
  const b = memory[at + 1] as number
  if (b < 0x80) return (((b << 7) | (a & 0x7f)) << 2) | 2
  const c = memory[at + 2] as number
  return c < 0x80 ? (((c << 14) | ((b & 0x7f) << 7) | (a & 0x7f)) << 2) | 3 : 0
}

/** Stored form of a source: its kind (u8), and for a chunk the offset in it (varint) and its address. */
const kinds = { chunk: 1, zero: 2, damaged: 3 } as const

export function writeSource(out: ByteWriter, source: Source): void {
  if (source.kind === 'raw') throw new NexusError('NEXUS_INTERNAL', 'a piece that is not sealed was about to be stored')
  out.u8(kinds[source.kind])
  if (source.kind === 'chunk') out.varint(source.offset).fixed(source.address)
}

export function readSource(input: ByteReader): Exclude<Source, RawSource> {
  const kind = input.u8()
  if (kind === kinds.chunk) return { kind: 'chunk', offset: input.varint(), address: input.fixed(ADDRESS_BYTES) as Address }
  if (kind === kinds.zero) return { kind: 'zero' }
  if (kind === kinds.damaged) return { kind: 'damaged' }
  throw new NexusError('NEXUS_CORRUPT', `a stored piece has the unknown kind ${kind}`)
}
