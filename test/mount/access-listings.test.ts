/** Directories that list for each what he may see, though the kernel opens them without asking and caches what it is told. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { type AccessMount, accessMountFor, shAs, skip, uids, WALK } from './access.ts'
import { scriptOf, sh } from './guest.ts'
import { childrenOf } from './harness.ts'

/** More than fit into a page of the kernel's cache, or into one answer. */
const NAMES = 90

interface Expected {
  must: string[]
  /** what comes and goes meanwhile */
  may: string[]
}

interface Crowd {
  people: Record<number, Record<string, Expected>>
  /** of each */
  processes: number
  /** of each process */
  listings: number
}

/** What was wrong with listings of many processes at once. */
async function wrongs(crowd: Crowd): Promise<unknown[]> {
  const child = spawn('python3', [scriptOf('listers.py')], { stdio: ['pipe', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (data: Buffer) => {
    text += data.toString()
  })
  child.stdin.end(JSON.stringify(crowd))
  await once(child, 'close')
  return JSON.parse(text) as unknown[]
}

function names(kind: string): string[] {
  return Array.from({ length: NAMES }, (_, index) => `${kind}-${index}-${'x'.repeat(index % 40)}`)
}

/** Alice and bob have different workspaces, and some together; a stranger sees what is for all. */
async function placesFor(t: Test): Promise<AccessMount & { people: Crowd['people'] }> {
  const { mount, service } = await accessMountFor(t)
  const own = { alice: names('alice'), bob: names('bob').slice(7), both: ['both'], all: ['open'] }
  for (const name of own.alice) await service.workspaceCreate(`/workspace/${name}`, { owner: 'user:alice' })
  for (const name of own.bob) await service.workspaceCreate(`/workspace/${name}`, { owner: 'user:bob' })
  for (const name of ['both', 'open', 'changing']) await service.workspaceCreate(`/workspace/${name}`, { owner: 'user:alice' })
  await service.grant('user:bob', 'viewer', '/workspace/both', {})
  await service.grant('user:*', 'viewer', '/workspace/open', {})
  await service.tenantOnboard('beta', { admin: 'user:bob', directories: [] })
  const [root, tenants, workspace] = [mount.mountpoint, mount.at('tenants'), mount.at('workspace')]
  const expected = (uid: number, tenant: string[], must: string[], may: string[]): Crowd['people'] => ({
    [uid]: {
      [root]: { must: ['tenants', 'workspace'], may: ['.snapshots'] },
      [tenants]: { must: tenant, may: [] },
      [workspace]: { must, may },
    },
  })
  const people = {
    ...expected(uids.alice, ['acme'], [...own.alice, ...own.both, ...own.all, 'changing'], ['fleeting']),
    ...expected(uids.bob, ['beta'], [...own.bob, ...own.both, ...own.all], ['changing']),
    ...expected(uids.eve, [], own.all, []),
  }
  return { mount, service, people }
}

/** Workspaces and rights come and go until told to stop. */
async function change(service: Service, isOver: () => boolean): Promise<number> {
  let times = 0
  for (; !isOver(); times++) {
    await service.grant('user:bob', 'viewer', '/workspace/changing', {})
    await service.workspaceCreate('/workspace/fleeting', { owner: 'user:alice' })
    await service.revoke('user:bob', 'viewer', '/workspace/changing')
    await service.workspaceDelete('/workspace/fleeting')
  }
  return times
}

t.test('a tree walk by two users opens directories without a request', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.workspaceCreate('/workspace/tree', { owner: 'user:alice' })
  await service.grant('user:bob', 'viewer', '/workspace/tree', {})
  sh('mkdir -p {1..9}/{1..9}; for d in */*; do echo $d > $d/f; done; chmod -R a+rX .', mount.at('workspace/tree'))
  for (const uid of [uids.alice, uids.bob, uids.alice]) shAs(uid, WALK, mount.mountpoint)
  const { requests } = await service.status()
  t.ok((requests['OPENDIR'] ?? 0) <= 1, `OPENDIR: ${requests['OPENDIR']}`)
  t.equal(requests['RELEASEDIR'], undefined)
  const read = (counts: Record<string, number>): number => (counts['READDIR'] ?? 0) + (counts['READDIRPLUS'] ?? 0)
  shAs(uids.bob, 'find . > /dev/null', mount.at('workspace/tree'))
  t.equal(read((await service.status()).requests), read(requests), 'what lies in a workspace is listed from the cache')
})

t.test('each lists what is his, one after the other and at once', { skip, timeout: 300_000 }, async (t) => {
  const { mount, service, people } = await placesFor(t)
  t.same(await wrongs({ people, processes: 1, listings: 100 }), [], 'the first')
  const listed = (uid: number): string[] => shAs(uid, 'ls', mount.at('workspace')).trim().split('\n')
  for (let turn = 0; turn < 20; turn++) {
    for (const [uid, expected] of Object.entries(people)) {
      const { must = [] } = expected[mount.at('workspace')] ?? {}
      t.same(listed(Number(uid)).sort(), [...must].sort(), `in turn ${turn}, ${uid}`)
    }
  }
  let isOver = false
  const changes = change(service, () => isOver)
  const wrong = await wrongs({ people, processes: 4, listings: 250 })
  isOver = true
  t.same(wrong, [])
  t.ok((await changes) > 0)
  t.notOk('RELEASEDIR' in (await service.status()).requests)
})

t.test('another process goes on with what is being listed', { skip, timeout: 300_000 }, async (t) => {
  const { mount, service, people } = await placesFor(t)
  let isOver = false
  const listings = wrongs({ people, processes: 3, listings: 250 }).finally(() => {
    isOver = true
  })
  let times = 0
  for (; !isOver; times++) {
    await delay(500)
    const [before = 0] = childrenOf(mount.pid)
    process.kill(times % 2 === 0 ? before : mount.pid, times % 2 === 0 ? 'SIGKILL' : 'SIGHUP')
    while (childrenOf(mount.pid)[0] === before) await delay(5)
    // Its socket is there when the kernel has dropped what the one before had let be kept.
    while ((await service.status().catch(() => undefined)) === undefined) await delay(5)
  }
  t.same(await listings, [])
  t.ok(times > 2, `${times} processes`)
})

t.test('what changes is in the next listing', { skip }, async (t) => {
  const { mount, service } = await placesFor(t)
  const isListed = (uid: number, name: string): boolean =>
    shAs(uid, 'ls', mount.at('workspace')).split('\n').includes(name) &&
    shAs(uid, 'ls -l', mount.at('workspace')).includes(` ${name}\n`)
  for (let round = 0; round < 5; round++) {
    t.notOk(isListed(uids.bob, 'changing'))
    await service.grant('user:bob', 'viewer', '/workspace/changing', {})
    t.ok(isListed(uids.bob, 'changing'), 'granted')
    await service.revoke('user:bob', 'viewer', '/workspace/changing')
    t.notOk(isListed(uids.bob, 'changing'), 'revoked')
    shAs(uids.bob, 'mkdir mine', mount.at('workspace'))
    t.ok(isListed(uids.bob, 'mine'), 'made')
    t.notOk(isListed(uids.alice, 'mine'))
    await service.workspaceRename('/workspace/mine', '/workspace/yours')
    t.same([isListed(uids.bob, 'mine'), isListed(uids.bob, 'yours')], [false, true], 'renamed')
    fs.rmdirSync(mount.at('workspace/yours'))
    t.notOk(isListed(uids.bob, 'yours'), 'removed')
  }
})
