/** Bytes of the log that no chunk covers yet, checked against the checksum of the record that holds them. */
import { LRUCache } from 'lru-cache'
import { systemCode } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import { PASSING } from '../journal/disk.ts'
import { RECORD_HEADER_BYTES, readRecordHeader } from '../journal/record.ts'

/** Reads bytes of the log, or throws. */
export type LogReader = (segment: number, offset: number, length: number, into: Buffer, at: number) => void

/** A stretch of a record's data. */
interface Part {
  segment: number
  /** where the data starts */
  base: number
  offset: number
  length: number
}

/** A large record that was overwritten in small pieces is read for every other part of the file: so much is kept of the latest. */
const KEPT_BYTES_MAX = 8 * 1024 * 1024

/** Above each offset in a segment. */
const TWO_32 = 2 ** 32

/** Data of records, checked against their checksums; the latest are kept for the next part of them. */
export class VerifiedRecords {
  readonly #read: LogReader
  readonly #store: bigint
  /** by segment and base */
  readonly #kept = new LRUCache<number, Buffer>({ maxSize: KEPT_BYTES_MAX, sizeCalculation: (data) => Math.max(1, data.length) })

  constructor(read: LogReader, store: bigint) {
    this.#read = read
    this.#store = store
  }

  /**
   * The whole data of the record that holds a part, or undefined when it is not what was written. A caller that keeps a small part
   * of it copies that: a view would hold the whole record in memory.
   */
  data(part: Part): Buffer | undefined {
    const key = part.segment * TWO_32 + part.base
    const kept = this.#kept.get(key)
    if (kept !== undefined) return kept
    const data = this.#load(part)
    // What could not be read now may be readable later.
    if (data !== undefined) this.#kept.set(key, data)
    return data
  }

  #load(part: Part): Buffer | undefined {
    try {
      const head = Buffer.allocUnsafe(RECORD_HEADER_BYTES)
      this.#read(part.segment, part.base - RECORD_HEADER_BYTES, head.length, head, 0)
      const header = readRecordHeader(head, 0, this.#store)
      if (header === undefined || part.offset + part.length > part.base + header.dataBytes) return undefined
      const data = Buffer.allocUnsafe(header.dataBytes)
      this.#read(part.segment, part.base, data.length, data, 0)
      return xxh64(data, this.#store) === header.dataXxh ? data : undefined
    } catch (error) {
      // A segment that is missing, too short or unreadable damages this part and no other; want of memory damages nothing.
      if (PASSING.has(systemCode(error) ?? '')) throw error
      return undefined
    }
  }
}
