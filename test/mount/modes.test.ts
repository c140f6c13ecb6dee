/** Modes in a workspace are what programs set, and those who have a grant get what the mode leaves them. */
import fs from 'node:fs'
import t from 'tap'
import { type AccessMount, accessMountFor, has, Person, STRANGER, shAs, skip, uids } from './access.ts'
import { sh } from './guest.ts'

const DATA = '/tenants/acme/data'

type Who = 'owner' | 'editor' | 'viewer' | 'stranger'

/** Owner alice, editor carol, viewer bob, and somebody without a relation. */
const people: Record<Who, { uid: number; rwx: number }> = {
  owner: { uid: uids.alice, rwx: 7 },
  editor: { uid: uids.carol, rwx: 7 },
  viewer: { uid: uids.bob, rwx: 5 },
  stranger: { uid: STRANGER, rwx: 0 },
}

/** A user whom every machine knows. */
const NOBODY = 65534

interface Made {
  name: string
  /** how alice makes it, in a shell */
  script: string
  /** what stat(2) shows, in octal */
  mode: string
  /** what a grant gives at most */
  mask: number
}

const MODES = [
  '000',
  '400',
  '600',
  '640',
  '642',
  '644',
  '664',
  '666',
  '700',
  '750',
  '755',
  '770',
  '777',
  '604',
  '602',
  '606',
  '701',
  '705',
  '070',
  '007',
]

/** chmod(2) sets the mask with the group's bits. Without those the others' are hidden as long as not everyone may have them. */
const changed: Made[] = MODES.map((mode) => ({
  name: `chmod-${mode}`,
  script: `echo text > chmod-${mode}; chmod ${mode} chmod-${mode}`,
  mode: mode[1] === '0' ? `${mode.slice(0, 2)}0` : mode,
  mask: Number(mode[1]),
}))

/** The umask shows in the mode, and not in the mask, unless it leaves the group nothing. */
const created: Made[] = ['000', '002', '022', '027', '026', '077', '072'].flatMap((umask) =>
  ([0o666, 0o640, 0o600, 0o777, 0o604] as const).map((asked) => {
    const mode = asked & ~Number.parseInt(umask, 8)
    const isPrivate = (mode & 0o070) === 0
    const name = `umask-${umask}-${asked.toString(8)}`
    return {
      name,
      script: `umask ${umask}; python3 -c 'import os; os.write(os.open("${name}", os.O_CREAT | os.O_WRONLY, ${asked}), b"text\\n")'`,
      mode: (isPrivate ? mode & ~7 : mode).toString(8).padStart(3, '0'),
      mask: isPrivate ? 0 : (asked >> 3) & 7,
    }
  }),
)

const files = [...changed, ...created]

async function workers(t: Parameters<typeof accessMountFor>[0]): Promise<Record<Who, Person>> {
  const entries = await Promise.all(
    Object.entries(people).map(async ([who, { uid }]) => [who, await Person.start(t, uid)] as const),
  )
  return Object.fromEntries(entries) as Record<Who, Person>
}

function made({ mount }: AccessMount): string {
  const top = mount.at('tenants/acme/data')
  shAs(uids.alice, `mkdir m; chmod 777 m; cd m\n${files.map(({ script }) => `(${script})`).join('\n')}`, top)
  return `${top}/m`
}

const LOOK = ['use(D, os.O_RDONLY)', 'use(D, os.O_WRONLY)', 'use(D, os.O_RDWR)', 'mayaccess(D, os.X_OK)']

function wanted(bits: number): string[] {
  return [bits & 4, bits & 2, (bits & 6) === 6, bits & 1].map((may) => (may ? 'ok' : 'EACCES'))
}

async function look(
  t: Parameters<typeof accessMountFor>[0],
  person: Person,
  directory: string,
  bitsOf: (file: Made) => number,
  what: string,
): Promise<void> {
  for (const file of files) {
    t.same(await person.attempt(LOOK, { D: `${directory}/${file.name}` }), wanted(bitsOf(file)), `${what}: ${file.name}`)
  }
}

t.test('modes, umasks, and who has a grant', { skip }, async (t) => {
  const access = await accessMountFor(t)
  await access.service.grant('user:bob', 'viewer', DATA, {})
  await access.service.grant('user:carol', 'editor', DATA, {})
  const directory = made(access)
  const persons = await workers(t)
  const bits = (who: Who) => (file: Made) => (who === 'owner' ? Number(file.mode[0]) : people[who].rwx & file.mask)
  for (const phase of ['cold', 'warm']) {
    for (const who of Object.keys(people) as Who[]) await look(t, persons[who], directory, bits(who), `${phase}, ${who}`)
    for (const { name, mode } of files) {
      t.equal((fs.statSync(`${directory}/${name}`).mode & 0o7777).toString(8).padStart(3, '0'), mode, `${phase}: stat ${name}`)
    }
  }
  await access.mount.kill()
  await access.mount.start()
  // Strangers first: what the kernel has of a file comes with their own look at it.
  for (const who of (Object.keys(people) as Who[]).reverse())
    await look(t, persons[who], directory, bits(who), `from the log, ${who}`)
})

t.test('modes where everyone has a grant', { skip }, async (t) => {
  const access = await accessMountFor(t)
  const { mount, service } = access
  await service.grant('user:carol', 'editor', DATA, {})
  await service.grant('user:*', 'viewer', DATA, {})
  const directory = made(access)
  const { stranger, editor } = await workers(t)
  // The stranger is in no group of the files, and named nowhere: the others' bits are theirs.
  const other = ({ name }: Made): number => {
    const [kind, first, second] = name.split('-') as [string, string, string]
    const set = kind === 'chmod' ? Number.parseInt(first, 8) : Number.parseInt(second, 8) & ~Number.parseInt(first, 8)
    return set & 5
  }
  for (const phase of ['cold', 'warm']) {
    await look(t, stranger, directory, other, `${phase}, everyone`)
    // Without bits for the group the mode alone decides: the others' bits are for the editor too.
    await look(t, editor, directory, (file) => file.mask || other(file), `${phase}, the editor`)
  }
  t.equal(
    sh('stat -c %a chmod-640 chmod-604 chmod-602', directory),
    '640\n604\n600\n',
    'and 602 hides what nobody but editors may',
  )
  mount.ctl('revoke', 'user:*', 'viewer', DATA)
  await look(t, stranger, directory, () => 0, 'revoked')
  t.equal(sh('stat -c %a chmod-604', directory), '600\n')
})

t.test('who owns a file without rights on it is not its owner for the kernel', { skip }, async (t) => {
  const access = await accessMountFor(t)
  const { mount } = access
  const top = mount.at('tenants/acme/data')
  mount.ctl('grant', 'bob', 'editor', DATA)
  const bob = await Person.start(t, uids.bob)
  const carol = await Person.start(t, uids.carol)
  mount.ctl('grant', 'carol', 'viewer', DATA)
  shAs(
    uids.bob,
    'mkdir his; echo text > his/f; (umask 077; echo key > his/key; mkdir his/dir; echo x > his/dir/x); cp /bin/id his/id; chmod 6755 his/id',
    top,
  )
  t.equal(sh('stat -c "%a %u" f key dir id', `${top}/his`), '644 1002\n600 1002\n700 1002\n6755 1002\n')
  mount.ctl('revoke', 'bob', 'editor', DATA)
  mount.ctl('grant', 'bob', 'viewer', DATA)
  t.equal(sh('stat -c "%a %u" f key dir id', `${top}/his`), '644 4294967294\n640 4294967294\n750 4294967294\n2755 4294967294\n')
  const D = `${top}/his`
  const mine = ['read(D + "/f")', 'read(D + "/key")', 'read(D + "/dir/x")', 'os.listdir(D + "/dir")']
  t.same(await bob.attempt(mine, { D }), ['ok', 'ok', 'ok', 'ok'], 'who may view reads what they own, also what is private')
  t.same(await carol.attempt(mine, { D }), ['ok', 'EACCES', 'EACCES', 'EACCES'], 'which nobody else does')
  const changes = [
    'use(D + "/f", os.O_RDWR)',
    'os.chmod(D + "/f", 0o666)',
    'os.chown(D + "/f", -1, ME)',
    'os.utime(D + "/f", (5, 5))',
  ]
  t.same(await bob.attempt(changes, { D, ME: uids.bob }), ['EACCES', 'EPERM', 'EPERM', 'EPERM'])
  // As root of a user namespace, which has every capability over inodes whose owner and group it maps.
  const script = `
    cat ${D}/f >/dev/null
    for way in 'exec 3<>${D}/f' 'exec 3>>${D}/f' 'chmod 666 ${D}/f' 'chown 0:0 ${D}/f' 'touch -d 2001-01-01 ${D}/f' 'truncate -s 0 ${D}/f' 'rm ${D}/f' 'setfattr -n user.x -v y ${D}/f'; do
      bash -c "$way" 2>/dev/null && echo "done: $way" || true
    done`
  t.equal(shAs(uids.bob, `unshare --user --map-root-user -- bash -uc '${script.replaceAll("'", "'\\''")}'`, '/'), '')
  mount.ctl('revoke', 'bob', 'viewer', DATA)
  t.same(await bob.attempt(mine, { D }), ['EACCES', 'EACCES', 'EACCES', 'EACCES'], 'without a relation nothing is left')
  // An administrator who copies what is shown does not give the files away.
  sh(
    'chown --reference=f f; chmod --reference=f f; chmod --reference=key key; getfacl -n --omit-header key | setfacl --set-file=- key',
    D,
  )
  mount.ctl('grant', 'bob', 'editor', DATA)
  t.equal(sh('stat -c "%a %u" f key dir id', D), '644 1002\n600 1002\n700 1002\n6755 1002\n', 'with the rights the owner is back')
})

t.test('setfacl keeps what it can, and refuses the rest', { skip }, async (t) => {
  const access = await accessMountFor(t)
  const { mount } = access
  mount.ctl('grant', 'bob', 'viewer', DATA)
  mount.ctl('grant', 'carol', 'editor', DATA)
  const top = mount.at('tenants/acme/data')
  const rows: [script: string, mode: string, mask: string][] = [
    ['true', '644', 'rw-'],
    ['chmod 640 f', '640', 'r--'],
    ['setfacl -m m::r f', '644', 'r--'],
    ['setfacl -m m::rwx f', '674', 'rwx'],
    ['setfacl -m u::rwx f', '744', 'rw-'],
    ['setfacl -m g::rw f', '664', 'rw-'],
    ['setfacl -m o::rw f', '646', 'rw-'],
    ['setfacl --set u::rw,g::rw,o::r f', '664', 'rw-'],
    ['setfacl --set u::rw,g::-,o::- f', '600', '---'],
    ['getfacl -n f > ../acl; setfacl --set-file=../acl f; rm ../acl', '644', 'rw-'],
    ['echo x > g; chmod 600 g; getfacl -n f | setfacl --set-file=- g; mv g f', '644', 'rw-'],
    ['cp -a f g; mv g f', '644', 'rw-'],
    ['cp -p f g; cp -p g f', '644', 'rw-'],
    ['tar --acls -cf a.tar f; rm f; tar --acls -xf a.tar', '644', 'rw-'],
    ['tar -cf a.tar f; rm f; tar -xf a.tar', '644', 'r--'],
    ['rsync -aA f g; mv g f', '644', 'r--'],
    ['mkdir d; chmod 755 d; cp -a d e; rmdir d e', '644', 'rw-'],
  ]
  for (const [i, [script, mode, mask]] of rows.entries()) {
    shAs(uids.alice, `umask 022; mkdir ${i}; cd ${i}; echo text > f; ${script}`, top)
    const told = sh('stat -c %a f; getfacl -nE --omit-header f | grep mask', `${top}/${i}`)
    t.equal(told, `${mode}\nmask::${mask}\n`, script)
  }
  const refused = [
    'setfacl -m u:1002:rw f',
    'setfacl -m u:1003:r f',
    'setfacl -m u:1999:r f',
    'setfacl -x u:1002 f',
    'setfacl -m g:99:r f',
    'setfacl --set u::rw,u:1002:r,g::r,m::r,o::- f',
    'setfacl --set u::rw,g::r,m::rw,o::- f',
    'setfacl -d -m u:1999:rwx d',
    'setfacl -d -m g:99:r d',
  ]
  shAs(uids.alice, 'mkdir no no/d; echo text > no/f', top)
  const before = sh('getfacl -n f d', `${top}/no`)
  for (const script of refused) {
    t.throws(() => shAs(uids.alice, script, `${top}/no`), /not supported/, script)
    t.equal(sh('getfacl -n f d', `${top}/no`), before, `${script}: and nothing changed`)
  }
})

t.test('default ACLs of base entries stand in for the umask', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  mount.ctl('grant', 'carol', 'editor', DATA)
  const top = mount.at('tenants/acme/data')
  shAs(uids.alice, 'mkdir open shut; setfacl -d --set u::rwx,g::rwx,o::rwx open; setfacl -d --set u::rwx,g::-,o::- shut', top)
  shAs(uids.alice, 'umask 077; for d in open shut; do echo x > $d/f; mkdir $d/d; echo y > $d/d/f; done', top)
  t.equal(sh('stat -c %a open/f open/d open/d/f shut/f shut/d shut/d/f', top), '666\n777\n666\n600\n700\n600\n')
  const carol = await Person.start(t, uids.carol)
  t.same(await carol.attempt(['write(D + "/open/d/f")', 'read(D + "/shut/f")'], { D: top }), ['ok', 'EACCES'])
  t.equal(sh('getfacl -d --omit-header . | grep -c . || true', top), '0\n', 'a new workspace has none')
})

t.test('programs that look at modes', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  mount.ctl('grant', 'bob', 'viewer', DATA)
  mount.ctl('grant', 'carol', 'editor', DATA)
  const top = mount.at('tenants/acme/data')
  const tree =
    'umask 022; mkdir -p t/d; echo a > t/a; echo x > t/d/x; chmod 755 t/d/x; chmod 600 t/a; (umask 077; echo k > t/k); (umask 027; echo g > t/g; mkdir t/e)'
  shAs(uids.alice, tree, top)
  const list = 'find . -printf "%p %m %s %U:%G\\n" | sort'
  shAs(uids.alice, 'tar -cf t.tar -C t .; mkdir u; tar -xpf t.tar -C u; cp -a t v', top)
  const was = sh(list, `${top}/t`)
  t.equal(sh(list, `${top}/u`), was, 'tar out and back')
  t.equal(sh(list, `${top}/v`), was, 'cp -a')
  t.match(was, /^\.\/d\/x 755 /m)
  t.match(sh('tar -tvf t.tar', top), /^-rw------- .* \.\/a$/m, 'archives carry the mode out')

  if (has('ssh-keygen')) {
    // It wants a user that the machine knows.
    mount.ctl('grant', `user:uid-${NOBODY}`, 'editor', DATA)
    shAs(NOBODY, 'umask 022; ssh-keygen -q -t ed25519 -N "" -f key; ssh-keygen -y -P "" -f key > again', top)
    t.equal(sh('stat -c %a key key.pub', top), '600\n644\n', 'ssh-keygen')
    const open = 'umask 022; cp key open; chmod 640 open; ssh-keygen -y -P "" -f open'
    t.throws(() => shAs(NOBODY, open, top), /UNPROTECTED|bad permissions/i, 'and a key that is not private is refused')
  } else t.comment('NO ssh-keygen HERE: it is not tried')

  if (has('dpkg-deb')) {
    const made = `umask 022; mkdir -p p/DEBIAN p/usr/bin; echo '#!/bin/sh' > p/usr/bin/x; chmod 755 p/usr/bin/x
    printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: x\\n' > p/DEBIAN/control
    printf '#!/bin/sh\\n' > p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
    TMPDIR=. dpkg-deb --root-owner-group --build p p.deb`
    shAs(uids.alice, made, top)
    t.match(sh('dpkg-deb -c p.deb', top), /^-rwxr-xr-x root\/root .* \.\/usr\/bin\/x$/m, 'dpkg-deb')
  } else t.comment('NO dpkg-deb HERE: it is not tried')
})

t.test('the mask goes where the mode goes', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  mount.ctl('grant', 'carol', 'editor', '/tenants/acme')
  const top = mount.at('tenants/acme')
  shAs(uids.alice, 'umask 022; echo text > data/f; echo text > data/g; ln data/f data/h; mkdir data/d; echo text > data/d/f', top)
  const carol = await Person.start(t, uids.carol)
  const writes = (path: string): Promise<string> => carol.try(`write(${JSON.stringify(mount.at(path))})`)
  t.equal(await writes('tenants/acme/data/f'), 'ok')
  mount.ctl('snapshot', '/tenants/acme', '--name', 's')
  shAs(uids.alice, 'chmod 644 data/f; chmod 640 data/d/f', top)
  t.same([await writes('tenants/acme/data/f'), await writes('tenants/acme/data/h')], ['EACCES', 'EACCES'])
  const { changes } = mount.json<{ changes: { path: string; what: string[] }[] }>('snapshot', 'diff', '/tenants/acme', 's')
  const modes = changes.filter(({ what }) => what.includes('mode')).map(({ path }) => path)
  t.ok(
    modes.some((path) => /data\/[fh]$/.test(path)),
    'a diff tells of a mask alone',
    { changes },
  )
  t.ok(modes.includes('data/d/f'), 'and of a mode')
  t.notOk(modes.includes('data/g'))
  mount.ctl('fork', '/tenants/acme', '/tenants/live', '--with-grants')
  mount.ctl('fork', '/tenants/acme', '/tenants/old', '--with-grants', '--snapshot', 's')
  t.same([await writes('tenants/live/data/f'), await writes('tenants/live/data/g')], ['EACCES', 'ok'], 'a fork')
  t.same([await writes('tenants/old/data/f'), await writes('tenants/old/data/d/f')], ['ok', 'ok'], 'of a snapshot')
  mount.ctl('restore', '/tenants/acme/data/d', 's')
  t.same([await writes('tenants/acme/data/d/f'), await writes('tenants/acme/data/f')], ['ok', 'EACCES'], 'a directory restored')
  mount.ctl('restore', '/tenants/acme', 's')
  t.equal(await writes('tenants/acme/data/f'), 'ok', 'a workspace restored')
  shAs(uids.alice, 'mv data/g data/d/moved; ln data/d/moved data/link', top)
  t.equal(await writes('tenants/acme/data/link'), 'ok', 'other names')
  t.equal(await mount.stop(), 0)
  await mount.start()
  t.same(
    [await writes('tenants/acme/data/link'), await writes('tenants/live/data/f')],
    ['ok', 'EACCES'],
    'merged, and mounted again',
  )
  t.match(mount.ctl('fsck'), /0 problems|no problem|nothing|clean|ok/i)
})

t.test('nobody but root can open a file of a snapshot for writing', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  mount.ctl('grant', 'carol', 'editor', '/tenants/acme')
  const top = mount.at('tenants/acme')
  shAs(uids.alice, 'umask 0; for m in 600 644 664 666 777; do echo text > f$m; chmod $m f$m; done', top)
  mount.ctl('snapshot', '/tenants/acme', '--name', 's')
  const view = `${top}/.snapshots/s`
  const script = ['os.O_WRONLY', 'os.O_RDWR', 'os.O_WRONLY | os.O_APPEND', 'os.O_RDWR | os.O_TRUNC'].map(
    (flags) => `use(D, ${flags})`,
  )
  for (const who of [uids.alice, uids.carol]) {
    const person = await Person.start(t, who)
    for (const phase of ['cold', 'warm']) {
      for (const mode of ['600', '644', '664', '666', '777']) {
        const found = await person.attempt(script, { D: `${view}/f${mode}` })
        t.ok(
          found.every((errno) => errno === 'EACCES' || errno === 'EROFS'),
          `${phase}: ${who}, ${mode}`,
          { found },
        )
        const reads = mode !== '600' || who === uids.alice
        t.equal(
          await person.try(`read(${JSON.stringify(`${view}/f${mode}`)})`),
          reads ? 'ok' : 'EACCES',
          `${phase}: ${who}, ${mode} is read`,
        )
      }
    }
  }
  t.equal(sh('stat -c %a f600 f644 f664 f666 f777', view), '400\n444\n444\n444\n555\n')
  mount.ctl('restore', '/tenants/acme', 's')
  t.equal(sh('stat -c %a f600 f644 f664 f666 f777', top), '600\n644\n664\n666\n777\n', 'a restore brings the modes back')
})
