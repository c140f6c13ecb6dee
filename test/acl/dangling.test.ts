/** A grant whose subject is a set of what is gone gives nobody anything, least of all whoever is given the number next. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { TUPLE_KIND } from '../../src/acl/tuples.ts'
import { Engine } from '../../src/engine/engine.ts'
import { fsckOffline } from '../../src/engine/offline.ts'
import { type Logger, silentLogger } from '../../src/logger.ts'
import { TestEngine } from '../snapshots/support.ts'

const TUPLE = JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at: null })
const root = { uid: 0, gid: 0, pid: 1 }

function dataFor(t: Test): string {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-dangling-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  return data
}

async function openedAt(data: string, logger: Logger = silentLogger): Promise<TestEngine> {
  return new TestEngine(await Engine.open({ data, logger }))
}

/** The tenant acme, shared with the members of the tenant contractor, who are uid 2001. */
async function partners(data: string): Promise<{ test: TestEngine; contractor: number; acme: number }> {
  const test = await openedAt(data)
  await test.service.identityAdd('user:connie', 2001)
  await test.service.tenantOnboard('acme', { admin: 'user:ann' })
  await test.service.tenantOnboard('contractor', { admin: 'user:connie' })
  await test.service.snapshotDelete('/tenants/contractor', 'initial-setup')
  await test.service.grant('tenant:contractor#member', 'editor', '/tenants/acme', {})
  const { number: contractor } = await test.service.workspaceShow('/tenants/contractor')
  const { number: acme } = await test.service.workspaceShow('/tenants/acme')
  return { test, contractor, acme }
}

function tuples({ engine }: TestEngine): string[] {
  return [...engine.volumes.catalog.list(TUPLE_KIND)].map(([key]) => key)
}

const subjectsOn = async ({ service }: TestEngine, at: string): Promise<string[]> =>
  (await service.grants(at)).map(({ subject }) => subject).sort()

const mayWrite = async ({ service }: TestEngine, subject: string, at: string): Promise<boolean> =>
  (await service.check(subject, 'write', at)).allowed

/** Ways in which a tenant goes. */
const ends: Record<string, (test: TestEngine) => Promise<void>> = {
  'workspace delete': async ({ service }) => void (await service.workspaceDelete('/tenants/contractor')),
  rmdir: async (test) => test.engine.fs.rmdir(root, test.stat('/tenants').node, 'contractor'),
  'a rename over it': async (test) => {
    await test.service.workspaceCreate('/tenants/other', {})
    test.engine.fs.rename(root, test.stat('/tenants').node, 'other', test.stat('/tenants').node, 'contractor', 0)
  },
}

for (const [name, end] of Object.entries(ends)) {
  t.test(`what a tenant was given goes with it: ${name}`, async (t) => {
    const data = dataFor(t)
    const { test, contractor } = await partners(data)
    t.equal(await mayWrite(test, 'user:connie', '/tenants/acme'), true, 'the test tests what it says')
    await end(test)
    t.equal(await mayWrite(test, 'user:connie', '/tenants/acme'), false)
    t.same(await subjectsOn(test, '/tenants/acme'), ['user:ann'])
    t.notOk(
      tuples(test).some((key) => key.includes(`tenant:${contractor}/`)),
      'nor is it stored',
    )
    await test.engine.close()
    const next = await openedAt(data)
    const names = ['innocent', 'one', 'two']
    for (const one of names) await next.service.workspaceCreate(`/tenants/${one}`, { owner: 'user:eve' })
    t.same(await subjectsOn(next, '/tenants/acme'), ['user:ann'])
    t.equal(await mayWrite(next, 'user:eve', '/tenants/acme'), false)
    await next.engine.close()
  })
}

t.test('a store of before that holds such grants loses them at the start, and says so', async (t) => {
  const data = dataFor(t)
  const { test, contractor, acme } = await partners(data)
  await test.service.workspaceDelete('/tenants/contractor')
  const left = [
    `t/${acme}/1 editor tenant:${contractor}/1#member`,
    `t/group:eng member tenant:${contractor}/1#member`,
    `t/${contractor}/1 viewer user:connie`,
  ]
  test.engine.volumes.commit(left.map((key) => ({ kind: 'catalog', key, value: TUPLE })))
  await test.engine.close()
  const offline = await fsckOffline({ data, logger: silentLogger, repair: false })
  t.match(
    offline.findings.map(({ kind, text }) => `${kind} ${text}`),
    left.map(() => new RegExp(`^grant .*names workspace ${contractor}`)),
    'fsck finds them',
  )
  const lines: unknown[] = []
  const logger = { ...silentLogger, warn: (...words: unknown[]) => void lines.push(words) } as Logger
  const next = await openedAt(data, logger)
  t.match(lines, [[{ grants: 3, first: [String] }, /workspace which is gone were removed/]])
  t.notOk(tuples(next).some((key) => left.includes(key)))
  await next.service.workspaceCreate('/tenants/innocent', { owner: 'user:eve' })
  t.equal(await mayWrite(next, 'user:eve', '/tenants/acme'), false)
  t.same(await subjectsOn(next, '/tenants/acme'), ['user:ann'])
  await next.engine.close()
})

t.test('repair removes them as well', async (t) => {
  const data = dataFor(t)
  const { test, contractor, acme } = await partners(data)
  await test.service.workspaceDelete('/tenants/contractor')
  const key = `t/${acme}/1 editor tenant:${contractor}/1#member`
  test.engine.volumes.commit([{ kind: 'catalog', key, value: TUPLE }])
  await test.engine.close()
  const repaired = await fsckOffline({ data, logger: silentLogger, repair: true })
  t.match(repaired, { findings: [], repaired: 1 })
  const again = await fsckOffline({ data, logger: silentLogger, repair: false })
  t.same(again.findings, [])
})

t.test('a number that anything refers to is not given again', async (t) => {
  const data = dataFor(t)
  const { test, contractor } = await partners(data)
  // The fork goes on with the chunks of the tenant, and the next tenant must not share them.
  await test.service.fork('/tenants/contractor', '/workspace/kept', {})
  await test.service.workspaceDelete('/tenants/contractor')
  await test.engine.close()
  const next = await openedAt(data)
  for (let i = 0; i < 5; i++) {
    const { number } = await next.service.workspaceCreate(`/tenants/t${i}`, {})
    t.not(number, contractor, `t${i}`)
  }
  await next.engine.close()
})

t.test('a set is what it says that it is, or gives nothing', async (t) => {
  const { test } = await partners(dataFor(t))
  t.teardown(() => test.engine.close())
  // Members of the contractor are editors of acme, and so members of acme.
  await test.service.workspaceCreate('/workspace/deep', {})
  await test.service.grant('tenant:acme#member', 'viewer', '/workspace/deep', {})
  const member = async (): Promise<boolean[]> => [
    await mayWrite(test, 'user:connie', '/tenants/acme'),
    (await test.service.check('user:connie', 'read', '/workspace/deep')).allowed,
    (await test.service.explain('user:connie', 'read', '/workspace/deep')).allowed,
    (await test.service.whoCan('read', '/workspace/deep')).subjects.includes('user:connie'),
    (await test.service.whatCan('user:connie')).some((one) => one.path === '/workspace/deep'),
  ]
  t.same(await member(), [true, true, true, true, true])
  await test.service.workspaceRename('/tenants/contractor', '/workspace/contractor')
  t.same(await member(), [false, false, false, false, false], 'a workspace is no tenant')
  await t.rejects(test.service.grant('tenant:contractor#member', 'viewer', '/workspace/deep', {}), { code: 'NEXUS_NOT_FOUND' })
  await test.service.workspaceRename('/workspace/contractor', '/tenants/contractor')
  t.same(await member(), [true, true, true, true, true], 'and a tenant again')
  test.write('/tenants/plain', 'a file of root')
  await t.rejects(test.service.grant('tenant:plain#member', 'viewer', '/workspace/deep', {}), { code: 'NEXUS_NOT_FOUND' })
})

t.test('what a snapshot can bring back keeps its grants, which give nothing until then', async (t) => {
  const data = dataFor(t)
  const { test } = await partners(data)
  await test.service.snapshotCreate('/', { name: 'all' })
  await test.service.workspaceDelete('/tenants/contractor')
  t.equal(await mayWrite(test, 'user:connie', '/tenants/acme'), false, 'gone')
  await test.engine.close()
  const next = await openedAt(data)
  t.equal(await mayWrite(next, 'user:connie', '/tenants/acme'), false, 'after a start')
  for (let i = 0; i < 5; i++) await next.service.workspaceCreate(`/tenants/t${i}`, { owner: 'user:eve' })
  t.equal(await mayWrite(next, 'user:eve', '/tenants/acme'), false, 'its number is nobody’s')
  await next.service.restore('/', 'all', {})
  t.equal(await mayWrite(next, 'user:connie', '/tenants/acme'), true, 'back')
  await next.service.restore('/', (await next.service.snapshotList('/')).find((one) => one.automatic)?.snapshot_id ?? '', {})
  t.equal(await mayWrite(next, 'user:connie', '/tenants/acme'), false, 'gone again, and only the snapshots have it')
  for (const { snapshot_id } of await next.service.snapshotList('/')) await next.service.snapshotDelete('/', snapshot_id)
  t.notOk(
    tuples(next).some((key) => key.includes('#member')),
    'nothing can bring it back: its grants are gone',
  )
  await next.engine.close()
})
