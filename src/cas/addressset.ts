/**
 * A set of addresses for the collector: 16 bytes a slot instead of the hundred of a JavaScript Set,
 * because it holds every address of the store. Kept are 104 of the 256 bits; two addresses of a
 * store that agree in those are as good as never met (2^-58 for ten million).
 */
import type { Address } from './address.ts'

const SLOTS_MIN = 1024
const FILL_MAX = 0.6

export class AddressSet {
  #slots: number
  /** two numbers below 2^52 a slot; 0, 0 is free */
  #keys: Float64Array
  #size = 0

  constructor() {
    this.#slots = SLOTS_MIN
    this.#keys = new Float64Array(SLOTS_MIN * 2)
  }

  get size(): number {
    return this.#size
  }

  has(address: Address): boolean {
    const slot = this.#find(high(address), low(address))
    return this.#keys[slot * 2] !== 0
  }

  /** @returns true when it was not there before */
  add(address: Address): boolean {
    const first = high(address)
    const second = low(address)
    const slot = this.#find(first, second)
    if (this.#keys[slot * 2] !== 0) return false
    this.#keys[slot * 2] = first
    this.#keys[slot * 2 + 1] = second
    this.#size++
    if (this.#size > this.#slots * FILL_MAX) this.#grow()
    return true
  }

  /** The slot that holds the key, or the free one where it belongs. */
  #find(first: number, second: number): number {
    let slot = first % this.#slots
    while (this.#keys[slot * 2] !== 0 && (this.#keys[slot * 2] !== first || this.#keys[slot * 2 + 1] !== second)) {
      slot = (slot + 1) % this.#slots
    }
    return slot
  }

  #grow(): void {
    const before = this.#keys
    this.#slots *= 2
    this.#keys = new Float64Array(this.#slots * 2)
    for (let i = 0; i < before.length; i += 2) {
      const first = before[i] as number
      if (first === 0) continue
      const slot = this.#find(first, before[i + 1] as number)
      this.#keys[slot * 2] = first
      this.#keys[slot * 2 + 1] = before[i + 1] as number
    }
  }
}

/** Bytes 0 to 5 and half of 12, plus one so that it is never 0. */
export function high(address: Address): number {
  return bytesAt(address, 0) * 16 + (address.charCodeAt(12) >> 4) + 1
}

/** Bytes 6 to 11 and the other half. */
export function low(address: Address): number {
  return bytesAt(address, 6) * 16 + (address.charCodeAt(12) & 15)
}

function bytesAt(address: Address, at: number): number {
  let value = 0
  for (let i = at; i < at + 6; i++) value = value * 256 + address.charCodeAt(i)
  return value
}
