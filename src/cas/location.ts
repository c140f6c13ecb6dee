/** Where content lies in the log: what the index maps an address to. */
import { ByteReader, ByteWriter } from '../bytes.ts'
import { NexusError } from '../errors.ts'
import type { Log, Span } from '../journal/log.ts'
import { type Address, toHex } from './address.ts'

/** Larger than any chunk or node: what a damaged place claims is not even allocated. */
const CONTENT_BYTES_MAX = 64 * 1024 * 1024

export interface Location {
  /** bytes of the content: the sum of its parts */
  length: number
  /** XXH64 of the content, seeded with the store's id */
  xxh: bigint
  /** in order; a chunk that was written in several requests lies in several records */
  parts: readonly Span[]
}

/** u64 XXH64, then for each part varints: segment, offset, length. */
export function encodeLocation(location: Location): Buffer {
  const out = new ByteWriter(8 + location.parts.length * 12)
  writeLocation(out, location)
  return out.view()
}

export function decodeLocation(bytes: Buffer): Location {
  const input = new ByteReader(bytes)
  return readLocation(input, () => !input.done)
}

/** The same with a number of parts in front, for where more follows. */
export function writeCountedLocation(out: ByteWriter, location: Location): void {
  out.varint(location.parts.length)
  writeLocation(out, location)
}

export function readCountedLocation(input: ByteReader): Location {
  let left = input.varint()
  return readLocation(input, () => left-- > 0)
}

function writeLocation(out: ByteWriter, location: Location): void {
  out.bigU64(location.xxh)
  for (const part of location.parts) out.varint(part.segment).varint(part.offset).varint(part.length)
}

function readLocation(input: ByteReader, more: () => boolean): Location {
  const xxh = input.bigU64()
  const parts: Span[] = []
  let length = 0
  while (more()) {
    const part = { segment: input.varint(), offset: input.varint(), length: input.varint() }
    parts.push(part)
    length += part.length
    if (length > CONTENT_BYTES_MAX) throw new NexusError('NEXUS_CORRUPT', 'a stored place is of more than there can be')
  }
  return { length, xxh, parts }
}

/**
 * Fills `into` from `at` on with content, unchecked.
 * @returns the content, as a view
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
