/** Without root: through fusermount3, for one user alone. And root that keeps a mount to itself. */
import fs from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { noMount } from './harness.ts'
import { isOneLine, isRunning, mountsBelow, needsRoot, PACKAGE, type RunOptions, type Scratch, scratchFor } from './nexusd.ts'

/** Root is needed to become somebody else. */
const skip = noMount ?? needsRoot
const UID = 65534
const OTHER_UID = 4711
/** of no user in /etc/passwd */
const NAMELESS_UID = 64_321
const DEVICE = '/dev/fuse'

/** As udev has it on Debian; this machine's may differ. */
const modeBefore = skip ? 0 : fs.statSync(DEVICE).mode & 0o777
t.teardown(() => {
  if (!skip) fs.chmodSync(DEVICE, modeBefore)
})
if (!skip) fs.chmodSync(DEVICE, 0o666)

/** A home, and the program where any user can reach it; read-only, should a teardown ever remove what is there. */
async function userFor(t: Test): Promise<{ scratch: Scratch; home: string; as: RunOptions }> {
  const scratch = scratchFor(t)
  await scratch.run('mount', ['-o', 'bind,ro', PACKAGE, scratch.dir('nexus')])
  scratch.program = scratch.at('nexus')
  const home = scratch.dir('home')
  fs.chownSync(home, UID, UID)
  fs.mkdirSync(path.join(home, 'mnt'))
  fs.chownSync(path.join(home, 'mnt'), UID, UID)
  const env = { HOME: home, XDG_DATA_HOME: path.join(home, 'share'), NEXUS_DATA: '' }
  return { scratch, home, as: { uid: UID, cwd: home, env } }
}

t.test('an ordinary user mounts, works, and unmounts', { skip }, async (t) => {
  const { scratch, home, as } = await userFor(t)
  const data = path.join(home, 'share', 'nexus')
  const mountpoint = path.join(home, 'mnt')
  const daemon = await scratch.mount(['mnt'], as)
  t.match(daemon.stdout, `mounted ${mountpoint} (data in ${data}, pid `)
  for (const file of [data, path.join(data, 'nexus.json'), path.join(data, 'log'), path.join(data, 'control.sock')]) {
    const { uid, mode } = fs.statSync(file)
    t.same([uid, mode & 0o077], [UID, 0], `${path.basename(file)} is the user's alone`)
  }

  const shell = (text: string) => scratch.run('sh', ['-ec', text], as)
  t.match(await shell('mkdir mnt/workspace/acme && echo hello > mnt/workspace/acme/f && chmod 640 mnt/workspace/acme/f'), {
    status: 0,
    stderr: '',
  })
  t.equal((await shell('stat -c "%u %g %a" mnt/workspace/acme/f')).stdout, `${UID} ${UID} 640\n`)
  t.match(await shell('chown 0 mnt/workspace/acme/f'), { status: 1, stderr: /not permitted/ })
  t.match(await scratch.nexusctl(['snapshot', 'mnt/workspace/acme', '--name', 's'], as), { status: 0, stderr: '' })
  t.match(await shell('rm mnt/workspace/acme/f'), { status: 0 })
  t.match(await scratch.nexusctl(['restore', '/workspace/acme', 's'], as), { status: 0, stderr: '' })
  t.equal((await shell('cat mnt/workspace/acme/f')).stdout, 'hello\n')
  t.match(JSON.parse((await scratch.nexusd(['status', '--json'], as)).stdout), { single_user: true, data, mountpoint })

  t.throws(() => fs.readdirSync(mountpoint), { code: 'EACCES' }, 'not even root enters')
  t.match(await scratch.run('ls', [mountpoint], { uid: OTHER_UID }), { stderr: /Permission denied/ })
  t.match(await scratch.nexusd(['unmount', mountpoint], { uid: OTHER_UID }), { status: 1, stderr: /./ })
  t.ok(isRunning(daemon.pid))

  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
  t.notOk(mountsBelow(scratch.directory).includes(mountpoint))
})

t.test('in the background, and through a death', { skip }, async (t) => {
  const { scratch, home, as } = await userFor(t)
  const mountpoint = path.join(home, 'mnt')
  const isMounted = () => mountsBelow(scratch.directory).includes(mountpoint)
  const start = async () => {
    const outcome = await scratch.nexusd(['mount', mountpoint, '--background'], as)
    t.match(outcome, { status: 0, stderr: '' })
    return Number(/pid (\d+)/.exec(outcome.stdout)?.[1])
  }
  const first = await start()
  await scratch.run('sh', ['-ec', 'echo one > mnt/f'], as)
  process.kill(first, 'SIGKILL')
  const second = await start()
  t.equal((await scratch.run('cat', ['mnt/f'], as)).stdout, 'one\n', 'the dead mount is cleared')
  t.match(await scratch.nexusd(['unmount', mountpoint], as), { status: 0, stderr: '' })
  t.notOk(isRunning(second))
  t.notOk(isMounted())

  const third = await start()
  process.kill(third, 'SIGKILL')
  while (isRunning(third)) await new Promise((resolve) => setTimeout(resolve, 10))
  t.match(await scratch.nexusd(['unmount', mountpoint], as), { status: 0, stderr: '' }, 'and by unmount')
  t.notOk(isMounted())

  const fourth = await start()
  t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0, stderr: '' }, 'root may, too')
  t.notOk(isRunning(fourth))
})

const SHARED_NAMES = ['with spaces', 'com,mas', 'back\\slash', 'ünï-日本']

t.test('paths of any characters reach fusermount3', { skip }, async (t) => {
  const { scratch, home, as } = await userFor(t)
  for (const name of SHARED_NAMES) {
    const mountpoint = path.join(home, name, 'mnt')
    await scratch.run('mkdir', ['-p', mountpoint], as)
    const daemon = await scratch.mount([mountpoint, '--data', path.join(home, name, 'data')], as)
    t.match(await scratch.nexusd(['unmount', mountpoint], as), { status: 0, stderr: '' }, name)
    t.match(await daemon.ended, { status: 0, stderr: '' }, name)
  }
})

t.test('what a user may not use is refused in one line', { skip }, async (t) => {
  const { scratch, home, as } = await userFor(t)
  scratch.dir('secret', 'mnt')
  fs.chmodSync(scratch.at('secret'), 0o700)
  const rows: [string[], RegExp][] = [
    [[scratch.at('secret', 'mnt')], /secret\/mnt cannot be reached by this user: choose another mountpoint/],
    [[scratch.dir('roots')], /cannot mount on \S+\/roots: .*fusermount3: .*/],
    [[path.join(home, 'mnt'), '--data', scratch.at('secret', 'data')], /cannot be written by this user: change its owner/],
    [[path.join(home, 'mnt'), '--data', scratch.dir('roots')], /cannot be written by this user: change its owner/],
  ]
  const held = await scratch.mount([scratch.dir('taken'), '--data', scratch.at('data')])
  fs.chmodSync(scratch.at('data'), 0o755)
  rows.push([[scratch.at('taken')], /taken is busy: nexus \(data in \S+\) is mounted there/])
  rows.push([[path.join(home, 'mnt'), '--data', scratch.at('data')], /cannot be written by this user: change its owner/])
  for (const [words, reason] of rows) {
    for (const flags of [[], ['--background']]) {
      const outcome = await scratch.nexusd(['mount', ...words, ...flags], as)
      t.match(outcome, { status: 1, stdout: '', stderr: reason })
      t.ok(isOneLine(outcome.stderr), outcome.stderr)
    }
  }
  const status = await scratch.nexusd(['status', '--data', scratch.at('data')], as)
  t.match(status, { status: 1, stderr: /you may not talk to the nexusd on/ })
  t.match(await scratch.nexusd(['unmount', scratch.at('taken')], as), { status: 1, stderr: /you may not talk to the nexusd on/ })
  t.match(await held.end('SIGKILL'), { status: null })
  const dead = await scratch.nexusd(['unmount', scratch.at('taken')], as)
  t.match(dead, { status: 1, stderr: /you may not|cannot unmount \S+ \(.*\): be the user who mounted it, or root/ })
  t.ok(isOneLine(dead.stderr), dead.stderr)
  t.ok(mountsBelow(scratch.directory).includes(scratch.at('taken')))
})

t.test('without access to /dev/fuse, or without fusermount3, it says so', { skip }, async (t) => {
  const { scratch, home, as } = await userFor(t)
  const without = { ...as, env: { ...as.env, PATH: scratch.dir('nothing') } }
  const noHelper = await scratch.nexusd(['mount', path.join(home, 'mnt')], without)
  t.match(noHelper, { status: 1, stderr: /fusermount3 is missing, and only root mounts without it: apt-get install fuse3/ })
  t.ok(isOneLine(noHelper.stderr))
  const own = scratch.dir('nameless')
  fs.mkdirSync(path.join(own, 'mnt'))
  for (const directory of [own, path.join(own, 'mnt')]) fs.chownSync(directory, NAMELESS_UID, NAMELESS_UID)
  const words = ['mount', path.join(own, 'mnt'), '--data', path.join(own, 'data')]
  const nameless = await scratch.nexusd(words, { uid: NAMELESS_UID, cwd: '/' })
  t.match(nameless, { status: 1, stderr: /this uid has no name.*\/etc\/passwd, or mount as root/ })
  t.ok(isOneLine(nameless.stderr), nameless.stderr)
  fs.chmodSync(DEVICE, 0o600)
  t.teardown(() => fs.chmodSync(DEVICE, 0o666))
  const closed = await scratch.nexusd(['mount', path.join(home, 'mnt')], as)
  t.match(closed, { status: 1, stderr: /cannot be opened by this user.*chmod 666 \/dev\/fuse/ })
  t.ok(isOneLine(closed.stderr), closed.stderr)
})

t.test('--single-user keeps others out of a mount of root', { skip }, async (t) => {
  const { scratch } = await userFor(t)
  const shared = await scratch.mount([scratch.dir('shared'), '--data', scratch.at('one')])
  t.match(await scratch.run('ls', [scratch.at('shared')], { uid: UID }), { status: 0, stdout: 'tenants\nworkspace\n' })
  const own = await scratch.mount([scratch.dir('own'), '--data', scratch.at('two'), '--single-user'])
  t.match(await scratch.run('ls', [scratch.at('own')], { uid: UID }), { stderr: /Permission denied/ })
  fs.writeFileSync(scratch.at('own', 'file'), 'content')
  const json = JSON.parse((await scratch.nexusd(['status', '--data', scratch.at('two'), '--json'])).stdout)
  t.equal(json.single_user, true)
  for (const daemon of [shared, own]) t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
})

t.test('a uid that no user has is told so', { skip }, async (t) => {
  const { scratch } = await userFor(t)
  const env = { HOME: '', XDG_DATA_HOME: '', NEXUS_DATA: '' }
  const outcome = await scratch.run(
    'env',
    ['-u', 'HOME', process.execPath, scratch.at('nexus', 'dist/bin/nexusd.js'), 'status'],
    {
      uid: OTHER_UID,
      env,
    },
  )
  t.match(outcome, { status: 2, stderr: /this user has no home: name a data directory with --data/ })
  t.ok(isOneLine(outcome.stderr), outcome.stderr)
})
