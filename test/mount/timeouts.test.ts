/** A disk that hangs: the data of one mount lies in another, whose serving process is stopped and goes on later. */
import fs from 'node:fs'
import { open } from 'node:fs/promises'
import t, { type Test } from 'tap'
import { childrenOf, mountFor, noMount, type TestMount } from './harness.ts'
import { isOneLine, needsRoot, scratchFor } from './nexusd.ts'

const skip = noMount ?? needsRoot

/** What hangs from `hang` to `goOn`: everything that asks it for anything waits in the kernel. */
class Disk {
  readonly #mount: TestMount

  constructor(mount: TestMount) {
    this.#mount = mount
  }

  get data(): string {
    return this.#mount.at('workspace', 'disk', 'data')
  }

  hang(): void {
    this.#signal('SIGSTOP')
  }

  goOn(): void {
    this.#signal('SIGCONT')
  }

  #signal(signal: NodeJS.Signals): void {
    for (const pid of childrenOf(this.#mount.pid)) process.kill(pid, signal)
  }
}

async function diskFor(t: Test): Promise<Disk> {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace', 'disk'))
  return new Disk(mount)
}

t.test(
  'an fsync that the disk does not answer is EIO, whichever process serves, and what comes after it is served',
  { skip },
  async (t) => {
    const disk = await diskFor(t)
    const mount = await mountFor(t, { data: disk.data, flags: ['--request-timeout', '1'] })
    // First of all at the end: who waits in the kernel for a process that is stopped cannot be killed.
    t.teardown(() => disk.goOn())
    for (const pid of childrenOf(mount.pid)) process.kill(pid, 'SIGKILL')
    const file = await open(mount.at('workspace', 'f'), 'w+')
    t.teardown(() => file.close())
    await file.write('one ')
    await file.sync()
    await file.write('two ')

    disk.hang()
    const begun = performance.now()
    await t.rejects(file.sync(), { code: 'EIO' })
    const waitedMs = performance.now() - begun
    t.ok(waitedMs > 900, `the disk was waited for (${waitedMs} ms)`)
    await t.rejects(file.datasync(), { code: 'EIO' }, 'the next one has a limit of its own')
    t.notOk(fs.existsSync(mount.at('workspace', 'none')), 'others are answered all the while')
    t.match(mount.log, /"op":"FSYNC","node":\d+,"waits_for":"disk","waited_s":[1-9][^\n]*too long and is answered with EIO/)

    disk.goOn()
    await file.sync()
    await file.write('three')
    await file.sync()
    t.match(mount.ctl('metrics'), /^nexus_request_timeouts_total 2$/m)
    t.match(mount.ctl('metrics'), /^nexus_request_errors_total\{operation="FSYNC",errno="EIO"\} 2$/m)
    t.equal(fs.readFileSync(mount.at('workspace', 'f'), 'utf8'), 'one two three')
    await mount.kill()
    await mount.start()
    t.equal(fs.readFileSync(mount.at('workspace', 'f'), 'utf8'), 'one two three', 'nothing is lost')
  },
)

t.test('seconds that are none are refused before anything is touched', { skip: noMount ?? false }, async (t) => {
  const scratch = scratchFor(t)
  const [mountpoint, data] = [scratch.dir('mnt'), scratch.at('data')]
  for (const words of ['0', '86401', '-1', '1.5', '1s', ' 1', '1e3', '', '99999999999999999999']) {
    for (const more of [[], ['--background']]) {
      const outcome = await scratch.nexusd(['mount', mountpoint, '--data', data, `--request-timeout=${words}`, ...more])
      t.strictSame([outcome.status, outcome.stdout], [2, ''], words)
      t.ok(isOneLine(outcome.stderr), outcome.stderr)
      t.match(outcome.stderr, /--request-timeout .* is not a whole number of seconds from 1 to 86400/)
    }
  }
  t.notOk(fs.existsSync(data))
})
