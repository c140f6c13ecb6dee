/** Sealing: runs that lie in many records become chunks, and damage stays where it is. */
import fc from 'fast-check'
import t from 'tap'
import { addressOf } from '../../src/cas/address.ts'
import { sumsOf } from '../../src/cas/blocks.ts'
import { chunkLength } from '../../src/cas/chunker.ts'
import { type RunPart, type Sealed, sealRun } from '../../src/cas/seal.ts'
import type { LogReader } from '../../src/cas/verified.ts'
import type { Log } from '../../src/journal/log.ts'
import { segmentName } from '../../src/journal/record.ts'
import { MemoryDisk, newLog, STORE } from '../journal/support.ts'
import { noise } from './support.ts'

const KIB = 1024
const MIB = 1024 * KIB
const NOTHING = Buffer.alloc(0)

/** A run of these bytes, written in pieces of these lengths; each record holds some that is not of the run. */
function write(log: Log, content: Buffer, pieces: readonly number[]): RunPart[] {
  const run: RunPart[] = []
  for (let at = 0, i = 0; at < content.length; i++) {
    const length = Math.min(pieces[i % pieces.length] ?? content.length, content.length - at)
    const skip = i % 3
    const data = Buffer.concat([Buffer.alloc(skip, 'x'), content.subarray(at, at + length), Buffer.alloc(i % 2, 'y')])
    const span = log.append(1, data, Buffer.from('meta'))
    run.push({ segment: span.segment, base: span.offset, offset: span.offset + skip, length })
    at += length
  }
  return run
}

function reader(log: Log): LogReader {
  return (segment, offset, length, into, at) => log.read(segment, offset, length, into, at)
}

/** What the chunks say, read back through their locations; damaged stretches as '!'. */
function readBack(log: Log, sealed: readonly Sealed[]): Buffer {
  return Buffer.concat(
    sealed.map((stretch) => {
      if (stretch.kind === 'damaged') return Buffer.alloc(stretch.length, '!')
      const bytes = Buffer.alloc(stretch.location.length)
      let at = 0
      for (const part of stretch.location.parts) {
        log.read(part.segment, part.offset, part.length, bytes, at)
        at += part.length
      }
      if (addressOf(bytes) !== stretch.address) throw new Error('a chunk is not what its address says')
      return bytes
    }),
  )
}

t.test('a run becomes the chunks of its content, however it was written', async (t) => {
  const cases = fc.tuple(
    fc.integer({ min: 1, max: 400 * KIB }),
    fc.array(fc.integer({ min: 1, max: 90 * KIB }), { minLength: 1, maxLength: 8 }),
  )
  const runs = fc.property(cases, ([length, pieces]) => {
    fc.pre(pieces.reduce((sum, piece) => sum + piece, 0) / pieces.length > length / 500)
    const log = newLog(new MemoryDisk(), { segmentBytesMax: 128 * KIB })
    const content = noise(length, length)
    const sealed = sealRun(write(log, content, pieces), reader(log), STORE)
    if (!readBack(log, sealed).equals(content)) throw new Error('the content is another')
    let at = 0
    for (const stretch of sealed) {
      if (stretch.kind === 'damaged') throw new Error('nothing was damaged')
      if (stretch.location.length !== chunkLength(content, at, length)) throw new Error('it was cut elsewhere')
      const sums = sumsOf(content.subarray(at, at + stretch.location.length), STORE)
      if (Buffer.compare(sums ?? NOTHING, stretch.location.sums ?? NOTHING) !== 0) throw new Error('the sums are others')
      at += stretch.location.length
    }
  })
  fc.assert(runs, { numRuns: 60 })
  t.pass()
})

t.test('a chunk in very many parts is gathered', (t) => {
  const log = newLog(new MemoryDisk())
  const content = noise(4000, 1)
  const [chunk] = sealRun(write(log, content, [100]), reader(log), STORE)
  t.match(chunk, { kind: 'chunk', address: addressOf(content) })
  t.ok(chunk?.kind === 'chunk' && chunk.gathered !== undefined && content.equals(chunk.gathered))
  const [few] = sealRun(write(log, content, [130]), reader(log), STORE)
  t.ok(few?.kind === 'chunk' && few.gathered === undefined)
  t.end()
})

t.test('a damaged record costs what lies in it and nothing else', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 100 * KIB })
  const content = noise(300 * KIB, 2)
  const run = write(log, content, [20 * KIB])
  for (const [i, part] of run.entries()) {
    for (const at of [part.base - 1, part.base, part.offset, part.offset + part.length - 1]) {
      const name = segmentName(part.segment)
      const before = Buffer.from(disk.bytesOf(name))
      const flipped = Buffer.from(before)
      flipped[at] = (flipped[at] ?? 0) ^ 4
      disk.bytesOf(name).set(flipped)
      const sealed = sealRun(run, reader(log), STORE)
      const expected = Buffer.from(content)
      expected.fill('!', i * 20 * KIB, (i + 1) * 20 * KIB)
      if (!readBack(log, sealed).equals(expected)) t.fail(`part ${i}, byte ${at}`)
      const damaged = sealed.filter(({ kind }) => kind === 'damaged')
      if (damaged.length !== 1) t.fail(`${damaged.length} stretches are damaged`)
      disk.bytesOf(name).set(before)
    }
  }
  t.pass()
  t.end()
})

t.test('a segment that is missing or short damages what lies in it', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 50 * KIB })
  const content = noise(120 * KIB, 3)
  const run = write(log, content, [20 * KIB])
  const gone: LogReader = (segment, ...rest) => {
    if (segment === 2) throw new Error('it is gone')
    reader(log)(segment, ...rest)
  }
  const sealed = sealRun(run, gone, STORE)
  const lost = run.filter((part) => part.segment === 2).length
  t.ok(lost > 0)
  t.equal(sealed.filter(({ kind }) => kind === 'damaged').length, lost)
  t.equal(readBack(log, sealed).filter((byte, i) => byte !== content[i]).length > 0, true)
  t.end()
})

t.test('small parts of large records, each of them read once and none kept whole', (t) => {
  const log = newLog(new MemoryDisk())
  const large = noise(MIB, 4)
  const { segment, offset: base } = log.append(1, large, NOTHING)
  let [bytes, held] = [0, 0]
  // The record lies in each of many segments.
  const read: LogReader = (_, offset, length, into, at) => {
    bytes += length
    held = Math.max(held, process.memoryUsage().arrayBuffers)
    log.read(segment, offset, length, into, at)
  }
  const part = (i: number): RunPart => ({ segment: i, base, offset: base + i * 1000, length: 1000 })
  const before = process.memoryUsage().arrayBuffers
  const many = Array.from({ length: 600 }, (_, i) => part(i))
  t.ok(readBack(log, onRecord(sealRun(many, read, STORE), segment)).equals(large.subarray(0, 600_000)))
  t.ok(held - before < 300 * MIB, `${Math.round((held - before) / MIB)} MiB were held of 600`)

  bytes = 0
  const countingReader: LogReader = (...place) => {
    bytes += place[2]
    log.read(...place)
  }
  const overwritten = Array.from({ length: 600 }, (_, i): RunPart => {
    if (i % 2 === 0) return { ...part(i), segment }
    const span = log.append(1, large.subarray(i * 1000, (i + 1) * 1000), NOTHING)
    return { segment: span.segment, base: span.offset, offset: span.offset, length: 1000 }
  })
  t.ok(readBack(log, sealRun(overwritten, countingReader, STORE)).equals(large.subarray(0, 600_000)))
  t.ok(bytes < 2 * MIB, `${bytes} bytes were read`)
  t.end()
})

/** The same chunks, with all their parts in one segment. */
function onRecord(sealed: readonly Sealed[], segment: number): Sealed[] {
  return sealed.map((stretch) => {
    if (stretch.kind === 'damaged') return stretch
    const parts = stretch.location.parts.map((part) => ({ ...part, segment }))
    return { ...stretch, location: { ...stretch.location, parts } }
  })
}
