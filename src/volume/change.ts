/**
 * Changes: what one operation did to volumes and catalog, as data. An operation commits a list of
 * them; the list is the meta of one log record, and applying it again after a crash gives the same
 * state. Numbers of the kinds are part of the format (docs/format.md, "Changes").
 */
import type { ByteReader, ByteWriter } from '../bytes.ts'
import { ADDRESS_BYTES, type Address } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import { type Attr, readAttr, writeAttr } from './attr.ts'
import { type Dirent, readDirent, writeDirent } from './dirent.ts'
import { INO_MAX, NAME_CHARS_MAX, SLOT_MAX } from './keys.ts'
import { type RawSource, readSource, type Source, writeSource } from './piece.ts'

export type Change =
  | { kind: 'attr'; volume: number; ino: number; attr: Attr }
  /** the inode is gone with all that belongs to it */
  | { kind: 'drop'; volume: number; ino: number }
  | { kind: 'orphan'; volume: number; ino: number; present: boolean }
  | { kind: 'entry'; volume: number; ino: number; slot: number; entry: Dirent }
  | { kind: 'unentry'; volume: number; ino: number; slot: number; index: number }
  | { kind: 'xattr'; volume: number; ino: number; name: string; value: Uint8Array | null }
  | { kind: 'link'; volume: number; ino: number; target: Uint8Array }
  /** bytes of the record's own data, from `from` on, are now at `offset` of the file */
  | { kind: 'write'; volume: number; ino: number; offset: number; length: number; from: number }
  /** [offset, offset + length) refers to what a piece of a snapshot does */
  | { kind: 'refer'; volume: number; ino: number; offset: number; length: number; source: StoredSource }
  /** [offset, offset + length) becomes a hole, or allocated zeros */
  | { kind: 'clear'; volume: number; ino: number; offset: number; length: number; allocate: boolean }
  /** refers to the same bytes as another file; the source is read before anything is changed */
  | {
      kind: 'copy'
      volume: number
      ino: number
      offset: number
      length: number
      fromVolume: number
      fromIno: number
      fromOffset: number
    }
  /** the volume's whole content is now this tree; a volume that was not there is made */
  | { kind: 'root'; volume: number; root: Address | null; domain: number; inoNext: number }
  /** the volume is gone */
  | { kind: 'unvolume'; volume: number }
  /** one entry of the catalog; null removes it */
  | { kind: 'catalog'; key: string; value: string | null }

/** Sources that may be stored: everything but raw. */
export type StoredSource = Exclude<Source, RawSource>

const tags = {
  attr: 1,
  drop: 2,
  orphan: 3,
  entry: 4,
  unentry: 5,
  xattr: 6,
  link: 7,
  write: 8,
  clear: 9,
  copy: 10,
  root: 11,
  unvolume: 12,
  catalog: 13,
  refer: 14,
} as const satisfies Record<Change['kind'], number>

const NO_ROOT = '\0'.repeat(ADDRESS_BYTES)

export function writeChange(out: ByteWriter, change: Change): void {
  out.u8(tags[change.kind])
  if (change.kind === 'catalog') {
    out.bytes(Buffer.from(change.key)).u8(change.value === null ? 0 : 1)
    if (change.value !== null) out.bytes(Buffer.from(change.value))
    return
  }
  out.varint(change.volume)
  if (change.kind === 'root') {
    out
      .fixed(change.root ?? NO_ROOT)
      .varint(change.domain)
      .varint(change.inoNext)
    return
  }
  if (change.kind === 'unvolume') return
  out.varint(change.ino)
  switch (change.kind) {
    case 'attr':
      writeAttr(out, change.attr)
      break
    case 'drop':
      break
    case 'orphan':
      out.u8(change.present ? 1 : 0)
      break
    case 'entry':
      out.varint(change.slot)
      writeDirent(out, change.entry)
      break
    case 'unentry':
      out.varint(change.slot).u8(change.index)
      break
    case 'xattr':
      out.string(change.name).u8(change.value === null ? 0 : 1)
      if (change.value !== null) out.bytes(change.value)
      break
    case 'link':
      out.bytes(change.target)
      break
    case 'write':
      out.varint(change.offset).varint(change.length).varint(change.from)
      break
    case 'refer':
      out.varint(change.offset).varint(change.length)
      writeSource(out, change.source)
      break
    case 'clear':
      out
        .varint(change.offset)
        .varint(change.length)
        .u8(change.allocate ? 1 : 0)
      break
    case 'copy':
      out.varint(change.offset).varint(change.length).varint(change.fromVolume).varint(change.fromIno).varint(change.fromOffset)
      break
  }
}

export function readChange(input: ByteReader): Change {
  const tag = input.u8()
  if (tag === tags.catalog) {
    const key = input.bytes().toString()
    return { kind: 'catalog', key, value: input.u8() === 0 ? null : input.bytes().toString() }
  }
  const volume = input.varint()
  if (tag === tags.root) {
    const root = input.fixed(ADDRESS_BYTES)
    return {
      kind: 'root',
      volume,
      root: root === NO_ROOT ? null : (root as Address),
      domain: input.varint(),
      inoNext: input.varint(),
    }
  }
  if (tag === tags.unvolume) return { kind: 'unvolume', volume }
  const ino = input.varint(INO_MAX)
  switch (tag) {
    case tags.attr:
      return { kind: 'attr', volume, ino, attr: readAttr(input) }
    case tags.drop:
      return { kind: 'drop', volume, ino }
    case tags.orphan:
      return { kind: 'orphan', volume, ino, present: input.u8() === 1 }
    case tags.entry:
      return { kind: 'entry', volume, ino, slot: input.varint(SLOT_MAX), entry: readDirent(input) }
    case tags.unentry:
      return { kind: 'unentry', volume, ino, slot: input.varint(SLOT_MAX), index: input.u8() }
    case tags.xattr:
      return {
        kind: 'xattr',
        volume,
        ino,
        name: input.string(NAME_CHARS_MAX),
        value: input.u8() === 0 ? null : Buffer.from(input.bytes()),
      }
    case tags.link:
      return { kind: 'link', volume, ino, target: Buffer.from(input.bytes()) }
    case tags.write:
      return { kind: 'write', volume, ino, ...readRange(input), from: input.varint() }
    case tags.refer:
      return { kind: 'refer', volume, ino, ...readRange(input), source: readSource(input) }
    case tags.clear:
      return { kind: 'clear', volume, ino, ...readRange(input), allocate: input.u8() === 1 }
    case tags.copy:
      return {
        kind: 'copy',
        volume,
        ino,
        ...readRange(input),
        fromVolume: input.varint(),
        fromIno: input.varint(INO_MAX),
        fromOffset: input.varint(),
      }
    default:
      throw new NexusError('NEXUS_CORRUPT', `a record in the log holds a change of unknown kind ${tag}`)
  }
}

/** A range of a file, whose end is exact. */
function readRange(input: ByteReader): { offset: number; length: number } {
  const offset = input.varint()
  return { offset, length: input.varint(Number.MAX_SAFE_INTEGER - offset) }
}
