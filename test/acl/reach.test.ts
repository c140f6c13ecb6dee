/** Whatever changes who is in a set of people reaches the kernel for every workspace that the set was given something on. */
import t from 'tap'
import { TUPLE_KIND } from '../../src/acl/tuples.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import { engineFor, type TestEngine } from '../snapshots/support.ts'

const root = { uid: 0, gid: 0, pid: 1 }
/** Long enough for what follows a system call and nobody waits for. */
const TURNS = 50

interface World {
  test: TestEngine
  /** nodes of a file in each workspace, which the kernel holds */
  files: Record<string, number>
}

/**
 * connie is a viewer of the tenant partner, and bob of a directory in it; members of partner are editors of acme, members of
 * acme are viewers of the workspace deep, and members of group:eng, whom group:all contains, are viewers of the workspace g.
 */
async function worldFor(t: Parameters<typeof engineFor>[0]): Promise<World> {
  const test = await engineFor(t)
  const { service } = test
  await service.identityAdd('user:connie', 2001)
  await service.tenantOnboard('partner', { admin: 'user:paul', directories: ['d', 'e'] })
  await service.tenantOnboard('acme', { admin: 'user:ann', directories: [] })
  await service.workspaceCreate('/workspace/deep', {})
  await service.workspaceCreate('/workspace/g', {})
  await service.workspaceCreate('/workspace/far', { owner: 'user:zoe' })
  await service.grant('user:connie', 'viewer', '/tenants/partner', {})
  await service.grant('user:bob', 'viewer', '/tenants/partner/d', {})
  await service.grant('tenant:partner#member', 'editor', '/tenants/acme', {})
  await service.grant('tenant:acme#member', 'viewer', '/workspace/deep', {})
  await service.groupAdd('eng', 'user:connie')
  await service.groupAdd('all', 'group:eng#member')
  await service.grant('group:all#member', 'viewer', '/workspace/g', {})
  const files: Record<string, number> = {}
  for (const at of ['/tenants/partner', '/tenants/acme', '/workspace/deep', '/workspace/g', '/workspace/far']) {
    test.write(`${at}/f`, 'text')
    files[at] = test.stat(`${at}/f`).node
  }
  return { test, files }
}

interface Way {
  name: string
  run(world: World): Promise<unknown>
  /** of these the kernel drops the file, data and all; of others nothing */
  reaches: string[]
  /** enough that attributes are dropped: nobody lost anything */
  isGain?: true
}

const PARTNERS = ['/tenants/acme', '/tenants/partner', '/workspace/deep']
const ways: Way[] = [
  { name: 'revoke', run: ({ test }) => test.service.revoke('user:connie', 'viewer', '/tenants/partner'), reaches: PARTNERS },
  {
    name: 'revoke of a set',
    run: ({ test }) => test.service.revoke('tenant:partner#member', 'editor', '/tenants/acme'),
    reaches: ['/tenants/acme', '/workspace/deep'],
  },
  {
    name: 'grant',
    run: ({ test }) => test.service.grant('user:x', 'viewer', '/tenants/partner', {}),
    reaches: PARTNERS,
    isGain: true,
  },
  {
    name: 'revoke deep inside of a tenant, which makes nobody a member',
    run: ({ test }) => test.service.revoke('user:bob', 'viewer', '/tenants/partner/d'),
    reaches: ['/tenants/partner'],
  },
  {
    name: 'expiry',
    run: async ({ test, files }) => {
      await test.service.revoke('user:connie', 'viewer', '/tenants/partner')
      test.kernel.told = []
      const expires = new Date(Date.now() + 100).toISOString()
      await test.service.grant('user:connie', 'viewer', '/tenants/partner', { expires })
      while (!test.kernel.told.includes(`node ${files['/workspace/deep']}`)) await turns(1)
      await turns(TURNS)
    },
    reaches: PARTNERS,
  },
  { name: 'group remove', run: ({ test }) => test.service.groupRemove('eng', 'user:connie'), reaches: ['/workspace/g'] },
  { name: 'group add', run: ({ test }) => test.service.groupAdd('eng', 'user:x'), reaches: ['/workspace/g'], isGain: true },
  {
    name: 'a group out of a group',
    run: ({ test }) => test.service.groupRemove('all', 'group:eng#member'),
    reaches: ['/workspace/g'],
  },
  {
    name: 'identity remove',
    run: ({ test }) => test.service.identityRemove('user:connie', {}),
    reaches: [...PARTNERS, '/workspace/g'],
  },
  {
    name: 'identity add',
    run: ({ test }) => test.service.identityAdd('user:connie', 2002),
    reaches: [...PARTNERS, '/workspace/g'],
  },
  {
    name: 'model apply',
    run: ({ test }) =>
      test.service.modelApply(test.engine.access.model.text.replaceAll('define write: editor', 'define write: owner')),
    reaches: [...PARTNERS, '/workspace/far', '/workspace/g'],
  },
  {
    name: 'workspace delete',
    run: ({ test }) => test.service.workspaceDelete('/tenants/partner'),
    reaches: PARTNERS,
  },
  {
    name: 'workspace rename, out of the tenants',
    run: ({ test }) => test.service.workspaceRename('/tenants/partner', '/workspace/partner'),
    reaches: PARTNERS,
  },
  {
    name: 'rename(2), out of the tenants',
    run: async ({ test }) => {
      test.engine.fs.rename(root, test.stat('/tenants').node, 'partner', test.stat('/workspace').node, 'partner', 0)
      await turns(TURNS)
    },
    reaches: PARTNERS,
  },
  {
    name: 'rename(2) of the tenant, which is what it was',
    run: async ({ test }) => {
      test.engine.fs.rename(root, test.stat('/tenants').node, 'partner', test.stat('/tenants').node, 'renamed', 0)
      await turns(TURNS)
    },
    reaches: [],
  },
  {
    name: 'restore of a workspace with grants inside',
    run: async ({ test }) => {
      await test.service.snapshotCreate('/tenants/partner', { name: 's' })
      test.kernel.told = []
      await test.service.restore('/tenants/partner', 's', {})
    },
    reaches: PARTNERS,
  },
]

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 2))
}

for (const { name, run, reaches, isGain } of ways) {
  t.test(name, async (t) => {
    const world = await worldFor(t)
    world.test.kernel.told = []
    await run(world)
    for (const [at, node] of Object.entries(world.files)) {
      const word = isGain ? 'attributes' : 'node'
      t.equal(world.test.kernel.told.includes(`${word} ${node}`), reaches.includes(at), `${at}: ${reaches.includes(at)}`)
    }
  })
}

t.test('a right in a workspace that lies in another opens the way there, and nothing beside it is kept', async (t) => {
  for (const how of ['grant', 'create', 'fork', 'delete']) {
    const test = await engineFor(t)
    test.mkdir('/workspace/a/way')
    test.write('/workspace/a/way/beside', 'text')
    await test.service.workspaceCreate('/workspace/a/way/inner', {})
    if (how === 'delete') await test.service.grant('user:bob', 'viewer', '/workspace/a/way/inner', {})
    const { node: way } = test.stat('/workspace/a/way')
    test.stat('/workspace/a/way/beside')
    test.kernel.told = []
    if (how === 'grant') await test.service.grant('user:bob', 'viewer', '/workspace/a/way/inner', {})
    if (how === 'create') await test.service.workspaceCreate('/workspace/a/way/new', { owner: 'user:bob' })
    if (how === 'fork') await test.service.fork('/workspace/a/way/inner', '/workspace/a/way/new', { owner: 'user:bob' })
    if (how === 'delete') await test.service.workspaceDelete('/workspace/a/way/inner')
    const { told } = test.kernel
    t.ok(told.includes(`attributes ${way}`), `${how}: the way`)
    t.ok(told.includes(`attributes ${nodeOf(Math.floor(way / 2 ** 32), ROOT_INO)}`), `${how}: from the root on`)
    if (how !== 'delete') t.ok(told.includes(`name ${way}/beside`), `${how}: beside`)
  }
})

t.test('a move changes rights where it leads from what one was given to what another was, and nowhere else', async (t) => {
  const rows: [from: string, to: string, isTold: boolean][] = [
    ['plain/x', 'plain/y', false],
    ['plain/x', 'other/x', false],
    ['plain/f', 'other/f', false],
    ['given/x', 'given/y', false],
    ['given/x', 'given/deep/x', false],
    ['given/x', 'plain/x', true],
    ['given/f', 'plain/f', true],
    ['plain/x', 'given/x', true],
    ['given', 'plain/given', true],
    ['plain', 'other/plain', false],
    ['holds', 'other/holds', true],
    ['nests', 'other/nests', true],
  ]
  for (const [from, to, isTold] of rows) {
    const test = await engineFor(t)
    const W = '/workspace/a'
    for (const at of ['plain', 'other', 'given', 'given/deep', 'holds', 'holds/in', 'nests', 'plain/x', 'given/x'])
      test.mkdir(`${W}/${at}`)
    test.write(`${W}/plain/f`, 'text')
    test.write(`${W}/given/f`, 'text')
    await test.service.workspaceCreate(`${W}/nests/inner`, {})
    await test.service.grant('user:bob', 'viewer', `${W}/given`, {})
    await test.service.grant('user:bob', 'viewer', `${W}/holds/in`, {})
    const { node } = test.stat(`${W}/${from}`)
    test.kernel.told = []
    const parent = (at: string): number => test.stat(`${W}/${at}`.slice(0, `${W}/${at}`.lastIndexOf('/'))).node
    test.engine.fs.rename(root, parent(from), from.split('/').at(-1) ?? '', parent(to), to.split('/').at(-1) ?? '', 0)
    const before = (await test.service.check('user:bob', 'read', `${W}/${to}`)).allowed
    await turns(TURNS)
    t.equal(test.kernel.told.includes(`node ${node}`), isTold, `${from} to ${to}`)
    test.engine.access.forget()
    t.equal((await test.service.check('user:bob', 'read', `${W}/${to}`)).allowed, before, 'nothing of before was gone by')
  }
})

t.test('one grant among 100,000 is one grant', async (t) => {
  const test = await engineFor(t)
  const { access, volumes } = test.engine
  const { number } = await test.service.workspaceShow('/workspace/a')
  const tuples = Array.from({ length: 100_000 }, (_, i) => {
    const subject = i % 2 === 0 ? `user:uid-${10_000 + i}` : `group:g${i}#member`
    return access.newTuple(subject, 'viewer', `${number}/${1000 + (i % 20_000)}`)
  })
  access.write(tuples)
  await test.service.workspaceCreate('/workspace/b', {})
  await test.service.tenantOnboard('acme', { admin: 'user:ann' })
  await test.service.grant('tenant:acme#member', 'viewer', '/workspace/b', {})
  const times: number[] = []
  for (let i = 0; i < 50; i++) {
    const start = performance.now()
    await test.service.grant('user:bob', 'viewer', '/workspace/b', {})
    await test.service.revoke('user:bob', 'viewer', '/workspace/b')
    await test.service.grant('user:bob', 'viewer', '/tenants/acme', {})
    await test.service.revoke('user:bob', 'viewer', '/tenants/acme')
    times.push((performance.now() - start) / 4)
  }
  const least = Math.min(...times)
  t.comment(`${least.toFixed(2)} ms a grant or revoke`)
  t.ok(least < 10, `a grant or revoke takes ${least.toFixed(2)} ms; a look at each tuple would take more`)
  t.ok([...volumes.catalog.list(TUPLE_KIND)].length >= 100_000)
})
