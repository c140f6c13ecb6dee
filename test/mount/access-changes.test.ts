/** Grants that come and go while processes live with what they have open, and that outlive the daemon. */
import fs from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { accessMountFor, grantsOn, Person, shAs, skip, uids, WALK } from './access.ts'
import { sh } from './guest.ts'

const DATA = '/tenants/acme/data'
const FILES = `
  echo text > f; echo other > g; mkdir -m 777 s; echo deep > s/h; chmod 666 f g s/h; cp /bin/true p; chmod 755 p
  chown -R 1001:1001 .
`

/** With D the directory, where the process also is; `dir` is a descriptor of it and `held` one of g. */
const LOOKS = [
  "os.stat(D + '/f')",
  "read(D + '/f')",
  'os.listdir(D)',
  "os.stat('f')",
  "read('f')",
  "os.listdir('.')",
  "os.stat('s/../f')",
  "execute('./p')",
  "os.stat('f', dir_fd=dir)",
  "read('s/h', dir_fd=dir)",
  "mayaccess(D + '/f', os.R_OK)",
  'os.pread(held, 10, 0)',
]
const CHANGES = ["write(D + '/f')", "make('n'); os.unlink('n')", "os.mkdir('m', dir_fd=dir); os.rmdir('m', dir_fd=dir)"]

/** A process in the directory with everything open, which it keeps. */
async function settled(person: Person, directory: string): Promise<void> {
  const D = JSON.stringify(directory)
  const code = `
D = ${D}
dir = as_root(lambda: os.open(D, os.O_RDONLY))
held = as_root(lambda: os.open(D + '/g', os.O_RDONLY))
`
  const problem = await person.run(code)
  if (problem !== null) throw new Error(`not settled: ${problem}`)
}

t.test('the next system call after a grant or its end', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  const directory = mount.at('tenants/acme/data')
  sh(FILES, directory)
  // Started by root inside: what it is in stays, whatever it may.
  const bob = await Person.start(t, uids.bob, directory)
  await settled(bob, directory)
  const is = async (can: 'nothing' | 'read' | 'write', why: string): Promise<void> => {
    const answers = await bob.attempt([...LOOKS, ...CHANGES])
    const wanted = [
      ...LOOKS.map(() => (can === 'nothing' ? 'EACCES' : 'ok')),
      ...CHANGES.map(() => (can === 'write' ? 'ok' : 'EACCES')),
    ]
    t.equal(answers.length, LOOKS.length + CHANGES.length)
    for (const [i, code] of [...LOOKS, ...CHANGES].entries()) t.equal(answers[i], wanted[i], `${why}: ${code}`)
  }
  await is('nothing', 'before')
  for (let round = 1; round <= 3; round++) {
    mount.ctl('grant', 'bob', 'viewer', DATA)
    await is('read', `viewer ${round}`)
    sh(WALK, mount.at('tenants/acme'))
    mount.ctl('grant', 'bob', 'editor', DATA)
    await is('write', `editor ${round}`)
    mount.ctl('revoke', 'bob', 'editor', DATA)
    await is('read', `editor no more ${round}`)
    mount.ctl('revoke', 'bob', 'viewer', DATA)
    await is('nothing', `revoked ${round}`)
  }
  await service.grant('group:eng#member', 'editor', '/tenants/acme', {})
  await is('nothing', 'not in the group')
  mount.ctl('group', 'add', 'eng', 'bob')
  await is('write', 'in the group')
  mount.ctl('group', 'remove', 'eng', 'bob')
  await is('nothing', 'not in the group any more')
  mount.ctl('grant', 'bob', 'viewer', '/tenants/acme')
  await is('read', 'a grant above')
  mount.ctl('identity', 'remove', 'bob')
  await is('nothing', 'without an identity')
  mount.ctl('identity', 'add', 'bob', '--uid', String(uids.bob))
  await is('read', 'with an identity again')
  mount.ctl('revoke', 'bob', 'viewer', '/tenants/acme')
  mount.ctl('grant', 'bob', 'editor', DATA, '--expires', '4s')
  await is('write', 'until it ends')
  await delay(4500)
  await is('nothing', 'ended by itself')
  t.same(grantsOn(mount, DATA), [], 'what has ended is not listed')
})

t.test('a right deep inside shows nothing beside the way', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  const top = mount.at('tenants/acme/way')
  sh('mkdir -p a/b/c; for d in . a a/b a/b/c; do echo x > $d/beside; mkdir $d/other; done; chmod -R a+rwX .', top)
  await service.grant('user:gina', 'viewer', '/tenants/acme/way/a/b/c', {})
  const gina = await Person.start(t, uids.gina)
  for (const phase of ['cold', 'warm', 'again']) {
    if (phase === 'warm') sh(WALK, mount.at('tenants/acme'))
    if (phase === 'again') shAs(uids.alice, WALK, mount.at('tenants/acme'))
    for (const way of ['.', 'a', 'a/b']) {
      const D = `${top}/${way}`
      const codes = ['os.stat(D)', 'os.listdir(D)', "os.stat(D + '/beside')", "os.stat(D + '/other')", "read(D + '/beside')"]
      const [stat, list, ...beside] = await gina.attempt(codes, { D })
      t.equal(stat, 'ok', `${phase}: walk ${way}`)
      t.equal(list, 'EACCES', `${phase}: list ${way}`)
      t.same(beside, ['EACCES', 'EACCES', 'EACCES'], `${phase}: beside ${way}`)
    }
    const end = ['os.listdir(D)', "read(D + '/beside')", "os.stat(D + '/other/..')", 'os.chdir(D)', "os.mkdir(D + '/no')"]
    t.same(await gina.attempt(end, { D: `${top}/a/b/c` }), ['ok', 'ok', 'ok', 'ok', 'EACCES'], `${phase}: where the right is`)
  }
})

t.test('grants outlive the daemon', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  const directory = mount.at('tenants/acme/data')
  sh(FILES, directory)
  await service.grant('user:bob', 'viewer', DATA, {})
  await service.grant('user:carol', 'editor', DATA, {})
  await service.revoke('user:carol', 'editor', DATA)
  const before = grantsOn(mount, DATA)
  t.same(before, ['user:bob viewer'])
  for (const end of ['kill', 'stop'] as const) {
    await mount[end]()
    await mount.start()
    t.same(grantsOn(mount, DATA), before, end)
    t.equal(shAs(uids.bob, `cat ${directory}/f`, '/'), 'text\n', `${end}: bob reads`)
    t.throws(() => shAs(uids.bob, `echo no > ${directory}/f`, '/'), /denied/, `${end}: bob does not write`)
    t.throws(() => shAs(uids.carol, `cat ${directory}/f`, '/'), /denied/, `${end}: carol does not read`)
    t.equal(shAs(uids.alice, `cat ${directory}/f`, '/'), 'text\n', `${end}: alice reads`)
  }
})

t.test('nothing is guarded in a mount of one user', { skip }, async (t) => {
  const { mount } = await accessMountFor(t, { flags: ['--single-user'] })
  sh('echo mine > f; mkdir d; chmod 000 d; ls -l f; mv f g; cat g; getfacl g', mount.at('tenants/acme/data'))
  t.same(fs.readdirSync(mount.at('tenants/acme/data')).sort(), ['d', 'g'])
  t.notMatch(sh('getfacl -n g', mount.at('tenants/acme/data')), /user:1001/, 'no ACL is compiled')
})

t.test('a tenant is made whole or not at all', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  for (const dirs of ['good,.snapshots', 'good,good']) {
    t.throws(() => mount.ctl('tenant', 'onboard', 'bad', '--admin', 'alice', `--dirs=${dirs}`), dirs)
    t.same(fs.readdirSync(mount.at('tenants')), ['acme'], `${dirs}: nothing is left`)
    t.throws(() => mount.ctl('grants', '/tenants/bad'), /no/, `${dirs}: nor its grants`)
    t.throws(() => fs.statSync(mount.at('tenants/bad')), { code: 'ENOENT' }, `${dirs}: nor its name`)
  }
  mount.ctl('tenant', 'onboard', 'bad', '--admin', 'bob', '--dirs=good')
  t.same(grantsOn(mount, '/tenants/bad'), ['user:bob owner'], 'its name is free')
})
