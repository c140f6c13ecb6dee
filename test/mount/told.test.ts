/** What lists, df(1) and inotify(7) tell a user of what is another's, at a real mount. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import t, { type Test } from 'tap'
import type { QuotaInfo } from '../../src/api/quotas.ts'
import type { DiskUsageInfo } from '../../src/api/store.ts'
import type { WorkspaceInfo } from '../../src/api/workspaces.ts'
import { accessMountFor, type Name, Person, shAs, skip, uids } from './access.ts'
import type { TestMount } from './harness.ts'
import { scratchFor } from './nexusd.ts'

const MIB = 1024 * 1024

interface Told {
  mount: TestMount
  json<T>(who: Name, words: string): Promise<T>
}

async function toldFor(t: Test): Promise<Told> {
  const { mount } = await accessMountFor(t)
  const scratch = scratchFor(t)
  const json = async <T>(who: Name, words: string): Promise<T> => {
    const { status, stdout, stderr } = await scratch.nexusctl(['--data', mount.data, '--json', ...words.split(' ')], {
      ...{ uid: uids[who], cwd: mount.at('workspace') },
      env: { HOME: '/nonexistent', NEXUS_DATA: '' },
    })
    t.strictSame({ status, stderr }, { status: 0, stderr: '' }, `${who}: ${words}`)
    return JSON.parse(stdout) as T
  }
  return { mount, json }
}

t.test('workspaces in a directory that a user may not enter are in no list', { skip }, async (t) => {
  const { mount, json } = await toldFor(t)
  shAs(uids.bob, 'mkdir w && cd w && mkdir private open && chmod 700 private && chmod 755 open', mount.at('workspace'))
  for (const name of ['private/secret', 'private/secret/deeper', 'open/known']) {
    mount.ctl('workspace', 'create', `/workspace/w/${name}`, '--owner', 'bob', '--quota-bytes', '1MiB')
  }
  mount.ctl('grant', 'carol', 'viewer', '/workspace/w')
  const carol = await Person.start(t, uids.carol, mount.at('workspace'))
  t.same(await carol.attempt(['os.stat("w/open/known")', 'os.stat("w/private/secret")']), ['ok', 'EACCES'])
  const paths = (rows: { path: string }[]): string[] => rows.map(({ path }) => path)
  const seen = ['/workspace/w', '/workspace/w/open/known']
  t.same(paths(await json<WorkspaceInfo[]>('carol', 'workspace list')), seen)
  t.same(paths(await json<QuotaInfo[]>('carol', 'quota list')), ['/workspace/w/open/known'])
  t.same(paths((await json<DiskUsageInfo>('carol', 'df /workspace/w')).workspaces), seen)
  const all = [...seen, '/workspace/w/private/secret', '/workspace/w/private/secret/deeper']
  t.same(paths(await json<WorkspaceInfo[]>('bob', 'workspace list')), all)
  t.same(paths((await json<DiskUsageInfo>('bob', 'df /workspace/w')).workspaces), all)
  // A right on the inner one alone does not open the way to it either, and nothing is said of the store as a whole.
  mount.ctl('grant', 'eve', 'viewer', '/workspace/w/private/secret')
  t.same(await json<WorkspaceInfo[]>('eve', 'workspace list'), [])
  t.match(await json<DiskUsageInfo>('carol', 'df /workspace/w'), {
    ...{ physical_bytes: 0, live_bytes: 0, snapshot_bytes: 0, reclaimable_bytes: 0, deduplication: 1 },
  })
  t.ok(mount.json<DiskUsageInfo>('df').physical_bytes > 0, 'root is told all')
})

t.test("df(1) shows a user the disk in steps, and no inodes of others'", { skip }, async (t) => {
  const { mount } = await toldFor(t)
  shAs(uids.bob, 'mkdir b; touch b/one b/two; mkdir b/three', mount.at('workspace'))
  const ask = (uid: number, path: string): { free: number; available: number; size: number; block: number; files: number } => {
    const words = ['-f', '-c', '{"free":%f,"available":%a,"size":%b,"block":%S,"files":%c,"filesFree":%d}', path]
    const as = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', 'stat', ...words]
    const shown = JSON.parse(execFileSync('setpriv', as, { encoding: 'utf8' })) as ReturnType<typeof ask> & { filesFree: number }
    return { ...shown, files: shown.files - shown.filesFree }
  }
  const at = mount.at('workspace/b')
  const [root, bob] = [ask(0, at), ask(uids.bob, at)]
  t.equal(bob.size, root.size, 'the disk is as large as it is')
  const step = Math.min(64 * MIB, Math.floor(bob.size / 16) * bob.block)
  for (const blocks of [bob.free, bob.available]) t.equal((blocks * bob.block) % step, 0, 'whole steps')
  t.ok(bob.free <= root.free + step / bob.block && bob.free > root.free - (2 * step) / bob.block, 'and no less than that')
  t.equal(bob.files, 4, 'of its own workspace')
  fs.mkdirSync(mount.at('workspace/more'))
  for (let i = 0; i < 100; i++) fs.writeFileSync(mount.at(`tenants/acme/data/f${i}`), 'x')
  t.equal(ask(uids.bob, at).files, 4)
  t.ok(ask(0, at).files > 100, 'root is told all')
  mount.ctl('quota', 'set', '/workspace/b', '--bytes', '1MiB')
  const within = ask(uids.bob, at)
  t.equal(within.size * within.block, MIB, 'a quota is shown as it is')
  t.equal(within.available * within.block, MIB)
})

/** Watches a directory; `heard` is what happened there since the last time. */
const WATCH = `
import struct, time
def watch(path):
    global inotify
    inotify = libc.inotify_init1(0o4000)
    if libc.inotify_add_watch(inotify, os.fsencode(path), 0xfff) < 0:
        raise OSError(ctypes.get_errno(), path)

def heard():
    try:
        events = os.read(inotify, 65536)
    except BlockingIOError:
        return []
    names, at = [], 0
    while at < len(events):
        _, mask, _, length = struct.unpack_from('iIII', events, at)
        if mask & 0x3c0:
            names.append(events[at + 16:at + 16 + length].rstrip(bytes(1)).decode())
        at += 16 + length
    return names
`

t.test('whoever may list a gate hears the names there, but not from commands; without r nobody does', { skip }, async (t) => {
  const { mount } = await toldFor(t)
  const gate = mount.at('workspace')
  const bob = await Person.start(t, uids.bob, gate)
  await bob.run(WATCH)
  t.equal(await bob.try(`watch('.')`), 'ok')
  shAs(uids.carol, 'mkdir by-mkdir', gate)
  t.same(await bob.run('heard()'), ['by-mkdir'], 'the kernel tells by itself')
  mount.ctl('workspace', 'create', '/workspace/by-command', '--owner', 'carol')
  fs.statSync(`${gate}/by-command`)
  mount.ctl('workspace', 'rename', '/workspace/by-command', '/workspace/renamed')
  fs.statSync(`${gate}/renamed`)
  mount.ctl('workspace', 'delete', '/workspace/renamed')
  t.same(await bob.run('heard()'), [], 'nothing of what commands do')

  // The administrator's way out: who may not list it may not watch it, and everything else works.
  fs.chmodSync(gate, 0o1733)
  const eve = await Person.start(t, uids.eve, gate)
  await eve.run(WATCH)
  t.same(await eve.attempt([`watch('.')`, `os.listdir('.')`, `os.mkdir('eves')`, `os.stat('eves')`, `make('eves/f')`]), [
    ...['EACCES', 'EACCES', 'ok', 'ok', 'ok'],
  ])
  t.match(mount.json<WorkspaceInfo[]>('workspace', 'list'), [{}, {}, {}, {}])
})
