/** What each call asks of whom: every call for the administrator, an owner, an editor, a viewer and a stranger. */
import t, { type Test } from 'tap'
import type { CallName, Service } from '../../src/api/calls.ts'
import { systemCode } from '../../src/errors.ts'
import { serviceFor } from '../../src/service/asuser.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import type { Context } from '../../src/workspaces/context.ts'
import { caller, engineFor, type TestEngine } from '../snapshots/support.ts'
import { fakeService, status, workspace } from './fake-service.ts'

const uids = { administrator: 0, owner: 1001, editor: 1002, viewer: 1003, stranger: 1999 } as const
type Role = keyof typeof uids
const roles = Object.keys(uids) as Role[]

const root: Role[] = ['administrator']
const owners: Role[] = [...root, 'owner']
const editors: Role[] = [...owners, 'editor']
const viewers: Role[] = [...editors, 'viewer']
const everybody: Role[] = [...viewers, 'stranger']

const SPACE = '/workspace/w'
const TENANT = '/tenants/acme'
const subject = (role: Role): string => `user:${role}`

interface Row<K extends CallName> {
  args: Parameters<Service[K]> | ((role: Role) => Parameters<Service[K]>)
  may: Role[]
}

/** The workspace of `owner`, in which the others have what they are called by; the same for a tenant. */
const rows: { [K in CallName]: Row<K>[] } = {
  status: [{ args: [], may: everybody }],
  workspaceCreate: [
    { args: ['/workspace/new', {}], may: everybody },
    { args: (role) => ['/workspace/new', { owner: subject(role) }], may: everybody },
    { args: ['/workspace/new', { owner: 'user:else' }], may: root },
    { args: [`${SPACE}/new`, { quotaBytes: 1 }], may: root },
    { args: ['/tenants/new', {}], may: root },
    { args: ['/new', {}], may: root },
    { args: [`${SPACE}/new`, {}], may: editors },
    { args: [`${SPACE}/dir/new`, {}], may: editors },
    { args: [`${SPACE}/private/new`, {}], may: root },
    { args: [`${TENANT}/new`, {}], may: editors },
  ],
  workspaceList: [{ args: [], may: everybody }],
  workspaceShow: [
    { args: [SPACE], may: viewers },
    { args: [TENANT], may: viewers },
    { args: ['/'], may: root },
    { args: ['/workspace'], may: root },
  ],
  workspaceDelete: [
    { args: [SPACE], may: owners },
    { args: [TENANT], may: root },
    { args: ['/'], may: root },
    { args: [`${SPACE}/nested`], may: owners },
  ],
  workspaceRename: [
    { args: [SPACE, '/workspace/new'], may: owners },
    { args: [SPACE, '/tenants/new'], may: root },
    { args: [SPACE, '/new'], may: root },
    { args: [TENANT, '/workspace/new'], may: root },
    { args: [`${SPACE}/nested`, `${SPACE}/dir/new`], may: owners },
  ],
  workspaceUpdate: [
    { args: [SPACE, { metadata: {} }], may: owners },
    { args: [SPACE, { snapshotDir: '.history' }], may: owners },
    { args: [TENANT, { metadata: {} }], may: root },
    { args: [TENANT, { snapshotDir: '.history' }], may: root },
  ],
  snapshotCreate: [
    { args: [SPACE, {}], may: editors },
    { args: [`${SPACE}/dir`, {}], may: editors },
    { args: [TENANT, {}], may: editors },
    { args: ['/', {}], may: root },
  ],
  snapshotList: [
    { args: [SPACE], may: viewers },
    { args: ['/'], may: root },
  ],
  snapshotShow: [{ args: [SPACE, 's'], may: viewers }],
  snapshotDelete: [
    { args: [SPACE, 's'], may: owners },
    { args: [TENANT, 's'], may: owners },
  ],
  snapshotDiff: [
    { args: [SPACE, 's', null, 10], may: viewers },
    { args: [`${SPACE}/private`, 's', null, 10], may: root },
  ],
  restore: [
    { args: [SPACE, 's', {}], may: owners },
    { args: [SPACE, 's', { dryRun: true }], may: owners },
    { args: [`${SPACE}/dir`, 's', {}], may: owners },
    { args: [TENANT, 's', {}], may: owners },
  ],
  fork: [
    { args: [SPACE, '/workspace/new', {}], may: viewers },
    { args: [SPACE, '/workspace/new', { snapshot: 's' }], may: viewers },
    { args: [SPACE, '/workspace/new', { withGrants: true }], may: owners },
    { args: [SPACE, '/workspace/new', { owner: 'user:else' }], may: root },
    { args: [SPACE, '/tenants/new', {}], may: root },
    { args: [SPACE, `${TENANT}/new`, {}], may: editors },
    { args: [TENANT, '/workspace/new', {}], may: viewers },
  ],
  identityAdd: [{ args: ['user:else', 7], may: root }],
  identityList: [{ args: [], may: root }],
  identityRemove: [{ args: ['user:else', {}], may: root }],
  grant: [
    { args: ['user:else', 'viewer', SPACE, {}], may: owners },
    { args: ['user:else', 'viewer', `${SPACE}/file`, {}], may: owners },
    { args: ['user:else', 'viewer', TENANT, {}], may: owners },
    { args: ['user:else', 'viewer', '/workspace', {}], may: root },
  ],
  revoke: [{ args: ['user:viewer', 'viewer', SPACE], may: owners }],
  grants: [{ args: [SPACE], may: owners }],
  check: [
    { args: (role) => [subject(role), 'write', SPACE], may: everybody },
    { args: (role) => [subject(role), 'write', `${SPACE}/dir`], may: viewers },
    { args: ['user:else', 'write', SPACE], may: owners },
  ],
  explain: [
    { args: (role) => [subject(role), 'write', SPACE], may: everybody },
    { args: (role) => [subject(role), 'write', `${SPACE}/dir`], may: viewers },
    { args: ['user:else', 'write', SPACE], may: owners },
  ],
  whoCan: [{ args: ['write', SPACE], may: owners }],
  whatCan: [
    { args: (role) => [subject(role)], may: everybody },
    { args: ['user:else'], may: root },
    { args: ['user:*'], may: root },
  ],
  groupAdd: [{ args: ['g', 'user:else'], may: root }],
  groupRemove: [{ args: ['g', 'user:else'], may: root }],
  groupList: [{ args: [], may: root }],
  modelShow: [{ args: [], may: everybody }],
  modelApply: [{ args: ['model'], may: root }],
  tenantOnboard: [{ args: ['new', { admin: 'user:else' }], may: root }],
  quotaSet: [
    { args: [SPACE, { bytes: 1 }], may: root },
    { args: [TENANT, { bytes: 1 }], may: root },
    { args: ['/', { bytes: 1 }], may: root },
    { args: [`${SPACE}/nested`, { bytes: 1 }], may: owners },
  ],
  quotaShow: [
    { args: [SPACE], may: viewers },
    { args: [TENANT], may: viewers },
    { args: ['/'], may: root },
  ],
  quotaList: [{ args: [], may: everybody }],
  checkpoint: [{ args: [], may: root }],
  collect: [{ args: [], may: root }],
  collectStatus: [{ args: [], may: root }],
  diskUsage: [
    { args: [null], may: root },
    { args: [SPACE], may: ['administrator', 'owner', 'editor', 'viewer'] },
  ],
  shutdown: [{ args: [], may: root }],
  fsck: [{ args: [], may: root }],
  scrub: [{ args: [{}], may: root }],
  scrubStatus: [{ args: [], may: root }],
  scrubStop: [{ args: [], may: root }],
  metrics: [{ args: [], may: root }],
}

interface World {
  made: TestEngine
  context: Context
  /** the real calls, by a user */
  as(role: Role | number): Service
}

async function worldFor(t: Test): Promise<World> {
  const made = await engineFor(t)
  const { engine, kernel, service } = made
  for (const [name, uid] of Object.entries(uids)) if (uid !== 0) await service.identityAdd(`user:${name}`, uid)
  await service.workspaceCreate(SPACE, { owner: 'user:owner' })
  await service.workspaceCreate(`${SPACE}/nested`, {})
  await service.tenantOnboard('acme', { admin: 'user:owner' })
  made.mkdir(`${SPACE}/dir`)
  mkdirOf(made, 1000, SPACE, 'private', 0o700)
  made.write(`${SPACE}/file`, 'text')
  const dir = made.stat(`${SPACE}/dir`).node
  for (const node of [dir, made.stat(SPACE).node]) engine.fs.setattr(caller, node, { mode: 0o777 })
  for (const path of [SPACE, TENANT]) {
    for (const relation of ['editor', 'viewer']) await service.grant(`user:${relation}`, relation, path, {})
    await service.snapshotCreate(path, { name: 's' })
  }
  let ids = 0
  const context: Context = {
    ...{ core: engine.fs.core, registry: engine.registry, access: engine.access, quotas: engine.quotas, kernel },
    ...{ now: () => new Date(), newId: () => `snap_${ids++}`, inBackground: () => undefined, aside: () => undefined },
  }
  return { made, context, as: (role) => service.forUser(typeof role === 'number' ? role : uids[role]) }
}

/** A directory of a uid's own. */
function mkdirOf(made: TestEngine, uid: number, parent: string, name: string, mode: number): void {
  const { node } = made.engine.fs.mkdir(caller, made.stat(parent).node, name, mode, 0)
  made.engine.fs.setattr(caller, node, { uid, mode })
}

/** `ok`, or the code of what it was refused with. */
async function outcome(call: () => Promise<unknown>): Promise<string> {
  try {
    await call()
    return 'ok'
  } catch (error) {
    return systemCode(error) ?? String(error)
  }
}

t.test('every call, for everybody', async (t) => {
  const { context } = await worldFor(t)
  for (const [name, table] of Object.entries(rows)) {
    for (const { args, may } of table) {
      for (const role of roles) {
        const words: unknown[] = typeof args === 'function' ? args(role) : args
        const fake = fakeService()
        const service = serviceFor(fake, context, uids[role])
        const method = service[name as CallName] as (...args: unknown[]) => Promise<unknown>
        const what = `${role}: ${name} ${JSON.stringify(words)}`
        t.equal(await outcome(() => method(...words)), may.includes(role) ? 'ok' : 'NEXUS_DENIED', what)
        if (!may.includes(role)) t.strictSame(fake.called, [], `${what}: nothing was begun`)
      }
    }
  }
})

t.test('a refusal says what is missing and whom to ask', async (t) => {
  const { as } = await worldFor(t)
  const refused = (call: Promise<unknown>, message: string) => t.rejects(call, { code: 'NEXUS_DENIED', message })
  await refused(
    as('viewer').grant('user:else', 'viewer', SPACE, {}),
    `user:viewer may not share ${SPACE}: ask one of its owners, or root`,
  )
  await refused(
    as('stranger').snapshotCreate(SPACE, {}),
    `user:stranger may not snapshot ${SPACE}: ask one of its owners, or root`,
  )
  await refused(as('owner').workspaceDelete(TENANT), `user:owner may not delete the tenant ${TENANT}: ask root`)
  await refused(as('owner').identityAdd('user:x', 9), 'user:owner may not say who is who: ask root')
  await refused(as('owner').workspaceCreate('/new', {}), 'user:owner may not make /new: ask root')
  await refused(as(4321).workspaceShow(SPACE), `user:uid-4321 may not read ${SPACE}: ask one of its owners, or root`)
})

t.test('whoever may not read learns no more than stat(2) tells', async (t) => {
  const { made, as } = await worldFor(t)
  const stat = (uid: number, path: string): string => {
    let node = nodeOf(0, ROOT_INO)
    for (const name of path.split('/').filter(Boolean)) {
      try {
        const found = made.engine.fs.lookup({ uid, gid: uid, pid: 1 }, node, name)
        if (found === undefined) return 'NEXUS_NOT_FOUND'
        node = found.node
      } catch {
        return 'NEXUS_DENIED'
      }
    }
    return 'ok'
  }
  for (const path of [SPACE, `${SPACE}/file`, `${SPACE}/none`, '/workspace/none', `${TENANT}/none`, '/none/deeper']) {
    const calls = [
      as('stranger').workspaceShow(path),
      as('stranger').snapshotCreate(path, {}),
      as('stranger').grants(path),
      as('stranger').restore(path, 's', {}),
      as('stranger').fork(path, '/workspace/new', {}),
      as('stranger').check('user:viewer', 'read', path),
      as('stranger').workspaceRename(path, '/workspace/new'),
    ]
    for (const call of calls) t.equal(await outcome(() => call), stat(uids.stranger, path), path)
  }
  t.equal(await outcome(() => as('stranger').check('user:stranger', 'read', `${SPACE}/none`)), 'NEXUS_DENIED')
  t.match(await as('stranger').check('user:stranger', 'read', SPACE), { allowed: false })
  await made.service.groupAdd('eng', 'user:else')
  await made.service.grant('group:eng#member', 'viewer', SPACE, {})
  t.notMatch(JSON.stringify(await as('stranger').explain('user:stranger', 'read', SPACE)), /eng/, 'nor who has a grant')
  t.match(JSON.stringify(await as('viewer').explain('user:viewer', 'write', SPACE)), /could come from/)
})

t.test('lists and status hold what concerns the caller', async (t) => {
  const { context, as } = await worldFor(t)
  const paths = async (role: Role): Promise<string[]> => (await as(role).workspaceList()).map(({ path }) => path)
  t.strictSame(await paths('stranger'), [])
  t.strictSame(await paths('viewer'), [TENANT, SPACE, `${SPACE}/nested`])
  t.strictSame(await paths('administrator'), ['/', TENANT, '/workspace/a', SPACE, `${SPACE}/nested`])
  const told = await serviceFor(fakeService(), context, uids.viewer).status()
  const nothing = {
    pid: 0,
    supervisor_pid: 0,
    workspaces: 0,
    snapshots: 0,
    requests: {},
    memory_bytes: 0,
    log_bytes: 0,
    dirty_bytes: 0,
    takeovers: 0,
    taken_over_at: null,
    stalls: 0,
    disk_free_bytes: 0,
    used: { workspaces: 0, snapshots: 0 },
  }
  t.strictSame(told, { ...status, ...nothing })
  t.strictSame(await serviceFor(fakeService(), context, 0).status(), status)
  t.strictSame(await serviceFor(fakeService(), context, 0).workspaceList(), [workspace])
})

t.test('what is made belongs to its maker', async (t) => {
  const { made, as } = await worldFor(t)
  await as('viewer').fork(SPACE, '/workspace/copy', {})
  await as('stranger').workspaceCreate('/workspace/new', { metadata: { a: 'b' } })
  for (const [path, role] of [
    ['/workspace/copy', 'viewer'],
    ['/workspace/new', 'stranger'],
  ] as const) {
    t.match(await made.service.grants(path), [{ subject: subject(role), relation: 'owner' }], path)
    t.match(await made.service.check(subject('owner'), 'read', path), { allowed: false }, 'not the owner of what it was made of')
    await as(role).grant('user:else', 'viewer', path, {})
    await as(role).workspaceDelete(path)
  }
})

t.test('differences leave out what lies in directories that the caller could not list', async (t) => {
  const { made, as } = await worldFor(t)
  mkdirOf(made, 0, `${SPACE}/private`, 'inner', 0o777)
  await made.service.workspaceCreate(`${SPACE}/private/inner/nested`, { owner: 'user:owner' })
  await made.service.snapshotCreate(SPACE, { name: 'private' })
  for (const name of ['dir/a', 'private/b', 'private/inner/c', 'private/inner/nested/d', 'nested/e']) {
    made.write(`${SPACE}/${name}`, 'text')
  }
  made.engine.fs.setattr(caller, made.stat(`${SPACE}/private/inner`).node, { mode: 0o775 })
  const paths = (info: { changes: { path: string }[] }): string[] => info.changes.map(({ path }) => path).sort()
  const all = ['dir/a', 'nested/e', 'private/b', 'private/inner', 'private/inner/c', 'private/inner/nested/d']
  t.strictSame(paths(await as('administrator').snapshotDiff(SPACE, 'private', null, 100)), all)
  t.strictSame(paths(await as('viewer').snapshotDiff(SPACE, 'private', null, 100)), ['dir/a', 'nested/e'])
  t.strictSame(paths(await as('owner').restore(SPACE, 'private', { dryRun: true })), ['dir/a', 'nested/e'])
  made.engine.fs.setattr(caller, made.stat(`${SPACE}/private`).node, { uid: uids.viewer })
  const open = ['private', 'private/b', 'private/inner', 'private/inner/c', 'private/inner/nested/d']
  t.strictSame(paths(await as('viewer').snapshotDiff(SPACE, 'private', null, 100)), ['dir/a', 'nested/e', ...open.slice(0, 4)])
  t.strictSame(paths(await as('owner').restore(SPACE, 'private', {})), ['dir/a', 'nested/e', 'private'])
})

t.test('what lies in a directory is taken out of it by who may write there', async (t) => {
  const { made, as } = await worldFor(t)
  const nested = `${SPACE}/nested`
  await made.service.grant('user:stranger', 'owner', nested, {})
  await made.service.grant('user:stranger', 'editor', `${SPACE}/dir`, {})
  t.equal(await outcome(() => as('stranger').workspaceDelete(nested)), 'NEXUS_DENIED')
  t.equal(await outcome(() => as('stranger').workspaceRename(nested, `${SPACE}/dir/new`)), 'NEXUS_DENIED')
  t.equal(await outcome(() => as('editor').workspaceRename(nested, `${SPACE}/dir/new`)), 'NEXUS_DENIED', 'nor by him alone')
  t.equal(await outcome(() => as('owner').workspaceRename(nested, `${SPACE}/dir/new`)), 'ok')
  t.equal(await outcome(() => as('stranger').workspaceDelete(`${SPACE}/dir/new`)), 'ok')
})

t.test('workspaces that lie inside go along only with who may take them, too', async (t) => {
  const { made, as } = await worldFor(t)
  const { text } = await made.service.modelShow()
  const [types, workspaces] = text.split('type workspace\n')
  const own = workspaces?.replace(/ or (owner|editor|viewer) from parent/g, '') ?? ''
  await made.service.modelApply(`${types}type workspace\n${own}`)
  const calls: (() => Promise<unknown>)[] = [
    () => as('owner').workspaceDelete(SPACE),
    () => as('owner').restore(SPACE, 's', {}),
    () => as('owner').snapshotDiff(SPACE, 's', null, 10),
    () => as('owner').fork(SPACE, '/workspace/new', {}),
  ]
  for (const call of calls) {
    await t.rejects(call(), { code: 'NEXUS_DENIED', message: /user:owner may not \w+ a workspace in \/workspace\/w/ })
  }
  await made.service.grant('user:owner', 'owner', `${SPACE}/nested`, {})
  t.equal(await outcome(() => as('owner').restore(SPACE, 's', {})), 'ok')
})

t.test('a snapshot belongs to the directory that it was taken of', async (t) => {
  const { made, as } = await worldFor(t)
  made.mkdir(`${SPACE}/other`)
  await made.service.grant('user:stranger', 'owner', `${SPACE}/dir`, {})
  await made.service.snapshotCreate(`${SPACE}/other`, { name: 'of-other' })
  await made.service.snapshotCreate(`${SPACE}/dir`, { name: 'of-dir' })
  const stranger = as('stranger')
  for (const name of ['s', 'of-other']) {
    t.equal(await outcome(() => stranger.snapshotDelete(`${SPACE}/dir`, name)), 'NEXUS_DENIED', name)
    t.equal(await outcome(() => stranger.snapshotShow(`${SPACE}/dir`, name)), 'NEXUS_DENIED', name)
  }
  t.match(await stranger.snapshotShow(`${SPACE}/dir`, 'of-dir'), { name: 'of-dir' })
  t.match(await stranger.restore(`${SPACE}/dir`, 's', {}), { path: `${SPACE}/dir` })
  t.match(await stranger.snapshotDelete(`${SPACE}/dir`, 'of-dir'), { name: 'of-dir' })
})

t.test('a directory is not restored from another that had its path', async (t) => {
  const { made, as } = await worldFor(t)
  made.mkdir(`${SPACE}/secret`)
  made.write(`${SPACE}/secret/key`, 'secret')
  await made.service.snapshotCreate(SPACE, { name: 'before' })
  made.unlink(`${SPACE}/secret/key`)
  made.engine.fs.rmdir(caller, made.stat(SPACE).node, 'secret')
  made.mkdir(`${SPACE}/secret`)
  await made.service.grant('user:stranger', 'owner', `${SPACE}/secret`, {})
  t.equal(await outcome(() => as('stranger').restore(`${SPACE}/secret`, 'before', {})), 'NEXUS_DENIED')
  t.strictSame(made.list(`${SPACE}/secret`), [])
  t.equal(await outcome(() => as('owner').restore(`${SPACE}/secret`, 'before', {})), 'ok', 'who may restore all of it may')
  t.strictSame(made.list(`${SPACE}/secret`), ['key'])
})

t.test('plain directories go by their owner, their bits and their ACLs', async (t) => {
  const { made, as } = await worldFor(t)
  const plain: [string, number, number, Role[]][] = [
    ['open', 0, 0o777, everybody],
    ['sticky', 0, 0o1777, everybody],
    ['owned', uids.editor, 0o755, ['administrator', 'editor']],
    ['closed', uids.editor, 0o555, root],
    ['grouped', 0, 0o775, root],
    // Who is in the group is not known: what it has not, nobody has by way of the others.
    ['ungrouped', 0, 0o707, root],
    ['shut', 0, 0o770, root],
  ]
  for (const [name, uid, mode, may] of plain) {
    mkdirOf(made, uid, '/', name, mode)
    for (const role of roles) {
      const path = `/${name}/${role}`
      t.equal(await outcome(() => as(role).workspaceCreate(path, {})), may.includes(role) ? 'ok' : 'NEXUS_DENIED', path)
    }
  }
  t.equal(await outcome(() => as('stranger').workspaceCreate('/shut/none/deeper', {})), 'NEXUS_DENIED', 'not even what is there')
  const acl = Buffer.alloc(4 + 5 * 8)
  acl.writeUInt32LE(2, 0)
  const entries = [
    [1, 7, -1],
    [2, 0, uids.stranger],
    [4, 7, -1],
    [16, 7, -1],
    [32, 7, -1],
  ] as const
  entries.forEach(([tag, perm, id], i) => {
    acl.writeUInt16LE(tag, 4 + i * 8)
    acl.writeUInt16LE(perm, 6 + i * 8)
    acl.writeInt32LE(id, 8 + i * 8)
  })
  made.engine.fs.setxattr(caller, made.stat('/open').node, 'system.posix_acl_access', acl, 0, false)
  t.equal(await outcome(() => as('stranger').workspaceCreate('/open/again', {})), 'NEXUS_DENIED', 'named in the ACL')
  t.equal(await outcome(() => as('viewer').workspaceCreate('/open/again', {})), 'ok')
})

t.test('where the model hides parts, nobody but root takes all along', async (t) => {
  const { made, as } = await worldFor(t)
  const { text } = await made.service.modelShow()
  const hiding = text.replaceAll('define read: viewer', 'define blocked: [user]\n    define read: viewer but not blocked')
  await made.service.modelApply(hiding)
  const calls = (role: Role): Promise<unknown>[] => [
    as(role).fork(SPACE, `/workspace/by-${role}`, {}),
    as(role).snapshotDiff(SPACE, 's', null, 10),
  ]
  for (const call of calls('owner')) {
    await t.rejects(call, {
      code: 'NEXUS_DENIED',
      message: /because the store's model can hide parts of what he may read: ask root/,
    })
  }
  for (const call of calls('administrator')) await call
  made.write(`${SPACE}/file`, 'changed')
  t.match(await as('owner').restore(SPACE, 's', { dryRun: true }), { changes: [], truncated: true }, 'names may be hidden, too')
})
