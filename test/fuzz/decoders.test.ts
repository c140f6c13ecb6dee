/** Decoders of what is stored: a valid value, or NEXUS_CORRUPT or NEXUS_TOO_NEW; never anything else. */
import fc from 'fast-check'
import t from 'tap'
import { ByteReader, ByteWriter } from '../../src/bytes.ts'
import { addressOf } from '../../src/cas/address.ts'
import { decodeLocation, encodeLocation } from '../../src/cas/location.ts'
import { ContentStore } from '../../src/cas/store.ts'
import { RecordType } from '../../src/journal/record.ts'
import { decodeNode } from '../../src/tree/node.ts'
import { decodeAcl, encodeAcl } from '../../src/vfs/acl.ts'
import { encodeAttr, readAttr } from '../../src/volume/attr.ts'
import { readChange, writeChange } from '../../src/volume/change.ts'
import { decodeBucket, encodeBucket } from '../../src/volume/dirent.ts'
import { decodeWindow, encodeWindow, piecesIn, splice, WINDOW_BYTES, type Window } from '../../src/volume/piece.ts'
import { decodeSuper, encodeSuper } from '../../src/volume/volume.ts'
import { MemoryIndex } from '../cas/support.ts'
import { MemoryDisk, newLog, STORE } from '../journal/support.ts'
import { allocatingAtMost, answering, badBytes, refusing, sameAgain, seedsOf, tryAll } from './support.ts'

const MIB = 1 << 20

/** A decoder, and what is asked of a value that it accepts. */
interface Decoder {
  decode(bytes: Buffer): unknown
  accepted(value: unknown): void
}

function decoder<T>(decode: (bytes: Buffer) => T, accepted: (value: T) => void): Decoder {
  return { decode, accepted: (value) => accepted(value as T) }
}

/** One whose values can be written again. */
function codec<T>(decode: (bytes: Buffer) => T, encode: (value: T) => Buffer, more: (value: T) => void = () => {}): Decoder {
  return decoder(decode, (value) => {
    sameAgain(value, encode, decode)
    more(value)
  })
}

function fits(holds: boolean, what: string): void {
  if (!holds) throw new Error(`accepted, although ${what}`)
}

const decoders: Record<string, Decoder> = {
  attr: codec(
    (bytes) => readAttr(new ByteReader(bytes)),
    encodeAttr,
    ({ atime, size, name }) => {
      fits(atime.ns < 1e9 && Number.isSafeInteger(atime.s), 'the time is none')
      fits(Number.isSafeInteger(size), 'the size is not exact')
      fits(name.length <= 255, 'the name is too long')
    },
  ),
  super: codec(decodeSuper, encodeSuper),
  bucket: codec(
    (bytes) => decodeBucket(new ByteReader(bytes)),
    encodeBucket,
    (bucket) => {
      for (const [i, { name, ino, index }] of bucket.entries()) {
        fits(name.length > 0 && name.length <= 255 && !/[/\0]/.test(name), 'a name is none')
        fits(ino > 0 && ino <= 0xffff_ffff, 'an inode cannot be')
        fits(i === 0 || index > (bucket[i - 1]?.index ?? 0), 'the indices do not ascend')
      }
    },
  ),
  window: decoder(
    (bytes) => decodeWindow(new ByteReader(bytes)),
    (window) => {
      // Pieces that go on in one another become one when they are written: then it is the same window, and stays as it is.
      const decode = (bytes: Buffer): Window => decodeWindow(new ByteReader(bytes))
      const again = decode(encodeWindow(window))
      sameAgain(again, encodeWindow, decode)
      const read = window.flatMap(({ start, length }) => piecesIn(again, start, start + length))
      fits(fc.stringify(read) === fc.stringify(window), 'written and read again it is another')
      let end = 0
      for (const { start, length } of window) {
        fits(start >= end && length > 0, 'pieces overlap')
        end = start + length
      }
      fits(end <= WINDOW_BYTES, 'a piece leaves its window')
      piecesIn(window, 0, WINDOW_BYTES)
      splice(window, 10, 100, [])
    },
  ),
  location: codec(decodeLocation, encodeLocation, ({ length, sums }) => {
    fits(length <= 64 * MIB, 'nothing stored is that long')
    fits(sums === undefined || sums.length === 4 * Math.ceil(length / 4096), 'the sums are not those of its blocks')
  }),
  changes: decoder(
    (bytes) => {
      const input = new ByteReader(bytes)
      const changes = []
      while (!input.done) changes.push(readChange(input))
      return changes
    },
    (changes) => {
      for (const change of changes) {
        const write = (): Buffer => {
          const out = new ByteWriter()
          writeChange(out, change)
          return out.copy()
        }
        sameAgain(change, write, (bytes) => readChange(new ByteReader(bytes)))
        if ('ino' in change) fits(change.ino <= 0xffff_ffff, 'the inode cannot be')
        if ('offset' in change) fits(Number.isSafeInteger(change.offset + change.length), 'the range is not exact')
      }
    },
  ),
  node: decoder(
    (bytes) => decodeNode(addressOf(bytes), bytes),
    (node) => {
      for (let i = 0; i < node.count; i++) {
        node.value(i)
        if (node.level > 0) node.child(i)
        fits(node.compareKey(i, node.key(i)) === 0, 'a key is not found')
        fits(node.countBelow(node.key(i)) === i, 'keys do not ascend')
      }
    },
  ),
  sealed: decoder(adopt, () => {}),
}

/** Takes in a `sealed` record as recovery does. */
function adopt(meta: Buffer): void {
  const store = new ContentStore(newLog(new MemoryDisk()), new MemoryIndex(), { store: STORE, chunkCacheBytesMax: MIB })
  const place = { sequence: 1, segment: 1, offset: 120, data: Buffer.alloc(0), end: { segment: 1, offset: 200 } }
  store.adopt({ type: RecordType.sealed, meta, ...place }, { has: () => true })
  store.sealAgain(meta, new Set())
}

for (const [name, { decode, accepted }] of Object.entries(decoders)) {
  t.test(name, async (t) => {
    const seeds = seedsOf(name)
    const check = (bytes: Buffer): void => {
      const value = allocatingAtMost(MIB, () => refusing(() => decode(bytes)))
      if (value !== undefined) accepted(value)
    }
    await tryAll(t, { seeds, inputs: badBytes(seeds), check })
    const [valid] = seeds
    t.doesNotThrow(() => decode(valid as Buffer), 'what is valid is accepted')
  })
}

function decodeAgain(bytes: Buffer): Buffer {
  return encodeAcl(decodeAcl(bytes))
}

t.test('acl', async (t) => {
  const seeds = seedsOf('acl')
  const check = (bytes: Buffer): void => {
    const acl = answering(() => decodeAcl(bytes))
    // What an entry says of an id that means nothing is not kept.
    if (acl !== undefined) sameAgain(encodeAcl(acl), decodeAgain, (again) => again)
  }
  await tryAll(t, { seeds, inputs: badBytes(seeds), check })
})

t.test('numbers that are not exact are refused', async (t) => {
  for (const hex of ['ffffffffffffff7f', '8080808080808010', 'ffffffffffffffffff01']) {
    t.throws(() => new ByteReader(Buffer.from(hex, 'hex')).varint(), { code: 'NEXUS_CORRUPT' }, hex)
  }
  t.equal(new ByteReader(Buffer.from('ffffffffffffff0f', 'hex')).varint(), Number.MAX_SAFE_INTEGER)
  await tryAll(t, {
    seeds: [],
    inputs: fc.maxSafeNat(),
    check: (value) => {
      const bytes = new ByteWriter().varint(value).u64(value).i64(-value).view()
      const input = new ByteReader(bytes)
      if (input.varint() !== value || input.u64() !== value || input.i64() !== -value) throw new Error('it is not the same')
    },
  })
})
