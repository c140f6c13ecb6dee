/** Whatever goes wrong, nobody gets more: doubts, damage, ends cut short and numbers that are used again. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { Access, type AccessOptions, type AccessTree } from '../../src/acl/access.ts'
import { Engine } from '../../src/engine/engine.ts'
import { NexusError } from '../../src/errors.ts'
import { silentLogger } from '../../src/logger.ts'
import type { Place } from '../../src/vfs/place.ts'
import type { Attr } from '../../src/volume/attr.ts'
import { Catalog } from '../../src/volume/catalog.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import { engineFor, TestEngine } from '../snapshots/support.ts'

const TUPLE = JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at: null })
const FOREVER = { expires: '2099-01-01T00:00:00.000Z' }
const time = { s: 0, ns: 0 }

/** Workspace 1 with a chain of directories 2, 3, … below its root. */
const chain: AccessTree = {
  typeOf: (_volume, ino) => (ino === ROOT_INO ? 'workspace' : 'dir'),
  parentOf: (volume, ino) => (ino === ROOT_INO ? undefined : { volume, ino: ino - 1 }),
  liveOf: (volume) => volume,
  nestedIn: () => [],
  isNamed: () => true,
  isPresent: () => true,
}

function accessOf(entries: Record<string, string>, tree: Partial<AccessTree> = {}, more: Partial<AccessOptions> = {}): Access {
  const catalog = new Catalog()
  for (const [key, value] of Object.entries(entries)) catalog.load(key, value)
  const options = { catalog, tree: { ...chain, ...tree }, commit: () => undefined, logger: silentLogger, singleUser: false }
  return new Access({ ...options, ...more })
}

/** A directory of the chain as the filesystem hands it over: the guard looks at nothing else of it. */
function placeOf(ino: number): Place {
  const attr: Attr = {
    ...{ mode: 0o040777, nlink: 2, uid: 0, gid: 0, rdev: 0, size: 0, allocated: 0, xattrs: 0 },
    ...{ atime: time, mtime: time, ctime: time, btime: time, parent: ino === ROOT_INO ? 0 : ino - 1, name: 'd' },
  }
  const volume = { number: 1, attr: (other: number) => placeOf(other).attr }
  return { volume: volume as unknown as Place['volume'], ino, attr }
}

t.test('what throws while it is asked refuses', async (t) => {
  const entries = { 't/1/1 owner user:uid-7': TUPLE }
  const whole = accessOf(entries)
  t.equal(whole.rwx(7, placeOf(3)), 7)
  const throwing = accessOf(entries, {
    parentOf: () => {
      throw new Error('unreadable')
    },
  })
  t.equal(throwing.check('user:uid-7', 'read', 'dir:1/3'), false)
  t.equal(throwing.explain('user:uid-7', 'read', 'dir:1/3').allowed, false)
  // The root was given itself; below it the right has to be found through what contains the inode.
  const lost = placeOf(3)
  const attr = (): never => {
    throw new Error('unreadable')
  }
  t.throws(() => whole.rwx(8, { ...lost, volume: { number: 1, attr } as unknown as Place['volume'] }), /unreadable/)
  const untyped = accessOf(entries, { typeOf: () => undefined })
  t.equal(bitsOrNone(untyped, 7, 1), 0, 'an inode that is not there')
  const odd = accessOf(entries, { typeOf: () => 'socket' })
  t.equal(bitsOrNone(odd, 7, 1), 0, 'a type that no model has')
})

t.test('unknown relations, subjects and objects refuse', async (t) => {
  const access = accessOf({ 't/1/1 owner user:uid-7': TUPLE, 't/1/1 superuser user:uid-8': TUPLE })
  t.equal(access.check('user:uid-7', 'delete', 'dir:1/1'), false)
  t.equal(access.check('robot:uid-7', 'read', 'workspace:1/1'), false)
  t.equal(access.check('uid-7', 'read', 'workspace:1/1'), false)
  t.equal(access.check('user:uid-7', 'read', '1/1'), false)
  t.equal(access.check('user:uid-8', 'read', 'workspace:1/1'), false, 'a relation that the model does not have gives nothing')
  const engine = await engineFor(t)
  await t.rejects(engine.service.grant('user:ann', 'superuser', '/workspace/a', {}), { code: 'NEXUS_USAGE' })
  await t.rejects(engine.service.check('user:ann', 'delete', '/workspace/a'), { code: 'NEXUS_USAGE' })
  await t.rejects(engine.service.whoCan('delete', '/workspace/a'), { code: 'NEXUS_USAGE' })
  await t.rejects(engine.service.grant('user:ann', 'owner', '/tenants', {}), { code: 'NEXUS_USAGE' })
  await t.rejects(engine.service.grant('tenant:none#member', 'viewer', '/workspace/a', {}), { code: 'NEXUS_NOT_FOUND' })
})

t.test('groups in a circle give their members what they have, and nobody else', async (t) => {
  const { service } = await engineFor(t)
  const size = 30
  for (let i = 0; i < size; i++) await service.groupAdd(`g${i}`, `group:g${(i + 1) % size}#member`)
  await service.grant('group:g0#member', 'viewer', '/workspace/a', FOREVER)
  t.same((await service.whoCan('read', '/workspace/a')).subjects, [])
  await service.groupAdd('g17', 'user:ann')
  t.same((await service.whoCan('read', '/workspace/a')).subjects, ['user:ann'])
  t.equal((await service.check('user:bob', 'read', '/workspace/a')).allowed, false)
  await service.groupRemove('g5', 'group:g6#member')
  t.same((await service.whoCan('read', '/workspace/a')).subjects, [], 'the way to her is broken')
})

t.test('a directory deeper than any path is refused, not an end of the daemon', async (t) => {
  const access = accessOf({ 't/1/1 owner user:uid-7': TUPLE })
  t.equal(bitsOrNone(access, 7, 2000), 7)
  t.equal(bitsOrNone(access, 7, 1_000_000), 0)
})

t.test('a clock that passes the end ends a grant at once', async (t) => {
  let now = Date.parse('2026-01-01T00:00:00.000Z')
  const expires = JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at: '2026-01-01T01:00:00.000Z' })
  const access = accessOf({ 't/1/1 editor user:uid-7': expires, 't/1/1 viewer user:uid-7': TUPLE }, {}, { now: () => now })
  t.teardown(() => access.stop())
  t.equal(access.rwx(7, placeOf(3)), 7)
  now += 3_599_999
  t.equal(access.rwx(7, placeOf(3)), 7)
  now += 1
  t.equal(access.rwx(7, placeOf(3)), 5)
})

t.test('a damaged tuple keeps an engine from opening', async (t) => {
  const damages = ['', 'null', '{', '{"created_at":1,"expires_at":null}', '{"created_at":"2026-01-01T00:00:00.000Z"}']
  for (const text of damages) {
    const data = dataFor(t)
    const first = await openedAt(data)
    const { number } = await first.service.workspaceCreate('/workspace/w', {})
    first.engine.volumes.commit([{ kind: 'catalog', key: `t/${number}/1 viewer user:*`, value: text }])
    await first.engine.close()
    await t.rejects(openedAt(data), { code: 'NEXUS_CORRUPT' }, JSON.stringify(text))
  }
  for (const key of ['t/1/1', 't/1/1 viewer']) t.throws(() => accessOf({ [key]: TUPLE }), { code: 'NEXUS_CORRUPT' }, key)
  const end = JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at: 'whenever' })
  t.equal(
    refusesOrGives(() => accessOf({ 't/1/1 viewer user:uid-7': end })),
    0,
    'an end that is no time gives nothing',
  )
})

t.test('grants survive the end of a daemon, and an index made anew', async (t) => {
  const data = dataFor(t)
  const first = await openedAt(data)
  await first.service.identityAdd('user:ann', 1001)
  first.mkdir('/workspace/w')
  first.mkdir('/workspace/w/d')
  await first.service.grant('group:eng#member', 'editor', '/workspace/w/d', FOREVER)
  await first.service.groupAdd('eng', 'user:ann')
  await first.service.grant('user:bob', 'viewer', '/workspace/w', {})
  await first.service.grant('user:cat', 'viewer', '/workspace/w', {})
  await first.service.revoke('user:cat', 'viewer', '/workspace/w')
  const before = await stateOf(first)
  await first.engine.close()
  for (const rebuildIndex of [false, true, true, false]) {
    const next = await openedAt(data, { rebuildIndex })
    t.same(await stateOf(next), before, rebuildIndex ? 'rebuilt' : 'reopened')
    const node = next.stat('/workspace/w/d').node
    t.doesNotThrow(() => next.engine.fs.mkdir({ uid: 1001, gid: 1, pid: 1 }, node, `x${Math.random()}`, 0o777, 0))
    t.throws(() => next.engine.fs.mkdir({ uid: 1002, gid: 1, pid: 1 }, node, 'y', 0o777, 0), { code: 'EACCES' })
    await next.engine.close()
  }
})

t.test('the number of a deleted workspace is used again, and its grants are not', async (t) => {
  for (const how of ['delete', 'rmdir']) {
    const data = dataFor(t)
    const first = await openedAt(data)
    const { number } = await first.service.workspaceCreate('/workspace/w', { owner: 'user:ann' })
    await first.service.grant('user:*', 'editor', '/workspace/w', {})
    if (how === 'delete') await first.service.workspaceDelete('/workspace/w')
    else first.engine.fs.rmdir({ uid: 0, gid: 0, pid: 1 }, first.stat('/workspace').node, 'w')
    const { number: another } = await first.service.workspaceCreate('/workspace/x', {})
    t.not(another, number, 'not within the life of a daemon')
    await first.service.workspaceDelete('/workspace/x')
    await first.engine.close()
    const next = await openedAt(data)
    const { number: again } = await next.service.workspaceCreate('/workspace/new', {})
    t.equal(again, number, 'the test tests what it says')
    t.same((await next.service.whoCan('read', '/workspace/new')).subjects, [], how)
    t.same(await next.service.grants('/workspace/new'), [])
    await next.engine.close()
  }
})

t.test('a new file has nobody to inherit from but its directory', async (t) => {
  t.test('in a fork of a snapshot, with the grants of later files', async (t) => {
    const engine = await engineFor(t)
    await engine.service.snapshotCreate('/workspace/a', { name: 's' })
    engine.write('/workspace/a/later', 'x')
    await engine.service.grant('user:ann', 'owner', '/workspace/a/later', {})
    await engine.service.fork('/workspace/a', '/workspace/b', { snapshot: 's', withGrants: true })
    engine.write('/workspace/b/new', 'x')
    t.same((await engine.service.whoCan('read', '/workspace/b/new')).subjects, [])
  })
  t.test('in a workspace that a restore has brought back', async (t) => {
    const engine = await engineFor(t)
    await engine.service.workspaceCreate('/workspace/a/n', {})
    await engine.service.snapshotCreate('/workspace/a', { name: 's' })
    engine.write('/workspace/a/n/later', 'x')
    await engine.service.grant('user:ann', 'owner', '/workspace/a/n/later', {})
    await engine.service.workspaceDelete('/workspace/a/n')
    await engine.service.restore('/workspace/a', 's', {})
    engine.write('/workspace/a/n/new', 'x')
    t.same((await engine.service.whoCan('read', '/workspace/a/n/new')).subjects, [])
  })
  t.test('after a restore of its own workspace', async (t) => {
    const engine = await engineFor(t)
    await engine.service.snapshotCreate('/workspace/a', { name: 's' })
    engine.write('/workspace/a/later', 'x')
    await engine.service.grant('user:ann', 'owner', '/workspace/a/later', {})
    await engine.service.restore('/workspace/a', 's', {})
    engine.write('/workspace/a/new', 'x')
    t.same((await engine.service.whoCan('read', '/workspace/a/new')).subjects, [])
  })
})

t.test('a tenant whose making was cut short is removed at the next start', async (t) => {
  const data = dataFor(t)
  const first = await openedAt(data)
  await first.service.tenantOnboard('whole', { admin: 'user:ann', directories: ['docs'] })
  await first.service.tenantOnboard('half', { admin: 'user:bob', directories: ['docs'] })
  first.engine.volumes.commit([{ kind: 'catalog', key: 'o//tenants/half', value: new Date().toISOString() }])
  await first.engine.close()
  const next = await openedAt(data)
  await next.service.recover()
  t.same(next.list('/tenants'), ['whole'])
  t.same([...next.engine.volumes.catalog.list('o/')], [])
  t.same(await next.service.whatCan('user:bob'), [])
  t.same((await next.service.whoCan('share', '/tenants/whole')).subjects, ['user:ann'])
  await next.service.tenantOnboard('half', { admin: 'user:cat' })
  t.same((await next.service.whoCan('read', '/tenants/half')).subjects, ['user:cat'])
  await next.service.recover()
  t.same(next.list('/tenants'), ['half', 'whole'], 'what is whole stays')
  await next.engine.close()
  const last = await openedAt(data)
  t.same((await last.service.whoCan('read', '/tenants/half')).subjects, ['user:cat'])
  await last.engine.close()
})

t.test('a mark whose tenant somebody has deleted since does not keep the daemon from starting', async (t) => {
  const engine = await engineFor(t)
  engine.engine.volumes.commit([{ kind: 'catalog', key: 'o//tenants/none', value: new Date().toISOString() }])
  await t.resolves(engine.service.recover())
  t.same([...engine.engine.volumes.catalog.list('o/')], [])
})

t.test('a tenant with an impossible directory is not made at all', async (t) => {
  const engine = await engineFor(t)
  await t.rejects(engine.service.tenantOnboard('t', { admin: 'user:ann', directories: ['ok', 'a/b'] }), { code: 'NEXUS_USAGE' })
  t.same(engine.list('/tenants'), [])
  t.same([...engine.engine.volumes.catalog.list('o/')], [])
  t.same(await engine.service.whatCan('user:ann'), [])
})

/** What the guard answers, where an error that it lets pass is a refusal as well. */
function bitsOrNone(access: Access, uid: number, ino: number): number {
  return refusesOrGives(() => access, uid, ino)
}

function refusesOrGives(make: () => Access, uid = 7, ino = 1): number {
  try {
    return make().rwx(uid, placeOf(ino))
  } catch (error) {
    if (error instanceof NexusError && error.code !== 'NEXUS_CORRUPT') throw error
    return 0
  }
}

function dataFor(t: Test): string {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-access-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  return data
}

async function openedAt(data: string, options: { rebuildIndex?: boolean } = {}): Promise<TestEngine> {
  return new TestEngine(await Engine.open({ data, logger: silentLogger, ...options }))
}

async function stateOf({ service }: TestEngine): Promise<unknown> {
  return [
    await service.grants('/workspace/w/d'),
    await service.groupList(),
    await service.identityList(),
    await service.whoCan('read', '/workspace/w/d'),
    await service.whatCan('user:ann'),
    await service.modelShow(),
  ]
}
