/**
 * The disk fails once, or from then on, at every call that a run of operations with checkpoints,
 * snapshots, a restore and a collection makes. After each failure the filesystem is what the model
 * says, goes on or is read-only as promised, and is the same again when it is opened anew.
 */
import fc from 'fast-check'
import t from 'tap'
import type { Engine } from '../../src/engine/engine.ts'
import { NexusError } from '../../src/errors.ts'
import { MemoryIndex } from '../cas/support.ts'
import { ALWAYS_ZEROS, type DiskCall, MemoryDisk, ShortWrite, systemError } from '../journal/support.ts'
import { TestEngine } from '../snapshots/support.ts'
import type { Model } from './model.ts'
import { type Operation, operation } from './operations.ts'
import { dataFor, openEngine, Pair } from './pair.ts'

const limits = {
  segmentBytesMax: 2500,
  nodeCacheBytesMax: 5000,
  chunkCacheBytesMax: 1000,
  sealWorkers: 0,
  zeros: ALWAYS_ZEROS,
}
const WORKSPACE = '/workspace/w'
const OPERATIONS = 60
/** Codes that say what the disk did; any other is a failure of the test. */
const EXPECTED = ['ENOSPC', 'EIO', 'NEXUS_NO_SPACE', 'NEXUS_READ_ONLY', 'NEXUS_CORRUPT']

type Call = DiskCall | 'batch'

/** A failure, and what it is to lead to. */
interface Mode {
  name: string
  calls: readonly Call[]
  /** from the n-th call on, until there is room again; else only the n-th */
  lasts: boolean
  makesReadOnly: boolean
  make(call: Call): Error
}

const eio = (): Error => systemError('EIO')
const full = (call: Call): Error =>
  call === 'batch' ? new NexusError('NEXUS_NO_SPACE', 'made by the test') : systemError('ENOSPC')

class ShortEio extends ShortWrite {
  override readonly code = 'EIO' as 'ENOSPC'
}

const once = { lasts: false, makesReadOnly: false }
const modes: readonly Mode[] = [
  { ...once, name: 'ENOSPC at a write', calls: ['write'], make: full },
  { ...once, name: 'ENOSPC in the middle of a write', calls: ['write'], make: () => new ShortWrite(70) },
  { ...once, name: 'a disk that is full from then on', calls: ['write', 'open', 'batch'], lasts: true, make: full },
  { ...once, name: 'ENOSPC at an open or a batch', calls: ['open', 'batch'], make: full },
  { ...once, name: 'EIO at an open, truncate, remove or batch', calls: ['open', 'truncate', 'remove', 'batch'], make: eio },
  { ...once, name: 'EIO at a write', calls: ['write'], makesReadOnly: true, make: eio },
  { ...once, name: 'EIO in the middle of a write', calls: ['write'], makesReadOnly: true, make: () => new ShortEio(70) },
  { ...once, name: 'EIO at a sync', calls: ['sync', 'syncNames'], makesReadOnly: true, make: eio },
  { ...once, name: 'EIO from a sync on', calls: ['write', 'sync', 'syncNames'], lasts: true, makesReadOnly: true, make: eio },
]

/** What a start sweeps up would be told apart by chance: nothing is forgotten here. */
const operations = (seed: number): Operation[] =>
  fc
    .sample(operation, { seed, numRuns: OPERATIONS })
    .map((each) => ({ ...each, kind: each.kind === 'forget' ? 'write' : each.kind, length: each.length % 120 }))

class Run {
  readonly disk = new MemoryDisk()
  readonly index = new MemoryIndex()
  readonly moments: Model[] = []
  /** the last moment that a sync made safe */
  synced = 0
  failures = 0
  calls = 0
  pair!: Pair
  #snapshot: Model | undefined
  readonly #mode: Mode
  readonly #failing: number

  constructor(mode: Mode, failing: number) {
    this.#mode = mode
    this.#failing = failing
  }

  get engine(): Engine {
    return this.pair.engine
  }

  async start(data: string): Promise<void> {
    this.pair = await Pair.make({ data, disk: this.disk, index: this.index }, limits)
    await this.sync()
    this.disk.fault = (call) => this.#fault(call)
    this.index.fault = () => this.#fault('batch')
  }

  heal(): void {
    this.disk.fault = undefined
    this.index.fault = undefined
  }

  #fault(call: Call): void {
    if (!this.#mode.calls.includes(call)) return
    this.calls++
    if (this.calls !== this.#failing && !(this.#mode.lasts && this.calls > this.#failing)) return
    this.failures++
    throw this.#mode.make(call)
  }

  async sync(): Promise<void> {
    const moment = this.moments.length
    this.moments.push(this.pair.model.clone())
    if (await this.#attempt(() => this.engine.volumes.sync())) this.synced = moment
  }

  /** One step of the workload. */
  async step(i: number, each: Operation): Promise<void> {
    const before = this.pair.model.clone()
    if (!(await this.#attempt(() => this.pair.apply(each)))) this.pair.model = before
    this.moments.push(this.pair.model.clone())
    if (i % 8 === 7) await this.sync()
    if (i === 15 || i === 34) await this.#attempt(() => this.engine.volumes.checkpoint())
    const { service } = new TestEngine(this.engine)
    if (i === 20 && (await this.#attempt(() => service.snapshotCreate(WORKSPACE, { name: 'then' })))) {
      this.#snapshot = this.pair.model.clone()
    }
    if (i === 45 && this.#snapshot !== undefined) await this.#restore(service, this.#snapshot)
    if (i === 28 || i === 52) await this.#attempt(() => this.engine.collect())
    if (i === 55 && this.#snapshot !== undefined) await this.#attempt(() => service.snapshotDelete(WORKSPACE, 'then'))
  }

  async #restore(service: TestEngine['service'], then: Model): Promise<void> {
    if (!(await this.#attempt(() => service.restore(WORKSPACE, 'then', {})))) return
    this.pair.model = then.clone()
    this.moments.push(then.clone())
  }

  /** @returns whether it was done; what failed for another reason than the disk is thrown */
  async #attempt(work: () => unknown): Promise<boolean> {
    const wasReadOnly = this.engine.volumes.log.failure !== undefined
    try {
      await work()
      return true
    } catch (error) {
      const code = (error as { code?: string }).code ?? ''
      if (this.failures === 0 || !EXPECTED.includes(code)) throw error
      if (wasReadOnly && code !== 'NEXUS_READ_ONLY') throw new Error(`read-only, and still ${code}`, { cause: error })
      return false
    }
  }
}

async function runAll(data: string, mode: Mode, failing: number, plan: readonly Operation[]): Promise<Run> {
  const run = new Run(mode, failing)
  await run.start(data)
  for (const [i, each] of plan.entries()) await run.step(i, each)
  run.pair.check()
  return run
}

async function checkReadOnly(run: Run): Promise<void> {
  const { engine } = run
  if (engine.state.state !== 'read-only') throw new Error(`the state is ${engine.state.state}`)
  const synced = await engine.volumes.sync().then(
    () => true,
    () => false,
  )
  if (synced) throw new Error('a sync after a failed one says that all is safe')
  run.pair.check()
}

/** Room again: everything works as before, without having been opened anew. */
async function checkResumed(run: Run, plan: readonly Operation[]): Promise<void> {
  run.heal()
  for (const each of plan) run.pair.apply(each)
  run.pair.check()
  await run.engine.volumes.checkpoint()
  await run.engine.collect()
  run.pair.check()
  if (run.engine.state.state !== 'ok') throw new Error(`the state is ${run.engine.state.state}`)
}

/** As it was acknowledged, with the index as it is and without one. */
async function checkReopened(data: string, run: Run): Promise<void> {
  const { pair, index, disk } = run
  const { model } = pair
  for (const left of [index.clone(), new MemoryIndex()]) {
    pair.model = model.clone()
    pair.reopened(await openEngine({ data, disk: disk.afterKill(), index: left }, limits))
    pair.check()
  }
}

/** Power loss takes what was not synced, and nothing that was. */
async function checkPowerLoss(data: string, run: Run): Promise<void> {
  const { pair, index, disk, moments, synced } = run
  pair.reopened(await openEngine({ data, disk: disk.afterPowerLoss(() => false), index: index.clone() }, limits))
  const fits = moments.slice(synced).some((model) => {
    pair.model = model.clone()
    pair.model.dropOrphans()
    return pair.dump() === pair.model.dump()
  })
  if (!fits) throw new Error(`what is left is none of the moments from ${synced} to ${moments.length - 1}`)
}

const rejections: unknown[] = []
process.on('unhandledRejection', (reason) => rejections.push(reason))

let injected = 0
for (const mode of modes) {
  t.test(`${mode.name}, at each of them`, async (t) => {
    const data = dataFor(t)
    const seed = 5
    const plan = operations(seed)
    let failing = 1
    for (; ; failing++) {
      try {
        const run = await runAll(data, mode, failing, plan)
        injected += run.failures
        if (run.failures === 0) break
        if (mode.makesReadOnly) await checkReadOnly(run)
        else await checkResumed(run, operations(seed + 1).slice(0, 15))
        await checkReopened(data, run)
        if (mode.makesReadOnly) await checkPowerLoss(data, run)
      } catch (error) {
        throw new Error(`${mode.name} at ${failing}: ${error}`, { cause: error })
      }
    }
    t.ok(failing > 10, `${failing - 1} places`)
  })
}

t.test('a read that the disk fails is EIO for whoever reads, and for nobody later', async (t) => {
  const data = dataFor(t)
  const disk = new MemoryDisk()
  const engine = await openEngine({ data, disk, index: new MemoryIndex() }, limits)
  const made = new TestEngine(engine)
  made.mkdir('/workspace/w')
  for (const isMerged of [false, true]) {
    made.write('/workspace/w/f', 'content')
    if (isMerged) await engine.volumes.checkpoint()
    disk.readFault = () => {
      throw systemError('EIO')
    }
    t.throws(() => made.read('/workspace/w/f'), { code: 'NEXUS_CORRUPT', message: /at byte \d+/ })
    disk.readFault = undefined
    t.equal(made.read('/workspace/w/f'), 'content')
    t.same(engine.state, { state: 'ok', reason: null })
    made.write('/workspace/w/g', 'as ever')
  }
})

t.test('nothing was rejected that nobody heard of', async (t) => {
  t.comment(`${injected} failures injected`)
  t.same(rejections, [])
})
