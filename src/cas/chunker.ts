/**
 * Content-defined chunking: FastCDC (Xia et al., USENIX ATC 2016) with normalised chunking level 2.
 * A boundary depends only on the bytes before it, so an insertion moves the boundaries behind it
 * along and equal stretches of two files become equal chunks.
 */
import { createHash } from 'node:crypto'

export const CHUNK_BYTES_MIN = 8 * 1024
export const CHUNK_BYTES_MEAN = 32 * 1024
export const CHUNK_BYTES_MAX = 128 * 1024

// Bits of the rolling hash that must be zero: 2 more than log2(mean) before the mean, 2 fewer behind.
// The topmost bits have seen the most bytes.
const MASK_BEFORE = 0xffff_8000 | 0
const MASK_BEHIND = 0xfff8_0000 | 0

/** 256 numbers that depend on nothing but this program text: SHA-256 of "nexus gear" and the byte. */
const gear = Int32Array.from({ length: 256 }, (_, byte) =>
  createHash('sha256').update(`nexus gear ${byte}`).digest().readInt32LE(0),
)

/** Length of the chunk that starts at `start`; `end` is where the bytes end. */
export function chunkLength(bytes: Uint8Array, start: number, end: number): number {
  if (end - start <= CHUNK_BYTES_MIN) return end - start
  const mean = Math.min(end, start + CHUNK_BYTES_MEAN)
  const max = Math.min(end, start + CHUNK_BYTES_MAX)
  let hash = 0
  let at = start + CHUNK_BYTES_MIN
  for (; at < mean; at++) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0
    if ((hash & MASK_BEFORE) === 0) return at + 1 - start
  }
  for (; at < max; at++) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0
    if ((hash & MASK_BEHIND) === 0) return at + 1 - start
  }
  return max - start
}
