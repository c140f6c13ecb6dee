/** Whatever answers on a control socket: `nexusctl` ends with what it says or with one clear line, and reads no more than it has to. */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { callNames } from '../../src/api/calls.ts'
import { connectControl } from '../../src/client/client.ts'
import { type Ended, inProcess, nexusctl } from '../cli/running.ts'
import { fakeService, scratchDir, status } from '../service/fake-service.ts'
import { badBytes, tryAll } from './support.ts'

const MIB = 1024 * 1024

/** Something on `control.sock` that answers whatever it is asked in its own way. */
async function answering(t: Test, answer: (socket: Socket) => void): Promise<string> {
  const dir = scratchDir(t)
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
    socket.once('data', () => answer(socket))
  })
  await new Promise<void>((resolve) => server.listen(join(dir, 'control.sock'), resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return dir
}

const http = (body: string | Buffer, head = 'HTTP/1.1 200 OK') => {
  const bytes = Buffer.from(body)
  return Buffer.concat([Buffer.from(`${head}\r\ncontent-length: ${bytes.length}\r\nconnection: close\r\n\r\n`), bytes])
}

/** Goes on for as long as somebody reads; returns how much that was. */
function flood(socket: Socket, first: string, part: Buffer): void {
  socket.write(first)
  const more = (): void => {
    if (!socket.destroyed) socket.write(part, () => setImmediate(more))
  }
  more()
}

const STRANGE = /does not speak as nexusd does$/
const AWAY = /^nexusd went away during status/
const rows: { name: string; say: string | Buffer | ((socket: Socket) => void); want: RegExp }[] = [
  { name: 'no HTTP', say: 'SSH-2.0-OpenSSH_9.9\r\n', want: STRANGE },
  { name: 'TLS', say: Buffer.from('15030300020246', 'hex'), want: STRANGE },
  { name: 'an endless header', say: (socket) => flood(socket, 'HTTP/1.1 200 OK\r\na: ', Buffer.alloc(9999, 'x')), want: STRANGE },
  {
    name: 'endless headers',
    say: (socket) => flood(socket, 'HTTP/1.1 200 OK\r\n', Buffer.from('a: b\r\n'.repeat(99))),
    want: STRANGE,
  },
  { name: 'two lengths', say: 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}', want: STRANGE },
  { name: 'a chunk of no size', say: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n', want: STRANGE },
  { name: 'nothing, and the end', say: (socket) => void socket.end(), want: AWAY },
  { name: 'nothing, and gone', say: (socket) => void socket.destroy(), want: AWAY },
  { name: 'the end within the header', say: (socket) => void socket.end('HTTP/1.1 200'), want: AWAY },
  {
    name: 'the end within the body',
    say: (socket) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"a"'),
    want: AWAY,
  },
  {
    name: 'the end within a chunk',
    say: (socket) => void socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n99\r\n{"a"'),
    want: AWAY,
  },
  {
    name: 'an endless answer',
    say: (socket) => flood(socket, 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n', Buffer.alloc(MIB, ' ')),
    want: /^an answer of more than 4194304 bytes was not read/,
  },
  { name: 'another protocol', say: 'HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n', want: STRANGE },
  {
    name: 'only preliminary answers',
    say: (socket) => flood(socket, '', Buffer.from('HTTP/1.1 102 Wait\r\n\r\n')),
    want: /within 2 s/,
  },
  { name: 'a byte now and then', say: (socket) => slowly(socket, http(JSON.stringify(status))), want: /within 2 s/ },
  { name: 'nothing at all', say: () => undefined, want: /did not answer status within 2 s: it may still be at work$/ },
  { name: 'a page', say: http('<html>'), want: STRANGE },
  { name: 'an empty answer', say: http(''), want: STRANGE },
  { name: 'half an answer', say: http(JSON.stringify(status).slice(0, -9)), want: STRANGE },
  { name: 'another place', say: http('', 'HTTP/1.1 302 Found\r\nlocation: /'), want: STRANGE },
  { name: 'no content', say: 'HTTP/1.1 204 No Content\r\n\r\n', want: STRANGE },
  { name: 'an error without words', say: http('{"error":{"code":"NEXUS_BUSY"}}', 'HTTP/1.1 423 Locked'), want: STRANGE },
  { name: 'an error that is a list', say: http('[{"error":1}]', 'HTTP/1.1 500 Error'), want: STRANGE },
  { name: 'a code of tomorrow', say: http('{"error":{"code":"NEXUS_X","message":"new"}}', 'HTTP/1.1 418 Tea'), want: /^new$/ },
  { name: 'a success that is none', say: http(JSON.stringify(status), 'HTTP/1.1 201 Created'), want: STRANGE },
  {
    name: 'null',
    say: http('null'),
    want: /^the nexusd on .*control\.sock answers status with something else .*\(it is no object\): are they/,
  },
  { name: 'a list', say: http('[]'), want: /\(it is no object\)/ },
  { name: 'another call', say: http('{"pid":1}'), want: /\(it\.version is missing\)/ },
  { name: 'an infinite number', say: http(JSON.stringify(status).replace('4321', '1e999')), want: /\(it\.pid is no number\)/ },
]

function slowly(socket: Socket, bytes: Buffer): void {
  for (const [i, byte] of [...bytes].entries())
    setTimeout(() => socket.destroyed || socket.write(Buffer.of(byte)), 30 * i).unref()
}

t.test('answers that are none', async (t) => {
  for (const { name, say, want } of rows) {
    const dir = await answering(t, typeof say === 'function' ? say : (socket) => void socket.write(say))
    const client = connectControl({ socketPath: join(dir, 'control.sock'), timeoutMs: 2000, bytesMax: 4 * MIB })
    await t.rejects(client.status(), { name: 'NexusError', message: want }, name)
  }
})

t.test('the program itself, with a message and an exit status', async (t) => {
  for (const say of ['SSH-2.0\r\n', http('{}'), http('{'), 'HTTP/1.1 200 OK\r\n\r\n']) {
    const dir = await answering(t, (socket) => void socket.end(say))
    const { exit, stdout, stderr } = await nexusctl(dir, 'status')
    t.same([exit, stdout], [1, ''])
    t.match(stderr, /^nexusctl: [^\n]{20,}\n$/)
    t.notMatch(stderr, /unexpected|Error|HPE_| at /)
  }
})

const path = '/workspace/a'
/** A command for every call that has one. */
const commands: Partial<Record<keyof Service, string[]>> = {
  status: ['status'],
  workspaceCreate: ['workspace', 'create', path],
  workspaceList: ['workspace', 'list'],
  workspaceShow: ['workspace', 'show', path],
  workspaceDelete: ['workspace', 'delete', path],
  workspaceRename: ['workspace', 'rename', path, '/workspace/b'],
  workspaceUpdate: ['workspace', 'update', path, '--meta', 'a=b'],
  snapshotCreate: ['snapshot', path],
  snapshotList: ['snapshot', 'list', path],
  snapshotShow: ['snapshot', 'show', path, 'x'],
  snapshotDelete: ['snapshot', 'delete', path, 'x'],
  snapshotDiff: ['snapshot', 'diff', path, 'x'],
  restore: ['restore', path, 'x'],
  fork: ['fork', path, '/workspace/b'],
  identityAdd: ['identity', 'add', 'alice', '--uid', '7'],
  identityList: ['identity', 'list'],
  identityRemove: ['identity', 'remove', 'alice'],
  grant: ['grant', 'alice', 'viewer', path],
  revoke: ['revoke', 'alice', 'viewer', path],
  grants: ['grants', path],
  check: ['check', 'alice', 'read', path],
  explain: ['explain', 'alice', 'read', path],
  whoCan: ['who-can', 'read', path],
  whatCan: ['what-can', 'alice'],
  groupAdd: ['group', 'add', 'eng', 'alice'],
  groupRemove: ['group', 'remove', 'eng', 'alice'],
  groupList: ['group', 'list'],
  modelShow: ['model', 'show'],
  tenantOnboard: ['tenant', 'onboard', 'acme', '--admin', 'alice'],
  quotaSet: ['quota', 'set', path, '--bytes', '5'],
  quotaShow: ['quota', 'show', path],
  quotaList: ['quota', 'list'],
  checkpoint: ['checkpoint'],
  collect: ['gc'],
  diskUsage: ['df'],
  fsck: ['fsck'],
  scrub: ['scrub'],
  scrubStatus: ['scrub', '--status'],
  scrubStop: ['scrub', '--stop'],
  metrics: ['metrics'],
}

const strangers = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  '',
  'x',
  '\u001b[2J',
  '2026-13-45',
  [],
  [[]],
  {},
  { length: 3 },
  'x'.repeat(5000),
]

/** A place in a value, as the numbers of the branches that lead there; what is there is replaced, or left out. */
function changed(value: unknown, branches: readonly number[], put: unknown): unknown {
  const [branch, ...rest] = branches
  const keys = typeof value === 'object' && value !== null ? Object.keys(value) : []
  if (branch === undefined || keys.length === 0) return put
  const key = keys[branch % keys.length] as string
  const inner = changed((value as Record<string, unknown>)[key], rest, put)
  if (Array.isArray(value)) return value.map((each, i) => (String(i) === key ? inner : each)).filter((each) => each !== undefined)
  return Object.fromEntries(Object.entries(value as object).map(([k, v]) => [k, k === key ? inner : v]))
}

const branches = fc.oneof(fc.constant<number[]>([]), fc.array(fc.nat({ max: 50 }), { minLength: 1, maxLength: 4 }))
const put = fc.oneof(fc.constantFrom<unknown>(undefined, ...strangers), fc.jsonValue())

/** One line that says what is wrong, or an answer and nothing else. */
function clear({ exit, stdout, stderr }: Ended): boolean {
  const said = `exit ${exit}: ${JSON.stringify(stderr)} after ${JSON.stringify(stdout.slice(0, 200))}`
  if (/TypeError|RangeError|unexpected|undefined|\[object|NaN|\n\s+at /.test(stderr + stdout)) throw new Error(said)
  if (stderr !== '' && (exit !== 1 || stdout !== '' || !/^nexusctl: [^\n]{20,}\n$/.test(stderr))) throw new Error(said)
  // The answer of `check`, `fsck` and `scrub` may be in the exit status alone.
  if (stderr === '' && (stdout === '' || (exit !== 0 && exit !== 1))) throw new Error(said)
  return stderr === ''
}

t.test('answers that are nearly right', async (t) => {
  const service = fakeService() as unknown as Record<string, () => Promise<unknown>>
  const asked = Object.keys(commands) as (keyof Service)[]
  const without = callNames.filter((name) => !asked.includes(name))
  t.same(without, ['modelApply', 'collectStatus', 'shutdown'], 'calls that no row has, or that have no answer that is printed')
  let answer: Buffer = http('')
  const dir = await answering(t, (socket) => void socket.end(answer))
  let done = 0
  const inputs = fc.tuple(fc.constantFrom(...asked), branches, put, fc.boolean())
  const check = async ([name, at, value, json]: [keyof Service, number[], unknown, boolean]): Promise<void> => {
    const body = JSON.stringify(changed(await service[name]?.(), at, value))
    answer = http(body ?? '')
    const words = commands[name] as string[]
    if (clear(await inProcess(dir, json ? ['--json', ...words] : words))) done++
  }
  await tryAll<[keyof Service, number[], unknown, boolean]>(t, { seeds: [], inputs, check })
  t.ok(done > 10, `${done} were right enough`)
})

t.test('answers in which bytes went wrong', async (t) => {
  let answer: Buffer = http('')
  const dir = await answering(t, (socket) => void socket.end(answer))
  const seeds = [
    http(JSON.stringify(status)),
    http('{"error":{"code":"NEXUS_BUSY","message":"it is in use: wait"}}', 'HTTP/1.1 423 Locked'),
  ]
  const client = connectControl({ socketPath: join(dir, 'control.sock'), timeoutMs: 2000, bytesMax: MIB })
  const check = async (bytes: Buffer): Promise<void> => {
    answer = bytes
    try {
      await client.status()
    } catch (error) {
      if ((error as Error).name !== 'NexusError') throw error
    }
  }
  await tryAll(t, { seeds, inputs: badBytes(seeds), check })
})
