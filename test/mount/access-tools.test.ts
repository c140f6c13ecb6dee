/** Programs that copy permissions, and what moves whole trees: none of it changes who may. */
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { accessMountFor, grantsOn, has, Person, shAs, skip, uids } from './access.ts'
import { sh } from './guest.ts'

const DATA = '/tenants/acme/data'

/** By alice, in a directory with f (666), which bob may read and carol may change: each leaves `copy`, readable or not. */
const copiers: [name: string, script: string][] = [
  ['cp -p', 'cp -p f copy'],
  ['cp -a of a directory', 'mkdir in; cp -p f in/f; cp -a in out; mv out/f copy; rm -r in out'],
  ['sed -i', 'cp f copy; sed -i s/text/text/ copy'],
  ['getfacl and setfacl --restore', 'cp f copy; getfacl copy > /tmp/acl-$$; setfacl --restore=/tmp/acl-$$; rm /tmp/acl-$$'],
  ['setfacl --set-file', 'cp f copy; getfacl f | setfacl --set-file=- copy'],
  ['tar --acls', 'tar --acls -cf t.tar f; mkdir x; tar --acls -C x -xf t.tar; mv x/f copy; rm -r x t.tar'],
  ['chmod +x', 'cp f copy; chmod +x copy'],
  ...(has('rsync') ? ([['rsync -A', 'rsync -pA f copy']] as [string, string][]) : []),
]

t.test('programs that copy permissions freeze no rights', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.grant('user:bob', 'viewer', DATA, {})
  await service.grant('user:carol', 'editor', DATA, {})
  const top = mount.at('tenants/acme/data')
  const people = {
    bob: await Person.start(t, uids.bob),
    carol: await Person.start(t, uids.carol),
    eve: await Person.start(t, uids.eve),
  }
  const names = copiers.map(([name], i) => [name, `${top}/${i}`] as const)
  for (const [i, [, script]] of copiers.entries()) {
    shAs(uids.alice, `umask 0; mkdir ${i}; cd ${i}; echo text > f; ${script}`, top)
  }
  const look = ['read(D)', 'write(D, b"text\\n")']
  const is = async (who: keyof typeof people, wanted: string[], why: string): Promise<void> => {
    for (const [name, directory] of names) {
      t.same(await people[who].attempt(look, { D: `${directory}/copy` }), wanted, `${name}: ${who} ${why}`)
    }
  }
  t.ok(names.length >= 7)
  await is('bob', ['ok', 'EACCES'], 'views')
  await is('carol', ['ok', 'ok'], 'edits')
  await is('eve', ['EACCES', 'EACCES'], 'has no relation')
  for (const [name, directory] of names) {
    const before = sh('getfacl -n copy', directory)
    sh('getfacl copy | setfacl --restore=-; getfacl copy | setfacl --set-file=- copy', directory)
    t.equal(sh('getfacl -n copy', directory), before, `${name}: an ACL read and written back`)
    t.notMatch(sh('getfattr -d -m - --absolute-names copy; true', directory), /trusted/, `${name}: nothing is stored`)
  }
  mount.ctl('grant', 'eve', 'viewer', DATA)
  mount.ctl('revoke', 'bob', 'viewer', DATA)
  mount.ctl('revoke', 'carol', 'editor', DATA)
  await is('eve', ['ok', 'EACCES'], 'views later')
  await is('bob', ['EACCES', 'EACCES'], 'views no more')
  await is('carol', ['EACCES', 'EACCES'], 'edits no more')
})

t.test('permission bits on top, and what tells of them', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.grant('user:bob', 'viewer', DATA, {})
  await service.grant('user:carol', 'editor', DATA, {})
  const top = mount.at('tenants/acme/data')
  const modes = ['600', '640', '644', '755', '666', '400', '000', '700']
  for (const mode of modes) shAs(uids.alice, `echo text > f${mode}; chmod ${mode} f${mode}`, top)
  const given: Record<string, number> = { alice: 7, bob: 5, carol: 7, eve: 0 }
  for (const [who, rights] of Object.entries(given)) {
    const uid = uids[who as keyof typeof uids]
    const person = await Person.start(t, uid)
    for (const mode of modes) {
      const [owner, group, others] = [...mode].map(Number) as [number, number, number]
      const can = (who === 'alice' ? owner : group | others) & rights
      const D = `${top}/f${mode}`
      const codes = [
        'use(D, os.O_RDONLY)',
        'mayaccess(D, os.R_OK)',
        'use(D, os.O_WRONLY)',
        'mayaccess(D, os.W_OK)',
        'mayaccess(D, os.X_OK)',
      ]
      const wanted = [4, 4, 2, 2, 1].map((bit) => (can & bit ? 'ok' : 'EACCES'))
      t.same(await person.attempt(codes, { D }), wanted, `${who}, ${mode}: what access(2) says, open does`)
      if (rights === 0) continue
      const told = shAs(uid, `for x in r w x; do test -$x ${D} && printf $x || printf -; done`, '/')
      t.equal(told, `${can & 4 ? 'r' : '-'}${can & 2 ? 'w' : '-'}${can & 1 ? 'x' : '-'}`, `${who}, ${mode}: test(1)`)
    }
  }
  const acl = sh('getfacl -n --omit-header f666', top)
  t.match(acl, /^user:1002:r--$/m, 'getfacl names the viewer')
  t.match(acl, /^user:1003:rw-$/m, 'getfacl names the editor')
  t.match(acl, /^other::---$/m, 'and nobody else')
})

t.test('restores and forks neither bring rights back nor leak them', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  const top = mount.at('tenants/acme/data')
  shAs(uids.alice, 'echo text > f; mkdir d; echo deep > d/f', top)
  const bob = await Person.start(t, uids.bob)
  const carol = await Person.start(t, uids.carol)
  const reads = (who: Person, at: string): Promise<string> => who.try(`read(${JSON.stringify(mount.at(at))})`)
  await service.snapshotCreate('/tenants/acme', { name: 'before' })
  mount.ctl('grant', 'bob', 'editor', DATA)
  mount.ctl('restore', '/tenants/acme', 'before')
  t.equal(await reads(bob, 'tenants/acme/data/f'), 'ok', 'granted after the snapshot: still there')
  await service.snapshotCreate('/tenants/acme', { name: 'with' })
  mount.ctl('revoke', 'bob', 'editor', DATA)
  mount.ctl('restore', '/tenants/acme', 'with')
  t.equal(await reads(bob, 'tenants/acme/data/f'), 'EACCES', 'revoked: a restore does not bring it back')
  t.same(grantsOn(mount, DATA), [])

  mount.ctl('grant', 'bob', 'viewer', DATA)
  mount.ctl('fork', '/tenants/acme', '/tenants/plain')
  mount.ctl('fork', '/tenants/acme', '/tenants/copied', '--with-grants')
  mount.ctl('fork', '/tenants/acme', '/tenants/carols', '--owner', 'carol')
  mount.ctl('fork', '/tenants/acme', '/tenants/old', '--snapshot', 'with')
  for (const name of ['plain', 'carols', 'old'])
    t.equal(await reads(bob, `tenants/${name}/data/f`), 'EACCES', `${name}: not bob's`)
  const alice = await Person.start(t, uids.alice)
  t.equal(await reads(alice, 'tenants/plain/data/f'), 'EACCES', "plain: not alice's, though the files have her uid")
  t.equal(await reads(bob, 'tenants/copied/data/f'), 'ok', 'copied: with its grants')
  t.same(grantsOn(mount, '/tenants/copied'), ['user:alice owner'])
  t.equal(await reads(carol, 'tenants/carols/data/f'), 'ok', 'carol owns hers')
  t.same(grantsOn(mount, '/tenants/carols'), ['user:carol owner'])
  mount.ctl('revoke', 'bob', 'viewer', '/tenants/copied/data')
  t.equal(await reads(bob, 'tenants/copied/data/f'), 'EACCES', 'copied: grants of its own')
  t.equal(await reads(bob, 'tenants/acme/data/f'), 'ok', 'which are not those of its source')
})

/** A rename does not wait for the kernel to drop what it compiled: what moved has other rights within a second. */
async function soon(person: Person, code: string, wanted: string): Promise<string> {
  const end = performance.now() + 1000
  for (;;) {
    const result = await person.try(code)
    if (result === wanted || performance.now() > end) return result
    await sleep(10)
  }
}

t.test('names move, rights stay', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  const top = mount.at('tenants/acme')
  shAs(uids.alice, 'echo text > data/f; mkdir way/to', top)
  mount.ctl('grant', 'bob', 'viewer', DATA)
  const bob = await Person.start(t, uids.bob)
  const D = JSON.stringify(top)
  t.equal(await bob.try(`read(${D} + '/data/f')`), 'ok')
  shAs(uids.alice, 'mv data way/to/moved', top)
  t.equal(await bob.try(`read(${D} + '/way/to/moved/f')`), 'ok', 'a granted directory that moved')
  t.equal(await bob.try(`os.listdir(${D} + '/way/to')`), 'EACCES', 'and nothing around it')
  t.same(grantsOn(mount, '/tenants/acme/way/to/moved'), ['user:bob viewer'])
  shAs(uids.alice, 'mv way/to/moved/f way/f', top)
  t.equal(await soon(bob, `read(${D} + '/way/f')`, 'EACCES'), 'EACCES', 'a file that left the granted directory')
  shAs(uids.alice, 'mv way/f way/to/moved/f; ln way/to/moved/f way/f; rm way/f', top)
  t.equal(await soon(bob, `read(${D} + '/way/to/moved/f')`, 'ok'), 'ok', 'a file that had another name for a while')
  shAs(uids.alice, 'rm -r way/to/moved; mkdir way/to/moved; echo new > way/to/moved/f', top)
  t.equal(await bob.try(`read(${D} + '/way/to/moved/f')`), 'EACCES', 'another directory of the same name')

  shAs(uids.alice, 'mkdir mine', mount.at('workspace'))
  t.same(grantsOn(mount, '/workspace/mine'), ['user:alice owner'], 'who makes a workspace owns it')
  t.throws(() => shAs(uids.alice, 'mkdir hers', mount.at('tenants')), /denied/, 'tenants are made by the administrator')
  t.equal(await bob.try(`os.stat(${JSON.stringify(mount.at('workspace/mine'))})`), 'EACCES', 'and are nobody else’s')
  t.same(fs.readdirSync(mount.at('tenants')), ['acme'])
})
