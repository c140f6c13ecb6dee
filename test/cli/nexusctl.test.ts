/** The program itself, in process and spawned against a fake daemon: exit statuses, JSON, messages, words to calls. */
import { mkdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Host, openSession } from '../../src/cli/session.ts'
import { NexusError } from '../../src/errors.ts'
import { packageVersion } from '../../src/host/version.ts'
import {
  collected,
  diff,
  diskUsage,
  forked,
  metrics,
  quota,
  quotaShown,
  restored,
  scratchDir,
  snapshot,
  status,
  workspace,
} from '../service/fake-service.ts'
import { inProcess, nexusctl, program, run, served } from './running.ts'

const path = '/workspace/acme'

t.test('words become calls, and --json prints the answer as one document', async (t) => {
  const { dataDir, service } = await served(t)
  const limit = 1000
  const rows: { in: string; call?: unknown[]; want: unknown }[] = [
    { in: `workspace create ${path}`, call: ['workspaceCreate', path, {}], want: workspace },
    {
      in: `workspace create --meta a=1 ${path} --meta b=x=y --meta c=`,
      call: ['workspaceCreate', path, { metadata: { a: '1', b: 'x=y', c: '' } }],
      want: workspace,
    },
    {
      in: `workspace create ${path} --owner alice --meta a=1`,
      call: ['workspaceCreate', path, { metadata: { a: '1' }, owner: 'user:alice' }],
      want: workspace,
    },
    { in: 'workspace list', call: ['workspaceList'], want: [workspace] },
    { in: `workspace show ${path}`, call: ['workspaceShow', path], want: workspace },
    { in: `workspace delete /mnt/nexus${path}/`, call: ['workspaceDelete', path], want: workspace },
    { in: `workspace rename ${path} ./new`, call: ['workspaceRename', path, '/workspace/new'], want: workspace },
    {
      in: `workspace update ${path} --meta a=`,
      call: ['workspaceUpdate', path, { metadata: { a: '' } }],
      want: workspace,
    },
    {
      in: `workspace update ${path} --snapshot-dir .history`,
      call: ['workspaceUpdate', path, { snapshotDir: '.history' }],
      want: workspace,
    },
    {
      in: `workspace create ${path} --snapshot-dir .history`,
      call: ['workspaceCreate', path, { snapshotDir: '.history' }],
      want: workspace,
    },
    { in: `snapshot ${path}`, call: ['snapshotCreate', path, {}], want: snapshot },
    { in: `snapshot create ${path}`, call: ['snapshotCreate', path, {}], want: snapshot },
    { in: 'snapshot acme', call: ['snapshotCreate', path, {}], want: snapshot },
    { in: 'snapshot ./list', call: ['snapshotCreate', '/workspace/list', {}], want: snapshot },
    {
      in: `snapshot --name list --meta a=1 ${path}`,
      call: ['snapshotCreate', path, { name: 'list', metadata: { a: '1' } }],
      want: snapshot,
    },
    { in: `snapshot ${path} --name N`, call: ['snapshotCreate', path, { name: 'N' }], want: snapshot },
    { in: `snapshot list ${path}`, call: ['snapshotList', path], want: [snapshot] },
    { in: `snapshot show ${path} snap_01`, call: ['snapshotShow', path, 'snap_01'], want: snapshot },
    { in: `snapshot delete ${path} N`, call: ['snapshotDelete', path, 'N'], want: snapshot },
    { in: `snapshot diff ${path} a`, call: ['snapshotDiff', path, 'a', null, limit], want: diff },
    { in: `snapshot diff ${path} a b --limit 5`, call: ['snapshotDiff', path, 'a', 'b', 5], want: diff },
    { in: `restore ${path} N`, call: ['restore', path, 'N', { limit }], want: restored },
    { in: `restore ${path} N --force`, call: ['restore', path, 'N', { force: true, limit }], want: restored },
    { in: `restore ${path} N --stop`, call: ['restore', path, 'N', { stop: true, limit }], want: restored },
    { in: `restore ${path} N --dry-run`, call: ['restore', path, 'N', { dryRun: true, limit }], want: restored },
    { in: `fork ${path} /workspace/trial`, call: ['fork', path, '/workspace/trial', {}], want: forked },
    {
      in: `fork ${path} trial --snapshot N`,
      call: ['fork', path, '/workspace/trial', { snapshot: 'N' }],
      want: forked,
    },
    {
      in: `fork ${path} trial --with-grants --owner agent:coder-7`,
      call: ['fork', path, '/workspace/trial', { withGrants: true, owner: 'agent:coder-7' }],
      want: forked,
    },
    { in: `quota set ${path} --bytes 10GiB`, call: ['quotaSet', path, { bytes: 10 * 2 ** 30 }], want: quota },
    { in: `quota set ${path} --bytes none --inodes 7`, call: ['quotaSet', path, { bytes: null, inodes: 7 }], want: quota },
    { in: `quota show ${path}`, call: ['quotaShow', path], want: quotaShown },
    { in: 'quota list', call: ['quotaList'], want: [quota] },
    {
      in: `workspace create ${path} --quota-bytes 5KiB --quota-inodes 6`,
      call: ['workspaceCreate', path, { quotaBytes: 5120, quotaInodes: 6 }],
      want: workspace,
    },
    { in: 'checkpoint', call: ['checkpoint'], want: { elapsed_ms: 7 } },
    { in: 'gc', call: ['collect'], want: collected },
    { in: 'status', want: status },
    { in: 'df', call: ['diskUsage', null], want: diskUsage },
    { in: `df ${path}`, call: ['diskUsage', path], want: diskUsage },
    { in: 'metrics', call: ['metrics'], want: metrics },
  ]
  for (const { in: words, call, want } of rows) {
    service.called.length = 0
    const { exit, stdout, stderr } = await inProcess(dataDir, [...words.split(' '), '--json'], () => '/mnt/nexus/workspace')
    t.strictSame({ exit, stderr }, { exit: 0, stderr: '' }, words)
    t.strictSame(JSON.parse(stdout), want, `${words}: answer`)
    t.strictSame(service.called, call === undefined ? [] : [call], `${words}: call`)
  }
})

t.test('wrong usage is one line on stderr and exit status 2', async (t) => {
  const { dataDir, service } = await served(t)
  const rows: { in: string[]; want: string | RegExp }[] = [
    { in: ['statsu'], want: "nexusctl: unknown command 'statsu' (Did you mean status?)\n" },
    { in: ['status', '--jsn'], want: "nexusctl: unknown option '--jsn' (Did you mean --json?)\n" },
    { in: ['status', 'x'], want: /^nexusctl: too many arguments/ },
    { in: ['snapshot'], want: "nexusctl: missing required argument 'PATH'\n" },
    { in: ['snapshot', 'list'], want: "nexusctl: missing required argument 'PATH'\n" },
    { in: ['snapshot', path, '--name'], want: /^nexusctl: option '--name <name>' argument missing\n$/ },
    { in: ['snapshot', path, '--meta', 'k'], want: /It must be KEY=VALUE/ },
    { in: ['snapshot', path, '--meta', '=v'], want: /It must be KEY=VALUE/ },
    { in: ['snapshot', path, '--meta', 'a b=v'], want: /metadata has the key "a b"/ },
    { in: ['snapshot', path, '--name', 'snap_1'], want: /means an id: choose another\n$/ },
    { in: ['snapshot', path, '--name', '..'], want: 'nexusctl: name cannot be ".."\n' },
    { in: ['snapshot', `${path}/../x`], want: /has "\.\." in it/ },
    { in: ['snapshot', ''], want: /PATH is empty/ },
    { in: ['snapshot', 'acme'], want: /"acme" from \/ is outside the mount: go into \/mnt\/nexus first/ },
    { in: ['snapshot', '/a\n\u001b[2Jb'], want: /control character/ },
    { in: ['snapshot', 'diff', path, 'a', '--limit', '-1'], want: /whole number from 0 to 100000/ },
    { in: ['snapshot', 'diff', path, 'a', '--limit', '100001'], want: /whole number from 0 to 100000/ },
    { in: ['quota', 'set', path], want: 'nexusctl: nothing to set: give --bytes, --inodes or both\n' },
    { in: ['quota', 'set', path, '--bytes', '10GB'], want: /It must be bytes, or a number of KiB/ },
    { in: ['quota', 'set', path, '--inodes', '-1'], want: /It must be a whole number/ },
    { in: ['workspace', 'create', path, '--quota-bytes', 'none'], want: /It must be bytes, or a number of KiB/ },
    { in: ['workspace', 'update', path], want: /nothing to change: give --meta or --snapshot-dir/ },
    ...['0', '99ms', '2h', 'soon', '-1s', '1e9'].map((time) => ({
      in: ['top', `--interval=${time}`],
      want: /It must be a time from 100ms to 1h/,
    })),
    { in: ['status', '--data', ''], want: /--data is empty/ },
  ]
  for (const { in: args, want } of rows) {
    const { exit, stdout, stderr } = await inProcess(dataDir, args)
    t.strictSame({ exit, stdout }, { exit: 2, stdout: '' }, args.join(' '))
    t.match(stderr, want, `${args.join(' ')}: message`)
    t.match(stderr, /^nexusctl: [^\n]+\n$/, `${args.join(' ')}: one line`)
  }
  t.strictSame(service.called, [])
})

t.test('a command without its subcommand shows help on stderr', async (t) => {
  for (const args of [[], ['workspace'], ['identity'], ['group'], ['model'], ['tenant']]) {
    const { exit, stdout, stderr } = await inProcess('/nowhere', args)
    t.strictSame({ exit, stdout }, { exit: 2, stdout: '' })
    t.match(stderr, /^Usage: nexusctl/)
  }
})

t.test('every command has help with an example', async (t) => {
  const commands = [
    '',
    'status',
    'checkpoint',
    'gc',
    'restore',
    'fork',
    'fsck',
    'scrub',
    'workspace',
    'snapshot',
    ...['create', 'list', 'show', 'delete', 'rename', 'update'].map((word) => `workspace ${word}`),
    ...['create', 'list', 'show', 'diff', 'delete'].map((word) => `snapshot ${word}`),
    ...['grant', 'revoke', 'grants', 'check', 'explain', 'who-can', 'what-can'],
    ...['identity', 'group'].flatMap((noun) => [noun, ...['add', 'remove', 'list'].map((word) => `${noun} ${word}`)]),
    ...['model', 'model show', 'model apply', 'tenant', 'tenant onboard'],
    'df',
    'top',
    'metrics',
  ]
  for (const command of commands) {
    const args = [...command.split(' ').filter(Boolean), '--help']
    const { exit, stdout, stderr } = await inProcess('/nowhere', args)
    t.strictSame({ exit, stderr }, { exit: 0, stderr: '' }, `${command} --help`)
    t.match(stdout, /^Usage: nexusctl/)
    t.match(stdout, /--json/)
    t.match(stdout, /Examples?:\n {2}\$ nexusctl /)
  }
})

t.test('a failure of the daemon is one line on stderr and exit status 1', async (t) => {
  const { dataDir } = await served(t, {
    snapshotShow: async () => {
      throw new NexusError('NEXUS_NOT_FOUND', 'no snapshot "x\u001b[2J" of /workspace/acme:\nsee snapshot list')
    },
  })
  const { exit, stdout, stderr } = await inProcess(dataDir, ['snapshot', 'show', path, 'x', '--json'])
  t.strictSame({ exit, stdout }, { exit: 1, stdout: '' })
  t.equal(stderr, 'nexusctl: no snapshot "x\\x1b[2J" of /workspace/acme: see snapshot list\n')
})

t.test('a current directory that is gone matters to relative paths only', async (t) => {
  const { dataDir } = await served(t)
  const gone = () => {
    throw Object.assign(new Error('uv_cwd'), { code: 'ENOENT' })
  }
  t.equal((await inProcess(dataDir, ['snapshot', path], gone)).exit, 0)
  t.match(await inProcess(dataDir, ['snapshot', '.'], gone), { exit: 2, stderr: /current directory is gone/ })
})

t.test('the mountpoint is asked for once', async (t) => {
  let asked = 0
  const { dataDir } = await served(t, {
    status: async () => {
      asked++
      return status
    },
  })
  const host: Host = { env: {}, cwd: () => '/', stdout: () => {}, stderr: () => {} }
  const session = openSession({ data: dataDir }, host)
  await session.resolve('/a')
  await session.resolve('/b')
  t.equal(asked, 1)
})

t.test('spawned: results, messages and exit statuses', async (t) => {
  const { dataDir } = await served(t)
  t.strictSame(await nexusctl(dataDir, 'fork', path, '/workspace/trial'), {
    exit: 0,
    stdout: 'forked /workspace/acme to /workspace/trial in 1.5 ms\n',
    stderr: '',
  })
  const listed = await nexusctl(dataDir, 'snapshot', 'list', path, '--json')
  t.strictSame({ ...listed, stdout: JSON.parse(listed.stdout) }, { exit: 0, stdout: [snapshot], stderr: '' })
  t.strictSame(await nexusctl(dataDir, '--version'), { exit: 0, stdout: `${packageVersion()}\n`, stderr: '' })
  t.match(await nexusctl(dataDir, 'status', '--wrong'), { exit: 2, stdout: '', stderr: /^nexusctl: unknown option/ })
  const none = scratchDir(t)
  t.strictSame(await nexusctl(none, 'status'), {
    exit: 1,
    stdout: '',
    stderr: `nexusctl: no nexusd answers on ${none}/control.sock: start it with "nexusd mount /mnt/nexus", or name its data directory with --data\n`,
  })
})

t.test('spawned: NEXUS_DATA names the daemon too', async (t) => {
  const { dataDir } = await served(t)
  const ended = await run(process.execPath, [program, 'checkpoint'], { env: { NEXUS_DATA: dataDir } })
  t.strictSame(ended, { exit: 0, stdout: 'everything is written out, in 7.0 ms\n', stderr: '' })
})

t.test('spawned: a reader that leaves is no failure, a full disk is', async (t) => {
  const many = Array<typeof snapshot>(20_000).fill(snapshot)
  const { dataDir } = await served(t, { snapshotList: async () => many })
  const command = `'${process.execPath}' '${program}' --data '${dataDir}' snapshot list ${path}`
  const piped = await run('bash', ['-c', `${command} | true; exit "\${PIPESTATUS[0]}"`])
  t.strictSame(piped, { exit: 0, stdout: '', stderr: '' })
  const counted = await run('bash', ['-c', `${command} | wc -l`])
  t.equal(counted.stdout.trim(), '20001', 'nothing is cut off')
  const full = await run('bash', ['-c', `${command} > /dev/full`])
  t.match(full, { exit: 1, stderr: /^nexusctl: cannot write the result: .*ENOSPC.*\n$/ })
})

t.test('spawned: from a directory that was deleted', async (t) => {
  const { dataDir } = await served(t)
  const gone = join(scratchDir(t), 'gone')
  mkdirSync(gone)
  const command = `cd '${gone}' && rmdir '${gone}' && '${process.execPath}' '${program}' --data '${dataDir}' snapshot`
  t.match(await run('bash', ['-c', `${command} ${path}`]), { exit: 0 })
  mkdirSync(gone)
  t.match(await run('bash', ['-c', `${command} .`]), { exit: 2, stderr: /^nexusctl: the current directory is gone/ })
  t.throws(() => rmdirSync(gone))
})
