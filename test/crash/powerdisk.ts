/**
 * A disk and an index that write down what they are asked for, and a machine that knows from these notes what each moment's
 * loss of power could leave.
 *
 * The model of the disk: what an fdatasync that ended had found is there. Of what was written since, any part may be there, in
 * any order: a write whole, not at all, or in part, with zeros or what was there before in its place. Names are apart from
 * contents: one that was made or removed since the last sync of the directory may be there or not. A batch of the index is there
 * when its write has resolved, and all of it or nothing before.
 */
import { createHash } from 'node:crypto'
import type { Index, IndexEntry } from '../../src/cas/index.ts'
import type { Disk } from '../../src/journal/disk.ts'
import type { MemoryIndex } from '../cas/support.ts'
import { MemoryDisk } from '../journal/support.ts'

export type Note =
  | { kind: 'create'; name: string; file: number }
  | { kind: 'write'; file: number; position: number; bytes: Buffer }
  | { kind: 'truncate'; file: number; length: number }
  | { kind: 'remove'; name: string }
  | { kind: 'sync'; file: number; run: number }
  | { kind: 'syncNames'; run: number }
  | { kind: 'batch'; entries: readonly IndexEntry[]; run: number }
  /** a sync or batch has ended */
  | { kind: 'ended'; run: number }
  /** an operation begins; its state may be there from now on */
  | { kind: 'begun'; moment: number }
  /** an fsync was acknowledged that began at this moment */
  | { kind: 'safe'; moment: number }

/** What is on the disk, as plain data. */
export interface Image {
  files: ReadonlyMap<string, Buffer>
  index: MemoryIndex
}

/** How long a sync takes, in turns of the event loop: others can be at work meanwhile. */
const SYNC_TURNS = 2

async function turns(): Promise<void> {
  for (let i = 0; i < SYNC_TURNS; i++) await new Promise((resolve) => setImmediate(resolve))
}

export class Recorder {
  readonly notes: Note[] = []
  readonly disk: Disk
  readonly index: Index
  #runs = 0

  /** @param image the disk as it is at the start, all of it safe */
  constructor(image: Image) {
    this.disk = this.#recordDisk(diskOf(image))
    this.index = this.#recordIndex(image.index.clone())
  }

  #recordDisk(disk: MemoryDisk): Disk {
    const { notes } = this
    const fileOf = new Map<string, number>()
    const files = new Map<number, number>()
    for (const name of disk.list()) fileOf.set(name, fileOf.size)
    let made = fileOf.size
    const file = (fd: number): number => files.get(fd) as number
    return {
      list: () => disk.list(),
      open: (name, create) => {
        const fd = disk.open(name, create)
        if (create) {
          fileOf.set(name, made++)
          notes.push({ kind: 'create', name, file: fileOf.get(name) as number })
        }
        files.set(fd, fileOf.get(name) as number)
        return fd
      },
      close: (fd) => disk.close(fd),
      size: (fd) => disk.size(fd),
      write: (fd, buffer, start, length, position) => {
        const bytes = Buffer.from(buffer.subarray(start, start + length))
        disk.write(fd, buffer, start, length, position)
        notes.push({ kind: 'write', file: file(fd), position, bytes })
      },
      read: (fd, buffer, start, length, position) => disk.read(fd, buffer, start, length, position),
      truncate: (fd, length) => {
        disk.truncate(fd, length)
        notes.push({ kind: 'truncate', file: file(fd), length })
      },
      remove: (name) => {
        disk.remove(name)
        notes.push({ kind: 'remove', name })
      },
      sync: (fd) => this.#run((run) => ({ kind: 'sync', file: file(fd), run })),
      syncNames: () => this.#run((run) => ({ kind: 'syncNames', run })),
    }
  }

  #recordIndex(index: MemoryIndex): Index {
    return {
      get: (key) => index.get(key),
      entries: (prefix) => index.entries(prefix),
      write: async (entries) => {
        const copy = entries.map(({ key, value }) => ({ key: Buffer.from(key), value: value && Buffer.from(value) }))
        await this.#run((run) => ({ kind: 'batch', entries: copy, run }))
        await index.write(copy)
      },
      close: () => index.close(),
    }
  }

  async #run(note: (run: number) => Note): Promise<void> {
    const run = this.#runs++
    this.notes.push(note(run))
    await turns()
    this.notes.push({ kind: 'ended', run })
  }
}

/** A change of a file that was not synced. */
type Change = { order: number; file: number } & ({ position: number; bytes: Buffer } | { length: number })
/** A name that was made (with its file) or removed since the last sync of names. */
interface NameChange {
  name: string
  file: number | undefined
}
/** So many bytes of a write are there; with zeros, the file is as long as with all of it. */
export interface Tear {
  bytes: number
  zeros: boolean
}
/** What became of an unsynced write: all of it, nothing, or a part. */
type Fate = boolean | Tear

/** How much is tried for each moment. */
export interface Thoroughness {
  /** how a write is torn before which all and behind which none is there. @param isLast of all that were made */
  tears(bytes: number, isLast: boolean): Iterable<Tear>
  /** up to so many unsynced writes, any of them may be there; above, all but one, and one alone */
  subsets: number
  /** each store is opened without its index as well */
  rebuilds: boolean
}

const SECTOR_BYTES = 512
/** In a record's header, and between it and what follows. */
const HEADER_CUTS = [20, 56, 66]

/** At every sector, in the header and behind it, and before the last byte; with zeros and without. */
export const thorough: Thoroughness = {
  *tears(length) {
    const sectors = Array.from({ length: Math.floor((length - 1) / SECTOR_BYTES) }, (_, i) => (i + 1) * SECTOR_BYTES)
    for (const bytes of new Set([...HEADER_CUTS, ...sectors, length - 1]))
      if (bytes > 0 && bytes < length) for (const zeros of [false, true]) yield { bytes, zeros }
  },
  subsets: 6,
  rebuilds: true,
}

/** What is in one way in each sequence, because shorter ones tried the others. */
export const quick: Thoroughness = {
  *tears(length, isLast) {
    if (isLast && length > 1) yield { bytes: length > SECTOR_BYTES ? SECTOR_BYTES : length - 1, zeros: true }
  },
  subsets: 3,
  rebuilds: false,
}

/** Follows the notes, and knows what is safe. */
export class Machine {
  readonly #contents = new Map<number, Buffer>()
  readonly #names = new Map<string, number>()
  #index: MemoryIndex
  #indexHash: string
  #pending: Change[] = []
  #pendingNames: NameChange[] = []
  #batch: { run: number; entries: readonly IndexEntry[] } | undefined
  readonly #running = new Map<number, () => void>()
  #order = 0
  /** the last moment that may be there, and the first */
  latest = 0
  safe = 0

  constructor({ files, index }: Image) {
    for (const [name, bytes] of files) {
      this.#names.set(name, this.#contents.size)
      this.#contents.set(this.#contents.size, bytes)
    }
    this.#index = index
    this.#indexHash = hashOfIndex(index)
  }

  /** @returns whether other states than before are possible now, or others are right */
  follow(note: Note): boolean {
    switch (note.kind) {
      case 'create':
        this.#contents.set(note.file, Buffer.alloc(0))
        this.#pendingNames.push({ name: note.name, file: note.file })
        return true
      case 'remove':
        this.#pendingNames.push({ name: note.name, file: undefined })
        return true
      case 'write':
        this.#pending.push({ order: this.#order++, file: note.file, position: note.position, bytes: note.bytes })
        return true
      case 'truncate':
        this.#pending.push({ order: this.#order++, file: note.file, length: note.length })
        return true
      case 'sync': {
        const { file } = note
        const before = this.#order
        this.#running.set(note.run, () => this.#synced(file, before))
        return false
      }
      case 'syncNames': {
        const found = [...this.#pendingNames]
        this.#running.set(note.run, () => this.#namesSynced(found))
        return false
      }
      case 'batch': {
        this.#batch = note
        this.#running.set(note.run, () => this.#batched(note.entries))
        return true
      }
      case 'ended':
        this.#running.get(note.run)?.()
        return true
      case 'begun':
        this.latest = note.moment
        return false
      case 'safe':
        this.safe = Math.max(this.safe, note.moment)
        return true
    }
  }

  /** Every state that the loss of power could leave now, with words for it. */
  *images(how: Thoroughness): Generator<{ image: Image; hash: string; words: string }> {
    const indexes = [{ index: this.#index, hash: this.#indexHash, words: '' }]
    if (this.#batch !== undefined) {
      const index = withBatch(this.#index, this.#batch.entries)
      indexes.push({ index, hash: hashOfIndex(index), words: ', the batch is there' })
    }
    for (const { fates, words } of this.#fates(how)) {
      const contents = this.#written(fates)
      for (const { names, words: nameWords } of this.#namings(isPlain(fates))) {
        const files = new Map([...names].sort().map(([name, file]) => [name, contents.get(file) as Buffer]))
        const filesHash = hashOfFiles(files)
        for (const { index, hash, words: indexWords } of indexes)
          yield { image: { files, index }, hash: filesHash + hash, words: words + nameWords + indexWords }
      }
    }
  }

  #synced(file: number, before: number): void {
    const done = this.#pending.filter((change) => change.file === file && change.order < before)
    for (const change of done) this.#contents.set(file, applied(this.#contents.get(file) as Buffer, change, true))
    this.#pending = this.#pending.filter((change) => !done.includes(change))
  }

  #namesSynced(found: readonly NameChange[]): void {
    for (const change of found) if (this.#pendingNames.includes(change)) rename(this.#names, change)
    this.#pendingNames = this.#pendingNames.filter((change) => !found.includes(change))
  }

  #batched(entries: readonly IndexEntry[]): void {
    this.#index = withBatch(this.#index, entries)
    this.#indexHash = hashOfIndex(this.#index)
    this.#batch = undefined
  }

  *#fates({ tears, subsets }: Thoroughness): Generator<{ fates: Fate[]; words: string }> {
    const count = this.#pending.length
    for (let kept = 0; kept <= count; kept++) {
      const fates = this.#pending.map((_, i): Fate => i < kept)
      yield { fates, words: `${kept} of ${count} writes` }
      const torn = this.#pending[kept]
      if (torn === undefined || !('bytes' in torn)) continue
      for (const tear of tears(torn.bytes.length, kept === count - 1)) {
        const words = `${kept} writes and ${tear.bytes} bytes${tear.zeros ? ' and zeros' : ''}`
        yield { fates: fates.with(kept, tear), words }
      }
    }
    if (count <= subsets) {
      for (let bits = 1; bits < 2 ** count - 1; bits++) {
        const fates = this.#pending.map((_, i) => (bits & (1 << i)) !== 0)
        yield { fates, words: `of ${count} writes those of ${bits.toString(2)}` }
      }
      return
    }
    for (let i = 0; i < count; i++) {
      yield { fates: this.#pending.map((_, j) => i !== j), words: `all of ${count} writes but ${i}` }
      yield { fates: this.#pending.map((_, j) => i === j), words: `of ${count} writes only ${i}` }
    }
  }

  /** @param all every set of names; else as they should be */
  *#namings(all: boolean): Generator<{ names: Map<string, number>; words: string }> {
    const count = this.#pendingNames.length
    const sets = !all ? [2 ** count - 1] : count <= 4 ? Array.from({ length: 2 ** count }, (_, i) => i) : flips(count)
    for (const bits of sets) {
      const names = new Map(this.#names)
      for (const [i, change] of this.#pendingNames.entries()) if (bits & (1 << i)) rename(names, change)
      yield { names, words: bits === 2 ** count - 1 ? '' : `, of ${count} names ${bits.toString(2)}` }
    }
  }

  #written(fates: readonly Fate[]): Map<number, Buffer> {
    const contents = new Map(this.#contents)
    for (const [i, change] of this.#pending.entries()) {
      const fate = fates[i] as Fate
      if (fate !== false) contents.set(change.file, applied(contents.get(change.file) as Buffer, change, fate))
    }
    return contents
  }
}

/** All, none, all but one, and each up to one. */
function flips(count: number): number[] {
  const all = 2 ** count - 1
  const each = Array.from({ length: count }, (_, i) => 1 << i)
  return [...new Set([0, all, ...each.map((bit) => all - bit), ...each.map((bit) => bit - 1)])]
}

function isPlain(fates: readonly Fate[]): boolean {
  return fates.every((fate) => typeof fate === 'boolean')
}

function rename(names: Map<string, number>, { name, file }: NameChange): void {
  if (file === undefined) names.delete(name)
  else names.set(name, file)
}

function applied(content: Buffer, change: Change, fate: Exclude<Fate, false>): Buffer {
  if (!('bytes' in change)) {
    const result = Buffer.alloc(change.length)
    content.copy(result)
    return result
  }
  const { position, bytes } = change
  const kept = fate === true ? bytes.length : fate.bytes
  const end = position + (fate === true || fate.zeros ? bytes.length : kept)
  const result = Buffer.alloc(Math.max(content.length, end))
  content.copy(result)
  bytes.copy(result, position, 0, kept)
  return result
}

function withBatch(index: MemoryIndex, entries: readonly IndexEntry[]): MemoryIndex {
  const copy = index.clone()
  for (const { key, value } of entries) {
    if (value === null) copy.values.delete(key.toString('latin1'))
    else copy.values.set(key.toString('latin1'), value)
  }
  return copy
}

export function diskOf({ files }: Image): MemoryDisk {
  const disk = new MemoryDisk()
  for (const [name, bytes] of files) disk.setBytes(name, bytes)
  return disk
}

export function imageOf(disk: MemoryDisk, index: MemoryIndex): Image {
  return { files: new Map(disk.list().map((name) => [name, Buffer.from(disk.bytesOf(name))])), index: index.clone() }
}

function hashOfFiles(files: ReadonlyMap<string, Buffer>): string {
  const hash = createHash('sha1')
  for (const [name, bytes] of files) hash.update(`${name} ${bytes.length}\n`).update(bytes)
  return hash.digest('base64')
}

function hashOfIndex({ values }: MemoryIndex): string {
  const hash = createHash('sha1')
  for (const [key, value] of [...values].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(key, 'latin1').update(`=${value.length} `).update(value)
  return hash.digest('base64')
}

export function hashOf(image: Image): string {
  return hashOfFiles(new Map([...image.files].sort())) + hashOfIndex(image.index)
}
