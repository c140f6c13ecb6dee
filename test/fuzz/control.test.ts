/** Whatever comes over a control socket: a clear answer in JSON where HTTP allows one, an end, and a daemon that goes on. */
import { existsSync } from 'node:fs'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { type CallName, callNames, namesOfFields } from '../../src/api/calls.ts'
import { type ControlOptions, serveControl, serveEverybody } from '../../src/server/server.ts'
import { fakeService, memoryLogger, scratchDir, status } from '../service/fake-service.ts'
import { engineFor } from '../snapshots/support.ts'
import { type Answered, answerOf, type Heard, talk, typed } from './sockets.ts'
import { badBytes, seedsOf, tryAll } from './support.ts'

const UID = 1001
const MIB = 1024 * 1024
const TIMES = { headersTimeout: 200, requestTimeout: 1500, connectionsCheckingInterval: 20, answerIdleMs: 300 }

const post = (call: string, body: string, more = '') =>
  `POST /v1/${call} HTTP/1.1\r\n${more}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

/** The administrator's socket and everybody's, with short limits. */
async function serve(t: Test, service: Service, limits: ControlOptions['limits'] = TIMES) {
  const dir = scratchDir(t)
  const logger = memoryLogger()
  const [own, everybody] = [join(dir, 'own.sock'), join(dir, 'all.sock')]
  const servers = [
    await serveControl(service, { socketPath: own, logger, limits }),
    await serveEverybody({ uidOf: () => UID, serviceFor: () => service }, { socketPath: everybody, logger, limits }),
  ]
  t.teardown(() => Promise.all(servers.map((server) => server.close())))
  return { own, everybody, logger }
}

interface Row {
  name: string
  say: string | Buffer | ((socket: Socket) => void)
  /** what the answer is like; undefined: the connection is closed without one */
  want: [code: string | undefined, message: RegExp] | undefined
}

/** Goes on until the other end has had enough. */
function endlessly(first: string, part: string, pauseMs = 0): (socket: Socket) => void {
  return (socket) => {
    socket.write(first)
    const more = (): void => {
      if (socket.destroyed || !socket.writable) return
      socket.write(part, () => setTimeout(more, pauseMs))
    }
    more()
  }
}

const NO_HTTP: Row['want'] = ['NEXUS_USAGE', /^this is no HTTP request \(HPE_\w+\): POST \/v1\/<call> with a JSON object$/]
const LATE: Row['want'] = ['NEXUS_TIMEOUT', /^the request did not come to its end in time/]
const BIG_HEAD: Row['want'] = ['NEXUS_USAGE', /^the header is too large: at most 16384 bytes$/]
const BIG_BODY: Row['want'] = ['NEXUS_USAGE', /^the body is too large: at most 1048576 bytes$/]
const FINE: Row['want'] = [undefined, /^$/]
const HEAD = 'POST /v1/status HTTP/1.1\r\n'

const rows: Row[] = [
  { name: 'what it is for', say: post('status', '{}'), want: FINE },
  { name: 'noise', say: '\0\x01\x02\xff nothing\r\n\r\n', want: NO_HTTP },
  { name: 'TLS', say: Buffer.from('16030100c8010000c40303', 'hex'), want: NO_HTTP },
  { name: 'HTTP/2', say: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', want: NO_HTTP },
  { name: 'a header without a name', say: `${HEAD}: x\r\n\r\n`, want: NO_HTTP },
  { name: 'endless headers', say: endlessly(HEAD, 'a: b\r\n'.repeat(1000)), want: BIG_HEAD },
  { name: 'an endless header', say: endlessly(`${HEAD}a: `, 'x'.repeat(4096)), want: BIG_HEAD },
  { name: 'an endless path', say: endlessly('POST /', 'x'.repeat(4096)), want: BIG_HEAD },
  { name: 'a length in letters', say: `${HEAD}content-length: ten\r\n\r\n`, want: NO_HTTP },
  { name: 'a negative length', say: `${HEAD}content-length: -1\r\n\r\n`, want: NO_HTTP },
  { name: 'a length beyond 64 bits', say: `${HEAD}content-length: ${'9'.repeat(30)}\r\n\r\n`, want: NO_HTTP },
  { name: 'two lengths', say: `${HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{}`, want: NO_HTTP },
  { name: 'a length and chunks', say: `${HEAD}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}`, want: NO_HTTP },
  { name: 'a huge length and little', say: `${HEAD}content-length: 999999999999\r\n\r\n{}`, want: LATE },
  { name: 'an endless body', say: endlessly(`${HEAD}content-length: 999999999999\r\n\r\n`, ' '.repeat(MIB)), want: BIG_BODY },
  { name: 'a chunk of no size', say: `${HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n`, want: NO_HTTP },
  { name: 'a chunk beyond 64 bits', say: `${HEAD}transfer-encoding: chunked\r\n\r\n${'F'.repeat(20)}\r\n`, want: NO_HTTP },
  {
    name: 'endless chunks',
    say: endlessly(`${HEAD}transfer-encoding: chunked\r\n\r\n`, `10000\r\n${' '.repeat(65_536)}\r\n`.repeat(16)),
    want: BIG_BODY,
  },
  {
    name: 'an endless extension of a chunk',
    say: endlessly(`${HEAD}transfer-encoding: chunked\r\n\r\n1;`, 'x'.repeat(4096)),
    want: NO_HTTP,
  },
  {
    name: 'endless trailers',
    say: endlessly(`${HEAD}transfer-encoding: chunked\r\n\r\n0\r\n`, 'a: b\r\n'.repeat(999)),
    want: BIG_HEAD,
  },
  { name: 'an encoding that nobody knows', say: `${HEAD}transfer-encoding: gzip\r\n\r\n`, want: NO_HTTP },
  { name: 'nothing at all', say: '', want: LATE },
  { name: 'a byte now and then', say: endlessly('POST /v1/sta', 'x', 50), want: LATE },
  { name: 'a byte of the body now and then', say: endlessly(`${HEAD}content-length: 9999\r\n\r\n`, ' ', 50), want: LATE },
  { name: 'closed in one direction, within the header', say: (socket) => socket.end('POST /v1/st'), want: NO_HTTP },
  { name: 'closed at once', say: (socket) => void socket.destroy(), want: undefined },
  { name: 'closed in one direction, saying nothing', say: (socket) => void socket.end(), want: undefined },
  { name: 'a proxy is asked for', say: 'CONNECT x:1 HTTP/1.1\r\n\r\n', want: ['NEXUS_USAGE', /^nexusd is no proxy/] },
  { name: 'another protocol is asked for', say: post('status', '', 'upgrade: websocket\r\nconnection: upgrade\r\n'), want: FINE },
  { name: 'too much is expected', say: post('status', '{}', 'expect: 200-miracle\r\n'), want: FINE },
  { name: 'a nod is expected', say: post('status', '{}', 'expect: 100-continue\r\n'), want: FINE },
  { name: 'HTTP/1.0', say: 'POST /v1/status HTTP/1.0\r\n\r\n', want: FINE },
  { name: 'a GET', say: 'GET /v1/status HTTP/1.1\r\n\r\n', want: ['NEXUS_USAGE', /must be called with POST/] },
  { name: 'an address of a page', say: post('../../etc/passwd', ''), want: ['NEXUS_UNSUPPORTED', /^this nexusd has no call/] },
  { name: 'two at once', say: post('status', '{}').repeat(2), want: undefined },
  { name: 'one, and noise behind it', say: `${post('status', '{}')}\0\0\0`, want: undefined },
  { name: 'a thousand at once', say: post('status', '{}').repeat(1000), want: undefined },
  {
    name: 'a body that is deep',
    say: post('status', `${'['.repeat(4e5)}${']'.repeat(4e5)}`),
    want: ['NEXUS_USAGE', /must be a JSON object/],
  },
  {
    name: 'a value that is deep',
    say: post('status', `{"a":${'['.repeat(4e5)}${']'.repeat(4e5)}}`),
    want: ['NEXUS_USAGE', /no field "a"/],
  },
]

function sayer(say: Row['say']): (socket: Socket) => void {
  return typeof say === 'function' ? say : (socket) => void socket.write(say)
}

t.test('bytes that are no request, or none that ends', async (t) => {
  const { own, everybody, logger } = await serve(t, fakeService())
  const before = process.memoryUsage().rss
  for (const { name, say, want } of rows) {
    for (const socketPath of [own, everybody]) {
      const answered = answerOf(await talk(socketPath, sayer(say)))
      if (want === undefined) t.equal(answered, undefined, name)
      else {
        t.equal(answered?.code, want[0], name)
        t.match(answered?.message, want[1], name)
      }
    }
  }
  t.ok(process.memoryUsage().rss - before < 200 * MIB, 'what is sent is not kept')
  t.same(logger.lines, [], 'none of it is a bug')
  for (const socketPath of [own, everybody]) t.match(answerOf(await talk(socketPath, sayer(post('status', '')))), { status: 200 })
})

t.test('who keeps connections open keeps nobody else out for long', async (t) => {
  const { everybody } = await serve(t, fakeService())
  const slow = Array.from({ length: 80 }, (_, i) => talk(everybody, endlessly('POST /v1/', String(i % 10), 50)))
  const heard = (await Promise.all(slow)).map(answerOf)
  t.ok(heard.filter((answered) => answered?.code === 'NEXUS_TIMEOUT').length >= 8)
  // The last of them count until the server has heard, too, that they have ended.
  let answered = answerOf(await talk(everybody, sayer(post('status', ''))))
  for (let tries = 0; answered === undefined && tries < 20; tries++) {
    await sleep(50)
    answered = answerOf(await talk(everybody, sayer(post('status', ''))))
  }
  t.match(answered, { status: 200 })
})

t.test('who does not take his answer is cut off', async (t) => {
  const subjects = Array<string>(1000).fill('x'.repeat(10_000))
  const { own } = await serve(t, fakeService({ whoCan: async () => ({ subjects }) }))
  const body = JSON.stringify({ permission: 'read', path: '/a' })
  const heard = await talk(own, (socket) => {
    socket.pause()
    socket.write(post('whoCan', body))
    setTimeout(() => socket.resume(), 1500)
  })
  t.throws(() => answerOf(heard), /cut/)
  t.match(answerOf(await talk(own, sayer(post('whoCan', body)))), { status: 200 }, 'who takes it has all of it')
})

t.test('a call that does not end is answered, and goes on', async (t) => {
  let end: (value: { elapsed_ms: number }) => void = () => {}
  const service = fakeService({ checkpoint: () => new Promise((resolve) => (end = resolve)) })
  const { own, everybody, logger } = await serve(t, service, { callMsMax: 100 })
  const late: Answered = {
    status: 504,
    code: 'NEXUS_TIMEOUT',
    message: 'nexusd has not done this within 0.1 s, and goes on with it: look at its log',
  }
  t.same(answerOf(await talk(own, sayer(post('checkpoint', '')))), late)
  end({ elapsed_ms: 1 })
  for (let i = 0; i < 8; i++) t.same(answerOf(await talk(everybody, sayer(post('checkpoint', '')))), late)
  t.match(answerOf(await talk(everybody, sayer(post('status', '')))), { code: 'NEXUS_BUSY' }, 'they keep their places')
  end({ elapsed_ms: 1 })
  await new Promise((resolve) => setImmediate(resolve))
  t.match(answerOf(await talk(everybody, sayer(post('status', '')))), { status: 200 })
  t.same([...new Set(logger.lines)], ['a control call takes too long: its caller is told, and it goes on call,waited_s'])
})

t.test('bytes that were requests', async (t) => {
  const limits = { headersTimeout: 40, requestTimeout: 80, connectionsCheckingInterval: 10 }
  const service = fakeService()
  const { own, logger } = await serve(t, service, limits)
  const seeds = seedsOf('control')
  const inputs = fc.array(badBytes(seeds), { minLength: 16, maxLength: 16 })
  const check = async (requests: Buffer[]): Promise<void> => {
    const heard = await Promise.all(requests.map((bytes) => talk(own, sayer(bytes))))
    for (const each of heard) refusedOrDone(answerOf(each))
    if (logger.lines.length > 0) throw new Error(`logged as a bug: ${logger.lines.join()}`)
  }
  await tryAll(t, { seeds: [seeds], inputs, check })
  t.ok(service.called.length > 0, 'some were still requests')
})

function refusedOrDone(answered: Answered | undefined): void {
  if (answered?.status === 500) throw new Error(`${answered.code}: ${answered.message}`)
}

/** What each field may well be, in the store below. */
const sensible: Readonly<Record<string, readonly unknown[]>> = {
  path: [
    '/',
    '/workspace',
    '/workspace/a',
    '/workspace/a/dir',
    '/workspace/a/dir/file',
    '/workspace/b',
    '/tenants/acme',
    '/workspace/a/',
  ],
  newPath: ['/workspace/b', '/workspace/a/new', '/workspace/a/dir/file/x', '/tenants/b', '/workspace/a'],
  snapshot: ['before', 'snap_', 'none'],
  from: ['before', 'snap_', 'none'],
  to: ['before', null],
  name: ['before', 'after'],
  metadata: [{ team: 'web' }, {}, { team: '' }],
  subject: ['user:alice', 'alice', 'agent:coder', 'group:eng', 'user:*', 'tenant:acme#member'],
  owner: ['user:alice', 'group:eng'],
  member: ['user:alice', 'group:eng', 'group:ops'],
  admin: ['user:alice'],
  group: ['eng', 'ops'],
  relation: ['owner', 'editor', 'viewer', 'member'],
  permission: ['read', 'write', 'share', 'owner', 'none'],
  uid: [UID, 1002, 4_294_967_294],
  expires: ['2999-01-01T00:00Z'],
  id: ['acme', 'b'],
  directories: [['data'], [], ['a', 'b']],
  text: ['model\n  schema 1.1\ntype user\n'],
  limit: [0, 1, 100_000],
  rate: [1, 1_000_000],
}
const numbers = [0, -0, 1, -1, 1.5, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 1e308, 1e-7]
const texts = [
  ...[
    '',
    ' ',
    '/',
    '//',
    '/.',
    '/..',
    '.',
    '..',
    '~',
    '*',
    '\0',
    '\n',
    '\ud800',
    '\u202e',
    'é',
    'x'.repeat(256),
    'é'.repeat(128),
  ],
  ...['/workspace/a/../..', '/workspace//a', `/${'x'.repeat(256)}`, `/workspace${'/x'.repeat(3000)}`, 'x'.repeat(300_000)],
  ...[
    '__proto__',
    'constructor',
    'toString',
    'user:',
    ':',
    'user:a b',
    'group:eng#member#member',
    'user:__proto__',
    '-x',
    '%s',
    '$1',
  ],
  ...['null', '-1', '2999-02-30T00:00Z', '9999-12-31T23:59:59-23:59', '2000-01-01T00:00Z', 'snap_00000000000000000000000000'],
]
const nested = [[], {}, [[]], [null], { __proto__: null, toString: 'x' }, JSON.parse('{"__proto__":{"a":"b"}}'), { length: 1e9 }]
const hostile = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, ...numbers, ...texts, ...nested),
  fc.constant(JSON.parse(`${'['.repeat(2000)}${']'.repeat(2000)}`)),
  fc.jsonValue(),
  fc.string({ unit: 'binary', maxLength: 40 }),
)

const aBody = fc.constantFrom(...callNames).chain((name) => {
  const fields = namesOfFields(name).map((field) => {
    const likely = sensible[field] ?? [true, false, 0, 5, 'x']
    const value = fc.oneof({ arbitrary: fc.constantFrom(...likely), weight: 5 }, { arbitrary: hostile, weight: 1 })
    return fc.option(fc.tuple(fc.constant(field), value), { freq: 12, nil: undefined })
  })
  const stranger = fc.option(fc.tuple(fc.constantFrom('nmae', '__proto__', 'constructor', ''), hostile), {
    freq: 1,
    nil: undefined,
  })
  const strangers = fc.oneof({ arbitrary: fc.constant(undefined), weight: 19 }, { arbitrary: stranger, weight: 1 })
  return fc.tuple(
    fc.constant(name),
    fc.tuple(...fields, strangers).map((pairs) => pairs.filter((pair) => pair !== undefined)),
  )
})

/** `Object.fromEntries` and JSON keep a key `__proto__` as a key. */
const textOf = (pairs: readonly (readonly [string, unknown])[]) => JSON.stringify(Object.fromEntries(pairs))

function ask(socketPath: string, name: CallName, body: string): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, agent: false, method: 'POST', path: `/v1/${name}` }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
      })
      response.on('end', () => {
        try {
          resolve(typed(response.statusCode ?? 0, JSON.parse(text)))
        } catch (error) {
          reject(error)
        }
      })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

for (const who of ['the administrator', 'a user'] as const) {
  t.test(`calls of ${who} with values of all kinds`, async (t) => {
    const { engine, service } = await store(t)
    const { own, logger } = await serve(t, who === 'a user' ? service.forUser(UID) : service, {})
    const met = new Map<string, Set<number>>()
    const check = async ([name, pairs]: [CallName, (readonly [string, unknown])[]]): Promise<void> => {
      const answered = await ask(own, name, textOf(pairs))
      met.set(name, (met.get(name) ?? new Set()).add(answered.status))
      refusedOrDone(answered)
      if (logger.lines.length > 0) throw new Error(`logged as a bug: ${logger.lines.join()}`)
    }
    await tryAll<[CallName, (readonly [string, unknown])[]]>(t, { seeds: [], inputs: aBody, check })
    t.ok(met.size > callNames.length / 2, `${met.size} calls were made`)
    const done = [...met].filter(([, statuses]) => statuses.has(200)).length
    t.ok(done > (who === 'a user' ? 5 : 15), `${done} of them succeeded once`)
    await engine.volumes.checkpoint()
    t.same((await service.fsck()).findings, [], 'the store is whole')
  })
}

async function store(t: Test) {
  const test = await engineFor(t)
  test.mkdir('/workspace/a/dir')
  test.write('/workspace/a/dir/file', 'text')
  await test.service.identityAdd('user:alice', UID)
  await test.service.grant('user:alice', 'owner', '/workspace/a', {})
  await test.service.snapshotCreate('/workspace/a', { name: 'before' })
  return test
}

t.test('a daemon that was shouted at still knows its business', async (t) => {
  const { own } = await serve(t, fakeService())
  const heard: Heard = await talk(own, sayer(post('status', '')))
  t.same(JSON.parse(heard.text.slice(heard.text.indexOf('\r\n\r\n'))), status)
  t.ok(existsSync(own))
})
