/** Reading a log back: torn tails are cut, rot is refused, and what is not ours or too new is left alone. */
import t from 'tap'
import {
  encodeSegmentHeader,
  FORMAT_VERSION,
  RECORD_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
  segmentName,
} from '../../src/journal/record.ts'
import { LOG_START, segmentSizes, settle } from '../../src/journal/replay.ts'
import { type Found, MemoryDisk, newLog, reopen, replay, STORE } from './support.ts'

const bytes = (text: string) => Buffer.from(text, 'latin1')
const metas = (found: Found) => found.records.map(({ meta }) => meta)

/** Records of 70 to 90 bytes; `syncs` names those behind which a sync completed. */
async function logOf(count: number, syncs: number[] = [], segmentBytesMax = 1 << 20): Promise<MemoryDisk> {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax })
  for (let i = 1; i <= count; i++) {
    log.append(1, bytes('d'.repeat(10 + (i % 7))), bytes(`m${i}`))
    if (syncs.includes(i)) await log.sync()
  }
  return disk.afterKill()
}

/** Where records end, of all segments in turn. */
function endsOf(disk: MemoryDisk): { segment: number; offset: number }[] {
  return replay(disk).records.map(({ segment, offset, data, meta }) => ({ segment, offset: offset + data.length + meta.length }))
}

t.test('a log that is cut at any byte ends with its last whole record, and goes on from there', async (t) => {
  const original = await logOf(12, [], 400)
  const ends = endsOf(original)
  const names = original.list().sort()
  t.ok(names.length > 2)
  for (const [i, name] of names.entries()) {
    const whole = original.bytesOf(name)
    for (let cut = 0; cut <= whole.length; cut++) {
      const disk = original.afterKill()
      disk.setBytes(name, whole.subarray(0, cut))
      // What was written later can only be there as well when the cut tore nothing.
      for (const later of names.slice(i + 1)) disk.remove(later)
      const expected = ends.filter(({ segment, offset }) => segment < i + 1 || (segment === i + 1 && offset <= cut)).length
      await checkCut(disk, expected)
    }
  }
  t.pass()
})

t.test('a log that was cut before segments that are there is cut all the same, when nothing of it was safe', async (t) => {
  const original = await logOf(12, [], 400)
  const [first = '', ...later] = original.list().sort()
  const ends = endsOf(original).filter(({ segment }) => segment === 1)
  const whole = original.bytesOf(first)
  for (let cut = 0; cut < whole.length; cut++) {
    const disk = original.afterKill()
    disk.setBytes(first, whole.subarray(0, cut))
    const expected = ends.filter(({ offset }) => offset <= cut).length
    // A cut right behind a record is not seen in the segment itself, but the next one begins too late.
    await checkCut(disk, expected)
    for (const name of later) if (disk.list().includes(name)) same(disk.bytesOf(name).length < 400, true)
  }
  t.pass()
})

/** A start on this disk finds so many records, and what is appended then is found by the next one. */
async function checkCut(disk: MemoryDisk, expected: number): Promise<void> {
  const { log, found } = await reopen(disk, { segmentBytesMax: 400 })
  same(
    metas(found),
    Array.from({ length: expected }, (_, i) => `m${i + 1}`),
  )
  same(
    [...segmentSizes(disk).values()].reduce((sum, bytes) => sum + bytes, 0),
    expected === 0 ? disk.list().length * SEGMENT_HEADER_BYTES : bytesTo(found),
  )
  log.append(1, bytes('x'), bytes('after'))
  log.append(1, bytes('y'.repeat(150)), bytes('more'))
  await log.close()
  same(metas(replay(disk.afterPowerLoss(() => false))), [...metas(found), 'after', 'more'])
  same(disk.openCount, 0)
}

/** Length of a log that ends where this one was found to. */
function bytesTo({ records, end }: Found): number {
  const segments = new Set([...records.map(({ segment }) => segment), end.position.segment])
  const contents = records.reduce((sum, { data, meta }) => sum + RECORD_HEADER_BYTES + data.length + meta.length, 0)
  return segments.size * SEGMENT_HEADER_BYTES + contents
}

t.test('a bit that flips in what may not have been safe ends the log there', async (t) => {
  const original = await logOf(5)
  const ends = endsOf(original).map(({ offset }) => offset)
  await flipEach(original, segmentName(1), async (disk, at) => {
    const expected = at < SEGMENT_HEADER_BYTES ? 0 : ends.filter((end) => end <= at).length
    same(metas(replay(disk)).length, expected)
    const { log } = await reopen(disk)
    log.append(1, bytes('x'), bytes('after'))
    same(metas(replay(disk)).at(-1), 'after')
  })
  t.pass()
})

t.test('a bit that flips before records that were safe is refused, and nothing is touched', async (t) => {
  const original = await logOf(6, [4])
  const ends = endsOf(original).map(({ offset }) => offset)
  const safe = ends[3] ?? 0
  await flipEach(original, segmentName(1), async (disk, at) => {
    const before = Buffer.from(disk.bytesOf(segmentName(1)))
    // Records 5 and 6 say that 4 was safe: they are the proof, and each alone is enough.
    if (at < safe) throws(() => replay(disk), 'NEXUS_CORRUPT', /damaged at byte \d+ of 0000000001\.log.*backup/)
    else same(replay(disk).records.length, ends.filter((end) => end <= at).length)
    same(disk.bytesOf(segmentName(1)).equals(before), true)
  })
  t.pass()
})

t.test('the next segment is proof as well', async (t) => {
  const original = await logOf(9, [4, 8], 300)
  const name = segmentName(2)
  t.ok(original.list().length >= 3)
  for (const disk of [original.afterKill(), original.afterKill()]) {
    disk.remove(name)
    t.throws(() => replay(disk), { code: 'NEXUS_CORRUPT' }, 'a segment in the middle is missing')
  }
  const disk = original.afterKill()
  disk.setBytes(name, disk.bytesOf(name).subarray(0, 100))
  t.throws(() => replay(disk), { code: 'NEXUS_CORRUPT' })
})

t.test('who knows that more was safe is told when it is not there', async (t) => {
  const disk = await logOf(6)
  t.equal(replay(disk, STORE, LOG_START, 0, 6).records.length, 6)
  const whole = disk.bytesOf(segmentName(1))
  for (let cut = 0; cut < whole.length; cut++) {
    const short = new MemoryDisk()
    short.setBytes(segmentName(1), whole.subarray(0, cut))
    throws(() => replay(short, STORE, LOG_START, 0, 6), 'NEXUS_CORRUPT', /safely stored/)
  }
  t.throws(() => replay(new MemoryDisk(), STORE, LOG_START, 0, 1), { code: 'NEXUS_CORRUPT' })
})

t.test('reading starts where it is told to', async (t) => {
  const disk = await logOf(9, [], 300)
  const { records } = replay(disk)
  const ends = endsOf(disk)
  for (const [i, from] of ends.entries()) {
    t.same(replay(disk, STORE, from, i + 1).records, records.slice(i + 1))
  }
})

t.test('a place that is not there any more is refused', async (t) => {
  const original = await logOf(3)
  const from = endsOf(original)[1] ?? LOG_START
  const cases: [string, (disk: MemoryDisk) => void, RegExp][] = [
    ['missing', (disk) => disk.remove(segmentName(1)), /0000000001\.log is missing/],
    [
      'short',
      (disk) => disk.setBytes(segmentName(1), disk.bytesOf(segmentName(1)).subarray(0, from.offset - 1)),
      /1 bytes short/,
    ],
    ['empty', (disk) => disk.setBytes(segmentName(1), Buffer.alloc(0)), /damaged/],
  ]
  for (const [name, damage, message] of cases) {
    const disk = original.afterKill()
    damage(disk)
    t.throws(() => replay(disk, STORE, from, 2), { code: 'NEXUS_CORRUPT', message }, name)
  }
  await flipEach(original, segmentName(1), async (disk, at) => {
    if (at >= SEGMENT_HEADER_BYTES) return
    // Otherwise records would be appended behind a header that no later start accepts.
    throws(() => replay(disk, STORE, from, 2), 'NEXUS_CORRUPT', /header of 0000000001\.log/)
  })
})

t.test('a newer format is refused before anything is read', async (t) => {
  const disk = await logOf(3)
  const whole = Buffer.from(disk.bytesOf(segmentName(1)))
  encodeSegmentHeader({ version: FORMAT_VERSION + 1, number: 1, store: STORE, firstSequence: 1, durable: 0 }).copy(whole)
  disk.setBytes(segmentName(1), whole)
  const message = new RegExp(`0000000001\\.log has format ${FORMAT_VERSION + 1}, .*install a newer nexus`)
  t.throws(() => replay(disk), { code: 'NEXUS_TOO_NEW', message })
  t.ok(disk.bytesOf(segmentName(1)).equals(whole))
})

t.test('segments of another store, or under another name, are refused', async (t) => {
  const disk = await logOf(3)
  t.throws(() => replay(disk, STORE + 1n), { code: 'NEXUS_CORRUPT', message: /belongs to another store/ })
  disk.setBytes(segmentName(2), disk.bytesOf(segmentName(1)))
  t.throws(() => replay(disk), { code: 'NEXUS_CORRUPT', message: /0000000002\.log belongs to another store/ })
})

t.test("other files in the directory are nobody's business", async (t) => {
  const disk = await logOf(3)
  disk.setBytes('notes.txt', bytes('hello'))
  disk.setBytes('1.log', bytes('hello'))
  const { found } = await reopen(disk)
  t.equal(found.records.length, 3)
  t.same(disk.list().sort(), ['0000000001.log', '1.log', 'notes.txt'])
})

t.test('an empty directory is an empty log', async (t) => {
  const disk = new MemoryDisk()
  const { log, found } = await reopen(disk)
  t.same(found, { records: [], end: { position: LOG_START, sequence: 0, torn: 0, version: FORMAT_VERSION, zeros: new Map() } })
  await log.sync()
  t.same(disk.list(), [])
})

t.test('what a start found is safe before it goes on', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 300 })
  for (let i = 1; i <= 9; i++) log.append(1, bytes('data'), bytes(`m${i}`))
  t.equal(replay(disk.afterPowerLoss(() => false)).records.length, 0, 'nothing was synced')
  const { end } = replay(disk)
  await settle(disk, LOG_START, end)
  t.equal(replay(disk.afterPowerLoss(() => false)).records.length, 9)
})

/** Calls `check` with a copy for every byte of a file in which one bit flipped. */
async function flipEach(
  original: MemoryDisk,
  name: string,
  check: (disk: MemoryDisk, at: number) => Promise<void>,
): Promise<void> {
  const whole = original.bytesOf(name)
  for (let at = 0; at < whole.length; at++) {
    const disk = original.afterKill()
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
    disk.setBytes(name, flipped)
    await check(disk, at)
  }
}

function throws(run: () => unknown, code: string, message: RegExp): void {
  try {
    run()
  } catch (error) {
    same((error as { code?: string }).code, code)
    if (!message.test(String(error))) throw error
    return
  }
  throw new Error(`nothing was thrown, ${code} was expected`)
}

/** Stops at the first of very many checks that fails. */
function same(found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`found ${a?.slice(0, 500)}, wanted ${b?.slice(0, 500)}`)
}
