/** Set-id programs and device files: without effect unless the administrator says so, and never from a snapshot. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type Test, test } from 'tap'
import { allMounts } from '../../src/host/mounts.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'
import { needsRoot, scratchFor } from './nexusd.ts'

const skip = noMount ?? needsRoot
const USER = 1001

/** The euid with which a program of root's runs for a user. */
function euidOf(program: string): string {
  const words = [`--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', '--', program, '-u']
  const { stdout, stderr } = spawnSync('setpriv', words, { encoding: 'utf8' })
  return stdout.trim() || stderr.trim()
}

/** `read`, or the errno of an attempt to use a device file. */
function useOf(device: string): string {
  try {
    return `${fs.readFileSync(device).length} bytes`
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

/** A workspace that everybody reads, with a set-uid program of root's and a device file (null), and a snapshot of it. */
async function worldFor(t: Test, flags: string[]): Promise<{ mount: TestMount; live: string; view: string }> {
  const mount = await mountFor(t, { flags })
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  const live = mount.at('workspace', 'w')
  fs.mkdirSync(live)
  mount.ctl('grant', 'user:*', 'viewer', live)
  fs.copyFileSync('/usr/bin/id', path.join(live, 'tool'))
  fs.chmodSync(path.join(live, 'tool'), 0o4755)
  execFileSync('mknod', ['-m', '666', path.join(live, 'null'), 'c', '1', '3'])
  mount.ctl('snapshot', live, '--name', 's')
  return { mount, live, view: path.join(live, '.snapshots', 's') }
}

test('a mount takes no notice of set-id bits and devices', { skip }, async (t) => {
  const { mount, live, view } = await worldFor(t, [])
  const options = fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .find((line) => line.includes(mount.mountpoint))
  t.match(options, /nosuid,nodev/)
  t.equal(allMounts().filter(({ mountpoint }) => mountpoint === mount.mountpoint).length, 1)
  t.equal(fs.statSync(path.join(live, 'tool')).mode & 0o7777, 0o4755, 'the bits are kept all the same')
  for (const at of [live, view]) {
    t.equal(euidOf(path.join(at, 'tool')), String(USER))
    t.equal(useOf(path.join(at, 'null')), 'EACCES')
  }
})

test('with --suid and --dev they take effect, but not in a snapshot', { skip }, async (t) => {
  const { live, view } = await worldFor(t, ['--suid', '--dev'])
  t.equal(euidOf(path.join(live, 'tool')), '0')
  t.equal(useOf(path.join(live, 'null')), '0 bytes')
  const check = (when: string): void => {
    t.equal(euidOf(path.join(view, 'tool')), String(USER), when)
    t.equal(fs.statSync(path.join(view, 'tool')).mode & 0o6000, 0, when)
    t.equal(useOf(path.join(view, 'null')), 'ENXIO', when)
  }
  check('while the live ones are there')
  for (const name of ['tool', 'null']) fs.rmSync(path.join(live, name))
  check('and when they are gone')
})

test('only root may ask for them', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  fs.chownSync(mountpoint, USER, USER)
  for (const word of ['--suid', '--dev']) {
    for (const more of [[], ['--background']]) {
      const { status, stderr } = await scratch.nexusd(['mount', mountpoint, '--data', scratch.at('data'), word, ...more], {
        uid: USER,
      })
      t.equal(status, 1)
      t.match(stderr, new RegExp(`^nexusd: ${word} is for root`))
    }
  }
})
