import { homedir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { dataDirectory, hostSurroundings, resolvePath, socketPathOf } from '../../src/host/location.ts'
import { packageVersion } from '../../src/host/version.ts'

const home = '/home/ann'

t.test('data directory', async (t) => {
  const rows: { data?: string; env: Record<string, string>; uid: number; want: string }[] = [
    { env: {}, uid: 0, want: '/var/lib/nexus' },
    { env: { XDG_DATA_HOME: '/xdg' }, uid: 0, want: '/var/lib/nexus' },
    { env: {}, uid: 1000, want: '/home/ann/.local/share/nexus' },
    { env: { XDG_DATA_HOME: '/xdg' }, uid: 1000, want: '/xdg/nexus' },
    { env: { XDG_DATA_HOME: '' }, uid: 1000, want: '/home/ann/.local/share/nexus' },
    { env: { XDG_DATA_HOME: 'relative' }, uid: 1000, want: '/home/ann/.local/share/nexus' },
    { env: { NEXUS_DATA: '/env' }, uid: 0, want: '/env' },
    { env: { NEXUS_DATA: '' }, uid: 0, want: '/var/lib/nexus' },
    { env: { NEXUS_DATA: '/env' }, uid: 1000, data: '/option/', want: '/option' },
    { env: {}, uid: 0, data: 'here', want: join(process.cwd(), 'here') },
  ]
  for (const { data, env, uid, want } of rows) {
    t.equal(dataDirectory(data, { env, uid, home }), want, JSON.stringify({ data, env, uid }))
  }
  t.throws(() => dataDirectory('', { env: {}, uid: 0, home }), { code: 'NEXUS_USAGE' })
})

t.test('the socket lies in the data directory', async (t) => {
  t.equal(socketPathOf('/var/lib/nexus'), '/var/lib/nexus/control.sock')
})

t.test('surroundings are those of the process', async (t) => {
  t.match(hostSurroundings(), { env: process.env, uid: process.geteuid?.(), home: homedir() })
})

t.test('what a PATH argument means', async (t) => {
  const inside = '/mnt/nexus/workspace/acme'
  const rows: { in: string; cwd?: string; want: string | RegExp }[] = [
    { in: '/workspace/acme', want: '/workspace/acme' },
    { in: '/mnt/nexus/workspace/acme', want: '/workspace/acme' },
    { in: '/mnt/nexus/workspace/acme/', want: '/workspace/acme/' },
    { in: '/mnt/nexus', want: '/' },
    { in: '/mnt/nexus/', want: '/' },
    { in: '/mnt/nexus2/workspace', want: '/mnt/nexus2/workspace' },
    { in: '/mnt/nexus/../etc', want: '/../etc' },
    { in: '/', want: '/' },
    { in: '.', cwd: inside, want: '/workspace/acme' },
    { in: 'src/lib', cwd: inside, want: '/workspace/acme/src/lib' },
    { in: './list', cwd: inside, want: '/workspace/acme/list' },
    { in: '../other/', cwd: inside, want: '/workspace/other' },
    { in: '.', cwd: '/mnt/nexus', want: '/' },
    { in: '../..', cwd: inside, want: '/' },
    {
      in: '../../..',
      cwd: inside,
      want: /"..\/..\/.." from \/mnt\/nexus\/workspace\/acme is outside the mount: go into/,
    },
    { in: 'acme', cwd: '/home/ann', want: /outside the mount: go into \/mnt\/nexus first/ },
    { in: 'acme', cwd: '/mnt/nexus2', want: /outside the mount/ },
    { in: '', want: /PATH is empty/ },
  ]
  const mounts = [
    { mountpoint: '/', root: undefined },
    { mountpoint: '/mnt/nexus', root: '/' },
    { mountpoint: '/home/bound', root: '/workspace/a b/d' },
    { mountpoint: '/mnt/nexus/workspace/acme/other', root: undefined },
    { mountpoint: '/mnt/nexus/workspace/acme/again', root: '/tenants/t' },
    { mountpoint: '/covered', root: '/workspace/below' },
    { mountpoint: '/covered', root: '/workspace/above' },
  ]
  const bound: typeof rows = [
    { in: '.', cwd: '/home/bound', want: '/workspace/a b/d' },
    { in: '/home/bound', want: '/workspace/a b/d' },
    { in: '/home/bound/x', want: '/workspace/a b/d/x' },
    { in: 'x/../y', cwd: '/home/bound/z', want: '/workspace/a b/d/z/y' },
    { in: '..', cwd: '/home/bound', want: /outside the mount/ },
    { in: '.', cwd: '/home/bounds', want: /outside the mount/ },
    { in: '.', cwd: `${inside}/other`, want: /outside the mount/ },
    { in: 'other', cwd: inside, want: /outside the mount/ },
    { in: 'again/x', cwd: inside, want: '/tenants/t/x' },
    { in: '.', cwd: '/covered/x', want: '/workspace/above/x' },
  ]
  for (const { in: argument, cwd = '/home/ann', want } of [...rows, ...bound]) {
    const run = () => resolvePath(argument, { cwd, mountpoint: '/mnt/nexus', mounts })
    if (typeof want === 'string') t.equal(run(), want, `${argument} in ${cwd}`)
    else t.throws(run, { code: 'NEXUS_USAGE', message: want }, `${argument} in ${cwd}`)
  }
})

t.test('the version is that of package.json', async (t) => {
  t.match(packageVersion(), /^\d+\.\d+\.\d+/)
})
