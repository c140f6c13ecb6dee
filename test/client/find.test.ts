/** Which daemon is meant, and by which socket it is reached. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { findSocket, type Wanted } from '../../src/client/find.ts'
import { publicSocketOf, socketPathOf } from '../../src/host/location.ts'
import { type Mount, parseMounts } from '../../src/host/mounts.ts'
import { scratchDir } from '../service/fake-service.ts'

const UID = 1001

/** Lines as in mountinfo, of mounts of root for everybody unless told otherwise. */
function mountsOf(lines: [mountpoint: string, data: string, options?: string][]): Mount[] {
  const text = lines.map(
    ([mountpoint, data, options = 'rw,user_id=0,group_id=0,default_permissions,allow_other'], i) =>
      `${30 + i} 29 0:${i} / ${mountpoint} rw,noatime shared:1 - fuse.nexus nexus:${data} ${options}`,
  )
  return parseMounts(`${text.join('\n')}\n`)
}

async function listenOn(t: Test, socketPath: string): Promise<void> {
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  t.teardown(() => server.close())
}

interface Given {
  data?: string
  env?: Record<string, string>
  mounts?: Mount[]
  cwd?: string
  path?: string
  uid?: number
}

function find(home: string, { data, env = {}, mounts = [], cwd = '/', path, uid = UID }: Given): Promise<string> {
  const wanted: Wanted = { data, surroundings: { env, uid, home }, cwd: () => cwd, path, mounts: () => mounts }
  return findSocket(wanted)
}

t.test('mountinfo, with names that need escapes', async (t) => {
  const [mount] = mountsOf([['/mnt/a\\040b', '/data\\011x']])
  t.match(mount, { mountpoint: '/mnt/a b', data: '/data\tx', type: 'fuse.nexus', device: '0:0' })
  t.ok(mount?.options.includes('allow_other'))
  t.strictSame(parseMounts('\nnot a line\n1 2 3\n'), [])
})

t.test('what is named is meant, whatever else is mounted', async (t) => {
  const home = scratchDir(t)
  const mounts = mountsOf([['/mnt/nexus', '/srv/nexus']])
  t.equal(await find(home, { data: '/a', mounts }), '/a/control.sock')
  t.equal(await find(home, { env: { NEXUS_DATA: '/b' }, mounts, cwd: '/mnt/nexus' }), '/b/control.sock')
})

t.test('a daemon of the user comes first, if it answers', async (t) => {
  const home = scratchDir(t)
  const own = join(home, '.local/share/nexus')
  const mounts = mountsOf([['/mnt/nexus', '/srv/nexus']])
  mkdirSync(own, { recursive: true })
  t.equal(await find(home, { mounts }), '/srv/nexus/control.sock', 'there is none')
  writeFileSync(socketPathOf(own), '')
  t.equal(await find(home, { mounts }), '/srv/nexus/control.sock', 'nobody answers')
  t.equal(await find(home, {}), socketPathOf(own), 'nor is anything mounted')
  const xdg = join(home, 'xdg')
  mkdirSync(join(xdg, 'nexus'), { recursive: true })
  await listenOn(t, join(xdg, 'nexus/control.sock'))
  t.equal(await find(home, { env: { XDG_DATA_HOME: xdg }, mounts, cwd: '/mnt/nexus' }), join(xdg, 'nexus/control.sock'))
})

t.test('the mount that PATH or the shell is in, else the only one', async (t) => {
  const home = scratchDir(t)
  const two = mountsOf([
    ['/mnt/nexus', '/srv/one'],
    ['/mnt/nexus/workspace/inner', '/srv/inner'],
    ['/mnt/nexus2', '/srv/two'],
  ])
  const rows: { cwd?: string; path?: string; want: string }[] = [
    { cwd: '/mnt/nexus', want: '/srv/one' },
    { cwd: '/mnt/nexus/workspace/a', want: '/srv/one' },
    { cwd: '/mnt/nexus/workspace/inner/a', want: '/srv/inner' },
    { cwd: '/mnt/nexus2/workspace', want: '/srv/two' },
    { cwd: '/mnt/nexus', path: '/mnt/nexus2/workspace/a', want: '/srv/two' },
    { cwd: '/mnt/nexus', path: '/workspace/a', want: '/srv/one' },
    { cwd: '/mnt/nexus', path: 'a', want: '/srv/one' },
  ]
  for (const { want, ...where } of rows) t.equal(await find(home, { mounts: two, ...where }), `${want}/control.sock`)
  await t.rejects(find(home, { mounts: two, cwd: '/home', path: '/workspace/a' }), {
    code: 'NEXUS_USAGE',
    message: /several are mounted \(\/mnt\/nexus, .*\): go into one, or name its data directory with --data/,
  })
  const gone: Wanted['cwd'] = () => {
    throw Object.assign(new Error('gone'), { code: 'ENOENT' })
  }
  const bound = mountsOf([
    ['/mnt/nexus', '/srv/one'],
    ['/home/x/bind', '/srv/one'],
  ])
  const surroundings = { env: {}, uid: UID, home }
  t.equal(await findSocket({ data: undefined, surroundings, cwd: gone, mounts: () => bound }), '/srv/one/control.sock')
})

t.test('anybody can mount something of that name: only what the user or root has mounted for him is asked', async (t) => {
  const home = scratchDir(t)
  const options = (user: number, reach = ',allow_other'): string => `rw,user_id=${user},group_id=0,default_permissions${reach}`
  const mounts = mountsOf([
    ['/mnt/nexus', '/srv/one'],
    ['/mnt/nexus/workspace/trap', '/srv/trap', options(1002)],
    ['/mnt/of-root-alone', '/srv/root', options(0, '')],
  ])
  t.equal(await find(home, { mounts, cwd: '/mnt/nexus/workspace/trap' }), '/srv/one/control.sock')
  t.equal(await find(home, { mounts: mounts.slice(1) }), join(home, '.local/share/nexus/control.sock'))
  const own = mountsOf([['/home/ann/m', '/home/ann/d', options(UID, '')]])
  t.equal(await find(home, { mounts: own }), '/home/ann/d/control.sock')
  t.equal(await find(home, { mounts: own, uid: 1003 }), join(home, '.local/share/nexus/control.sock'))
})

t.test('the socket for everybody has a name of its own for each data directory', async (t) => {
  const home = scratchDir(t)
  t.match(publicSocketOf(home), /^\/run\/nexus\/[0-9a-f]{16}\.sock$/)
  t.not(publicSocketOf(home), publicSocketOf(join(home, 'other')))
  t.equal(publicSocketOf(`${home}/`), publicSocketOf(home))
})

const root = process.geteuid?.() === 0
t.test(
  'whoever may not use the private socket and finds no other is sent to the first',
  { skip: !root && 'needs root' },
  async (t) => {
    const home = scratchDir(t)
    const data = join(home, 'data')
    mkdirSync(data)
    chmodSync(home, 0o755)
    chmodSync(data, 0o700)
    process.seteuid?.(65534)
    t.teardown(() => process.seteuid?.(0))
    const found = await find(home, { data })
    process.seteuid?.(0)
    t.equal(found, socketPathOf(data))
  },
)
