/**
 * Integers of the kernel's structs. The protocol uses the machine's byte order; this is little-endian
 * (x64, arm64). On a big-endian machine INIT would arrive as opcode 26 << 24 and be answered ENOSYS.
 *
 * A u64 is a JavaScript number here, built from its halves without BigInt. Node ids, sizes and cookies
 * of ours stay below 2^53. What a caller may choose freely (offsets) goes through `readOffset`.
 */
import { FS } from '../errors.ts'

const WORD = 2 ** 32
/** High half of 2^53: a u64 whose high half is below this is exact as a number. */
const EXACT_HIGH = 2 ** 21

/** Exact below 2^53, rounded above. */
export function readU64(from: DataView, at: number): number {
  return from.getUint32(at, true) + from.getUint32(at + 4, true) * WORD
}

export function readI64(from: DataView, at: number): number {
  return from.getUint32(at, true) + from.getInt32(at + 4, true) * WORD
}

/** Node ids come from us, so one that we cannot have given out is stale. */
export function readNode(from: DataView, at: number): number {
  if (from.getUint32(at + 4, true) >= EXACT_HIGH) throw FS.ESTALE
  return readU64(from, at)
}

/**
 * A file offset, size or length that a program chose. The kernel allows up to 2^63 - 1; files of ours
 * end at 2^53 - 1, and this is the one place that says so.
 */
export function readOffset(from: DataView, at: number): number {
  if (from.getUint32(at + 4, true) >= EXACT_HIGH) throw FS.EFBIG
  return readU64(from, at)
}

/** For places where "beyond the end of any file" is a good answer (read, seek, lengths to copy). */
export function readOffsetCapped(from: DataView, at: number): number {
  return Math.min(readU64(from, at), Number.MAX_SAFE_INTEGER)
}

/** A range that is to be written may not end above the largest file either. */
export function checkEnd(offset: number, length: number): void {
  if (offset + length > Number.MAX_SAFE_INTEGER) throw FS.EFBIG
}

/** Writes any integer of absolute value below 2^53, negative ones in two's complement. */
export function writeU64(to: DataView, at: number, value: number): void {
  const low = value >>> 0
  to.setUint32(at, low, true)
  to.setUint32(at + 4, ((value - low) / WORD) >>> 0, true)
}
