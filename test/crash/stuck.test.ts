/**
 * A serving process that is killed while a thread of it waits in the kernel for what only the next one can answer: it cannot
 * end before that is answered, so it must not be waited for.
 */
import { execFile, execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { mountFor, nexusd, noMount, plainFor, type TestMount } from '../mount/harness.ts'

const skip = noMount ?? false
const timeout = 120_000
const WAIT_MS_MAX = 60_000
const server = fileURLToPath(new URL('stuckserver.js', import.meta.url))

/** nexusd, but that what serves is stuckserver.ts. */
function program(t: Test): string {
  const file = path.join(plainFor(t), 'program.mjs')
  const url = (script: string): string => JSON.stringify(pathToFileURL(script).href)
  fs.writeFileSync(file, `await import(process.argv[2] === 'serve' ? ${url(server)} : ${url(nexusd)})\n`)
  return file
}

/** A mount whose serving process was killed with a thread that waits in the kernel, and somebody who waits for an answer. */
async function killStuck(t: Test, prepare: (mount: TestMount) => void = () => undefined) {
  const mount = await mountFor(t, { program: program(t), flags: ['--no-standby'] })
  // Should the test fail, nobody is left to answer.
  t.teardown(() => execFileSync('sh', ['-c', 'umount -f -l "$1" 2> /dev/null || true', 'sh', mount.mountpoint]))
  prepare(mount)
  const made = new Promise<string>((resolve) => {
    execFile('mkdir', [mount.at('held')], { env: { LC_ALL: 'C' } }, (_error, _stdout, stderr) => resolve(stderr))
  })
  const pid = await stuckServer(mount)
  process.kill(pid, 'SIGKILL')
  return { mount, pid, made }
}

/** Resolves when the notify waits, with the pid of the one who sent it. */
async function stuckServer(mount: TestMount): Promise<number> {
  for (const deadline = Date.now() + WAIT_MS_MAX; Date.now() < deadline; await sleep(5)) {
    const pid = Number(read(path.join(mount.data, 'stuck')))
    if (pid > 0 && threadsOf(pid).some((thread) => read(`${thread}/wchan`).startsWith('fuse_reverse_inval'))) return pid
  }
  throw new Error(`no notify waits: ${mount.log}`)
}

function threadsOf(pid: number): string[] {
  return fs.readdirSync(`/proc/${pid}/task`).map((tid) => `/proc/${pid}/task/${tid}`)
}

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

t.test('another process takes over at once, and lets the one before it end', { skip, timeout }, async (t) => {
  const { mount, pid, made } = await killStuck(t)
  t.match(await made, 'Function not implemented', 'as the next one answers, not as an aborted mount')
  t.match(mount.log, 'died, and a thread of it still waits in the kernel: another takes over')
  // Dead it was before, and could not go.
  const entry = `/proc/${pid}`
  for (const deadline = Date.now() + WAIT_MS_MAX; fs.existsSync(entry) && Date.now() < deadline; ) await sleep(5)
  t.notOk(fs.existsSync(entry))
  t.equal(await mount.stop(), 0)
})

t.test('when nobody can take over, who waits is told', { skip, timeout }, async (t) => {
  const { mount, made } = await killStuck(t, ({ data }) => fs.writeFileSync(path.join(data, 'mortal'), ''))
  t.match(await made, 'Software caused connection abort')
  t.equal(await mount.ended(), 1)
  t.match(mount.log, 'the mount was given up')
  t.equal(mount.log.includes('the mount is aborted'), false, 'it is not dead that it was waited for, but who takes over')
})
