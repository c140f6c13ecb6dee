import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { httpStatusOf } from '../../src/api/protocol.ts'
import { connectControl } from '../../src/client/client.ts'
import { type ErrorCode, FS, NexusError } from '../../src/errors.ts'
import { serveControl } from '../../src/server/server.ts'
import {
  checked,
  collected,
  collecting,
  diff,
  diskUsage,
  explained,
  fakeService,
  forked,
  fsck,
  granted,
  group,
  identity,
  memoryLogger,
  metrics,
  model,
  quota,
  quotaShown,
  reach,
  restored,
  scratchDir,
  scrub,
  serveFake,
  snapshot,
  status,
  tenant,
  workspace,
} from '../service/fake-service.ts'

const path = '/workspace/acme'
const newPath = '/workspace/trial'
const metadata = { team: 'red', empty: '' }
const alice = 'user:alice'
const eng = 'group:eng#member'
const expires = '2999-12-31T23:00:00.000Z'

type Call = { [K in keyof Service]: [K, ...Parameters<Service[K]>] }[keyof Service]

/** Every call, with what the fake answers; rows with the same call vary the arguments. */
const rows: { call: Call; want: unknown }[] = [
  { call: ['status'], want: status },
  { call: ['workspaceCreate', path, {}], want: workspace },
  { call: ['workspaceCreate', path, { metadata, owner: alice }], want: workspace },
  { call: ['workspaceList'], want: [workspace] },
  { call: ['workspaceShow', path], want: workspace },
  { call: ['workspaceDelete', path], want: workspace },
  { call: ['workspaceRename', path, newPath], want: workspace },
  { call: ['workspaceUpdate', path, { metadata }], want: workspace },
  { call: ['workspaceUpdate', path, { snapshotDir: '.history' }], want: workspace },
  { call: ['snapshotCreate', path, {}], want: snapshot },
  { call: ['snapshotCreate', path, { name: 'before', metadata }], want: snapshot },
  { call: ['snapshotList', path], want: [snapshot] },
  { call: ['snapshotShow', path, 'before'], want: snapshot },
  { call: ['snapshotDelete', path, 'snap_01'], want: snapshot },
  { call: ['snapshotDiff', path, 'before', null, 10], want: diff },
  { call: ['snapshotDiff', path, 'before', 'after', 10], want: diff },
  { call: ['restore', path, 'before', {}], want: restored },
  { call: ['restore', path, 'before', { dryRun: true, limit: 5 }], want: restored },
  { call: ['restore', path, 'before', { force: false, stop: true }], want: restored },
  { call: ['fork', path, newPath, {}], want: forked },
  { call: ['fork', path, newPath, { snapshot: 'before', withGrants: true, owner: eng }], want: forked },
  { call: ['identityAdd', alice, 1000], want: identity },
  { call: ['identityList'], want: [identity] },
  { call: ['identityRemove', 'agent:coder-7', {}], want: identity },
  { call: ['identityRemove', alice, { uid: 1000 }], want: identity },
  { call: ['grant', eng, 'editor', path, {}], want: granted },
  { call: ['grant', 'user:*', 'viewer', `${path}/file.txt`, { expires }], want: granted },
  { call: ['revoke', alice, 'editor', path], want: granted },
  { call: ['grants', path], want: [granted] },
  { call: ['check', alice, 'write', path], want: checked },
  { call: ['explain', alice, 'write', path], want: explained },
  { call: ['whoCan', 'write', path], want: { subjects: [alice] } },
  { call: ['whatCan', alice], want: [reach] },
  { call: ['groupAdd', 'eng', alice], want: group },
  { call: ['groupRemove', 'eng', 'tenant:acme#member'], want: group },
  { call: ['groupList'], want: [group] },
  { call: ['modelShow'], want: model },
  { call: ['modelApply', model.text], want: { ...model, builtin: false } },
  { call: ['tenantOnboard', 'acme', { admin: alice }], want: tenant },
  { call: ['tenantOnboard', 'acme', { admin: alice, metadata, directories: ['data'] }], want: tenant },
  { call: ['tenantOnboard', 'acme', { admin: alice, quotaBytes: 5, quotaInodes: 0 }], want: tenant },
  { call: ['workspaceCreate', path, { quotaBytes: 5, quotaInodes: 6 }], want: workspace },
  { call: ['quotaSet', path, { bytes: 5 }], want: quota },
  { call: ['quotaSet', path, { bytes: null, inodes: 7 }], want: quota },
  { call: ['quotaShow', path], want: quotaShown },
  { call: ['quotaList'], want: [quota] },
  { call: ['checkpoint'], want: { elapsed_ms: 7 } },
  { call: ['collect'], want: collected },
  { call: ['shutdown'], want: { pid: 4321 } },
  { call: ['collectStatus'], want: collecting },
  { call: ['diskUsage', null], want: diskUsage },
  { call: ['diskUsage', path], want: diskUsage },
  { call: ['fsck'], want: fsck },
  { call: ['scrub', {}], want: scrub },
  { call: ['scrub', { rate: 5 }], want: scrub },
  { call: ['scrubStatus'], want: scrub },
  { call: ['scrubStop'], want: scrub },
  { call: ['metrics'], want: metrics },
]

function run(service: Service, [name, ...args]: Call): Promise<unknown> {
  return (service[name] as (...args: unknown[]) => Promise<unknown>)(...args)
}

t.test('each call carries its arguments there and its answer back', async (t) => {
  const service = fakeService()
  const { socketPath } = await serveFake(t, scratchDir(t), service)
  const client = connectControl({ socketPath })
  for (const { call, want } of rows) t.strictSame(await run(client, call), want, JSON.stringify(call))
  t.strictSame(
    service.called,
    rows.map(({ call }) => call).filter(([name]) => name !== 'status'),
  )
  const calls = Object.keys(service).filter((key) => key !== 'called')
  t.strictSame([...new Set(rows.map(({ call }) => call[0]))].sort(), calls.sort(), 'no call is left out')
})

t.test('subjects and times arrive in their one spelling', async (t) => {
  const service = fakeService()
  const { socketPath } = await serveFake(t, scratchDir(t), service)
  const client = connectControl({ socketPath })
  await client.grant('alice', 'viewer', `${path}/`, { expires: '3000-01-01T01:00+02:00' })
  await client.groupAdd('group:eng', 'group:leads')
  await client.tenantOnboard('acme', { admin: 'alice' })
  await client.fork(path, newPath, { owner: 'alice' })
  t.strictSame(service.called, [
    ['grant', alice, 'viewer', path, { expires }],
    ['groupAdd', 'eng', 'group:leads#member'],
    ['tenantOnboard', 'acme', { admin: alice }],
    ['fork', path, newPath, { owner: alice }],
  ])
})

t.test('an error of the service keeps code and message', async (t) => {
  const codes = Object.keys(httpStatusOf) as ErrorCode[]
  const thrown = codes.map((code) => new NexusError(code, `about ${code}`))
  let next = 0
  const service = fakeService({
    workspaceList: async () => {
      throw thrown[next++]
    },
  })
  const { socketPath, logger } = await serveFake(t, scratchDir(t), service)
  const client = connectControl({ socketPath })
  for (const code of codes) await t.rejects(client.workspaceList(), { name: 'NexusError', code, message: `about ${code}` })
  t.equal(logger.lines.length, 1, 'only the bug is logged')
})

t.test('an unexpected error is logged and told without its text', async (t) => {
  const failures: [unknown, string][] = [
    [new Error('secret'), 'NEXUS_INTERNAL'],
    ['no error at all', 'NEXUS_INTERNAL'],
    [FS.EIO, 'NEXUS_INTERNAL'],
    [FS.ENOSPC, 'NEXUS_NO_SPACE'],
    [Object.assign(new Error('write'), { code: 'EDQUOT' }), 'NEXUS_NO_SPACE'],
    [Object.assign(new Error('open'), { code: 'EROFS' }), 'NEXUS_READ_ONLY'],
  ]
  let next = 0
  const service = fakeService({
    checkpoint: async () => {
      throw failures[next++]?.[0]
    },
  })
  const { socketPath, logger } = await serveFake(t, scratchDir(t), service)
  for (const [, code] of failures) {
    const reply = await post(socketPath, '/v1/checkpoint', '{}')
    t.match(JSON.parse(reply.text), { error: { code } })
    t.notMatch(reply.text, /secret|no error|stack|at /)
  }
  t.strictSame(logger.lines, Array(3).fill('control call failed err,url'))
})

interface Reply {
  status: number | undefined
  text: string
}

/** One request by hand. */
function post(socketPath: string, url: string, body: string | Buffer, method = 'POST'): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, agent: false, method, path: url }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
      })
      response.on('end', () => resolve({ status: response.statusCode, text }))
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

t.test('bodies that are off are refused before the service hears of them', async (t) => {
  const service = fakeService()
  const { socketPath } = await serveFake(t, scratchDir(t), service)
  const refused: { url?: string; body: string | Buffer; want: RegExp; code?: ErrorCode; method?: string }[] = [
    { body: '{', want: /not JSON/ },
    { body: Buffer.from([0x22, 0xff, 0x22]), want: /not JSON in UTF-8/ },
    { body: '[]', want: /the body must be a JSON object/ },
    { body: 'null', want: /the body must be a JSON object/ },
    { body: '"/a"', want: /the body must be a JSON object/ },
    { body: '', want: /path is missing/ },
    { body: '{"path":7}', want: /path must be a string/ },
    { body: '{"path":"/a/../b"}', want: /has "\.\." in it/ },
    { body: '{"path":"/a","nmae":"x"}', want: /snapshotCreate has no field "nmae": it takes path, name, metadata/ },
    { body: '{"path":"/a","__proto__":{}}', want: /no field "__proto__"/ },
    { body: '{"path":"/a","name":null}', want: /name must be a string/ },
    { body: '{"path":"/a","name":"snap_x"}', want: /means an id/ },
    { body: '{"path":"/a","metadata":{"a":1}}', want: /metadata a must be a string/ },
    { url: '/v1/restore', body: '{"path":"/a","snapshot":"s","dryRun":"yes"}', want: /dryRun must be true or false/ },
    { url: '/v1/restore', body: '{"path":"/a","snapshot":"s","force":1}', want: /force must be true or false/ },
    { url: '/v1/restore', body: '{"path":"/a","snapshot":"s","stop":"no"}', want: /stop must be true or false/ },
    { url: '/v1/restore', body: '{"path":"/a","snapshot":"s","limit":-1}', want: /limit must be a whole number/ },
    { url: '/v1/snapshotDiff', body: '{"path":"/a","from":"s","to":null}', want: /limit must be a whole number/ },
    { url: '/v1/workspaceUpdate', body: '{"path":"/a","metadata":1}', want: /metadata must be a JSON object/ },
    { url: '/v1/workspaceUpdate', body: '{"path":"/a","snapshotDir":"a/b"}', want: /snapshotDir "a\/b" has a "\/" in it/ },
    { url: '/v1/workspaceCreate', body: '{"path":"/a","owner":"a b"}', want: /owner "a b" has not a usable name/ },
    { url: '/v1/fork', body: '{"path":"/a","newPath":"/b","withGrants":1}', want: /withGrants must be true or false/ },
    { url: '/v1/identityAdd', body: '{"subject":"alice","uid":0}', want: /uid 0 is the administrator and needs no name/ },
    { url: '/v1/identityAdd', body: '{"subject":"group:eng","uid":7}', want: /not one user or agent/ },
    { url: '/v1/identityRemove', body: '{"subject":"alice","uid":null}', want: /uid must be a whole number/ },
    { url: '/v1/grant', body: '{"subject":"alice","relation":"Editor","path":"/a"}', want: /relation "Editor" is no such word/ },
    { url: '/v1/grant', body: '{"subject":"a","relation":"b","path":"/a","expires":"12h"}', want: /"12h" is not a time/ },
    { url: '/v1/check', body: '{"subject":"alice","permission":"","path":"/a"}', want: /permission is empty/ },
    { url: '/v1/whoCan', body: '{"subject":"alice","permission":"read","path":"/a"}', want: /takes permission, path/ },
    { url: '/v1/groupAdd', body: '{"group":"eng#member","member":"alice"}', want: /group "eng#member" has not a usable name/ },
    { url: '/v1/modelApply', body: '{"text":""}', want: /text is empty/ },
    { url: '/v1/tenantOnboard', body: '{"id":"a/b","admin":"alice"}', want: /id "a\/b" has not a usable name/ },
    { url: '/v1/tenantOnboard', body: '{"id":"acme"}', want: /admin is missing/ },
    { url: '/v1/tenantOnboard', body: '{"id":"a","admin":"a","directories":["x/y"]}', want: /without "\/"/ },
    { url: '/v1/status', body: '{"a":1}', want: /it takes none/ },
    { url: '/v1/status', body: '', method: 'GET', want: /must be called with POST/ },
    { url: '/v1/constructor', body: '{}', want: /no call/, code: 'NEXUS_UNSUPPORTED' },
    { url: '/v2/status', body: '{}', want: /no call/, code: 'NEXUS_UNSUPPORTED' },
    { url: '/', body: '{}', want: /no call/, code: 'NEXUS_UNSUPPORTED' },
    { body: ' '.repeat(1024 * 1024 + 1), want: /too large: at most 1048576 bytes/ },
    { body: 'x'.repeat(8 * 1024 * 1024), want: /too large/ },
  ]
  for (const { url = '/v1/snapshotCreate', body, want, code = 'NEXUS_USAGE', method } of refused) {
    const reply = await post(socketPath, url, body, method)
    t.equal(reply.status, httpStatusOf[code])
    t.match(JSON.parse(reply.text), { error: { code, message: want } })
  }
  t.strictSame(service.called, [])
  const widest = `{"path":"/a"${' '.repeat(1024 * 1024 - 13)}}`
  t.equal((await post(socketPath, '/v1/snapshotCreate', widest)).status, 200, 'exactly 1 MiB is fine')
  t.equal((await post(socketPath, '/v1/status', '')).status, 200, 'no body is an empty object')
})

t.test('a client that hangs up while sending does no harm', async (t) => {
  const { socketPath, logger } = await serveFake(t, scratchDir(t), fakeService())
  await new Promise<void>((resolve) => {
    const sent = request({
      socketPath,
      agent: false,
      method: 'POST',
      path: '/v1/status',
      headers: { 'content-length': 10 },
    })
    sent.on('error', () => resolve())
    sent.write('{')
    setTimeout(() => sent.destroy(new Error('gone')), 50)
  })
  t.strictSame(await connectControl({ socketPath }).status(), status)
  t.strictSame(logger.lines, [])
})

t.test('a call that hangs ends with NEXUS_TIMEOUT', async (t) => {
  const { promise, release } = gate()
  const { socketPath } = await serveFake(t, scratchDir(t), fakeService({ checkpoint: () => promise }))
  const client = connectControl({ socketPath, timeoutMs: 100 })
  await t.rejects(client.checkpoint(), { code: 'NEXUS_TIMEOUT', message: /did not answer checkpoint within 0.1 s/ })
  release()
})

function gate() {
  let release = () => {}
  const promise = new Promise<{ elapsed_ms: number }>((resolve) => {
    release = () => resolve({ elapsed_ms: 1 })
  })
  return { promise, release }
}

t.test('closing lets the call at work end, twice is quiet, and the socket is gone', async (t) => {
  const { promise, release } = gate()
  const { socketPath, server } = await serveFake(t, scratchDir(t), fakeService({ checkpoint: () => promise }))
  const client = connectControl({ socketPath })
  const call = client.checkpoint()
  await client.status()
  const closing = Promise.all([server.close(), server.close()])
  release()
  t.strictSame(await call, { elapsed_ms: 1 })
  await closing
  t.notOk(existsSync(socketPath))
  await t.rejects(client.status(), { code: 'NEXUS_NOT_RUNNING' })
})

t.test('the socket has mode 0600 whatever the umask, and the umask stays', async (t) => {
  const before = process.umask(0)
  t.teardown(() => process.umask(before))
  const { socketPath } = await serveFake(t, scratchDir(t), fakeService())
  t.equal(statSync(socketPath).mode & 0o7777, 0o600)
  t.equal(process.umask(), 0)
})

t.test('a live socket is refused with NEXUS_BUSY and goes on', async (t) => {
  const { socketPath } = await serveFake(t, scratchDir(t), fakeService())
  const logger = memoryLogger()
  await t.rejects(serveControl(fakeService(), { socketPath, logger }), {
    code: 'NEXUS_BUSY',
    message: /another nexusd/,
  })
  t.strictSame(await connectControl({ socketPath }).status(), status)
})

t.test('a stale socket is replaced', async (t) => {
  const dir = scratchDir(t)
  await leaveStale(join(dir, 'control.sock'))
  t.ok(statSync(join(dir, 'control.sock')).isSocket())
  await t.rejects(connectControl({ socketPath: join(dir, 'control.sock') }).status(), { code: 'NEXUS_NOT_RUNNING' })
  const { socketPath } = await serveFake(t, dir, fakeService())
  t.strictSame(await connectControl({ socketPath }).status(), status)
})

/** A socket file as a killed daemon leaves it: bound under another name, closed, and kept. */
async function leaveStale(socketPath: string): Promise<void> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(`${socketPath}.tmp`, resolve))
  renameSync(`${socketPath}.tmp`, socketPath)
  await new Promise((resolve) => server.close(resolve))
}

t.test('a file that is no socket is left alone', async (t) => {
  const socketPath = join(scratchDir(t), 'control.sock')
  writeFileSync(socketPath, 'precious')
  const logger = memoryLogger()
  await t.rejects(serveControl(fakeService(), { socketPath, logger }), {
    code: 'NEXUS_EXISTS',
    message: /move it away/,
  })
  t.equal(statSync(socketPath).size, 8)
})

t.test('a data directory with a path too long for a socket works all the same', async (t) => {
  const dir = join(scratchDir(t), 'long'.repeat(40), 'longer'.repeat(20))
  const socketPath = join(dir, 'control.sock')
  const logger = memoryLogger()
  await t.rejects(serveControl(fakeService(), { socketPath, logger }), { code: 'ENOENT' })
  await t.rejects(connectControl({ socketPath }).status(), { code: 'NEXUS_NOT_RUNNING' })
  mkdirSync(dir, { recursive: true })
  await leaveStaleBy(dir)
  const server = await serveControl(fakeService(), { socketPath, logger })
  t.equal(statSync(socketPath).mode & 0o7777, 0o600)
  await t.rejects(serveControl(fakeService(), { socketPath, logger }), { code: 'NEXUS_BUSY' })
  const descriptors = openDescriptors()
  for (let i = 0; i < 5; i++) t.strictSame(await connectControl({ socketPath }).status(), status)
  await t.rejects(connectControl({ socketPath: join(dir, 'none.sock') }).status(), { code: 'NEXUS_NOT_RUNNING' })
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.ok(openDescriptors() <= descriptors, 'no descriptor is left open')
  await server.close()
  t.notOk(existsSync(socketPath))
})

async function leaveStaleBy(dir: string): Promise<void> {
  const before = process.cwd()
  process.chdir(dir)
  try {
    await leaveStale('control.sock')
  } finally {
    process.chdir(before)
  }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

t.test('what a failed connection is called', async (t) => {
  const dir = scratchDir(t)
  const none = connectControl({ socketPath: join(dir, 'control.sock') })
  const want = `no nexusd answers on ${dir}/control.sock: start it with "nexusd mount /mnt/nexus", or name its data directory with --data`
  await t.rejects(none.status(), { code: 'NEXUS_NOT_RUNNING', message: want })
  writeFileSync(join(dir, 'file'), '')
  await t.rejects(connectControl({ socketPath: join(dir, 'file/control.sock') }).status(), {
    code: 'NEXUS_NOT_RUNNING',
  })

  const strange = join(dir, 'strange.sock')
  const server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello'))
  await new Promise<void>((resolve) => server.listen(strange, resolve))
  await t.rejects(connectControl({ socketPath: strange }).status(), {
    code: 'NEXUS_INTERNAL',
    message: /does not speak/,
  })
  server.close()

  const dying = join(dir, 'dying.sock')
  const mute = createServer((socket) => socket.once('data', () => socket.destroy()))
  await new Promise<void>((resolve) => mute.listen(dying, resolve))
  await t.rejects(connectControl({ socketPath: dying }).checkpoint(), {
    code: 'NEXUS_NOT_RUNNING',
    message: /went away during checkpoint/,
  })
  mute.close()
})

const root = process.geteuid?.() === 0
t.test('another user is denied', { skip: !root && 'needs root, to become somebody else' }, async (t) => {
  const dir = scratchDir(t)
  chmodSync(dir, 0o755)
  const { socketPath } = await serveFake(t, dir, fakeService())
  process.seteuid?.(65534)
  t.teardown(() => process.seteuid?.(0))
  await t.rejects(connectControl({ socketPath }).status(), { code: 'NEXUS_DENIED', message: /you may not talk to/ })
  process.seteuid?.(0)
})
