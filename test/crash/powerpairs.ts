/** Loss of power: sequences of two operations, with nothing between, with an fsync, and beside one. See power.test.ts. */
import t from 'tap'
import { dataFor } from './pair.ts'
import { quick } from './powerdisk.ts'
import { type Action, Explorer } from './powerexplore.ts'
import { makeImage, OPERATIONS, SYNCS } from './powerstore.ts'

const names = Object.keys(OPERATIONS)
const syncs = Object.keys(SYNCS)

/** All that begin with an operation of this half, 0 or 1: two files, because files run beside each other. */
export function testPairs(half: number): void {
  const firsts = names.filter((_, i) => i % 2 === half)
  t.test(`all sequences of two operations that begin with ${firsts.join(', ')}`, async (t) => {
    const data = dataFor(t)
    const explorer = new Explorer(data, await makeImage(data))
    let turn = 0
    for (const first of firsts) {
      for (const second of names) {
        // All three are one call of the store: they take turns.
        const name = syncs[turn++ % syncs.length] as string
        const betweens: Action[][] = [[], [{ kind: 'sync', name }], [{ kind: 'racing', name }]]
        for (const between of betweens) {
          const plan: Action[] = [{ kind: 'operation', name: first }, ...between, { kind: 'operation', name: second }]
          await explorer.explore([...plan, { kind: 'sync', name }], quick, false)
        }
      }
    }
    t.comment(explorer.figures)
    t.equal(explorer.counts.sequences, 3 * firsts.length * names.length)
  })
}
