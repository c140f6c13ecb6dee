/**
 * A user may hold a lock of the kernel for as long as they like (stall.py). Others, and commands on what is theirs, must not
 * notice: before notifies had lanes, one held directory kept every revocation, grant, snapshot and direct write of all.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import t, { type Test } from 'tap'
import { accessMountFor, Person, shAs, skip, uids } from './access.ts'
import { scriptOf, sh } from './guest.ts'
import { plainFor } from './harness.ts'

/** Nothing here takes a second; what waits for the lock takes for ever. */
const WAIT_MS_MAX = 20_000

/** Holds a lock until it is told to let go, or the test ends. */
class Stall {
  readonly #process: ChildProcess
  readonly #mountpoint: string

  private constructor(child: ChildProcess, mountpoint: string) {
    this.#process = child
    this.#mountpoint = mountpoint
  }

  static async begin(t: Test, uid: number, how: 'list' | 'write', path: string): Promise<Stall> {
    const mountpoint = plainFor(t)
    fs.chmodSync(mountpoint, 0o755)
    const child = spawn('python3', [scriptOf('stall.py'), mountpoint, String(uid), how, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const stall = new Stall(child, mountpoint)
    t.teardown(() => stall.end())
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => Promise.reject(new Error('nothing is held')))])
    return stall
  }

  /** Quiet when repeated. */
  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const exited = once(this.#process, 'exit')
    this.#process.kill('SIGTERM')
    await exited
    execFileSync('sh', ['-c', 'umount -l "$1" 2> /dev/null || true', 'sh', this.#mountpoint])
  }
}

/** Fails when it takes longer than anything that holds no lock. */
async function soon<T>(t: Test, what: string, promise: Promise<T>): Promise<T> {
  const begun = performance.now()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} waits for somebody else's lock`)), WAIT_MS_MAX)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
    t.comment(`${what}: ${(performance.now() - begun).toFixed(0)} ms`)
  }
}

t.test('a held directory delays only what concerns it', { skip, timeout: 600_000 }, async (t) => {
  for (const where of ['directory', 'listing', 'file'] as const) {
    await t.test(where, { timeout: 300_000 }, async (t) => {
      const { mount, service } = await accessMountFor(t)
      const evil = mount.at('workspace/evil')
      shAs(uids.eve, `mkdir evil; mkdir evil/d; echo old > evil/d/f; echo gone > evil/d/g`, mount.at('workspace'))
      await service.snapshotCreate('/workspace/evil', { name: 's' })
      shAs(uids.eve, 'rm g; echo new > f; echo added > h', `${evil}/d`)
      const acme = mount.at('tenants/acme/data')
      sh('echo text > f; chown -R 1001:1001 .', acme)
      // From now on the kernel serves the listing from its cache, under the lock of its page.
      if (where === 'listing') for (let i = 0; i < 2; i++) shAs(uids.eve, 'ls > /dev/null', `${evil}/d`)
      else shAs(uids.eve, 'stat f h > /dev/null', `${evil}/d`)
      const stall = await Stall.begin(
        t,
        uids.eve,
        where === 'file' ? 'write' : 'list',
        where === 'file' ? `${evil}/d/h` : `${evil}/d`,
      )

      // Drops names, listings and pages of what is held; the file's lock too, as h is deleted.
      await soon(t, 'a restore of what is held', service.restore('/workspace/evil', 's', { force: true }))
      const bob = await Person.start(t, uids.bob, acme)
      for (let round = 0; round < 3; round++) {
        await soon(t, 'grant', service.grant('user:bob', 'viewer', '/tenants/acme', {}))
        t.equal(await soon(t, 'read', bob.try("read('f')")), 'ok')
        t.equal(await soon(t, 'ls /tenants', bob.try(`same(os.listdir(${JSON.stringify(mount.at('tenants'))}), ['acme'])`)), 'ok')
        await soon(t, 'revoke', service.revoke('user:bob', 'viewer', '/tenants/acme'))
        for (const code of ["read('f')", "os.listdir('.')", "os.stat('f')"]) t.equal(await bob.try(code), 'EACCES', code)
        await soon(t, 'snapshot', service.snapshotCreate('/tenants/acme', {}))
      }
      await bob.run(`os.chdir('/')`)
      const maker = await Person.start(t, uids.alice, acme)
      await maker.run("w = os.open('w', os.O_CREAT | os.O_WRONLY)")
      const steps = ["os.pwrite(w, b'one', 0)", "read('w')", "os.pwrite(w, b'two', 0)"]
      // The read in between puts pages into the kernel's cache: the second write waits until they are dropped again.
      for (const step of steps) t.equal(await soon(t, step, maker.try(step)), 'ok', step)
      t.equal(await maker.try("same(read('w'), b'two')"), 'ok')

      await stall.end()
      t.equal(shAs(uids.eve, 'cat f g; ls', `${evil}/d`), 'old\ngone\nf\ng\n', 'and what was held is as it was restored')
      t.equal(await mount.stop(), 0)
    })
  }
})

t.test('who holds /workspace delays nobody elsewhere, and no revocation', { skip, timeout: 600_000 }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  shAs(uids.alice, 'mkdir own; echo text > own/f', mount.at('workspace'))
  const own = mount.at('workspace/own')
  await service.grant('user:bob', 'viewer', '/workspace/own', {})
  const bob = await Person.start(t, uids.bob, '/')
  t.equal(await bob.try(`os.chdir(${JSON.stringify(own)}); read('f')`), 'ok')
  t.equal(shAs(uids.eve, 'ls', mount.at('workspace')), '', 'eve is admitted')
  const stall = await Stall.begin(t, uids.eve, 'list', mount.at('workspace'))

  await soon(t, 'revoke', service.revoke('user:bob', 'viewer', '/workspace/own'))
  for (const code of ["read('f')", "os.listdir('.')", "os.stat('f')"]) t.equal(await bob.try(code), 'EACCES', code)
  await soon(t, 'grant', service.grant('user:bob', 'editor', '/workspace/own', {}))
  t.equal(await bob.try("write('f')"), 'ok')
  await soon(t, 'snapshot', service.snapshotCreate('/workspace/own', {}))
  const carol = await Person.start(t, uids.carol, '/')
  const listing = `same(os.listdir(${JSON.stringify(mount.at('tenants'))}), [])`
  t.equal(await soon(t, 'ls /tenants, as somebody new', carol.try(listing)), 'ok')
  t.match(mount.log, 'a process holds a directory: all names are looked up again')

  await stall.end()
  t.equal(await soon(t, 'who is new to /workspace', carol.try(`os.stat(${JSON.stringify(own)})`)), 'EACCES')
  t.equal(await bob.try(`read(${JSON.stringify(`${own}/f`)})`), 'ok')
  t.equal(await mount.stop(), 0)
})
