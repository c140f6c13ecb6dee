/**
 * The changes to a volume since its root was made, in memory. A layer is written while it is the
 * volume's active one; a checkpoint freezes it and merges it into the next root.
 */
import type { Attr } from './attr.ts'
import type { Bucket } from './dirent.ts'
import { type HeldWindow, StoredWindow } from './held.ts'
import type { Piece } from './piece.ts'
import { SortedSlots } from './sortedslots.ts'

/** Most inodes change in one of the three ways, and three maps for each would be most of what a layer takes. */
const EMPTY: ReadonlyMap<never, never> = new Map<never, never>()

/** What changed of one inode. In every map, null hides what lies below. */
export class InodeDelta {
  /** true: nothing of this inode below this layer counts any more */
  wiped = false
  /** undefined: unchanged */
  attr: Attr | null | undefined = undefined
  link: Uint8Array | undefined = undefined
  #dirents: Map<number, Bucket | null> | undefined
  #windows: Map<number, HeldWindow | null> | undefined
  #xattrs: Map<string, Uint8Array | null> | undefined
  #slots: SortedSlots | undefined
  #windowOrder: SortedSlots | undefined

  /** by slot */
  get dirents(): ReadonlyMap<number, Bucket | null> {
    return this.#dirents ?? EMPTY
  }

  /** by index */
  get windows(): ReadonlyMap<number, HeldWindow | null> {
    return this.#windows ?? EMPTY
  }

  /** by name */
  get xattrs(): ReadonlyMap<string, Uint8Array | null> {
    return this.#xattrs ?? EMPTY
  }

  /** The slots that changed, in order; kept in step by `setBucket` once it was asked for. */
  get slots(): SortedSlots {
    this.#slots ??= new SortedSlots(this.dirents.keys())
    return this.#slots
  }

  /** The numbers of the windows that changed, in order, as with `slots`. */
  get windowOrder(): SortedSlots {
    this.#windowOrder ??= new SortedSlots(this.windows.keys())
    return this.#windowOrder
  }

  setBucket(slot: number, bucket: Bucket | null): void {
    this.#dirents ??= new Map()
    if (this.#slots !== undefined && !this.#dirents.has(slot)) this.#slots.add(slot)
    this.#dirents.set(slot, bucket)
  }

  /** @param window becomes this layer's own, which may change it when it is pieces */
  setWindow(index: number, window: HeldWindow | null): void {
    this.#windows ??= new Map()
    if (this.#windowOrder !== undefined && !this.#windows.has(index)) this.#windowOrder.add(index)
    this.#windows.set(index, window)
  }

  /**
   * Puts a piece behind all others of a window that changed: who appends a little at a time would else copy them each time.
   * @returns false when there is no such window, it is in its stored form, or the piece does not lie behind
   */
  extendWindow(index: number, piece: Piece): boolean {
    const window = this.#windows?.get(index)
    if (window == null || window instanceof StoredWindow) return false
    const last = window.at(-1)
    if (last === undefined || last.start + last.length > piece.start) return false
    ;(window as Piece[]).push(piece)
    return true
  }

  setXattr(name: string, value: Uint8Array | null): void {
    this.#xattrs ??= new Map()
    this.#xattrs.set(name, value)
  }

  /** Takes over what a newer delta of the same inode says. */
  cover(newer: InodeDelta): void {
    if (newer.wiped) this.wipe()
    if (newer.attr !== undefined) this.attr = newer.attr
    if (newer.link !== undefined) this.link = newer.link
    for (const [slot, bucket] of newer.dirents) this.setBucket(slot, bucket)
    for (const [index, window] of newer.windows) this.setWindow(index, window)
    for (const [name, value] of newer.xattrs) this.setXattr(name, value)
  }

  /** Forgets everything and hides what lies below. */
  wipe(): void {
    this.wiped = true
    this.attr = null
    this.link = undefined
    this.#dirents = undefined
    this.#windows = undefined
    this.#xattrs = undefined
    this.#slots = undefined
    this.#windowOrder = undefined
  }
}

export class Layer {
  readonly inodes = new Map<number, InodeDelta>()
  /** inode → true (has no name, goes at the next mount) or false (no longer so) */
  readonly orphans = new Map<number, boolean>()
  /** changes applied, a measure of the work that merging it will be */
  weight = 0
  /** no raw piece points into a segment before this one */
  firstRaw = Number.POSITIVE_INFINITY

  get empty(): boolean {
    return this.weight === 0
  }

  /** Takes over what a newer layer says. */
  cover(newer: Layer): void {
    for (const [ino, delta] of newer.inodes) this.touch(ino).cover(delta)
    for (const [ino, isOrphan] of newer.orphans) this.orphans.set(ino, isOrphan)
    this.weight += newer.weight
    this.firstRaw = Math.min(this.firstRaw, newer.firstRaw)
  }

  /** The delta of an inode, made when there is none. */
  touch(ino: number): InodeDelta {
    this.weight++
    let delta = this.inodes.get(ino)
    if (delta === undefined) {
      delta = new InodeDelta()
      this.inodes.set(ino, delta)
    }
    return delta
  }
}
