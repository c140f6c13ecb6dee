/** What goes into the log comes out again, in order, across segments; and what a sync promises. */
import fc from 'fast-check'
import t from 'tap'
import { FORMAT_VERSION, SEGMENT_HEADER_BYTES, segmentName } from '../../src/journal/record.ts'
import { formatsOf, MemoryDisk, newLog, reopen, replay, ShortWrite, setFormat, systemError } from './support.ts'

const bytes = (text: string) => Buffer.from(text, 'latin1')
const record = fc.record({
  type: fc.integer({ min: 1, max: 255 }),
  data: fc.uint8Array({ maxLength: 300 }),
  meta: fc.uint8Array({ maxLength: 100 }),
})

t.test('records come back as they were appended, whatever the segments', async (t) => {
  const runs = fc.property(
    fc.array(record, { maxLength: 40 }),
    fc.integer({ min: 100, max: 2000 }),
    (records, segmentBytesMax) => {
      const disk = new MemoryDisk()
      const log = newLog(disk, { segmentBytesMax })
      const spans = records.map(({ type, data, meta }) => log.append(type, data, meta))
      const { records: found, end } = replay(disk)
      const latin1 = (part: Uint8Array) => Buffer.from(part).toString('latin1')
      same(
        found,
        records.map(({ type, data, meta }, i) => {
          const { segment = 0, offset = 0 } = spans[i] ?? {}
          return { type, sequence: i + 1, segment, offset, data: latin1(data), meta: latin1(meta) }
        }),
      )
      same(end, { position: log.end, sequence: records.length, torn: 0, version: FORMAT_VERSION, zeros: new Map() })
      for (const [i, span] of spans.entries()) {
        const into = Buffer.alloc(span.length)
        log.read(span.segment, span.offset, span.length, into, 0)
        same(latin1(into), latin1((records[i] as { data: Uint8Array }).data))
      }
    },
  )
  fc.assert(runs, { numRuns: 200 })
  t.pass()
})

t.test('a segment is closed before it grows too large, and a larger record has one to itself', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 1000 })
  for (let i = 0; i < 10; i++) log.append(1, Buffer.alloc(200), bytes(''))
  const huge = log.append(1, Buffer.alloc(5000), bytes(''))
  const next = log.append(1, Buffer.alloc(10), bytes(''))
  t.ok([1, 2, 3].every((segment) => disk.bytesOf(segmentName(segment)).length <= 1000))
  t.equal(next.segment, huge.segment + 1)
  t.equal(replay(disk).records.length, 12)
  t.end()
})

t.test('data that lies in a buffer with room around it is appended without a copy', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  const buffer = Buffer.alloc(500, '.')
  buffer.write('payload', 100)
  log.appendInPlace(1, buffer, 100, 7, bytes('meta'))
  t.match(replay(disk).records, [{ data: 'payload', meta: 'meta' }])
  t.end()
})

t.test('a reopened log goes on where it ended', async (t) => {
  const disk = new MemoryDisk()
  for (let round = 0; round < 5; round++) {
    const { log, found } = await reopen(disk, { segmentBytesMax: 300 })
    t.equal(found.records.length, round * 3)
    for (let i = 0; i < 3; i++) log.append(1, bytes(`${round}.${i}`), bytes(''))
    await log.close()
    t.equal(disk.openCount, 0, 'nothing stays open')
  }
  t.same(
    replay(disk).records.map(({ sequence }) => sequence),
    Array.from({ length: 15 }, (_, i) => i + 1),
  )
})

const OLDER = FORMAT_VERSION - 1

/** A log of an older format with one record, or none. */
async function olderLog(records: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, bytes('older'), bytes(''))
  await log.close()
  if (records === 0) disk.setBytes(segmentName(1), disk.bytesOf(segmentName(1)).subarray(0, SEGMENT_HEADER_BYTES))
  setFormat(disk, 1, OLDER)
  return disk
}

t.test('a log of an older format goes on in a segment of this one', async (t) => {
  for (const records of [0, 1]) {
    const disk = await olderLog(records)
    const before = Buffer.from(disk.bytesOf(segmentName(1)))
    const { log, found } = await reopen(disk)
    t.match(found, { records: { length: records }, end: { version: OLDER } })
    t.same(formatsOf(disk), [OLDER], 'who only reads changes nothing')
    t.equal(log.append(1, bytes('newer'), bytes('')).segment, 2)
    t.equal(log.append(1, bytes('more'), bytes('')).segment, 2)
    await log.close()
    t.same(formatsOf(disk), [OLDER, FORMAT_VERSION])
    t.ok(disk.bytesOf(segmentName(1)).equals(before))
    const again = await reopen(disk)
    t.match(again.found, { records: { length: records + 2 }, end: { version: FORMAT_VERSION, torn: 0 } })
    t.equal(again.log.append(1, bytes('last'), bytes('')).segment, 2)
  }
})

t.test('the format of a log is raised, and safe with the next sync, though nothing is appended', async (t) => {
  const disk = await olderLog(1)
  const { log } = await reopen(disk)
  disk.fault = (call) => {
    if (call === 'write') throw new ShortWrite(20)
  }
  t.throws(() => log.beginFormat(), { code: 'ENOSPC' })
  disk.fault = undefined
  t.same(formatsOf(disk), [OLDER], 'not on a disk that is full')
  log.beginFormat()
  log.beginFormat()
  await log.sync()
  const left = disk.afterPowerLoss(() => false)
  t.same(formatsOf(left), [OLDER, FORMAT_VERSION])
  t.match((await reopen(left)).found, { records: { length: 1 }, end: { position: { segment: 2 }, version: FORMAT_VERSION } })
  const { log: current } = await reopen(left)
  current.beginFormat()
  t.equal(left.list().length, 2, 'a log of this format stays as it is')
})

t.test('what will be needed behind the end of a segment lies in the next; one that is missing is for who reads it', (t) => {
  const disk = new MemoryDisk()
  const names = new Map<number, string>()
  const open = disk.open.bind(disk)
  const advised: unknown[][] = []
  const opened: string[] = []
  Object.assign(disk, {
    open: (name: string, create: boolean) => {
      opened.push(name)
      const fd = open(name, create)
      names.set(fd, name)
      return fd
    },
    willNeed: (fd: number, position: number, length: number) => void advised.push([names.get(fd), position, length]),
  })
  const log = newLog(disk, { segmentBytesMax: 1000 })
  for (let i = 0; i < 3; i++) log.append(1, Buffer.alloc(800), Buffer.alloc(0))
  log.willNeed(1, 100, 900)
  t.same(advised.splice(0), [[segmentName(1), 100, 900]])
  log.willNeed(1, 400, 900)
  t.same(advised.splice(0), [
    [segmentName(1), 400, 600],
    [segmentName(2), 0, 300],
  ])
  log.willNeed(3, 400, 900)
  t.same(advised.splice(0), [[segmentName(3), 400, 600]], 'there is none behind the last')
  t.notOk(opened.includes(segmentName(4)), 'and nobody looks for it')
  log.removeSegment(2)
  log.willNeed(2, 0, 100)
  log.willNeed(1, 400, 900)
  t.same(advised, [[segmentName(1), 400, 600]])
  t.end()
})

t.test('a sync resolves when everything before it is durable, and not before', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 400 })
  for (let i = 0; i < 6; i++) log.append(1, Buffer.alloc(100), bytes(`${i}`))
  t.equal(log.durable, 0)
  const opened = gateOf(disk)
  let resolved = false
  const sync = log.sync().then(() => {
    resolved = true
  })
  log.append(1, bytes('late'), bytes(''))
  await tick()
  t.notOk(resolved, 'the disk has not answered yet')
  opened()
  await sync
  t.equal(log.durable, 6, 'what came later does not count')
  t.equal(replay(disk.afterPowerLoss(() => false)).records.length, 6)
  t.ok(
    disk.calls.lastIndexOf('syncNames') > disk.calls.indexOf('sync 0000000001.log'),
    'the names of new segments are synced too',
  )
  await log.sync()
  t.equal(replay(disk.afterPowerLoss(() => false)).records.length, 7)
})

t.test('who asks while a sync runs shares the next one', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, bytes('a'), bytes(''))
  await log.sync()
  const before = disk.calls.length
  log.append(1, bytes('b'), bytes(''))
  const opened = gateOf(disk)
  const first = log.sync()
  log.append(1, bytes('c'), bytes(''))
  const shared = Array.from({ length: 20 }, () => log.sync())
  opened()
  await first
  t.equal(log.durable, 2)
  await Promise.all(shared)
  t.equal(log.durable, 3)
  t.equal(disk.calls.slice(before).filter((call) => call.startsWith('sync ')).length, 2)
  await log.sync()
  t.equal(disk.calls.slice(before).filter((call) => call.startsWith('sync ')).length, 2, 'nothing new, nothing to do')
})

t.test('no sync ever resolves too early, whatever the interleaving', async (t) => {
  const steps = fc.array(fc.constantFrom('append', 'sync', 'turn'), { minLength: 1, maxLength: 60 })
  const runs = fc.asyncProperty(steps, fc.integer({ min: 200, max: 2000 }), async (plan, segmentBytesMax) => {
    const disk = new MemoryDisk()
    disk.gate = tick
    const log = newLog(disk, { segmentBytesMax })
    const promises: Promise<void>[] = []
    for (const step of plan) {
      if (step === 'append') log.append(1, Buffer.alloc(60), bytes(''))
      else if (step === 'turn') await tick()
      else {
        const promised = log.sequence
        promises.push(
          log.sync().then(() => {
            const left = replay(disk.afterPowerLoss(() => false)).records.length
            if (left < promised) throw new Error(`promised ${promised} records, ${left} are safe`)
            if (log.durable < promised) throw new Error('the log does not know what it promised')
          }),
        )
      }
    }
    await Promise.all(promises)
  })
  await fc.assert(runs, { numRuns: 100 })
  t.pass()
})

t.test('a disk that fails to sync makes the log refuse everything from then on', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, bytes('a'), bytes(''))
  disk.fault = (call) => {
    if (call === 'sync') throw systemError('EIO')
  }
  const first = log.sync()
  const second = log.sync()
  await t.rejects(first, { code: 'NEXUS_READ_ONLY' })
  await t.rejects(second, { code: 'NEXUS_READ_ONLY' })
  disk.fault = undefined
  t.throws(() => log.append(1, bytes('b'), bytes('')), { code: 'NEXUS_READ_ONLY' })
  await t.rejects(log.sync(), { code: 'NEXUS_READ_ONLY' }, 'a retry that succeeds would prove nothing')
  t.match(log.failure, { code: 'NEXUS_READ_ONLY' })
  t.equal(log.durable, 0)
  const into = Buffer.alloc(1)
  log.read(1, 64 + 56, 1, into, 0)
  t.equal(into.toString(), 'a', 'reading goes on')
  await log.close()
  t.equal(disk.openCount, 0)
})

t.test('names that cannot be synced count as much as content', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, bytes('a'), bytes(''))
  disk.fault = (call) => {
    if (call === 'syncNames') throw systemError('EIO')
  }
  await t.rejects(log.sync(), { code: 'NEXUS_READ_ONLY' })
  t.equal(log.durable, 0)
})

t.test('a full disk fails one append and leaves the log as it was', async (t) => {
  for (const failing of [1, 2, 3, 4, 5, 6, 7, 8]) {
    for (const short of [0, 1, 55, 56, 90]) {
      const disk = new MemoryDisk()
      const log = newLog(disk, { segmentBytesMax: 500 })
      const kept: string[] = []
      let writes = 0
      disk.fault = (call) => {
        if (call === 'write' && ++writes === failing) throw new ShortWrite(short)
      }
      for (let i = 0; i < 10; i++) {
        const { end, sequence } = log
        try {
          // Every other one is so large that it may need a new segment where a smaller one would fit.
          log.append(1, Buffer.alloc(i % 2 === 0 ? 50 : 160, `${i}`), bytes(`${i}`))
          kept.push(`${i}`)
        } catch (error) {
          same((error as { code?: string }).code, 'ENOSPC')
          same(log.sequence, sequence)
          if (log.end.segment === end.segment) same(log.end, end)
        }
      }
      same(kept.length, 9)
      await log.sync()
      for (const left of [disk.afterKill(), disk.afterPowerLoss(() => false)]) {
        const { log: next, found } = await reopen(left, { segmentBytesMax: 500 })
        same(
          found.records.map(({ meta }) => meta),
          kept,
        )
        next.append(1, bytes('more'), bytes(''))
        same(replay(left).records.length, 10)
      }
    }
  }
  t.pass()
})

t.test('a failed append that cannot even be undone is undone before the next one', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 500 })
  log.append(1, Buffer.alloc(100), bytes('a'))
  disk.fault = (call) => {
    if (call === 'write') throw new ShortWrite(80)
    if (call === 'truncate') throw systemError('EIO')
  }
  t.throws(() => log.append(1, Buffer.alloc(100), bytes('b')), { code: 'ENOSPC' })
  t.throws(() => log.append(1, Buffer.alloc(300), bytes('c')), 'still failing')
  disk.fault = undefined
  log.append(1, Buffer.alloc(300), bytes('d'))
  t.same(
    replay(disk).records.map(({ meta }) => meta),
    ['a', 'd'],
  )
  t.end()
})

t.test('a segment that cannot be begun leaves nothing behind', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 300 })
  log.append(1, Buffer.alloc(100), bytes('a'))
  for (const failing of ['open', 'write'] as const) {
    disk.fault = (call, name) => {
      if (call === failing && name === segmentName(2)) throw failing === 'open' ? systemError('ENOSPC') : new ShortWrite(10)
    }
    t.throws(() => log.append(1, Buffer.alloc(200), bytes('b')), { code: 'ENOSPC' })
    t.same(disk.list(), [segmentName(1)])
  }
  disk.fault = undefined
  log.append(1, Buffer.alloc(200), bytes('b'))
  t.equal(replay(disk).records.length, 2)
  t.end()
})

t.test('a segment file that could not be removed is taken over', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 300 })
  log.append(1, Buffer.alloc(100), bytes('a'))
  disk.fault = (call, name) => {
    if (call === 'write' && name === segmentName(2)) throw new ShortWrite(10)
    if (call === 'remove') throw systemError('EIO')
  }
  t.throws(() => log.append(1, Buffer.alloc(200), bytes('b')), { code: 'ENOSPC' })
  disk.fault = undefined
  log.append(1, Buffer.alloc(200), bytes('b'))
  t.equal(replay(disk).records.length, 2)
  t.end()
})

t.test('descriptors are few, however many segments are read, and none is closed while it is synced', async (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk, { segmentBytesMax: 150 })
  const spans = Array.from({ length: 700 }, () => log.append(1, Buffer.alloc(60), bytes('')))
  await log.sync()
  const opened = gateOf(disk)
  log.append(1, Buffer.alloc(60), bytes(''))
  const sync = log.sync()
  for (const { segment, offset } of spans) log.read(segment, offset, 60, Buffer.alloc(60), 0)
  t.ok(disk.openCount <= 513)
  opened()
  await sync
  await log.close()
  t.equal(disk.openCount, 0)
})

t.test('reading a segment that is missing or too short names it', (t) => {
  const disk = new MemoryDisk()
  const log = newLog(disk)
  log.append(1, bytes('a'), bytes(''))
  const into = Buffer.alloc(10)
  t.throws(() => log.read(7, 64, 1, into, 0), { code: 'NEXUS_CORRUPT', message: /0000000007\.log is missing/ })
  t.throws(() => log.read(1, 120, 10, into, 0), { code: 'NEXUS_CORRUPT', message: /ends 9 bytes early/ })
  t.end()
})

/** Syncs wait until the function that this returns is called. */
function gateOf(disk: MemoryDisk): () => void {
  let open: () => void = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  disk.gate = () => opened
  return () => {
    disk.gate = undefined
    open()
  }
}

function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** fast-check needs an exception where tap would only note a failure. */
function same(found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`found ${a?.slice(0, 500)}, wanted ${b?.slice(0, 500)}`)
}
