/** What the indexes of snapshots and workspaces answer is what a search through all of them would. */
import fc from 'fast-check'
import t from 'tap'
import { Catalog } from '../../src/volume/catalog.ts'
import type { SnapshotRecord, WorkspaceRecord } from '../../src/workspaces/records.ts'
import { SnapshotIndex, visibleName } from '../../src/workspaces/snapshotindex.ts'
import { WorkspaceIndex } from '../../src/workspaces/workspaceindex.ts'

const SMALL = 4
const ids = ['a', 'b', 'c', 'd', 'e']
const id = fc.constantFrom(...ids)

function workspaceRecord(number: number, parent_volume: number, parent: string | null = null): WorkspaceRecord {
  const rest = { parent_ino: 1, name: `w${number}`, domain: 0, created_at: '2026-01-01T00:00:00.000Z', metadata: {} }
  return { number, parent_volume, parent, ...rest }
}

const snapshot: fc.Arbitrary<SnapshotRecord> = fc
  .record({
    id,
    // A name may look like another's id, and be more than latin1 has.
    name: fc.option(fc.constantFrom('a', 'b', 'x', 'é'), { nil: null }),
    workspace: fc.nat(1),
    parent: fc.option(id, { nil: null }),
    inner: fc.option(id, { nil: null }),
  })
  .map(({ inner, ...own }) => ({
    ...own,
    ...{ ino: 1, path: '/', created_at: '', root: null, domain: 0, ino_next: 0, view: 1, files: 0, bytes: 0, metadata: {} },
    automatic: false,
    nested: inner === null ? [] : [{ record: workspaceRecord(9, 1, inner), root: null, ino_next: 0, view: 2 }],
  }))

const change = fc.oneof(
  snapshot.map((put) => ({ put, remove: undefined })),
  id.map((remove) => ({ put: undefined, remove })),
)

function same(found: unknown, wanted: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`)
}

function byId(records: Iterable<SnapshotRecord>): SnapshotRecord[] {
  return [...records].sort((a, b) => (a.id < b.id ? -1 : 1))
}

t.test('snapshots', async (t) => {
  const runs = fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
    const index = new SnapshotIndex()
    const model = new Map<string, SnapshotRecord>()
    for (const { put, remove } of changes) {
      const before = put && model.get(put.id)
      // A snapshot is of one workspace for as long as there is one.
      const record = put && { ...put, workspace: before?.workspace ?? put.workspace }
      const revision = index.revision
      if (record !== undefined) {
        index.put(record)
        model.set(record.id, record)
      } else if (remove !== undefined) {
        index.delete(remove)
        if (model.delete(remove) && index.revision === revision) throw new Error('nobody is told')
      }
      const all = byId(model.values())
      same(byId(index.all()), all)
      same(index.size, all.length)
      for (const workspace of [0, 1]) {
        const own = all.filter((one) => one.workspace === workspace)
        same([...index.of(workspace)], own)
        same(index.countOf(workspace), own.length)
        for (const name of ['a', 'b', 'c', 'x', 'é', 'Ã©']) {
          same(
            index.named(workspace, name),
            own.find((one) => visibleName(one) === name),
          )
          same(
            index.isNameTaken(workspace, name),
            own.some((one) => one.name === name),
          )
        }
      }
      for (const parent of ids) {
        const heirs = all.filter((one) => one.parent === parent || one.nested.some((inner) => inner.record.parent === parent))
        same(byId(index.heirsOf(parent)), heirs)
      }
    }
  })
  fc.assert(runs, { numRuns: 300 })
  t.pass()
})

t.test('workspaces', async (t) => {
  const row = fc.record({ number: fc.nat(SMALL), around: fc.nat(SMALL), isGone: fc.boolean() })
  const runs = fc.property(fc.array(row, { maxLength: 20 }), fc.array(row, { maxLength: 20 }), (first, then) => {
    const catalog = new Catalog()
    const model = new Map<number, WorkspaceRecord>()
    const apply = ({ number, around, isGone }: { number: number; around: number; isGone: boolean }): void => {
      const record = workspaceRecord(number, around)
      if (isGone) model.delete(number)
      else model.set(number, record)
      catalog.apply(`w/${number}`, isGone ? null : JSON.stringify(record))
    }
    for (const one of first) apply(one)
    const index = new WorkspaceIndex(catalog)
    for (const one of then) apply(one)
    const sorted = (records: Iterable<WorkspaceRecord>): number[] => [...records].map(({ number }) => number).sort()
    same(sorted(index.all()), [...model.keys()].sort())
    same(index.size, model.size)
    for (let number = 0; number <= SMALL; number++) {
      same(index.get(`w/${number}`)?.parent_volume, model.get(number)?.parent_volume)
      const inside = [...model.values()].filter((one) => one.number !== 0 && one.parent_volume === number)
      same(sorted(index.directlyIn(number)), sorted(inside))
    }
  })
  fc.assert(runs, { numRuns: 300 })
  t.pass()
})
