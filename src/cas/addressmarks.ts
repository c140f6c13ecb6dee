/**
 * Marks of addresses for the collector, at most 11 bytes each: what is marked is always known as marked, and of what is not,
 * one in a million is taken for it (of ten million marks, those that lie in one of 4096 parts, and agree in 32 more bits).
 * That is good enough to keep what is alive; what must know for certain, such as whether a subtree was walked, takes
 * `AddressSet`. It is cut into parts that grow one at a time, so that no single `add` keeps requests waiting.
 */
import type { Address } from './address.ts'
import { partOf } from './addressset.ts'

const PARTS = 4096
const SLOTS_MIN = 8
const FILL_MAX = 0.75
/** Odd, and spreads domains over 32 bits: 2^32 divided by the golden ratio. */
const SALT_STEP = 0x9e3779b9

/** A key a slot; 0 is free. */
interface Part {
  keys: Uint32Array
  size: number
}

export class AddressMarks {
  readonly #parts: (Part | undefined)[] = new Array<Part | undefined>(PARTS).fill(undefined)
  #size = 0

  /** Number of marks, less those that were taken for others. */
  get size(): number {
    return this.#size
  }

  /** @param domain the same address is marked apart in another domain */
  has(address: Address, domain: number): boolean {
    const part = this.#parts[partOf(address)]
    return part !== undefined && part.keys[find(part.keys, keyOf(address, domain))] !== 0
  }

  add(address: Address, domain: number): void {
    const number = partOf(address)
    let part = this.#parts[number]
    if (part === undefined) {
      part = { keys: new Uint32Array(SLOTS_MIN), size: 0 }
      this.#parts[number] = part
    }
    const key = keyOf(address, domain)
    const slot = find(part.keys, key)
    if (part.keys[slot] !== 0) return
    part.keys[slot] = key
    part.size++
    this.#size++
    if (part.size > part.keys.length * FILL_MAX) part.keys = grown(part.keys)
  }
}

function grown(keys: Uint32Array): Uint32Array {
  const larger = new Uint32Array(keys.length * 2)
  for (const key of keys) if (key !== 0) larger[find(larger, key)] = key
  return larger
}

/** The slot that holds the key, or the free one where it belongs. */
function find(keys: Uint32Array, key: number): number {
  let slot = key % keys.length
  while (keys[slot] !== 0 && keys[slot] !== key) slot = (slot + 1) % keys.length
  return slot
}

/** Bytes 2 to 5, which the part does not depend on; never 0. */
function keyOf(address: Address, domain: number): number {
  const bytes =
    (address.charCodeAt(2) << 24) | (address.charCodeAt(3) << 16) | (address.charCodeAt(4) << 8) | address.charCodeAt(5)
  return (bytes + Math.imul(domain, SALT_STEP)) >>> 0 || 1
}
