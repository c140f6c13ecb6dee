/** The program's commands about who may: words to calls, exit statuses, messages, files and stdin. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import t from 'tap'
import { MODEL_BYTES_MAX } from '../../src/api/parameters-access.ts'
import { readText } from '../../src/cli/input.ts'
import { parseExpires } from '../../src/cli/options.ts'
import { NexusError } from '../../src/errors.ts'
import { checked, explained, granted, group, identity, model, reach, scratchDir, tenant } from '../service/fake-service.ts'
import { inProcess, nexusctl, program, run, served } from './running.ts'

const path = '/workspace/acme'
const file = `${path}/src/main.ts`
const alice = 'user:alice'
const usual = { admin: alice, directories: ['data', 'models', 'exports'] }
const applied = { ...model, builtin: false }

t.test('words become calls, and --json prints the answer as one document', async (t) => {
  const { dataDir, service } = await served(t)
  const modelFile = join(scratchDir(t), 'model.fga')
  writeFileSync(modelFile, model.text)
  const rows: { in: string; calls: unknown[][]; want: unknown }[] = [
    { in: 'identity add alice --uid 1000', calls: [['identityAdd', alice, 1000]], want: identity },
    { in: 'identity add agent:coder-7 --uid 007', calls: [['identityAdd', 'agent:coder-7', 7]], want: identity },
    { in: 'identity list', calls: [['identityList']], want: [identity] },
    { in: 'identity remove alice', calls: [['identityRemove', alice, {}]], want: identity },
    { in: 'identity remove alice --uid 1000', calls: [['identityRemove', alice, { uid: 1000 }]], want: identity },
    { in: `grant alice editor ${path}`, calls: [['grant', alice, 'editor', path, {}]], want: granted },
    { in: 'grant user:* viewer acme/src/main.ts', calls: [['grant', 'user:*', 'viewer', file, {}]], want: granted },
    {
      in: `grant group:eng viewer /mnt/nexus${file} --expires 2999-12-31T18:00+02:00`,
      calls: [['grant', 'group:eng#member', 'viewer', file, { expires: '2999-12-31T16:00:00.000Z' }]],
      want: granted,
    },
    { in: `revoke alice editor ${path}`, calls: [['revoke', alice, 'editor', path]], want: granted },
    { in: 'grants acme', calls: [['grants', path]], want: [granted] },
    { in: `check alice write ${file}`, calls: [['check', alice, 'write', file]], want: checked },
    { in: `explain alice write ${path}`, calls: [['explain', alice, 'write', path]], want: explained },
    { in: `who-can read ${path}`, calls: [['whoCan', 'read', path]], want: { subjects: [alice] } },
    { in: 'what-can tenant:acme', calls: [['whatCan', 'tenant:acme#member']], want: [reach] },
    {
      in: 'group add eng alice agent:coder-7 group:leads',
      calls: [
        ['groupAdd', 'eng', alice],
        ['groupAdd', 'eng', 'agent:coder-7'],
        ['groupAdd', 'eng', 'group:leads#member'],
      ],
      want: group,
    },
    { in: 'group remove group:eng alice', calls: [['groupRemove', 'eng', alice]], want: group },
    { in: 'group list', calls: [['groupList']], want: [group] },
    { in: 'model show', calls: [['modelShow']], want: model },
    { in: `model apply ${modelFile}`, calls: [['modelApply', model.text]], want: applied },
    { in: 'tenant onboard acme --admin alice', calls: [['tenantOnboard', 'acme', usual]], want: tenant },
    {
      in: 'tenant onboard acme --meta plan=gold --admin alice --dirs a,b --meta x=',
      calls: [['tenantOnboard', 'acme', { admin: alice, metadata: { plan: 'gold', x: '' }, directories: ['a', 'b'] }]],
      want: tenant,
    },
    {
      in: 'tenant onboard acme --admin alice --dirs=',
      calls: [['tenantOnboard', 'acme', { admin: alice, directories: [] }]],
      want: tenant,
    },
  ]
  for (const { in: words, calls, want } of rows) {
    service.called.length = 0
    const { exit, stdout, stderr } = await inProcess(dataDir, [...words.split(' '), '--json'], () => '/mnt/nexus/workspace')
    t.strictSame({ exit, stderr }, { exit: 0, stderr: '' }, words)
    t.strictSame(JSON.parse(stdout), want, `${words}: answer`)
    t.strictSame(service.called, calls, `${words}: calls`)
  }
})

t.test('wrong usage is one line on stderr and exit status 2, and nothing was called', async (t) => {
  const { dataDir, service } = await served(t)
  const dir = scratchDir(t)
  writeFileSync(join(dir, 'binary'), Buffer.from([0x6d, 0xff]))
  writeFileSync(join(dir, 'long'), 'm'.repeat(MODEL_BYTES_MAX + 1))
  writeFileSync(join(dir, 'empty'), '')
  const rows: { in: string[]; want: string | RegExp }[] = [
    { in: ['identity', 'add', 'alice'], want: /required option '--uid <n>' not specified/ },
    { in: ['identity', 'add', 'alice', '--uid', 'root'], want: /It must be a whole number, such as 1000/ },
    { in: ['identity', 'add', 'alice', '--uid', '-1'], want: /It must be a whole number/ },
    { in: ['identity', 'add', 'alice', '--uid', '0'], want: 'nexusctl: uid 0 is the administrator and needs no name\n' },
    { in: ['identity', 'add', 'alice', '--uid', '4294967295'], want: /from 1 to 4294967294/ },
    { in: ['identity', 'add', 'user:*', '--uid', '7'], want: /"user:\*" is not one user or agent/ },
    { in: ['grant', 'alice', 'editor'], want: "nexusctl: missing required argument 'PATH'\n" },
    { in: ['grant', 'alice bob', 'editor', path], want: /subject "alice bob" has not a usable name/ },
    { in: ['grant', 'robot:r2', 'editor', path], want: /unknown kind "robot"/ },
    { in: ['grant', 'alice', 'can-write', path], want: /relation "can-write" is no such word/ },
    { in: ['grant', 'alice', 'editor', 'acme'], want: /outside the mount/ },
    { in: ['grant', 'alice', 'editor', path, '--expires', 'soon'], want: /It must be a time such as .* or 1 to 99999 of s, m/ },
    { in: ['grant', 'alice', 'editor', path, '--expires', '0h'], want: /It must be a time such as/ },
    { in: ['grant', 'alice', 'editor', path, '--expires', '2999-12-31'], want: /expires "2999-12-31" is not a time/ },
    { in: ['grant', 'alice', 'editor', path, '--expires', '2020-01-01T00:00Z'], want: /is over already/ },
    { in: ['check', 'alice', path, 'write'], want: /"write" from \/ is outside the mount/ },
    { in: ['who-can', 'Read', path], want: /permission "Read" is no such word/ },
    { in: ['what-can', ''], want: /subject is empty/ },
    { in: ['group', 'add', 'eng'], want: "nexusctl: missing required argument 'MEMBER'\n" },
    { in: ['group', 'add', 'eng', 'alice', 'a/b'], want: /member "a\/b" has not a usable name/ },
    { in: ['group', 'remove', 'eng', 'alice', '*'], want: /member "\*" has no kind/ },
    { in: ['group', 'add', 'e/g', 'alice'], want: /group "e\/g" has not a usable name/ },
    { in: ['model', 'apply', ''], want: /FILE is empty: give a file, or - for stdin/ },
    { in: ['model', 'apply', dir], want: /is a directory: give a file/ },
    { in: ['model', 'apply', join(dir, 'binary')], want: /binary" is not text in UTF-8/ },
    { in: ['model', 'apply', join(dir, 'long')], want: /long" is too long: at most 262144 bytes/ },
    { in: ['model', 'apply', join(dir, 'empty')], want: /text is empty/ },
    { in: ['model', 'apply', '/dev/zero'], want: /is too long/ },
    { in: ['tenant', 'onboard', 'acme'], want: /required option '--admin <SUBJECT>' not specified/ },
    { in: ['tenant', 'onboard', '..', '--admin', 'alice'], want: 'nexusctl: id cannot be ".."\n' },
    { in: ['tenant', 'onboard', 'acme', '--admin', 'alice', '--dirs', 'a,,b'], want: /directories has an empty name in it/ },
    { in: ['tenant', 'onboard', 'acme', '--admin', 'alice', '--dirs', 'a/b'], want: /without "\/"/ },
  ]
  for (const { in: args, want } of rows) {
    const { exit, stdout, stderr } = await inProcess(dataDir, args)
    t.strictSame({ exit, stdout }, { exit: 2, stdout: '' }, args.join(' '))
    t.match(stderr, want, `${args.join(' ')}: message`)
    t.match(stderr, /^nexusctl: [^\n]+\n$/, `${args.join(' ')}: one line`)
  }
  t.strictSame(service.called, [])
})

t.test('check answers with its exit status, without an error line', async (t) => {
  const no = { ...checked, allowed: false }
  const { dataDir } = await served(t, { check: async () => no })
  const words = ['check', 'alice', 'write', path]
  t.strictSame(await inProcess(dataDir, words), { exit: 1, stdout: 'no\n', stderr: '' })
  t.strictSame(await inProcess(dataDir, [...words, '--json']), { exit: 1, stdout: `${JSON.stringify(no)}\n`, stderr: '' })
  t.strictSame(await nexusctl(dataDir, ...words), { exit: 1, stdout: 'no\n', stderr: '' }, 'spawned')
  const { dataDir: yes } = await served(t)
  t.strictSame(await inProcess(yes, words), { exit: 0, stdout: 'yes\n', stderr: '' })
})

t.test('explain has exit status 0 for a refusal too', async (t) => {
  const { dataDir } = await served(t, { explain: async () => ({ ...explained, allowed: false }) })
  t.match(await inProcess(dataDir, ['explain', 'alice', 'write', path]), { exit: 0, stdout: /^no, /, stderr: '' })
})

t.test('a member that fails ends the command; those before it are done', async (t) => {
  const added: string[] = []
  const { dataDir } = await served(t, {
    groupAdd: async (_group, member) => {
      if (member === 'user:bob') throw new NexusError('NEXUS_DENIED', 'user:bob may not be in group eng')
      added.push(member)
      return group
    },
  })
  const ended = await inProcess(dataDir, ['group', 'add', 'eng', 'alice', 'bob', 'carol'])
  t.strictSame(ended, { exit: 1, stdout: '', stderr: 'nexusctl: user:bob may not be in group eng\n' })
  t.strictSame(added, [alice])
})

t.test('a duration counts from now, a time goes on as it is', async (t) => {
  const now = Date.parse('2026-02-27T12:00:00.000Z')
  const rows: [string, string][] = [
    ['30s', '2026-02-27T12:00:30.000Z'],
    ['15m', '2026-02-27T12:15:00.000Z'],
    ['12h', '2026-02-28T00:00:00.000Z'],
    ['7d', '2026-03-06T12:00:00.000Z'],
    ['4w', '2026-03-27T12:00:00.000Z'],
    ['99999w', '3942-09-04T12:00:00.000Z'],
    ['2026-12-31T18:00+02:00', '2026-12-31T18:00+02:00'],
  ]
  for (const [text, want] of rows) t.equal(parseExpires(text, now), want, text)
  for (const text of ['', '0h', '-1h', '1.5h', '12', 'h', '12 h', '12H', '1y', '100000s', '1h30m', '12h\n', '1constructor']) {
    t.throws(() => parseExpires(text, now), { message: /It must be a time/ }, JSON.stringify(text))
  }
  let expires = ''
  const { dataDir } = await served(t, {
    grant: async (_subject, _relation, _path, options) => {
      expires = options.expires ?? ''
      return granted
    },
  })
  const start = Date.now()
  await inProcess(dataDir, ['grant', 'alice', 'viewer', path, '--expires', '2h'])
  t.match(expires, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  const late = Date.parse(expires) - start - 2 * 3600 * 1000
  t.ok(late >= 0 && late < 60_000)
})

t.test('a model comes from a file or from stdin', async (t) => {
  const { dataDir, service } = await served(t)
  const command = `'${process.execPath}' '${program}' --data '${dataDir}' model`
  const piped = await run('bash', ['-c', `set -o pipefail; ${command} show | ${command} apply -`])
  t.strictSame(piped, { exit: 0, stdout: 'applied: every check follows this model from now on\n', stderr: '' })
  t.strictSame(service.called, [['modelShow'], ['modelApply', model.text]], 'what is shown can be applied')
  const limit = { bytesMax: 8 }
  const stdin = (...parts: string[]) => ({ ...limit, stdin: Readable.from(parts.map((part) => Buffer.from(part, 'latin1'))) })
  t.equal(await readText('-', stdin('\xef\xbb\xbf', 'a\xc3', '\xbcb')), 'aüb', 'without its byte order mark')
  await t.rejects(readText('-', stdin('12345', '6789')), { code: 'NEXUS_USAGE', message: 'stdin is too long: at most 8 bytes' })
  await t.rejects(readText('-', stdin('a\xc3')), { code: 'NEXUS_USAGE', message: 'stdin is not text in UTF-8' })
  const dir = scratchDir(t)
  writeFileSync(join(dir, 'eight'), '12345678')
  t.equal(await readText(join(dir, 'eight'), limit), '12345678')
  await t.rejects(readText(join(dir, 'none'), limit), { code: 'NEXUS_NOT_FOUND', message: /there is no file ".*none"/ })
  await t.rejects(readText(join(dir, 'eight/x'), limit), { code: 'NEXUS_NOT_FOUND' })
  t.match(await inProcess(dataDir, ['model', 'apply', join(dir, 'none')]), { exit: 1, stderr: /^nexusctl: there is no file/ })
})

const root = process.geteuid?.() === 0
t.test('a file that may not be read', { skip: !root && 'needs root, to become somebody else' }, async (t) => {
  const dir = scratchDir(t)
  mkdirSync(join(dir, 'closed'), { mode: 0o700 })
  process.seteuid?.(65534)
  t.teardown(() => process.seteuid?.(0))
  const denied = readText(join(dir, 'closed/model'), { bytesMax: 8 })
  await t.rejects(denied, { code: 'NEXUS_DENIED', message: /you may not read/ })
  process.seteuid?.(0)
})
