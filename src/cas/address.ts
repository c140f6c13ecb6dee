/**
 * Addresses: the SHA-256 of the content (FIPS 180-4). XXH64 guards bytes on disk but is never an
 * address: it can be made to collide, and then one tenant would read another's data.
 */
import { hash } from 'node:crypto'

/** The 32 raw bytes of a SHA-256 as a latin1 string: compact, and usable as a Map key. */
export type Address = string & { readonly __address: true }

export const ADDRESS_BYTES = 32

/** The address of some content. */
export function addressOf(bytes: Uint8Array): Address {
  return hash('sha256', bytes, 'latin1' as 'hex') as Address
}

/** Hexadecimal, as shown to people and in JSON (64 characters). */
export function toHex(address: Address): string {
  return Buffer.from(address, 'latin1').toString('hex')
}

/** @throws TypeError when `hex` is not 64 hexadecimal digits */
export function fromHex(hex: string): Address {
  if (!/^[0-9a-f]{64}$/.test(hex)) throw new TypeError(`not an address: ${hex}`)
  return Buffer.from(hex, 'hex').toString('latin1') as Address
}

/** Reads the 32 bytes at `offset`. */
export function addressAt(buffer: Buffer, offset: number): Address {
  return buffer.toString('latin1', offset, offset + ADDRESS_BYTES) as Address
}

/** Writes the 32 bytes at `offset`. */
export function writeAddress(buffer: Buffer, address: Address, offset: number): void {
  buffer.write(address, offset, ADDRESS_BYTES, 'latin1')
}
