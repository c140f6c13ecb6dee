/**
 * What programs remember of the state before a restore: leases, locks, working directories, names that were absent, listings in
 * progress, mounts inside, programs that run, files without a name. One row for each; docs/conformance.md has the same table.
 * All rows live in one workspace, in a directory each, and go through one restore and its undo.
 */
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { RestoreInfo } from '../../src/api/snapshots.ts'
import { Guest, scriptOf, sh } from './guest.ts'
import { mountFor, noMount } from './harness.ts'

const skip = noMount ?? false
const isRoot = process.getuid?.() === 0
/** What follows a restore a little later (an event, a signal) is waited for so long. */
const LATER_MS_MAX = 60_000

/** What a guest must say of an expression; with `later` it may say something else first. */
type Look = [expression: string, expected: unknown, later?: 'later']

interface Row {
  what: string
  /** shell, in the row's directory: what the snapshot has */
  old: string
  /** shell: what was changed since */
  since: string
  /** Python, in the row's directory: what the program remembers */
  hold: string
  restored: Look[]
  undone: Look[]
  needsRoot?: true
}

const rows: Row[] = [
  {
    what: 'a read lease of a file that changes is broken, as by any program that opens it to write',
    old: 'echo old > f; echo same > same',
    since: 'echo newer > f',
    hold: 'broken = remembers.lease("f", fcntl.F_RDLCK)',
    restored: [
      ['broken', [2], 'later'],
      ['open("f").read()', 'old\n'],
    ],
    undone: [['open("f").read()', 'newer\n']],
  },
  {
    what: 'a write lease too',
    old: 'echo old > f',
    since: 'echo newer > f',
    hold: 'broken = remembers.lease("f", fcntl.F_WRLCK)',
    restored: [['broken', [2], 'later']],
    undone: [],
  },
  {
    what: 'a lease of a file that stays as it is, is kept',
    old: 'echo same > same; echo old > f',
    since: 'echo newer > f',
    hold: 'broken = remembers.lease("same", fcntl.F_RDLCK)',
    restored: [['time.sleep(2) or broken', []]],
    undone: [['broken', []]],
  },
  {
    what: 'locks on a file that changes are held',
    old: 'echo old > f',
    since: 'echo newer > f',
    hold: 'f = open("f", "r+"); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)',
    restored: [['other("may_lock", "f")', [false, false]]],
    undone: [
      ['other("may_lock", "f")', [false, false]],
      ['f.close() or other("may_lock", "f")', [true, true]],
    ],
  },
  {
    what: 'locks on a file that goes are held, and are there with it when it is back',
    old: '',
    since: 'echo new > f',
    hold: 'f = open("f", "r+"); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)',
    restored: [
      ['os.path.exists("f")', false],
      ['fcntl.flock(f, fcntl.LOCK_SH) or fcntl.flock(f, fcntl.LOCK_EX)', null],
    ],
    undone: [
      ['other("may_lock", "f")', [false, false]],
      ['f.close() or other("may_lock", "f")', [true, true]],
    ],
  },
  {
    what: 'locks are on the file, not on the name: another file of that name is free, as after a rename',
    old: 'echo old > f',
    since: 'echo new > f.new; mv f.new f',
    hold: 'f = open("f", "r+"); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)',
    restored: [
      ['other("may_lock", "f")', [true, true]],
      ['f.read()', 'new\n'],
    ],
    undone: [['other("may_lock", "f")', [false, false]]],
  },
  {
    what: 'a working directory that stays shows what is restored',
    old: 'mkdir d; echo old > d/f',
    since: 'echo newer > d/f; echo x > d/made',
    hold: 'os.chdir("d"); at = os.getcwd(); os.listdir(".")',
    restored: [['[os.getcwd() == at, os.listdir("."), open("f").read()]', [true, ['f'], 'old\n']]],
    undone: [['[os.getcwd() == at, sorted(os.listdir(".")), open("f").read()]', [true, ['f', 'made'], 'newer\n']]],
  },
  {
    what: 'a working directory that goes is one that was removed, and one again when it is back',
    old: '',
    since: 'mkdir -p d/in; echo x > d/in/f',
    hold: 'os.chdir("d/in"); at = os.getcwd(); os.listdir(".")',
    restored: [
      ['os.getcwd()', 'ENOENT'],
      ['os.listdir(".")', []],
      ['open("f")', 'ENOENT'],
      ['open("new", "w")', 'ENOENT'],
    ],
    undone: [
      ['[os.listdir("."), open("f").read()]', [['f'], 'x\n']],
      ['[os.stat(at).st_ino == os.stat(".").st_ino, os.getcwd() == at]', [true, true]],
    ],
  },
  {
    what: 'a working directory that another one of its name takes the place of',
    old: 'mkdir d; echo old > d/f',
    since: 'mv d away; mkdir d; echo new > d/f',
    hold: 'os.chdir("d"); at = os.getcwd(); os.listdir(".")',
    restored: [
      ['os.getcwd()', 'ENOENT'],
      ['os.listdir(".")', []],
      ['open(at + "/f").read()', 'old\n'],
    ],
    undone: [
      ['open(at + "/f").read()', 'new\n'],
      ['[os.getcwd() == at, open("f").read()]', [true, 'new\n']],
    ],
  },
  {
    what: 'names that were absent are there, and the other way',
    old: 'mkdir d; echo old > d/back',
    since: 'rm d/back; echo new > d/made',
    hold: `
d = os.open('d', os.O_RDONLY)
def there():
    return [os.path.exists('d/back'), os.path.exists('d/made')] + [os.access(name, os.F_OK, dir_fd=d) for name in ('back', 'made')]
there()`,
    restored: [
      ['there()', [true, false, true, false]],
      ['os.open("d/back", os.O_CREAT | os.O_EXCL)', 'EEXIST'],
    ],
    undone: [
      ['there()', [false, true, false, true]],
      ['os.open("d/made", os.O_CREAT | os.O_EXCL)', 'EEXIST'],
    ],
  },
  {
    what: 'a listing in progress ends, and shows once each name that is in both states',
    old: 'mkdir d; touch d/both{1..400} d/old{1..200}',
    since: 'rm d/old*; touch d/new{1..300}',
    hold: `
both = [f'both{i}' for i in range(1, 401)]
one, two, three = [remembers.Listing('d') for _ in range(3)]
one.read(1); two.read(8); three.read(3)`,
    restored: [
      ['one.rest(both)', [[], [], true]],
      ['two.rest(both)', [[], [], true]],
      ['sorted(os.listdir("d")) == sorted(both + [f"old{i}" for i in range(1, 201)])', true],
    ],
    undone: [['three.rest(both)', [[], [], true]]],
  },
  {
    what: 'an open directory leads to what is restored',
    old: 'mkdir d; echo old > d/f',
    since: 'echo newer > d/f; mkdir e; echo x > e/f',
    hold: `
d, e = [os.open(name, os.O_RDONLY) for name in ('d', 'e')]
def read(directory):
    return open(os.open('f', os.O_RDONLY, dir_fd=directory)).read()
read(d), read(e)`,
    restored: [
      ['read(d)', 'old\n'],
      ['read(e)', 'ENOENT'],
      ['os.open("n", os.O_CREAT | os.O_WRONLY, dir_fd=e)', 'ENOENT'],
    ],
    undone: [
      ['read(d)', 'newer\n'],
      ['read(e)', 'x\n'],
    ],
  },
  {
    what: 'mappings show what is restored, private ones but for their own pages',
    old: 'printf %20000s old > f',
    since: 'printf %20000s new > f',
    hold: `
f = os.open('f', os.O_RDWR)
shared, private = mmap.mmap(f, 20000), mmap.mmap(f, 20000, flags=mmap.MAP_PRIVATE)
private[0:4] = b'mine'`,
    restored: [['[shared[19997:], private[19997:], private[:4], shared[:4]]', ['old', 'old', 'mine', '    ']]],
    undone: [['[shared[19997:], private[19997:], private[:4], shared[:4]]', ['new', 'new', 'mine', '    ']]],
  },
  {
    what: 'a program that runs goes on when its file goes, or another takes the place',
    old: 'cp /bin/sleep replaced',
    since: 'cp /bin/sleep gone; cp /bin/sleep n; mv n replaced',
    hold: `
import subprocess
running = [subprocess.Popen(['./' + name, '1000']) for name in ('gone', 'replaced')]
time.sleep(0.5)`,
    restored: [
      ['[one.poll() for one in running]', [null, null]],
      ['os.path.exists("gone")', false],
      ['open("replaced", "r+b").close()', null],
      ['open(f"/proc/{running[0].pid}/exe", "rb").read() == open("/bin/sleep", "rb").read()', true],
    ],
    undone: [
      ['[one.poll() for one in running]', [null, null]],
      ['open("gone", "r+b")', 'ETXTBSY'],
      ['[(one.kill(), one.wait()) for one in running] and open("gone", "r+b").close()', null],
    ],
  },
  {
    what: 'a file that is executed while its content changes still cannot be written to',
    old: 'cp /bin/sleep f; echo old >> f',
    since: 'truncate -s -4 f; echo newer >> f',
    hold: `
import subprocess
running = subprocess.Popen(['./f', '1000'])
time.sleep(0.5)`,
    restored: [
      ['open("f", "rb").read()[-4:]', 'old\n'],
      ['running.poll()', null],
      ['open("f", "r+b")', 'ETXTBSY'],
    ],
    undone: [['(running.poll(), running.kill(), running.wait())[0]', null]],
  },
  {
    what: 'files without a name live on, and one of O_TMPFILE can be given a name',
    old: '',
    since: '',
    hold: `
named = os.open('n', os.O_RDWR | os.O_CREAT)
os.write(named, b'unlinked'); os.unlink('n')
tmp = os.open('.', os.O_RDWR | os.O_TMPFILE)
os.write(tmp, b'temporary')
def read():
    return [os.pread(named, 100, 0), os.pread(tmp, 100, 0)]`,
    restored: [
      ['read()', ['unlinked', 'temporary']],
      ['os.pwrite(named, b"U", 0)', 1],
      ['libc.linkat(-100, b"/proc/self/fd/%d" % tmp, -100, b"tmp", 0x400), ctypes.get_errno()', [0, 0]],
      ['open("tmp").read()', 'temporary'],
    ],
    undone: [['os.pread(tmp, 100, 0)', 'temporary']],
  },
  {
    what: 'a pipe through a FIFO that goes, goes on',
    old: '',
    since: 'mkfifo p',
    hold: 'r = os.open("p", os.O_RDONLY | os.O_NONBLOCK); w = os.open("p", os.O_WRONLY)',
    restored: [['(os.write(w, b"x"), os.read(r, 1))[1]', 'x']],
    undone: [['(os.write(w, b"y"), os.read(r, 1))[1]', 'y']],
  },
  {
    what: 'another filesystem that is mounted on a directory that stays is left alone',
    needsRoot: true,
    old: 'mkdir m; echo under > m/f; echo old > f',
    since: 'echo newer > f; echo x > m/made; mount -t tmpfs none m; echo above > m/f',
    hold: 'os.listdir("m")',
    restored: [
      ['[os.listdir("m"), open("m/f").read(), open("f").read()]', [['f'], 'above\n', 'old\n']],
      ['os.path.ismount("m")', true],
    ],
    undone: [
      ['open("m/f").read()', 'above\n'],
      ['os.system("umount m")', 0],
      ['sorted(os.listdir("m"))', ['f', 'made']],
    ],
  },
  {
    what: 'one on a directory that goes is detached, and goes on for what is open in it',
    needsRoot: true,
    old: '',
    since: 'mkdir -p d/m; mount -t tmpfs none d/m; echo above > d/m/f',
    hold: 'f = open("d/m/f")',
    restored: [
      ['os.path.exists("d")', false],
      ['f.read()', 'above\n'],
      ['[line for line in open("/proc/self/mounts") if os.getcwd() in line]', []],
    ],
    undone: [['os.listdir("d/m")', []]],
  },
  {
    what: 'a bind mount of a directory shows what is restored, or a removed directory',
    needsRoot: true,
    old: 'mkdir kept; echo old > kept/f',
    since: `echo newer > kept/f; mkdir gone; echo x > gone/f
      for d in kept gone; do mkdir "$OUTSIDE/$d"; mount --bind $d "$OUTSIDE/$d"; done`,
    hold: '[os.listdir(f"{outside}/{name}") for name in ("kept", "gone")]',
    restored: [
      ['open(f"{outside}/kept/f").read()', 'old\n'],
      ['os.listdir(f"{outside}/gone")', []],
      ['open(f"{outside}/gone/new", "w")', 'ENOENT'],
    ],
    undone: [
      ['open(f"{outside}/kept/f").read()', 'newer\n'],
      ['open(f"{outside}/gone/f").read()', 'x\n'],
      ['os.system(f"umount {outside}/kept {outside}/gone")', 0],
    ],
  },
]

/** Another process, for what a guest cannot see itself. */
const OTHER = `
import subprocess
def other(name, *words):
    code = f'import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {sys.path[0]!r}); import remembers; print(remembers.{name}(*{words!r}))'
    return eval(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
`

t.test('what programs remember', { skip }, async (t) => {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  fs.mkdirSync(dir)
  const outside = fs.mkdtempSync(`${mount.data}-outside-`)
  t.teardown(() => {
    sh('for d in */; do umount -l "$d" 2>/dev/null || true; done', outside)
    fs.rmSync(outside, { recursive: true, force: true })
  })
  const wanted = rows.filter(({ needsRoot }) => isRoot || needsRoot !== true)
  const at = (row: Row): string => `${dir}/${rows.indexOf(row)}`
  const shell = (row: Row, script: string): string => sh(`OUTSIDE='${outside}'\n${script}`, at(row))
  for (const row of wanted) {
    fs.mkdirSync(at(row))
    shell(row, row.old)
  }
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  const guests = new Map<Row, Guest>()
  for (const row of wanted) {
    shell(row, row.since)
    const guest = new Guest(t, at(row))
    guests.set(row, guest)
    const prelude = `sys.path.insert(0, ${JSON.stringify(scriptOf('.'))}); sys.dont_write_bytecode = True; import remembers`
    t.equal(await guest.run(`${prelude}; outside = ${JSON.stringify(outside)}\n${OTHER}`), null)
    t.notMatch(await guest.run(row.hold), /^E[A-Z]+$|Error/, `${row.what}: the program is ready`)
  }
  const look = async (when: 'restored' | 'undone'): Promise<void> => {
    for (const row of wanted) {
      for (const [expression, expected, later] of row[when]) {
        const until = Date.now() + LATER_MS_MAX
        let said = await guests.get(row)?.run(expression)
        while (later !== undefined && JSON.stringify(said) !== JSON.stringify(expected) && Date.now() < until) {
          await sleep(100)
          said = await guests.get(row)?.run(expression)
        }
        t.same(said, expected, `${row.what}: ${when}: ${expression}`)
      }
    }
  }
  const { undo } = mount.json<RestoreInfo>('restore', '/workspace/a', 'old', '--force')
  await look('restored')
  mount.json<RestoreInfo>('restore', '/workspace/a', undo ?? '', '--force')
  await look('undone')
  for (const guest of guests.values()) guest.end()
  t.equal(await mount.stop(), 0, 'nothing keeps the mount from being unmounted')
})
