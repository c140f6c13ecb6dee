/** How a mount ends: each end is said, and one that nobody answers any more can be ended by force. */
import { execFile, execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { allMounts } from '../../src/host/mounts.ts'
import { childrenOf, noMount, plainFor } from './harness.ts'
import { isRunning, mountsBelow, needsRoot, type Running, type Scratch, scratchFor } from './nexusd.ts'

const skip = noMount ?? needsRoot
const timeout = 600_000
const WAIT_MS_MAX = 60_000

interface Mounted {
  scratch: Scratch
  mountpoint: string
  daemon: Running
}

/** Aborts by fusectl, wherever that is mounted. */
function abortIn(t: Test, mountpoint: string): void {
  const device = allMounts().find((entry) => entry.mountpoint === mountpoint)?.device ?? ''
  const control = plainFor(t)
  execFileSync('mount', ['-t', 'fusectl', 'none', control])
  try {
    fs.writeFileSync(path.join(control, device.split(':')[1] ?? '', 'abort'), '1')
  } finally {
    execFileSync('umount', [control])
  }
}

const ENDS: Record<string, { end(t: Test, mounted: Mounted): unknown; says: RegExp; logs: RegExp }> = {
  SIGTERM: { end: (_t, { daemon }) => daemon.child.kill('SIGTERM'), says: /it was sent SIGTERM/, logs: /^$/ },
  SIGINT: { end: (_t, { daemon }) => daemon.child.kill('SIGINT'), says: /it was sent SIGINT/, logs: /^$/ },
  'nexusd unmount': {
    end: (_t, { scratch, mountpoint }) => scratch.nexusd(['unmount', mountpoint]),
    says: /nexusd unmount asked for it/,
    logs: /^$/,
  },
  umount: {
    end: (_t, { mountpoint }) => execFileSync('umount', [mountpoint]),
    says: /umount or fusermount3 unmounted it/,
    logs: /^$/,
  },
  'an abort': {
    end: (t, { mountpoint }) => abortIn(t, mountpoint),
    says: /its connection was aborted/,
    logs: /was aborted, by nexusd unmount --force or in/,
  },
}

t.test('each end has a line that says who asked', { skip, timeout }, async (t) => {
  for (const [name, { end, says, logs }] of Object.entries(ENDS)) {
    const scratch = scratchFor(t)
    const mountpoint = scratch.dir('mnt')
    const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
    fs.writeFileSync(path.join(mountpoint, 'f'), 'content')
    await end(t, { scratch, mountpoint, daemon })
    const { status, stdout, stderr } = await daemon.ended
    t.equal(status, 0, name)
    t.match(stdout.split('\n')[1], says, name)
    t.equal(stdout.split('\n')[1]?.startsWith(`unmounted ${mountpoint}: `), true, name)
    t.match(stderr, logs, name)
    t.same(mountsBelow(scratch.directory), [], name)
    const again = await scratch.mount([mountpoint, '--data', scratch.at('data')])
    t.equal(fs.readFileSync(path.join(mountpoint, 'f'), 'utf8'), 'content', name)
    await again.end('SIGTERM')
  }
})

/** A program that asks for what nobody answers: resolves with what it was told at last. */
function asks(mountpoint: string): { told: Promise<string>; pid: number } {
  let resolve: (stderr: string) => void = () => undefined
  const told = new Promise<string>((settle) => {
    resolve = settle
  })
  const child = execFile('stat', [path.join(mountpoint, 'none')], { env: { LC_ALL: 'C' } }, (_error, _out, stderr) =>
    resolve(stderr),
  )
  return { told, pid: child.pid ?? 0 }
}

async function waitsInKernel(pid: number): Promise<void> {
  for (const deadline = Date.now() + WAIT_MS_MAX; Date.now() < deadline; await sleep(5)) {
    if (fs.readFileSync(`/proc/${pid}/wchan`, 'utf8').startsWith('request_wait_answer')) return
  }
  throw new Error('it waits for no answer')
}

t.test('unmount --force frees those who wait for a daemon that hangs, and its supervisor too', { skip, timeout }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  const all = [daemon.pid, ...childrenOf(daemon.pid)]
  const resume = (): void => all.filter(isRunning).forEach((pid) => void process.kill(pid, 'SIGCONT'))
  t.teardown(resume)
  for (const pid of all) process.kill(pid, 'SIGSTOP')
  const { told, pid } = asks(mountpoint)
  await waitsInKernel(pid)
  t.match(await scratch.nexusd(['unmount', '--force', mountpoint]), { status: 0, stdout: '', stderr: '' })
  t.match(await told, /Software caused connection abort|Transport endpoint is not connected/)
  t.same(mountsBelow(scratch.directory), [])
  resume()
  t.equal((await daemon.ended).status, 0, 'and ends in order when it can')
  t.match(daemon.stdout, `unmounted ${mountpoint}: `)
})

t.test('unmount --force of a mount that is served waits for its end', { skip, timeout }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data')])
  fs.writeFileSync(path.join(mountpoint, 'f'), 'content')
  t.match(await scratch.nexusd(['unmount', '--force', mountpoint]), { status: 0, stdout: '', stderr: '' })
  t.notOk(isRunning(daemon.pid))
  t.equal((await daemon.ended).status, 0)
  t.match(await scratch.nexusd(['unmount', '--force', mountpoint]), { status: 1, stderr: /no nexus is mounted/ })
  await scratch.mount([mountpoint, '--data', scratch.at('data')])
  t.equal(fs.readFileSync(path.join(mountpoint, 'f'), 'utf8'), 'content')
})

t.test('when no process can serve, the mount is aborted', { skip, timeout }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const words = [mountpoint, '--data', scratch.at('data'), '--no-standby', '--abort-after', '3']
  const daemon = await scratch.mount(words)
  const [serving = 0] = childrenOf(daemon.pid)
  process.kill(serving, 'SIGSTOP')
  const { told, pid } = asks(mountpoint)
  await waitsInKernel(pid)
  // The next one waits for the store, as it would for a disk that hangs: it is held up before it does anything.
  process.kill(serving, 'SIGKILL')
  const next = await nextOf(daemon.pid, serving)
  process.kill(next, 'SIGSTOP')
  t.match(await told, /Software caused connection abort|Transport endpoint is not connected/)
  const { status, stderr } = await daemon.ended
  t.equal(status, 1)
  t.match(stderr, /the one that is to serve has done nothing for 3 s: the mount is aborted/)
  t.same(mountsBelow(scratch.directory), [])
  await scratch.mount([mountpoint, '--data', scratch.at('data')])
})

/** Who takes over. Not before its program runs: the supervisor itself waits for execve(2) of its child (uv_spawn). */
async function nextOf(supervisor: number, before: number): Promise<number> {
  for (const deadline = Date.now() + WAIT_MS_MAX; Date.now() < deadline; await sleep(2)) {
    const next = childrenOf(supervisor).find((pid) => pid !== before && wordsOf(pid).includes('serve'))
    if (next !== undefined) return next
  }
  throw new Error('nobody takes over')
}

function wordsOf(pid: number): string[] {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return []
  }
}
