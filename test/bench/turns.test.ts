/** Peers that fail, are slow or do not answer: the run goes on, and says so where their figures would be. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { Inputs } from '../../bench/inputs.ts'
import { type Result, rowOf } from '../../bench/report.ts'
import { Runner } from '../../bench/runner.ts'
import { HungError, SlowError } from '../../bench/shell.ts'
import { type Rounds, Turns } from '../../bench/turns.ts'
import { BenchError, type Job, type Place, type Workload } from '../../bench/workload.ts'

const ROUNDS: Rounds = { all: 3, peers: 1, endMs: Infinity, isStopped: () => false }
const uid = process.getuid?.() ?? 0

class Rig {
  readonly directory: string
  readonly runner: Runner
  readonly places: Place[]
  /** where each measurement was, in the order of time */
  readonly log: string[] = []
  isAnswering = true

  constructor(t: Test) {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-test-'))
    t.teardown(() => fs.rmSync(this.directory, { recursive: true, force: true }))
    fs.mkdirSync(path.join(this.directory, 'inputs'))
    this.runner = new Runner(new Inputs(path.join(this.directory, 'inputs')), this.directory, 'budget')
    this.places = [this.#place('ext4', 'local'), this.#place('nexus', 'nexus'), this.#place('slow', 'peer')]
  }

  #place(name: string, kind: Place['kind']): Place {
    const home = path.join(this.directory, name)
    fs.mkdirSync(home)
    const nothing = async (): Promise<void> => undefined
    const probe = async (): Promise<void> => {
      if (!this.isAnswering) throw new HungError('no answer')
    }
    const giveUp = async (): Promise<void> => void this.log.push('given up')
    return { name, kind, home, owner: uid, uid, settle: nothing, restart: nothing, probe, giveUp }
  }

  workload(name: string, atPeer: (job: Job) => Promise<number>, more: Partial<Workload> = {}): Workload {
    const run = async (job: Job): Promise<number> => {
      this.log.push(job.place.name)
      return job.place.kind === 'peer' ? await atPeer(job) : 2
    }
    return { name, measure: 'time', aim: 1, sizes: { full: 1, quick: 1, budget: 1 }, each: 'file', run, ...more }
  }

  async cells(...workloads: Workload[]): Promise<(string | undefined)[]> {
    const turns = new Turns(this.runner, this.places, ROUNDS)
    const results: Result[] = await turns.measure(workloads.map((workload) => ({ kind: 'small', workload })))
    return results.map((result) => rowOf(result, 'ext4', ['slow'])['slow'])
  }
}

const fails = (error: BenchError) => async (): Promise<number> => {
  throw error
}

t.test('a peer has its turn in one round, the others in each', async (t) => {
  const rig = new Rig(t)
  t.same(await rig.cells(rig.workload('fine', async () => 3)), ['1.50'])
  t.same(rig.log, ['ext4', 'nexus', 'slow', 'nexus', 'ext4', 'ext4', 'nexus'])
})

t.test('a peer that fails or is slow has that in its cell, and its turn in the next row', async (t) => {
  const rig = new Rig(t)
  const cells = await rig.cells(
    rig.workload('failing', fails(new BenchError('EIO'))),
    rig.workload('slow', fails(new SlowError('it took longer', 60_000, true))),
    rig.workload('slow before', fails(new SlowError('it took longer', 60_000, false))),
    rig.workload('no time', fails(new SlowError('it took longer', 60_000, true)), { measure: 'times' }),
    rig.workload('fine', async () => 3),
  )
  t.same(cells, ['failed', '> 30', 'slow', 'slow', '1.50'])
})

t.test('a peer that does not answer is ended and left out from then on', async (t) => {
  for (const error of [new HungError('it cannot be killed'), new SlowError('it took longer', 60_000, true)]) {
    const rig = new Rig(t)
    rig.isAnswering = false
    t.same(
      await rig.cells(
        rig.workload('hanging', fails(error)),
        rig.workload('fine', async () => 3),
      ),
      ['hung', '–'],
    )
    t.equal(rig.log.filter((what) => what === 'slow').length, 1)
    t.equal(rig.log.filter((what) => what === 'given up').length, 1)
  }
})

t.test('nobody else may fail', async (t) => {
  const rig = new Rig(t)
  const workload = rig.workload('failing', async () => 3, { prepare: ({ place }) => fails(new BenchError(place.name))() })
  await t.rejects(rig.cells(workload), { message: 'ext4' })
})

t.test('what is called warm was done before it is counted', async (t) => {
  const rig = new Rig(t)
  const seen: string[] = []
  rig.places[1] = {
    ...(rig.places[1] as Place),
    requests: async () => {
      seen.push(`${rig.log.filter((name) => name === 'nexus').length}`)
      return {}
    },
  }
  const warm = rig.workload('warm', async () => 3, { warm: true })
  await rig.runner.measure(warm, rig.places[1] as Place, 0)
  t.same(seen, ['2', '3'], 'runs before each look at the counts')
})

t.test('a fixture that could not be made is not tried again', async (t) => {
  const rig = new Rig(t)
  let tries = 0
  const fixture = {
    name: 'tree',
    make: async ({ place }: Job): Promise<void> => {
      if (place.kind !== 'peer') return
      tries++
      throw new SlowError('it took longer', 60_000, false)
    },
  }
  const workloads = ['one', 'two'].map((name) => rig.workload(name, async () => 3, { fixture }))
  t.same(await rig.cells(...workloads), ['slow', 'slow'])
  t.equal(tries, 1)
})
