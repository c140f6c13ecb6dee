/** Visiting all nodes: once each, sharing respected, leaves read only when needed. */
import t from 'tap'
import type { Address } from '../../src/cas/address.ts'
import { Tree } from '../../src/tree/tree.ts'
import { MemoryStore, numberedEdits, numberedKey } from './support.ts'

const store = new MemoryStore()
const tree = new Tree(store, { cacheBytesMax: 1 << 26 })
const root = tree.editNow(null, numberedEdits(20_000))
const { nodes } = tree.verify(root)

function run(work: Generator<void, void>): number {
  let yields = 0
  while (!work.next().done) yields++
  return yields
}

/** Says false the first time that it is asked for an address. */
function recorder() {
  const asked: Address[] = []
  const seen = new Set<Address>()
  const isSeen = (address: Address) => {
    asked.push(address)
    return seen.size === seen.add(address).size
  }
  return { asked, seen, isSeen }
}

t.test('tells every node once and every entry in order', async (t) => {
  const { asked, seen, isSeen } = recorder()
  const keys: Buffer[] = []
  const yields = run(tree.walk(root, isSeen, (key) => keys.push(key)))
  t.equal(asked.length, nodes)
  t.equal(seen.size, nodes)
  t.same(seen, new Set(store.nodes.keys()))
  t.same(
    keys,
    Array.from({ length: 20_000 }, (_, n) => numberedKey(n)),
  )
  t.ok(yields >= Math.floor(nodes / 16))
})

t.test('reads no leaf without a visitor of entries', async (t) => {
  const cold = new Tree(store, { cacheBytesMax: 0 })
  const { seen, isSeen } = recorder()
  store.resetCounts()
  run(cold.walk(root, isSeen))
  t.equal(seen.size, nodes)
  t.ok(store.reads < nodes / 20, `${store.reads} reads`)
})

t.test('passes over what was seen in another tree', async (t) => {
  const changed = tree.editNow(root, [{ key: numberedKey(7000), value: null }])
  const { asked, seen, isSeen } = recorder()
  run(tree.walk(root, isSeen))
  asked.length = 0
  const keys: Buffer[] = []
  run(tree.walk(changed, isSeen, (key) => keys.push(key)))
  t.ok(seen.size - nodes < 10)
  t.ok(keys.length < 1000)
  run(tree.walk(changed, isSeen))
  t.equal(asked.at(-1), changed)
})

t.test('has nothing to do in the empty map', async (t) => {
  const { asked, isSeen } = recorder()
  run(tree.walk(null, isSeen))
  t.same(asked, [])
})
