/** The process that waits to take over: it is used, it is the supervisor's alone, and without it everything goes on as well. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { childrenOf, gone, type MountOptions, mountFor, nexusd, noMount, plainFor, type TestMount } from '../mount/harness.ts'
import { isRunning } from '../mount/nexusd.ts'

const skip = noMount ?? false
const timeout = 180_000
/** Much more than anything here needs, on a machine that is busy with other tests too. */
const WAIT_MS_MAX = 60_000

async function until<T>(what: string, look: () => T | undefined | false): Promise<T> {
  for (const deadline = Date.now() + WAIT_MS_MAX; ; await sleep(5)) {
    const found = look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > deadline) throw new Error(`${what}: not within ${WAIT_MS_MAX} ms`)
  }
}

function talkativeMount(t: Test, options: MountOptions = {}): Promise<TestMount> {
  return mountFor(t, { ...options, env: { NEXUS_LOG: 'info', ...options.env } })
}

/** Who said that he waits, and still does. */
function waiting(mount: TestMount): number | undefined {
  const said = [...mount.log.matchAll(/"standby":(\d+),"msg":"a process waits to take over"/g)].map(([, pid]) => Number(pid))
  const last = said.at(-1)
  return last !== undefined && childrenOf(mount.pid).includes(last) && serving(mount) !== last ? last : undefined
}

function standby(mount: TestMount): Promise<number> {
  return until(`a process that waits (${mount.log})`, () => waiting(mount))
}

/** The oldest child: whoever waits was started after it. */
function serving(mount: TestMount): number | undefined {
  return childrenOf(mount.pid)[0]
}

/** Asks for something that the kernel does not know by itself, off this thread. */
async function answers(mount: TestMount): Promise<void> {
  await fs.promises.stat(mount.at(`no such name ${Math.random()}`)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
}

function kill(pid: number | undefined): void {
  process.kill(pid as number, 'SIGKILL')
}

/** A program that says which it is, and can be replaced by another. */
function program(t: Test): { file: string; install(text: string): void } {
  const file = path.join(plainFor(t), 'program.mjs')
  const install = (text: string): void => {
    fs.writeFileSync(`${file}.new`, text)
    fs.renameSync(`${file}.new`, file)
  }
  return { file, install }
}

function saying(what: string): string {
  return `process.stderr.write(\`${what} \${process.pid}\\n\`)\nawait import('${pathToFileURL(nexusd).href}')\n`
}

t.test('who waits holds nothing of the store, takes no time, and is the next to serve', { skip, timeout }, async (t) => {
  const mount = await talkativeMount(t)
  fs.writeFileSync(mount.at('file'), 'content')
  for (let i = 0; i < 3; i++) {
    const next = await standby(mount)
    const open = fs.readdirSync(`/proc/${next}/fd`).map((fd) => fs.readlinkSync(`/proc/${next}/fd/${fd}`))
    t.notOk(open.some((file) => file.startsWith(mount.data)))
    t.notOk(open.includes('/dev/fuse'))
    t.ok(await comesToRest(next), 'no processor time')
    kill(serving(mount))
    await answers(mount)
    t.equal(serving(mount), next)
    t.equal(fs.readFileSync(mount.at('file'), 'utf8'), 'content')
    t.equal(niceOf(next), niceOf(mount.pid), 'it no longer lets others go first')
  }
  await standby(mount)
  t.equal(await mount.stop(), 0)
})

/** Whether it takes no processor time for a second. V8 may still tidy up after loading, on a busy machine a while later. */
async function comesToRest(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 10; tries++) {
    const before = processorTicks(pid)
    await sleep(1000)
    if (processorTicks(pid) === before) return true
  }
  return false
}

/** Of 10 ms each (proc_pid_stat(5)). */
function processorTicks(pid: number): number {
  return Number(statOf(pid)[11]) + Number(statOf(pid)[12])
}

function niceOf(pid: number): number {
  return Number(statOf(pid)[16])
}

/** The fields from the third on, behind the name of the program. */
function statOf(pid: number): string[] {
  return (fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? '').split(' ')
}

t.test('an upgrade starts the program that is installed now, not the one that waits', { skip, timeout }, async (t) => {
  const { file, install } = program(t)
  install(saying('first'))
  const mount = await talkativeMount(t, { program: file })
  const before = await standby(mount)
  install(saying('second'))
  t.match(mount.daemonSays('upgrade', mount.mountpoint), /is served by/)
  const after = serving(mount)
  await until('its word', () => mount.log.includes(`second ${after}\n`))
  await gone(before)
  t.notMatch(mount.log, 'another takes over')
  const next = await standby(mount)
  await until('its word', () => mount.log.includes(`second ${next}\n`))

  install('process.exit(3)')
  process.kill(mount.pid, 'SIGHUP')
  await until('a word about it', () => mount.log.includes('the program that is installed now cannot start'))
  t.equal(serving(mount), after, 'a program that cannot start takes nothing over')
  await answers(mount)
  install(saying('third'))
  t.match(mount.daemonSays('upgrade', mount.mountpoint), /is served by/)
  await until('its word', () => mount.log.includes(`third ${serving(mount)}\n`))
})

t.test('nobody outlives the supervisor', { skip, timeout }, async (t) => {
  const moments = {
    'as soon as it is there': (mount: TestMount) => until('a second child', () => childrenOf(mount.pid)[1]),
    'while it loads': async (mount: TestMount) => {
      const pid = await until('a second child', () => childrenOf(mount.pid)[1])
      await sleep(150)
      return pid
    },
    'while it waits': standby,
  }
  for (const [moment, reach] of Object.entries(moments)) {
    const mount = await talkativeMount(t)
    const pid = await reach(mount)
    const all = childrenOf(mount.pid)
    t.ok(all.includes(pid))
    kill(mount.pid)
    for (const each of all) await gone(each)
    t.notOk(isRunning(pid), moment)
    await mount.dispose()
  }
})

t.test('who dies while he waits is replaced', { skip, timeout }, async (t) => {
  const mount = await talkativeMount(t)
  const serves = serving(mount)
  const first = await standby(mount)
  kill(first)
  const second = await until('another', () => {
    const pid = waiting(mount)
    return pid !== first && pid
  })
  t.equal(serving(mount), serves)
  t.match(mount.log, 'the process that waited to take over was ended by SIGKILL')
  kill(serves)
  await answers(mount)
  t.equal(serving(mount), second)
})

t.test('both die at once, and another takes over', { skip, timeout }, async (t) => {
  const mount = await talkativeMount(t)
  fs.writeFileSync(mount.at('file'), 'content')
  for (const isServingFirst of [true, false]) {
    const pids = [serving(mount), await standby(mount)]
    for (const pid of isServingFirst ? pids : pids.reverse()) kill(pid)
    await answers(mount)
    t.notOk(pids.includes(serving(mount)))
    t.equal(fs.readFileSync(mount.at('file'), 'utf8'), 'content')
  }
  // One that is still loading is as good.
  const pid = await until('a second child', () => childrenOf(mount.pid)[1])
  kill(serving(mount))
  await answers(mount)
  t.equal(serving(mount), pid)
})

t.test('who waited and does not move is not waited for', { skip, timeout }, async (t) => {
  const mount = await talkativeMount(t)
  const stuck = await standby(mount)
  process.kill(stuck, 'SIGSTOP')
  kill(serving(mount))
  await answers(mount)
  t.not(serving(mount), stuck)
  t.notOk(isRunning(stuck))
  t.match(mount.log, 'the serving process did not begin in time and was killed: another takes over')
})

t.test('none waits that is not wanted', { skip, timeout }, async (t) => {
  const mount = await talkativeMount(t, { flags: ['--no-standby'] })
  await sleep(3000)
  t.equal(childrenOf(mount.pid).length, 1)
  const before = serving(mount)
  kill(before)
  await answers(mount)
  t.not(serving(mount), before)
  t.match(mount.daemonSays('upgrade', mount.mountpoint), /is served by/)
  await sleep(2000)
  t.equal(childrenOf(mount.pid).length, 1)
})

t.test('each mount has its own', { skip, timeout }, async (t) => {
  const mounts = [await talkativeMount(t), await talkativeMount(t)] as const
  const next = [await standby(mounts[0]), await standby(mounts[1])]
  for (const mount of mounts) kill(serving(mount))
  await Promise.all(mounts.map(answers))
  t.same(mounts.map(serving), next)
  // Asked to end while another is about to be started.
  for (const mount of mounts) t.equal(await mount.stop(), 0)
})
