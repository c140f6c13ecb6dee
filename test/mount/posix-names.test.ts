/** What system calls do to names: mkdir, rmdir, link, unlink, symlink, rename, mkfifo, mknod, open, listings. */
import { type Check, type Place, posixTests, python, type Row, STRANGER, table, USER } from './posix.ts'

const NOREPLACE = 1
const EXCHANGE = 2
const S_IFIFO = 0o010000
const S_IFCHR = 0o020000
const S_IFBLK = 0o060000
const S_IFSOCK = 0o140000
/** 255 bytes, every value but NUL and the slash: not UTF-8 */
const RAW_NAME = Array.from({ length: 256 }, (_, byte) => String.fromCharCode(byte))
  .filter((letter) => letter !== '\0' && letter !== '/')
  .join('')
  .padEnd(255, '\xff')
const LONG = 'n'.repeat(255)
const TOO_LONG = 'n'.repeat(256)
/** 4,096 bytes: with its NUL one more than a path may have */
const TOO_LONG_PATH = `${'d'.repeat(127)}/`.repeat(32)
const ENTRIES = 20_000

const mkdir: Check = (t, { directory }) =>
  table(t, directory, [
    [['umask', 0o027]],
    [['mkdir', 'a', 0o777]],
    [
      ['stat', 'a', 'perm', 'type', 'nlink'],
      ['0750', '040000', 2],
    ],
    [['umask', 0]],
    [['mkdir', 'a'], 'EEXIST'],
    [['mkdir', 'a/b', 0o1777]],
    [['stat', 'a/b', 'perm'], '1777'],
    [['stat', 'a', 'nlink'], 3],
    [['mkdir', 'no/b'], 'ENOENT'],
    [['create', 'file']],
    [['mkdir', 'file'], 'EEXIST'],
    [['mkdir', 'file/b'], 'ENOTDIR'],
    [['symlink', 'nowhere', 'dangling']],
    [['mkdir', 'dangling'], 'EEXIST'],
    [['mkdir', TOO_LONG], 'ENAMETOOLONG'],
    [['mkdir', TOO_LONG_PATH], 'ENAMETOOLONG'],
    [['become', USER]],
    [['mkdir', 'mine'], 'EACCES'],
    [['become', 0]],
    [['chmod', 'a', 0o777]],
    [['become', USER]],
    [['mkdir', 'a/mine']],
    [
      ['stat', 'a/mine', 'uid', 'gid'],
      [USER, USER],
    ],
  ])

/** A set-group-id directory hands its group on, and to directories its bit. */
const setGroupIdDirectory: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'shared']],
    [['chown', 'shared', 0, STRANGER]],
    [['chmod', 'shared', 0o2777]],
    [['become', USER]],
    [['mkdir', 'shared/d', 0o755]],
    [['create', 'shared/f']],
    [
      ['stat', 'shared/d', 'perm', 'gid'],
      ['2755', STRANGER],
    ],
    [
      ['stat', 'shared/f', 'perm', 'gid'],
      ['0644', STRANGER],
    ],
    // Not in that group, so its privileges cannot be handed to a program either.
    [['create', 'shared/program', '', 0o2755]],
    [['stat', 'shared/program', 'perm'], '0755'],
  ])

const rmdir: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'a']],
    [['mkdir', 'a/b']],
    [['create', 'file']],
    [['symlink', 'a', 'link']],
    [['rmdir', 'a'], 'ENOTEMPTY'],
    [['rmdir', 'file'], 'ENOTDIR'],
    [['rmdir', 'link'], 'ENOTDIR'],
    [['rmdir', 'none'], 'ENOENT'],
    [['rmdir', 'a/b/.'], 'EINVAL'],
    [['rmdir', 'a/b/..'], 'ENOTEMPTY'],
    [['rmdir', TOO_LONG], 'ENAMETOOLONG'],
    [['become', USER]],
    [['rmdir', 'a/b'], 'EACCES'],
    [['become', 0]],
    [['rmdir', 'a/b']],
    [['stat', 'a', 'nlink'], 2],
    // A process may stand in a directory that is gone: it holds nothing and takes nothing.
    [['mkdir', 'here']],
    [['open', 'gone', 'here', 'O_RDONLY O_DIRECTORY']],
    [['chdir', 'here']],
    [['rmdir', '../here']],
    [['listdir', '.'], []],
    [['create', 'file'], 'ENOENT'],
    [['mkdir', 'sub'], 'ENOENT'],
    [['stat', '.', 'nlink'], 0],
    [['fstat', 'gone', 'nlink'], 0],
  ])

const link: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f', 'text']],
    [['link', 'f', 'g']],
    [['mkdir', 'd']],
    [['link', 'g', 'd/h']],
    [['stat', 'f', 'nlink'], 3],
    [['chmod', 'd/h', 0o600]],
    [['stat', 'f', 'perm'], '0600'],
    [['create', 'g', 'other']],
    [['content', 'd/h'], 'other'],
    [['link', 'f', 'g'], 'EEXIST'],
    [['link', 'none', 'x'], 'ENOENT'],
    [['link', 'f', 'no/x'], 'ENOENT'],
    [['link', 'f', 'g/x'], 'ENOTDIR'],
    [['link', 'd', 'x'], 'EPERM'],
    [['link', 'f', TOO_LONG], 'ENAMETOOLONG'],
    // The link of a symlink, a fifo, a socket and a device is as good as that of a file.
    [['symlink', 'f', 's']],
    [['link', 's', 's2']],
    [
      ['lstat', 's2', 'type', 'nlink'],
      ['120000', 2],
    ],
    [['mkfifo', 'p']],
    [['link', 'p', 'p2']],
    [
      ['stat', 'p2', 'type', 'nlink'],
      ['010000', 2],
    ],
    [['unlink', 'f']],
    [['unlink', 'g']],
    [['stat', 'd/h', 'nlink'], 1],
    [['content', 'd/h'], 'other'],
    [['become', USER]],
    [['link', 'd/h', 'x'], (result: string) => result === 'EACCES' || result === 'EPERM'],
  ])

const unlink: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'd']],
    [['unlink', 'd'], 'EISDIR'],
    [['unlink', 'none'], 'ENOENT'],
    [['create', 'f', 'text']],
    [['unlink', 'f/x'], 'ENOTDIR'],
    [['unlink', TOO_LONG], 'ENAMETOOLONG'],
    [['become', USER]],
    [['unlink', 'f'], 'EACCES'],
    [['become', 0]],
    [['symlink', 'f', 's']],
    [['unlink', 's']],
    [['mkfifo', 'p']],
    [['unlink', 'p']],
    // An open file lives on without a name.
    [['open', 'fd', 'f', 'O_RDWR']],
    [['unlink', 'f']],
    [['lstat', 'f', 'size'], 'ENOENT'],
    [
      ['fstat', 'fd', 'nlink', 'size'],
      [0, 4],
    ],
    [['pwrite', 'fd', 'more', 4], 4],
    [['pread', 'fd', 100, 0], 'textmore'],
    [['ftruncate', 'fd', 2]],
    [['fchmod', 'fd', 0o600]],
    [
      ['fstat', 'fd', 'size', 'perm'],
      [2, '0600'],
    ],
    // Its name is free, and what takes it is another file.
    [['create', 'f', 'new']],
    [['pread', 'fd', 100, 0], 'te'],
    [['content', 'f'], 'new'],
    // Only what O_TMPFILE made may get a name back.
    [['link_open', 'fd', 'again'], 'ENOENT'],
    [['close', 'fd']],
  ])

const symlink: Check = (t, { directory }) =>
  table(t, directory, [
    [['symlink', 'some\xff\x01target', 's']],
    [['readlink', 's'], 'some\xff\x01target'],
    [
      ['lstat', 's', 'type', 'perm', 'size'],
      ['120000', '0777', 12],
    ],
    [['stat', 's', 'size'], 'ENOENT'],
    [['symlink', 'x', 's'], 'EEXIST'],
    [['symlink', '', 'empty'], 'ENOENT'],
    [['symlink', 'x'.repeat(4095), 'long']],
    [['readlink', 'long'], 'x'.repeat(4095)],
    [['symlink', 'x'.repeat(4096), 'longer'], 'ENAMETOOLONG'],
    [['symlink', 'x', TOO_LONG], 'ENAMETOOLONG'],
    [['symlink', 'loop', 'loop']],
    [['stat', 'loop', 'size'], 'ELOOP'],
    [['open', 'fd', 'loop', 'O_RDONLY O_NOFOLLOW'], 'ELOOP'],
    [['mkdir', 'd']],
    [['create', 'd/f', 'text']],
    [['symlink', 'd', 'to-d']],
    [['content', 'to-d/f'], 'text'],
    [['readlink', 'd/f'], 'EINVAL'],
    [['lchown', 's', USER, USER]],
    [
      ['lstat', 's', 'uid', 'gid'],
      [USER, USER],
    ],
    [['utimensat', 's', '1000000001', '2000000002', false]],
    [['lstat', 's', 'mtime_ns'], '2000000002'],
  ])

const rename: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f', 'text']],
    [['create', 'g', 'other']],
    [['mkdir', 'd']],
    [['mkdir', 'd/e']],
    [['mkdir', 'full']],
    [['create', 'full/x']],
    [['rename', 'f', 'g']],
    [['content', 'g'], 'text'],
    [['lstat', 'f', 'size'], 'ENOENT'],
    [['rename', 'none', 'g'], 'ENOENT'],
    [['rename', 'g', 'd'], 'EISDIR'],
    [['rename', 'd', 'g'], 'ENOTDIR'],
    [['rename', 'd', 'full'], 'ENOTEMPTY'],
    [['rename', 'd', 'd/e/x'], 'EINVAL'],
    [['rename', 'd/e', 'd'], 'ENOTEMPTY'],
    [['rename', 'g', TOO_LONG], 'ENAMETOOLONG'],
    [['rename', 'd/.', 'x'], (result: string) => result === 'EBUSY' || result === 'EINVAL'],
    // A directory that moves takes its link along.
    [['mkdir', 'to']],
    [['rename', 'd/e', 'to/e']],
    [['stat', 'd', 'nlink'], 2],
    [['stat', 'to', 'nlink'], 3],
    [['create', 'to/e/file', 'deep']],
    [['rename', 'to', 'moved']],
    [['content', 'moved/e/file'], 'deep'],
    [['mkdir', 'empty']],
    [['rename', 'd', 'empty']],
    [['lstat', 'd', 'size'], 'ENOENT'],
    // Two names of one file: nothing happens, and both stay.
    [['link', 'g', 'h']],
    [['rename', 'g', 'h']],
    [['stat', 'g', 'nlink'], 2],
    // A target that is open lives on.
    [['create', 'old', 'old text']],
    [['open', 'fd', 'old', 'O_RDONLY']],
    [['create', 'new', 'new text']],
    [['rename', 'new', 'old']],
    [['read', 'fd', 100], 'old text'],
    [['content', 'old'], 'new text'],
    [['fstat', 'fd', 'nlink'], 0],
    [['close', 'fd']],
    [['become', USER]],
    [['rename', 'g', 'x'], 'EACCES'],
  ])

const renameFlags: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f', 'one']],
    [['create', 'g', 'two']],
    [['mkdir', 'd']],
    [['mkdir', 'd/sub']],
    [['mkdir', 'e']],
    [['rename', 'f', 'g', NOREPLACE], 'EEXIST'],
    [['rename', 'f', 'd', NOREPLACE], 'EEXIST'],
    [['rename', 'f', 'e/f', NOREPLACE]],
    [['rename', 'e/f', 'f', NOREPLACE]],
    [['rename', 'f', 'g', EXCHANGE]],
    [['content', 'f'], 'two'],
    [['content', 'g'], 'one'],
    [['rename', 'f', 'none', EXCHANGE], 'ENOENT'],
    [['rename', 'f', 'g', EXCHANGE | NOREPLACE], 'EINVAL'],
    [['rename', 'f', 'g', 1 << 10], 'EINVAL'],
    // A file and a directory change places, and the link counts of their parents with them.
    [['rename', 'd/sub', 'f', EXCHANGE]],
    [['stat', 'd', 'nlink'], 2],
    [
      ['stat', 'f', 'type', 'nlink'],
      ['040000', 2],
    ],
    [['content', 'd/sub'], 'two'],
    [['rename', 'f', 'd/sub', EXCHANGE]],
    [['stat', 'd', 'nlink'], 3],
    [['rename', 'd', 'e', EXCHANGE]],
    [['listdir', 'e'], ['sub']],
    [['rename', 'e', 'e/sub', EXCHANGE], 'EINVAL'],
    [['rename', 'e/sub', 'e', EXCHANGE], (result: string) => result === 'ENOTEMPTY' || result === 'EINVAL'],
    [['link', 'g', 'h']],
    [['rename', 'g', 'h', EXCHANGE]],
    [['content', 'h'], 'one'],
  ])

/** In a sticky directory a name belongs to the file's owner, and to the directory's. */
const sticky: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'tmp']],
    [['chmod', 'tmp', 0o1777]],
    [['become', USER]],
    [['create', 'tmp/f', 'text']],
    [['create', 'tmp/g']],
    [['mkdir', 'tmp/d', 0o777]],
    [['become', STRANGER]],
    [['create', 'tmp/mine']],
    [['unlink', 'tmp/f'], 'EPERM'],
    [['rmdir', 'tmp/d'], 'EPERM'],
    [['rename', 'tmp/f', 'tmp/x'], 'EPERM'],
    [['rename', 'tmp/mine', 'tmp/f'], 'EPERM'],
    [['rename', 'tmp/mine', 'tmp/d/mine']],
    [['become', USER]],
    [['unlink', 'tmp/f']],
    [['become', 0]],
    [['chown', 'tmp', STRANGER, STRANGER]],
    [['become', STRANGER]],
    [['unlink', 'tmp/g']],
  ])

const nodes: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkfifo', 'fifo', 0o640]],
    [
      ['stat', 'fifo', 'type', 'perm', 'size'],
      ['010000', '0640', 0],
    ],
    [['mkfifo', 'fifo'], 'EEXIST'],
    [['mkfifo', 'no/fifo'], 'ENOENT'],
    [['mkfifo', TOO_LONG], 'ENAMETOOLONG'],
    // What is written to a fifo comes out of it, and none of it gets into the file.
    [['open', 'pipe', 'fifo', 'O_RDWR O_NONBLOCK']],
    [['write', 'pipe', 'text'], 4],
    [['read', 'pipe', 100], 'text'],
    [['stat', 'fifo', 'size'], 0],
    [['mknod', 'fifo2', S_IFIFO | 0o600]],
    [['stat', 'fifo2', 'type'], '010000'],
    [['mknod', 'socket', S_IFSOCK | 0o600]],
    [['stat', 'socket', 'type'], '140000'],
    [['open', 'fd', 'socket', 'O_RDWR'], 'ENXIO'],
    [['mknod', 'null', S_IFCHR | 0o666, 1, 3]],
    [['stat', 'null', 'type'], '020000'],
    [
      ['device', 'null'],
      [1, 3],
    ],
    [['mknod', 'block', S_IFBLK | 0o600, 259, 70_000]],
    [['stat', 'block', 'type'], '060000'],
    [
      ['device', 'block'],
      [259, 70_000],
    ],
    [['mknod', 'plain', 0o640]],
    [
      ['stat', 'plain', 'type', 'perm'],
      ['100000', '0640'],
    ],
    [['mknod', 'dir', 0o040755], 'EPERM'],
    [['become', USER]],
    [['mknod', 'mine', S_IFCHR | 0o666, 1, 3], (result: string) => result === 'EPERM' || result === 'EACCES'],
  ])

const open: Check = (t, { directory }) =>
  table(t, directory, [
    [['umask', 0o022]],
    [['open', 'fd', 'f', 'O_RDWR O_CREAT O_EXCL', 0o666]],
    [
      ['stat', 'f', 'perm', 'uid', 'gid'],
      ['0644', 0, 0],
    ],
    [['open', 'x', 'f', 'O_RDWR O_CREAT O_EXCL'], 'EEXIST'],
    [['write', 'fd', 'text'], 4],
    [['open', 'x', 'f', 'O_WRONLY O_TRUNC']],
    [['fstat', 'fd', 'size'], 0],
    [['read', 'x', 1], 'EBADF'],
    [['open', 'a', 'f', 'O_WRONLY O_APPEND']],
    [['write', 'x', 'one'], 3],
    [['write', 'a', 'two'], 3],
    [['content', 'f'], 'onetwo'],
    [['open', 'x', 'none', 'O_RDONLY'], 'ENOENT'],
    [['open', 'x', 'f/x', 'O_RDONLY'], 'ENOTDIR'],
    [['open', 'x', 'f', 'O_RDONLY O_DIRECTORY'], 'ENOTDIR'],
    [['open', 'x', TOO_LONG, 'O_RDWR O_CREAT'], 'ENAMETOOLONG'],
    [['mkdir', 'd', 0o777]],
    [['open', 'x', 'd', 'O_WRONLY'], 'EISDIR'],
    [['open', 'x', 'd', 'O_RDWR O_CREAT'], 'EISDIR'],
    [['symlink', 'through', 's']],
    [['open', 'x', 's', 'O_RDWR O_CREAT']],
    [['stat', 'through', 'size'], 0],
    [['open', 'x', 's', 'O_RDWR O_CREAT O_EXCL'], 'EEXIST'],
    // A file that its maker may not write: the mode counts from the next open on.
    [['umask', 0]],
    [['chmod', 'd', 0o777]],
    [['become', USER]],
    [['open', 'x', 'd/readonly', 'O_WRONLY O_CREAT', 0o444]],
    [['write', 'x', 'text'], 4],
    [['open', 'y', 'd/readonly', 'O_WRONLY'], 'EACCES'],
    [['content', 'd/readonly'], 'text'],
    [['become', STRANGER]],
    [['open', 'y', 'd/readonly', 'O_WRONLY O_TRUNC'], 'EACCES'],
    [['open', 'y', 'f', 'O_RDONLY']],
    [['open', 'y', 'f', 'O_WRONLY'], 'EACCES'],
  ])

/** O_TMPFILE: a file without a name, which linkat gives it one at the end. */
const temporary: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'd']],
    [['open', 'fd', 'd', 'O_TMPFILE O_RDWR', 0o640]],
    [['listdir', 'd'], []],
    [
      ['fstat', 'fd', 'nlink', 'perm'],
      [0, '0640'],
    ],
    [['write', 'fd', 'text'], 4],
    [['link_open', 'fd', 'd/named']],
    [['fstat', 'fd', 'nlink'], 1],
    [['content', 'd/named'], 'text'],
    [['link_open', 'fd', 'd/named'], 'EEXIST'],
    [['link_open', 'fd', 'd/second']],
    [['unlink', 'd/named']],
    [['close', 'fd']],
    [['content', 'd/second'], 'text'],
    [['open', 'only', 'd', 'O_TMPFILE O_RDWR O_EXCL']],
    [['link_open', 'only', 'd/never'], 'ENOENT'],
    [['open', 'fd', 'd', 'O_TMPFILE O_RDONLY'], 'EINVAL'],
  ])

const names: Check = (t, { directory }) =>
  table(t, directory, [
    ...[RAW_NAME, LONG, '\xff', '\x01', ' ', '\\', '...', '-', 'a\nb'].flatMap((name): Row[] => [
      [['create', name, name]],
      [['content', name], name],
      [['listdir', '.'], [name]],
      [['rename', name, 'x']],
      [['link', 'x', name]],
      [['unlink', 'x']],
      [['symlink', name, 'x']],
      [['content', 'x'], name],
      [['unlink', 'x']],
      [['unlink', name]],
    ]),
    [['create', `${RAW_NAME}\xff`], 'ENAMETOOLONG'],
    [['stat', TOO_LONG, 'size'], 'ENAMETOOLONG'],
    // Bytes that would be the same letter in Unicode are different names.
    [['mkdir', 'd']],
    [['create', 'd/\xc3\xa9', 'composed']],
    [['create', 'd/e\xcc\x81', 'decomposed']],
    [['create', 'd/\xe9', 'latin1']],
    [['content', 'd/\xc3\xa9'], 'composed'],
    [
      ['listdir', 'd'],
      ['e\xcc\x81', '\xc3\xa9', '\xe9'],
    ],
  ])

/** What changes a directory shows in its times, and a rename or link in the file's. */
const times: Check = (t, { directory }) => {
  const old = '1000000000'
  const since = (result: string): boolean => BigInt(result) > 1_500_000_000_000_000_000n
  const changes: Row[][] = [
    [[['create', 'd/f']]],
    [[['link', 'd/f', 'd/g']]],
    [[['rename', 'd/g', 'd/h']]],
    [[['unlink', 'd/h']]],
    [[['mkdir', 'd/sub']]],
    [[['rmdir', 'd/sub']]],
    [[['symlink', 'x', 'd/s']]],
    [[['mkfifo', 'd/p']]],
  ]
  table(t, directory, [
    [['mkdir', 'd']],
    ...changes.flatMap((change): Row[] => [
      [['utimensat', 'd', old, old]],
      [['stat', 'd', 'mtime_ns'], old],
      ...change,
      [['stat', 'd', 'mtime_ns'], since],
      [['stat', 'd', 'ctime_ns'], since],
    ]),
    // What fails changes nothing.
    [['utimensat', 'd', old, old]],
    [['unlink', 'd/none'], 'ENOENT'],
    [['mkdir', 'd/f'], 'EEXIST'],
    [['stat', 'd', 'mtime_ns'], old],
  ])
}

/** A process's directory, and an open one, stay what they are wherever they are moved. */
const workingDirectory: Check = (t, { directory }) =>
  table(t, directory, [
    [['mkdir', 'a']],
    [['mkdir', 'a/b']],
    [['mkdir', 'c']],
    [['chdir', 'a/b']],
    [['rename', '../../a', '../../c/moved']],
    [['getcwd'], (cwd: string) => cwd.endsWith('/c/moved/b')],
    [['create', 'f', 'text']],
    [['content', '../../../c/moved/b/f'], 'text'],
    [['rename', '../b', '../../b']],
    [
      ['listdir', '..'],
      ['b', 'moved'],
    ],
    [['create', '../g', 'beside']],
    [['content', '../../c/g'], 'beside'],
    [['getcwd'], (cwd: string) => cwd.endsWith('/c/b')],
  ])

interface Listing {
  missing: string[]
  twice: string[]
  strange: string[]
}

/** Whatever comes and goes meanwhile: what was there all the time is listed once, and nothing is listed twice. */
const listings: Check = (t, { directory }: Place) => {
  const clean: Listing = { missing: [], twice: [], strange: [] }
  const found = python<Record<string, Listing>>('listings.py', directory, { entries: ENTRIES })
  for (const [story, listing] of Object.entries(found)) t.same(listing, clean, story)
}

posixTests({
  mkdir,
  'set-group-id directories': setGroupIdDirectory,
  rmdir,
  link,
  'unlink, also of what is open': unlink,
  symlink,
  rename,
  'rename: NOREPLACE and EXCHANGE': renameFlags,
  'sticky directories': sticky,
  'mkfifo and mknod': nodes,
  open,
  O_TMPFILE: temporary,
  'names of any bytes': names,
  'times of directories': times,
  'working directories that move': workingDirectory,
  'large directories listed while they change': listings,
})
