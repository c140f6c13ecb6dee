/** A daemon's life: mount, signals, background, unmount, status; and who may have what at once. */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { noMount } from './harness.ts'
import { isOneLine, isRunning, mountsBelow, needsRoot, type Scratch, scratchFor } from './nexusd.ts'

const HOLDER = path.resolve(import.meta.dirname, '../../../test/mount/holder.py')
const skip = noMount ?? false

/** Mounts `name` again, hands it to `look`, and ends the daemon. */
async function remounted(scratch: Scratch, look: (mountpoint: string) => void, data = scratch.at('data')): Promise<void> {
  const mountpoint = scratch.dir('again')
  const daemon = await scratch.mount([mountpoint, '--data', data])
  look(mountpoint)
  const { status, stderr } = await daemon.end('SIGTERM')
  if (status !== 0 || stderr !== '') throw new Error(`ended with ${status}: ${stderr}`)
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`${signal} stores, unmounts and exits with 0`, { skip }, async (t) => {
    const scratch = scratchFor(t)
    const mountpoint = scratch.dir('mnt')
    const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
    t.equal(daemon.stdout, `mounted ${mountpoint} (data in ${scratch.at('data')}, pid ${daemon.pid})\n`)
    fs.writeFileSync(path.join(mountpoint, 'file'), 'content')
    t.match(await daemon.end(signal), { status: 0, stderr: '' })
    t.same(mountsBelow(scratch.directory), [])
    t.same(fs.readdirSync(mountpoint), [])
    t.notOk(fs.existsSync(scratch.at('data', 'control.sock')))
    await remounted(scratch, (again) => t.equal(fs.readFileSync(path.join(again, 'file'), 'utf8'), 'content'))
  })
}

t.test('what is in use is detached, with what mappings have dirtied', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  const holder = scratch.spawn('python3', [HOLDER, 'hold', mountpoint])
  await holder.says('ready')
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
  t.same(mountsBelow(scratch.directory), [], 'the path is free')
  t.ok(isRunning(holder.pid), 'its user lives on')
  await remounted(scratch, (again) => t.equal(fs.readFileSync(path.join(again, 'mapped'), 'latin1').slice(4096, 4101), 'dirty'))
})

t.test('under load nothing that was acknowledged is lost', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  const writers = ['a', 'b'].map((name) => {
    fs.mkdirSync(path.join(mountpoint, name))
    return { name, running: scratch.spawn('python3', [HOLDER, 'write', path.join(mountpoint, name)]) }
  })
  await Promise.all(writers.map(({ running }) => running.says('\n300\n')))
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
  for (const { running } of writers) await running.ended
  await remounted(scratch, (again) => {
    for (const { name, running } of writers) {
      const lost = running.stdout
        .trim()
        .split('\n')
        .filter((number) => !isContent(path.join(again, name, number), number))
      t.same(lost, [])
    }
  })
})

function isContent(file: string, number: string): boolean {
  return fs.existsSync(file) && fs.readFileSync(file, 'utf8') === `content ${number}`
}

t.test('a signal at any moment of the start leaves no dead mount', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const rounds = await Promise.all(
    [100, 150, 200, 250, 300, 350, 400, 500].map(async (ms, i) => {
      const daemon = scratch.begin([scratch.dir(`mnt${i}`), '--data', scratch.at(`data${i}`)])
      await sleep(ms)
      return (await daemon.end('SIGTERM')).stderr
    }),
  )
  t.same(rounds.join(''), '')
  t.same(mountsBelow(scratch.directory), [])
})

t.test('umount by somebody else ends the daemon with 0', { skip: skip || needsRoot }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  fs.writeFileSync(path.join(mountpoint, 'file'), 'content')
  t.match(await scratch.run('umount', [mountpoint]), { status: 0 })
  t.match(await daemon.ended, { status: 0, stderr: '' })
  await remounted(scratch, (again) => t.equal(fs.readFileSync(path.join(again, 'file'), 'utf8'), 'content'))
})

t.test('a daemon goes on when nobody reads what it prints', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')], { env: { NEXUS_LOG: 'debug' } })
  daemon.child.stdout?.destroy()
  daemon.child.stderr?.destroy()
  for (let i = 0; i < 50; i++) fs.writeFileSync(path.join(mountpoint, `f${i}`), 'content')
  t.match(await scratch.nexusctl(['--data', scratch.at('data'), 'checkpoint']), { status: 0 })
  t.equal(fs.readdirSync(mountpoint).filter((name) => name.startsWith('f')).length, 50)
  t.equal((await daemon.end('SIGTERM')).status, 0)
})

t.test('--background returns when the mount answers, and the daemon lives on', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const data = scratch.at('data')
  const started = await scratch.nexusd(['mount', mountpoint, '--data', data, '--background'])
  const pid = Number(/^mounted \S+ \(data in \S+, pid (\d+)\)\n$/.exec(started.stdout)?.[1])
  t.match(started, { status: 0, stderr: '' })
  t.ok(pid > 0 && isRunning(pid))
  fs.writeFileSync(path.join(mountpoint, 'file'), 'content')
  t.equal(sessionOf(pid), pid, 'in a session of its own')
  t.equal(fs.readlinkSync(`/proc/${pid}/cwd`), '/', 'it holds no directory busy')

  const plain = await scratch.nexusd(['status', '--data', data])
  t.match(plain, { status: 0, stderr: '' })
  t.match(plain.stdout, mountpoint)
  const json = JSON.parse((await scratch.nexusd(['status', '--data', data, '--json'])).stdout)
  t.match(json, { supervisor_pid: pid, mountpoint, data, single_user: process.getuid?.() !== 0 })

  t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0, stdout: '', stderr: '' })
  t.notOk(isRunning(pid), 'unmount waits for the end')
  t.same(mountsBelow(scratch.directory), [])
  t.equal(fs.statSync(path.join(data, 'nexusd.log')).mode & 0o777, 0o600)
})

/** The fourth field behind the name, which may hold blanks (proc_pid_stat(5)). */
function sessionOf(pid: number): number {
  return Number(fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[3])
}

t.test('a failed start says the same in the background', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const foreign = scratch.dir('foreign')
  fs.writeFileSync(path.join(foreign, 'letter'), 'private')
  fs.writeFileSync(scratch.at('file'), '')
  const held = await scratch.mount([scratch.dir('held'), '--data', scratch.at('data')])
  const rows: [string[], number, RegExp][] = [
    [[scratch.at('absent'), '--data', scratch.at('new')], 1, /absent does not exist: mkdir -p/],
    [[scratch.at('file'), '--data', scratch.at('new')], 2, /is not a directory/],
    [[mountpoint, '--data', foreign], 2, /holds other files and no nexus store/],
    [[mountpoint, '--data', scratch.at('file')], 2, /is not a directory: name another one with --data/],
    [[mountpoint, '--data', scratch.at('x'.repeat(300))], 1, /cannot be used .*ENAMETOOLONG/],
    [[mountpoint, '--data', scratch.at('data')], 1, /another nexusd is using/],
    [[mountpoint, '--data', path.join(mountpoint, 'data')], 2, /is inside of the mountpoint/],
    [[mountpoint, '--data', mountpoint], 2, /is inside of the mountpoint/],
  ]
  for (const [words, status, reason] of rows) {
    const there = await scratch.nexusd(['mount', ...words])
    t.match(there, { status, stdout: '', stderr: reason })
    t.ok(isOneLine(there.stderr), there.stderr)
    t.same(await scratch.nexusd(['mount', ...words, '--background']), there)
  }
  t.same(fs.readdirSync(foreign), ['letter'], 'not even a log is left in what is not ours')
  t.same(fs.readdirSync(mountpoint), [])
  t.same(mountsBelow(scratch.directory), [scratch.at('held')])
  fs.writeFileSync(scratch.at('held', 'f'), 'unharmed')
  t.match(await held.end('SIGTERM'), { status: 0, stderr: '' })
})

t.test('wrong words are status 2', async (t) => {
  const scratch = scratchFor(t)
  for (const words of [['mount'], ['mount', '/x', '--nonsense'], ['unmount'], ['nonsense'], ['mount', '/x', '--data', '']]) {
    const { status, stderr } = await scratch.nexusd(words)
    t.equal(status, 2, words.join(' '))
    t.match(stderr, /\S/)
  }
  const env = { NEXUS_LOG: 'loud' }
  const outcome = await scratch.nexusd(['mount', scratch.dir('mnt'), '--data', scratch.at('data')], { env })
  t.match(outcome, { status: 2, stderr: /NEXUS_LOG=loud is no level/ })
  t.match(await scratch.nexusd(['--version']), { status: 0, stdout: /^\d+\.\d+\.\d+/ })
})

t.test('unmount and status of what is not there', { skip }, async (t) => {
  const scratch = scratchFor(t)
  for (const mountpoint of [scratch.dir('plain'), scratch.at('absent'), '/', '/proc']) {
    const outcome = await scratch.nexusd(['unmount', mountpoint])
    t.match(outcome, { status: 1, stdout: '', stderr: /^nexusd: no nexus is mounted on / })
    t.ok(isOneLine(outcome.stderr))
  }
  for (const json of [[], ['--json']]) {
    const outcome = await scratch.nexusd(['status', '--data', scratch.at('data'), ...json])
    t.match(outcome, { status: 1, stdout: '', stderr: /no nexusd answers on .*: start it with/ })
    t.ok(isOneLine(outcome.stderr))
  }
})

/** Of a name that the kernel has to ask for: the attributes of the root it may know, dead or not. */
function errorOf(mountpoint: string): string | undefined {
  try {
    fs.statSync(path.join(mountpoint, `no such name ${Math.random()}`))
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

t.test('a dead mount is cleared by unmount and by the next mount, through a symlink too', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  fs.symlinkSync('mnt', scratch.at('link'))
  const words = [mountpoint, '--data', scratch.at('data')]
  await (await scratch.mount(words)).end('SIGKILL')
  // The first waits until the last thread that has the mount's descriptor has ended.
  errorOf(mountpoint)
  t.equal(errorOf(mountpoint), 'ENOTCONN')
  t.match(await scratch.nexusd(['unmount', scratch.at('link')]), { status: 0, stdout: '', stderr: '' })
  t.same(mountsBelow(scratch.directory), [])

  await (await scratch.mount(words)).end('SIGKILL')
  const daemon = await scratch.mount([scratch.at('link'), '--data', scratch.at('data')])
  t.match(daemon.stdout, `mounted ${mountpoint} (`, 'the real path is named')
  t.same(mountsBelow(scratch.directory), [mountpoint], 'one mount, not two')
  fs.writeFileSync(scratch.at('link', 'file'), 'content')
  t.match(await scratch.nexusd(['unmount', scratch.at('link')]), { status: 0, stderr: '' })
  t.match(await daemon.ended, { status: 0, stderr: '' })
})

t.test('unmount of a dead mount spares the daemon that serves its data elsewhere now', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const dead = scratch.dir('dead')
  await (await scratch.mount([dead, '--data', scratch.at('data')])).end('SIGKILL')
  const daemon = await scratch.mount([scratch.dir('alive'), '--data', scratch.at('data')])
  t.match(await scratch.nexusd(['unmount', dead]), { status: 0, stderr: '' })
  t.same(mountsBelow(scratch.directory), [scratch.at('alive')])
  fs.writeFileSync(scratch.at('alive', 'file'), 'content')
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
})

t.test('a mountpoint that is taken is refused, and what is there goes on', { skip: skip || needsRoot }, async (t) => {
  const scratch = scratchFor(t)
  const first = await scratch.mount([scratch.dir('nexus'), '--data', scratch.at('data')])
  await scratch.run('mount', ['-t', 'tmpfs', 'tmpfs', scratch.dir('tmpfs')])
  const rows: [string, RegExp][] = [
    ['nexus', /is busy: nexus \(data in \S+\/data\) is mounted there; unmount it first \(nexusd unmount \S+\/nexus\)/],
    ['tmpfs', /is busy: tmpfs is mounted there; unmount it first \(umount \S+\/tmpfs\)/],
  ]
  for (const [name, reason] of rows) {
    const outcome = await scratch.nexusd(['mount', scratch.at(name), '--data', scratch.at('other')])
    t.match(outcome, { status: 1, stdout: '', stderr: reason })
    t.ok(isOneLine(outcome.stderr))
  }
  t.same(mountsBelow(scratch.directory), [scratch.at('nexus'), scratch.at('tmpfs')])
  fs.writeFileSync(scratch.at('nexus', 'file'), 'content')

  const second = await scratch.mount([scratch.dir('tmpfs', 'mnt'), '--data', scratch.at('other')])
  t.same(fs.readdirSync(scratch.at('tmpfs', 'mnt')), ['tenants', 'workspace'], 'two daemons, two stores')
  t.match(await first.end('SIGTERM'), { status: 0 })
  fs.writeFileSync(scratch.at('tmpfs', 'mnt', 'file'), 'content')
  t.match(await second.end('SIGTERM'), { status: 0 })
})

t.test('of two starts on one new data directory one wins, and its store is the one that stays', { skip }, async (t) => {
  for (let round = 0; round < 2; round++) {
    const scratch = scratchFor(t)
    const starts = await Promise.allSettled(
      [0, 1].map((i) => scratch.mount([scratch.dir(`mnt${i}`), '--data', scratch.at('data')])),
    )
    const won = starts.filter((start) => start.status === 'fulfilled')
    const lost = starts.filter((start) => start.status === 'rejected')
    t.equal(won.length, 1)
    t.match(String(lost[0]?.reason), /another nexusd is using/)
    fs.writeFileSync(path.join(mountsBelow(scratch.directory)[0] as string, 'file'), 'content')
    await won[0]?.value.end('SIGKILL')
    await remounted(scratch, (again) => t.equal(fs.readFileSync(path.join(again, 'file'), 'utf8'), 'content'))
  }
})

const NAMES = ['with spaces', 'com,mas', 'back\\slash', 'quo"te\'s', 'ünï-日本', 'hash#dollar$(x)', '-dash', 'new\nline']

t.test('paths of any characters, for mountpoint and data', { skip }, async (t) => {
  const scratch = scratchFor(t)
  await Promise.all(
    NAMES.map(async (name) => {
      const mountpoint = scratch.dir(name, 'mnt')
      const data = scratch.at(name, 'data')
      const daemon = await scratch.mount([mountpoint, '--data', data])
      fs.writeFileSync(path.join(mountpoint, 'file'), 'content')
      t.same(mountsBelow(scratch.at(name)), [mountpoint])
      t.match(await scratch.nexusctl(['--data', data, 'snapshot', mountpoint]), { status: 0, stderr: '' }, name)
      t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0, stderr: '' }, name)
      t.match(await daemon.ended, { status: 0, stderr: '' }, name)
    }),
  )
})

t.test('relative paths, and a data directory too long for a socket', { skip }, async (t) => {
  const scratch = scratchFor(t)
  scratch.dir('here', 'mnt')
  const long = path.join('d'.repeat(120), 'e'.repeat(120), 'data')
  const cwd = scratch.at('here')
  t.match(await scratch.nexusd(['mount', 'mnt', '--data', long, '--background'], { cwd }), { status: 0 })
  const data = path.join(cwd, long)
  t.ok(fs.statSync(path.join(data, 'control.sock')).isSocket())
  t.match(await scratch.nexusd(['status', '--json'], { cwd, env: { NEXUS_DATA: long } }), {
    status: 0,
    stdout: JSON.stringify(data),
  })
  t.match(await scratch.nexusctl(['--data', long, 'workspace', 'create', '/workspace/w'], { cwd }), { status: 0 })
  t.match(await scratch.nexusd(['unmount', 'mnt'], { cwd }), { status: 0, stderr: '' })
  t.match(await scratch.nexusd(['mount', '.', '--data', '../other', '--background'], { cwd: scratch.at('here', 'mnt') }), {
    status: 0,
  })
  t.ok(fs.existsSync(scratch.at('here', 'other', 'nexus.json')))
  t.match(await scratch.nexusd(['unmount', 'mnt'], { cwd }), { status: 0, stderr: '' })
})

t.test('what lies at the socket: a stale one is replaced, a file is not', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const socket = path.join(scratch.dir('data'), 'control.sock')
  fs.writeFileSync(socket, 'precious')
  const refused = await scratch.nexusd(['mount', mountpoint, '--data', scratch.at('data')])
  t.match(refused, { status: 1, stdout: '', stderr: /control\.sock is not a socket: move it away/ })
  t.ok(isOneLine(refused.stderr))
  t.equal(fs.readFileSync(socket, 'utf8'), 'precious')
  t.same(mountsBelow(scratch.directory), [])
  fs.rmSync(socket)
  await leaveSocket(socket)
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  t.match(await scratch.nexusd(['status', '--data', scratch.at('data')]), { status: 0 })
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
})

/** A socket that nobody listens on, as SIGKILL leaves it. */
async function leaveSocket(file: string): Promise<void> {
  const server = net.createServer().listen(`${file}.tmp`)
  await new Promise((resolve) => server.once('listening', resolve))
  fs.renameSync(`${file}.tmp`, file)
  await new Promise((resolve) => server.close(resolve))
}
