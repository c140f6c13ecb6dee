/** The edges of editing, one by one, and what an edit costs. */
import t from 'tap'
import { standardShape } from '../../src/tree/chunker.ts'
import { type Edit, Tree } from '../../src/tree/tree.ts'
import {
  applyToModel,
  bytesOf,
  edit,
  entriesOf,
  MemoryStore,
  type Model,
  numberedEdits,
  numberedKey,
  numberedValue,
  rootFromScratch,
  scanToStrings,
  smallShape,
} from './support.ts'

const name = (n: number) => `key${String(n).padStart(5, '0')}`
const thousand = Array.from({ length: 1000 }, (_, n) => edit(name(n), `value ${n}`))
const deletions = (from: number, to: number) => thousand.slice(from, to).map(({ key }): Edit => ({ key, value: null }))

function newTree(shape = smallShape) {
  const store = new MemoryStore()
  return { store, tree: new Tree(store, { cacheBytesMax: 1 << 26, shape }) }
}

const cases: { name: string; before: Edit[]; edits: Edit[] }[] = [
  { name: 'the empty map becomes one of one entry', before: [], edits: [edit('a', '1')] },
  { name: 'the empty map becomes a tall tree', before: [], edits: thousand },
  { name: 'an empty key and an empty value are as good as any', before: thousand, edits: [edit('', '')] },
  { name: 'a key before the first', before: thousand, edits: [edit('a', 'first')] },
  { name: 'a key after the last', before: thousand, edits: [edit('z', 'last')] },
  { name: 'many keys before the first', before: thousand.slice(500), edits: thousand.slice(0, 500) },
  { name: 'many keys after the last', before: thousand.slice(0, 500), edits: thousand.slice(500) },
  { name: 'only the first key is left', before: thousand, edits: deletions(1, 1000) },
  { name: 'only the last key is left', before: thousand, edits: deletions(0, 999) },
  { name: 'one key in the middle is left', before: thousand, edits: [...deletions(0, 500), ...deletions(501, 1000)] },
  { name: 'the first half goes', before: thousand, edits: deletions(0, 500) },
  { name: 'the second half goes', before: thousand, edits: deletions(500, 1000) },
  { name: 'everything is replaced', before: thousand.slice(0, 500), edits: [...deletions(0, 500), ...thousand.slice(500)] },
  { name: 'a value larger than a node', before: thousand, edits: [edit(name(500), 'x'.repeat(65536))] },
  {
    name: 'values larger than a node side by side',
    before: thousand,
    edits: [edit(name(1), 'x'.repeat(65536)), edit(name(2), 'y'.repeat(400)), edit(name(3), 'z'.repeat(65536))],
  },
  { name: 'deleting what is not there', before: thousand, edits: [edit('a', null), edit('key00500x', null), edit('z', null)] },
  { name: 'deleting from the empty map', before: [], edits: [edit('a', null)] },
]

for (const { name, before, edits } of cases) {
  t.test(name, async (t) => {
    const { tree } = newTree()
    const model: Model = applyToModel(applyToModel(new Map(), before), edits)
    const root = tree.editNow(tree.editNow(null, before), edits)
    t.same(scanToStrings(tree, root), entriesOf(model))
    t.equal(root, rootFromScratch(model, smallShape))
    t.equal(tree.verify(root).entries, model.size)
  })
}

t.test('every key alone can be deleted, replaced by a longer value, and put back', async (t) => {
  const { tree } = newTree()
  const root = tree.editNow(null, thousand)
  const model = applyToModel(new Map(), thousand)
  for (const { key, value } of thousand.slice(0, 300)) {
    for (const other of [null, Buffer.alloc(290, 'x')]) {
      const edits = [{ key, value: other }]
      const changed = tree.editNow(root, edits)
      if (changed !== rootFromScratch(applyToModel(model, edits), smallShape)) t.fail(`after ${key} got ${other}`)
      if (tree.editNow(changed, [{ key, value }]) !== root) t.fail(`putting back ${key}`)
    }
  }
})

t.test('a map from which all is deleted has no root', async (t) => {
  const { tree } = newTree()
  t.equal(tree.editNow(tree.editNow(null, thousand), deletions(0, 1000)), null)
  t.same(tree.verify(null), { entries: 0, nodes: 0, height: 0 })
  t.equal(tree.get(null, bytesOf('a')), undefined)
  t.same([...tree.scan(null, bytesOf(''))], [])
})

t.test('an edit that changes nothing keeps the root and stores no node', async (t) => {
  const { tree, store } = newTree()
  const root = tree.editNow(null, thousand)
  const half = thousand.filter((_, n) => n % 2 === 0)
  store.resetCounts()
  for (const edits of [[], [edit(name(7), 'value 7')], thousand, half, [edit('a', null)]]) {
    t.equal(tree.editNow(root, edits), root)
  }
  t.equal(store.puts, 0)
})

t.test('keys longer than a node still make a tree that ends', async (t) => {
  const { tree } = newTree()
  const edits = Array.from({ length: 50 }, (_, n) => edit(name(n).padEnd(1000, '.'), 'v'))
  t.same(tree.verify(tree.editNow(null, edits)).entries, 50)
})

t.test('edits out of order are refused', async (t) => {
  const { tree } = newTree()
  t.throws(() => tree.editNow(null, [edit('b', '1'), edit('a', '1')]), { code: 'NEXUS_INTERNAL' })
  t.throws(() => tree.editNow(null, [edit('a', '1'), edit('a', '2')]), { code: 'NEXUS_INTERNAL' })
  t.throws(() => tree.editNow(null, [edit('a'.repeat(65536), '1')]), { code: 'NEXUS_INTERNAL' })
})

t.test('editing yields often, and the old tree can be read and edited meanwhile', async (t) => {
  const { tree } = newTree()
  const root = tree.editNow(null, thousand)
  const work = tree.edit(root, numberedEdits(10_000))
  let yields = 0
  let step = work.next()
  for (; !step.done; step = work.next()) {
    yields++
    t.equal(tree.editNow(root, [edit('a', '1'), edit('b', null)]) === root, false)
    if (yields > 20) break
  }
  for (; !step.done; step = work.next()) yields++
  t.ok(yields > 10_000 / 256)
  t.equal(step.value, tree.editNow(root, numberedEdits(10_000)))
})

t.test('in a large tree', async (t) => {
  const { tree, store } = newTree(standardShape)
  const count = 1_000_000
  const root = tree.editNow(null, numberedEdits(count))
  const { nodes, height, entries } = tree.verify(root)

  t.test('nodes have the sizes that were meant', async (t) => {
    t.equal(entries, count)
    const bytes = [...store.nodes.values()].map((node) => node.length)
    t.ok(Math.max(...bytes) <= standardShape.bytesMax)
    const mean = bytes.reduce((sum, each) => sum + each) / nodes
    t.ok(mean > 6000 && mean < 8500, `mean ${mean}`)
  })

  t.test('editing one key stores few nodes more than the tree has levels', async (t) => {
    let puts = 0
    for (let n = 0; n < 100; n++) {
      const at = (n * 7919) % count
      store.resetCounts()
      const edits = [{ key: numberedKey(at), value: n % 3 === 0 ? null : numberedValue(at, 1) }]
      const changed = tree.editNow(root, edits)
      puts += store.puts
      t.ok(store.puts <= height + 25)
      t.not(changed, root)
    }
    t.ok(puts / 100 < height + 2, `${puts / 100} nodes a change`)
  })

  t.test('a cold edit of one key reads few nodes more than the tree has levels', async (t) => {
    const cold = new Tree(store, { cacheBytesMax: 1 << 20 })
    store.resetCounts()
    cold.editNow(root, [{ key: numberedKey(500_000), value: numberedValue(500_000, 1) }])
    t.ok(store.reads < height + 25, `${store.reads} reads`)
  })
})
