/**
 * Loss of power, systematically: short sequences of operations on a small store, and after each write, sync and batch every state
 * that the disk could be left in. What a start finds is exactly the state after one of the operations, none that an fsync had
 * passed is lost, and fsck finds nothing. Pairs of operations are in powerpairs.ts.
 */
import fc from 'fast-check'
import t from 'tap'
import { dataFor } from './pair.ts'
import { type Image, quick, thorough } from './powerdisk.ts'
import { type Action, Explorer, type Run } from './powerexplore.ts'
import { makeImage, OPERATIONS, SYNCS } from './powerstore.ts'

/** Sequences of three operations, and four times as many as operations beside a collection. */
const RUNS = Number(process.env['NEXUS_RUNS'] ?? 40)

const names = Object.keys(OPERATIONS)
const syncs = Object.keys(SYNCS)
const operation = fc.constantFrom(...names).map((name): Action => ({ kind: 'operation', name }))
const between = fc.oneof(
  fc.constant<Action[]>([]),
  fc.record({ kind: fc.constantFrom('sync', 'racing'), name: fc.constantFrom(...syncs) }).map((action): Action[] => [action]),
)

t.test('all sequences of one operation', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  for (const name of names)
    for (const sync of syncs)
      await explorer.explore(
        [
          { kind: 'operation', name },
          { kind: 'sync', name: sync },
        ],
        thorough,
        true,
      )
  t.comment(explorer.figures)
  t.equal(explorer.counts.sequences, names.length * syncs.length)
})

t.test('sequences of three operations', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const plans = fc.sample(fc.tuple(operation, between, operation, between, operation, between), { seed: 1, numRuns: RUNS })
  for (const plan of plans) await explorer.explore(plan.flat(), quick, false)
  t.comment(explorer.figures)
  t.equal(explorer.counts.sequences, RUNS)
})

async function besideCollection(explorer: Explorer, name: string, pauses: number): Promise<boolean> {
  let wasBegun = false
  const work = async (run: Run): Promise<void> => {
    wasBegun = await run.collectBeside(name, pauses)
  }
  await explorer.exploreRun(work, quick, `collect, and ${name} after ${pauses} pauses`)
  return wasBegun
}

t.test('a checkpoint beside a collection, begun at each of its pauses, does not lead to what is not stored yet', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  let pauses = 0
  while (await besideCollection(explorer, 'checkpoint', pauses)) pauses++
  t.comment(`${pauses} pauses, ${explorer.figures}`)
  t.ok(pauses > 20)
})

t.test('a collection, and any operation begun at one of its pauses', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const picks = fc.sample(fc.tuple(fc.constantFrom(...names), fc.nat(40)), { seed: 1, numRuns: Math.ceil(RUNS / 4) })
  for (const [name, pauses] of picks) await besideCollection(explorer, name, pauses)
  t.comment(explorer.figures)
  t.equal(explorer.counts.sequences, picks.length)
})

t.test('power that is lost again while a start cleans up, and behind it', async (t) => {
  const data = dataFor(t)
  const first = new Explorer(data, await makeImage(data))
  const plan: Action[] = ['collect', 'append', 'snapshot', 'unlink'].map((name) => ({ kind: 'operation', name }))
  await first.explore(plan, thorough, true)
  const step = Math.max(1, Math.floor(first.unclean.length / RUNS))
  let [starts, states] = [0, 0]
  for (let i = 0; i < first.unclean.length; i += step) {
    const again = new Explorer(data, first.unclean[i] as Image)
    const then: Action[] = [
      { kind: 'operation', name: 'mkdir' },
      { kind: 'sync', name: 'fsync' },
    ]
    await again.explore(then, quick, true)
    starts++
    states += again.counts.distinct
  }
  t.comment(`${starts} starts of ${first.unclean.length} that have something to clean up, ${states} states`)
  t.ok(starts >= Math.min(RUNS, first.unclean.length))
})
