/**
 * Sealing: cutting bytes that were written to the log into chunks with addresses. This is the part
 * that costs processor time; it is a pure function of bytes, so that it can run on any thread.
 */
import { xxh64 } from '../journal/checksum.ts'
import type { Span } from '../journal/log.ts'
import { type Address, addressOf } from './address.ts'
import { sumsOf } from './blocks.ts'
import { chunkLength } from './chunker.ts'
import type { Location } from './location.ts'
import { type LogReader, VerifiedRecords } from './verified.ts'

/** A stretch of a file as it lies in the log, part behind part. */
export type SealRun = readonly RunPart[]

export interface RunPart extends Span {
  /** where the data of the record that holds this part starts */
  base: number
}

/** What became of a stretch of the run, in order; lengths add up to the run's. */
export type Sealed =
  | { kind: 'chunk'; address: Address; location: Location; gathered?: Uint8Array }
  | { kind: 'damaged'; length: number; segment: number; offset: number }

/** A chunk in more parts than this is copied together: reading it would seek too often. */
const PARTS_MAX = 32

/**
 * Cuts a run into chunks. Every record it touches is verified first; a damaged one becomes a
 * `damaged` stretch and the rest goes on.
 */
export function sealRun(run: SealRun, read: LogReader, store: bigint): Sealed[] {
  const sealed: Sealed[] = []
  const verified = new VerifiedRecords(read, store)
  let good: RunPart[] = []
  let bytes: Buffer[] = []
  const finish = (): void => {
    const [first] = bytes
    if (first !== undefined) sealed.push(...cut(good, bytes.length === 1 ? first : Buffer.concat(bytes), store))
    good = []
    bytes = []
  }
  for (const part of run) {
    const data = verified.data(part)
    if (data === undefined) {
      finish()
      sealed.push({ kind: 'damaged', length: part.length, segment: part.segment, offset: part.offset })
    } else {
      good.push(part)
      bytes.push(partOf(data, part))
    }
  }
  finish()
  return sealed
}

/** A view where most of the record is wanted, else a copy: a thousand small parts would hold a thousand whole records in memory. */
function partOf(data: Buffer, { base, offset, length }: RunPart): Buffer {
  const view = data.subarray(offset - base, offset - base + length)
  return length * 2 > data.length ? view : Buffer.from(view)
}

function cut(parts: readonly RunPart[], bytes: Buffer, store: bigint): Sealed[] {
  const chunks: Sealed[] = []
  const spans = new SpanCursor(parts)
  for (let at = 0; at < bytes.length; ) {
    const length = chunkLength(bytes, at, bytes.length)
    const content = bytes.subarray(at, at + length)
    const location = { length, xxh: xxh64(content, store), parts: spans.take(length), sums: sumsOf(content, store) }
    const gathered = location.parts.length > PARTS_MAX ? { gathered: Uint8Array.from(content) } : {}
    chunks.push({ kind: 'chunk', address: addressOf(content), location, ...gathered })
    at += length
  }
  return chunks
}

/** Deals out the places of a run's bytes from front to back. */
class SpanCursor {
  readonly #parts: readonly RunPart[]
  #index = 0
  #used = 0

  constructor(parts: readonly RunPart[]) {
    this.#parts = parts
  }

  take(length: number): Span[] {
    const spans: Span[] = []
    for (let left = length; left > 0; ) {
      const part = this.#parts[this.#index] as RunPart
      const count = Math.min(left, part.length - this.#used)
      spans.push({ segment: part.segment, offset: part.offset + this.#used, length: count })
      this.#used += count
      left -= count
      if (this.#used === part.length) {
        this.#index++
        this.#used = 0
      }
    }
    return spans
  }
}
