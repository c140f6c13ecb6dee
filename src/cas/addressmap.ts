/**
 * A map from addresses to numbers, for checks that go through every chunk of the store: as `AddressSet`, but in
 * many small tables, because to grow one large table would stop everything else for a second.
 */
import type { Address } from './address.ts'
import { high, low } from './addressset.ts'

const TABLES = 1024
const SLOTS_MIN = 16
const FILL_MAX = 0.6

export class AddressMap {
  readonly #tables: (Table | undefined)[] = new Array(TABLES)

  get(address: Address): number | undefined {
    return this.#tables[tableOf(address)]?.get(high(address), low(address))
  }

  /** @param value u32 */
  set(address: Address, value: number): void {
    const at = tableOf(address)
    let table = this.#tables[at]
    if (table === undefined) {
      table = new Table()
      this.#tables[at] = table
    }
    table.set(high(address), low(address), value)
  }

  get size(): number {
    return this.#tables.reduce((sum, table) => sum + (table?.size ?? 0), 0)
  }

  /** Every value, in no order. */
  *values(): Generator<number> {
    for (const table of this.#tables) if (table !== undefined) yield* table.all()
  }
}

/** Bytes of the address that neither half of the key has. */
function tableOf(address: Address): number {
  return ((address.charCodeAt(30) << 8) | address.charCodeAt(31)) % TABLES
}

class Table {
  #slots = SLOTS_MIN
  /** two numbers below 2^52 a slot; 0, 0 is free */
  #keys = new Float64Array(SLOTS_MIN * 2)
  #values = new Uint32Array(SLOTS_MIN)
  size = 0

  get(first: number, second: number): number | undefined {
    const slot = this.#find(first, second)
    return this.#keys[slot * 2] === 0 ? undefined : this.#values[slot]
  }

  set(first: number, second: number, value: number): void {
    const slot = this.#find(first, second)
    const isNew = this.#keys[slot * 2] === 0
    this.#put(slot, first, second, value)
    if (isNew && ++this.size > this.#slots * FILL_MAX) this.#grow()
  }

  *all(): Generator<number> {
    for (let slot = 0; slot < this.#slots; slot++) if (this.#keys[slot * 2] !== 0) yield this.#values[slot] as number
  }

  #put(slot: number, first: number, second: number, value: number): void {
    this.#keys[slot * 2] = first
    this.#keys[slot * 2 + 1] = second
    this.#values[slot] = value
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
    const keys = this.#keys
    const values = this.#values
    this.#slots *= 2
    this.#keys = new Float64Array(this.#slots * 2)
    this.#values = new Uint32Array(this.#slots)
    for (let i = 0; i < values.length; i++) {
      const [first, second] = [keys[i * 2] as number, keys[i * 2 + 1] as number]
      if (first !== 0) this.#put(this.#find(first, second), first, second, values[i] as number)
    }
  }
}
