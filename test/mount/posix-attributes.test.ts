/** Modes, owners, times, extended attributes and ACLs, and who may do what because of them. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type Check, posixTests, type Row, STRANGER, table, USER } from './posix.ts'

const CREATE = 1
const REPLACE = 2
const VALUE_BYTES_MAX = 65_536
/** security.capability, version 2 (linux/capability.h): cap_net_raw, effective and permitted */
const CAPABILITY = '\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

const chmod: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f']],
    ...['0000', '0111', '0644', '0755', '1777', '2755', '4755', '6711', '7777'].flatMap((perm): Row[] => [
      [['chmod', 'f', Number.parseInt(perm, 8)]],
      [
        ['stat', 'f', 'perm', 'type'],
        [perm, '100000'],
      ],
    ]),
    [['mkdir', 'd']],
    [['chmod', 'd', 0o3770]],
    [
      ['stat', 'd', 'perm', 'type'],
      ['3770', '040000'],
    ],
    [['mkfifo', 'p']],
    [['chmod', 'p', 0o600]],
    [['stat', 'p', 'perm'], '0600'],
    [['symlink', 'f', 's']],
    [['chmod', 's', 0o640]],
    [['stat', 'f', 'perm'], '0640'],
    [['lstat', 's', 'perm'], '0777'],
    [['utimensat', 'f', '5', '5']],
    [['chmod', 'f', 0o600]],
    [['stat', 'f', 'ctime_ns'], (result: string) => result.length > 18],
    [['stat', 'f', 'mtime_ns'], '5'],
    [['chmod', 'none', 0], 'ENOENT'],
    [['chmod', 'f/x', 0], 'ENOTDIR'],
    [['become', USER]],
    [['chmod', 'f', 0o777], 'EPERM'],
    [['become', 0]],
    // The owner may not hand on the privileges of a group that is not its own.
    [['chown', 'f', USER, STRANGER]],
    [['become', USER]],
    [['chmod', 'f', 0o2755]],
    [['stat', 'f', 'perm'], '0755'],
    [['become', USER, USER, [STRANGER]]],
    [['chmod', 'f', 0o2755]],
    [['stat', 'f', 'perm'], '2755'],
  ])

const chown: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f']],
    [['chown', 'f', 123, 456]],
    [
      ['stat', 'f', 'uid', 'gid'],
      [123, 456],
    ],
    [['chown', 'f', -1, 7]],
    [['chown', 'f', 8, -1]],
    [
      ['stat', 'f', 'uid', 'gid'],
      [8, 7],
    ],
    [['chown', 'f', 4_294_967_294, 4_294_967_294]],
    [
      ['stat', 'f', 'uid', 'gid'],
      [4_294_967_294, 4_294_967_294],
    ],
    [['chown', 'none', 0, 0], 'ENOENT'],
    // Set-uid and set-gid go with the old owner, even when root does it; those of a directory stay.
    [['chmod', 'f', 0o6755]],
    [['chown', 'f', USER, USER]],
    [['stat', 'f', 'perm'], '0755'],
    [['chmod', 'f', 0o6644]],
    [['chown', 'f', 0, USER]],
    [['stat', 'f', 'perm'], '2644'],
    [['mkdir', 'd']],
    [['chmod', 'd', 0o6755]],
    [['chown', 'd', USER, USER]],
    [['stat', 'd', 'perm'], '6755'],
    [['chown', 'f', USER, USER]],
    [['become', USER, USER, [STRANGER]]],
    [['chown', 'f', STRANGER, -1], 'EPERM'],
    [['chown', 'f', -1, STRANGER]],
    [['chown', 'f', -1, 0], 'EPERM'],
    [
      ['stat', 'f', 'uid', 'gid'],
      [USER, STRANGER],
    ],
    [['chmod', 'f', 0o6755]],
    [['chown', 'f', -1, USER]],
    [['stat', 'f', 'perm'], '0755'],
    [['become', STRANGER]],
    [['chown', 'f', -1, STRANGER], 'EPERM'],
  ])

/** Whoever changes a program without privileges takes its privileges from it; root may. */
const setIdBits: Check = (t, { directory, onMount }) => {
  const changes: Record<string, Row[]> = {
    write: [[['pwrite', 'fd', 'x', 0], 1]],
    truncate: [[['truncate', 'f', 1]]],
    ftruncate: [[['ftruncate', 'fd', 1]]],
    'open with O_TRUNC': [[['open', 'other', 'f', 'O_WRONLY O_TRUNC']]],
    fallocate: [[['fallocate', 'fd', 0, 0, 4096]]],
    'punch a hole': [[['fallocate', 'fd', 3, 0, 4096]]],
    copy_file_range: [[['copy_file_range', 'from', 'fd', 4, 0, 0], 4]],
  }
  const program = (perm: number): Row[] => [[['become', 0]], [['create', 'f', 'text']], [['chmod', 'f', perm]]]
  for (const [name, change] of Object.entries(changes)) {
    t.comment(name)
    const opened: Row[] = [[['open', 'fd', 'f', 'O_RDWR']], [['open', 'from', 'from', 'O_RDONLY']]]
    table(t, directory, [
      [['create', 'from', 'text']],
      ...program(0o6777),
      [['become', USER]],
      ...opened,
      ...change,
      [['stat', 'f', 'perm'], '0777'],
      // Without the group's execute bit set-gid gives nothing. The kernel clears it all the same for who is outside of
      // the group; but it does not tell us who is (FUSE_HANDLE_KILLPRIV_V2), so in the mount it stays.
      ...program(0o2767),
      [['become', USER]],
      ...opened,
      ...change,
      [['stat', 'f', 'perm'], onMount ? '2767' : '0767'],
      ...program(0o6777),
      ...opened,
      ...change,
      [['stat', 'f', 'perm'], '6777'],
    ])
  }
}

/** A file's capabilities go with a write, and with its owner. */
const capabilities: Check = (t, { directory }) =>
  table(
    t,
    directory,
    [[['pwrite', 'fd', 'x', 0], 1] as Row, [['ftruncate', 'fd', 1]] as Row, [['fchown', 'fd', USER, USER]] as Row].flatMap(
      (change): Row[] => [
        [['create', 'f', 'text']],
        [['setxattr', 'f', 'security.capability', CAPABILITY]],
        [['getxattr', 'f', 'security.capability'], CAPABILITY],
        [['open', 'fd', 'f', 'O_RDWR']],
        change,
        [['getxattr', 'f', 'security.capability'], 'ENODATA'],
        [['unlink', 'f']],
      ],
    ),
  )

/** In nanoseconds. */
function nearest(seconds: string, onMount: boolean): string {
  const [first, last] = onMount ? [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER] : [-(2 ** 31), 15_032_385_535]
  return `${BigInt(seconds) < 0n ? first : last}000000000`
}

const utimensat: Check = (t, { directory, onMount }) => {
  const now = (result: string): boolean => BigInt(result) > 1_700_000_000_000_000_000n
  table(t, directory, [
    [['create', 'f', 'text']],
    [['utimensat', 'f', '1234567890123456789', '987654321000000001']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      ['1234567890123456789', '987654321000000001'],
    ],
    [['utimensat', 'f', 'omit', '5']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      ['1234567890123456789', '5'],
    ],
    [['utimensat', 'f', '6', 'omit']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      ['6', '5'],
    ],
    [['utimensat', 'f', 'now', 'omit']],
    [['stat', 'f', 'atime_ns'], now],
    [['utimensat', 'f', 'omit', 'now']],
    [['stat', 'f', 'mtime_ns'], now],
    // Before 1970, after 2038 and after 2106.
    [['utimensat', 'f', '-1', '-1500000000000000001']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      ['-1', '-1500000000000000001'],
    ],
    [['utimensat', 'f', '2147483648000000001', '4294967296000000001']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      ['2147483648000000001', '4294967296000000001'],
    ],
    [['stat', 'f', 'ctime_ns'], now],
    [['utimensat', 'none', '1', '1'], 'ENOENT'],
    // What cannot be stored becomes the nearest time that can, without a fraction. ext4 stores 34 bits.
    ...(['9223372036854775807', '-9223372036854775807', '9007199254740992', '-9007199254740992'] as const).flatMap(
      (seconds): Row[] => [
        [['utimensat', 'f', `${seconds}000000007`, `${seconds}000000007`]],
        [
          ['stat', 'f', 'atime_ns', 'mtime_ns'],
          [nearest(seconds, onMount), nearest(seconds, onMount)],
        ],
      ],
    ),
    [['utimensat', 'f', '9007199254740991000000007', '-9007199254740990000000007']],
    [
      ['stat', 'f', 'atime_ns', 'mtime_ns'],
      onMount
        ? ['9007199254740991000000007', '-9007199254740990000000007']
        : [nearest('9007199254740991', false), nearest('-9007199254740991', false)],
    ],
    // The owner sets any time; who may write can only set it to now; others neither.
    [['chmod', 'f', 0o666]],
    [['become', USER]],
    [['utimensat', 'f', '1', '1'], 'EPERM'],
    [['utimensat', 'f', 'now', 'now']],
    [['utimensat', 'f', 'omit', 'now'], 'EPERM'],
    [['become', 0]],
    [['chmod', 'f', 0o644]],
    [['become', USER]],
    [['utimensat', 'f', 'now', 'now'], 'EACCES'],
    [['become', 0]],
    [['chown', 'f', USER, USER]],
    [['become', USER]],
    [['utimensat', 'f', '1', '1']],
    [['become', 0]],
    // What changes content sets mtime, even when the size stays.
    ...([[['truncate', 'f', 10]], [['create', 'f', 'x']], [['truncate', 'f', 1]]] as Row[]).flatMap((change): Row[] => [
      [['utimensat', 'f', '1', '1']],
      change,
      [['stat', 'f', 'mtime_ns'], now],
    ]),
  ])
}

/** ctime moves on with each change of the inode; a wait in between makes that visible on coarse clocks. */
const changeTime: Check = async (t, { directory }) => {
  const file = path.join(directory, 'f')
  fs.writeFileSync(file, '')
  const changes: Record<string, () => void> = {
    chmod: () => fs.chmodSync(file, 0o600),
    chown: () => fs.chownSync(file, USER, USER),
    link: () => fs.linkSync(file, `${file}2`),
    unlink: () => fs.unlinkSync(`${file}2`),
    rename: () => {
      fs.renameSync(file, `${file}2`)
      fs.renameSync(`${file}2`, file)
    },
    write: () => fs.writeFileSync(file, 'x'),
    setxattr: () => execFileSync('setfattr', ['-n', 'user.a', '-v', 'b', file]),
    setfacl: () => execFileSync('setfacl', ['-m', `u:${STRANGER}:r`, file]),
  }
  for (const [name, change] of Object.entries(changes)) {
    const before = fs.statSync(file, { bigint: true }).ctimeNs
    await new Promise((resolve) => setTimeout(resolve, 20))
    change()
    t.ok(fs.statSync(file, { bigint: true }).ctimeNs > before, name)
  }
}

/** What reading does to atime: nothing in the mount, which is mounted noatime. */
const accessTime: Check = (t, { directory, onMount }) => {
  if (!onMount) {
    t.pass('depends on how the local disk is mounted')
    return
  }
  table(t, directory, [
    [['create', 'f', 'text']],
    [['utimensat', 'f', '1', 'omit']],
    [['content', 'f'], 'text'],
    [['stat', 'f', 'atime_ns'], '1'],
  ])
}

const xattrs: Check = (t, { directory, onMount }) => {
  const long = `user.${'n'.repeat(250)}`
  // ext4 has one block for all attributes of an inode; the kernel's own limit is 64 KiB each.
  const large = (onMount ? 'v'.repeat(VALUE_BYTES_MAX) : 'v'.repeat(2000)).replace(/^v/, '\0')
  table(t, directory, [
    [['create', 'f']],
    [['getxattr', 'f', 'user.a'], 'ENODATA'],
    // ls -l asks every file of a filesystem that only says "not this one".
    [['getxattr', 'f', 'security.selinux'], onMount ? 'ENOTSUP' : 'ENODATA'],
    [['setxattr', 'f', 'user.a', 'one', REPLACE], 'ENODATA'],
    [['setxattr', 'f', 'user.a', 'one', CREATE]],
    [['setxattr', 'f', 'user.a', 'two', CREATE], 'EEXIST'],
    [['setxattr', 'f', 'user.a', 'two', REPLACE]],
    [['setxattr', 'f', 'user.a', 'three']],
    [['getxattr', 'f', 'user.a'], 'three'],
    [['setxattr', 'f', 'user.empty', '']],
    [['getxattr', 'f', 'user.empty'], ''],
    [['setxattr', 'f', 'user.bytes', '\0\xff\x80']],
    [['getxattr', 'f', 'user.bytes'], '\0\xff\x80'],
    [['setxattr', 'f', 'trusted.t', 't']],
    [['setxattr', 'f', 'security.s', 's']],
    [['setxattr', 'f', 'security.selinux', 'label']],
    [['getxattr', 'f', 'security.selinux'], 'label'],
    [['removexattr', 'f', 'security.selinux']],
    [
      ['listxattr', 'f'],
      ['security.s', 'trusted.t', 'user.a', 'user.bytes', 'user.empty'],
    ],
    [['removexattr', 'f', 'user.a']],
    [['removexattr', 'f', 'user.a'], 'ENODATA'],
    [['getxattr', 'f', 'user.a'], 'ENODATA'],
    [['setxattr', 'f', 'other.a', 'x'], 'ENOTSUP'],
    [['setxattr', 'f', long, 'x']],
    [['getxattr', 'f', long], 'x'],
    [['removexattr', 'f', long]],
    [['setxattr', 'f', `${long}n`, 'x'], 'ERANGE'],
    [['create', 'g']],
    [['setxattr', 'g', 'user.large', large]],
    [['getxattr', 'g', 'user.large'], large],
    [['setxattr', 'g', 'user.large', 'v'.repeat(VALUE_BYTES_MAX + 1)], 'E2BIG'],
    [['getxattr', 'g', 'user.large'], large],
    [['mkdir', 'd']],
    [['setxattr', 'd', 'user.a', 'x']],
    [['getxattr', 'd', 'user.a'], 'x'],
    [['symlink', 'f', 's']],
    [['setxattr', 's', 'user.a', 'x'], 'EPERM'],
    [['setxattr', 's', 'trusted.a', 'x']],
    [['listxattr', 's'], ['trusted.a']],
    [['mkfifo', 'p']],
    [['setxattr', 'p', 'user.a', 'x'], 'EPERM'],
    [['rename', 'f', 'h']],
    [['getxattr', 'h', 'user.bytes'], '\0\xff\x80'],
    // Others read only what the mode lets them, and of trusted.* nothing.
    [['chmod', 'h', 0o644]],
    [['become', USER]],
    [['getxattr', 'h', 'user.bytes'], '\0\xff\x80'],
    [['setxattr', 'h', 'user.bytes', 'x'], 'EACCES'],
    [['getxattr', 'h', 'trusted.t'], 'ENODATA'],
    [['setxattr', 'h', 'trusted.t', 'x'], 'EPERM'],
    [['become', 0]],
    [['chmod', 'h', 0o600]],
    [['become', USER]],
    [['getxattr', 'h', 'user.bytes'], 'EACCES'],
  ])
}

const accessAcl: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f', 'text', 0o640]],
    [['getfacl', 'f', 'access'], 'ENODATA'],
    [['become', USER]],
    [['content', 'f'], 'EACCES'],
    [['become', 0]],
    [['setfacl', 'f', 'access', `u::rw- u:${USER}:rw- g::r-- g:${STRANGER}:r-- m::rw- o::---`]],
    [['getfacl', 'f', 'access'], `u::rw- u:${USER}:rw- g::r-- g:${STRANGER}:r-- m::rw- o::---`],
    // The mode's group bits are the mask now.
    [['stat', 'f', 'perm'], '0660'],
    [['become', USER]],
    [['content', 'f'], 'text'],
    [['create', 'f', 'written']],
    [['setfacl', 'f', 'access', 'u::rw- g::rw- o::rw-'], 'EPERM'],
    [['become', STRANGER]],
    [['content', 'f'], 'written'],
    [['open', 'fd', 'f', 'O_WRONLY'], 'EACCES'],
    [['become', 1234]],
    [['content', 'f'], 'EACCES'],
    [['become', 0]],
    // chmod of the group bits moves the mask, and with it what the named ones have.
    [['chmod', 'f', 0o600]],
    [['getfacl', 'f', 'access'], `u::rw- u:${USER}:rw- g::r-- g:${STRANGER}:r-- m::--- o::---`],
    [['become', USER]],
    [['content', 'f'], 'EACCES'],
    [['become', 0]],
    [['chmod', 'f', 0o664]],
    [['become', USER]],
    [['content', 'f'], 'written'],
    [['become', 0]],
    // An ACL that says no more than a mode is one; without an ACL the mask stays as the group's bits.
    [['setfacl', 'f', 'access', 'u::rwx g::r-x o::--x']],
    [['stat', 'f', 'perm'], '0751'],
    [['getfacl', 'f', 'access'], 'ENODATA'],
    [['setfacl', 'f', 'access', `u::rw- u:${USER}:rw- g::--- m::rw- o::---`]],
    [['removefacl', 'f', 'access']],
    [['stat', 'f', 'perm'], '0660'],
    [['removefacl', 'f', 'access']],
    [['getfacl', 'f', 'access'], 'ENODATA'],
    [['setfacl', 'f', 'access', `u::rw- u:${USER}:rw- g::--- o::---`], 'EINVAL'],
    [['setfacl', 'f', 'access', 'u::rw- g::---'], 'EINVAL'],
    [['setfacl', 'f', 'default', 'u::rw- g::--- o::---'], 'EACCES'],
  ])

/** A directory's default ACL takes the umask's place, and goes on to directories inside. */
const defaultAcl: Check = (t, { directory }) => {
  const acl = `u::rwx u:${USER}:rwx g::r-x m::rwx o::r-x`
  table(t, directory, [
    [['mkdir', 'd']],
    [['setfacl', 'd', 'default', acl]],
    [['stat', 'd', 'perm'], '0755'],
    [['getfacl', 'd', 'default'], acl],
    [['getfacl', 'd', 'access'], 'ENODATA'],
    [['umask', 0o077]],
    [['create', 'd/f', 'text', 0o664]],
    [['stat', 'd/f', 'perm'], '0664'],
    [['getfacl', 'd/f', 'access'], `u::rw- u:${USER}:rwx g::r-x m::rw- o::r--`],
    [['getfacl', 'd/f', 'default'], (result: string) => result === 'ENODATA' || result === 'EACCES'],
    [['mkdir', 'd/sub', 0o777]],
    [['getfacl', 'd/sub', 'access'], acl],
    [['getfacl', 'd/sub', 'default'], acl],
    [['mkdir', 'd/sub/sub', 0o700]],
    [['stat', 'd/sub/sub', 'perm'], '0700'],
    [['getfacl', 'd/sub/sub', 'default'], acl],
    [['mkfifo', 'd/p', 0o660]],
    [['getfacl', 'd/p', 'access'], `u::rw- u:${USER}:rwx g::r-x m::rw- o::---`],
    [['symlink', 'f', 'd/s']],
    [['lstat', 'd/s', 'perm'], '0777'],
    [['open', 'tmp', 'd', 'O_TMPFILE O_RDWR', 0o640]],
    [['link_open', 'tmp', 'd/tmp']],
    [['getfacl', 'd/tmp', 'access'], `u::rw- u:${USER}:rwx g::r-x m::r-- o::---`],
    [['become', USER]],
    [['create', 'd/f', 'by another']],
    [['create', 'd/sub/mine']],
    [['become', 0]],
    // A default that is no more than a mode: it stands for the umask all the same.
    [['mkdir', 'plain']],
    [['setfacl', 'plain', 'default', 'u::rwx g::rwx o::rwx']],
    [['create', 'plain/f', '', 0o666]],
    [['stat', 'plain/f', 'perm'], '0666'],
    [['getfacl', 'plain/f', 'access'], 'ENODATA'],
    [['removefacl', 'plain', 'default']],
    [['create', 'plain/g', '', 0o666]],
    [['stat', 'plain/g', 'perm'], '0600'],
  ])
}

/** The programs that people use for ACLs agree with the calls. */
const aclPrograms: Check = (t, { directory }) => {
  const run = (program: string, ...words: string[]): string => execFileSync(program, words, { cwd: directory, encoding: 'utf8' })
  run('mkdir', 'd')
  run('setfacl', '-m', `u:${USER}:rwx,d:u:${USER}:rw,d:o::-`, 'd')
  run('touch', 'd/f')
  t.match(run('getfacl', '-nc', 'd'), `user:${USER}:rwx`)
  t.match(run('getfacl', '-nc', 'd'), `default:user:${USER}:rw-`)
  t.match(run('getfacl', '-nc', 'd/f'), `user:${USER}:rw-`)
  run('setfacl', '-b', 'd/f')
  t.notMatch(run('getfacl', '-nc', 'd/f'), `user:${USER}`)
  run('setfacl', '-k', 'd')
  t.notMatch(run('getfacl', '-nc', 'd'), 'default')
  const many = Array.from({ length: 400 }, (_, i) => `u:${20_000 + i}:r`).join(',')
  run('setfacl', '-m', many, 'd/f')
  t.equal(run('getfacl', '-nc', 'd/f').match(/user:2\d{4}:r--/g)?.length, 400)
}

/** What another user may do, as a process that never was root. */
const otherUsers: Check = (t, { directory }) => {
  fs.writeFileSync(path.join(directory, 'private'), 'secret', { mode: 0o600 })
  fs.writeFileSync(path.join(directory, 'public'), 'open', { mode: 0o644 })
  fs.writeFileSync(path.join(directory, 'group'), 'shared', { mode: 0o640 })
  fs.chownSync(path.join(directory, 'group'), 0, STRANGER)
  fs.mkdirSync(path.join(directory, 'closed'), { mode: 0o711 })
  fs.writeFileSync(path.join(directory, 'closed', 'known'), 'found')
  const cat = (file: string, ...groups: string[]): string => {
    const words = [`--reuid=${USER}`, `--regid=${USER}`, ...(groups.length > 0 ? groups : ['--clear-groups']), 'cat', file]
    const { status, stdout } = spawnSync('setpriv', words, { cwd: directory, encoding: 'utf8' })
    return status === 0 ? stdout : 'refused'
  }
  t.equal(cat('private'), 'refused')
  t.equal(cat('public'), 'open')
  t.equal(cat('group'), 'refused')
  t.equal(cat('group', `--groups=${STRANGER}`), 'shared')
  t.equal(cat('closed/known'), 'found')
  const ls = spawnSync('setpriv', [`--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', 'ls', 'closed'], { cwd: directory })
  t.not(ls.status, 0, 'a directory without r is not listed')
  table(t, directory, [
    [['become', USER]],
    [['access', 'public', 'R_OK'], true],
    [['access', 'public', 'W_OK'], false],
    [['access', 'private', 'R_OK'], false],
    [['access', 'closed', 'X_OK'], true],
  ])
}

/** Set-uid programs run with their owner's uid. */
const setUidProgram: Check = (t, { directory }) => {
  const program = path.join(directory, 'id')
  fs.copyFileSync('/usr/bin/id', program)
  fs.chownSync(program, STRANGER, STRANGER)
  fs.chmodSync(program, 0o4755)
  const words = [`--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', './id', '-u']
  t.equal(execFileSync('setpriv', words, { cwd: directory, encoding: 'utf8' }).trim(), String(STRANGER))
}

const statfs: Check = (t, { directory }) => {
  const isSane = ([bsize, frsize, blocks, bfree, bavail, files, ffree, namemax]: number[]): boolean =>
    bsize === 4096 &&
    frsize === 4096 &&
    Number(blocks) >= Number(bfree) &&
    Number(bfree) >= Number(bavail) &&
    Number(bavail) > 0 &&
    Number(files) >= Number(ffree) &&
    Number(ffree) > 0 &&
    namemax === 255
  table(t, directory, [
    [['create', 'f']],
    [['statvfs', 'f', 'bsize', 'frsize', 'blocks', 'bfree', 'bavail', 'files', 'ffree', 'namemax'], isSane],
    [['statvfs', 'none', 'bsize'], 'ENOENT'],
  ])
}

posixTests({
  chmod,
  chown,
  'set-uid and set-gid are cleared': setIdBits,
  'file capabilities are cleared': capabilities,
  utimensat,
  'change times': changeTime,
  'access times': accessTime,
  'extended attributes': xattrs,
  'access ACLs': accessAcl,
  'default ACLs': defaultAcl,
  'setfacl and getfacl': aclPrograms,
  'other users': otherUsers,
  'set-uid programs': setUidProgram,
  statfs,
})
