/** What one user does must not fill the store, nor keep others out: limits of each user and agent, at a real mount. */
import fs from 'node:fs'
import t, { type Test } from 'tap'
import type { StatusInfo } from '../../src/api/store.ts'
import { publicSocketOf } from '../../src/host/location.ts'
import { accessMountFor, type Name, Person, shAs, skip, uids } from './access.ts'
import type { TestMount } from './harness.ts'
import { type Outcome, scratchFor } from './nexusd.ts'

interface Flooded {
  mount: TestMount
  ctl(who: Name, words: string): Promise<Outcome>
  status(who: Name): Promise<StatusInfo>
}

async function floodedFor(t: Test, flags: string[]): Promise<Flooded> {
  const { mount } = await accessMountFor(t, { flags })
  const scratch = scratchFor(t)
  const ctl: Flooded['ctl'] = (who, words) =>
    scratch.nexusctl(['--data', mount.data, ...words.split(' ')], {
      ...{ uid: uids[who], cwd: mount.at('workspace') },
      env: { HOME: '/nonexistent', NEXUS_DATA: '' },
    })
  const status: Flooded['status'] = async (who) => JSON.parse((await ctl(who, 'status --json')).stdout) as StatusInfo
  return { mount, ctl, status }
}

t.test('a user has so many workspaces, however they are made', { skip }, async (t) => {
  const { mount, ctl, status } = await floodedFor(t, ['--max-workspaces', '5'])
  const bob = await Person.start(t, uids.bob, mount.at('workspace'))
  const refused = async (words: string): Promise<void> => {
    t.match(await ctl('bob', words), { status: 1, stderr: /user:bob has 5 workspaces and may have 5: delete / }, words)
  }
  const made = await bob.attempt(['b0', 'b1', 'b2'].map((name) => `os.mkdir("${name}")`))
  t.same(made, ['ok', 'ok', 'ok'])
  t.equal((await ctl('bob', 'workspace create /workspace/b3')).status, 0)
  t.equal((await ctl('bob', 'fork /workspace/b0 /workspace/b4')).status, 0)
  t.same(await bob.attempt(['os.mkdir("b5")', 'os.mkdir("b0")', 'os.mkdir("b0/inner")']), ['EDQUOT', 'EEXIST', 'ok'])
  await refused('workspace create /workspace/b5')
  await refused('workspace create /workspace/b0/nested')
  await refused('fork /workspace/b0 /workspace/b5')
  t.match(await status('bob'), { limits: { workspaces: 5, snapshots: 1000, calls: 8 }, used: { workspaces: 5, snapshots: 0 } })

  // What others have is another's, and root is never refused.
  t.equal(shAs(uids.carol, 'mkdir c0 c1 c2 c3 c4 && echo made', mount.at('workspace')), 'made\n')
  for (let i = 0; i < 7; i++) fs.mkdirSync(mount.at(`workspace/r${i}`))
  mount.ctl('workspace', 'create', '/workspace/given', '--owner', 'bob')
  t.match(await status('bob'), { used: { workspaces: 6 } }, 'what root makes for a user counts for the user')
  t.match(mount.json<StatusInfo>('status'), { limits: { workspaces: 5 }, used: null })

  // To give it away does not free the place; to remove it does, in either way.
  t.equal((await ctl('bob', 'grant alice owner /workspace/b1')).status, 0)
  t.equal((await ctl('bob', 'revoke bob owner /workspace/b1')).status, 0)
  t.equal(await bob.try('os.mkdir("b5")'), 'EDQUOT')
  t.equal((await ctl('bob', 'workspace delete /workspace/b3')).status, 0)
  t.equal(await bob.try('os.mkdir("b5")'), 'EDQUOT', 'still one too many')
  t.same(await bob.attempt(['os.rename("b4", "b9")', 'os.rmdir("b2")', 'os.mkdir("b5")', 'os.mkdir("b6")']), [
    'ok',
    'ok',
    'ok',
    'EDQUOT',
  ])

  // The next process, and the next mount, count the same.
  await mount.stop()
  await mount.start()
  t.match(await status('bob'), { used: { workspaces: 5 } })
  t.equal(await Person.start(t, uids.bob, mount.at('workspace')).then((again) => again.try('os.mkdir("b6")')), 'EDQUOT')
})

t.test('a workspace in a tenant counts for no user', { skip }, async (t) => {
  const { mount, ctl, status } = await floodedFor(t, ['--max-workspaces', '1'])
  for (const name of ['one', 'two']) t.equal((await ctl('alice', `workspace create /tenants/acme/data/${name}`)).status, 0, name)
  t.equal((await ctl('alice', 'fork /tenants/acme/data/one /tenants/acme/data/three')).status, 0)
  t.equal((await ctl('alice', 'fork /tenants/acme/data/one /workspace/four')).status, 0)
  t.equal((await ctl('alice', 'fork /tenants/acme/data/one /workspace/five')).status, 1)
  t.match(await status('alice'), { used: { workspaces: 1 } })
  // A fork takes what lies inside along.
  const two = await floodedFor(t, ['--max-workspaces', '2'])
  two.mount.ctl('workspace', 'create', '/workspace/outer', '--owner', 'carol')
  for (const name of ['x', 'y']) two.mount.ctl('workspace', 'create', `/workspace/outer/${name}`, '--owner', 'carol')
  two.mount.ctl('grant', 'bob', 'viewer', '/workspace/outer')
  t.match(await two.ctl('bob', 'fork /workspace/outer /workspace/copy'), {
    status: 1,
    stderr: /user:bob has 0 workspaces and may have 2/,
  })
  mount.ctl('status')
})

t.test('plain names outside of workspaces have the limit of workspaces', { skip }, async (t) => {
  const { mount } = await floodedFor(t, ['--max-workspaces', '4'])
  const bob = await Person.start(t, uids.bob, mount.at('workspace'))
  const rows = [
    'make("f")',
    'os.symlink("nowhere", "l")',
    'os.mkfifo("p")',
    'os.link("f", "g")',
    'make("f2")',
    'os.symlink("nowhere", "l2")',
    'os.mkfifo("p2")',
    'use(".", os.O_TMPFILE | os.O_WRONLY)',
    'os.link("f", "h")',
    'use("f", os.O_WRONLY | os.O_CREAT)',
    'os.rename("f", "e")',
  ]
  const kept = Array<string>(4).fill('ok')
  t.same(await bob.attempt(rows), [...kept, ...Array<string>(5).fill('EDQUOT'), 'ok', 'ok'])
  t.same(await bob.attempt(['os.unlink("p")', 'make("f3")', 'make("f4")', 'os.unlink("g")', 'make("f4")']), [
    ...['ok', 'ok', 'EDQUOT', 'ok', 'ok'],
  ])
  fs.writeFileSync(mount.at('workspace/roots'), '')
  for (let i = 0; i < 6; i++) fs.writeFileSync(mount.at(`workspace/root${i}`), '')
  t.equal(await (await Person.start(t, uids.carol, mount.at('workspace'))).try('make("c")'), 'ok')
})

t.test('a user has so many snapshots, of whatever', { skip }, async (t) => {
  const { mount, ctl, status } = await floodedFor(t, ['--max-snapshots', '3'])
  shAs(uids.bob, 'mkdir one two', mount.at('workspace'))
  t.equal((await ctl('bob', 'grant carol editor /workspace/one')).status, 0)
  for (const words of ['one --name a', 'two --name b', 'two'])
    t.equal((await ctl('bob', `snapshot /workspace/${words}`)).status, 0)
  const refused = { status: 1, stderr: /user:bob has 3 snapshots and may have 3: delete / }
  t.match(await ctl('bob', 'snapshot /workspace/one'), refused)
  t.match(await status('bob'), { used: { workspaces: 2, snapshots: 3 } })
  t.equal((await ctl('carol', 'snapshot /workspace/one')).status, 0, "another's are another's")
  t.equal((await ctl('bob', 'restore /workspace/one a')).status, 0, "what the daemon takes by itself is nobody's")
  mount.ctl('snapshot', '/workspace/one')
  await mount.stop()
  await mount.start()
  t.match(await ctl('bob', 'snapshot /workspace/one'), refused)
  t.equal((await ctl('bob', 'snapshot delete /workspace/two b')).status, 0)
  t.equal((await ctl('bob', 'snapshot /workspace/one')).status, 0)
  // What goes with its workspace does not count any more.
  t.equal((await ctl('bob', 'workspace delete /workspace/two')).status, 0)
  t.match(await status('bob'), { used: { workspaces: 1, snapshots: 2 } })
})

t.test('limits are words of the mount, and a single user has none', { skip }, async (t) => {
  const { mount } = await floodedFor(t, ['--max-workspaces', 'none', '--max-snapshots', '0'])
  t.match(mount.json<StatusInfo>('status'), { limits: { workspaces: null, snapshots: 0 } })
  const scratch = scratchFor(t)
  for (const word of ['-1', 'all', '1.5', '99999999']) {
    const { status, stderr } = await scratch.nexusd(['mount', scratch.at('mnt'), '--max-workspaces', word])
    t.match({ status, stderr }, { status: 2, stderr: /whole number from 0 to 9999999, or none/ }, word)
  }
})

/** Eight connections that send half of a request, and are made again when they have ended. */
const SLOW = `
import socket
def opened(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(b'POST /v1/status HTTP/1.1\\r\\nHost: x\\r\\nContent-Le')
    s.setblocking(False)
    return s

def ended(s):
    try:
        return s.recv(65536) is not None
    except BlockingIOError:
        return False
    except OSError:
        return True

def flood(path):
    held[:] = [opened(path) if ended(s) else s for s in held]

held = []
`

t.test('slow connections of eight users leave the others theirs', { skip }, async (t) => {
  const { mount, ctl } = await floodedFor(t, [])
  const socket = JSON.stringify(publicSocketOf(mount.data))
  const slow: Person[] = []
  for (let uid = 4000; uid < 4008; uid++) {
    const person = await Person.start(t, uid)
    t.equal(await person.run(`${SLOW}\nheld = [opened(${socket}) for _ in range(8)]`), null)
    slow.push(person)
  }
  for (let i = 0; i < 3; i++) {
    t.match(await ctl('alice', 'workspace show /tenants/acme'), { status: 0, stderr: '' }, 'every call is served')
    for (const person of slow) t.equal(await person.try(`flood(${socket})`), 'ok')
  }
})
