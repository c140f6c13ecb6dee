/** Random batches of edits against a Map: whatever the history, content and root are those of a fresh build. */
import fc from 'fast-check'
import t from 'tap'
import type { Address } from '../../src/cas/address.ts'
import { standardShape } from '../../src/tree/chunker.ts'
import { type Edit, Tree } from '../../src/tree/tree.ts'
import {
  applyToModel,
  bytesOf,
  entriesOf,
  MemoryStore,
  type Model,
  rootFromScratch,
  scanToStrings,
  smallShape,
  sortEdits,
} from './support.ts'

const hotKey = fc.integer({ min: 0, max: 400 }).map((n) => bytesOf(`hot${String(n).padStart(3, '0')}`))
const spreadKey = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
const longKey = fc
  .tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 30, max: 300 }))
  .map(([n, bytes]) => Buffer.alloc(bytes, `${n} `))
const key = fc.oneof({ weight: 6, arbitrary: hotKey }, { weight: 3, arbitrary: spreadKey }, longKey)

/** One value of few: setting what is there already is common. */
const value = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(0, 1, 5, 20, 60) },
  { weight: 1, arbitrary: fc.constantFrom(400, 3000) },
)
const change: fc.Arbitrary<Edit> = fc.record({
  key,
  value: fc.option(
    value.map((bytes) => Buffer.alloc(bytes, 'v')),
    { freq: 3 },
  ),
})
/** A range deleted whole takes leaves and their neighbours away. */
const batch = fc.record({
  changes: fc.array(change, { size: 'max', maxLength: 300 }),
  deletedRange: fc.option(fc.tuple(hotKey, hotKey), { freq: 3 }),
})
type Batch = { changes: Edit[]; deletedRange: [Buffer, Buffer] | null }

function editsOf({ changes, deletedRange }: Batch, model: Model): Edit[] {
  if (deletedRange === null) return sortEdits(changes)
  const [from, to] = deletedRange.map((bound) => bound.toString('latin1')) as [string, string]
  const doomed = [...model.keys()].filter((each) => from <= each && each < to)
  return sortEdits([...changes.slice(0, 3), ...doomed.map((each) => ({ key: bytesOf(each), value: null }))])
}

for (const [name, shape] of Object.entries({ smallShape, standardShape })) {
  t.test(`a tree of ${name} is the map that its edits make, and one that a fresh build makes`, async (t) => {
    const runs = fc.property(fc.array(batch, { minLength: 1, maxLength: 6 }), (batches) => {
      const tree = new Tree(new MemoryStore(), { cacheBytesMax: 4096, shape })
      let root: Address | null = null
      let model: Model = new Map()
      for (const each of batches) {
        const edits = editsOf(each, model)
        const next = applyToModel(model, edits)
        const nextRoot = tree.editNow(root, edits)
        check(tree, nextRoot, next, rootFromScratch(next, shape))
        checkDiff(tree, [root, model], [nextRoot, next])
        root = nextRoot
        model = next
      }
    })
    fc.assert(runs, { numRuns: 150 })
    t.pass()
  })
}

function check(tree: Tree, root: Address | null, model: Model, rootExpected: Address | null): void {
  const entries = entriesOf(model)
  equal(scanToStrings(tree, root), entries)
  equal(root, rootExpected)
  equal(tree.verify(root).entries, entries.length)
  for (const [each, expected] of entries.slice(0, 50)) equal(tree.get(root, bytesOf(each))?.toString('latin1'), expected)
  equal(tree.get(root, bytesOf('hot')), undefined)
  equal(tree.lastKey(root)?.toString('latin1'), entries.at(-1)?.[0])
  const [from, to] = ['hot100', 'hot300']
  const inRange = entries.filter(([each]) => from <= each && each < to)
  equal(scanToStrings(tree, root, from, to), inRange)
  equal(placesToStrings(tree, root, bytesOf(from), bytesOf(to)), inRange)
  equal(placesToStrings(tree, root, bytesOf('')), entries)
}

function checkDiff(tree: Tree, [a, before]: [Address | null, Model], [b, after]: [Address | null, Model]): void {
  const keys = [...new Set([...before.keys(), ...after.keys()])].sort()
  const expected = keys
    .map((each) => [each, before.get(each), after.get(each)])
    .filter(([, valueBefore, valueAfter]) => valueBefore !== valueAfter)
  equal(diffToStrings(tree, a, b), expected)
  const inRange = expected.filter(([each]) => 'hot100' <= String(each) && String(each) < 'hot300')
  equal(diffToStrings(tree, a, b, bytesOf('hot100'), bytesOf('hot300')), inRange)
}

function placesToStrings(tree: Tree, ...range: Parameters<Tree['places']>): [string, string][] {
  return Array.from(tree.places(...range), ({ bytes, key, value, end }) => [
    bytes.toString('latin1', key, value),
    bytes.toString('latin1', value, end),
  ])
}

function diffToStrings(tree: Tree, ...range: Parameters<Tree['diff']>): (string | undefined)[][] {
  return Array.from(tree.diff(...range), (each) => [
    each.key.toString('latin1'),
    each.before?.toString('latin1'),
    each.after?.toString('latin1'),
  ])
}

/** fast-check needs an exception where tap would only note a failure. */
function equal(found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`found ${a?.slice(0, 500)}, wanted ${b?.slice(0, 500)}`)
}
