/** Bytes of the log that no chunk covers yet, checked against the checksum of the record that holds them. */
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

/** Data of records, checked against their checksums; the last one is kept for the next part of it. */
export class VerifiedRecords {
  readonly #read: LogReader
  readonly #store: bigint
  #segment = -1
  #base = -1
  #data: Buffer | undefined

  constructor(read: LogReader, store: bigint) {
    this.#read = read
    this.#store = store
  }

  /** The whole data of the record that holds a part, or undefined when it is not what was written. */
  data(part: Part): Buffer | undefined {
    if (part.segment !== this.#segment || part.base !== this.#base) {
      const data = this.#load(part)
      // What could not be read now may be readable later.
      if (data === undefined) return undefined
      this.#segment = part.segment
      this.#base = part.base
      this.#data = data
    }
    return this.#data
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
