/** Every kind of wrong is found, where it is, and nothing else. */
import t from 'tap'
import { toHex } from '../../src/cas/address.ts'
import { rows } from './rows.ts'
import { sampleFor } from './support.ts'

t.test('a store with a bit of everything is clean', async (t) => {
  const sample = await sampleFor(t)
  const checked = await sample.engine.check()
  t.strictSame(checked.findings, [])
  t.ok(checked.inodes >= 12)
  t.ok(checked.chunks >= 4)
})

for (const { name, make, want } of rows) {
  t.test(name, async (t) => {
    const sample = await sampleFor(t)
    await sample.engine.volumes.checkpoint()
    await sample.wrong(...make(sample))
    const found = await sample.findings()
    t.strictSame(
      found.map(({ kind, path }) => [kind, path]),
      want,
      JSON.stringify(found),
    )
    for (const { live, workspace } of found) t.ok(live && workspace === '/workspace/a')
  })
}

t.test('a root that is held by a snapshot too is said so', async (t) => {
  const sample = await sampleFor(t)
  await sample.engine.volumes.checkpoint()
  await sample.wrong(sample.attrEdit('f', { nlink: 3 }))
  const { snapshot_id } = await sample.test.service.snapshotCreate('/workspace/a', {})
  const [found] = await sample.findings()
  t.match(found, { kind: 'links', live: true, snapshots: [snapshot_id] })
  await sample.wrong(sample.attrEdit('f', { nlink: 2 }))
  const [later] = await sample.findings()
  t.match(later, { kind: 'links', live: false, snapshots: [snapshot_id] })
})

t.test('nodes that are not as their content makes them', async (t) => {
  const sample = await sampleFor(t)
  const { volumes } = sample.engine
  await volumes.checkpoint()
  const entries = [...volumes.tree.scan(sample.volume.root, Buffer.alloc(0))]
  const halves = [entries.slice(0, 9), entries.slice(9)].map((half) =>
    nodeOf(
      0,
      half.map(([key, value]) => [key, value]),
    ),
  )
  const addresses = halves.map((bytes) => volumes.content.put(bytes))
  const firsts = [entries[0], entries[9]].map((entry) => (entry as [Buffer, Buffer])[0])
  const root = volumes.content.put(
    nodeOf(
      1,
      firsts.map((key, i) => [key, Buffer.from(addresses[i] as string, 'latin1')]),
    ),
  )
  sample.setRoot(root)
  const found = await sample.findings()
  t.strictSame(
    found.map(({ kind, severity }) => [kind, severity]),
    [['tree', 'error']],
  )
  t.match(found[0]?.text, toHex(addresses[0] as never))
})

/** A node of these entries, whatever its size should be. */
function nodeOf(level: number, entries: [Buffer, Buffer][]): Buffer {
  const bodies = entries.map(([key, value]) => {
    const head = Buffer.alloc(2)
    head.writeUInt16LE(key.length)
    return Buffer.concat([head, key, value])
  })
  const head = Buffer.alloc(8 + 4 * entries.length)
  head.write('nt')
  head[2] = 1
  head[3] = level
  head.writeUInt32LE(entries.length, 4)
  let end = head.length
  bodies.forEach((body, i) => {
    end += body.length
    head.writeUInt32LE(end, 8 + 4 * i)
  })
  return Buffer.concat([head, ...bodies])
}

t.test('the catalog against the trees', async (t) => {
  const sample = await sampleFor(t)
  const { engine, test } = sample
  const { volumes, registry } = engine
  const kinds = async (): Promise<string[]> => (await sample.findings()).map(({ kind, text }) => `${kind} ${text}`).sort()
  const record = registry.workspace(sample.volume.number)
  if (record === undefined) throw new Error('no record')

  volumes.commit([registry.storeWorkspace({ ...record, name: 'moved' })])
  t.match(await kinds(), [/^entry .*recorded to lie elsewhere/, /^workspace .*no entry/])
  volumes.commit([registry.storeWorkspace({ ...record, parent: 'snap_gone' })])
  t.match(await kinds(), [/^workspace .*descends from snapshot snap_gone/])
  volumes.commit([registry.storeWorkspace({ ...record, domain: 12 })])
  t.match(await kinds(), [/^workspace .*is of domain 12/])
  volumes.commit([registry.storeWorkspace({ ...record, number: 800, name: 'nowhere' })])
  volumes.commit([registry.storeWorkspace(record)])
  t.match(await kinds(), [/^workspace workspace 800 has no entry/, /^workspace workspace 800 has no volume/])
  volumes.commit([{ kind: 'catalog', key: 'w/800', value: null }])
  volumes.commit([{ kind: 'root', volume: 801, root: null, domain: 0, inoNext: 0 }])
  t.match(await kinds(), [/^attributes there is no root/, /^workspace volume 801 belongs to no workspace/])
  volumes.commit([{ kind: 'unvolume', volume: 801 }])
  const grant = 't/900/1 editor user:alice'
  volumes.commit([{ kind: 'catalog', key: grant, value: '{"created_at":"2026-01-01T00:00:00.000Z","expires_at":null}' }])
  t.match(await kinds(), [/^grant .*workspace 900/])
  volumes.commit([{ kind: 'catalog', key: grant, value: null }])
  t.strictSame(await kinds(), [])

  await test.service.snapshotCreate('/workspace/a', { name: 'one' })
  const [taken] = registry.snapshotsOf(sample.volume.number)
  if (taken === undefined) throw new Error('no snapshot')
  const wrongs: [object, RegExp][] = [
    [{ ino: 4000 }, /^snapshot .*is of directory 4000/],
    [{ view: sample.volume.number }, /^snapshot .*seen under the number/],
    [{ parent: 'snap_gone' }, /^snapshot .*descends from/],
    [{ root: 'ab'.repeat(32) }, /^node tree node abab/],
  ]
  for (const [patch, want] of wrongs) {
    volumes.commit([registry.storeSnapshot({ ...taken, ...patch })])
    t.match(await kinds(), [want])
  }
  volumes.commit([{ kind: 'catalog', key: `s/${taken.id}`, value: 'not JSON' }])
  t.match(await kinds(), [/^snapshot .*damaged/, /^workspace .*descends/])
  volumes.commit([registry.storeSnapshot(taken)])
  t.strictSame(await kinds(), [])
})
