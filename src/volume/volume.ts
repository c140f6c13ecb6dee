/**
 * A volume: the files of one workspace (or of one snapshot), as the ordered map that its root is,
 * with the changes since then laid over it. Reading looks through the layers from the newest down;
 * writing goes through `apply`, which is also what recovery calls.
 */
import { ByteReader, ByteWriter } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { assert, NexusError } from '../errors.ts'
import type { Tree } from '../tree/tree.ts'
import { type Attr, isDirectory, isRegular, readAttr } from './attr.ts'
import { type Bucket, type Dirent, decodeBucket, positionOf, slotOf, withEntry, withoutIndex } from './dirent.ts'
import { allocatedOf, type HeldWindow, heldIn, movedOut, type NumberedWindow, StoredWindow, windowOf } from './held.ts'
import {
  FIRST_FREE_INO,
  INO_MAX,
  inoOf,
  Kind,
  kindOf,
  numberKey,
  numberPart,
  orphanKey,
  plainKey,
  ROOT_INO,
  SLOT_MAX,
  stringKey,
  stringPart,
} from './keys.ts'
import { type InodeDelta, Layer } from './layer.ts'
import { type Piece, pieceOf, piecesIn, type Source, splice, WINDOW_BYTES, type Window, ZERO_WINDOW } from './piece.ts'
import { xattrCost } from './xattrbytes.ts'

/** Counters kept beside the tree's entries, so that nobody has to count. */
export interface Super {
  /** the next inode number: they are never used twice */
  inoNext: number
  files: number
  directories: number
  /** sum of the sizes of regular files */
  bytes: number
  /** sum of what is allocated to inodes, those without a name among them; NaN in a tree that does not say */
  allocated: number
  /** all of them, those without a name too; NaN likewise, and both stay so until `taken` counts */
  inodes: number
  /** what extended attributes count for (`xattrbytes.ts`); NaN likewise */
  xattrBytes: number
}

/** What a quota limits. */
export interface Taken {
  /** allocated, as du(1) counts, without holes; and extended attributes */
  bytes: number
  inodes: number
}

export function encodeSuper(counters: Super): Buffer {
  const out = new ByteWriter(56).u64(counters.inoNext).u64(counters.files).u64(counters.directories).u64(counters.bytes)
  if (Number.isNaN(counters.inodes)) return out.view()
  out.u64(counters.allocated).u64(counters.inodes)
  return (Number.isNaN(counters.xattrBytes) ? out : out.u64(counters.xattrBytes)).view()
}

export function decodeSuper(value: Buffer): Super {
  const input = new ByteReader(value)
  const counters = { inoNext: input.u64(), files: input.u64(), directories: input.u64(), bytes: input.u64() }
  // Trees of before there were quotas end here.
  if (input.done) return { ...counters, allocated: Number.NaN, inodes: Number.NaN, xattrBytes: Number.NaN }
  const taken = { ...counters, allocated: input.u64(), inodes: input.u64() }
  // And trees of before extended attributes were counted here.
  return { ...taken, xattrBytes: input.done ? Number.NaN : input.u64() }
}

const EMPTY_WINDOW: Window = []
const NOTHING: Super = { inoNext: FIRST_FREE_INO, files: 0, directories: 0, bytes: 0, allocated: 0, inodes: 0, xattrBytes: 0 }
/**
 * Windows of a file that changed since the last checkpoint, for what is reserved in one go: a map holds 16 million at most, and
 * a change that is in the log and cannot be applied would keep the store from opening.
 */
const RESERVED_WINDOWS_MAX = 4 * 1024 * 1024
/** Inodes whose extended attributes were summed up, at most. */
const XATTR_SUMS_MAX = 10_000
const SUPER_KEY = plainKey(0, Kind.super)

export class Volume {
  readonly number: number
  /** chunks are shared only within a domain, so that no tenant can learn what another stores */
  readonly domain: number
  readonly #tree: Tree
  root: Address | null
  active = new Layer()
  frozen: Layer | null = null
  super: Super
  /** inodes without a name, which live while the kernel knows them */
  orphanInos: Set<number>
  /** what the volume was before restores since the mount: open files that a restore removed live on from there */
  readonly ghosts: Volume[] = []
  /** the counters as they were when `frozen` was */
  frozenSuper: Super
  /** goes up when the content is replaced as a whole: a merge that began before is void */
  epoch = 0
  /** allocated bytes that came and went since the volume was opened, the sum of it; for estimates */
  allocated = 0
  /** the bucket that was asked for last: who makes a name asks several times (directory 0: none) */
  readonly #lastBucket: { directory: number; slot: number; bucket: Bucket | undefined } = {
    directory: 0,
    slot: 0,
    bucket: undefined,
  }
  /** the next inode number as the tree says it; undefined until somebody asks: the last of which it has anything */
  #storedNext = 0
  #lastStored: number | undefined
  /** by uid, once somebody has asked */
  #namesByOwner: Map<number, number> | undefined
  /** by inode, of those that were asked for: a file may have thousands of attributes */
  readonly #xattrBytes = new Map<number, number>()
  /** called once, when the counters are next about to change */
  onCount: (() => void) | undefined

  constructor(number: number, domain: number, tree: Tree, root: Address | null) {
    this.number = number
    this.domain = domain
    this.#tree = tree
    this.root = root
    this.super = this.#loadSuper()
    this.frozenSuper = this.super
    this.#noteStored(this.super.inoNext)
    this.orphanInos = new Set(this.#loadOrphans())
  }

  attr(ino: number): Attr | undefined {
    const changed = this.#newest(ino, (delta) => delta.attr)
    if (changed !== undefined) return changed ?? undefined
    const value = this.#isStored(ino) ? this.#tree.get(this.root, plainKey(ino, Kind.attr)) : undefined
    return value === undefined ? undefined : readAttr(new ByteReader(value))
  }

  entry(directory: number, name: string): Dirent | undefined {
    return this.bucket(directory, slotOf(name))?.find((entry) => entry.name === name)
  }

  bucket(directory: number, slot: number): Bucket | undefined {
    const last = this.#lastBucket
    if (last.directory !== directory || last.slot !== slot) {
      last.bucket = this.#findBucket(directory, slot)
      last.directory = directory
      last.slot = slot
    }
    return last.bucket
  }

  #findBucket(directory: number, slot: number): Bucket | undefined {
    const changed = this.#newest(directory, (delta) => delta.dirents.get(slot))
    if (changed !== undefined) return changed ?? undefined
    const value = this.#isStored(directory) ? this.#tree.get(this.root, numberKey(directory, Kind.dirent, slot)) : undefined
    return value === undefined ? undefined : decodeBucket(new ByteReader(value))
  }

  /** The entries of a directory behind a cookie (0: all), in cookie order, with their slots. */
  *entries(directory: number, cookie = 0): Generator<[slot: number, entry: Dirent]> {
    const position = positionOf(cookie)
    // A program may seek to where no entry can be.
    if (position.slot > SLOT_MAX) return
    for (const [slot, bucket] of this.#buckets(directory, position.slot)) {
      for (const entry of bucket) {
        if (slot > position.slot || entry.index >= position.index) yield [slot, entry]
      }
    }
  }

  /** What it takes of quotas. Of a tree that does not say it is counted, once, which takes as long as reading the tree. */
  get taken(): Taken {
    if (Number.isNaN(this.super.inodes) || Number.isNaN(this.super.xattrBytes)) Object.assign(this.super, this.#countTaken())
    const { allocated, xattrBytes, inodes } = this.super
    return { bytes: allocated + xattrBytes, inodes }
  }

  /** How many names there are of what a user owns. The first time it takes as long as reading the tree. */
  namesOf(uid: number): number {
    if (this.#namesByOwner === undefined) {
      this.#namesByOwner = new Map()
      for (const [, attr] of this.#attrs()) this.#countOwner(attr, 1)
    }
    return this.#namesByOwner.get(uid) ?? 0
  }

  #countOwner(attr: Attr, sign: 1 | -1): void {
    const names = isDirectory(attr) ? Math.min(1, attr.nlink) : attr.nlink
    this.#namesByOwner?.set(attr.uid, (this.#namesByOwner.get(attr.uid) ?? 0) + sign * names)
  }

  hasEntries(directory: number): boolean {
    return this.entries(directory).next().done !== true
  }

  window(ino: number, index: number): Window {
    return windowOf(this.#held(ino, index))
  }

  /** The numbers of the windows from `first` on that hold anything, ascending. */
  *windows(ino: number, first = 0): Generator<number> {
    for (const [index] of this.windowsIn(ino, first, Number.POSITIVE_INFINITY)) yield index
  }

  /** The windows from `first` to before `last` that hold anything, ascending. */
  windowsIn(ino: number, first: number, last: number): Generator<NumberedWindow> {
    const deltas = this.#deltas(ino)
    const to = last < Number.POSITIVE_INFINITY ? numberKey(ino, Kind.window, last) : plainKey(ino, Kind.window + 1)
    const isHidden = deltas.some((delta) => delta.wiped)
    const stored = isHidden ? [] : this.#tree.places(this.root, numberKey(ino, Kind.window, first), to)
    return heldIn(
      deltas.map(({ windows }) => windows),
      stored,
      first,
      last,
    )
  }

  /**
   * Makes whole windows refer to what others do.
   * @param by what is added to their numbers
   */
  setWindows(ino: number, windows: readonly NumberedWindow[], by: number): void {
    const { active } = this
    for (const [index, window] of movedOut(windows)) {
      const delta = active.touch(ino)
      if (window instanceof StoredWindow) {
        delta.setWindow(index + by, window)
        continue
      }
      for (const piece of window) if (piece.kind === 'raw') active.firstRaw = Math.min(active.firstRaw, piece.segment)
      // The layer may change what it holds.
      delta.setWindow(index + by, window.length === 0 ? null : [...window])
    }
  }

  /** The pieces of [offset, offset + length), each with the file offset where it starts. */
  *pieces(ino: number, offset: number, length: number): Generator<[at: number, piece: Piece]> {
    const end = offset + length
    for (const [index, window] of this.#windowsIn(ino, offset, end)) {
      const base = index * WINDOW_BYTES
      for (const piece of piecesIn(windowOf(window), Math.max(0, offset - base), Math.min(WINDOW_BYTES, end - base))) {
        yield [base + piece.start, piece]
      }
    }
  }

  link(ino: number): Uint8Array | undefined {
    const changed = this.#newest(ino, (delta) => delta.link)
    if (changed !== undefined) return changed ?? undefined
    return this.#isStored(ino) ? this.#tree.get(this.root, plainKey(ino, Kind.link)) : undefined
  }

  xattr(ino: number, name: string): Uint8Array | undefined {
    const changed = this.#newest(ino, (delta) => delta.xattrs.get(name))
    if (changed !== undefined) return changed ?? undefined
    return this.#isStored(ino) ? this.#tree.get(this.root, stringKey(ino, Kind.xattr, name)) : undefined
  }

  xattrs(ino: number): string[] {
    const names = new Map<string, boolean>()
    for (const delta of this.#deltas(ino)) {
      for (const [name, value] of delta.xattrs) if (!names.has(name)) names.set(name, value !== null)
      if (delta.wiped) return present(names)
    }
    for (const [key] of this.#tree.scan(this.root, plainKey(ino, Kind.xattr), plainKey(ino, Kind.xattr + 1))) {
      const name = stringPart(key)
      if (!names.has(name)) names.set(name, true)
    }
    return present(names)
  }

  /** What the extended attributes of an inode count for. */
  xattrBytesOf(ino: number): number {
    const known = this.#xattrBytes.get(ino)
    if (known !== undefined) return known
    const bytes = this.xattrs(ino).reduce((sum, name) => sum + xattrCost(name, this.xattr(ino, name)), 0)
    if (this.#xattrBytes.size >= XATTR_SUMS_MAX) this.#xattrBytes.clear()
    this.#xattrBytes.set(ino, bytes)
    return bytes
  }

  setAttr(ino: number, attr: Attr): void {
    const before = this.attr(ino)
    if (before !== undefined) this.#count(before, -1)
    this.#count(attr, 1)
    if (ino >= this.super.inoNext) this.super.inoNext = ino + 1
    this.active.touch(ino).attr = attr
  }

  drop(ino: number): void {
    const before = this.attr(ino)
    if (before !== undefined) this.#count(before, -1)
    if (before?.xattrs !== 0) this.super.xattrBytes -= this.xattrBytesOf(ino)
    this.#xattrBytes.delete(ino)
    this.active.touch(ino).wipe()
    this.#forgetBucket()
  }

  setOrphan(ino: number, isOrphan: boolean): void {
    this.active.weight++
    this.active.orphans.set(ino, isOrphan)
    if (isOrphan) this.orphanInos.add(ino)
    else this.orphanInos.delete(ino)
  }

  setEntry(directory: number, slot: number, entry: Dirent): void {
    this.#setBucket(directory, slot, withEntry(this.bucket(directory, slot), entry))
  }

  removeEntry(directory: number, slot: number, index: number): void {
    this.#setBucket(directory, slot, withoutIndex(this.bucket(directory, slot), index))
  }

  #setBucket(directory: number, slot: number, bucket: Bucket | undefined): void {
    this.active.touch(directory).setBucket(slot, bucket ?? null)
    this.#forgetBucket()
  }

  #forgetBucket(): void {
    this.#lastBucket.directory = 0
  }

  setXattr(ino: number, name: string, value: Uint8Array | null): void {
    if (this.onCount !== undefined) this.#tellCount()
    const more = xattrCost(name, value) - xattrCost(name, this.xattr(ino, name))
    this.super.xattrBytes += more
    const known = this.#xattrBytes.get(ino)
    if (known !== undefined) this.#xattrBytes.set(ino, known + more)
    this.active.touch(ino).setXattr(name, value)
  }

  setLink(ino: number, target: Uint8Array): void {
    this.active.touch(ino).link = target
  }

  /**
   * Makes [offset, offset + length) refer to something else.
   * @param source of the first byte; the others are behind it there. undefined: a hole
   */
  place(ino: number, offset: number, length: number, source: Source | undefined): void {
    const delta = this.active.touch(ino)
    // What is left of a window may lie in the layer below.
    this.active.firstRaw = Math.min(this.active.firstRaw, this.frozen?.firstRaw ?? Number.POSITIVE_INFINITY)
    if (source?.kind === 'raw') this.active.firstRaw = Math.min(this.active.firstRaw, source.segment)
    for (let done = 0; done < length; ) {
      const index = Math.floor((offset + done) / WINDOW_BYTES)
      const start = offset + done - index * WINDOW_BYTES
      const count = Math.min(WINDOW_BYTES - start, length - done)
      // Of a terabyte that is reserved at once there are a million.
      if (count === WINDOW_BYTES && source === undefined) delta.setWindow(index, null)
      else if (count === WINDOW_BYTES && source?.kind === 'zero') delta.setWindow(index, ZERO_WINDOW)
      else {
        const piece = source && pieceOf(source, done, start, count)
        if (piece === undefined || !delta.extendWindow(index, piece)) {
          const window = splice(this.window(ino, index), start, start + count, piece === undefined ? [] : [piece])
          delta.setWindow(index, window.length === 0 ? null : window)
        }
      }
      done += count
    }
    this.active.weight += Math.floor(length / WINDOW_BYTES)
  }

  /** Whether a range of a file may be reserved now: what changed of it has a limit until the next checkpoint. */
  mayReserve(ino: number, length: number): boolean {
    return (this.active.inodes.get(ino)?.windows.size ?? 0) + length / WINDOW_BYTES < RESERVED_WINDOWS_MAX
  }

  /** Like `place` with a hole, visiting only windows that hold something: the range may be huge. */
  clear(ino: number, offset: number, length: number): void {
    const end = offset + length
    for (const index of [...this.#windowsIn(ino, offset, end)].map(([one]) => one)) {
      const base = index * WINDOW_BYTES
      const from = Math.max(base, offset)
      this.place(ino, from, Math.min(base + WINDOW_BYTES, end) - from, undefined)
    }
  }

  /** Bytes that would be freed by clearing a range, or that writing to it would not newly allocate. */
  allocatedIn(ino: number, offset: number, length: number): number {
    let bytes = 0
    const end = offset + length
    const first = Math.floor(offset / WINDOW_BYTES)
    const isOne = end <= (first + 1) * WINDOW_BYTES
    if (isOne) return allocatedOf(this.#held(ino, first), offset - first * WINDOW_BYTES, end - first * WINDOW_BYTES)
    for (const [index, window] of this.#windowsIn(ino, offset, end)) {
      const base = index * WINDOW_BYTES
      bytes += allocatedOf(window, Math.max(0, offset - base), Math.min(WINDOW_BYTES, end - base))
    }
    return bytes
  }

  /**
   * Replaces the whole content. Inode numbers used since stay used.
   * @param onDamage told when the new tree cannot be read; whoever looks into it gets the same error
   */
  reset(root: Address | null, inoNext: number, onDamage?: (error: NexusError) => void): void {
    this.#tellCount()
    this.#forgetBucket()
    this.root = root
    this.#noteStored(0)
    this.active = new Layer()
    this.frozen = null
    this.epoch++
    this.orphanInos = new Set()
    this.#namesByOwner = undefined
    this.#xattrBytes.clear()
    this.super = { ...NOTHING }
    try {
      for (const ino of this.#loadOrphans()) this.orphanInos.add(ino)
      this.super = this.#loadSuper()
    } catch (error) {
      if (!(error instanceof NexusError) || error.code !== 'NEXUS_CORRUPT' || onDamage === undefined) throw error
      onDamage(error)
    }
    this.#noteStored(this.super.inoNext)
    this.super.inoNext = Math.max(this.super.inoNext, inoNext)
  }

  /** Starts a new layer; what was active until now can be merged. */
  freeze(): Layer {
    assert(this.frozen === null, 'a volume is merged once at a time')
    this.frozen = this.active
    this.frozenSuper = { ...this.super }
    this.active = new Layer()
    return this.frozen
  }

  /** The merge of the frozen layer is done and this is its result. */
  thaw(root: Address | null): void {
    this.root = root
    this.#noteStored(this.frozenSuper.inoNext)
    this.frozen = null
  }

  /** The merge of the frozen layer failed: its changes wait for the next one. */
  unfreeze(): void {
    if (this.frozen === null) return
    this.frozen.cover(this.active)
    this.active = this.frozen
    this.frozen = null
  }

  get tree(): Tree {
    return this.#tree
  }

  /** Windows that may hold something of [offset, end): a few are named outright, of many those that do. */
  #windowsIn(ino: number, offset: number, end: number): Iterable<NumberedWindow> {
    const first = Math.floor(offset / WINDOW_BYTES)
    const count = Math.ceil(end / WINDOW_BYTES) - first
    return count > 8 ? this.windowsIn(ino, first, first + count) : this.#windowsAt(ino, first, count)
  }

  *#windowsAt(ino: number, first: number, count: number): Generator<NumberedWindow> {
    for (let index = first; index < first + count; index++) yield [index, this.#held(ino, index)]
  }

  #held(ino: number, index: number): HeldWindow {
    const changed = this.#newest(ino, (delta) => delta.windows.get(index))
    if (changed !== undefined) return changed ?? EMPTY_WINDOW
    const value = this.#isStored(ino) ? this.#tree.get(this.root, numberKey(ino, Kind.window, index)) : undefined
    return value === undefined ? EMPTY_WINDOW : new StoredWindow(value, 0, value.length)
  }

  /** Whether the tree may have anything of an inode: of those that were made since, it has nothing. */
  #isStored(ino: number): boolean {
    if (ino < this.#storedNext) return true
    this.#lastStored ??= this.#findLastStored()
    return ino <= this.#lastStored
  }

  #findLastStored(): number {
    try {
      const key = this.#tree.lastKey(this.root)
      return key === undefined ? 0 : inoOf(key)
    } catch {
      // Whoever asks for something hears what is wrong with it.
      return INO_MAX
    }
  }

  #noteStored(next: number): void {
    this.#storedNext = next
    this.#lastStored = undefined
  }

  #loadSuper(): Super {
    const value = this.#tree.get(this.root, SUPER_KEY)
    return value === undefined ? { ...NOTHING } : decodeSuper(value)
  }

  *#loadOrphans(): Generator<number> {
    for (const [key] of this.#tree.scan(this.root, orphanKey(0), plainKey(0, Kind.orphan + 1))) yield key.readUInt32BE(5)
  }

  #countTaken(): Pick<Super, 'allocated' | 'inodes' | 'xattrBytes'> {
    const taken = { allocated: 0, inodes: 0, xattrBytes: 0 }
    for (const [ino, { allocated, xattrs }] of this.#attrs()) {
      taken.allocated += allocated
      taken.inodes++
      if (xattrs > 0) taken.xattrBytes += this.xattrBytesOf(ino)
    }
    return taken
  }

  /** Of all inodes. */
  *#attrs(): Generator<[ino: number, attr: Attr]> {
    const changed = new Set([...this.active.inodes.keys(), ...(this.frozen?.inodes.keys() ?? [])])
    for (const ino of changed) {
      const attr = this.attr(ino)
      if (attr !== undefined) yield [ino, attr]
    }
    for (const [key, value] of this.#tree.scan(this.root, plainKey(ROOT_INO, 0))) {
      if (kindOf(key) === Kind.attr && !changed.has(inoOf(key))) yield [inoOf(key), readAttr(new ByteReader(value))]
    }
  }

  #tellCount(): void {
    const tell = this.onCount
    this.onCount = undefined
    tell?.()
  }

  #count(attr: Attr, sign: 1 | -1): void {
    if (this.onCount !== undefined) this.#tellCount()
    this.allocated += sign * attr.allocated
    this.super.allocated += sign * attr.allocated
    this.super.inodes += sign
    if (this.#namesByOwner !== undefined) this.#countOwner(attr, sign)
    // What is only open has no name any more: nobody who counts files would find it.
    if (attr.nlink === 0) return
    if (isDirectory(attr)) this.super.directories += sign
    else this.super.files += sign
    if (isRegular(attr)) this.super.bytes += sign * attr.size
  }

  /** What the newest layer that says anything says; null when there is nothing, undefined when the tree has to be asked. */
  #newest<T>(ino: number, says: (delta: InodeDelta) => T | null | undefined): T | null | undefined {
    const active = this.active.inodes.get(ino)
    if (active !== undefined) {
      const said = says(active)
      if (said !== undefined || active.wiped) return said ?? null
    }
    const frozen = this.frozen?.inodes.get(ino)
    if (frozen === undefined) return undefined
    const said = says(frozen)
    return said !== undefined || frozen.wiped ? (said ?? null) : undefined
  }

  #deltas(ino: number): InodeDelta[] {
    const active = this.active.inodes.get(ino)
    const frozen = this.frozen?.inodes.get(ino)
    if (active === undefined) return frozen === undefined ? NONE : [frozen]
    return frozen === undefined || active.wiped ? [active] : [active, frozen]
  }

  /** Buckets from a slot on, merged over the layers. */
  *#buckets(directory: number, first: number): Generator<[number, Bucket]> {
    const deltas = this.#deltas(directory)
    const changed = deltas.map((delta) => delta.slots.from(first))
    const base = deltas.some((delta) => delta.wiped)
      ? undefined
      : this.#tree.scan(this.root, numberKey(directory, Kind.dirent, first), plainKey(directory, Kind.dirent + 1))
    const heads = changed.map((slots) => slots.next().value as number | undefined)
    let below = base?.next().value as [Buffer, Buffer] | undefined
    for (;;) {
      const belowSlot = below === undefined ? Number.POSITIVE_INFINITY : numberPart(below[0])
      const slot = Math.min(belowSlot, ...heads.map((head) => head ?? Number.POSITIVE_INFINITY))
      if (slot === Number.POSITIVE_INFINITY) return
      const newest = heads.indexOf(slot)
      const bucket =
        newest === -1
          ? decodeBucket(new ByteReader((below as [Buffer, Buffer])[1]))
          : (deltas[newest] as InodeDelta).dirents.get(slot)
      if (bucket !== null && bucket !== undefined) yield [slot, bucket]
      for (let i = 0; i < heads.length; i++) {
        if (heads[i] === slot) heads[i] = (changed[i] as Generator<number>).next().value as number | undefined
      }
      if (belowSlot === slot) below = base?.next().value as [Buffer, Buffer] | undefined
    }
  }
}

const NONE: InodeDelta[] = []

function present(names: Map<string, boolean>): string[] {
  return [...names].filter(([, isPresent]) => isPresent).map(([name]) => name)
}
