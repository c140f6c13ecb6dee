/**
 * Loss of power, systematically: short sequences of operations on a small store, and after each write, sync and batch every state
 * that the disk could be left in. What a start finds is exactly the state after one of the operations, none that an fsync had
 * passed is lost, and fsck finds nothing. Pairs of operations are in power-pairs.test.ts.
 */
import fc from 'fast-check'
import t from 'tap'
import { dataFor } from './pair.ts'
import { quick, thorough } from './powerdisk.ts'
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

t.test('a collection, and an operation begun at one of its pauses', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const beside = async (name: string, pauses: number): Promise<boolean> => {
    let wasBegun = false
    const work = async (run: Run): Promise<void> => {
      wasBegun = await run.collectBeside(name, pauses)
    }
    await explorer.exploreRun(work, quick, `collect, and ${name} after ${pauses} pauses`)
    return wasBegun
  }
  // A checkpoint stored where content was being moved to before that was on the disk.
  let pauses = 0
  while (await beside('checkpoint', pauses)) pauses++
  const picked = fc.sample(fc.tuple(fc.constantFrom(...names), fc.nat(pauses - 1)), { seed: 1, numRuns: Math.ceil(RUNS / 4) })
  for (const [name, after] of picked) await beside(name, after)
  t.comment(`${pauses} pauses, ${explorer.figures}`)
  t.ok(pauses > 20)
})
