/** What a diff reads, and diffs of trees that have little in common. The model test checks what it finds. */
import t from 'tap'
import { Tree } from '../../src/tree/tree.ts'
import { bytesOf, edit, MemoryStore, numberedEdits, numberedKey, numberedValue, smallShape } from './support.ts'

const count = 100_000

t.test('the diff of one change among many reads few nodes', async (t) => {
  const store = new MemoryStore()
  const tree = new Tree(store, { cacheBytesMax: 1 << 26 })
  const root = tree.editNow(null, numberedEdits(count))
  for (const n of [0, 1, 777, 50_000, count - 1]) {
    for (const value of [null, numberedValue(n, 1)]) {
      const changed = tree.editNow(root, [{ key: numberedKey(n), value }])
      const cold = new Tree(store, { cacheBytesMax: 1 << 24 })
      store.resetCounts()
      const before = numberedValue(n)
      t.same([...cold.diff(root, changed)], [{ key: numberedKey(n), before, after: value ?? undefined }])
      t.ok(store.reads < 20, `${store.reads} reads`)
    }
  }
})

t.test('a bounded diff does not read differences elsewhere', async (t) => {
  const store = new MemoryStore()
  const tree = new Tree(store, { cacheBytesMax: 1 << 26 })
  const root = tree.editNow(null, numberedEdits(count))
  const everySecond = Array.from({ length: count / 2 }, (_, n) => ({ key: numberedKey(2 * n), value: null }))
  const changed = tree.editNow(root, everySecond)
  const cold = new Tree(store, { cacheBytesMax: 1 << 24 })
  store.resetCounts()
  const found = [...cold.diff(root, changed, numberedKey(50_001), numberedKey(50_006))]
  t.same(
    found.map(({ key }) => key),
    [numberedKey(50_002), numberedKey(50_004)],
  )
  t.ok(store.reads < 12, `${store.reads} reads`)
})

t.test('trees of different height', async (t) => {
  const tree = new Tree(new MemoryStore(), { cacheBytesMax: 1 << 20, shape: smallShape })
  const tall = tree.editNow(null, numberedEdits(500))
  const flat = tree.editNow(null, [edit('zzz', '1')])
  t.equal([...tree.diff(tall, flat)].length, 501)
  t.equal([...tree.diff(flat, tall)].length, 501)
  t.equal([...tree.diff(null, tall)].length, 500)
  t.equal([...tree.diff(tall, null)].length, 500)
  t.same([...tree.diff(tall, tall)], [])
  t.same([...tree.diff(null, null)], [])
  t.same([...tree.diff(null, flat, bytesOf('zzzz'))], [])
  t.same([...tree.diff(null, flat, bytesOf('a'), bytesOf('zzz'))], [])
})
