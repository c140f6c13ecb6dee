/** Holds the inodes of one state against the entries that name them, once all have been read. */
import { NexusError } from '../errors.ts'
import { S_IFDIR } from '../volume/attr.ts'
import type { Dirent } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Super, Volume } from '../volume/volume.ts'
import type { Fix, Report } from './finding.ts'
import type { InodeTable } from './inodes.ts'
import { Numbers } from './numbers.ts'

/** Entries or inodes between two yields: less than a millisecond. */
const SLICE = 1000
const PERMISSIONS = 0o700

/** Whether a directory is reached from the root. */
const Way = { unknown: 0, reached: 1, lost: 2, walked: 3 } as const

/** Yields between slices of work. */
export function* judge(table: InodeTable, view: Volume, report: Report): Generator<void, void> {
  const judgement = new Judgement(table, view, report)
  yield* judgement.entries()
  yield* judgement.inodes()
  yield* judgement.ways()
  judgement.volume()
}

class Judgement {
  readonly #table: InodeTable
  readonly #view: Volume
  readonly #report: Report

  constructor(table: InodeTable, view: Volume, report: Report) {
    this.#table = table
    this.#view = view
    this.#report = report
  }

  *entries(): Generator<void, void> {
    const table = this.#table
    for (let index = 0; index < table.entries; index++) {
      if (index % SLICE === 0) yield
      const { directory, slot, child, type } = table.entry(index)
      const row = table.rowOf(child)
      if (row === -1) {
        this.#wrongEntry(directory, slot, child, `names inode ${child}, which is not there`, (entry) =>
          entry === undefined ? [] : [{ kind: 'unentry', directory: table.ino(directory), slot, index: entry.index }],
        )
        continue
      }
      if (table.type(row) !== type) {
        const text = `says that inode ${child} is of type ${octal(type)}, and it is ${octal(table.type(row))}`
        this.#wrongEntry(directory, slot, child, text, (entry) =>
          entry === undefined
            ? []
            : [{ kind: 'entry', directory: table.ino(directory), slot, entry: { ...entry, type: table.type(row) } }],
        )
      }
      const before = table.holder(row)
      if (!table.countName(index, row)) continue
      const holder = table.holder(row)
      const other = holder?.directory === directory && holder.slot === slot && before !== undefined ? before : { directory, slot }
      this.#wrongEntry(other.directory, other.slot, child, `is a second name of directory ${child}`, (entry) =>
        entry === undefined
          ? []
          : [{ kind: 'unentry', directory: table.ino(other.directory), slot: other.slot, index: entry.index }],
      )
    }
  }

  *inodes(): Generator<void, void> {
    const table = this.#table
    for (let row = 0; row < table.inodes; row++) {
      if (row % SLICE === 0) yield
      const ino = table.ino(row)
      if (!table.hasAttributes(row)) this.#withoutAttributes(row, ino)
      else if (table.names(row) === 0 && ino !== ROOT_INO) this.#withoutName(row, ino)
      else this.#named(row, ino)
    }
    for (const ino of table.orphans) {
      const row = table.rowOf(ino)
      if (row !== -1 && table.names(row) === 0) continue
      const text = row === -1 ? 'which is not there' : `which has ${table.names(row)} of them`
      this.#orphan(ino, `the set of inodes without a name has ${ino}, ${text}`)
    }
  }

  /** Directories that have a name and no way from the root. */
  *ways(): Generator<void, void> {
    const table = this.#table
    const ways = Numbers.u8()
    for (let row = 0; row < table.inodes; row++) {
      if (row % SLICE === 0) yield
      ways.push(Way.unknown)
    }
    const root = table.rowOf(ROOT_INO)
    if (root !== -1) ways.set(root, Way.reached)
    for (let row = 0; row < table.inodes; row++) {
      if (row % SLICE === 0) yield
      if (table.isDirectory(row) && ways.get(row) === Way.unknown) this.#walk(row, ways)
    }
  }

  volume(): void {
    const { stored, counted } = this.#table
    const root = this.#table.rowOf(ROOT_INO)
    if (root === -1) {
      const attr = { mode: S_IFDIR | PERMISSIONS, nlink: 2, size: 0, allocated: 0, xattrs: 0, parent: 0, name: '' }
      const fix: Fix[] = [{ kind: 'make', ino: ROOT_INO, attr }]
      this.#report({ kind: 'attributes', severity: 'error', ino: ROOT_INO, text: 'there is no root directory', fix })
      return
    }
    if (stored === undefined || !isCounted(stored, counted)) {
      const shown = (counters: typeof counted | undefined): string =>
        counters === undefined ? 'nothing' : shownCounters(counters)
      const text = `counted as ${shown(stored)}; there are ${shown(counted)}`
      this.#report({ kind: 'counters', severity: 'error', text, fix: [{ kind: 'recount' }] })
    } else if (stored.inoNext < counted.inoNext) {
      const text = `the next inode would be ${stored.inoNext}, which is in use`
      this.#report({ kind: 'counters', severity: 'error', text, fix: [{ kind: 'recount' }] })
    }
  }

  #named(row: number, ino: number): void {
    const table = this.#table
    if (ino === ROOT_INO) {
      if (!table.isDirectory(row)) this.#report({ kind: 'attributes', severity: 'error', ino, text: 'the root is no directory' })
      if (table.names(row) > 0)
        this.#report({ kind: 'entry', severity: 'error', ino, text: 'some directory has the root as an entry' })
    }
    if (table.nlink(row) !== table.links(row)) {
      const text = `inode ${ino} has a link count of ${table.nlink(row)}, which should be ${table.links(row)}`
      const fix: Fix[] = [{ kind: 'attr', ino, patch: { nlink: table.links(row) } }]
      this.#report({ kind: 'links', severity: 'error', ino, text, fix })
    }
    this.#place(row, ino)
  }

  /** Of a file with several names the one recorded may be unknown (0), but never wrong. */
  #place(row: number, ino: number): void {
    const table = this.#table
    if (ino === ROOT_INO ? table.parent(row) === 0 : table.isPlaced(row)) return
    if (ino !== ROOT_INO && !table.isDirectory(row) && table.parent(row) === 0) return
    const place = this.#placeOf(row)
    const text = `inode ${ino} is recorded to lie in directory ${table.parent(row)} under a name that is not there`
    const at = place.parent === 0 ? {} : { at: { directory: place.parent, name: place.name } }
    this.#report({ kind: 'place', severity: 'error', ino, ...at, text, fix: [{ kind: 'attr', ino, patch: place }] })
  }

  #withoutName(row: number, ino: number): void {
    const table = this.#table
    const isOrphan = table.orphans.has(ino)
    if (isOrphan && table.nlink(row) === 0) return
    if (!isOrphan) {
      const text = `inode ${ino} has no name, and is not among those that may have none`
      this.#report({ kind: 'unreachable', severity: 'error', ino, text, fix: [{ kind: 'adopt', ino }] })
      return
    }
    const text = `inode ${ino} has no name, and a link count of ${table.nlink(row)}`
    this.#report({ kind: 'links', severity: 'error', ino, text, fix: [{ kind: 'attr', ino, patch: { nlink: 0 } }] })
  }

  #withoutAttributes(row: number, ino: number): void {
    const table = this.#table
    const remains = table.remains.get(ino) ?? { mode: table.type(row), size: 0, allocated: 0, xattrs: 0 }
    const isNameless = table.names(row) === 0 && ino !== ROOT_INO
    const nlink = isNameless ? 1 : table.links(row)
    const attr = { ...remains, mode: remains.mode | PERMISSIONS, nlink, ...this.#placeOf(row) }
    const fix: Fix[] = [{ kind: 'make', ino, attr }]
    if (isNameless) fix.push({ kind: 'adopt', ino })
    this.#report({ kind: 'attributes', severity: 'error', ino, text: `inode ${ino} has content and no attributes`, fix })
  }

  #orphan(ino: number, text: string): void {
    this.#report({ kind: 'orphan', severity: 'error', ino, text, fix: [{ kind: 'unorphan', ino }] })
  }

  #walk(start: number, ways: Numbers): void {
    const table = this.#table
    const walked: number[] = []
    let way: number = Way.unknown
    let row = start
    while (way === Way.unknown) {
      ways.set(row, Way.walked)
      walked.push(row)
      const holder = table.holder(row)
      // Without a name, and so said to be without a way already.
      if (holder === undefined) way = Way.lost
      else if (ways.get(holder.directory) === Way.walked) {
        way = Way.lost
        this.#circle(holder.directory)
      } else {
        row = holder.directory
        way = ways.get(row)
      }
    }
    for (const each of walked) ways.set(each, way)
  }

  #circle(row: number): void {
    const ino = this.#table.ino(row)
    const fix: Fix[] = [{ kind: 'adopt', ino }]
    const holder = this.#table.holder(row)
    const entry = holder && this.#entryOf(holder.directory, holder.slot, ino)
    if (holder !== undefined && entry !== undefined) {
      fix.unshift({ kind: 'unentry', directory: this.#table.ino(holder.directory), slot: holder.slot, index: entry.index })
    }
    const text = `directory ${ino} lies in itself: nothing leads to it from the root`
    this.#report({ kind: 'unreachable', severity: 'error', ino, text, fix })
  }

  #placeOf(row: number): { parent: number; name: string } {
    const holder = this.#table.holder(row)
    const entry = holder && this.#entryOf(holder.directory, holder.slot, this.#table.ino(row))
    if (holder === undefined || entry === undefined) return { parent: 0, name: '' }
    return { parent: this.#table.ino(holder.directory), name: entry.name }
  }

  #wrongEntry(directory: number, slot: number, child: number, text: string, fix: (entry: Dirent | undefined) => Fix[]): void {
    const ino = this.#table.ino(directory)
    const entry = this.#entryOf(directory, slot, child)
    const at = entry === undefined ? {} : { at: { directory: ino, name: entry.name } }
    this.#report({ kind: 'entry', severity: 'error', ino, ...at, text: `an entry of directory ${ino} ${text}`, fix: fix(entry) })
  }

  #entryOf(directory: number, slot: number, child: number): Dirent | undefined {
    try {
      return this.#view.bucket(this.#table.ino(directory), slot)?.find((entry) => entry.ino === child && entry.volume === 0)
    } catch (error) {
      // The disk may go on to rot while we look.
      if (error instanceof NexusError) return undefined
      throw error
    }
  }
}

/** @param given of an older tree, they may leave open what is allocated and how many inodes there are */
export function isCounted(given: Super, counted: Super): boolean {
  const { files, directories, bytes } = counted
  if (given.files !== files || given.directories !== directories || given.bytes !== bytes) return false
  const isXattrs = Number.isNaN(given.xattrBytes) || given.xattrBytes === counted.xattrBytes
  return Number.isNaN(given.inodes) || (given.allocated === counted.allocated && given.inodes === counted.inodes && isXattrs)
}

export function shownCounters({ files, directories, bytes, allocated, inodes, xattrBytes }: Super): string {
  const shown = `${files} files, ${directories} directories, ${bytes} bytes`
  const xattrs = Number.isNaN(xattrBytes) ? '' : ` and ${xattrBytes} of extended attributes`
  return Number.isNaN(inodes) ? shown : `${shown}, ${inodes} inodes with ${allocated} bytes${xattrs}`
}

function octal(type: number): string {
  return `0${type.toString(8)}`
}
