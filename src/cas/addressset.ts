/**
 * A set of addresses for the collector: at most 43 bytes an address instead of the hundred and more of a
 * JavaScript Set, because it holds every address of the store. Kept are 104 of the 256 bits; two addresses of a
 * store that agree in those are as good as never met (2^-58 for ten million).
 *
 * It is cut into parts that grow one at a time, so that no single `add` keeps requests waiting.
 */
import type { Address } from './address.ts'

const PARTS = 4096
const SLOTS_MIN = 8
const FILL_MAX = 0.75
/** Odd, and spreads domains (below 2^21) over 52 bits. */
const SALT_STEP = 0x4f6c_dd1d
const TWO_52 = 2 ** 52

/** Two numbers below 2^53 a slot; 0, 0 is free. */
interface Part {
  keys: Float64Array
  slots: number
  size: number
}

export class AddressSet {
  readonly #parts: (Part | undefined)[] = []
  #size = 0

  get size(): number {
    return this.#size
  }

  /** @param domain the same address is another member in another domain */
  has(address: Address, domain = 0): boolean {
    const part = this.#parts[partOf(address)]
    return part !== undefined && part.keys[find(part, high(address), salted(low(address), domain)) * 2] !== 0
  }

  /** @returns true when it was not there before */
  add(address: Address, domain = 0): boolean {
    const number = partOf(address)
    let part = this.#parts[number]
    if (part === undefined) {
      part = emptyPart(SLOTS_MIN)
      this.#parts[number] = part
    }
    if (!insert(part, high(address), salted(low(address), domain))) return false
    this.#size++
    if (part.size > part.slots * FILL_MAX) this.#parts[number] = grown(part)
    return true
  }
}

function emptyPart(slots: number): Part {
  return { keys: new Float64Array(slots * 2), slots, size: 0 }
}

function grown(part: Part): Part {
  const larger = emptyPart(part.slots * 2)
  for (let i = 0; i < part.keys.length; i += 2) {
    const first = part.keys[i] as number
    if (first !== 0) insert(larger, first, part.keys[i + 1] as number)
  }
  return larger
}

function insert(part: Part, first: number, second: number): boolean {
  const at = find(part, first, second) * 2
  if (part.keys[at] !== 0) return false
  part.keys[at] = first
  part.keys[at + 1] = second
  part.size++
  return true
}

/** The slot that holds the key, or the free one where it belongs. */
function find({ keys, slots }: Part, first: number, second: number): number {
  let slot = first % slots
  while (keys[slot * 2] !== 0 && (keys[slot * 2] !== first || keys[slot * 2 + 1] !== second)) slot = (slot + 1) % slots
  return slot
}

/** Byte 0 and half of byte 1: of the rest come the slots. */
export function partOf(address: Address): number {
  return (address.charCodeAt(0) * 16 + (address.charCodeAt(1) >> 4)) % PARTS
}

/** Bytes 0 to 5 and half of 12, plus one so that it is never 0. */
export function high(address: Address): number {
  return bytesAt(address, 0) * 16 + (address.charCodeAt(12) >> 4) + 1
}

/** Bytes 6 to 11 and the other half. */
export function low(address: Address): number {
  return bytesAt(address, 6) * 16 + (address.charCodeAt(12) & 15)
}

function salted(value: number, domain: number): number {
  return (value + domain * SALT_STEP) % TWO_52
}

function bytesAt(address: Address, at: number): number {
  let value = 0
  for (let i = at; i < at + 6; i++) value = value * 256 + address.charCodeAt(i)
  return value
}
