/**
 * Power loss without a mount. A run of operations is recorded with the state after each; then the
 * log is cut at every byte, loses what was not synced, or its owner dies at every write. What a start
 * finds is always the state after some operation: the last whole one, and never one that an fsync
 * had passed.
 */
import fc from 'fast-check'
import t from 'tap'
import { MemoryIndex } from '../cas/support.ts'
import { ALWAYS_ZEROS, MemoryDisk, ShortWrite, systemError } from '../journal/support.ts'
import type { Model } from './model.ts'
import { type Operation, operation } from './operations.ts'
import { dataFor, openEngine, Pair } from './pair.ts'

/** A state, and how far the log reached when it was acknowledged. */
interface Moment {
  model: Model
  segment: number
  offset: number
  sequence: number
  /** of the last moment that an fsync made durable */
  synced: number
}

interface Recording {
  pair: Pair
  disk: MemoryDisk
  index: MemoryIndex
  moments: Moment[]
  /** the disk as it was after each moment */
  disks: MemoryDisk[]
  /** the index, and what it became at the checkpoint */
  indexes: MemoryIndex[]
}

interface Plan {
  operations: readonly Operation[]
  /** an fsync after every so many */
  syncEvery: number
  /** a checkpoint after this one */
  checkpointAt?: number
  segmentBytesMax?: number
}

const limits = (segmentBytesMax = 4000) => ({
  segmentBytesMax,
  nodeCacheBytesMax: 5000,
  chunkCacheBytesMax: 1000,
  sealWorkers: 0,
  zeros: ALWAYS_ZEROS,
})
const operations = (seed: number, count: number): Operation[] =>
  fc.sample(operation, { seed, numRuns: count }).map((each) => ({ ...each, length: each.length % 120 }))

async function record(data: string, { operations: plan, syncEvery, checkpointAt, segmentBytesMax }: Plan): Promise<Recording> {
  const disk = new MemoryDisk()
  const index = new MemoryIndex()
  const pair = await Pair.make({ data, disk, index }, limits(segmentBytesMax))
  const recording: Recording = { pair, disk, index, moments: [], disks: [], indexes: [] }
  let synced = 0
  const remember = (): void => {
    const { end, sequence } = pair.engine.volumes.log
    recording.moments.push({ model: pair.model.clone(), ...end, sequence, synced })
    recording.disks.push(disk.afterKill())
    recording.indexes.push(index.clone())
  }
  await pair.engine.volumes.sync()
  remember()
  for (const [i, each] of plan.entries()) {
    pair.apply(each)
    if ((i + 1) % syncEvery === 0) {
      await pair.engine.volumes.sync()
      synced = i + 1
    }
    if (i === checkpointAt) {
      await pair.engine.volumes.checkpoint()
      synced = i + 1
    }
    remember()
  }
  return recording
}

/** Opens what is left and compares it with a moment. */
async function expectMoment(data: string, pair: Pair, disk: MemoryDisk, index: MemoryIndex, moment: Moment): Promise<void> {
  pair.model = moment.model.clone()
  pair.reopened(await openEngine({ data, disk, index: index.clone() }, limits()))
  pair.check()
}

/** The log, cut at a byte: later segments are gone. */
function cut(disk: MemoryDisk, name: string, at: number): MemoryDisk {
  const copy = disk.afterKill()
  copy.setBytes(name, disk.bytesOf(name).subarray(0, at))
  for (const later of disk.list()) if (later > name) copy.remove(later)
  return copy
}

/** The last moment whose records lie before this place. */
function momentAt(moments: readonly Moment[], segment: number, offset: number): Moment | undefined {
  return moments.findLast((moment) => moment.segment < segment || (moment.segment === segment && moment.offset <= offset))
}

function numberOf(name: string): number {
  return Number.parseInt(name, 10)
}

for (const seed of [1, 2]) {
  t.test(`cut at every byte, a run is as long as its last whole record (seed ${seed})`, async (t) => {
    const data = dataFor(t)
    const { pair, disk, index, moments } = await record(data, { operations: operations(seed, 60), syncEvery: 1000 })
    let checked = 0
    for (const name of disk.list().sort()) {
      const { length } = disk.bytesOf(name)
      for (let at = 0; at <= length; at++) {
        const moment = momentAt(moments, numberOf(name), at)
        // Before the workspace was made there is nothing to compare.
        if (moment === undefined) continue
        await expectMoment(data, pair, cut(disk, name, at), index, moment).catch((error: unknown) => {
          throw new Error(`seed ${seed}, ${name} cut at ${at}: ${error}`, { cause: error })
        })
        checked++
      }
    }
    t.ok(checked > 5000, `${checked} cuts`)
  })
}

t.test('the same behind a checkpoint, with the index as it was then', async (t) => {
  const data = dataFor(t)
  const seed = 3
  const checkpointAt = 30
  const { pair, disk, index, moments } = await record(data, { operations: operations(seed, 60), syncEvery: 1000, checkpointAt })
  const start = moments[checkpointAt + 1] as Moment
  for (const name of disk.list().sort()) {
    for (let at = 0; at <= disk.bytesOf(name).length; at++) {
      const isBefore = numberOf(name) < start.segment || (numberOf(name) === start.segment && at < start.offset)
      const opened = expectMoment(data, pair, cut(disk, name, at), index, momentAt(moments, numberOf(name), at) ?? start)
      if (!isBefore) await opened
      else {
        // What the checkpoint needs was safe when it was made: its loss is damage, and said to be.
        const error = await opened.then(
          () => undefined,
          (reason: unknown) => reason,
        )
        if ((error as { code?: string } | undefined)?.code !== 'NEXUS_CORRUPT') {
          throw new Error(`${name} cut at ${at}, before the checkpoint: ${error}`)
        }
      }
    }
  }
  t.pass()
})

t.test('whatever of the unsynced writes power loss takes, what is left is a moment behind the last fsync', async (t) => {
  const data = dataFor(t)
  let lost = 0
  const plan = fc.record({
    seed: fc.nat(1000),
    syncEvery: fc.integer({ min: 1, max: 25 }),
    checkpointAt: fc.option(fc.nat(40), { nil: 99 }),
    segmentBytesMax: fc.constantFrom(800, 3000, 100_000),
    // For each write that was not synced: all of it, none of it, or so many bytes.
    fates: fc.infiniteStream(fc.oneof(fc.constantFrom(true, true, false), fc.nat(300))),
    upTo: fc.nat(40),
  })
  const runs = fc.asyncProperty(plan, async ({ seed, syncEvery, checkpointAt, segmentBytesMax, fates, upTo }) => {
    const { pair, disk, index, moments } = await record(data, {
      operations: operations(seed, upTo + 1),
      syncEvery,
      checkpointAt,
      segmentBytesMax,
    })
    const left = disk.afterPowerLoss(() => fates.next().value ?? true)
    const { synced } = moments.at(-1) as Moment
    pair.reopened(await openEngine({ data, disk: left, index: index.clone() }, limits(segmentBytesMax)))
    // The number of whole records says which moment it must be.
    const { sequence } = pair.engine.volumes.log
    const found = moments.findLastIndex((moment) => moment.sequence <= sequence)
    if (found < synced) throw new Error(`fsync passed after operation ${synced}, only ${found} are left`)
    if (found < moments.length - 1) lost++
    // Starting swept up what had no name, with records of its own: try every moment that can be meant.
    const fits = moments.slice(synced).some(({ model }) => {
      pair.model = model.clone()
      pair.model.dropOrphans()
      return pair.dump() === pair.model.dump()
    })
    if (!fits) throw new Error(`what is left is none of the moments from ${synced} to ${moments.length - 1}`)
  })
  await fc.assert(runs, { numRuns: 300 })
  t.ok(lost > 50, `${lost} runs lost something`)
})

/** Everything that a checkpoint writes, as points where its process can die. */
async function dieDuring(data: string, seed: number, power: boolean, work: (pair: Pair) => Promise<unknown>): Promise<number> {
  for (let fatal = 1; ; fatal++) {
    const { pair, disk, index } = await record(data, { operations: operations(seed, 40), syncEvery: 15, checkpointAt: 20 })
    if (power) await pair.engine.volumes.sync()
    let calls = 0
    let isDead = false
    const die = (): void => {
      calls++
      if (calls < fatal) return
      isDead = true
      throw systemError('EIO')
    }
    disk.fault = (call) => {
      if (call !== 'open') die()
    }
    index.fault = die
    await work(pair).catch(() => undefined)
    disk.fault = undefined
    const left = power ? disk.afterPowerLoss(() => false) : disk.afterKill()
    pair.reopened(await openEngine({ data, disk: left, index: index.clone() }, limits()))
    try {
      pair.check()
      await pair.engine.volumes.checkpoint()
      pair.check()
      const again = await openEngine({ data, disk: left.afterKill(), index: new MemoryIndex() }, limits())
      pair.reopened(again)
      pair.check()
    } catch (error) {
      throw new Error(`seed ${seed}, died at write ${fatal}: ${error}`, { cause: error })
    }
    if (!isDead) return fatal
  }
}

for (const power of [false, true]) {
  const death = power ? 'loses power' : 'dies'
  t.test(`a machine that ${death} at any write of a checkpoint has lost nothing`, async (t) => {
    const data = dataFor(t)
    for (const seed of [11, 12, 13]) {
      const points = await dieDuring(data, seed, power, (pair) => pair.engine.volumes.checkpoint())
      t.ok(points > 5, `${points} points`)
    }
  })

  t.test(`a machine that ${death} at any write of a garbage collection has lost nothing`, async (t) => {
    const data = dataFor(t)
    for (const seed of [14, 15]) {
      const points = await dieDuring(data, seed, power, (pair) => pair.engine.collect())
      t.ok(points > 5, `${points} points`)
    }
  })
}

t.test('a checkpoint that fails once costs nothing, and the next one is whole', async (t) => {
  const data = dataFor(t)
  const seed = 21
  for (let failing = 1; ; failing++) {
    const { pair, disk, index } = await record(data, { operations: operations(seed, 40), syncEvery: 15 })
    let calls = 0
    const fail = (): void => {
      if (++calls === failing) throw new ShortWrite(7)
    }
    disk.fault = (call) => {
      if (call === 'write') fail()
    }
    index.fault = fail
    const failed = await pair.engine.volumes.checkpoint().then(
      () => false,
      () => true,
    )
    disk.fault = undefined
    index.fault = undefined
    pair.check()
    for (const each of operations(seed + 1, 20)) pair.apply(each)
    pair.check()
    for (const reopenedIndex of [index.clone(), new MemoryIndex()]) {
      const { model } = pair
      pair.model = model.clone()
      const engine = pair.engine
      pair.reopened(await openEngine({ data, disk: disk.afterKill(), index: reopenedIndex }, limits()))
      pair.check()
      pair.model = model
      pair.engine = engine
    }
    await pair.engine.volumes.checkpoint()
    pair.check()
    pair.reopened(await openEngine({ data, disk: disk.afterKill(), index: index.clone() }, limits()))
    pair.check()
    if (!failed) {
      t.ok(failing > 5, `${failing} points`)
      return
    }
  }
})

t.test('a full disk refuses operations one by one, whole', async (t) => {
  const data = dataFor(t)
  const runs = fc.asyncProperty(fc.nat(1000), fc.infiniteStream(fc.nat(6)), async (seed, stream) => {
    const disk = new MemoryDisk()
    const index = new MemoryIndex()
    const pair = await Pair.make({ data, disk, index }, limits(900))
    disk.fault = (call) => {
      if (call === 'write' && stream.next().value === 0) throw new ShortWrite((stream.next().value ?? 0) * 40)
    }
    for (const each of operations(seed, 60)) {
      const before = pair.model.clone()
      try {
        pair.apply(each)
      } catch (error) {
        if ((error as { code?: string }).code !== 'ENOSPC') throw error
        pair.model = before
      }
    }
    disk.fault = undefined
    pair.check()
    pair.reopened(await openEngine({ data, disk: disk.afterKill(), index: index.clone() }, limits(900)))
    pair.check()
  })
  await fc.assert(runs, { numRuns: 60 })
  t.pass()
})

t.test('a first start that was cut short is finished by the next', async (t) => {
  const data = dataFor(t)
  const disk = new MemoryDisk()
  await openEngine({ data, disk, index: new MemoryIndex() }, limits())
  const [name = ''] = disk.list()
  for (let at = 0; at <= disk.bytesOf(name).length; at++) {
    const engine = await openEngine({ data, disk: cut(disk, name, at), index: new MemoryIndex() }, limits())
    const caller = { uid: 0, gid: 0, pid: 1 }
    const found = ['tenants', 'workspace'].filter((each) => engine.fs.lookup(caller, 1, each) !== undefined)
    if (found.length < 2) throw new Error(`cut at ${at}, there is only ${found}`)
  }
  t.pass()
})

/** What reading the whole filesystem gives: everything as it was, or a refusal. */
function reads(pair: Pair): 'right' | 'refused' {
  try {
    pair.check()
    return 'right'
  } catch (error) {
    const { code } = error as { code?: string }
    if (code === 'NEXUS_CORRUPT' || code === 'EIO') return 'refused'
    throw error
  }
}

t.test('a bit that flips anywhere in the log is never read as wrong bytes', async (t) => {
  const data = dataFor(t)
  const recording = await record(data, { operations: operations(31, 60), syncEvery: 10, checkpointAt: 30 })
  const { pair, disk, index, moments } = recording
  await pair.engine.volumes.checkpoint()
  const last = moments.at(-1) as Moment
  const counts = { right: 0, refused: 0, unopened: 0 }
  for (const name of disk.list()) {
    const whole = disk.bytesOf(name)
    for (let at = 0; at < whole.length; at += 3) {
      const flipped = Buffer.from(whole)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
      const left = disk.afterKill()
      left.setBytes(name, flipped)
      pair.model = last.model.clone()
      try {
        pair.reopened(await openEngine({ data, disk: left, index: index.clone() }, limits()))
        counts[reads(pair)]++
      } catch (error) {
        if ((error as { code?: string }).code !== 'NEXUS_CORRUPT')
          throw new Error(`${name} byte ${at}: ${error}`, { cause: error })
        counts.unopened++
      }
    }
  }
  t.ok(counts.refused > 50 && counts.right > 100, JSON.stringify(counts))
})
