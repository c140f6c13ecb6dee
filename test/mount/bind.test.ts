/** nexusctl where the shell is in a bind mount of a part of the filesystem, also in a mount namespace of its own. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import type { SnapshotInfo } from '../../src/api/snapshots.ts'
import { skip, uids } from './access.ts'
import { mountFor, nexusctl, type TestMount } from './harness.ts'

/** Runs a script in a mount namespace of its own, as a user: `nexusctl` is on the PATH, and knows of no data directory. */
function within(mount: TestMount, uid: number, script: string, namespaces = '-m'): string {
  const bin = path.join(path.dirname(mount.mountpoint), 'bin')
  fs.mkdirSync(bin, { recursive: true })
  fs.writeFileSync(path.join(bin, 'nexusctl'), `#!/bin/sh\nexec ${process.execPath} ${nexusctl} "$@"\n`, { mode: 0o755 })
  const env = { PATH: `${bin}:${process.env['PATH']}`, MNT: mount.mountpoint, HOME: '/nonexistent' }
  const words = ['unshare', namespaces, 'sh', '-ec', script]
  const become = uid === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups']
  const { status, stdout, stderr } = spawnSync('env', ['--', ...become, ...words], { env, cwd: '/', encoding: 'utf8' })
  if (status !== 0) throw new Error(`${stdout}${stderr}`)
  return stdout
}

t.test('a bind mount of a workspace, of what lies in one, and of several', { skip }, async (t) => {
  const mount = await mountFor(t)
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  execFileSync('mkdir', ['-p', mount.at('workspace', 'w', 'in side', 'deep'), mount.at('tenants')])
  const place = path.join(path.dirname(mount.mountpoint), 'place')
  fs.mkdirSync(place)
  const rows: [bound: string, where: string, argument: string, snapshot: string][] = [
    ['workspace/w', '', '.', '/workspace/w'],
    ['workspace/w', 'in side', '.', '/workspace/w/in side'],
    ['workspace/w', 'in side', 'deep', '/workspace/w/in side/deep'],
    ['workspace/w/in side', '', '.', '/workspace/w/in side'],
    ['workspace/w/in side', 'deep', '..', '/workspace/w/in side'],
    ['workspace', '', 'w', '/workspace/w'],
    ['.', 'workspace/w', '.', '/workspace/w'],
    // By absolute paths, from elsewhere.
    ['workspace/w', '/', `${place}/in side`, '/workspace/w/in side'],
    ['workspace/w/in side', '/', place, '/workspace/w/in side'],
  ]
  for (const [bound, where, argument, want] of rows) {
    const cwd = where === '/' ? '/' : path.join(place, where)
    const script = `mount --bind "$MNT/${bound}" ${place} && cd '${cwd}' && nexusctl --json snapshot '${argument}'`
    t.equal((JSON.parse(within(mount, 0, script)) as SnapshotInfo).path, want, `${bound}: ${argument} in ${where}`)
  }
  // Nothing of the mount is left but the bind mount; and another filesystem that covers a part of it is not taken for it.
  const alone = `mount --bind "$MNT/workspace/w" ${place} && umount "$MNT" && cd ${place} && nexusctl --json snapshot .`
  t.equal((JSON.parse(within(mount, 0, alone)) as SnapshotInfo).path, '/workspace/w')
  const covered = `cd "$MNT/workspace/w/in side" && mount -t tmpfs none deep && cd deep && ! nexusctl snapshot . 2>&1`
  t.match(within(mount, 0, covered), /outside the mount/)
})

t.test('an ordinary user, in namespaces that they made', { skip }, async (t) => {
  const mount = await mountFor(t)
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  fs.mkdirSync(mount.at('workspace', 'w'))
  mount.ctl('identity', 'add', 'alice', '--uid', String(uids.alice))
  mount.ctl('grant', 'alice', 'owner', '/workspace/w')
  const place = path.join(path.dirname(mount.mountpoint), 'place')
  fs.mkdirSync(place)
  const script = `mount --bind "$MNT/workspace/w" ${place} && cd ${place} && mkdir d && cd d && nexusctl --json snapshot .`
  t.equal((JSON.parse(within(mount, uids.alice, script, '-rm')) as SnapshotInfo).path, '/workspace/w/d')
  const listed = `mount --bind "$MNT/workspace/w" ${place} && cd ${place} && nexusctl grants .`
  t.match(within(mount, uids.alice, listed, '-rm'), /alice/)
})
