/** XXH64 (https://xxhash.com, seed first): the checksum of every record and chunk on disk. */
import xxhash from 'xxhash-wasm'

const { h64Raw } = await xxhash()

/**
 * @param seed a 64-bit value; the log uses its store's id, so that records of another store never pass
 * @returns 64 bits
 */
export function xxh64(bytes: Uint8Array, seed = 0n): bigint {
  return h64Raw(bytes, seed)
}

/** The low 32 bits of it, as a number. */
export function xxh64Low(bytes: Uint8Array, seed: bigint): number {
  return Number(BigInt.asUintN(32, h64Raw(bytes, seed)))
}
