/**
 * The bytes of the log: segment headers and record headers (docs/format.md, "The log").
 *
 *     record   0  u32  magic "NXRC"                24  u64  durable: the last sequence known to be
 *              4  u8   type                                 on stable storage when this was written
 *              5  u8×3 zero                        32  u64  XXH64 of the data
 *              8  u32  data bytes                  40  u64  XXH64 of the meta
 *             12  u32  meta bytes                  48  u64  XXH64 of bytes 0 to 48
 *             16  u64  sequence                    56  data, then meta
 *
 * All little endian; every XXH64 is seeded with the store's id. Data comes before meta, so that a
 * write request's payload goes to disk from where the kernel put it, with the header in front.
 */
import { integersOf } from '../bytes.ts'
import { xxh64 } from './checksum.ts'

export const RECORD_HEADER_BYTES = 56
export const SEGMENT_HEADER_BYTES = 64
/** 2: places of chunks may have sums of blocks (cas/location.ts). */
export const FORMAT_VERSION = 2

const RECORD_MAGIC = 0x4352584e // "NXRC"
const SEGMENT_MAGIC = 'NEXUSLOG'
const TWO_32 = 0x1_0000_0000

/** The file name of a segment. */
export function segmentName(segment: number): string {
  return `${segment.toString().padStart(10, '0')}.log`
}

/** The number of a segment from its file's name, or undefined for other files. */
export function segmentNumber(name: string): number | undefined {
  return /^\d{10}\.log$/.test(name) ? Number.parseInt(name, 10) : undefined
}

/** What a record holds. Numbers are part of the format. */
export const RecordType = {
  /** changes of one operation, applied as a whole; data: the bytes written, if any */
  changes: 1,
  /** data: a tree node; meta: its address */
  node: 2,
  /** data: a chunk whose bytes were gathered; meta: its domain and address */
  chunk: 3,
  /** meta: chunks that lie in data written before, and where (see cas/store.ts) */
  sealed: 4,
  /** meta: catalog and volumes as of a checkpoint (JSON), so that the records before it can go */
  state: 5,
} as const

export interface RecordHeader {
  type: number
  dataBytes: number
  metaBytes: number
  sequence: number
  durable: number
  dataXxh: bigint
  metaXxh: bigint
}

/** A u64 that is below 2^53, as a number. */
export function readU64(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset) + buffer.readUInt32LE(offset + 4) * TWO_32
}

export function writeU64(buffer: Buffer, value: number, offset: number): void {
  buffer.writeUInt32LE(value % TWO_32, offset)
  buffer.writeUInt32LE(Math.floor(value / TWO_32), offset + 4)
}

/** Where headers are put together: a view of each buffer that one is written into would take longer than the copy. */
const scratch = Buffer.alloc(RECORD_HEADER_BYTES)
const scratchFields = integersOf(scratch)
const scratchCovered = scratch.subarray(0, 48)

/** Writes a header at `offset`; the bytes that the checksums cover are given by their checksums. */
export function writeRecordHeader(buffer: Buffer, offset: number, header: RecordHeader, seed: bigint): void {
  scratch.writeUInt32LE(RECORD_MAGIC, 0)
  scratch.writeUInt32LE(header.type, 4)
  scratch.writeUInt32LE(header.dataBytes, 8)
  scratch.writeUInt32LE(header.metaBytes, 12)
  writeU64(scratch, header.sequence, 16)
  writeU64(scratch, header.durable, 24)
  // Not by Buffer, which takes a bigint apart with others.
  scratchFields.setBigUint64(32, header.dataXxh, true)
  scratchFields.setBigUint64(40, header.metaXxh, true)
  scratchFields.setBigUint64(48, xxh64(scratchCovered, seed), true)
  buffer.set(scratch, offset)
}

/** The header at `offset`, or undefined when those bytes are not an intact header. */
export function readRecordHeader(buffer: Buffer, offset: number, seed: bigint): RecordHeader | undefined {
  if (offset + RECORD_HEADER_BYTES > buffer.length) return undefined
  if (buffer.readUInt32LE(offset) !== RECORD_MAGIC) return undefined
  if (buffer.readBigUInt64LE(offset + 48) !== xxh64(buffer.subarray(offset, offset + 48), seed)) return undefined
  return {
    type: buffer.readUInt32LE(offset + 4),
    dataBytes: buffer.readUInt32LE(offset + 8),
    metaBytes: buffer.readUInt32LE(offset + 12),
    sequence: readU64(buffer, offset + 16),
    durable: readU64(buffer, offset + 24),
    dataXxh: buffer.readBigUInt64LE(offset + 32),
    metaXxh: buffer.readBigUInt64LE(offset + 40),
  }
}

/** True when data and meta behind this header are whole and as they were written. */
export function recordIsIntact(buffer: Buffer, offset: number, header: RecordHeader, seed: bigint): boolean {
  const data = offset + RECORD_HEADER_BYTES
  const meta = data + header.dataBytes
  const end = meta + header.metaBytes
  if (end > buffer.length) return false
  return xxh64(buffer.subarray(data, meta), seed) === header.dataXxh && xxh64(buffer.subarray(meta, end), seed) === header.metaXxh
}

/**
 *     segment  0  8 bytes "NEXUSLOG"    16  u64  store id           32  u64  durable
 *              8  u32  format version   24  u64  first sequence     40  16 bytes zero
 *             12  u32  number                                       56  u64  XXH64 of bytes 0 to 56
 */
export interface SegmentHeader {
  version: number
  number: number
  store: bigint
  firstSequence: number
  durable: number
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const buffer = Buffer.alloc(SEGMENT_HEADER_BYTES)
  buffer.write(SEGMENT_MAGIC, 0, 'latin1')
  buffer.writeUInt32LE(header.version, 8)
  buffer.writeUInt32LE(header.number, 12)
  buffer.writeBigUInt64LE(header.store, 16)
  writeU64(buffer, header.firstSequence, 24)
  writeU64(buffer, header.durable, 32)
  buffer.writeBigUInt64LE(xxh64(buffer.subarray(0, 56), header.store), 56)
  return buffer
}

/** The segment's header, or undefined when these bytes are not an intact one. */
export function decodeSegmentHeader(buffer: Buffer): SegmentHeader | undefined {
  if (buffer.length < SEGMENT_HEADER_BYTES) return undefined
  if (buffer.toString('latin1', 0, 8) !== SEGMENT_MAGIC) return undefined
  const store = buffer.readBigUInt64LE(16)
  if (buffer.readBigUInt64LE(56) !== xxh64(buffer.subarray(0, 56), store)) return undefined
  return {
    version: buffer.readUInt32LE(8),
    number: buffer.readUInt32LE(12),
    store,
    firstSequence: readU64(buffer, 24),
    durable: readU64(buffer, 32),
  }
}
