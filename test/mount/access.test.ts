/** Who may do what: every relation with every operation, whatever the kernel has cached of others' looks. */
import fs from 'node:fs'
import t, { type Test } from 'tap'
import { type AccessMount, accessMountFor, type Name, Person, STRANGER, shAs, skip, uids, WALK } from './access.ts'
import { sh } from './guest.ts'

type Need = 'enter' | 'read' | 'write'

interface Row {
  name: string
  needs: Need
  /**
   * Python, with D the directory, OWN a workspace of the caller's, ME its uid; and what root gave it: IN, a descriptor
   * of D, and FD, an O_PATH one of D/f. It undoes what it does.
   */
  run: string
  /** what it fails with for who may: nothing crosses workspaces */
  crossing?: string
  /** other ways to refuse it than EACCES */
  refused?: string[]
}

// Where fs.protected_hardlinks is on, link(2) is refused with EPERM to who may not write. An owner without rights is none to the kernel.
const rows: Row[] = [
  { name: 'stat the directory', needs: 'enter', run: 'os.stat(D)' },
  { name: 'chdir', needs: 'enter', run: 'os.chdir(D)' },
  { name: 'access(X_OK) the directory', needs: 'enter', run: 'mayaccess(D, os.X_OK)' },
  { name: 'open(O_PATH) the directory', needs: 'enter', run: 'use(D, O_PATH | os.O_DIRECTORY)' },
  { name: 'a path through ..', needs: 'enter', run: "os.stat(D + '/../' + os.path.basename(D))" },
  { name: 'listxattr of the directory', needs: 'enter', run: 'os.listxattr(D)' },
  { name: 'fchdir to what root opened, then a name', needs: 'read', run: "os.fchdir(IN); os.stat('f')" },
  { name: 'stat', needs: 'read', run: "os.stat(D + '/f')" },
  { name: 'stat deeper', needs: 'read', run: "os.stat(D + '/s/g')" },
  { name: 'lstat a symlink', needs: 'read', run: "os.lstat(D + '/l')" },
  { name: 'readlink', needs: 'read', run: "same(os.readlink(D + '/l'), 'f')" },
  { name: 'follow a symlink', needs: 'read', run: "read(D + '/l')" },
  { name: 'open(O_PATH)', needs: 'read', run: "use(D + '/f', O_PATH)" },
  { name: 'access(F_OK)', needs: 'read', run: "mayaccess(D + '/f', os.F_OK)" },
  { name: 'access(R_OK)', needs: 'read', run: "mayaccess(D + '/f', os.R_OK)" },
  { name: 'access(X_OK)', needs: 'read', run: "mayaccess(D + '/p', os.X_OK)" },
  { name: 'access(R_OK) the directory', needs: 'read', run: 'mayaccess(D, os.R_OK)' },
  { name: 'listxattr', needs: 'read', run: "same('user.k' in os.listxattr(D + '/f'), True)" },
  { name: 'getxattr', needs: 'read', run: "same(os.getxattr(D + '/f', 'user.k'), b'value')" },
  { name: 'getxattr of the ACL', needs: 'read', run: "os.getxattr(D + '/f', 'system.posix_acl_access')" },
  { name: 'read', needs: 'read', run: "same(read(D + '/t'), b'text\\n')" },
  { name: 'mmap', needs: 'read', run: "use(D + '/t', os.O_RDONLY, lambda fd: mmap.mmap(fd, 5, prot=mmap.PROT_READ)[:5])" },
  { name: 'exec', needs: 'read', run: "execute(D + '/p')" },
  { name: 'list', needs: 'read', run: "same('f' in os.listdir(D), True)" },
  { name: 'opendir', needs: 'read', run: 'use(D, os.O_RDONLY | os.O_DIRECTORY)' },
  { name: 'list deeper', needs: 'read', run: "same(os.listdir(D + '/s'), ['g'])" },
  { name: 'a file through ..', needs: 'read', run: "read(D + '/s/../t')" },
  { name: 'open again by /proc/self/fd', needs: 'read', run: "use(D + '/t', O_PATH, lambda fd: read('/proc/self/fd/%d' % fd))" },
  { name: "root's O_PATH opened by /proc/self/fd", needs: 'read', run: "read('/proc/self/fd/%d' % FD)" },
  { name: "a name in root's open directory", needs: 'read', run: "read('t', dir_fd=IN)" },
  { name: 'list where root left it', needs: 'read', run: "os.fchdir(IN); os.listdir('.')" },
  { name: 'copy_file_range out', needs: 'read', run: "same(copy_range(D + '/t', OWN + '/to'), 5)" },
  { name: 'access(W_OK)', needs: 'write', run: "mayaccess(D + '/f', os.W_OK)" },
  { name: 'access(W_OK) the directory', needs: 'write', run: 'mayaccess(D, os.W_OK)' },
  { name: 'open for writing', needs: 'write', run: "use(D + '/f', os.O_WRONLY)" },
  { name: 'open for both', needs: 'write', run: "use(D + '/f', os.O_RDWR)" },
  { name: 'write', needs: 'write', run: "write(D + '/f')" },
  { name: 'append', needs: 'write', run: "write(D + '/f', b'x', os.O_WRONLY | os.O_APPEND)" },
  { name: 'truncate', needs: 'write', run: "os.truncate(D + '/f', 3)" },
  { name: 'open with O_TRUNC', needs: 'write', run: "use(D + '/f', os.O_WRONLY | os.O_TRUNC)" },
  { name: 'fallocate', needs: 'write', run: "use(D + '/f', os.O_RDWR, lambda fd: os.posix_fallocate(fd, 0, 100))" },
  { name: 'copy_file_range in', needs: 'write', run: "same(copy_range(OWN + '/to', D + '/f'), 5)" },
  { name: 'utimes', needs: 'write', run: "os.utime(D + '/f')" },
  { name: 'utimes of what is mine', needs: 'write', run: "os.utime(D + '/mine-%d' % ME, (5, 5))", refused: ['EPERM'] },
  { name: 'chmod of what is mine', needs: 'write', run: "os.chmod(D + '/mine-%d' % ME, 0o666)", refused: ['EPERM'] },
  { name: 'chown of what is mine', needs: 'write', run: "os.chown(D + '/mine-%d' % ME, -1, ME)", refused: ['EPERM'] },
  { name: 'setxattr', needs: 'write', run: "os.setxattr(D + '/f', 'user.k', b'value')" },
  { name: 'removexattr', needs: 'write', run: "os.setxattr(D + '/f', 'user.q', b''); os.removexattr(D + '/f', 'user.q')" },
  {
    name: 'setting the ACL of what is mine',
    needs: 'write',
    run: "x = D + '/mine-%d' % ME; a = 'system.posix_acl_access'; os.setxattr(x, a, os.getxattr(x, a))",
    refused: ['EPERM'],
  },
  { name: 'create', needs: 'write', run: "n = D + '/new-%d' % ME; make(n); os.unlink(n)" },
  { name: "create in root's open directory", needs: 'write', run: "use('x', os.O_CREAT, dir_fd=IN); os.unlink('x', dir_fd=IN)" },
  { name: 'unlink', needs: 'write', run: "n = D + '/gone-%d' % ME; os.unlink(n); make(n)" },
  { name: 'mkdir', needs: 'write', run: "n = D + '/newdir-%d' % ME; os.mkdir(n); os.rmdir(n)" },
  { name: 'rmdir', needs: 'write', run: "n = D + '/gonedir-%d' % ME; os.rmdir(n); os.mkdir(n)" },
  { name: 'symlink', needs: 'write', run: "n = D + '/newlink-%d' % ME; os.symlink('f', n); os.unlink(n)" },
  { name: 'mkfifo', needs: 'write', run: "n = D + '/newfifo-%d' % ME; os.mkfifo(n); os.unlink(n)" },
  { name: 'O_TMPFILE', needs: 'write', run: "use(D, os.O_TMPFILE | os.O_RDWR, lambda fd: os.write(fd, b'x'))" },
  {
    name: 'link, and what is left when the new name goes',
    needs: 'write',
    run: "n = D + '/hard-%d' % ME; make(n); os.link(n, n + 'x'); os.unlink(n + 'x'); os.stat(n); os.unlink(n)",
  },
  { name: 'rename', needs: 'write', run: "n = D + '/gone-%d' % ME; os.rename(n, n + 'x'); os.rename(n + 'x', n)" },
  { name: 'rename over', needs: 'write', run: "n = D + '/gone-%d' % ME; make(n + 'y'); os.rename(n + 'y', n)" },
  { name: 'exchange', needs: 'write', run: "exchange(D + '/f', D + '/e'); exchange(D + '/f', D + '/e')" },
  { name: 'rename in', needs: 'write', run: "os.rename(OWN + '/to', D + '/in-%d' % ME)", crossing: 'EXDEV', refused: ['EXDEV'] },
  { name: 'rename out', needs: 'write', run: "os.rename(D + '/f', OWN + '/out')", crossing: 'EXDEV', refused: ['EXDEV'] },
  { name: 'link out', needs: 'write', run: "os.link(D + '/f', OWN + '/out')", crossing: 'EXDEV', refused: ['EPERM', 'EXDEV'] },
  { name: 'link in', needs: 'write', run: "os.link(OWN + '/to', D + '/in-%d' % ME)", crossing: 'EXDEV', refused: ['EXDEV'] },
]

/** Of the tenant itself: D is its root. */
const rootRows: Row[] = [
  { name: 'stat the tenant', needs: 'enter', run: 'os.stat(D)' },
  { name: 'chdir to the tenant', needs: 'enter', run: 'os.chdir(D)' },
  { name: 'list the tenant', needs: 'read', run: 'os.listdir(D)' },
  { name: 'stat .snapshots', needs: 'read', run: "os.stat(D + '/.snapshots')" },
  { name: 'list .snapshots', needs: 'read', run: "same('full' in os.listdir(D + '/.snapshots'), True)" },
  { name: 'stat a snapshot', needs: 'read', run: "os.stat(D + '/.snapshots/full')" },
  { name: 'list a snapshot', needs: 'read', run: "os.listdir(D + '/.snapshots/full/data')" },
  { name: 'read in a snapshot', needs: 'read', run: "read(D + '/.snapshots/full/data/t')" },
  { name: 'read in a snapshot, elsewhere', needs: 'read', run: "read(D + '/.snapshots/full/way/t')" },
  { name: 'exec in a snapshot', needs: 'read', run: "execute(D + '/.snapshots/full/data/p')" },
  { name: 'mkdir in the tenant', needs: 'write', run: "n = D + '/n-%d' % ME; os.mkdir(n); os.rmdir(n)" },
]

/** What a relation gives in each place, as the first letters of what a row needs. */
const relations = {
  own: { root: 'erw', data: 'erw', way: 'erw' },
  // Granted on data, where one gets through the tenant.
  editor: { root: 'e', data: 'erw', way: '' },
  viewer: { root: 'e', data: 'er', way: '' },
  'viewer by a group, inherited': { root: 'er', data: 'er', way: 'er' },
  // Granted on way/deep/er.
  'deep elsewhere': { root: 'e', data: '', way: 'e' },
  none: { root: '', data: '', way: '' },
  revoked: { root: '', data: '', way: '' },
} as const
type Relation = keyof typeof relations
type Place = keyof (typeof relations)[Relation]
const places: Place[] = ['root', 'data', 'way']

type Who = Name | 'stranger'
const everybody: [Who, number][] = [...(Object.entries(uids) as [Name, number][]), ['stranger', STRANGER]]

const FILL = `
  for d in data way; do (
    cd $d; mkdir s; echo text > t; echo f > f; echo e > e; echo g > s/g; ln -s f l; cp /bin/true p
    setfattr -n user.k -v value f; chmod 666 f e t s/g; chmod 755 p; chmod 777 s
    for u in ${everybody.map(([, uid]) => uid).join(' ')}; do
      echo m > mine-$u; chown $u:$u mine-$u; chmod 666 mine-$u; echo g > gone-$u; chmod 666 gone-$u; mkdir -m 777 gonedir-$u
    done
  ); done
  mkdir -p -m 777 way/deep/er; chmod 777 way/deep; echo deepest > way/deep/er/file; chown -R --from=0 1001:1001 data way
`

function expected(row: Row, given: string): string[] {
  if (given.includes(row.needs[0] as string)) return [row.crossing ?? 'ok']
  return ['EACCES', ...(row.refused ?? [])]
}

/** Runs every row as everybody; the number of rows that were run. */
async function matrix(
  t: Test,
  { mount }: AccessMount,
  people: Map<Who, Person>,
  has: Record<Who, Relation>,
  phase: string,
): Promise<number> {
  let count = 0
  for (const [who, uid] of everybody) {
    const person = people.get(who) as Person
    for (const place of places) {
      const directory = mount.at('tenants/acme', place === 'root' ? '' : place)
      const table = place === 'root' ? rootRows : rows
      await person.run(`IN = FD = -1`)
      if (place !== 'root') {
        // Opened anew each time, so that the first of all looks at what nobody has seen yet is one of these rows.
        const cold = table.filter((row) => !/\b(IN|FD)\b/.test(row.run))
        count += await checked(
          t,
          person,
          cold,
          { D: directory, OWN: mount.at(`workspace/own-${uid}`), ME: uid },
          has[who],
          place,
          phase,
        )
        await person.run(`IN = as_root(lambda: os.open(${JSON.stringify(directory)}, os.O_RDONLY))`)
        await person.run(`FD = as_root(lambda: os.open(${JSON.stringify(`${directory}/t`)}, O_PATH))`)
      }
      const rest = place === 'root' ? table : table.filter((row) => /\b(IN|FD)\b/.test(row.run))
      count += await checked(
        t,
        person,
        rest,
        { D: directory, OWN: mount.at(`workspace/own-${uid}`), ME: uid },
        has[who],
        place,
        phase,
      )
      await person.run("os.chdir('/'); [os.close(fd) for fd in (IN, FD) if fd >= 0]")
    }
  }
  return count
}

async function checked(
  t: Test,
  person: Person,
  table: Row[],
  names: Record<string, string | number>,
  relation: Relation,
  place: Place,
  phase: string,
): Promise<number> {
  const results = await person.attempt(
    table.map((row) => row.run),
    names,
  )
  table.forEach((row, i) => {
    const wanted = expected(row, relations[relation][place])
    const what = `${phase}: ${relation} (${person.uid}), ${place}: ${row.name}`
    t.ok(wanted.includes(results[i] ?? ''), what, { result: results[i], wanted })
  })
  return results.length
}

t.test('every relation, every operation', { skip }, async (t) => {
  const access = await accessMountFor(t)
  const { mount, service } = access
  sh(FILL, mount.at('tenants/acme'))
  await service.snapshotCreate('/tenants/acme', { name: 'full' })
  await service.groupAdd('eng', 'user:frank')
  await service.grant('user:bob', 'editor', '/tenants/acme/data', {})
  await service.grant('user:carol', 'viewer', '/tenants/acme/data', {})
  await service.grant('group:eng#member', 'viewer', '/tenants/acme', {})
  await service.grant('user:gina', 'viewer', '/tenants/acme/way/deep/er', {})
  await service.grant('user:rick', 'editor', '/tenants/acme/data', {})
  for (const [, uid] of everybody) shAs(uid, `mkdir own-${uid}; echo mine > own-${uid}/to`, mount.at('workspace'))
  // A new daemon, a new mount: the kernel knows nothing.
  t.equal(await mount.stop(), 0)
  await mount.start()

  const people = new Map<Who, Person>()
  for (const [who, uid] of everybody) people.set(who, await Person.start(t, uid))
  t.teardown(() => {
    for (const person of people.values()) person.end()
  })
  const has: Record<Who, Relation> = {
    alice: 'own',
    bob: 'editor',
    carol: 'viewer',
    frank: 'viewer by a group, inherited',
    gina: 'deep elsewhere',
    eve: 'none',
    rick: 'editor',
    stranger: 'none',
  }
  const each = everybody.length * (rootRows.length + 2 * rows.length)
  t.ok(rows.length > 50, 'a table of operations')
  t.equal(await matrix(t, access, people, has, 'cold'), each, 'all rows were run')

  mount.ctl('revoke', 'rick', 'editor', '/tenants/acme/data')
  sh(WALK, mount.at('tenants/acme'))
  shAs(uids.alice, WALK, mount.at('tenants/acme'))
  t.equal(await matrix(t, access, people, { ...has, rick: 'revoked' }, 'warm'), each, 'all rows were run')

  mount.ctl('revoke', 'bob', 'editor', '/tenants/acme/data')
  mount.ctl('grant', 'eve', 'editor', '/tenants/acme/data')
  const swapped: Record<Who, Relation> = { ...has, rick: 'revoked', bob: 'revoked', eve: 'editor' }
  t.equal(await matrix(t, access, people, swapped, 'swapped'), each, 'all rows were run')

  const lists: Record<Who, string[]> = { ...fill(['acme']), rick: [], bob: [], stranger: [] }
  for (const [who, uid] of everybody) {
    const person = people.get(who) as Person
    t.same(await person.run(`os.listdir(${JSON.stringify(mount.at('tenants'))})`), lists[who], `${who} lists /tenants`)
    t.same(await person.run(`os.listdir(${JSON.stringify(mount.at('workspace'))})`), [`own-${uid}`], `${who} lists /workspace`)
  }
  t.equal(fs.readdirSync(mount.at('workspace')).length, everybody.length, 'root sees all')
})

function fill(value: string[]): Record<Who, string[]> {
  return Object.fromEntries(everybody.map(([who]) => [who, value])) as Record<Who, string[]>
}
