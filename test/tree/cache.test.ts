/** The cache of nodes: what is asked for again and again stays, whatever was there before. */
import fc from 'fast-check'
import t from 'tap'
import type { Address } from '../../src/cas/address.ts'
import { NodeCache } from '../../src/tree/cache.ts'
import { editTree } from '../../src/tree/edit.ts'
import { MemoryStore, smallShape } from './support.ts'

/** A store with so many nodes and more, which no cache has seen. */
function filled(count: number): { store: MemoryStore; addresses: Address[] } {
  const store = new MemoryStore()
  const edits = Array.from({ length: count * 8 }, (_, i) => ({
    key: Buffer.from(String(i).padStart(8, '0')),
    value: Buffer.alloc(20, i),
  }))
  const work = editTree(new NodeCache(store, 1), smallShape, null, edits)
  while (work.next().done !== true);
  return { store, addresses: [...store.nodes.keys()] }
}

/** Room for so many of these nodes, or a few more. */
const ROOM = 50 * 600
const WORKING_SET = 20

t.test('what is used all the time is kept after everything else went through', async (t) => {
  const { store, addresses } = filled(400)
  t.ok(addresses.length > 400)
  for (const passes of [0, 1, 2, 3]) {
    const cache = new NodeCache(store, ROOM)
    for (let pass = 0; pass < passes; pass++) for (const address of addresses) cache.load(address)
    const used = addresses.slice(100, 100 + WORKING_SET)
    for (let round = 0; round < 3; round++) for (const address of used) cache.load(address)
    store.resetCounts()
    for (let round = 0; round < 100; round++) for (const address of used) cache.load(address)
    t.equal(store.reads, 0, `after ${passes} passes through all`)
  }
})

t.test('who turns to other nodes, when all that are kept were in use, has those kept', async (t) => {
  const { store, addresses } = filled(400)
  for (const before of [10, 30, 50, 100, 200]) {
    const cache = new NodeCache(store, ROOM)
    const work = (used: readonly Address[]): void => {
      for (let round = 0; round < 3; round++) for (const address of used) cache.load(address)
    }
    // As many as fit, and each of them twice and more.
    for (const address of addresses.slice(0, before)) for (let use = 0; use < 3; use++) cache.load(address)
    work(addresses.slice(0, before))
    const used = addresses.slice(300, 300 + WORKING_SET)
    work(used)
    store.resetCounts()
    work(used)
    t.equal(store.reads, 0, `after ${before} others`)
  }
})

t.test('a node that is used between others that are not is found nearly always', async (t) => {
  const { store, addresses } = filled(400)
  const cache = new NodeCache(store, ROOM)
  const [often = '' as Address, ...others] = addresses
  let reads = 0
  for (const address of [...others, ...others, ...others]) {
    cache.load(address)
    store.resetCounts()
    cache.load(often)
    reads += store.reads
  }
  t.ok(reads <= 1, `${reads} times not in ${3 * others.length}`)
})

t.test('it never holds more than it may, and always gives what was stored', async (t) => {
  const { store, addresses } = filled(60)
  const runs = fc.property(
    fc.array(fc.nat(addresses.length - 1), { maxLength: 500 }),
    fc.integer({ min: 1, max: ROOM }),
    (asked, room) => {
      const cache = new NodeCache(store, room)
      for (const index of asked) {
        const address = addresses[index] as Address
        if (!cache.load(address).bytes.equals(store.nodes.get(address) as Buffer)) throw new Error('another node')
      }
      const { hits, misses } = cache.use
      if (hits + misses !== asked.length) throw new Error('not all were counted')
      return true
    },
  )
  fc.assert(runs, { numRuns: 100 })
  t.pass()
})
