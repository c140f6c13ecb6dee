/**
 * How often the kernel was handed each inode, so that we know which it may hold: a restore tells it
 * about those and no others, and an inode without a name goes when the last reference does.
 * One byte an inode, in pages that come and go with what the kernel caches.
 */
const PAGE_INODES = 4096
const COUNT_MAX = 255

interface Page {
  counts: Uint8Array
  /** how many counts are not zero */
  used: number
}

export class KnownNodes {
  readonly #volumes = new Map<number, Map<number, Page>>()
  /** what does not fit into a byte, by volume * 2^32 + inode */
  readonly #overflow = new Map<number, number>()

  /** The kernel is handed an inode once more. */
  add(volume: number, ino: number): void {
    const page = this.#pageFor(volume, ino)
    const at = ino % PAGE_INODES
    const count = page.counts[at] as number
    if (count === 0) page.used++
    if (count < COUNT_MAX) page.counts[at] = count + 1
    else this.#spill(volume, ino, 1)
  }

  /** The kernel gives back `times` references. @returns true when it holds none any more */
  remove(volume: number, ino: number, times: number): boolean {
    const pages = this.#volumes.get(volume)
    const number = Math.floor(ino / PAGE_INODES)
    const page = pages?.get(number)
    if (pages === undefined || page === undefined) return true
    const at = ino % PAGE_INODES
    const left = (page.counts[at] as number) - this.#unspill(volume, ino, times)
    if (left > 0) {
      page.counts[at] = left
      return false
    }
    if (page.counts[at] !== 0) page.used--
    page.counts[at] = 0
    if (page.used === 0) pages.delete(number)
    return true
  }

  has(volume: number, ino: number): boolean {
    const page = this.#volumes.get(volume)?.get(Math.floor(ino / PAGE_INODES))
    return page !== undefined && page.counts[ino % PAGE_INODES] !== 0
  }

  /** All inodes of a volume that the kernel may hold, in no order. */
  *of(volume: number): Generator<number> {
    for (const [number, page] of this.#volumes.get(volume) ?? []) {
      for (let at = 0; at < PAGE_INODES; at++) if (page.counts[at] !== 0) yield number * PAGE_INODES + at
    }
  }

  #pageFor(volume: number, ino: number): Page {
    let pages = this.#volumes.get(volume)
    if (pages === undefined) {
      pages = new Map()
      this.#volumes.set(volume, pages)
    }
    const number = Math.floor(ino / PAGE_INODES)
    let page = pages.get(number)
    if (page === undefined) {
      page = { counts: new Uint8Array(PAGE_INODES), used: 0 }
      pages.set(number, page)
    }
    return page
  }

  #spill(volume: number, ino: number, times: number): void {
    const key = volume * 2 ** 32 + ino
    this.#overflow.set(key, (this.#overflow.get(key) ?? 0) + times)
  }

  /** Takes what it can of `times` from the overflow; returns the rest. */
  #unspill(volume: number, ino: number, times: number): number {
    if (this.#overflow.size === 0) return times
    const key = volume * 2 ** 32 + ino
    const spilled = this.#overflow.get(key) ?? 0
    if (spilled > times) this.#overflow.set(key, spilled - times)
    else this.#overflow.delete(key)
    return times - Math.min(spilled, times)
  }
}
