/**
 * How often the kernel was handed each inode, so that we know which it may hold: a restore tells it
 * about those and no others, and an inode without a name goes when the last reference does. With it,
 * the generation that the kernel was told, and whether it writes past its page cache. In pages of a few inodes that come and go with what the
 * kernel caches, in memory that another process can go on with: only this knows what the kernel holds.
 */
import { NexusError } from '../errors.ts'
import { ROOT_INO } from '../volume/keys.ts'

/** Memory in pieces of SLAB_BYTES, zeroed and aligned to 8 bytes; the same piece for the same index. */
export interface Slabs {
  /** @returns undefined when there are no more */
  slab(index: number): Uint8Array | undefined
}

export const SLAB_BYTES = 1 << 20
const PAGE_INODES = 64
/** u32 each: volume + 1 (0: free), number of the page, generation of the volume, 0; then the counts, then a byte of generation each, then one of flags */
const HEADER_WORDS = 4
const PAGE_BYTES = HEADER_WORDS * 4 + PAGE_INODES * 6
const PAGES_PER_SLAB = Math.floor(SLAB_BYTES / PAGE_BYTES)
const GENERATION_MAX = 255
/** flags of an inode: its maker writes directly; the kernel may have pages of it all the same */
const WRITTEN_DIRECTLY = 1
const CACHED = 2
/** The kernel may have a page of the inode that lies in a hole. */
export const HOLE_PAGE = 4
/** The kernel may have the page that the inode's end lies in. */
export const TAIL_PAGE = 8
/** The kernel has written back what a mapping dirtied. */
export const STORED_INTO = 16
/** A process that may not write the inode could change it without a request (tainted.ts). */
const TAINTED = 32
/** The kernel was given pages of the inode, and may have dirty ones. */
export const ANY_PAGE = 64
/** Volumes are numbered below this, as node ids have it; pages up to that of the largest inode. */
const VOLUMES_MAX = 2 ** 21
const NUMBER_MAX = 2 ** 32 / PAGE_INODES - 1

/** A slab, as words and as bytes. */
interface Memory {
  words: Uint32Array
  bytes: Uint8Array
}

interface Page extends Readonly<Memory> {
  /** index in `words` of the header */
  at: number
  /** its number among all pages of all slabs */
  slot: number
  /** how many counts are not zero */
  used: number
}

interface KnownVolume {
  pages: Map<number, Page>
  generation: number
}

export class KnownNodes {
  readonly #slabs: Slabs
  readonly #generation: number
  readonly #memories: Memory[] = []
  readonly #volumes = new Map<number, KnownVolume>()
  /** pages that were given back; the next ones are those that no one has had, from `#fresh` on */
  readonly #free: number[] = []
  /** the first slot is none: its second word counts the slots that were ever used */
  #fresh = 1
  #inodes = 0

  /**
   * @param slabs goes on with what they hold
   * @param generation what generations begin at. Each mount has a number of its own: numbers of workspaces and snapshots may be
   * given again after an unmount, and a handle of a file (name_to_handle_at) must not lead to another file then
   */
  constructor(slabs: Slabs = privateSlabs(), generation = 0) {
    this.#slabs = slabs
    this.#generation = generation
    this.#load()
  }

  /** The kernel is handed an inode once more. */
  add(volume: number, ino: number): void {
    const page = this.#pageOf(volume, ino) ?? this.#newPage(volume, ino)
    const at = countAt(page, ino)
    const count = page.words[at] as number
    if (count === 0) {
      page.used++
      this.#inodes++
    }
    page.words[at] = count + 1
  }

  /** The kernel gives back `times` references. @returns true when it holds none any more */
  remove(volume: number, ino: number, times: number): boolean {
    const page = this.#pageOf(volume, ino)
    if (page === undefined) return true
    const at = countAt(page, ino)
    const count = page.words[at] as number
    if (count > times) {
      page.words[at] = count - times
      return false
    }
    page.words[at] = 0
    if (count !== 0) this.#inodes--
    page.bytes[generationAt(page, ino)] = 0
    page.bytes[flagsAt(page, ino)] = 0
    if (count !== 0 && --page.used === 0) this.#drop(volume, ino, page)
    return true
  }

  /** How many inodes the kernel may hold. */
  get inodes(): number {
    return this.#inodes
  }

  has(volume: number, ino: number): boolean {
    const page = this.#pageOf(volume, ino)
    return page !== undefined && page.words[countAt(page, ino)] !== 0
  }

  /** All inodes of a volume that the kernel may hold, in no order. */
  *of(volume: number): Generator<number> {
    for (const [number, page] of this.#volumes.get(volume)?.pages ?? []) {
      for (let i = 0; i < PAGE_INODES; i++) {
        if (page.words[page.at + HEADER_WORDS + i] !== 0) yield number * PAGE_INODES + i
      }
    }
  }

  /** Volumes that the kernel may hold inodes of. */
  volumes(): number[] {
    return [...this.#volumes.keys()]
  }

  /** What the kernel is told with an inode: it takes another for another inode. */
  generation(volume: number, ino: number): number {
    // The kernel makes the root's inode before it asks, with generation 0 (fs/fuse/inode.c, fuse_get_root_inode).
    if (volume === 0 && ino === ROOT_INO) return 0
    const known = this.#volumes.get(volume)
    if (known === undefined) return this.#generation
    const page = known.pages.get(Math.floor(ino / PAGE_INODES))
    const own = page === undefined ? 0 : (page.bytes[generationAt(page, ino)] as number)
    return (this.#generation + known.generation + own) >>> 0
  }

  /** Gives an inode that the kernel holds another generation. */
  bury(volume: number, ino: number): void {
    const page = this.#pageOf(volume, ino)
    if (page === undefined || page.words[countAt(page, ino)] === 0) return
    const at = generationAt(page, ino)
    page.bytes[at] = ((page.bytes[at] as number) % GENERATION_MAX) + 1
  }

  /** The same for all inodes of a volume, also those that the kernel is handed later while it holds any. */
  buryVolume(volume: number): void {
    const known = this.#volumes.get(volume)
    if (known === undefined) return
    known.generation++
    for (const { words, at } of known.pages.values()) words[at + 2] = known.generation
  }

  /** An inode was handed out to somebody who writes it past the page cache. */
  setWrittenDirectly(volume: number, ino: number): void {
    const page = this.#pageOf(volume, ino)
    if (page === undefined) return
    // It is not new if the kernel had it before.
    const isOld = (page.words[countAt(page, ino)] as number) > 1
    const at = flagsAt(page, ino)
    page.bytes[at] = (page.bytes[at] as number) | WRITTEN_DIRECTLY | (isOld ? CACHED : 0)
  }

  /** The kernel may have pages of an inode now; or, of one that is written directly, has none. */
  setCached(volume: number, ino: number, isCached: boolean): void {
    const page = this.#pageOf(volume, ino)
    if (page === undefined) return
    const at = flagsAt(page, ino)
    const flags = page.bytes[at] as number
    const isDirect = (flags & WRITTEN_DIRECTLY) !== 0
    if (isCached) page.bytes[at] = flags | ANY_PAGE | (isDirect ? CACHED : 0)
    else if (isDirect) page.bytes[at] = flags & ~CACHED
  }

  /** Whether an inode is written directly, and the kernel may have pages of it. */
  isCached(volume: number, ino: number): boolean {
    const page = this.#pageOf(volume, ino)
    const both = WRITTEN_DIRECTLY | CACHED
    return page !== undefined && ((page.bytes[flagsAt(page, ino)] as number) & both) === both
  }

  /** The kernel may have pages of these kinds now (HOLE_PAGE, TAIL_PAGE, STORED_INTO, ANY_PAGE). */
  setPages(volume: number, ino: number, kinds: number): void {
    const page = this.#pageOf(volume, ino)
    if (page === undefined) return
    const at = flagsAt(page, ino)
    page.bytes[at] = (page.bytes[at] as number) | kinds
  }

  /** Whether the kernel may have pages of a kind. */
  hasPages(volume: number, ino: number, kind: number): boolean {
    const page = this.#pageOf(volume, ino)
    return page !== undefined && ((page.bytes[flagsAt(page, ino)] as number) & kind) !== 0
  }

  /** Whether the kernel may have pages of a kind; from now on it has none. */
  takePages(volume: number, ino: number, kind: number): boolean {
    const page = this.#pageOf(volume, ino)
    if (page === undefined) return false
    const at = flagsAt(page, ino)
    const flags = page.bytes[at] as number
    page.bytes[at] = flags & ~kind
    return (flags & kind) !== 0
  }

  /** Of an inode that the kernel holds. It ends with the last reference: whoever holds a file open holds one. */
  setTainted(volume: number, ino: number, isTainted: boolean): void {
    const page = this.#pageOf(volume, ino)
    if (page === undefined || page.words[countAt(page, ino)] === 0) return
    const at = flagsAt(page, ino)
    const flags = page.bytes[at] as number
    page.bytes[at] = isTainted ? flags | TAINTED : flags & ~TAINTED
  }

  isTainted(volume: number, ino: number): boolean {
    const page = this.#pageOf(volume, ino)
    return page !== undefined && ((page.bytes[flagsAt(page, ino)] as number) & TAINTED) !== 0
  }

  #pageOf(volume: number, ino: number): Page | undefined {
    return this.#volumes.get(volume)?.pages.get(Math.floor(ino / PAGE_INODES))
  }

  #newPage(volume: number, ino: number): Page {
    const page = this.#freePage()
    let known = this.#volumes.get(volume)
    if (known === undefined) {
      known = { pages: new Map(), generation: 0 }
      this.#volumes.set(volume, known)
    }
    const number = Math.floor(ino / PAGE_INODES)
    page.words[page.at + 1] = number
    page.words[page.at + 2] = known.generation
    // Last: a page without it is free, should this process end here.
    page.words[page.at] = volume + 1
    known.pages.set(number, page)
    return page
  }

  #drop(volume: number, ino: number, page: Page): void {
    page.words[page.at] = 0
    this.#free.push(page.slot)
    const known = this.#volumes.get(volume)
    known?.pages.delete(Math.floor(ino / PAGE_INODES))
    if (known?.pages.size === 0) this.#volumes.delete(volume)
  }

  #freePage(): Page {
    const slot = this.#free.pop() ?? this.#fresh
    const page = this.#pageAt(slot)
    if (page === undefined) throw new NexusError('NEXUS_INTERNAL', 'the kernel holds more inodes than can be counted')
    if (slot === this.#fresh) this.#noteFresh(slot + 1)
    return page
  }

  #noteFresh(slots: number): void {
    this.#fresh = slots
    const first = this.#memory(0)
    if (first !== undefined) first.words[1] = slots
  }

  #pageAt(slot: number): Page | undefined {
    const memory = this.#memory(Math.floor(slot / PAGES_PER_SLAB))
    if (memory === undefined) return undefined
    return { ...memory, at: ((slot % PAGES_PER_SLAB) * PAGE_BYTES) / 4, slot, used: 0 }
  }

  #memory(index: number): Memory | undefined {
    const made = this.#memories[index]
    if (made !== undefined) return made
    const bytes = this.#slabs.slab(index)
    if (bytes === undefined) return undefined
    const memory = { bytes, words: new Uint32Array(bytes.buffer, bytes.byteOffset, SLAB_BYTES / 4) }
    this.#memories[index] = memory
    return memory
  }

  #load(): void {
    const count = this.#memory(0)?.words[1] ?? 0
    for (let page = this.#pageAt(1); this.#fresh < count && page !== undefined; page = this.#pageAt(this.#fresh)) {
      if (page.words[page.at] === 0 || !this.#adopt(page)) this.#free.push(page.slot)
      this.#fresh++
    }
  }

  /** @returns false when it is of nothing that there can be, or that another page is of: then nothing is in it */
  #adopt(page: Page): boolean {
    const [volume = 0, number = 0, generation = 0] = page.words.subarray(page.at, page.at + 3)
    if (volume > VOLUMES_MAX || number > NUMBER_MAX || this.#volumes.get(volume - 1)?.pages.has(number) === true) {
      page.words.fill(0, page.at, page.at + PAGE_BYTES / 4)
      return false
    }
    const counts = page.words.subarray(page.at + HEADER_WORDS, page.at + HEADER_WORDS + PAGE_INODES)
    page.used = counts.reduce((used, count) => used + (count === 0 ? 0 : 1), 0)
    this.#inodes += page.used
    const known = this.#volumes.get(volume - 1) ?? { pages: new Map(), generation: 0 }
    this.#volumes.set(volume - 1, known)
    known.generation = Math.max(known.generation, generation)
    known.pages.set(number, page)
    return true
  }
}

function countAt(page: Page, ino: number): number {
  return page.at + HEADER_WORDS + (ino % PAGE_INODES)
}

function generationAt(page: Page, ino: number): number {
  return (page.at + HEADER_WORDS + PAGE_INODES) * 4 + (ino % PAGE_INODES)
}

function flagsAt(page: Page, ino: number): number {
  return (page.at + HEADER_WORDS + PAGE_INODES) * 4 + PAGE_INODES + (ino % PAGE_INODES)
}

/** Memory of this process alone. */
function privateSlabs(): Slabs {
  const made: Uint8Array[] = []
  return {
    slab(index) {
      made[index] ??= new Uint8Array(SLAB_BYTES)
      return made[index]
    },
  }
}
