/**
 * What reaches the daemon: small versions of the workloads of `npm run bench`, on a real mount, as its owner and as somebody
 * to whom it was granted. A request more for each file is a slower filesystem, on any machine and under any load.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t from 'tap'
import { budgeted, excess, placesOf, readBudgets } from '../../bench/budgets.ts'
import { Inputs } from '../../bench/inputs.ts'
import { NexusMount } from '../../bench/places.ts'
import { Runner } from '../../bench/runner.ts'
import { missingFor } from '../../bench/workload.ts'
import { noMount } from './harness.ts'

const ROUNDS_MAX = 3

t.test('no workload costs more requests than its budget', { skip: noMount ?? false }, async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-test-'))
  fs.chmodSync(directory, 0o755)
  const nexus = await NexusMount.start(directory)
  t.teardown(async () => {
    await nexus.stop()
    fs.rmSync(directory, { recursive: true, force: true })
  })
  fs.mkdirSync(path.join(directory, 'inputs'))
  const runner = new Runner(new Inputs(path.join(directory, 'inputs')), directory, 'budget')
  const budgets = readBudgets()
  for (const workload of budgeted()) {
    t.same(missingFor(workload), [], `${workload.name}: all programs are installed`)
    for (const place of placesOf(workload, nexus.places())) {
      // The kernel may drop any cache at any moment, if others need the memory: but not each time.
      let more: string[] = ['']
      for (let round = 0; round < ROUNDS_MAX && more.length > 0; round++)
        more = excess(await runner.measure(workload, place, round), budgets[workload.name], runner.sizeOf(workload))
      t.same(more, [], `${workload.name}, ${place.name}`)
    }
    for (const place of nexus.places()) await runner.clean(place)
  }
})

t.test('what is more than a budget is named by its operation', async (t) => {
  const sample = { value: 0, requests: new Map(Object.entries({ LOOKUP: 1000, WRITE: 100, FORGET: 9000 })) }
  t.same(excess(sample, { LOOKUP: 1, WRITE: 1 }, 100), ['LOOKUP: 10.000 for each of 100, the budget is 1'])
  t.same(excess(sample, { LOOKUP: 10 }, 100), ['WRITE: 1.000 for each of 100, the budget is 0'])
  t.same(excess(sample, { LOOKUP: 10, WRITE: 1 }, 100), [])
  t.equal(excess(sample, undefined, 100).length, 1, 'a workload without a budget is one too many')
})
