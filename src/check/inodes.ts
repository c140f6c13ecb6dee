/**
 * The inodes of one state and the entries that name them, as columns of numbers: 45 bytes for an inode with one name,
 * so that five million fit into memory. Filled in key order, then judged.
 */
import { S_IFDIR, S_IFMT } from '../volume/attr.ts'
import type { Dirent } from '../volume/dirent.ts'
import type { Super } from '../volume/volume.ts'
import { Numbers } from './numbers.ts'

const TWO_32 = 0x1_0000_0000
const TYPE_SHIFT = 12
/** beside the type in `flags` */
const PLACED = 0x10
const WITHOUT_ATTRIBUTES = 0x20

/** An entry that leads to another volume. */
export interface NestedEntry {
  directory: number
  slot: number
  entry: Dirent
}

/** What an inode without attributes seems to be. */
export interface Remains {
  mode: number
  size: number
  allocated: number
  xattrs: number
}

export class InodeTable {
  readonly #inos = Numbers.u32()
  readonly #flags = Numbers.u8()
  readonly #nlinks = Numbers.u32()
  /** recorded place */
  readonly #parents = Numbers.u32()
  readonly #slotsLow = Numbers.u32()
  readonly #slotsHigh = Numbers.u16()
  /** entries that name it */
  readonly #names = Numbers.u32()
  /** entries in it that are directories */
  readonly #subdirectories = Numbers.u32()
  /** one entry that names it, plus one; 0: none */
  readonly #holders = Numbers.u32()
  // Entries.
  readonly #children = Numbers.u32()
  readonly #directories = Numbers.u32()
  readonly #types = Numbers.u8()
  readonly #entrySlotsLow = Numbers.u32()
  readonly #entrySlotsHigh = Numbers.u16()
  readonly nested: NestedEntry[] = []
  readonly orphans = new Set<number>()
  readonly remains = new Map<number, Remains>()
  /** as they should be stored; `inoNext` is the least that it may be */
  readonly counted: Super = { inoNext: 0, files: 0, directories: 0, bytes: 0, allocated: 0, inodes: 0, xattrBytes: 0 }
  /** as they are stored */
  stored: Super | undefined

  // Filling.

  /** @param place the slot of the recorded name */
  addInode(ino: number, mode: number, nlink: number, place: { parent: number; slot: number }): number {
    this.#inos.push(ino)
    this.#flags.push((mode & S_IFMT) >>> TYPE_SHIFT)
    this.#nlinks.push(nlink)
    this.#parents.push(place.parent)
    this.#slotsLow.push(place.slot % TWO_32)
    this.#slotsHigh.push(Math.floor(place.slot / TWO_32))
    this.#names.push(0)
    this.#subdirectories.push(0)
    this.#holders.push(0)
    this.counted.inoNext = Math.max(this.counted.inoNext, ino + 1)
    return this.#inos.length - 1
  }

  addWithoutAttributes(ino: number, mode: number): number {
    const row = this.addInode(ino, mode, 0, { parent: 0, slot: 0 })
    this.#flags.set(row, this.#flags.get(row) | WITHOUT_ATTRIBUTES)
    return row
  }

  addEntry(directory: number, slot: number, entry: Dirent): void {
    if (entry.volume !== 0) {
      this.nested.push({ directory: this.ino(directory), slot, entry })
      this.#subdirectories.add(directory, 1)
      return
    }
    this.#children.push(entry.ino)
    this.#directories.push(directory)
    this.#types.push(entry.type >>> TYPE_SHIFT)
    this.#entrySlotsLow.push(slot % TWO_32)
    this.#entrySlotsHigh.push(Math.floor(slot / TWO_32))
  }

  // Judging.

  get inodes(): number {
    return this.#inos.length
  }

  get entries(): number {
    return this.#children.length
  }

  ino(row: number): number {
    return this.#inos.get(row)
  }

  /** -1: there is none */
  rowOf(ino: number): number {
    return this.#inos.find(ino)
  }

  type(row: number): number {
    return (this.#flags.get(row) & 0x0f) << TYPE_SHIFT
  }

  isDirectory(row: number): boolean {
    return this.type(row) === S_IFDIR
  }

  hasAttributes(row: number): boolean {
    return (this.#flags.get(row) & WITHOUT_ATTRIBUTES) === 0
  }

  nlink(row: number): number {
    return this.#nlinks.get(row)
  }

  parent(row: number): number {
    return this.#parents.get(row)
  }

  names(row: number): number {
    return this.#names.get(row)
  }

  /** What its link count has to be. */
  links(row: number): number {
    return this.isDirectory(row) ? 2 + this.#subdirectories.get(row) : this.#names.get(row)
  }

  /** Whether one of its names is the one recorded. */
  isPlaced(row: number): boolean {
    return (this.#flags.get(row) & PLACED) !== 0
  }

  /** An entry that names it, or undefined. */
  holder(row: number): { directory: number; slot: number } | undefined {
    const entry = this.#holders.get(row) - 1
    return entry < 0 ? undefined : this.entry(entry)
  }

  /** @returns the row of the directory, the slot, and what the entry says of its child */
  entry(index: number): { directory: number; slot: number; child: number; type: number } {
    return {
      directory: this.#directories.get(index),
      slot: this.#entrySlotsHigh.get(index) * TWO_32 + this.#entrySlotsLow.get(index),
      child: this.#children.get(index),
      type: this.#types.get(index) << TYPE_SHIFT,
    }
  }

  /** Counts an entry for what it names. @returns whether it is a second one of a directory */
  countName(index: number, row: number): boolean {
    const directory = this.#directories.get(index)
    this.#names.add(row, 1)
    const isSubdirectory = this.isDirectory(row)
    if (isSubdirectory) this.#subdirectories.add(directory, 1)
    const isRecorded =
      this.#parents.get(row) === this.ino(directory) &&
      this.#slotsLow.get(row) === this.#entrySlotsLow.get(index) &&
      this.#slotsHigh.get(row) === this.#entrySlotsHigh.get(index)
    if (isRecorded) this.#flags.set(row, this.#flags.get(row) | PLACED)
    const isFirst = this.#holders.get(row) === 0
    // The recorded name is the one to keep.
    if (isFirst || isRecorded) this.#holders.set(row, index + 1)
    return isSubdirectory && !isFirst
  }
}
