/** Reads the entries of one state's tree in key order, checks what can be seen in each inode alone, and fills the table. */
import { ByteReader } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import { type Attr, isDirectory, isRegular, readAttr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../volume/attr.ts'
import { BUCKET_ENTRIES_MAX, decodeBucket, slotOf } from '../volume/dirent.ts'
import { INO_MAX, inoOf, Kind, kindOf, numberPart, SNAPSHOTS_INO, stringPart } from '../volume/keys.ts'
import { decodeWindow, WINDOW_BYTES, type Window } from '../volume/piece.ts'
import { decodeSuper } from '../volume/volume.ts'
import { xattrCost } from '../volume/xattrbytes.ts'
import type { Report } from './finding.ts'
import type { InodeTable } from './inodes.ts'

const NAME_BYTES_MAX = 255
const TYPES: ReadonlySet<number> = new Set([1, 2, 4, 6, 8, 10, 12].map((type) => type << 12))
const DIRENT_KEY_BYTES = 11

/** Told of every chunk: the part of it up to `end` is referred to. */
export type NeedChunk = (address: Address, end: number) => void

/** What has been seen of the inode whose entries are being read. */
class Current {
  attr: Attr | undefined
  /** in the table; -1 until it is there */
  row = -1
  allocated = 0
  /** end of the last byte that is no zero by itself */
  dataEnd = 0
  end = 0
  lost = 0
  xattrs = 0
  linkBytes: number | undefined
  hasWindows = false
  hasEntries = false
  /** some of its pieces could not be read */
  isUnread = false
}

export class StateReader {
  readonly #table: InodeTable
  readonly #needChunk: NeedChunk
  readonly #report: Report
  /** something could not be read: what is said of one inode cannot be held against another */
  isPartial = false
  #ino = 0
  #current = new Current()

  constructor(table: InodeTable, needChunk: NeedChunk, report: Report) {
    this.#table = table
    this.#needChunk = needChunk
    this.#report = report
  }

  entry(key: Buffer, value: Buffer): void {
    if (key.length < 5) {
      this.#bad(undefined, `the tree has the key ${key.toString('hex')}, which nothing has`)
      return
    }
    const ino = inoOf(key)
    if (ino !== this.#ino) {
      this.finish()
      this.#ino = ino
    }
    try {
      if (ino === 0) this.#ofVolume(key, value)
      else this.#ofInode(ino, key, value)
    } catch (error) {
      if (!(error instanceof NexusError)) throw error
      this.isPartial = true
      this.#bad(ino, `entry ${key.toString('hex')} of the tree cannot be read: ${error.message}`)
    }
  }

  /** The last inode has been read to its end. */
  finish(): void {
    if (this.#ino !== 0) this.#judge(this.#ino, this.#current)
    this.#current = new Current()
    this.#ino = 0
  }

  #ofVolume(key: Buffer, value: Buffer): void {
    const kind = kindOf(key)
    if (kind === Kind.super && key.length === 5) this.#table.stored = decodeSuper(value)
    else if (kind === Kind.orphan && key.length === 9) this.#table.orphans.add(key.readUInt32BE(5))
    else this.#bad(undefined, `the tree has the key ${key.toString('hex')}, which nothing has`)
  }

  #ofInode(ino: number, key: Buffer, value: Buffer): void {
    const current = this.#current
    switch (kindOf(key)) {
      case Kind.attr:
        current.attr = readAttr(new ByteReader(value))
        this.#ofAttributes(ino, current, current.attr)
        break
      case Kind.dirent:
        current.hasEntries = true
        this.#rowFor(ino, current, S_IFDIR)
        this.#ofBucket(ino, current.row, key, value)
        break
      case Kind.window:
        current.hasWindows = true
        this.#rowFor(ino, current, S_IFREG)
        this.#ofWindow(ino, current, numberPart(key), value)
        break
      case Kind.xattr:
        current.xattrs++
        this.#table.counted.xattrBytes += xattrCost(stringPart(key), value)
        break
      case Kind.link:
        this.#rowFor(ino, current, S_IFLNK)
        current.linkBytes = value.length
        break
      default:
        this.#bad(ino, `inode ${ino} has an entry of the unknown kind ${kindOf(key)}`)
    }
  }

  #rowFor(ino: number, current: Current, mode: number): void {
    if (current.row === -1) current.row = this.#table.addWithoutAttributes(ino, mode)
  }

  #ofAttributes(ino: number, current: Current, attr: Attr): void {
    const slot = attr.parent === 0 ? 0 : slotOf(attr.name)
    current.row = this.#table.addInode(ino, attr.mode, attr.nlink, { parent: attr.parent, slot })
    if (ino === SNAPSHOTS_INO || !TYPES.has(attr.mode & S_IFMT)) {
      this.#wrong(ino, `inode ${ino} has the mode 0${attr.mode.toString(8)}, which is no type of file`)
    }
    const { counted } = this.#table
    counted.allocated += attr.allocated
    counted.inodes++
    if (attr.nlink === 0) return
    if (isDirectory(attr)) counted.directories++
    else counted.files++
    if (isRegular(attr)) counted.bytes += attr.size
  }

  #ofBucket(ino: number, row: number, key: Buffer, value: Buffer): void {
    const bucket = decodeBucket(new ByteReader(value))
    const slot = numberPart(key)
    const names = new Set<string>()
    let index = -1
    for (const entry of bucket) {
      const isSound =
        key.length === DIRENT_KEY_BYTES &&
        entry.index > index &&
        entry.index < BUCKET_ENTRIES_MAX &&
        isName(entry.name) &&
        !names.has(entry.name) &&
        entry.ino > 0 &&
        entry.ino <= INO_MAX &&
        slotOf(entry.name) === slot
      if (!isSound) {
        this.#report({
          kind: 'entry',
          severity: 'error',
          ino,
          at: { directory: ino, name: entry.name },
          text: `directory ${ino} has a malformed entry, or one in the wrong place of its hash`,
        })
      }
      index = entry.index
      names.add(entry.name)
      if (entry.ino > 0 && entry.ino <= INO_MAX) this.#table.addEntry(row, slot, entry)
    }
    if (bucket.length === 0) this.#bad(ino, `directory ${ino} stores an empty set of entries`)
  }

  #ofWindow(ino: number, current: Current, index: number, value: Buffer): void {
    const base = index * WINDOW_BYTES
    for (const piece of this.#piecesOf(ino, current, base, value)) {
      const end = base + piece.start + piece.length
      current.allocated += piece.length
      current.end = end
      if (piece.kind !== 'zero') current.dataEnd = end
      if (piece.kind === 'damaged') current.lost += piece.length
      if (piece.kind === 'chunk') this.#needChunk(piece.address, piece.offset + piece.length)
    }
  }

  #piecesOf(ino: number, current: Current, base: number, value: Buffer): Window {
    try {
      return decodeWindow(new ByteReader(value))
    } catch (error) {
      if (!(error instanceof NexusError)) throw error
      current.isUnread = true
      this.#report({ kind: 'pieces', severity: 'error', ino, text: `pieces of inode ${ino} at ${base}: ${error.message}` })
      return []
    }
  }

  #judge(ino: number, current: Current): void {
    const { attr } = current
    if (attr === undefined) {
      this.#withoutAttributes(ino, current)
      return
    }
    if (!TYPES.has(attr.mode & S_IFMT)) return
    if (current.hasEntries && !isDirectory(attr)) this.#wrong(ino, `inode ${ino} has entries and is no directory`)
    if (current.hasWindows && !isRegular(attr)) this.#wrong(ino, `inode ${ino} has content and is no file`)
    const isLink = (attr.mode & S_IFMT) === S_IFLNK
    if (isLink !== (current.linkBytes !== undefined)) {
      this.#wrong(ino, `inode ${ino} ${isLink ? 'is a symlink without a target' : 'has a target and is no symlink'}`)
    } else if (isLink && attr.size !== current.linkBytes) {
      this.#size(ino, `symlink ${ino} has ${attr.size} bytes, and its target ${current.linkBytes}`, {
        size: current.linkBytes ?? 0,
      })
    }
    if (attr.xattrs !== current.xattrs) {
      const text = `inode ${ino} counts ${attr.xattrs} extended attributes, and has ${current.xattrs}`
      const fix = [{ kind: 'attr', ino, patch: { xattrs: current.xattrs } } as const]
      this.#report({ kind: 'attributes', severity: 'error', ino, text, fix })
    }
    // Of what cannot be read nobody knows how much it is.
    if (!current.isUnread && attr.allocated !== current.allocated) {
      const text = `inode ${ino} says that ${attr.allocated} bytes are allocated, and ${current.allocated} are`
      this.#size(ino, text, { allocated: current.allocated })
    }
    if (isRegular(attr) && current.dataEnd > attr.size) {
      this.#size(ino, `inode ${ino} ends at ${attr.size}, and has content up to ${current.dataEnd}`, { size: current.dataEnd })
    }
    if (current.lost > 0) {
      const text = `${current.lost} bytes of inode ${ino} were lost before they were stored: reading them fails`
      this.#report({ kind: 'content', severity: 'damage', ino, text })
    }
  }

  #withoutAttributes(ino: number, current: Current): void {
    if (current.row !== -1) {
      const mode = this.#table.type(current.row)
      const size = current.linkBytes ?? current.end
      this.#table.remains.set(ino, { mode, size, allocated: current.allocated, xattrs: current.xattrs })
      return
    }
    const text = `inode ${ino} has nothing but extended attributes`
    this.#report({ kind: 'attributes', severity: 'error', ino, text, fix: [{ kind: 'drop', ino }] })
  }

  #size(ino: number, text: string, patch: Partial<Attr>): void {
    this.#report({ kind: 'size', severity: 'error', ino, text, fix: [{ kind: 'attr', ino, patch }] })
  }

  #wrong(ino: number, text: string): void {
    this.#report({ kind: 'attributes', severity: 'error', ino, text })
  }

  #bad(ino: number | undefined, text: string): void {
    this.#report({ kind: 'value', severity: 'error', text, ...(ino === undefined || ino === 0 ? {} : { ino }) })
  }
}

function isName(name: string): boolean {
  if (name.length === 0 || name.length > NAME_BYTES_MAX) return false
  return name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0')
}
