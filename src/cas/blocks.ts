/**
 * Blocks: stretches of 4096 bytes of a chunk, each with a checksum of its own, so that a small part of it is read and checked
 * without the rest. They say no more than the checksum of the whole, but say it of a part.
 */
import { xxh64Low } from '../journal/checksum.ts'

export const BLOCK_BYTES = 4096
/** bytes of a checksum */
const SUM_BYTES = 4
/** Content that is not longer is read whole: there is little to spare. */
const WHOLE_BYTES_MAX = 2 * BLOCK_BYTES

/** Bytes of the checksums of so much content. */
export function sumsLength(contentBytes: number): number {
  return Math.ceil(contentBytes / BLOCK_BYTES) * SUM_BYTES
}

/**
 * For each block of the content the low 32 bits of its XXH64, little endian.
 * @returns undefined for content that is read whole; else bytes of their own, which another thread can be given
 */
export function sumsOf(content: Buffer, store: bigint): Uint8Array | undefined {
  if (content.length <= WHOLE_BYTES_MAX) return undefined
  const sums = Buffer.allocUnsafeSlow(sumsLength(content.length))
  for (let at = 0, to = 0; at < content.length; at += BLOCK_BYTES) {
    to = sums.writeUInt32LE(xxh64Low(content.subarray(at, at + BLOCK_BYTES), store), to)
  }
  return sums
}

/** Where the blocks that hold a part begin and end in content of `length` bytes. */
export function blocksAround(part: { offset: number; length: number }, length: number): { from: number; to: number } {
  const end = part.offset + part.length
  return {
    from: part.offset - (part.offset % BLOCK_BYTES),
    to: Math.min(Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES, length),
  }
}

/**
 * Whether blocks are what they were when the sums were made.
 * @param from where `blocks` begins in the content: where one of its blocks does
 */
export function areIntact(blocks: Buffer, from: number, sums: Uint8Array, store: bigint): boolean {
  const wanted = new DataView(sums.buffer, sums.byteOffset, sums.byteLength)
  for (let at = 0; at < blocks.length; at += BLOCK_BYTES) {
    const sum = wanted.getUint32(((from + at) / BLOCK_BYTES) * SUM_BYTES, true)
    if (xxh64Low(blocks.subarray(at, at + BLOCK_BYTES), store) !== sum) return false
  }
  return true
}
