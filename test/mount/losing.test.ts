/**
 * Every way to lose a right, and every system call that it is lost for: with what was opened, entered and mapped before, warm
 * and cold. The call after the one that takes the right away is refused.
 */
import fs from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type AccessMount, accessMountFor, Person, skip } from './access.ts'
import { Guest, scriptOf, sh } from './guest.ts'

t.setTimeout(900_000)

/** What a process has open, mapped, watched and handed on from before, and what the rows below are made of. */
const SETTLE = fs.readFileSync(scriptOf('losing.py'), 'utf8')

interface Row {
  code: string
  /** what it may answer while the right is there */
  before: readonly string[]
  /** what it may answer at once when the right is lost */
  after: readonly string[]
  /** the same when root has read all of it since: the kernel has names, attributes, pages and listings in its caches again */
  cached: readonly string[]
}

const REFUSED = ['EACCES']
const ANY = ['ok', 'EACCES']
/** A page that cannot be had: SIGBUS, or EFAULT of a system call. */
const NO_PAGE = ['EFAULT']
/** The kernel asks whose file it is before it asks the daemon. */
const NOT_OWNER = ['EPERM', 'EACCES']

function row(code: string, { before = ['ok'], after = REFUSED, cached = after }: Partial<Omit<Row, 'code'>> = {}): Row {
  return { code, before, after, cached }
}

/** Refused, and refused again when others have filled the kernel's caches. */
const BY_NAME = [
  "use(D + '/f', os.O_RDONLY)",
  "use(D + '/g', os.O_RDWR)",
  "use(D + '/g', os.O_WRONLY | os.O_TRUNC)",
  "os.stat(D + '/f')",
  'os.listdir(D)',
  'list(os.scandir(D))',
  "os.readlink(D + '/l')",
  "mayaccess(D + '/f', os.R_OK)",
  "os.getxattr(D + '/f', 'user.k')",
  "os.listxattr(D + '/f')",
  "xattr_by_path(D + '/f')",
  'os.chdir(D)',
  'os.statvfs(D)',
  "statx_birth(AT_FDCWD, os.fsencode(D + '/f'))",
  "use(D + '/new', os.O_CREAT | os.O_WRONLY); os.unlink(D + '/new')",
  "os.mkdir(D + '/made'); os.rmdir(D + '/made')",
  "os.symlink('f', D + '/made'); os.unlink(D + '/made')",
  "os.mkfifo(D + '/made'); os.unlink(D + '/made')",
  "os.link(D + '/r', D + '/made'); os.unlink(D + '/made')",
  "tmpfile(D, D + '/made')",
  "os.rename(D + '/r', D + '/r2'); os.rename(D + '/r2', D + '/r')",
  "exchange(D + '/r', D + '/f'); exchange(D + '/r', D + '/f')",
  "os.truncate(D + '/g', 8192)",
  "os.utime(D + '/g')",
  "execute_open(AT_FDCWD, os.fsencode(D + '/x'))",
  "handle_of(AT_FDCWD, os.fsencode(D + '/f'))",
  "call('inotify_add_watch', spare, os.fsencode(D), 0x100)",
  'mark(fanotify, D)',
  // From the working directory, and from descriptors of directories.
  "use('f', os.O_RDONLY)",
  "os.stat('f')",
  "os.stat('s/../f')",
  "os.stat('..')",
  "os.listdir('.')",
  "use('f', os.O_RDONLY, dir_fd=dir)",
  "os.stat('f', dir_fd=dirpath)",
  "use('new', os.O_CREAT | os.O_WRONLY, dir_fd=dirpath); os.unlink('new', dir_fd=dirpath)",
  "os.mkdir('made', dir_fd=dir); os.rmdir('made', dir_fd=dir)",
  "os.rename('r', 'r2', src_dir_fd=dir, dst_dir_fd=dirpath); os.rename('r2', 'r', src_dir_fd=dir, dst_dir_fd=dir)",
  "open_how('f', os.O_RDONLY, 0x08, dir)", // RESOLVE_BENEATH
  "open_how('/f', os.O_RDONLY, 0x10, dirpath)", // RESOLVE_IN_ROOT
  "open_how('f', os.O_RDWR, 0x01 | 0x02 | 0x04, dirpath)", // RESOLVE_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS
  'os.fchdir(dir)',
  'os.fchdir(dirpath)',
  // From what is open, as a name.
  "use('/proc/self/fd/%d' % path, os.O_RDONLY)",
  "use('/proc/self/fd/%d' % ro, os.O_RDONLY)",
  "use('/proc/self/fd/%d' % rw, os.O_RDWR)",
  "use('/proc/self/fd/%d' % rw, os.O_WRONLY | os.O_TRUNC)",
  "use('/proc/self/fd/%d' % unlinked, os.O_RDWR)",
  "use('/proc/self/fd/%d' % nameless, os.O_RDWR)",
  "os.listdir('/proc/self/fd/%d' % dirpath)",
  "os.stat('/proc/self/fd/%d/f' % dirpath)",
  "use('/proc/self/cwd/f', os.O_RDONLY)",
  'execute_open(exe)',
  'execute_open(exepath)',
  // The same by io_uring: at once, by its workers (IOSQE_ASYNC), and by the kernel's polling thread.
  "ring.open(D + '/f', os.O_RDONLY)",
  "ring.open(D + '/g', os.O_RDWR, how=16)",
  "ring.open('f', os.O_RDONLY, dir)",
  "ring.open('f', os.O_RDONLY, dirpath, how=16)",
  "ring.open('f', os.O_RDONLY)",
  "ring.open_how(D + '/f', os.O_RDONLY)",
  "ring.stat(D + '/f')",
  "ring.stat('f', dirpath, how=16)",
  "ring.mkdir(D + '/made'); ring.unlink(D + '/made', 0x200)",
  "ring.open(D + '/new', os.O_CREAT | os.O_WRONLY); ring.unlink(D + '/new')",
  "ring.rename(D + '/r', D + '/r2'); ring.rename(D + '/r2', D + '/r')",
  "ring.link(D + '/r', D + '/made'); ring.unlink(D + '/made')",
  "ring.symlink('f', D + '/made'); ring.unlink(D + '/made')",
  "polled.open(D + '/f', os.O_RDONLY)",
  "polled.open('f', os.O_RDWR, dir, how=16)",
  "polled.stat(D + '/f')",
  // Other processes: a child, another user, a namespace of the user's own, one with uids of newuidmap(1).
  'child("use(\'f\', os.O_RDONLY)")',
  'child("os.listdir(\'.\')")',
  "program('cat', 'f')",
  "program('cat', 'f', cwd='/proc/self/fd/%d' % dirpath, pass_fds=[dirpath])",
  'namespaced("use(\'f\', os.O_RDONLY)")',
  'namespaced("use(\'g\', os.O_RDWR)")',
  'namespaced("os.listdir(\'.\')")',
  'namespaced("use(\'f\', os.O_RDONLY, dir_fd=bound)")',
  'namespaced("os.stat(\'/mnt/bound/f\')")',
  'namespaced("use(\'/mnt/over/f\', os.O_RDONLY)")',
  'namespaced("os.listdir(\'/mnt/over\')")',
  'namespaced("use(\'/proc/self/fd/%d\' % path, os.O_RDONLY)")',
  'mapped("use(\'f\', os.O_RDONLY)")',
  'mapped("use(\'g\', os.O_RDWR)")',
].map((code) => row(code))

/** Refused when the kernel has to ask; what others have had it read since, it gives whoever has the file open. */
const BY_DESCRIPTOR = [
  'os.pread(ro, 10, 0)',
  'os.preadv(ro, [bytearray(10)], 0)',
  'os.sendfile(memory, ro, 0, 100)',
  'os.sendfile(kept, ro, 0, 100)',
  'os.splice(ro, pipe[1], 100, offset_src=0); os.read(pipe[0], 100)',
  'os.listdir(dir)',
  "os.getxattr(sub, 'system.posix_acl_default')",
  "os.readlink('', dir_fd=linkpath)",
  'ring.read(ro)',
  'ring.read(ro, 16)',
  "ring.do('readv', ro, 0, struct.pack('<QQ', ring.at, 10), 1)",
  'ring.read(0, 1)', // IOSQE_FIXED_FILE: the registered one
  "ring.read(0, 1, 'read_fixed')",
  "ring.read(ro, 16, 'read_fixed')",
  'ring.splice(ro, pipe)',
  'fd = ring.install(0); use("/dev/null", os.O_RDONLY, lambda _: os.pread(fd, 10, 0))',
  'polled.read(ro)',
  "polled.read(0, 1, 'read_fixed')",
  'aio.read(ro)',
  'threaded(lambda: os.pread(ro, 10, 0))',
  'os.pread(unlinked, 10, 0)',
  'os.pread(nameless, 10, 0)',
  "child('os.pread(ro, 10, 0)')",
  "namespaced('os.pread(ro, 10, 0)')",
  "namespaced('os.pread(overlaid, 10, 0)')",
  'namespaced("os.listdir(bound)")',
  "mapped('os.pread(ro, 10, 0)')",
].map((code) => row(code, { cached: ANY }))

/** Refused always: the kernel asks each time. */
const ASKED_ALWAYS = [
  "os.pwrite(rw, b'y', 0)",
  "os.write(appending, b'y'); os.ftruncate(rw, 8192)",
  "os.write(made, b'y')",
  "os.pwrite(unlinked, b'y', 0)",
  "os.pwrite(nameless, b'y', 0)",
  'os.ftruncate(rw, 8192)',
  'os.posix_fallocate(rw, 0, 8192)',
  'os.utime(rw)',
  "os.getxattr(ro, 'user.k')",
  'os.listxattr(ro)',
  "os.setxattr(ro, 'user.n', b'n'); os.removexattr(ro, 'user.n')",
  'os.fstatvfs(ro)',
  'os.fstatvfs(dirpath)',
  'os.lseek(ro, 0, os.SEEK_DATA)',
  'os.copy_file_range(ro, rw, 100, 0, 0)',
  'os.copy_file_range(kept, rw, 100, 0, 0)',
  'os.sendfile(rw, kept, 0, 100)',
  'splice_in(rw)',
  'ring.write(rw)',
  'ring.write(rw, 16)',
  'ring.write(1, 1)',
  "ring.write(1, 1, 'write_fixed')",
  "ring.do('fallocate', rw, 0, 8192)",
  "ring.do('ftruncate', rw, 8192)",
  "ring.do('getxattr', addr=b'user.k', off=ring.at, length=100, addr3=os.fsencode(D + '/f'))",
  "ring.do('fgetxattr', ro, ring.at, b'user.k', 100)",
  "ring.do('fsetxattr', ro, b'v', b'user.k', 1)",
  'polled.write(rw)',
  "polled.write(1, 1, 'write_fixed')",
  'aio.write(rw)',
  "threaded(lambda: os.pwrite(rw, b'y', 0))",
  'child(\'os.pwrite(rw, b"y", 0)\')',
  'namespaced(\'os.pwrite(rw, b"y", 0)\')',
  'mapped(\'os.pwrite(rw, b"y", 0)\')',
].map((code) => row(code))

const MAPPINGS = [
  'peek(mmap.mmap(ro, 8192, mmap.MAP_SHARED, mmap.PROT_READ))',
  'peek(mmap.mmap(ro, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ))',
  'peek(mapping)',
  'peek(private)',
  'peek(mapping, 0)',
  'populate(private)',
  'moved(private)',
  'by_kernel(private)',
  'vmspliced(private)',
  "child('peek(mapping)')",
].map((code) => row(code, { after: NO_PAGE, cached: ['ok', 'EFAULT'] }))

const SPECIAL = [
  row('store(writable)', { after: NO_PAGE, cached: ['EACCES', 'EIO', 'EFAULT'] }),
  row('store(mmap.mmap(rw, 8192))', { after: NO_PAGE, cached: ['EACCES', 'EIO', 'EFAULT'] }),
  row('os.copy_file_range(ro, kept, 100, 0, 0)', { cached: ANY }),
  row("open_how('f', os.O_RDONLY, 0x20, dir)", { before: ['ok', 'EAGAIN'], after: ['EACCES', 'EAGAIN'] }), // RESOLVE_CACHED
  // The owner of a file.
  row('os.fchmod(mine, 0o666)', { after: NOT_OWNER }),
  row("os.chmod('made-by-me', 0o666)"),
  row('os.fchown(mine, -1, os.getegid())', { after: NOT_OWNER }),
  row('os.utime(mine, (1, 1))', { after: NOT_OWNER }),
  row("os.setxattr(mine, 'user.n', b'n')"),
  row("namespaced('os.fchmod(mine, 0o666)')", { after: NOT_OWNER }),
  row("namespaced('os.fchown(mine, 0, 0)')", { after: NOT_OWNER }),
  // To where the right stays.
  row("os.rename(D + '/r', KEPT + '/r'); os.rename(KEPT + '/r', D + '/r')", { before: ['ok', 'EXDEV'], after: ['EACCES'] }),
  row("os.link(D + '/f', KEPT + '/made'); os.unlink(KEPT + '/made')", { before: ['ok', 'EXDEV'] }),
  row("link_open(mine, KEPT + '/made')", { before: ['ok', 'EXDEV'], after: ['EACCES', 'EPERM', 'EXDEV'] }),
  row("link_open(path, KEPT + '/made')", { before: ['ok', 'EXDEV'], after: ['EACCES', 'EPERM', 'EXDEV'] }),
  row("link_open(nameless, KEPT + '/made')", {
    before: ['ok', 'EXDEV', 'ENOENT'],
    after: ['EACCES', 'EPERM', 'EXDEV', 'ENOENT'],
  }),
  // Another user has a descriptor, and no right but what `user:*` gives: what is cached is what it gives.
  ...['sent', 'taken'].flatMap((fd) => [
    row(`stranger('os.pread(${fd}, 10, 0)')`, { before: ANY, cached: ANY }),
    row(`stranger('os.pwrite(${fd}_rw, b"y", 0)')`, { before: ANY }),
    row(`stranger('os.copy_file_range(${fd}, ${fd}_rw, 100, 0, 0)')`, { before: ANY }),
    row(`stranger("use('/proc/self/fd/%d' % ${fd}, os.O_RDONLY)")`, { before: ANY }),
  ]),
  row('stranger("use(\'f\', os.O_RDONLY)")', { before: ANY }),
  // By handle, which a user may do in mount and user namespaces of their own, for directories.
  row('open_handle(dir, handle_of(ro), os.O_RDONLY)', { before: ['EPERM'], after: ['EPERM'] }),
  row("namespaced('open_handle(bound, handle, os.O_RDONLY | os.O_DIRECTORY)')", {
    before: ['ok', 'EPERM', 'ESTALE'],
    after: ['EACCES', 'EPERM', 'ESTALE'],
  }),
  // What no file of the mount has.
  row('ioctl(ro, 0x80086601)', { before: ['ENOTTY'], after: ['ENOTTY'] }), // FS_IOC_GETFLAGS
  row('ioctl(ro, 0x801c581f)', { before: ['ENOTTY'], after: ['ENOTTY'] }), // FS_IOC_FSGETXATTR
  row('fiemap(ro)', { before: ['ENOTSUP'], after: ['ENOTSUP'] }),
  row('fcntl.ioctl(kept, 0x40049409, ro)', { before: ['ENOTSUP', 'EXDEV'], after: ['ENOTSUP', 'EXDEV'] }), // FICLONE
  row('os.preadv(ro, [bytearray(10)], 0, os.RWF_NOWAIT)', {
    before: ['ok', 'ENOTSUP', 'EAGAIN'],
    after: ['EACCES', 'ENOTSUP', 'EAGAIN'],
    cached: ['ok', 'EACCES', 'ENOTSUP', 'EAGAIN'],
  }),
]

/** What cannot be taken back: SECURITY.md names each of these. A row that is refused one day is to be taken out there too. */
const KEPT = [
  row('os.fstat(ro)', { after: ANY }),
  row('statx_birth(ro)', { after: ANY }),
  row("os.getxattr(ro, 'system.posix_acl_access')", { after: ['ok'] }),
  row('os.lseek(ro, 0, os.SEEK_END)', { after: ANY }),
  row('ioctl(ro, 0x541b)', { after: ['ok'] }), // FIONREAD
  row('handle_of(ro)', { after: ['ok'] }),
  row('os.getcwd()', { after: ['ok', 'ENOENT'] }),
  row("os.readlink('/proc/self/fd/%d' % ro)", { after: ['ok'] }),
  row('locks(ro)', { after: ['ok'] }),
  row('lease(shared, fcntl.F_RDLCK)', { after: ANY }),
  row('os.fsync(ro)', { after: ['ok'] }),
  row('same(copied[4096], 120)', { after: ['ok'] }),
  row('tee_again()', { after: ['ok'] }),
]

const ROWS: readonly Row[] = [...BY_NAME, ...BY_DESCRIPTOR, ...ASKED_ALWAYS, ...MAPPINGS, ...SPECIAL, ...KEPT]

const FILL = `
  mkdir -m 777 s; head -c 8192 /dev/zero | tr '\\0' x > f; cp f g; cp f h; ln -s f l; echo r > r; cp "$(type -P true)" x
  chmod 666 f g h r; chmod 777 . x; chown 1001:1001 . s f g h r x; setfattr -n user.k -v v f; setfacl -d -m u::rwx,g::rwx,o::rwx s
`

interface Scene extends AccessMount {
  /** the subject that is to lose it, and its uid */
  who: string
  uid: number
  /** a tenant of alice's for this row alone, as nexusctl has it: /tenants/NAME, with the directory d */
  top: string
  name: string
}

interface Way {
  name: string
  give(scene: Scene): Promise<unknown>
  take(scene: Scene): Promise<unknown>
  /** where the directory is by then, when not at d */
  at?: string
  /** refused in another way than EACCES: what the way takes is not there any more */
  isGone?: true
  /** what was opened before goes on, as after an unlink: nobody lost a right, and the inode has no name */
  isUnlinked?: true
  /** a system call that cannot wait for what the kernel drops: then soon */
  isSoon?: true
  /** for those that come after */
  after?(scene: Scene): Promise<unknown>
}

const dirOf = ({ top }: Scene): string => `${top}/d`
const partnerOf = ({ name }: Scene): string => `p-${name}`

async function partner(scene: Scene): Promise<void> {
  await scene.service.tenantOnboard(partnerOf(scene), { admin: 'user:alice' })
  await scene.service.grant(scene.who, 'viewer', `/tenants/${partnerOf(scene)}`, {})
  await scene.service.grant(`tenant:${partnerOf(scene)}#member`, 'editor', scene.top, {})
}

const ways: Way[] = [
  {
    name: 'revoke on the directory',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: (s) => s.service.revoke(s.who, 'editor', dirOf(s)),
  },
  {
    name: 'revoke above',
    give: (s) => s.service.grant(s.who, 'editor', s.top, {}),
    take: (s) => s.service.revoke(s.who, 'editor', s.top),
  },
  {
    name: 'expiry',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: async (s) => {
      const expires = new Date(Date.now() + 200).toISOString()
      await s.service.grant(s.who, 'editor', dirOf(s), { expires })
      await delay(250)
    },
    isSoon: true,
  },
  {
    name: 'group remove',
    give: async (s) => {
      await s.service.groupAdd(s.name, s.who)
      await s.service.grant(`group:${s.name}#member`, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.groupRemove(s.name, s.who),
  },
  {
    name: 'a group in a group in a group, the innermost',
    give: async (s) => {
      await s.service.groupAdd(`${s.name}-c`, s.who)
      await s.service.groupAdd(`${s.name}-b`, `group:${s.name}-c#member`)
      await s.service.groupAdd(`${s.name}-a`, `group:${s.name}-b#member`)
      await s.service.grant(`group:${s.name}-a#member`, 'editor', s.top, {})
    },
    take: (s) => s.service.groupRemove(`${s.name}-c`, s.who),
  },
  {
    name: 'a tenant’s member no more',
    give: partner,
    take: (s) => s.service.revoke(s.who, 'viewer', `/tenants/${partnerOf(s)}`),
  },
  {
    name: 'a member of a tenant that is a member of a tenant',
    give: async (s) => {
      await s.service.tenantOnboard(`m-${s.name}`, { admin: 'user:alice' })
      await partner({ ...s, top: `/tenants/m-${s.name}` })
      await s.service.grant(`tenant:m-${s.name}#member`, 'editor', s.top, {})
    },
    take: (s) => s.service.revoke(s.who, 'viewer', `/tenants/${partnerOf(s)}`),
  },
  { name: 'the tenant is deleted', give: partner, take: (s) => s.service.workspaceDelete(`/tenants/${partnerOf(s)}`) },
  {
    name: 'the tenant is moved, and is none any more',
    give: partner,
    take: (s) => s.service.workspaceRename(`/tenants/${partnerOf(s)}`, `/workspace/${partnerOf(s)}`),
  },
  {
    name: 'the tenant’s grant is revoked',
    give: partner,
    take: (s) => s.service.revoke(`tenant:${partnerOf(s)}#member`, 'editor', s.top),
  },
  {
    name: 'identity remove',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: (s) => s.service.identityRemove(s.who, {}),
  },
  {
    name: 'identity add',
    give: async (s) => {
      await s.service.identityRemove(s.who, {})
      await s.service.grant(`user:uid-${s.uid}`, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.identityAdd('user:somebody-else', s.uid),
  },
  {
    name: 'everybody’s grant is revoked',
    give: (s) => s.service.grant('user:*', 'editor', s.top, {}),
    take: (s) => s.service.revoke('user:*', 'editor', s.top),
  },
  {
    name: 'model apply',
    give: (s) => s.service.grant(s.who, 'editor', dirOf(s), {}),
    take: async ({ service }) => {
      const { text } = await service.modelShow()
      await service.modelApply(text.replaceAll(/define (read|write): \w+/g, 'define $1: owner'))
    },
    after: async ({ service }) => {
      const { text } = await service.modelShow()
      await service.modelApply(
        text.replaceAll('define read: owner', 'define read: viewer').replaceAll('define write: owner', 'define write: editor'),
      )
    },
  },
  {
    name: 'workspace delete',
    give: (s) => s.service.grant(s.who, 'editor', s.top, {}),
    take: (s) => s.service.workspaceDelete(s.top),
    isGone: true,
  },
  {
    name: 'a rename out of the directory that was given',
    at: 'given/d',
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      sh('mkdir -m 777 given; mv d given/d', W)
      await s.service.grant(s.who, 'editor', `${s.top}/given`, {})
    },
    take: async (s) => sh('mkdir -m 777 other; mv given/d other/d', s.mount.at('tenants', s.name)),
    isGone: true,
    isSoon: true,
  },
  {
    name: 'a restore that removes the directory',
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      sh('mv d elsewhere', W)
      await s.service.snapshotCreate(s.top, { name: 'without' })
      sh('cp -a elsewhere d', W)
      await s.service.grant(s.who, 'editor', dirOf(s), {})
    },
    take: (s) => s.service.restore(s.top, 'without', { force: true }),
    isGone: true,
    isUnlinked: true,
  },
  {
    name: 'a restore that moves the directory out of what was given',
    at: 'given/d',
    isGone: true,
    give: async (s) => {
      const W = s.mount.at('tenants', s.name)
      await s.service.snapshotCreate(s.top, { name: 'outside' })
      sh('mkdir -m 777 given; mv d given/d', W)
      await s.service.grant(s.who, 'editor', `${s.top}/given`, {})
    },
    take: (s) => s.service.restore(s.top, 'outside', { force: true }),
  },
]

const SOON_MS = 20_000
const ROWS_AT_A_TIME = 50

/** Root fills the kernel's caches with all that there is. */
const READ_ALL =
  'cat f g l x > /dev/null; ls -la . > /dev/null; ls -l s > /dev/null; getfacl . f g > /dev/null; stat f g > /dev/null'

interface Seen {
  row: Row
  answer: string
}

t.test('the call after', { skip }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  for (const [i, way] of ways.entries()) {
    for (const phase of ['warm', 'cold']) {
      const name = `t${i}${phase}`
      const uid = 3000 + 2 * i + (phase === 'warm' ? 0 : 1)
      const scene: Scene = { mount, service, uid, who: `user:${name}`, name, top: `/tenants/${name}` }
      await t.test(`${way.name}, ${phase}`, async (t) => {
        await service.identityAdd(scene.who, uid)
        await service.tenantOnboard(name, { admin: 'user:alice', directories: ['d'] })
        sh(FILL, mount.at('tenants', name, 'd'))
        // Where the right stays: another tenant, or the same workspace.
        const staying = phase === 'warm' ? ['tenants', 'acme', name] : ['tenants', name, 'kept']
        sh(`mkdir -m 777 ${mount.at(...staying)}`, '/')
        for (const who of [scene.who, `user:uid-${uid}`]) await service.grant(who, 'editor', `/${staying.join('/')}`, {})
        await way.give(scene)
        const person = await Person.start(t, uid)
        const names = { D: mount.at('tenants', name, way.at ?? 'd'), KEPT: mount.at(...staying) }
        const settle = Object.entries(names).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
        const problem = await person.run(`${settle.join('')}${SETTLE}`)
        t.equal(problem, null, 'settled')
        const rows = await rowsHere(t, person)
        if (phase === 'warm') {
          for (const { row, answer } of await attempt(person, rows))
            t.ok(row.before.includes(answer), `before: ${row.code}: ${answer}`)
          await person.run("os.pwrite(rw, b'x' * 8192, 0); os.fsync(rw)")
        }
        await way.take(scene)
        let seen = await attempt(person, rows)
        for (const end = Date.now() + SOON_MS; way.isSoon && seen.some(isOpen) && Date.now() < end; ) {
          await delay(50)
          seen = await attempt(person, rows)
        }
        for (const { row, answer } of seen) {
          const isHeld = !row.code.includes('D + ')
          if (way.isUnlinked && isHeld) continue
          if (!way.isGone) t.ok(row.after.includes(answer), `${row.code}: ${answer}`)
          else if (!row.after.includes('ok')) t.not(answer, 'ok', `${row.code}: ${answer}`)
        }
        if (!way.isGone) {
          await person.run('drain(inotify, fanotify)')
          sh(READ_ALL, mount.at('tenants', name, way.at ?? 'd'))
          const heard = await person.attempt(["'inotify' in absent or heard(inotify)", "'fanotify' in absent or heard(fanotify)"])
          t.same(heard, ['ok', 'ok'], 'watches go on')
          for (const { row, answer } of await attempt(person, rows))
            t.ok(row.cached.includes(answer), `cached: ${row.code}: ${answer}`)
        }
        person.end()
        await way.after?.(scene)
      })
    }
  }
})

/** All rows but those for what is switched off on this machine. */
async function rowsHere(t: Test, person: Person): Promise<readonly Row[]> {
  const absent = await person.run<Record<string, string>>('absent')
  for (const [name, why] of Object.entries(absent)) t.comment(`NOT ON THIS MACHINE: ${name}: ${why}`)
  const names = Object.keys(absent)
  return ROWS.filter(({ code }) => !names.some((name) => new RegExp(`\\b${name}\\b`).test(code)))
}

async function attempt(person: Person, rows: readonly Row[]): Promise<Seen[]> {
  const answers: string[] = []
  // A process has to answer in time also where the machine is busy.
  for (let at = 0; at < rows.length; at += ROWS_AT_A_TIME) {
    answers.push(...(await person.attempt(rows.slice(at, at + ROWS_AT_A_TIME).map(({ code }) => code))))
  }
  return rows.map((row, i) => ({ row, answer: answers[i] ?? 'nothing was run' }))
}

/** Whether it goes on though it is to be refused. */
function isOpen({ row, answer }: Seen): boolean {
  return answer === 'ok' && !row.after.includes('ok')
}

/** Python for root: a copy of the mount with the ids of a user namespace (mount_setattr(2), Linux 5.12), of what is at `path`. */
const IDMAPPED = `
def idmapped(path):
    libc.syscall.restype = ctypes.c_long
    def call(number, *words):
        result = libc.syscall(ctypes.c_long(number), *words)
        if result == -1:
            raise OSError(ctypes.get_errno(), 'system call %d' % number)
        return result
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        libc.unshare(0x10000000)
        theirs.send(b'x')
        theirs.recv(1)
        os._exit(0)
    ours.recv(1)
    for kind in ('uid', 'gid'):
        with open('/proc/%d/%s_map' % (pid, kind), 'w') as file:
            file.write('0 100000 1000')
    space = os.open('/proc/%d/ns/user' % pid, os.O_RDONLY)
    tree = call(428, -100, os.fsencode(path), 1)  # open_tree(2), OPEN_TREE_CLONE
    try:
        # MOUNT_ATTR_IDMAP
        call(442, tree, b'', 0x1000, struct.pack('<QQQQ', 0x100000, 0, 0, space), ctypes.c_size_t(32))
    finally:
        for fd in (tree, space):
            os.close(fd)
        ours.send(b'x')
        os.waitpid(pid, 0)
`

t.test('the kernel makes no idmapped mount of it', { skip }, async (t) => {
  const { mount } = await accessMountFor(t)
  const root = new Guest(t)
  await root.run(IDMAPPED)
  const plain = await root.run("idmapped('/dev/shm')")
  if (plain !== null) t.comment(`NO IDMAPPED MOUNTS HERE: ${String(plain)} of /dev/shm`)
  // A filesystem has to say FUSE_ALLOW_IDMAP (init.ts does not): the daemon would be told ids of the mount, not of the caller.
  t.equal(await root.run(`idmapped('${mount.mountpoint}')`), plain === 'ENOSYS' ? 'ENOSYS' : 'EINVAL')
  t.equal(await root.run(`idmapped('${mount.at('tenants', 'acme')}')`), plain === 'ENOSYS' ? 'ENOSYS' : 'EINVAL')
})
