/** nexusctl by those who use a mount: real processes with uids of their own, and what they may. */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import { knownUid, prepareDirectory } from '../../src/daemon/everybody.ts'
import { publicDirectory, publicSocketOf, socketPathOf } from '../../src/host/location.ts'
import { accessMountFor, type Name, STRANGER, shAs, skip, uids } from './access.ts'
import { mountFor, plainFor, type TestMount } from './harness.ts'
import { type Outcome, scratchFor } from './nexusd.ts'

interface Users {
  mount: TestMount
  /** runs nexusctl to its end; its directory is the mount's workspace directory unless told */
  ctl(who: Name | 'stranger', words: string, cwd?: string): Promise<Outcome>
}

async function usersFor(t: Test): Promise<Users> {
  const { mount } = await accessMountFor(t)
  const scratch = scratchFor(t)
  const ctl: Users['ctl'] = (who, words, cwd = mount.at('workspace')) => {
    const uid = who === 'stranger' ? STRANGER : uids[who]
    return scratch.nexusctl(words.split(' '), { uid, cwd, env: { HOME: '/nonexistent', NEXUS_DATA: '' } })
  }
  return { mount, ctl }
}

t.test('an owner shares, snapshots, restores and forks what is his', { skip }, async (t) => {
  const { mount, ctl } = await usersFor(t)
  const works = async (who: Name | 'stranger', words: string, cwd?: string): Promise<string> => {
    const { status, stdout, stderr } = await ctl(who, words, cwd)
    t.strictSame({ status, stderr }, { status: 0, stderr: '' }, `${who}: ${words}`)
    return stdout
  }
  const fails = async (who: Name | 'stranger', words: string, message: RegExp, cwd?: string): Promise<void> => {
    const { status, stderr } = await ctl(who, words, cwd)
    t.match({ status, stderr }, { status: 1, stderr: message }, `${who}: ${words}`)
  }
  const read = (who: Name, file: string): string => {
    try {
      return shAs(uids[who], `cat ${file}`, '/')
    } catch (error) {
      return /Permission denied/.test(String(error)) ? 'EACCES' : String(error)
    }
  }
  shAs(uids.alice, 'mkdir x; echo one > x/file', mount.at('workspace'))
  const file = mount.at('workspace/x/file')

  t.equal(read('bob', file), 'EACCES')
  await works('alice', 'grant bob viewer x')
  t.equal(read('bob', file), 'one\n')
  await fails(
    'bob',
    'grant carol viewer x',
    /^nexusctl: user:bob may not share \/workspace\/x: ask one of its owners, or root\n$/,
  )
  t.equal(read('carol', file), 'EACCES')

  await works('alice', 'snapshot x --name s')
  await fails('bob', 'snapshot x', /user:bob may not snapshot/)
  shAs(uids.alice, 'echo two > file', mount.at('workspace/x'))
  await fails('bob', 'restore x s', /user:bob may not restore/)
  t.match(await works('bob', 'snapshot diff x s'), /file/)
  await works('alice', 'restore . s', mount.at('workspace/x'))
  t.equal(read('bob', file), 'one\n')

  await works('alice', `fork ${mount.at('workspace/x')} /workspace/y --json`, '/tmp')
  t.match(JSON.parse(mount.ctl('--json', 'grants', '/workspace/y')), [{ subject: 'user:alice', relation: 'owner' }])
  t.equal(read('alice', mount.at('workspace/y/file')), 'one\n')
  t.equal(read('bob', mount.at('workspace/y/file')), 'EACCES')
  await works('bob', 'fork x z')
  t.equal(read('bob', mount.at('workspace/z/file')), 'one\n')
  t.equal(read('alice', mount.at('workspace/z/file')), 'EACCES', "a fork is its maker's alone")
  await works('bob', 'workspace delete z')

  await works('alice', 'revoke bob viewer x')
  t.equal(read('bob', file), 'EACCES')
  await fails('bob', 'workspace show x', /user:bob may not read/)

  const listed = async (who: Name | 'stranger'): Promise<string[]> => {
    const { stdout } = await ctl(who, '--json workspace list')
    return (JSON.parse(stdout) as { path: string }[]).map((one) => one.path)
  }
  t.strictSame(await listed('alice'), ['/tenants/acme', '/workspace/x', '/workspace/y'])
  t.strictSame(await listed('bob'), [])
  t.strictSame(await listed('stranger'), [])
  await fails('alice', 'identity add mallory --uid 1666', /user:alice may not say who is who: ask root/)
  await fails('stranger', 'workspace delete x', /user:uid-1999 may not share/)
  await fails('alice', 'workspace create /tenants/new', /ask root/)
  await works('stranger', 'workspace create /workspace/mine')
  t.strictSame(await listed('stranger'), ['/workspace/mine'])
})

t.test('the daemon is found from inside and outside, named or not', { skip }, async (t) => {
  const { mount, ctl } = await usersFor(t)
  const link = path.join(path.dirname(mount.data), 'link')
  fs.symlinkSync(mount.data, link)
  for (const [words, cwd] of [
    ['status', mount.mountpoint],
    ['status', mount.at('workspace')],
    [`--data ${mount.data} status`, '/'],
    [`--data ${link} status`, '/'],
    [`grants ${mount.at('tenants/acme')}`, '/'],
  ] as const) {
    const { status, stdout, stderr } = await ctl('alice', words, cwd)
    t.match({ status, stderr }, { status: 0, stderr: '' }, `${words} in ${cwd}`)
    t.match(stdout, words.includes('grants') ? 'user:alice' : mount.mountpoint)
  }
  const { status, stdout } = await ctl('alice', '--json status')
  t.equal(status, 0)
  t.match(JSON.parse(stdout), { pid: 0, single_user: false, requests: {}, log_bytes: 0 })
  t.ok(mount.json<{ pid: number }>('status').pid > 0, 'root has it all')

  t.equal(fs.statSync(socketPathOf(mount.data)).mode & 0o7777, 0o600)
  t.equal(fs.statSync(mount.data).mode & 0o7777, 0o700)
  t.equal(fs.statSync(publicSocketOf(mount.data)).mode & 0o7777, 0o666)
  t.match(fs.statSync(publicDirectory), { uid: 0 })
  t.equal(fs.statSync(publicDirectory).mode & 0o7777, 0o755)
  t.throws(() => shAs(uids.alice, `touch ${publicDirectory}/mine`, '/'), /Permission denied/)
  t.throws(() => shAs(uids.alice, `rm -f ${publicSocketOf(mount.data)}`, '/'), /denied|permitted/)

  t.equal(await mount.stop(), 0)
  t.notOk(fs.existsSync(publicSocketOf(mount.data)), 'gone with its daemon')
  const gone = await ctl('alice', `--data ${mount.data} status`, '/')
  t.match(gone, { status: 1, stderr: /you may not talk to the nexusd|no nexusd answers/ })
})

t.test('nobody holds up the others, and a stale socket is replaced', { skip }, async (t) => {
  const { mount, ctl } = await usersFor(t)
  const scratch = scratchFor(t)
  const script = `
    const held = Array.from({ length: 8 }, () => require('node:net').connect(process.argv[1]))
    Promise.all(held.map((one) => new Promise((resolve) => one.once('connect', resolve)))).then(() => console.log('held'))
  `
  const holder = scratch.spawn(process.execPath, ['-e', script, publicSocketOf(mount.data)], { uid: uids.bob, cwd: '/' })
  await holder.says('held')
  t.match(await ctl('bob', 'status'), { status: 1, stderr: /this user has 8 calls at work; try again/ })
  t.match(await ctl('alice', 'status'), { status: 0 })
  t.match(mount.ctl('status'), mount.mountpoint)
  await holder.end('SIGKILL')
  t.match(await ctl('bob', 'status'), { status: 0 })

  await mount.kill()
  t.ok(fs.existsSync(publicSocketOf(mount.data)), 'nobody was left to remove it')
  await mount.start()
  t.match(await ctl('bob', 'status'), { status: 0 })
})

t.test('what squats the place of the socket leaves root alone with nexusctl, and the log says so', { skip }, async (t) => {
  const { mount, ctl } = await usersFor(t)
  t.equal(await mount.stop(), 0)
  const place = publicSocketOf(mount.data)
  fs.writeFileSync(place, 'mine')
  t.teardown(() => fs.rmSync(place, { force: true }))
  await mount.start()
  t.match(mount.log, /cannot be served: nexusctl is root's alone/)
  t.equal(fs.readFileSync(place, 'utf8'), 'mine')
  t.match(mount.ctl('status'), mount.mountpoint)
  t.match(await ctl('alice', 'status'), { status: 1 })
  t.equal(await mount.stop(), 0)
  t.equal(fs.readFileSync(place, 'utf8'), 'mine', 'it is not ours to remove')

  fs.rmSync(place)
  const other = net.createServer()
  await new Promise<void>((resolve) => other.listen(place, resolve))
  t.teardown(() => other.close())
  await mount.start()
  t.match(mount.log, /another nexusd answers/)
})

t.test('a mount for one user has no socket for others', { skip }, async (t) => {
  const mount = await mountFor(t, { flags: ['--single-user'] })
  t.notOk(fs.existsSync(publicSocketOf(mount.data)))
  t.equal(fs.statSync(socketPathOf(mount.data)).mode & 0o7777, 0o600)
})

t.test('a directory that others could put a socket into is not used', { skip }, async (t) => {
  const base = plainFor(t)
  const at = (name: string): string => path.join(base, name)
  prepareDirectory(at('new'))
  t.equal(fs.statSync(at('new')).mode & 0o7777, 0o755)
  prepareDirectory(at('new'))
  const refused = { code: 'NEXUS_DENIED', message: /is not a directory that only root can write/ }
  for (const mode of [0o775, 0o757, 0o1777]) {
    fs.mkdirSync(at(`mode-${mode}`))
    fs.chmodSync(at(`mode-${mode}`), mode)
    t.throws(() => prepareDirectory(at(`mode-${mode}`)), refused, mode.toString(8))
    t.throws(() => prepareDirectory(at(`mode-${mode}/in`)), refused, 'nor one in it')
  }
  fs.mkdirSync(at('of-alice'))
  fs.chownSync(at('of-alice'), uids.alice, uids.alice)
  t.throws(() => prepareDirectory(at('of-alice')), refused)
  fs.symlinkSync(at('new'), at('link'))
  t.throws(() => prepareDirectory(at('link')), refused)
  fs.writeFileSync(at('file'), '')
  t.throws(() => prepareDirectory(at('file')), refused)
})

t.test('where the kernel has one number for many users, none of them is served', async (t) => {
  const whole = '         0          0 4294967295\n'
  const part = '         0     100000      65536\n'
  t.equal(knownUid(65534, whole), 65534)
  t.equal(knownUid(1001, part), 1001)
  t.equal(knownUid(0, part), 0)
  for (const map of [part, '', `${whole}${part}`]) t.throws(() => knownUid(65534, map), { code: 'NEXUS_DENIED' })
})
