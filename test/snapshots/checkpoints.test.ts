/** A checkpoint looks at the workspaces that have changed, and a start finds all of them as they were. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { MemoryIndex } from '../cas/support.ts'
import { copyLive } from '../crash/copylive.ts'
import { engineFor, TestEngine } from './support.ts'

const WORKSPACES = 200
const NAMES = 4
const RUNS = 40

t.test('a checkpoint looks at what has changed, however many workspaces there are', async (t) => {
  const made = await engineFor(t)
  const { volumes } = made.engine
  for (let i = 0; i < WORKSPACES; i++) {
    made.mkdir(`/workspace/w${i}`)
    made.write(`/workspace/w${i}/file`, `first ${i}`)
  }
  await volumes.checkpoint()
  t.ok(volumes.checkpointedVolumes > WORKSPACES, 'all of them, once')
  made.write('/workspace/w7/file', 'changed')
  await volumes.checkpoint()
  t.equal(volumes.checkpointedVolumes, 1, 'the one that changed')
  made.write('/workspace/w8/file', 'changed')
  await made.service.snapshotCreate('/workspace/w8', { name: 's' })
  await volumes.checkpoint()
  t.equal(volumes.checkpointedVolumes, 1, 'one that a snapshot has merged before')
  await made.service.collect()
  t.ok(volumes.checkpointedVolumes <= 1, 'also those of a collection')
  t.equal(made.read('/workspace/w199/file'), 'first 199')
})

type Step =
  | { kind: 'write' | 'delete' | 'snapshot' | 'restore'; which: number }
  | { kind: 'checkpoint' | 'failing checkpoint' | 'checkpoint beside' | 'collect' }

const which = fc.nat(NAMES - 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('write' as const), which }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('delete' as const, 'snapshot' as const, 'restore' as const), which }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'checkpoint' as const,
        'failing checkpoint' as const,
        'checkpoint beside' as const,
        'collect' as const,
      ),
    }),
  },
)

/** The real thing, and what each workspace's file should hold. */
class World {
  readonly data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-checkpoints-'))
  readonly index = new MemoryIndex()
  readonly files = new Map<number, string>()
  readonly #snapshots = new Map<number, string>()
  readonly #beside: Promise<void>[] = []
  #count = 0

  static async make(): Promise<{ world: World; made: TestEngine }> {
    const world = new World()
    return { world, made: await world.open(world.data, world.index) }
  }

  async open(data: string, index: MemoryIndex): Promise<TestEngine> {
    return new TestEngine(await Engine.open({ data, index, logger: silentLogger, limits: { segmentBytesMax: 1 << 14 } }))
  }

  async run(made: TestEngine, step: Step): Promise<void> {
    const { volumes } = made.engine
    if ('which' in step) await this.#change(made, step.kind, step.which)
    else if (step.kind === 'checkpoint') await volumes.checkpoint()
    else if (step.kind === 'collect') await made.service.collect()
    else if (step.kind === 'checkpoint beside') this.#beside.push(volumes.checkpoint())
    else await this.#fail(made)
  }

  async #change(made: TestEngine, kind: 'write' | 'delete' | 'snapshot' | 'restore', which: number): Promise<void> {
    const place = `/workspace/w${which}`
    const content = this.files.get(which)
    if (kind === 'write') {
      if (content === undefined) made.mkdir(place)
      const text = `${this.#count++}`.padEnd(12)
      made.write(`${place}/file`, text)
      this.files.set(which, text)
    } else if (content === undefined) {
      return
    } else if (kind === 'delete') {
      await made.service.workspaceDelete(place)
      this.files.delete(which)
      this.#snapshots.delete(which)
    } else if (kind === 'snapshot') {
      await made.service.snapshotCreate(place, { name: `s${this.#count++}` })
      this.#snapshots.set(which, `s${this.#count - 1} ${content}`)
    } else {
      const [name, ...was] = this.#snapshots.get(which)?.split(' ') ?? []
      if (name === undefined) return
      await made.service.restore(place, name, {})
      this.files.set(which, was.join(' '))
    }
  }

  /** What is not stored now must be stored the next time. */
  async #fail(made: TestEngine): Promise<void> {
    await Promise.all(this.#beside)
    this.index.fault = () => {
      throw new Error('no room')
    }
    await made.engine.volumes.checkpoint().catch(() => undefined)
    this.index.fault = undefined
  }

  /** What a process finds that is started now, as if the one before had been killed. */
  async found(index: MemoryIndex): Promise<Map<number, string>> {
    await Promise.all(this.#beside)
    const copy = `${this.data}-copy`
    copyLive(this.data, copy)
    const made = await this.open(copy, index)
    try {
      const all = made
        .list('/workspace')
        .map((name): [number, string] => [Number(name.slice(1)), made.read(`/workspace/${name}/file`)])
      return new Map(all)
    } finally {
      await made.engine.close()
      fs.rmSync(copy, { recursive: true })
    }
  }
}

t.test('a start finds what was there, whatever checkpoints stored', async (t) => {
  const runs = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
    const { world, made } = await World.make()
    try {
      for (const one of steps) await world.run(made, one)
      const wanted = [...world.files].sort()
      const same = (found: Map<number, string>, what: string): void => {
        if (JSON.stringify([...found].sort()) !== JSON.stringify(wanted)) throw new Error(`not the same: ${what}`)
      }
      same(await world.found(world.index.clone()), 'from the last checkpoint')
      same(await world.found(new MemoryIndex()), 'from the log alone')
      if (made.engine.volumes.checkpointBytes < 0) throw new Error('there is less than nothing to store')
      await made.engine.volumes.checkpoint()
      if (made.engine.volumes.checkpointBytes !== 0) throw new Error('something is left to store')
      same(await world.found(world.index.clone()), 'from a checkpoint of all')
    } finally {
      await made.engine.close()
      fs.rmSync(world.data, { recursive: true, force: true })
    }
  })
  await fc.assert(runs, { numRuns: RUNS })
  t.pass()
})
