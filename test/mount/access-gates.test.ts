/** Names of workspaces where everybody may enter: the kernel keeps those that all who come by may see, and shows no other. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { type AccessMount, accessMountFor, Person, shAs, skip, uids } from './access.ts'
import { Guest, sh } from './guest.ts'

/** Nobody may wait as long as the daemon does for a notify that hangs. */
const SOON_MS = 900
/** uids that come by for the first time */
let freshUid = 3000

async function fresh(t: Test, cwd = '/'): Promise<Person> {
  return Person.start(t, freshUid++, cwd)
}

async function requests(service: Service): Promise<number> {
  return Object.values((await service.status()).requests).reduce((sum, count) => sum + count, 0)
}

interface Places extends AccessMount {
  /** alice's and bob's */
  shared: string
  /** alice's alone */
  secret: string
  /** everybody's */
  open: string
}

async function placesFor(t: Test): Promise<Places> {
  const { mount, service } = await accessMountFor(t)
  const places = { shared: '', secret: '', open: '' }
  for (const name of ['shared', 'secret', 'open'] as const) {
    places[name] = mount.at('workspace', name)
    await service.workspaceCreate(`/workspace/${name}`, { owner: 'user:alice' })
    sh('echo text > f; chmod 666 f', places[name])
  }
  await service.grant('user:bob', 'viewer', '/workspace/shared', {})
  await service.grant('user:*', 'viewer', '/workspace/open', {})
  return { mount, service, ...places }
}

/** How many requests it takes to stat these again and again; all must succeed. */
async function warm(service: Service, people: readonly Person[], paths: readonly string[]): Promise<number> {
  const look = async (times: number): Promise<void> => {
    for (const person of people) {
      const problem = await person.run(`
for i in range(${times}):
    for p in json.loads(${JSON.stringify(JSON.stringify(paths))}): os.stat(p)
`)
      if (problem !== null) throw new Error(`${person.uid}: ${problem}`)
    }
  }
  await look(3)
  const before = await requests(service)
  await look(200)
  return (await requests(service)) - before
}

t.test('what all may see is looked up once, and nobody else sees it', { skip }, async (t) => {
  const { mount, service, shared, secret, open } = await placesFor(t)
  const alice = await Person.start(t, uids.alice)
  const bob = await Person.start(t, uids.bob)
  const seen = [shared, `${shared}/f`, open, `${open}/f`]
  t.equal(await warm(service, [alice], [...seen, secret, `${secret}/f`, mount.at('tenants/acme/data')]), 0, 'alice alone')
  t.equal(await bob.try(`os.stat(${JSON.stringify(secret)})`), 'EACCES')
  t.equal(await warm(service, [alice, bob], seen), 0, 'alice and bob')
  t.ok((await warm(service, [alice], [secret])) > 0, 'what bob may not see is asked for')
  const first = ['os.stat(D)', 'use(D, O_PATH)', 'mayaccess(D, os.F_OK)', "os.stat(D + '/f')", 'os.chdir(D)', 'os.listdir(D)']
  for (const code of first) {
    await warm(service, [alice, bob], seen)
    const somebody = await fresh(t)
    t.same(await somebody.attempt([code, code], { D: shared }), ['EACCES', 'EACCES'], `a stranger's first: ${code}`)
    t.same(await somebody.attempt(['os.stat(D)', "read(D + '/f')"], { D: open }), ['ok', 'ok'], 'what is for all')
    t.same(await alice.attempt(['os.stat(D)', "read(D + '/f')"], { D: shared }), ['ok', 'ok'], 'alice goes on')
    t.equal(await warm(service, [alice, bob, somebody], [open, `${open}/f`]), 0, 'what is for all stays')
  }
  const names = fs.readdirSync(mount.at('workspace')).sort()
  t.same(names, ['open', 'secret', 'shared'], 'root lists everything')
  sh('ls -l > /dev/null', mount.at('workspace'))
  t.equal(shAs(freshUid++, 'ls', mount.at('workspace')), 'open\n', 'a stranger lists what is for all')
  t.equal(await (await fresh(t)).try(`os.stat(${JSON.stringify(secret)})`), 'EACCES', 'after root had a look at everything')
})

t.test('rights that come and go, by every way to a name', { skip }, async (t) => {
  const { mount, service, shared } = await placesFor(t)
  const alice = await Person.start(t, uids.alice)
  const bob = await Person.start(t, uids.bob, mount.at('workspace'))
  t.equal(await bob.run(`D = ${JSON.stringify(shared)}; gate = os.open('.', O_PATH)`), null)
  const looks = ['os.stat(D)', "os.stat('shared')", "os.stat('shared', dir_fd=gate)", 'use(D, O_PATH)', "os.stat('shared/f')"]
  for (let round = 0; round < 10; round++) {
    t.same(await bob.attempt(looks), Array(5).fill('ok'), `granted ${round}`)
    await warm(service, [alice, bob], [shared, `${shared}/f`])
    await service.revoke('user:bob', 'viewer', '/workspace/shared')
    t.same(await bob.attempt(looks), Array(5).fill('EACCES'), `revoked ${round}`)
    t.equal(await alice.try(`os.stat(${JSON.stringify(shared)})`), 'ok')
    await service.grant('user:bob', 'viewer', '/workspace/shared', {})
  }
  t.equal(await warm(service, [alice, bob], [shared, `${shared}/f`]), 0, 'kept again in the end')
  // Of what lies deep inside, bob sees the way.
  await service.revoke('user:bob', 'viewer', '/workspace/shared')
  sh('mkdir -p a/b; chmod 777 a a/b; chmod 755 .', shared)
  await service.grant('user:bob', 'viewer', '/workspace/shared/a/b', {})
  t.equal(await warm(service, [alice, bob], [shared]), 0, 'the gate on the way is kept')
  await service.revoke('user:bob', 'viewer', '/workspace/shared/a/b')
  t.same(await bob.attempt(looks), Array(5).fill('EACCES'), 'without the way')
  for (const end of ['delete', 'rmdir']) {
    await service.workspaceCreate('/workspace/shared/inner', { owner: 'user:alice' })
    await service.grant('user:bob', 'viewer', '/workspace/shared/inner', {})
    t.equal(await warm(service, [alice, bob], [shared]), 0, 'the gate of the workspace around')
    if (end === 'delete') await service.workspaceDelete('/workspace/shared/inner')
    else fs.rmdirSync(`${shared}/inner`)
    // Nobody waits for what an rmdir changes.
    if (end === 'rmdir') await delay(100)
    t.same(await bob.attempt(looks), Array(5).fill('EACCES'), `${end}: the inner one is gone`)
  }
  const elsewhere = mount.at('workspace/moved')
  await service.workspaceRename('/workspace/open', '/workspace/moved')
  t.equal(await bob.try(`os.stat(${JSON.stringify(elsewhere)})`), 'ok', 'a new name')
  t.equal(await warm(service, [alice, bob], [elsewhere]), 0, 'is kept as well')
  await service.revoke('user:*', 'viewer', '/workspace/moved')
  t.equal(await bob.try(`os.stat(${JSON.stringify(elsewhere)})`), 'EACCES')
  await warm(service, [alice], [elsewhere])
  fs.renameSync(elsewhere, mount.at('tenants/moved'))
  const carol = await fresh(t)
  t.equal(await carol.try(`os.stat(${JSON.stringify(mount.at('tenants/moved'))})`), 'EACCES', 'in the other gate')
})

t.test('whatever somebody does first', { skip }, async (t) => {
  const { mount, service } = await placesFor(t)
  for (let i = 0; i < 50; i++) await service.workspaceCreate(`/workspace/w${i}`, { owner: 'user:alice' })
  const alice = await Person.start(t, uids.alice)
  const rows = [
    'os.mkdir(G + "/made-%d" % ME)',
    'use(G + "/file-%d" % ME, os.O_CREAT | os.O_WRONLY)',
    'use(G + "/file-%d" % ME, os.O_CREAT | os.O_EXCL | os.O_WRONLY)',
    'os.symlink("nowhere", G + "/link-%d" % ME)',
    'os.mkdir("at-%d" % ME, dir_fd=gate)',
    'os.rename(G + "/own-%d" % ME, G + "/renamed-%d" % ME)',
    'os.rename("own-%d" % ME, "renamed-%d" % ME, src_dir_fd=gate, dst_dir_fd=gate)',
    'os.rmdir(G + "/own-%d" % ME)',
    'mayaccess(G, os.X_OK | os.W_OK)',
    'os.listdir(G)',
    'os.stat(G)',
    'os.chdir(G)',
  ]
  for (const code of rows) {
    // All of these are kept until somebody comes who may not see them.
    await alice.run(`for n in range(50): os.stat(${JSON.stringify(mount.at('workspace/w'))} + str(n))`)
    const ME = freshUid
    await service.identityAdd(`user:u${ME}`, ME)
    await service.workspaceCreate(`/workspace/own-${ME}`, { owner: `user:u${ME}` })
    const somebody = await fresh(t)
    await somebody.run(`gate = as_root(lambda: os.open(${JSON.stringify(mount.at('workspace'))}, O_PATH))`)
    const start = performance.now()
    const [answer] = await somebody.attempt([code], { G: mount.at('workspace'), ME })
    const took = performance.now() - start
    t.equal(answer, 'ok', code)
    t.ok(took < SOON_MS, `${code}: ${took.toFixed(0)} ms`)
    t.equal(await somebody.try(`os.stat(${JSON.stringify(mount.at('workspace/w7'))})`), 'EACCES')
  }
  t.same(mount.log, '', 'nothing to tell')
})

t.test('what the administrator makes of a gate', { skip }, async (t) => {
  const { mount, service, open, secret, shared } = await placesFor(t)
  const gate = mount.at('workspace')
  const alice = await Person.start(t, uids.alice)
  const bob = await Person.start(t, uids.bob)
  const looks = async (person: Person): Promise<string[]> =>
    person.attempt(['os.stat(D)', "read(D + '/f')", 'os.listdir(G)', 'mayaccess(G, os.W_OK)'], { D: open, G: gate })
  const all = ['ok', 'ok', 'ok', 'ok']
  t.same([await looks(alice), await looks(bob)], [all, all])
  t.equal(fs.statSync(gate).mode & 0o7777, 0o1770, 'shown as its ACL has it')
  t.equal(fs.statSync(mount.at('tenants')).mode & 0o7777, 0o750)
  t.match(sh('getfacl -n .', gate), /user:1001:rwx\nuser:1002:rwx\ngroup::---\nmask::rwx\nother::---/)

  const trips = {
    chmod: 'chmod 1770 .; chmod +t .; chmod --reference=. .',
    setfacl: 'getfacl . | setfacl --set-file=- .; getfacl -n . > "$T/acl"; setfacl --restore="$T/acl"',
    cp: 'mkdir "$T/copy"; getfacl -n . | setfacl --set-file=- "$T/copy"; chmod --reference=. "$T/copy"; cp -aT "$T/copy" .',
  }
  for (const [name, script] of Object.entries(trips)) {
    sh(`T=${path.dirname(mount.mountpoint)}; ${script}`, gate)
    t.equal(fs.statSync(gate).mode & 0o7777, 0o1770, `${name}: the mode stays`)
    t.same(await looks(await fresh(t)), all, `${name}: nothing is frozen`)
    t.equal(await warm(service, [alice, bob], [open]), 0, `${name}: names are kept`)
  }

  fs.chmodSync(gate, 0o700)
  t.same(await looks(alice), Array(4).fill('EACCES'), 'closed')
  t.same(await looks(await fresh(t)), Array(4).fill('EACCES'), 'closed to strangers')
  fs.chmodSync(gate, 0o1711)
  t.same(await looks(alice), ['ok', 'ok', 'EACCES', 'EACCES'], 'a way through')
  t.same(await looks(await fresh(t)), ['ok', 'ok', 'EACCES', 'EACCES'], 'for all')
  t.equal(await warm(service, [alice, bob], [open]), 0)
  fs.chmodSync(gate, 0o1775)
  t.equal(fs.statSync(gate).mode & 0o7777, 0o1775, 'as it is when group and others differ')
  t.same(await looks(alice), ['ok', 'ok', 'ok', 'EACCES'])
  t.same(await looks(await fresh(t)), ['ok', 'ok', 'ok', 'EACCES'])
  fs.chmodSync(gate, 0o1777)
  t.same([await looks(alice), await looks(await fresh(t))], [all, all], 'as at first')
  t.equal(await warm(service, [alice, bob], [open]), 0, 'names are kept again')
  await warm(service, [alice], [secret, shared])

  sh(`setfacl -m u:${uids.carol}:--- .`, gate)
  t.match(sh('getfacl -n .', gate), /user::rwx\nuser:1003:---\ngroup::rwx\nmask::rwx\nother::rwx/, 'an ACL of its own')
  t.same(await looks(await Person.start(t, uids.carol)), Array(4).fill('EACCES'), 'refuses whom it names')
  const somebody = await fresh(t)
  t.same([await looks(alice), await looks(somebody)], [all, all], 'and nobody else')
  t.equal(await somebody.try(`os.stat(${JSON.stringify(shared)})`), 'EACCES')
  sh('setfacl -b .', gate)
  t.same([await looks(alice), await looks(await fresh(t))], [all, all], 'without it')
  t.equal(await warm(service, [alice, bob], [open]), 0, 'names are kept once more')
  t.same(mount.log, '', 'nothing to tell')
})

t.test('more users than an ACL has room for', { skip }, async (t) => {
  const { mount, service, open, shared } = await placesFor(t)
  const alice = await Person.start(t, uids.alice)
  await warm(service, [alice], [open, shared])
  const root = new Guest(t)
  const wrong = await root.run(`
def child(uid):
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
    try:
        os.stat(${JSON.stringify(open)})
    except OSError:
        return 1
    try:
        os.stat(${JSON.stringify(shared)})
        return 2
    except PermissionError:
        return 0
def come(uid):
    pid = os.fork()
    if pid == 0: os._exit(child(uid))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
wrong = [(uid, code) for uid in range(5000, 5420) for code in [come(uid)] if code != 0]
`)
  t.equal(wrong, null)
  t.same(await root.run('wrong'), [])
  t.equal(fs.statSync(mount.at('workspace')).mode & 0o7777, 0o1777, 'shown as it is')
  t.match(mount.log, /more users come by than an ACL can name/)
  t.equal(await alice.try(`os.stat(${JSON.stringify(shared)})`), 'ok')
  t.equal(await (await fresh(t)).try(`os.stat(${JSON.stringify(shared)})`), 'EACCES')
})

t.test('three of a thousand', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  for (let i = 0; i < 1000; i++) await service.workspaceCreate(`/workspace/w${i}`, { owner: 'user:alice' })
  for (const i of [3, 500, 999]) await service.grant('user:bob', 'viewer', `/workspace/w${i}`, {})
  const gate = mount.at('workspace')
  const alice = await Person.start(t, uids.alice)
  const every = `for n in range(1000): os.stat(${JSON.stringify(`${gate}/w`)} + str(n))`
  t.equal(await alice.run(every), null)
  const before = await requests(service)
  t.equal(await alice.run(every), null)
  t.equal((await requests(service)) - before, 0, 'all are kept')
  const bob = await Person.start(t, uids.bob)
  const start = performance.now()
  t.equal(await bob.try(`os.stat(${JSON.stringify(`${gate}/w0`)})`), 'EACCES')
  const took = performance.now() - start
  t.ok(took < SOON_MS, `the first look of somebody new: ${took.toFixed(1)} ms`)
  t.same(await bob.run(`sorted(os.listdir(${JSON.stringify(gate)}))`), ['w3', 'w500', 'w999'])
  sh('ls -l > /dev/null', gate)
  const rows = Array.from({ length: 1000 }, (_, i) => `os.stat(G + '/w${i}')`)
  const answers = await bob.attempt(rows, { G: gate })
  t.same(
    answers.flatMap((answer, i) => (answer === 'EACCES' ? [] : [`${i} ${answer}`])),
    ['3 ok', '500 ok', '999 ok'],
  )
  t.equal(
    await warm(
      service,
      [alice, bob],
      [3, 500, 999].map((i) => `${gate}/w${i}`),
    ),
    0,
    'what both may see is kept',
  )
})

const STORM_S = 10
const PEOPLE = 20
const NEIGHBOURS = 4
const STORM = `
def storm(seen, hidden, seconds):
    end = time.time() + seconds
    wrong = []
    while time.time() < end:
        for p in seen:
            try: os.stat(p)
            except OSError as failure: wrong.append([p, failure.errno])
        for p in hidden:
            try:
                os.stat(p)
                wrong.append([p, 0])
            except PermissionError: pass
    return wrong
`

t.test('many come at once while rights come and go', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  const gate = mount.at('workspace')
  const at = (name: string): string => JSON.stringify(`${gate}/${name}`)
  await service.workspaceCreate('/workspace/all', { owner: 'user:alice' })
  await service.grant('user:*', 'viewer', '/workspace/all', {})
  const people: Person[] = []
  for (let i = 0; i < PEOPLE; i++) {
    const uid = freshUid++
    await service.identityAdd(`user:p${i}`, uid)
    await service.workspaceCreate(`/workspace/own${i}`, { owner: `user:p${i}` })
    const person = await Person.start(t, uid)
    await person.run(STORM)
    people.push(person)
  }
  // In the other gate only those come by who may, so that names there are kept until bob may no more.
  const acme = JSON.stringify(mount.at('tenants/acme'))
  const neighbours: Person[] = []
  for (let i = 0; i < NEIGHBOURS; i++) {
    const uid = freshUid++
    await service.identityAdd(`user:n${i}`, uid)
    await service.grant(`user:n${i}`, 'viewer', '/tenants/acme', {})
    const person = await Person.start(t, uid)
    await person.run(STORM)
    neighbours.push(person)
  }
  const alice = await Person.start(t, uids.alice)
  const bob = await Person.start(t, uids.bob)
  await alice.run(`for n in range(${PEOPLE}): mayaccess(${at('all')}, os.F_OK)`)
  sh('ls -l > /dev/null', gate)
  // Nobody of them was here before: what they do first, they do now, all at once.
  const storms = people.map((person, i) =>
    person.run(`storm([${at('all')}, ${at(`own${i}`)}], [${at(`own${(i + 1) % PEOPLE}`)}], ${STORM_S})`),
  )
  storms.push(...neighbours.map((person) => person.run(`storm([${acme}], [], ${STORM_S})`)))
  const end = Date.now() + STORM_S * 1000
  let rounds = 0
  for (; Date.now() < end; rounds++) {
    await service.grant('user:bob', 'viewer', '/tenants/acme', {})
    if (rounds % 2 === 0) t.same(await bob.attempt([`os.stat(${acme})`, `use(${acme}, O_PATH)`]), ['ok', 'ok'])
    await service.revoke('user:bob', 'viewer', '/tenants/acme')
    t.equal(await bob.try(rounds % 3 === 0 ? `os.stat(${acme})` : `use(${acme}, O_PATH)`), 'EACCES')
    t.equal(await alice.try(`os.stat(${acme})`), 'ok')
  }
  t.ok(rounds > 5, `${rounds} rounds`)
  for (const [i, wrong] of (await Promise.all(storms)).entries()) t.same(wrong, [], `person ${i}`)
  t.same(mount.log, '', 'nothing to tell')
})
