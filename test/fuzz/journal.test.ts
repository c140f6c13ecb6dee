/** Logs of any bytes: they are replayed to a prefix of what was written, cut, or refused; nothing else, and not for ever. */

import fs from 'node:fs'
import fc from 'fast-check'
import t from 'tap'
import { NexusError } from '../../src/errors.ts'
import { xxh64 } from '../../src/journal/checksum.ts'
import { directoryDisk } from '../../src/journal/disk.ts'
import {
  encodeSegmentHeader,
  FORMAT_VERSION,
  RECORD_HEADER_BYTES,
  RecordType,
  SEGMENT_HEADER_BYTES,
  segmentName,
} from '../../src/journal/record.ts'
import { metasIn, readLog, readOneSegment } from '../../src/journal/replay.ts'
import { MemoryDisk, replay, STORE } from '../journal/support.ts'
import { aRecord, aSegment } from './examples.ts'
import { allocatingAtMost, badBytes, refusing, seedsOf, tryAll } from './support.ts'

const MIB = 1 << 20
const intact = replay(diskWith(aSegment())).records.map((record) => JSON.stringify(record))

function diskWith(...segments: Buffer[]): MemoryDisk {
  const disk = new MemoryDisk()
  for (const [i, bytes] of segments.entries()) disk.setBytes(segmentName(i + 1), bytes)
  return disk
}

/** Reads a log in every way there is. @returns the records that replay found, undefined when it refused */
function readAll(disk: MemoryDisk): string[] | undefined {
  return allocatingAtMost(MIB, () => {
    const found = refusing(() => replay(disk))
    const oneByOne = [...readOneSegment(disk, STORE, 1)].length
    for (const type of Object.values(RecordType)) {
      refusing(() => {
        for (const meta of metasIn(disk, STORE, 1, type)) if (meta !== undefined && meta.length > MIB) throw new Error('too long')
      })
    }
    if (found !== undefined && found.records.length > oneByOne) throw new Error('a segment has less than the log it is all of')
    if (disk.openCount > 0) throw new Error('a segment stays open')
    return found?.records.map((record) => JSON.stringify(record))
  })
}

/** As the log leaves a segment that it is writing. */
const withZeros = (segment: Buffer): Buffer => Buffer.concat([segment, Buffer.alloc(300)])

t.test('segments', async (t) => {
  const seeds = [...seedsOf('segment'), withZeros(aSegment())]
  const check = (bytes: Buffer): void => {
    const found = readAll(diskWith(bytes))
    // Nobody can make another record without the checksums.
    if (found?.some((record, i) => record !== intact[i])) throw new Error('a record that nobody wrote')
  }
  for (const seed of [seeds[0], seeds.at(-1)]) t.same(readAll(diskWith(seed as Buffer)), intact)
  await tryAll(t, { seeds, inputs: badBytes(seeds), check })
})

/** Computes the checksums anew, where the places for them are: what is damaged was meant. */
function resealed(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  if (copy.length >= SEGMENT_HEADER_BYTES) copy.writeBigUInt64LE(xxh64(copy.subarray(0, 56), copy.readBigUInt64LE(16)), 56)
  for (let at = copy.indexOf('NXRC'); at !== -1 && at + RECORD_HEADER_BYTES <= copy.length; at = copy.indexOf('NXRC', at + 4)) {
    const data = at + RECORD_HEADER_BYTES
    const meta = data + copy.readUInt32LE(at + 8)
    const end = meta + copy.readUInt32LE(at + 12)
    copy.writeBigUInt64LE(xxh64(copy.subarray(data, meta), STORE), at + 32)
    copy.writeBigUInt64LE(xxh64(copy.subarray(meta, end), STORE), at + 40)
    copy.writeBigUInt64LE(xxh64(copy.subarray(at, at + 48), STORE), at + 48)
  }
  return copy
}

t.test('segments whose checksums are right for what they claim', async (t) => {
  const seeds = seedsOf('segment')
  const check = (bytes: Buffer): void => void readAll(diskWith(resealed(bytes)))
  await tryAll(t, { seeds, inputs: badBytes(seeds), check })
})

t.test('several segments, read from any place', async (t) => {
  const second = Buffer.concat([
    encodeSegmentHeader({ version: FORMAT_VERSION, number: 2, store: STORE, firstSequence: 4, durable: 3 }),
    aRecord(4, Buffer.from('more'), Buffer.from('meta'), { durable: 4 }),
  ])
  const seeds = [...seedsOf('segment'), withZeros(aSegment()), second, withZeros(second)]
  const number = fc.oneof(fc.nat({ max: 400 }), fc.constantFrom(2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER))
  const inputs = fc.tuple(badBytes(seeds), badBytes(seeds), fc.nat({ max: 3 }), number, number, number)
  type Input = typeof inputs extends fc.Arbitrary<infer I> ? I : never
  const check = ([first, other, segment, offset, sequence, durable]: Input): void => {
    const disk = diskWith(resealed(first), resealed(other))
    allocatingAtMost(MIB, () =>
      refusing(() => {
        for (const { data, meta } of readLog(disk, STORE, { segment, offset }, sequence, durable)) data.equals(meta)
      }),
    )
  }
  await tryAll(t, { seeds: [], inputs, check })
})

t.test('a record that claims four gigabytes', async (t) => {
  for (const claim of [
    { dataBytes: 0xffff_ffff },
    { metaBytes: 0xffff_ffff },
    { dataBytes: 0xffff_ffff, metaBytes: 0xffff_ffff },
  ]) {
    const liar = aRecord(4, Buffer.from('data'), Buffer.from('meta'), claim)
    const disk = diskWith(Buffer.concat([aSegment(), liar]))
    t.same(readAll(disk), intact, 'it is the end of the log')
    for (const type of Object.values(RecordType)) {
      t.throws(() => [...metasIn(disk, STORE, 1, type)], { code: 'NEXUS_CORRUPT' }, 'such a segment is not whole')
    }
  }
})

t.test('a segment that is larger than any', async (t) => {
  const directory = t.testdir()
  const disk = directoryDisk(directory)
  fs.writeFileSync(`${directory}/${segmentName(1)}`, aSegment())
  fs.truncateSync(`${directory}/${segmentName(1)}`, 6 * 1024 * MIB)
  t.throws(() => allocatingAtMost(1024 * MIB, () => replay(disk)), NexusError)
  t.throws(() => allocatingAtMost(1024 * MIB, () => replay(disk)), { code: 'NEXUS_CORRUPT' })
  t.throws(() => allocatingAtMost(MIB, () => [...metasIn(disk, STORE, 1, RecordType.sealed)]), { code: 'NEXUS_CORRUPT' })
})

t.test('a newer format', async (t) => {
  t.throws(() => replay(diskWith(aSegment(FORMAT_VERSION + 1))), { code: 'NEXUS_TOO_NEW' })
})
