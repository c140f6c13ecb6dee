/**
 * Loss of power, systematically: short sequences of operations on a small store, and after each write, sync and batch every state
 * that the disk could be left in. What a start finds is exactly the state after one of the operations, none that an fsync had
 * passed is lost, and fsck finds nothing.
 */
import t from 'tap'
import { dataFor } from './pair.ts'
import type { Thoroughness } from './powerdisk.ts'
import { type Action, Explorer, type Run } from './powerexplore.ts'
import { makeImage, OPERATIONS, SYNCS } from './powerstore.ts'

const SECTOR = 512
/** of a record's header */
const HEADER = 56

const names = Object.keys(OPERATIONS)
const syncs = Object.keys(SYNCS)

/** At every sector, in the header, behind it, and before the last byte. */
function* someCuts(bytes: number): Generator<number> {
  for (let at = SECTOR; at < bytes; at += SECTOR) yield at
  for (const at of [20, HEADER, HEADER + 10, bytes - 1]) if (at > 0 && at < bytes) yield at
}

const thorough: Thoroughness = { cuts: someCuts, subsets: 6 }
const quick: Thoroughness = { cuts: (bytes) => (bytes > SECTOR ? [SECTOR, bytes - 1] : [bytes - 1]), subsets: 4 }

const operation = (name: string): Action => ({ kind: 'operation', name })
const sync = (name: string): Action => ({ kind: 'sync', name })

t.test('all sequences of one operation', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const start = performance.now()
  for (const name of names) for (const kind of syncs) await explorer.explore([operation(name), sync(kind)], thorough, true)
  t.comment(`${JSON.stringify(explorer.counts)} ${Math.round(performance.now() - start)} ms`)
  t.ok(explorer.counts.distinct > 1000)
})

t.test('all sequences of two operations', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const start = performance.now()
  let turn = 0
  for (const first of names) {
    for (const second of names) {
      const kind = syncs[turn++ % syncs.length] as string
      for (const between of [[], [sync(kind)], [{ kind: 'racing', name: kind } as const]])
        await explorer.explore([operation(first), ...between, operation(second), sync(kind)], quick, false)
    }
  }
  t.comment(`${JSON.stringify(explorer.counts)} ${Math.round(performance.now() - start)} ms`)
  t.ok(explorer.counts.distinct > 1000)
})

t.test('a collection, and each operation begun at each of its pauses', async (t) => {
  const data = dataFor(t)
  const explorer = new Explorer(data, await makeImage(data))
  const start = performance.now()
  let most = 0
  for (const name of names) {
    let wasBegun = true
    for (let pauses = 0; wasBegun; pauses++) {
      const work = async (run: Run): Promise<void> => {
        wasBegun = await run.collectBeside(name, pauses)
      }
      await explorer.exploreRun(work, quick, `collect, and ${name} after ${pauses} pauses`)
      most = Math.max(most, pauses)
    }
  }
  t.comment(`${JSON.stringify(explorer.counts)} ${Math.round(performance.now() - start)} ms, ${most} pauses`)
})
