/** Zeros ahead of the log's end: when they are written, that they are never taken for anything, and that they go again. */
import fc from 'fast-check'
import t from 'tap'
import { ZEROS_LIMITS, type ZerosLimits } from '../../src/journal/ahead.ts'
import type { Log } from '../../src/journal/log.ts'
import { RecordType, SEGMENT_HEADER_BYTES, segmentName } from '../../src/journal/record.ts'
import { LOG_START, metasIn, segmentBytes, segmentSizes, settle } from '../../src/journal/replay.ts'
import { ALWAYS_ZEROS, type Found, MemoryDisk, newLog, reopen, replay, ShortWrite, STORE, systemError } from './support.ts'

const FIRST = segmentName(1)
const NONE = Buffer.alloc(0)
const NEVER: ZerosLimits = { ...ALWAYS_ZEROS, syncs: Number.POSITIVE_INFINITY }
/** As in earnest, but that a test need not be quick. */
const limits: ZerosLimits = { ...ZEROS_LIMITS, betweenMs: Number.POSITIVE_INFINITY }

const metas = ({ records }: Found): string[] => records.map(({ meta }) => meta)

/** How many zeros a file ends with, beyond those that the last record may end with. */
function zerosIn(disk: MemoryDisk, log: Log): number {
  const { segment, offset } = log.end
  const behind = disk.bytesOf(segmentName(segment)).subarray(offset)
  if (behind.some((byte) => byte !== 0)) throw new Error('not only zeros lie behind the end')
  return behind.length
}

async function appendAndSync(log: Log, bytes: number, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) {
    log.append(1, Buffer.alloc(bytes, 'd'), NONE)
    await log.sync()
  }
}

/** Bytes that were written to the disk. */
function written(disk: MemoryDisk): () => number {
  let sum = 0
  const write = disk.write.bind(disk)
  disk.write = (fd, buffer, start, length, position) => {
    sum += length
    write(fd, buffer, start, length, position)
  }
  return () => sum
}

t.test('syncs that come often, with little between them, find a file that is as long already', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 64 << 20, zeros: limits })
  const sizes = new Set<number>()
  for (let i = 0; i < limits.syncs; i++) {
    await appendAndSync(log, 4500)
    t.equal(zerosIn(disk, log), 0, 'not before so many')
  }
  for (let i = 0; i < 1000; i++) {
    await appendAndSync(log, 4500)
    t.ok(zerosIn(disk, log) >= limits.restBytes && zerosIn(disk, log) <= limits.bytes)
    sizes.add(disk.bytesOf(FIRST).length)
  }
  t.ok(sizes.size < 30, `the file grew ${sizes.size} times for 1000 syncs`)
  t.equal(replay(disk).records.length, log.sequence)
  t.equal(log.appendedBytes, log.end.offset - SEGMENT_HEADER_BYTES, 'they are no records')
})

t.test('whoever writes much, or seldom, writes it once', async (t) => {
  const plans: [string, ZerosLimits, (log: Log) => Promise<void>][] = [
    ['32 KiB between syncs', limits, (log) => appendAndSync(log, 32 * 1024)],
    ['a sync after each MiB', limits, (log) => appendAndSync(log, 1 << 20)],
    [
      'files of 300 KiB that are stored safely under another name first',
      limits,
      async (log) => {
        await appendAndSync(log, 300 * 1024)
        await appendAndSync(log, 200)
        await appendAndSync(log, 200)
      },
    ],
    ['a flush now and then', { ...limits, betweenMs: 0 }, (log) => appendAndSync(log, 500)],
  ]
  for (const [name, zeros, step] of plans) {
    const disk = new MemoryDisk()
    const sum = written(disk)
    const log = newLog(disk, { segmentBytesMax: 8 << 20, zeros })
    for (let i = 0; i < 50; i++) await step(log)
    t.ok(sum() < log.appendedBytes * 1.01, `${name}: ${sum()} bytes for ${log.appendedBytes}`)
  }
})

t.test('a flush once a second is not often', (t) => {
  t.ok(ZEROS_LIMITS.betweenMs < 1000)
  t.ok(ZEROS_LIMITS.restBytes >= ZEROS_LIMITS.betweenBytes, 'what may come between two syncs finds room')
  t.end()
})

t.test('zeros do not reach further than a segment may', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  await appendAndSync(log, 100, 40)
  for (const name of disk.list()) t.ok(disk.bytesOf(name).length <= 1000)
  t.equal(replay(disk).records.length, 40)
})

t.test('a segment is cut to its end before anything is written to the next', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  await appendAndSync(log, 400)
  t.ok(zerosIn(disk, log) > 0)
  const { offset } = log.end
  disk.calls.length = 0
  log.append(1, Buffer.alloc(700, 'd'), NONE)
  t.same(disk.calls.slice(0, 3), [`truncate ${FIRST}`, `open ${segmentName(2)}`, `write ${segmentName(2)}`])
  t.equal(disk.bytesOf(FIRST).length, offset)
  await log.sync()
  t.ok(disk.calls.includes(`sync ${FIRST}`), 'and that is stored with what lies behind it')
  t.equal(disk.afterPowerLoss(() => false).bytesOf(FIRST).length, offset)
  const other = newLog(new MemoryDisk(), { segmentBytesMax: 1000 })
  await appendAndSync(other, 100)
  other.beginSegment(0)
  t.same(other.end, { segment: 2, offset: SEGMENT_HEADER_BYTES })
})

t.test('a segment that cannot be cut is not left', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  await appendAndSync(log, 400)
  disk.fault = (call) => {
    if (call === 'truncate') throw systemError('EIO')
  }
  t.throws(() => log.append(1, Buffer.alloc(700), NONE), { code: 'EIO' })
  t.same(disk.list(), [FIRST])
  log.append(1, Buffer.from('small'), NONE)
  disk.fault = undefined
  log.append(1, Buffer.alloc(700), NONE)
  t.equal(replay(disk).records.length, 3)
})

/** Three records in the first segment, zeros behind them because the cut did not reach the disk, two in the second. */
async function withZerosBetween(durable: boolean): Promise<{ disk: MemoryDisk; ends: number[] }> {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  const ends: number[] = []
  for (let i = 1; i <= 3; i++) {
    log.append(RecordType.sealed, Buffer.alloc(120, 'd'), Buffer.from(`m${i}`))
    if (i < 3) await log.sync()
    ends.push(log.end.offset)
  }
  const padded = Buffer.from(disk.bytesOf(FIRST))
  log.append(1, Buffer.alloc(700, 'd'), Buffer.from('m4'))
  if (durable) await log.sync()
  log.append(1, Buffer.from('data'), Buffer.from('m5'))
  const left = disk.afterKill()
  left.setBytes(FIRST, padded)
  return { disk: left, ends }
}

t.test('zeros in a middle segment end it, and the next goes on', async (t) => {
  const { disk, ends } = await withZerosBetween(false)
  const end = ends.at(-1) as number
  t.ok(disk.bytesOf(FIRST).length > end)
  const found = replay(disk)
  t.same(metas(found), ['m1', 'm2', 'm3', 'm4', 'm5'])
  t.equal(found.end.torn, 0, 'nothing was unfinished')
  t.same(metas(replay(disk, STORE, { segment: 1, offset: end }, 3)), ['m4', 'm5'], 'also when reading starts right before them')
  t.throws(() => [...metasIn(disk, STORE, 1, RecordType.sealed)], { code: 'NEXUS_CORRUPT' }, 'nobody has cut it yet')
  const { log } = await reopen(disk)
  t.equal(disk.afterPowerLoss(() => false).bytesOf(FIRST).length, end, 'a start cuts them, and stores that')
  t.equal([...metasIn(disk, STORE, 1, RecordType.sealed)].filter((meta) => meta !== undefined).length, 3)
  log.append(1, NONE, Buffer.from('m6'))
  t.same(metas(replay(disk)), ['m1', 'm2', 'm3', 'm4', 'm5', 'm6'])
})

t.test('behind zeros a segment that does not fit is not the next', async (t) => {
  const { disk, ends } = await withZerosBetween(false)
  // The third record never reached the disk, its place did.
  const torn = Buffer.from(disk.bytesOf(FIRST)).fill(0, ends[1])
  disk.setBytes(FIRST, torn)
  const { log, found } = await reopen(disk, { zeros: NEVER })
  t.same(metas(found), ['m1', 'm2'])
  t.same(disk.list(), [FIRST])
  t.equal(disk.bytesOf(FIRST).length, ends[1])
  log.append(1, NONE, Buffer.from('after'))
  t.same(metas(replay(disk)), ['m1', 'm2', 'after'])
})

t.test('rot before durable records is refused as ever when zeros follow', async (t) => {
  for (const at of [1, 2] as const) {
    const { disk, ends } = await withZerosBetween(true)
    const whole = disk.bytesOf(FIRST)
    const [from, to] = [ends[at - 1] as number, ends[at] as number]
    for (let i = from; i < to; i++) {
      const left = disk.afterKill()
      const flipped = Buffer.from(whole)
      flipped[i] = (flipped[i] as number) ^ 4
      left.setBytes(FIRST, flipped)
      throwsCorrupt(() => replay(left))
    }
    const wiped = disk.afterKill()
    wiped.setBytes(FIRST, Buffer.from(whole).fill(0, from))
    t.throws(() => replay(wiped), { code: 'NEXUS_CORRUPT' }, 'also when it became zeros')
    wiped.setBytes(FIRST, Buffer.from(whole).fill(0, from, to))
    t.throws(() => replay(wiped), { code: 'NEXUS_CORRUPT' })
  }
  const disk = new MemoryDisk()
  const log = newLog(disk)
  await appendAndSync(log, 100, 3)
  t.ok(zerosIn(disk, log) > 0)
  const flipped = Buffer.from(disk.bytesOf(FIRST))
  flipped[SEGMENT_HEADER_BYTES + 70] = 0
  disk.setBytes(FIRST, flipped)
  t.throws(() => replay(disk), { code: 'NEXUS_CORRUPT', message: /safely stored/ }, 'and in the last segment')
})

t.test('a record of which a part was written over zeros is cut, wherever it ends', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  await appendAndSync(log, 100)
  const padded = Buffer.from(disk.bytesOf(FIRST))
  const { offset } = log.end
  log.append(1, Buffer.alloc(90, 'd'), Buffer.from('second'))
  const record = disk.bytesOf(FIRST).subarray(offset, log.end.offset)
  t.equal(disk.bytesOf(FIRST).length, padded.length, 'it found room there')
  for (let bytes = 0; bytes <= record.length; bytes++) {
    const left = disk.afterKill()
    const torn = Buffer.from(padded)
    record.copy(torn, offset, 0, bytes)
    left.setBytes(FIRST, torn)
    const { log: next, found } = await reopen(left, { zeros: NEVER })
    const isWhole = bytes === record.length
    same(metas(found), isWhole ? ['', 'second'] : [''])
    const rest = Buffer.from(torn.subarray(offset, offset + bytes))
      .toString('latin1')
      .replace(/\0+$/, '')
    same(found.end.torn, isWhole ? 0 : rest.length)
    same(left.bytesOf(FIRST).length, isWhole ? offset + bytes : offset)
    next.append(1, NONE, Buffer.from('after'))
    same(metas(replay(left)).at(-1), 'after')
  }
  // The same without its beginning: sectors reach the disk in any order.
  for (let from = 1; from < record.length; from++) {
    const left = disk.afterKill()
    const torn = Buffer.from(padded)
    record.copy(torn, offset + from, from)
    left.setBytes(FIRST, torn)
    const { found } = await reopen(left)
    same(metas(found), [''])
    same(found.end.torn, record.length)
  }
  t.pass()
})

t.test('a disk that has no room for zeros has them not, and nobody is told', async (t) => {
  for (const short of [0, 1, 100]) {
    const disk = new MemoryDisk()
    const log = newLog(disk, { segmentBytesMax: 1000 })
    log.append(1, Buffer.alloc(100, 'd'), NONE)
    disk.fault = (call) => {
      if (call === 'write') throw new ShortWrite(short)
    }
    await log.sync()
    t.equal(log.durable, 1)
    t.equal(zerosIn(disk, log), short, 'those that fitted')
    t.equal(replay(disk).end.torn, 0)
    disk.fault = undefined
    disk.calls.length = 0
    log.append(1, Buffer.alloc(40, 'd'), NONE)
    await log.sync()
    t.same(disk.calls, [`write ${FIRST}`, `sync ${FIRST}`, `synced ${FIRST}`], 'it is not asked at each sync')
    log.append(1, Buffer.alloc(700, 'd'), NONE)
    t.equal(replay(disk).records.length, 3, 'what there was of them is cut before the next segment')
    await log.close()
    t.equal(replay(disk.afterPowerLoss(() => false)).records.length, 3)
  }
})

t.test('a disk that fails to write zeros is not to be trusted with records', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, Buffer.from('a'), NONE)
  disk.fault = (call) => {
    if (call === 'write') throw systemError('EIO')
  }
  const [first, second] = [log.sync(), log.sync()]
  await t.rejects(first, { code: 'NEXUS_READ_ONLY' })
  await t.rejects(second, { code: 'NEXUS_READ_ONLY' })
  disk.fault = undefined
  t.equal(log.durable, 0)
  t.throws(() => log.append(1, Buffer.from('b'), NONE), { code: 'NEXUS_READ_ONLY' })
  await log.close()
  t.equal(disk.openCount, 0)
})

t.test('a log that is closed has none', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  await appendAndSync(log, 100, 3)
  t.ok(zerosIn(disk, log) > 0)
  log.append(1, Buffer.from('last'), NONE)
  await log.close()
  for (const left of [disk, disk.afterPowerLoss(() => false)]) t.equal(left.bytesOf(FIRST).length, log.end.offset)
  const idle = newLog(new MemoryDisk())
  await idle.close()
})

t.test('a log that cannot be cut is closed all the same', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  await appendAndSync(log, 100)
  disk.fault = (call) => {
    if (call === 'truncate') throw systemError('EIO')
  }
  await log.close()
  disk.fault = undefined
  t.equal(disk.openCount, 0)
  const { found } = await reopen(disk)
  t.equal(found.end.torn, 0)
  t.equal(disk.bytesOf(FIRST).length, log.end.offset)
})

t.test('who takes over finds zeros, and nothing unfinished', async (t) => {
  const disk = new MemoryDisk()
  await appendAndSync(newLog(disk), 100, 2)
  for (let round = 1; round <= 3; round++) {
    const left = disk.afterKill()
    const { log, found } = await reopen(left)
    t.same(found.end, { ...found.end, torn: 0, sequence: 2 })
    t.equal(zerosIn(left, log), 0)
    await appendAndSync(log, 50, round)
    t.ok(zerosIn(left, log) > 0)
    t.equal(replay(left).records.length, 2 + round)
  }
})

t.test('they are no bytes of the log', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  await appendAndSync(log, 200, 6)
  t.ok(zerosIn(disk, log) > 0)
  const sizes = segmentSizes(disk, log.end)
  t.equal(
    [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
    log.appendedBytes + sizes.size * SEGMENT_HEADER_BYTES,
  )
  t.equal(segmentBytes(disk, log.end.segment, log.end), log.end.offset)
})

t.test('the cut of a record that failed is stored before what lies behind it counts as safe', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 500, zeros: NEVER })
  await appendAndSync(log, 100)
  disk.fault = (call) => {
    if (call === 'write') throw new ShortWrite(90)
  }
  t.throws(() => log.append(1, Buffer.alloc(100, 'x'), NONE), { code: 'ENOSPC' })
  disk.fault = undefined
  await appendAndSync(log, 300)
  t.equal(log.end.segment, 2)
  // The part of the record had been written back; its cut is only there if a sync stored it.
  const left = disk.afterPowerLoss(({ name, index }) => name !== FIRST || index < 1)
  const { found } = await reopen(left)
  t.equal(found.records.length, 2)
})

t.test('whatever of the unsynced writes and cuts is lost, a prefix is left, and all that was safe', async (t) => {
  const step = fc.oneof(
    fc.record({ append: fc.integer({ min: 0, max: 400 }) }),
    fc.constant({ sync: true }),
    fc.constant({ racing: true }),
    fc.constant({ begin: true }),
  )
  const zeros = fc.record({ bytes: fc.integer({ min: 1, max: 900 }), restBytes: fc.integer({ min: 1, max: 900 }) })
  const plan = fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: 40 }),
    zeros,
    segmentBytesMax: fc.integer({ min: 200, max: 2000 }),
    fates: fc.infiniteStream(fc.oneof(fc.constantFrom(true, false), fc.nat(500))),
  })
  let [padded, cut] = [0, 0]
  const runs = fc.asyncProperty(plan, async ({ steps, zeros, segmentBytesMax, fates }) => {
    const disk = new MemoryDisk()
    disk.gate = () => new Promise((resolve) => setImmediate(resolve))
    const log = newLog(disk, { segmentBytesMax, zeros: { ...ALWAYS_ZEROS, ...zeros } })
    const racing: Promise<void>[] = []
    for (const each of steps) {
      if ('append' in each) log.append(1, Buffer.alloc(each.append, 'd'), Buffer.from(`m${log.sequence + 1}`))
      else if ('sync' in each) await log.sync()
      else if ('racing' in each) racing.push(log.sync())
      else if (log.end.segment > 0) log.beginSegment(SEGMENT_HEADER_BYTES)
    }
    const { durable } = log
    const left = disk.afterPowerLoss(() => fates.next().value ?? true)
    const found = replay(left)
    same(
      metas(found),
      metas(found).map((_, i) => `m${i + 1}`),
    )
    if (found.records.length < durable) throw new Error(`${durable} were safe, ${found.records.length} are left`)
    if (found.end.zeros.size > 0) padded++
    if ([...found.end.zeros.keys()].some((segment) => segment < found.end.position.segment)) cut++
    await settle(left, LOG_START, found.end)
    const again = replay(left.afterPowerLoss(() => false))
    same([metas(again), again.end.torn, again.end.zeros.size], [metas(found), 0, 0])
    await Promise.all(racing)
  })
  await fc.assert(runs, { numRuns: 1500 })
  t.ok(padded > 50 && cut > 5, `${padded} logs ended with zeros, ${cut} had them in the middle`)
})

function throwsCorrupt(run: () => unknown): void {
  try {
    run()
  } catch (error) {
    same((error as { code?: string }).code, 'NEXUS_CORRUPT')
    return
  }
  throw new Error('nothing was thrown')
}

/** Stops at the first of very many checks that fails. */
function same(found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`found ${a?.slice(0, 500)}, wanted ${b?.slice(0, 500)}`)
}
