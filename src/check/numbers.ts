/** A growing list of numbers in blocks: as dense as a typed array, and it never stops to copy itself. */

const BLOCK = 4096

type Block = Uint8Array | Uint16Array | Uint32Array | Float64Array

export class Numbers {
  readonly #make: (length: number) => Block
  readonly #blocks: Block[] = []
  length = 0

  private constructor(make: (length: number) => Block) {
    this.#make = make
  }

  static u8(): Numbers {
    return new Numbers((length) => new Uint8Array(length))
  }

  static u16(): Numbers {
    return new Numbers((length) => new Uint16Array(length))
  }

  static u32(): Numbers {
    return new Numbers((length) => new Uint32Array(length))
  }

  push(value: number): void {
    if (this.length % BLOCK === 0) this.#blocks.push(this.#make(BLOCK))
    ;(this.#blocks[this.#blocks.length - 1] as Block)[this.length % BLOCK] = value
    this.length++
  }

  /** @param index below the length */
  get(index: number): number {
    return (this.#blocks[Math.floor(index / BLOCK)] as Block)[index % BLOCK] as number
  }

  set(index: number, value: number): void {
    ;(this.#blocks[Math.floor(index / BLOCK)] as Block)[index % BLOCK] = value
  }

  add(index: number, more: number): void {
    this.set(index, this.get(index) + more)
  }

  /** Of a list that ascends: where a value is, or -1. */
  find(value: number): number {
    let low = 0
    let high = this.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.get(middle) < value) low = middle + 1
      else high = middle
    }
    return low < this.length && this.get(low) === value ? low : -1
  }
}
