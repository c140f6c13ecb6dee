/**
 * The filesystem against a model, without a mount: operations at random, checkpoints begun and
 * finished, garbage collected, and the daemon dying at any point between. Whatever happens, the next
 * start finds every acknowledged operation.
 */
import fs from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { MemoryIndex } from '../cas/support.ts'
import { MemoryDisk } from '../journal/support.ts'
import { SLACK } from '../machine.ts'
import { copyLive } from './copylive.ts'
import { type Operation, operation } from './operations.ts'
import { dataFor, openEngine, Pair } from './pair.ts'

/** Most take a tenth of a second. */
const RUN_MS_MAX = 60_000 * SLACK

type Event = 'checkpoint' | 'begin' | 'finish' | 'turn' | 'collect' | 'fsck' | 'sync' | 'crash' | 'close' | 'rebuild'
type Step = Operation | Event

const event = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom<Event>('checkpoint', 'begin', 'begin', 'finish', 'turn', 'sync') },
  { weight: 3, arbitrary: fc.constantFrom<Event>('crash', 'crash', 'close') },
  { weight: 1, arbitrary: fc.constantFrom<Event>('collect', 'rebuild', 'fsck') },
)
const step: fc.Arbitrary<Step> = fc.oneof({ weight: 6, arbitrary: operation }, { weight: 1, arbitrary: event })
const steps = fc.array(step, { minLength: 1, maxLength: 150, size: 'max' })

/** How the store under a run dies and comes back. */
interface Ground {
  pair: Pair
  reopen(how: 'crash' | 'close' | 'rebuild'): Promise<void>
}

async function run(ground: Ground, plan: readonly Step[]): Promise<void> {
  const { pair } = ground
  let running: Promise<unknown> = Promise.resolve()
  const begin = (work: Promise<unknown>): void => {
    running = Promise.all([running, work])
  }
  for (const each of plan) {
    const { volumes } = pair.engine
    if (typeof each !== 'string') pair.apply(each)
    else if (each === 'checkpoint') await volumes.checkpoint()
    else if (each === 'begin') begin(volumes.checkpoint())
    else if (each === 'collect') begin(pair.engine.collect())
    else if (each === 'sync') begin(volumes.sync())
    else if (each === 'fsck') begin(pair.fsck())
    else if (each === 'turn') await new Promise((resolve) => setImmediate(resolve))
    else if (each === 'finish') {
      await running
      pair.check()
    } else {
      if (each !== 'crash') await running
      await ground.reopen(each)
      pair.check()
    }
  }
  pair.check()
  await running
  await pair.fsck()
  await ground.reopen('crash')
  pair.check()
  await pair.fsck()
}

/** In memory: fast, and nothing of a dead engine reaches the new one. */
async function inMemory(data: string): Promise<Ground> {
  let disk = new MemoryDisk()
  let index = new MemoryIndex()
  const pair = await Pair.make({ data, disk, index })
  return {
    pair,
    async reopen(how) {
      if (how === 'close') await pair.engine.close()
      disk = disk.afterKill()
      index = how === 'rebuild' ? new MemoryIndex() : index.clone()
      pair.reopened(await openEngine({ data, disk, index }))
    },
  }
}

t.test('the filesystem is the model, through any number of deaths', async (t) => {
  const data = dataFor(t)
  const runs = fc.asyncProperty(steps, async (plan) => run(await inMemory(data), plan))
  await fc.assert(runs, { numRuns: 250 })
  t.pass()
})

t.test('on a real directory and a real index too', async (t) => {
  const base = dataFor(t)
  let count = 0
  const next = () => path.join(base, `${count++}`)
  const runs = fc.asyncProperty(steps, async (plan) => {
    let data = next()
    const engines: Pair['engine'][] = []
    const pair = await Pair.make({ data })
    const ground: Ground = {
      pair,
      async reopen(how) {
        if (how === 'close') await pair.engine.close()
        else engines.push(pair.engine)
        const copy = next()
        copyLive(data, copy)
        data = copy
        if (how === 'rebuild') fs.rmSync(path.join(data, 'index'), { recursive: true })
        pair.reopened(await openEngine({ data }))
      },
    }
    try {
      await run(ground, plan)
    } finally {
      for (const engine of [...engines, pair.engine]) await engine.close()
    }
  })
  // To look for the smallest one that fails, or to wait for one that hangs, would end in a timeout that does not say which it is.
  await fc.assert(runs, { numRuns: 8, endOnFailure: true, timeout: RUN_MS_MAX })
  t.pass()
})
