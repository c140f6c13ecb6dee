/** A sorted set of numbers that is read in order often and grows one at a time. */
export class SortedSlots {
  readonly #sorted: number[]

  constructor(slots: Iterable<number>) {
    this.#sorted = [...slots].sort((a, b) => a - b)
  }

  /** @param slot a number that is not in the set yet */
  add(slot: number): void {
    this.#sorted.splice(this.#indexOf(slot), 0, slot)
  }

  /** The numbers from `slot` on, ascending. The set must not change meanwhile. */
  *from(slot: number): Generator<number> {
    for (let i = this.#indexOf(slot); i < this.#sorted.length; i++) yield this.#sorted[i] as number
  }

  #indexOf(slot: number): number {
    let low = 0
    let high = this.#sorted.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#sorted[middle] as number) < slot) low = middle + 1
      else high = middle
    }
    return low
  }
}
