/** What content is known by in the index: its kind, for a chunk its domain, and its address. */
import type { Address } from './address.ts'

/** Bytes as a latin1 string. */
export type Key = string

/** keys have four bytes for it */
export const DOMAIN_MAX = 0xffff_ffff

export function nodeKey(address: Address): Key {
  return `n${address}`
}

export function chunkKey(domain: number, address: Address): Key {
  return `c${String.fromCharCode(domain >>> 24, (domain >>> 16) & 255, (domain >>> 8) & 255, domain & 255)}${address}`
}
