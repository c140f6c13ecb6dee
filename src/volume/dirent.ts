/**
 * Directory entries. An entry's place in its directory is a hash of its name (its *slot*), so that
 * a listing has a position that survives any change: the cookie. Names that share a slot lie in one
 * bucket and are told apart by an index from 0 to 15, which never changes while the entry lives.
 */
import { type ByteReader, ByteWriter } from '../bytes.ts'
import { NexusError } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import { INO_MAX, NAME_CHARS_MAX } from './keys.ts'

export interface Dirent {
  /** 0 to 15, among the names of one slot */
  index: number
  name: string
  /** S_IFMT bits */
  type: number
  ino: number
  /** 0: this volume; else the volume whose root directory this entry is */
  volume: number
}

/** All entries of one slot, by index. */
export type Bucket = readonly Dirent[]

export const BUCKET_ENTRIES_MAX = 16
const SLOT_BITS = 48n
const nameBuffer = Buffer.alloc(256)

/** What an entry may be called; latin1, one character a byte. */
export function isName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0')
}

/** The name that was asked for last: one operation asks several times. */
const last = { name: '', slot: 0 }

/** Where a name belongs: the upper 48 bits of its XXH64, never 0 (cookie 0 is the start). */
export function slotOf(name: string): number {
  if (name === last.name && last.slot !== 0) return last.slot
  const length = nameBuffer.write(name, 0, 'latin1')
  last.slot = Number(xxh64(nameBuffer.subarray(0, length)) >> (64n - SLOT_BITS)) || 1
  last.name = name
  return last.slot
}

/** The position just behind an entry: at most 2^52. */
export function cookieOf(slot: number, index: number): number {
  return slot * BUCKET_ENTRIES_MAX + index + 1
}

/** The first (slot, index) that a listing which goes on at `cookie` may show. */
export function positionOf(cookie: number): { slot: number; index: number } {
  return { slot: Math.floor(cookie / BUCKET_ENTRIES_MAX), index: cookie % BUCKET_ENTRIES_MAX }
}

/** The lowest index that no entry of the bucket has, or -1 when all are taken. */
export function freeIndex(bucket: Bucket | undefined): number {
  if (bucket === undefined) return 0
  for (let index = 0; index < BUCKET_ENTRIES_MAX; index++) {
    if (!bucket.some((entry) => entry.index === index)) return index
  }
  return -1
}

/** The bucket with this entry in place of the one that has its index, if any. */
export function withEntry(bucket: Bucket | undefined, entry: Dirent): Bucket {
  if (bucket === undefined) return [entry]
  const others = bucket.filter((other) => other.index !== entry.index)
  return [...others, entry].sort((a, b) => a.index - b.index)
}

/** The bucket without this index; undefined when it was the last. */
export function withoutIndex(bucket: Bucket | undefined, index: number): Bucket | undefined {
  const rest = bucket?.filter((entry) => entry.index !== index)
  return rest === undefined || rest.length === 0 ? undefined : rest
}

export function writeDirent(out: ByteWriter, entry: Dirent): void {
  // Four bits of index and four of type: S_IFMT >> 12 is 1 to 15.
  out.u8(entry.index | ((entry.type >> 12) << 4))
  out.varint(entry.ino).varint(entry.volume).string(entry.name)
}

export function readDirent(input: ByteReader): Dirent {
  const packed = input.u8()
  const entry = {
    index: packed & 0x0f,
    type: (packed >> 4) << 12,
    ino: input.varint(INO_MAX),
    volume: input.varint(),
    name: input.string(NAME_CHARS_MAX),
  }
  if (entry.ino === 0 || !isName(entry.name)) throw new NexusError('NEXUS_CORRUPT', 'a stored directory entry is damaged')
  return entry
}

export function encodeBucket(bucket: Bucket): Buffer {
  const out = new ByteWriter(64)
  for (const entry of bucket) writeDirent(out, entry)
  return out.view()
}

export function decodeBucket(input: ByteReader): Bucket {
  const bucket: Dirent[] = []
  while (!input.done) {
    const entry = readDirent(input)
    if (entry.index <= (bucket.at(-1)?.index ?? -1)) throw new NexusError('NEXUS_CORRUPT', 'stored entries are out of order')
    bucket.push(entry)
  }
  return bucket
}
