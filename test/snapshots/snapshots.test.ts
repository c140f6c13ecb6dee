/** What records of snapshots and workspaces say, and what a restore costs, without a mount. */
import t from 'tap'
import type { Address } from '../../src/cas/address.ts'
import { caller, engineFor } from './support.ts'

const A = '/workspace/a'

t.test('equal contents have equal roots', async (t) => {
  const one = await engineFor(t)
  const { service } = one
  const empty = await service.snapshotCreate(A, {})
  one.write(`${A}/f`, 'text')
  const full = await service.snapshotCreate(A, {})
  t.not(full.root, empty.root)
  t.equal((await service.snapshotCreate(A, {})).root, full.root)
  one.write(`${A}/f`, 'other')
  await service.restore(A, full.snapshot_id, {})
  t.equal((await service.snapshotCreate(A, {})).root, full.root, 'after a restore')
  await service.fork(A, '/workspace/b', {})
  t.equal((await service.snapshotCreate('/workspace/b', {})).root, full.root, 'of a fork')
  await service.checkpoint()
  t.equal((await service.snapshotCreate(A, {})).root, full.root, 'after a checkpoint')
})

t.test('ids, prefixes and names', async (t) => {
  const { service } = await engineFor(t)
  const first = await service.snapshotCreate(A, { name: 'one' })
  const second = await service.snapshotCreate(A, { name: first.snapshot_id.toLowerCase() })
  const end = [...first.snapshot_id].findIndex((letter, i) => letter !== second.snapshot_id[i]) + 1
  t.equal(
    (await service.snapshotShow(A, first.snapshot_id.slice(0, end))).snapshot_id,
    first.snapshot_id,
    'the shortest unique prefix',
  )
  await t.rejects(service.snapshotShow(A, first.snapshot_id.slice(0, end - 1)), { code: 'NEXUS_AMBIGUOUS' })
  await t.rejects(service.snapshotShow(A, ''), { code: 'NEXUS_NOT_FOUND' })
  await t.rejects(service.snapshotShow(A, 'on'), { code: 'NEXUS_NOT_FOUND' }, 'a name is not cut short')
  t.equal((await service.snapshotShow(A, first.snapshot_id.toLowerCase())).snapshot_id, second.snapshot_id, 'a name like an id')
  const both = await Promise.allSettled([service.snapshotCreate(A, { name: 'x' }), service.snapshotCreate(A, { name: 'x' })])
  t.same(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], 'of two at once, one has the name')
})

t.test('parents', async (t) => {
  const one = await engineFor(t)
  const { service } = one
  const first = await service.snapshotCreate(A, { name: 'first' })
  const second = await service.snapshotCreate(A, { name: 'second' })
  const restored = await service.restore(A, 'first', {})
  const parents = async (path: string) =>
    (await service.snapshotList(path)).map(({ snapshot_id, parent }) => [snapshot_id, parent])
  const third = await service.snapshotCreate(A, { name: 'third' })
  t.same(await parents(A), [
    [first.snapshot_id, null],
    [second.snapshot_id, first.snapshot_id],
    [restored.undo, second.snapshot_id],
    [third.snapshot_id, first.snapshot_id],
  ])
  t.same((await service.snapshotShow(A, restored.undo ?? '')).automatic, true)
  await service.fork(A, '/workspace/b', { snapshot: 'second' })
  const forked = await service.snapshotCreate('/workspace/b', {})
  t.equal(forked.parent, second.snapshot_id)
  await service.snapshotDelete(A, 'second')
  t.same(await parents('/workspace/b'), [[forked.snapshot_id, first.snapshot_id]], 'also in a fork')
  await service.workspaceDelete(A)
  t.same(await parents('/workspace/b'), [[forked.snapshot_id, null]])
  t.equal((await service.workspaceShow('/workspace/b')).parent, forked.snapshot_id)
})

t.test('snapshots go with the workspaces that nothing can bring back', async (t) => {
  const { service, engine } = await engineFor(t)
  await service.workspaceCreate(`${A}/sub`, {})
  await service.snapshotCreate(`${A}/sub`, { name: 'of-sub' })
  const all = await service.snapshotCreate(A, { name: 'all' })
  await service.snapshotDelete(A, 'all')
  t.equal((await service.snapshotList(`${A}/sub`)).length, 1, 'it is there itself')
  const bare = await service.snapshotCreate(A, { name: 'with' })
  t.ok(all.snapshot_id < bare.snapshot_id)
  await service.workspaceCreate('/workspace/empty', {})
  await service.workspaceDelete('/workspace/empty')
  await service.workspaceDelete(`${A}/sub`)
  t.same((await service.snapshotList(A)).length, 1)
  await service.restore(A, 'with', {})
  t.equal((await service.workspaceShow(`${A}/sub`)).path, `${A}/sub`)
  await service.snapshotCreate(`${A}/sub`, { name: 'again' })
  await service.workspaceDelete(A)
  t.equal(engine.registry.snapshotCount, 0)

  await service.workspaceCreate(A, {})
  await service.snapshotCreate(A, { name: 'without' })
  await service.workspaceCreate(`${A}/sub`, {})
  await service.snapshotCreate(`${A}/sub`, { name: 'of-sub' })
  const { undo } = await service.restore(A, 'without', {})
  t.equal(engine.registry.snapshotCount, 3)
  await service.snapshotDelete(A, undo ?? '')
  t.equal(engine.registry.snapshotCount, 1, 'the undo was all that could bring it back')
})

t.test('the kernel is told what changed, as far as it may know, and nothing else', async (t) => {
  const one = await engineFor(t)
  const { service, engine, kernel } = one
  for (let i = 0; i < 500; i++) one.mkdir(`${A}/d${i}`)
  for (let i = 0; i < 500; i++) one.write(`${A}/d${i}/f`, 'x')
  const [known, forgotten] = [one.stat(`${A}/d7/f`), one.stat(`${A}/d8/f`)]
  await service.snapshotCreate(A, { name: 's' })
  const made = one.write(`${A}/d7/made`, 'y')
  one.write(`${A}/d7/f`, 'z')
  one.write(`${A}/d8/f`, 'z')
  engine.fs.forget(forgotten.node, 1000)
  kernel.told = []
  await service.restore(A, 's', {})
  const directory = one.stat(`${A}/d7`).node
  const told = kernel.told.filter((line) => !line.includes('snap_'))
  const snapshots = `node ${one.stat(`${A}/.snapshots`).node}`
  t.same(
    told.filter((line) => line !== snapshots).sort(),
    [`delete ${directory}/made`, `node ${directory}`, `node ${known.node}`, `node ${made}`].sort(),
  )
})

t.test('open files of the state before a restore survive collections, and cost nothing when they are closed', async (t) => {
  const one = await engineFor(t)
  const { service, engine } = one
  await service.snapshotCreate(A, { name: 's' })
  const [open, closed] = [one.write(`${A}/open`, 'held'), one.write(`${A}/closed`, 'not held')]
  const { undo } = await service.restore(A, 's', {})
  engine.fs.forget(closed, 1000)
  await service.snapshotDelete(A, undo ?? '')
  await service.collect()
  const volume = engine.fs.core.place(one.stat(A).node).volume
  t.equal(volume.ghosts.length, 0)
  const into = Buffer.alloc(4)
  t.equal(engine.fs.read(caller, open, 0, 4, into, 0), 4)
  t.equal(into.toString(), 'held')
  t.equal(engine.fs.getattr(caller, open).nlink, 0)
  t.throws(() => engine.fs.getattr(caller, closed), { code: 'ENOENT' })
  engine.fs.forget(open, 1000)
  t.throws(() => engine.fs.getattr(caller, open), { code: 'ENOENT' })
})

t.test('equal data is stored once, within a tenant', async (t) => {
  const MIB = 1 << 20
  const one = await engineFor(t, { segmentBytesMax: MIB })
  const { service, engine } = one
  const bytes = Buffer.alloc(64 * MIB)
  for (let at = 0, state = 1; at < bytes.length; at += 4) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    bytes.writeUInt32LE((state ^ (at * 2654435761)) >>> 0, at)
  }
  const grows = async (work: () => void): Promise<number> => {
    const before = engine.volumes.logBytes
    work()
    await service.snapshotCreate(A, {})
    return engine.volumes.logBytes - before
  }
  t.ok((await grows(() => one.write(`${A}/first`, bytes))) > 64 * MIB)
  const copied = await grows(() => {
    const target = one.write(`${A}/copy`, '')
    engine.fs.copyFileRange(caller, one.stat(`${A}/first`).node, 0, target, 0, bytes.length)
  })
  t.ok(copied < MIB, 'a copy is a reference', { copied })
  const before = engine.volumes.logBytes
  one.write(`${A}/second`, bytes)
  await service.snapshotCreate(A, {})
  await service.collect()
  await service.collect()
  const written = engine.volumes.logBytes - before
  t.ok(written < MIB, 'written twice, it takes its space once', { written })
  const chunksOf = (file: string) => {
    const { volume, ino } = engine.fs.core.place(one.stat(file).node)
    return [...volume.pieces(ino, 0, bytes.length)].map(([, piece]) => (piece.kind === 'chunk' ? piece.address : piece.kind))
  }
  t.same(new Set(chunksOf(`${A}/second`)), new Set(chunksOf(`${A}/first`)), 'written twice: the same chunks')

  const [tenant, other] = ['/tenants/x', '/tenants/y']
  for (const path of [tenant, other]) {
    one.mkdir(path)
    one.write(`${path}/f`, 'the same secret in both')
    await service.snapshotCreate(path, {})
  }
  const place = (file: string) => engine.fs.core.place(one.stat(file).node)
  const domains = [A, tenant, other].map((path) => place(path).volume.domain)
  t.equal(new Set(domains).size, 3, 'tenants have domains of their own')
  const address = chunksOf(`${tenant}/f`)[0]
  t.equal(address, chunksOf(`${other}/f`)[0])
  const found = domains.map((domain) => engine.volumes.content.hasChunk(domain, address as Address))
  t.same(found, [false, true, true], 'and store their own chunks')
  t.throws(() => engine.fs.copyFileRange(caller, one.stat(`${tenant}/f`).node, 0, one.stat(`${other}/f`).node, 0, 10), {
    code: 'EXDEV',
  })
})
