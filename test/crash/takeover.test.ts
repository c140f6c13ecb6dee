/**
 * SIGKILL of the process that serves, under load, at random moments, again and again: another takes over, and who works
 * in the mount sees a pause. No call fails, none is lost, none is done twice; what is open, locked and mapped goes on.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { SLACK } from '../machine.ts'
import { childrenOf, mountFor, noMount, plainFor, type TestMount } from '../mount/harness.ts'
import { difference, readTree, replayLog } from './writer.ts'

const KILLS = Number(process.env['NEXUS_KILLS'] ?? 12)
const WRITERS = 2
/** Between a process that serves and its death. */
const KILL_MS = { min: 220, max: 700 }
/** Until a process waits to take over, or is about to. */
const STANDBY_MS_MAX = 5000
/** More than the machine needs when it is busy with other tests too. */
const TAKEOVER_MS_MAX = 20_000
const writer = fileURLToPath(new URL('./writer.js', import.meta.url))
const dying = fileURLToPath(new URL('./dying.js', import.meta.url))
const storm = path.resolve(import.meta.dirname, '../../../test/crash/storm.py')
const seed = Number(process.env['NEXUS_SEED'] ?? Date.now() % 1_000_000)
const skip = noMount ?? false

function servingPid(mount: TestMount): number {
  return childrenOf(mount.pid)[0] ?? 0
}

/** Kills the process that serves and waits until another answers. @returns milliseconds */
async function replace(mount: TestMount): Promise<number> {
  const before = servingPid(mount)
  const start = performance.now()
  process.kill(before, 'SIGKILL')
  // Off this thread: whoever asks waits until the next one serves.
  await statOf(mount.mountpoint)
  const took = performance.now() - start
  if (took > TAKEOVER_MS_MAX) throw new Error(`nobody took over for ${took} ms: ${mount.log}`)
  while (servingPid(mount) === before || servingPid(mount) === 0) await sleep(5)
  return took
}

/** Asks for something that the kernel does not know by itself. */
async function statOf(directory: string): Promise<void> {
  await fs.promises.stat(path.join(directory, `no such name ${Math.random()}`)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
}

interface Load {
  child: ChildProcess
  output(): string
}

function start(command: string, words: readonly string[]): Load {
  const child = spawn(command, words, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (text: Buffer) => {
      output += text.toString()
    })
  }
  return { child, output: () => output }
}

async function stop({ child }: Load): Promise<number | null> {
  if (child.exitCode === null) {
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    await exit
  }
  return child.exitCode
}

t.test(
  `${KILLS} deaths of the serving process go unseen (seed ${seed})`,
  { skip, timeout: (120_000 + KILLS * 4000) * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    const kill = async (i: number): Promise<number> => {
      // Every other one is taken over from by a process that waits, or that is about to.
      for (let waited = 0; i % 2 === 1 && waited < STANDBY_MS_MAX && childrenOf(mount.pid).length < 2; waited += 20)
        await sleep(20)
      await sleep(KILL_MS.min + (((seed + i * 7919) * 104_729) % (KILL_MS.max - KILL_MS.min)))
      return replace(mount)
    }
    await survive(t, mount, kill)
  },
)

t.test(
  `${KILLS} deaths, each between a change and its answer, do nothing twice (seed ${seed})`,
  { skip, timeout: (120_000 + KILLS * 4000) * SLACK },
  async (t) => {
    const mount = await mountFor(t, { program: dying, env: { DYING: 'changes' } })
    await survive(t, mount, async () => {
      const start = performance.now()
      let before = servingPid(mount)
      for (; before === 0; before = servingPid(mount)) await sleep(5)
      while (servingPid(mount) === before || servingPid(mount) === 0) await sleep(5)
      return performance.now() - start
    })
  },
)

/** Works in many ways while the serving process dies `KILLS` times. @param nextDeath waits for a death; milliseconds */
async function survive(t: Test, mount: TestMount, nextDeath: (i: number) => Promise<number>): Promise<void> {
  const logs = plainFor(t)
  const jobs = Array.from({ length: WRITERS }, (_, i) => {
    const directory = mount.at('workspace', `w${i}`)
    fs.mkdirSync(directory)
    const sideLog = path.join(logs, `${i}`)
    return { directory, sideLog, load: start(process.execPath, [writer, directory, sideLog, String(seed + i)]) }
  })
  fs.mkdirSync(mount.at('workspace', 'storm'))
  const storms = ['renames', 'sqlite', 'mapped', 'git'].map((kind) => ({
    kind,
    load: start('python3', [storm, kind, mount.at('workspace', 'storm', kind), String(seed)]),
  }))
  t.teardown(() => {
    for (const { load } of [...jobs, ...storms]) load.child.kill('SIGKILL')
  })
  while (jobs.some(({ sideLog }) => !fs.existsSync(sideLog))) await sleep(10)

  const pauses: number[] = []
  for (let i = 0; i < KILLS; i++) {
    pauses.push(await nextDeath(i))
    for (const { kind, load } of storms)
      if (load.child.exitCode !== null) throw new Error(`${kind} ended after ${i} deaths: ${load.output()}`)
  }
  await sleep(KILL_MS.min)

  let calls = 0
  for (const { directory, sideLog, load } of jobs) {
    t.equal(load.child.exitCode, null, 'a writer that no call failed still writes')
    const exit = once(load.child, 'exit')
    load.child.kill('SIGKILL')
    await exit
    const text = fs.readFileSync(sideLog, 'utf8')
    const { allowed, acknowledged, failures } = replayLog(text)
    t.same(failures, [], 'no call failed')
    t.same(shortWrites(text), [], 'no write came back short')
    const found = readTree(directory)
    t.ok(
      allowed.some((tree) => difference(found, tree) === undefined),
      `${directory}: ${difference(found, allowed[0] ?? new Map())}`,
    )
    calls += acknowledged
  }
  for (const { kind, load } of storms) {
    t.equal(await stop(load), 0, `${kind}: ${load.output()}`)
    t.match(load.output(), /^\d+ rounds\n$/, kind)
  }
  t.ok(calls > KILLS, `${calls} calls of the writers`)
  t.comment(`pauses of ${pauses.map((ms) => Math.round(ms)).join(' ')} ms, ${calls} calls`)
  t.ok((mount.log.match(/another takes over/g) ?? []).length >= KILLS, 'each death has its line in the log')
  // Nobody is left that the engine's own books do not know of.
  t.equal(await mount.stop(), 0)
  await mount.start()
  for (const { directory, sideLog } of jobs) {
    const { allowed } = replayLog(fs.readFileSync(sideLog, 'utf8'))
    const found = readTree(directory)
    t.ok(
      allowed.some((tree) => difference(found, tree) === undefined),
      'the same after a mount',
    )
  }
}

/** Calls whose answer was smaller than what they asked for. */
function shortWrites(log: string): string[] {
  const lines = log.split('\n')
  return lines.filter((line, i) => {
    const length = line.startsWith('begin ') ? (JSON.parse(line.slice(6)) as { do: string; length?: number }) : undefined
    const isWrite = length?.do === 'write' || length?.do === 'append'
    return isWrite && lines[i + 1]?.startsWith('done ') === true && lines[i + 1] !== `done ${length?.length}`
  })
}

t.test(
  'what is open, unlinked, locked, mapped or somebody’s directory outlives the process',
  { skip, timeout: 120_000 * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    fs.mkdirSync(mount.at('workspace', 'w'))
    const holder = start('python3', [storm, 'hold', mount.at('workspace', 'w'), '0'])
    t.teardown(() => holder.child.kill('SIGKILL'))
    while (!holder.output().includes('held\n')) await sleep(10)
    for (let i = 0; i < 3; i++) {
      await replace(mount)
      holder.child.kill('SIGUSR1')
      while (!holder.output().includes(`checked ${i}\n`)) {
        if (holder.child.exitCode !== null) throw new Error(holder.output())
        await sleep(10)
      }
    }
    t.equal(await stop(holder), 0, holder.output())
    // Given back: with the last descriptor what had no name is gone.
    t.equal(mount.json<{ file_count: number }>('workspace', 'show', '/workspace/w').file_count, 2)
  },
)

t.test('a restore, a grant and a snapshot go on where the next process serves', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const mount = await mountFor(t)
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  const at = (name: string): string => mount.at('workspace', 'w', name)
  fs.mkdirSync(at(''))
  for (let i = 0; i < 200; i++) fs.writeFileSync(at(`f${i}`), `first ${i}`)
  mount.ctl('snapshot', 'create', '/workspace/w', '--name', 'one')
  for (let i = 0; i < 200; i += 2) fs.writeFileSync(at(`f${i}`), `second ${i}`)
  fs.mkdirSync(at('later'))
  fs.writeFileSync(at('later/open'), 'held')
  const held = fs.openSync(at('later/open'), 'r+')
  for (let i = 0; i < 200; i++) fs.readFileSync(at(`f${i}`))
  await replace(mount)
  // What the kernel cached before is known to the process that did not see it happen.
  mount.ctl('restore', '/workspace/w', 'one', '--force')
  t.same(
    Array.from({ length: 200 }, (_, i) => fs.readFileSync(at(`f${i}`), 'utf8')),
    Array.from({ length: 200 }, (_, i) => `first ${i}`),
  )
  t.notOk(fs.existsSync(at('later')))
  await replace(mount)
  fs.writeSync(held, 'HELD', 0)
  const buffer = Buffer.alloc(4)
  fs.readSync(held, buffer, 0, 4, 0)
  t.equal(buffer.toString(), 'HELD', 'what a restore removed stays for who has it open')
  fs.closeSync(held)
  if (process.getuid?.() === 0) {
    const cat = (): string =>
      execFileSync('setpriv', ['--reuid=4711', '--regid=4711', '--clear-groups', 'cat', at('f1')], { stdio: 'pipe' }).toString()
    mount.ctl('grant', 'user:uid-4711', 'viewer', '/workspace/w')
    t.equal(cat(), 'first 1')
    await replace(mount)
    t.equal(cat(), 'first 1')
    mount.ctl('revoke', 'user:uid-4711', 'viewer', '/workspace/w')
    t.throws(cat, /Permission denied/)
    await replace(mount)
    t.throws(cat, /Permission denied/)
  }
  const names = mount.json<{ name: string | null }[]>('snapshot', 'list', '/workspace/w').map(({ name }) => name)
  t.ok(names.includes('one'))
})

const asRoot = process.getuid?.() === 0 ? skip : 'needs root'

t.test(
  'names that the kernel keeps are for nobody else, whoever serves',
  { skip: asRoot, timeout: 120_000 * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
    const directory = mount.at('workspace', 'w')
    fs.mkdirSync(directory)
    fs.mkdirSync(mount.at('workspace', 'other'))
    mount.ctl('grant', 'user:uid-4711', 'viewer', '/workspace/w')
    const stat = (uid: number, file: string): string =>
      execFileSync('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', 'stat', '-c', '%F', file], {
        stdio: 'pipe',
      }).toString()
    const lookups = (): number => mount.json<{ requests: Record<string, number> }>('status').requests['LOOKUP'] ?? 0
    for (let i = 0; i < 3; i++) t.equal(stat(4711, directory), 'directory\n')
    await replace(mount)
    t.throws(() => stat(4712, directory), /Permission denied/, 'a stranger who comes after the death')
    t.throws(() => stat(4711, mount.at('workspace', 'other')), /Permission denied/)
    t.equal(stat(4711, directory), 'directory\n')
    await replace(mount)
    mount.ctl('grant', 'user:uid-4712', 'viewer', '/workspace/w')
    for (let i = 0; i < 5; i++) for (const uid of [4711, 4712]) t.equal(stat(uid, directory), 'directory\n')
    const before = lookups()
    for (let i = 0; i < 5; i++) for (const uid of [4711, 4712]) stat(uid, directory)
    t.ok(lookups() - before < 5, 'it is kept again')
    await replace(mount)
    mount.ctl('revoke', 'user:uid-4711', 'viewer', '/workspace/w')
    t.throws(() => stat(4711, directory), /Permission denied/, 'revoked by a process that never heard of him')
    t.equal(stat(4712, directory), 'directory\n')
  },
)

t.test('an upgrade swaps the program under load', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const mount = await mountFor(t)
  const logs = plainFor(t)
  const directory = mount.at('workspace', 'w')
  fs.mkdirSync(directory)
  const sideLog = path.join(logs, 'log')
  const load = start(process.execPath, [writer, directory, sideLog, String(seed)])
  t.teardown(() => load.child.kill('SIGKILL'))
  while (!fs.existsSync(sideLog)) await sleep(10)
  for (const how of ['command', 'signal'] as const) {
    await sleep(300)
    const before = servingPid(mount)
    if (how === 'command') t.match(mount.daemonSays('upgrade', mount.mountpoint), /is served by \S+ \(pid \d+\), before by/)
    else process.kill(mount.pid, 'SIGHUP')
    while (servingPid(mount) === before || servingPid(mount) === 0) await sleep(10)
    await statOf(mount.mountpoint)
  }
  await sleep(300)
  t.equal(load.child.exitCode, null)
  const exit = once(load.child, 'exit')
  load.child.kill('SIGKILL')
  await exit
  const { allowed, failures } = replayLog(fs.readFileSync(sideLog, 'utf8'))
  t.same(failures, [])
  const found = readTree(directory)
  t.ok(allowed.some((tree) => difference(found, tree) === undefined))
  t.equal(mount.log, '', 'a planned change is nobody’s failure')
})

t.test('a request that kills whoever serves it gets EIO, and the mount lives', { skip, timeout: 60_000 * SLACK }, async (t) => {
  const mount = await mountFor(t, { program: dying, env: { DYING: 'lookups' } })
  await t.rejects(fs.promises.stat(mount.at('deadly')), { code: 'EIO' })
  t.match(mount.log, /several processes died over this request: it is refused/)
  t.equal(fs.statSync(mount.at('workspace')).isDirectory(), true)
  await t.rejects(fs.promises.stat(mount.at('another')), { code: 'ENOENT' })
})

t.test('what the kernel was not told of, the next process tells it', { skip, timeout: 60_000 * SLACK }, async (t) => {
  const mount = await mountFor(t, { program: dying, env: { DYING: 'notifies' } })
  const at = (name: string): string => mount.at('workspace', 'w', name)
  fs.mkdirSync(at(''))
  for (let i = 0; i < 50; i++) fs.writeFileSync(at(`f${i}`), `first ${i}`)
  mount.ctl('snapshot', 'create', '/workspace/w', '--name', 'one')
  for (let i = 0; i < 50; i++) fs.writeFileSync(at(`f${i}`), `second ${i}`)
  for (const name of ['deadly', 'held']) fs.writeFileSync(at(name), 'later')
  fs.renameSync(at('f7'), at('moved'))
  const held = fs.openSync(at('held'), 'r')
  for (const name of fs.readdirSync(at(''))) fs.readFileSync(at(name))
  t.throws(() => fs.statSync(at('f7')), { code: 'ENOENT' })
  t.throws(() => mount.ctl('restore', '/workspace/w', 'one'), /nexusd went away during restore/)

  const wanted = Array.from({ length: 50 }, (_, i) => `first ${i}`)
  const found = (): string[] => wanted.map((_, i) => fs.readFileSync(at(`f${i}`), { encoding: 'utf8', flag: 'r' }))
  const isSeen = (): boolean => {
    try {
      return found().every((text, i) => text === wanted[i]) && !fs.existsSync(at('deadly')) && !fs.existsSync(at('moved'))
    } catch {
      return false
    }
  }
  for (let waited = 0; !isSeen() && waited < 10_000; waited += 20) await sleep(20)
  t.same(found(), wanted)
  t.same(fs.readdirSync(at('')).sort(), wanted.map((_, i) => `f${i}`).sort())
  t.equal(fs.readFileSync(held, 'utf8'), 'later', 'what a restore removed stays for who has it open')
  fs.closeSync(held)
})

/** Not the `umount` that the supervisor starts in the end. */
function serves(pid: number): boolean {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('\0serve\0')
  } catch {
    return false
  }
}

t.test(
  'a process that dies again and again is given up, and the mountpoint is free',
  { skip, timeout: 60_000 * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    fs.writeFileSync(mount.at('file'), 'content')
    const ended = mount.ended()
    let isOver = false
    void ended.then(() => {
      isOver = true
    })
    let killed = 0
    while (!isOver) {
      for (const pid of childrenOf(mount.pid).filter(serves)) {
        process.kill(pid, 'SIGKILL')
        killed++
      }
      await sleep(5)
    }
    t.equal(await ended, 1)
    t.match(mount.log, /given up: the serving process was ended by SIGKILL, 5 times in a row; nothing acknowledged is lost/)
    t.ok(killed >= 5)
    t.same(fs.readdirSync(mount.mountpoint), [])
    await mount.start()
    t.equal(fs.readFileSync(mount.at('file'), 'utf8'), 'content')
  },
)
