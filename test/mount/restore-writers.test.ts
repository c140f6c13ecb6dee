/** A restore changes nothing under processes that write there, unless it is told to. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import type { RestoreInfo } from '../../src/api/snapshots.ts'
import { SLACK } from '../machine.ts'
import { accessMountFor, Person, skip, uids } from './access.ts'
import { mountFor, nexusctl, type TestMount } from './harness.ts'

const ACME = '/tenants/acme'

/** Python for a process that holds something open until it is signalled; the working directory is the workspace's `data`. */
const WAYS: Record<string, { code: string; writes: boolean }> = {
  'open for writing': { code: "f = os.open('f', os.O_WRONLY)", writes: true },
  'open to append': { code: "f = os.open('f', os.O_RDWR | os.O_APPEND)", writes: true },
  'a mapping alone': { code: "f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 4096); f.close()", writes: true },
  'a transaction of SQLite': {
    code: "c = sqlite3.connect('db', isolation_level=None); c.execute('begin immediate'); c.execute('insert into t values (2)')",
    writes: true,
  },
  'open for reading': { code: "f = os.open('f', os.O_RDONLY)", writes: false },
  'a mapping for reading': {
    code: "f = open('f', 'rb'); m = mmap.mmap(f.fileno(), 4096, prot=mmap.PROT_READ)",
    writes: false,
  },
  'a private mapping': { code: "f = open('f', 'rb'); m = mmap.mmap(f.fileno(), 4096, access=mmap.ACCESS_COPY)", writes: false },
  'a directory': { code: "d = os.open('.', os.O_RDONLY)", writes: false },
  'a file elsewhere': { code: "f = os.open('../outside', os.O_WRONLY | os.O_CREAT)", writes: false },
  'a temporary file without a name': {
    code: "f = os.open('tmp', os.O_RDWR | os.O_CREAT); os.unlink('tmp')",
    writes: false,
  },
  'a FIFO': { code: "f = os.open('fifo', os.O_RDWR)", writes: false },
}

async function hold(t: Test, cwd: string, code: string): Promise<ChildProcess> {
  const words = ['-c', `import mmap, os, sqlite3, time\n${code}\nprint('held', flush=True)\ntime.sleep(600)`]
  const child = spawn('python3', words, { cwd, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await Promise.race([
    once(child.stdout as NodeJS.ReadableStream, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error(`could not hold it: ${code}`))),
  ])
  return child
}

function ctl(mount: TestMount, ...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [nexusctl, '--data', mount.data, ...words], { encoding: 'utf8', cwd: '/' })
}

interface World {
  mount: TestMount
  data: string
  /** what is restored: the workspace's directory `data`, to its snapshot `s` */
  restore(...words: string[]): ReturnType<typeof ctl>
  dryRun(): RestoreInfo
  /** of the file `f` */
  text(): string
}

async function worldFor(t: Test): Promise<World> {
  const { mount } = await accessMountFor(t)
  const data = mount.at('tenants', 'acme', 'data')
  fs.writeFileSync(`${data}/f`, 'before'.padEnd(4096))
  const make = "import os, sqlite3; c = sqlite3.connect('db'); c.execute('create table t (x)'); c.commit(); os.mkfifo('fifo')"
  spawnSync('python3', ['-c', make], { cwd: data })
  mount.ctl('snapshot', `${ACME}/data`, '--name', 's')
  fs.writeFileSync(`${data}/f`, 'after'.padEnd(4096))
  return {
    mount,
    data,
    restore: (...words) => ctl(mount, 'restore', `${ACME}/data`, 's', ...words),
    dryRun: () => mount.json<RestoreInfo>('restore', `${ACME}/data`, 's', '--dry-run'),
    text: () => fs.readFileSync(`${data}/f`, 'latin1').trim(),
  }
}

t.test('processes that write are named, and only forced or ended', { skip, timeout: 300_000 * SLACK }, async (t) => {
  const { data, restore, dryRun, text } = await worldFor(t)
  for (const [way, { code, writes }] of Object.entries(WAYS)) {
    fs.writeFileSync(`${data}/f`, 'after'.padEnd(4096))
    const child = await hold(t, data, code)
    if (!writes) {
      t.match(dryRun(), { writers: [], writers_hidden: 0 }, way)
      t.match(restore(), { status: 0, stderr: '' }, `${way}: not in the way`)
      t.equal(text(), 'before', way)
      t.equal(child.exitCode, null, way)
      child.kill('SIGKILL')
      await once(child, 'exit')
      continue
    }
    const refused = restore()
    const named = `files in ${ACME}/data are open for writing in python3 (${child.pid}): stop them, or --force to restore under them, or --stop to end them first`
    t.match(refused, { status: 1, stdout: '' }, way)
    t.ok(refused.stderr.includes(named), way, { refused })
    t.equal(text(), 'after', `${way}: nothing was changed`)
    const dry = dryRun()
    t.match(dry.writers, [{ pid: child.pid, command: 'python3' }], `${way}: a dry run names it`)
    t.ok((dry.writers[0]?.files ?? 0) >= 1, way)
    t.match(restore('--force'), { status: 0, stderr: '' }, `${way}: forced`)
    t.equal(text(), 'before', way)
    t.equal(child.exitCode, null, `${way}: it goes on`)
    fs.writeFileSync(`${data}/f`, 'after'.padEnd(4096))
    const exit = once(child, 'exit')
    t.match(restore('--stop'), { status: 0, stderr: '' }, `${way}: ended first`)
    t.strictSame(await exit, [null, 'SIGTERM'], way)
    t.equal(text(), 'before', way)
  }
})

t.test('what is not restored is not looked at, and a file that comes back is', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const { mount, data, restore } = await worldFor(t)
  fs.mkdirSync(mount.at('tenants', 'acme', 'data', 'inner'))
  mount.ctl('snapshot', `${ACME}/data/inner`, '--name', 'i')
  const child = await hold(t, data, WAYS['open for writing']?.code ?? '')
  t.match(ctl(mount, 'restore', `${ACME}/data/inner`, 'i'), { status: 0 }, 'a directory beside it')
  mount.ctl('snapshot', ACME, '--name', 'all')
  t.match(ctl(mount, 'restore', ACME, 'all'), { status: 1, stderr: /python3/ }, 'what is around it')
  fs.unlinkSync(`${data}/f`)
  t.match(restore(), { status: 1, stderr: /python3/ }, 'it would have its name and content again')
  t.match(ctl(mount, 'restore', ACME, 'nothing', '--stop'), { status: 1, stderr: /has no snapshot nothing/ })
  t.equal(child.exitCode, null, 'who is wrong about the snapshot ends nothing')
  t.match(restore('--force', '--stop'), { status: 2 }, 'one or the other')
})

t.test('a process that does not end keeps the restore from being done', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const { data, restore, text } = await worldFor(t)
  const child = await hold(t, data, `import signal; signal.signal(15, signal.SIG_IGN); ${WAYS['open for writing']?.code}`)
  t.match(restore('--stop'), { status: 1, stderr: new RegExp(`python3 \\(${child.pid}\\), 10 s after SIGTERM`) })
  t.equal(text(), 'after', 'nothing was changed')
})

t.test('more than five are counted', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const { data, restore, dryRun } = await worldFor(t)
  for (let i = 0; i < 7; i++) await hold(t, data, WAYS['open for writing']?.code ?? '')
  t.match(restore().stderr, /writing in (python3 \(\d+\), ){5}2 more: stop them/)
  t.equal(dryRun().writers.length, 7)
  t.match(restore('--stop'), { status: 0 })
})

t.test('an owner is told of their own processes, and ends no others', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.grant('user:bob', 'editor', ACME, {})
  const data = mount.at('tenants', 'acme', 'data')
  fs.writeFileSync(`${data}/f`, 'before')
  fs.chmodSync(`${data}/f`, 0o666)
  mount.ctl('snapshot', ACME, '--name', 's')
  fs.writeFileSync(`${data}/f`, 'after')
  const asAlice = (...words: string[]): ReturnType<typeof ctl> => {
    const ids = [`--reuid=${uids.alice}`, `--regid=${uids.alice}`, '--clear-groups', '--']
    const env = { ...process.env, HOME: '/nonexistent', NEXUS_DATA: mount.data }
    const all = [...ids, process.execPath, nexusctl, '--json', 'restore', ACME, 's', ...words]
    return spawnSync('setpriv', all, { encoding: 'utf8', cwd: '/', env })
  }
  const dryRun = (): RestoreInfo => JSON.parse(asAlice('--dry-run').stdout) as RestoreInfo
  const bob = await Person.start(t, uids.bob)
  const bobs = await bob.run<number>('os.getpid()')
  t.equal(await bob.try(`same(os.open('${data}/f', os.O_WRONLY) > 0, True)`), 'ok')

  const refused = asAlice()
  t.match(refused, { status: 1, stderr: /open for writing in 1 process of another user: stop them/ })
  t.notOk(`${refused.stderr}${refused.stdout}`.includes(String(bobs)), 'it is not named')
  t.match(dryRun(), { writers: [], writers_hidden: 1 })
  t.match(mount.json<RestoreInfo>('restore', ACME, 's', '--dry-run'), { writers: [{ pid: bobs, files: 1 }], writers_hidden: 0 })

  const alices = await startAlices(t, path.join(data, 'f'))
  t.match(dryRun(), { writers: [{ pid: alices.pid, files: 1 }], writers_hidden: 1 })
  t.match(asAlice('--stop'), { status: 1, stderr: /1 process of another user/ })
  t.equal(alices.exitCode, null, 'nothing is ended when not all may be')
  t.equal(await bob.try('pass'), 'ok')
  bob.end()
  for (const end = Date.now() + 60_000; dryRun().writers_hidden > 0 && Date.now() < end; )
    t.pass('waits for the end of a process')

  // A process that acts for alice and is not hers: its files are, and root's is its real uid.
  const disguised = await startAlices(t, path.join(data, 'f'), 'os.setresuid(0, 1001, 0)')
  t.match(asAlice('--stop'), { status: 1, stderr: /1 process of another user/ })
  t.equal(disguised.exitCode, null)
  disguised.kill('SIGKILL')
  await once(disguised, 'exit')
  if (alices.exitCode === null && alices.signalCode === null) {
    const exit = once(alices, 'exit')
    t.match(asAlice('--stop'), { status: 0, stderr: '' })
    await exit
  } else t.match(asAlice(), { status: 0, stderr: '' })
  t.equal(fs.readFileSync(`${data}/f`, 'latin1'), 'before')
})

t.test('on a mount for a single user, and where the kernel holds no file', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const mount = await mountFor(t, { flags: ['--single-user'] })
  fs.mkdirSync(mount.at('workspace/w'))
  mount.ctl('snapshot', '/workspace/w', '--name', 's')
  t.match(ctl(mount, 'restore', '/workspace/w', 's'), { status: 0 })
  const child = await hold(t, mount.at('workspace/w'), "f = os.open('f', os.O_WRONLY | os.O_CREAT)")
  t.match(ctl(mount, 'restore', '/workspace/w', 's'), { status: 1, stderr: new RegExp(`python3 \\(${child.pid}\\)`) })
  t.match(ctl(mount, 'restore', '/workspace/w', 's', '--stop'), { status: 0, stderr: '' })
  t.strictSame(fs.readdirSync(mount.at('workspace/w')), [])
})

async function startAlices(t: Test, file: string, become = 'os.setresuid(1001, 1001, 1001)'): Promise<ChildProcess> {
  return await hold(t, '/', `os.setgroups([]); os.setresgid(1001, 1001, 1001); ${become}; f = os.open('${file}', os.O_WRONLY)`)
}
