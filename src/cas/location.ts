/** Where content lies in the log: what the index maps an address to. */
import { ByteReader, ByteWriter } from '../bytes.ts'
import { NexusError } from '../errors.ts'
import type { Log, Span } from '../journal/log.ts'
import { type Address, toHex } from './address.ts'
import { sumsLength } from './blocks.ts'

/** Larger than any chunk or node: what a damaged place claims is not even allocated. */
const CONTENT_BYTES_MAX = 64 * 1024 * 1024
/** In the place of a segment, which are numbered from 1: what follows are no more parts, but the sums of blocks. */
const SUMS_MARK = 0

export interface Location {
  /** bytes of the content: the sum of its parts */
  length: number
  /** XXH64 of the content, seeded with the store's id */
  xxh: bigint
  /** in order; a chunk that was written in several requests lies in several records */
  parts: readonly Span[]
  /** of its blocks (blocks.ts); absent for content that is read whole, and for what was stored in format 1 */
  sums?: Uint8Array | undefined
}

/** u64 XXH64, then for each part varints: segment, offset, length; then, if there are sums, a varint 0 and those. */
export function encodeLocation(location: Location): Buffer {
  const out = new ByteWriter(encodedLength(location))
  writeLocation(out, location)
  return out.view()
}

export function decodeLocation(bytes: Buffer): Location {
  const input = new ByteReader(bytes)
  return readLocation(input, () => !input.done)
}

/** At most, so that it is written without moving it. */
function encodedLength({ parts, sums }: Location): number {
  return 9 + parts.length * 12 + (sums?.length ?? 0)
}

/** The same with a number of parts in front, the sums being one, for where more follows. */
export function writeCountedLocation(out: ByteWriter, location: Location): void {
  out.varint(location.parts.length + (location.sums === undefined ? 0 : 1))
  writeLocation(out, location)
}

export function readCountedLocation(input: ByteReader): Location {
  let left = input.varint()
  return readLocation(input, () => left-- > 0)
}

function writeLocation(out: ByteWriter, { xxh, parts, sums }: Location): void {
  out.bigU64(xxh)
  for (const part of parts) out.varint(part.segment).varint(part.offset).varint(part.length)
  if (sums !== undefined) out.varint(SUMS_MARK).raw(sums)
}

function readLocation(input: ByteReader, more: () => boolean): Location {
  const xxh = input.bigU64()
  const parts: Span[] = []
  let length = 0
  while (more()) {
    const segment = input.varint()
    if (segment === SUMS_MARK) {
      const sums = input.raw(sumsLength(length))
      if (more()) throw new NexusError('NEXUS_CORRUPT', 'a stored place has parts behind the sums of its blocks')
      return { length, xxh, parts, sums }
    }
    const part = { segment, offset: input.varint(), length: input.varint() }
    parts.push(part)
    length += part.length
    if (length > CONTENT_BYTES_MAX) throw new NexusError('NEXUS_CORRUPT', 'a stored place is of more than there can be')
  }
  return { length, xxh, parts }
}

/** Bytes of the log, and where they go. */
export interface PlacedSpan extends Span {
  to: number
}

/**
 * Notes where content lies, with what is noted already: stretches that lie behind one another, and go behind one another, are one.
 * @param to where it goes
 * @param range of the content; all of it when absent
 */
export function addSpans(spans: PlacedSpan[], { parts, length: end }: Location, to: number, range = { from: 0, to: end }): void {
  let at = to
  let start = 0
  for (const part of parts) {
    const skip = Math.max(0, range.from - start)
    const length = Math.min(part.length, range.to - start) - skip
    start += part.length
    if (length <= 0) continue
    const span = { segment: part.segment, offset: part.offset + skip, length, to: at }
    const last = spans.at(-1)
    if (last !== undefined && isNext(last, span)) last.length += length
    else spans.push(span)
    at += length
  }
}

function isNext(last: PlacedSpan, { segment, offset, to }: PlacedSpan): boolean {
  return last.segment === segment && last.offset + last.length === offset && last.to + last.length === to
}

/**
 * Fills `into` from `at` on with content, unchecked.
 * @returns what was read, as a view
 * @throws NexusError NEXUS_CORRUPT when a part of it cannot be read
 */
export function readContent(log: Log, location: Location, into: Buffer, at: number): Buffer {
  let done = at
  for (const { segment, offset, length } of location.parts) {
    log.read(segment, offset, length, into, done)
    done += length
  }
  return into.subarray(at, done)
}

/** @param what it is, for people */
export function missing(what: string, address: Address): NexusError {
  return new NexusError(
    'NEXUS_CORRUPT',
    `${what} ${toHex(address)} is not in the index: mount again with --rebuild-index, and if that does not help, restore the data directory from a backup`,
  )
}

export function damaged(what: string, address: Address, location: Location): NexusError {
  const part = location.parts[0]
  const place = part === undefined ? 'nowhere' : `segment ${part.segment} byte ${part.offset}`
  return new NexusError(
    'NEXUS_CORRUPT',
    `${what} ${toHex(address)} at ${place} is not what was stored: restore that file from a backup`,
  )
}
