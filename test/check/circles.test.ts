/** Trees and records in which something lies in itself: whoever walks up or down in one comes to an end, and says why. */
import t from 'tap'
import { FS, NexusError, toFsError } from '../../src/errors.ts'
import type { Caller } from '../../src/vfs/filesystem.ts'
import { ancestors } from '../../src/volume/ancestors.ts'
import type { Attr } from '../../src/volume/attr.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import type { Volume } from '../../src/volume/volume.ts'
import { isInside, namesInVolume } from '../../src/workspaces/paths.ts'
import { parseSnapshot, snapshotKey } from '../../src/workspaces/records.ts'
import { caller } from '../snapshots/support.ts'
import { type Sample, sampleFor } from './support.ts'

const damaged = { code: 'NEXUS_CORRUPT', message: /in itself.*fsck --repair/ }

/** Only what they are recorded to lie in. */
function parents(of: Record<number, number>): Volume {
  return { number: 7, attr: (ino: number) => (ino in of ? { parent: of[ino], name: `n${ino}` } : undefined) } as unknown as Volume
}

t.test('the way up ends, however long the way into the circle and the circle are', async (t) => {
  for (let way = 0; way < 40; way++) {
    for (const circle of [1, 2, 3, 7, 8, 9, 31]) {
      const of: Record<number, number> = {}
      for (let i = 0; i < way + circle; i++) of[100 + i] = 101 + i
      of[100 + way + circle - 1] = 100 + way
      let steps = 0
      t.throws(() => {
        for (const _ of ancestors(parents(of), 100)) steps++
      }, damaged)
      if (steps < way + circle || steps > 3 * (way + circle) + 1) t.fail(`${steps} steps for ${way} and ${circle}`)
    }
  }
})

t.test('a way up of any length that ends is walked to its end', async (t) => {
  const of: Record<number, number> = {}
  for (let i = 0; i < 20_000; i++) of[i + 2] = i + 3
  of[20_001] = ROOT_INO
  of[ROOT_INO] = ROOT_INO
  const volume = parents(of)
  t.equal(namesInVolume(volume, 2)?.length, 20_000)
  t.equal(isInside(volume, 2, 20_001), true, 'deeper than a path of the kernel may be')
  t.equal(isInside(volume, 20_001, 2), false)
  of[20_001] = 0
  t.equal(namesInVolume(volume, 2), undefined, 'no place that is known')
})

/** d/e is what d is recorded to lie in; d has its name in the root all the same. */
const parentsInCircle = (sample: Sample): Promise<void> => sample.wrong(sample.attrEdit('d', { parent: sample.ino('d/e') }))
/** d has no name but in d/e/deep, where nothing leads. */
const lostCircle = (sample: Sample): Promise<void> =>
  sample.wrong(
    sample.entryEdit('.', 'd', null),
    sample.entryEdit('d/e/deep', 'd', { ino: sample.ino('d'), type: 0o040000 }),
    sample.attrEdit('.', { nlink: sample.attr('.').nlink - 1 }),
    sample.attrEdit('d', { parent: sample.ino('d/e/deep') }),
    sample.attrEdit('d/e/deep', { nlink: 3 }),
  )
/** d/e/deep has d as an entry as well: down it goes for ever. */
const wayDown = (sample: Sample): Promise<void> =>
  sample.wrong(sample.entryEdit('d/e/deep', 'down', { ino: sample.ino('d'), type: 0o040000 }))

t.test('a rename into a circle is EIO, others go on', async (t) => {
  const sample = await sampleFor(t)
  const { fs } = sample.engine
  const { test } = sample
  await parentsInCircle(sample)
  const [a, e] = ['/workspace/a', '/workspace/a/d/e'].map((path) => test.stat(path).node) as [number, number]
  test.mkdir('/workspace/a/moved')
  t.throws(() => fs.rename(caller, a, 'moved', e, 'moved', 0), damaged)
  t.equal(toFsError(new NexusError('NEXUS_CORRUPT', '')).fsError, FS.EIO)
  fs.rename(caller, a, 'f', e, 'f', 0)
  t.equal(test.read('/workspace/a/d/e/f'), 'something', 'a file cannot become part of itself')
})

t.test('whoever asks what contains what gets no right by a circle', async (t) => {
  const sample = await sampleFor(t)
  const { engine, test } = sample
  const bob: Caller = { uid: 1001, gid: 1001, pid: 7 }
  const alice: Caller = { uid: 1002, gid: 1002, pid: 8 }
  await parentsInCircle(sample)
  await test.service.identityAdd('user:bob', 1001)
  await test.service.identityAdd('user:alice', 1002)
  await test.service.grant('user:bob', 'editor', '/workspace/a', {})
  await test.service.grant('user:alice', 'editor', '/workspace/a/d/e/deep', {})
  const deep = test.stat('/workspace/a/d/e/deep').node
  t.throws(() => engine.fs.lookup(bob, deep, 'x'), { code: 'EACCES' }, 'his right is on the workspace, and the way there is lost')
  t.ok(engine.fs.lookup(alice, deep, 'x'), 'hers is inside')
  t.match(await test.service.explain('user:bob', 'read', '/workspace/a/d/e'), { allowed: false })
})

for (const [name, make] of Object.entries({ parentsInCircle, lostCircle, wayDown })) {
  t.test(`commands come to an end: ${name}`, async (t) => {
    const sample = await sampleFor(t)
    const { service } = sample.test
    await service.snapshotCreate('/workspace/a', { name: 'whole' })
    await make(sample)
    const ended = async (what: string, work: () => Promise<unknown>): Promise<void> => {
      const error = await work().then(
        () => undefined,
        (reason: unknown) => reason,
      )
      if (what === 'restore') t.equal(error, undefined, 'a whole workspace is mended by that')
      if (error !== undefined && !(error instanceof NexusError)) t.fail(`${what}: ${String(error)}`)
      else t.pass(`${what}: ${error === undefined ? 'done' : error.message}`)
    }
    await ended('snapshot', () => service.snapshotCreate('/workspace/a', { name: 'circle' }))
    await ended('diff', () => service.snapshotDiff('/workspace/a', 'whole', null, 100))
    if (name !== 'lostCircle') {
      await ended('snapshot of a directory', () => service.snapshotCreate('/workspace/a/d', { name: 'part' }))
      await ended('restore of a directory', () => service.restore('/workspace/a/d/e', 'whole', {}))
      await ended('fork of a directory', () => service.fork('/workspace/a/d', '/workspace/c', {}))
    }
    await ended('restore', () => service.restore('/workspace/a', 'whole', {}))
    const found = (await sample.findings()).filter((one) => one.live && one.workspace === '/workspace/a')
    t.strictSame(found, [], 'and the snapshot is whole')
  })
}

t.test('workspaces that are recorded to lie in each other', async (t) => {
  const sample = await sampleFor(t)
  const { engine, test } = sample
  const { registry, volumes } = engine
  await test.service.workspaceCreate('/workspace/a/d/inner', {})
  await test.service.identityAdd('user:bob', 1001)
  await test.service.grant('user:bob', 'editor', '/workspace/a', {})
  const outer = registry.workspace(sample.volume.number)
  const inner = [...registry.workspaces()].find(({ name }) => name === 'inner')
  if (outer === undefined || inner === undefined) throw new Error('no records')
  volumes.commit([registry.storeWorkspace({ ...outer, parent_volume: inner.number, parent_ino: ROOT_INO })])
  t.strictSame(
    registry.inside(outer.number).map(({ number }) => number),
    [inner.number],
  )
  const paths = (await test.service.workspaceList()).map(({ path }) => path)
  t.ok(paths.includes('/a/d/inner') && paths.includes('/inner/a'), `as much as there is: ${paths.join(' ')}`)
  const bob: Caller = { uid: 1001, gid: 1001, pid: 7 }
  t.ok(engine.fs.getattr(bob, test.stat('/workspace/a').node))
  await test.service.revoke('user:bob', 'editor', '/workspace/a')
  const texts = (await sample.findings()).filter(({ kind }) => kind === 'workspace').map(({ text }) => text)
  for (const { number } of [outer, inner])
    t.ok(texts.includes(`workspace ${number} is recorded to lie in itself: no path leads to it`))
})

t.test('a snapshot of such workspaces is damaged', async (t) => {
  const sample = await sampleFor(t)
  const { registry } = sample.engine
  await sample.test.service.workspaceCreate('/workspace/a/d/inner', {})
  await sample.test.service.snapshotCreate('/workspace/a', { name: 'one' })
  const [taken] = registry.snapshotsOf(sample.volume.number)
  if (taken === undefined) throw new Error('no snapshot')
  const [nested] = taken.nested
  t.ok(parseSnapshot(snapshotKey(taken.id), JSON.stringify(taken)))
  const wrong = { ...taken, nested: [{ ...nested, record: { ...nested?.record, parent_volume: nested?.record.number } }] }
  t.throws(() => parseSnapshot(snapshotKey(taken.id), JSON.stringify(wrong)), { code: 'NEXUS_CORRUPT' })
})

t.test('what is reported of a circle has its place, as far as it has one', async (t) => {
  const sample = await sampleFor(t)
  const d = sample.ino('d')
  await parentsInCircle(sample)
  t.match(await sample.findings(), [{ kind: 'place', ino: d, path: '/workspace/a/d' }])
  const attr = sample.volume.attr(d) as Attr
  t.ok(attr.parent !== ROOT_INO)
})

t.test('rights reach as deep as directories lie in each other', async (t) => {
  const sample = await sampleFor(t)
  const { engine, test } = sample
  await test.service.identityAdd('user:bob', 1001)
  await test.service.grant('user:bob', 'viewer', '/workspace/a', {})
  let { node } = test.stat('/workspace/a/d')
  for (let depth = 0; depth < 12_000; depth++) node = engine.fs.mkdir(caller, node, 'd', 0o755, 0).node
  await test.service.grant('user:bob', 'editor', '/workspace/a', {})
  t.ok(engine.fs.getattr({ uid: 1001, gid: 1001, pid: 7 }, node), 'by one walk')
  await test.service.snapshotCreate('/workspace/a', { name: 'deep' })
  engine.fs.rename(caller, test.stat('/workspace/a').node, 'f', node, 'f', 0)
  t.ok((await test.service.snapshotDiff('/workspace/a', 'deep', null, 10)).changes.length > 0)
})
