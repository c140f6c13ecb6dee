/** Restores as processes see them that were there before: nothing stale, nothing lost, nothing hangs. */
import fs from 'node:fs'
import t, { type Test } from 'tap'
import type { RestoreInfo, SnapshotInfo } from '../../src/api/snapshots.ts'
import { fingerprint, Guest, sh } from './guest.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const isRoot = process.getuid?.() === 0

/** A mount with one workspace. */
async function workspaceFor(t: Test): Promise<{ mount: TestMount; dir: string }> {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace/a'))
  return { mount, dir: mount.at('workspace/a') }
}

function snapshot(mount: TestMount, name: string, path = '/workspace/a'): SnapshotInfo {
  return mount.json<SnapshotInfo>('snapshot', path, '--name', name)
}

function restore(mount: TestMount, name: string, path = '/workspace/a'): RestoreInfo {
  return mount.json<RestoreInfo>('restore', path, name, '--force')
}

/** One of everything that a filesystem can hold. */
const EVERYTHING = `
  mkdir -p empty deep/er/est many
  echo hello > file; echo deep > deep/er/est/file
  head -c 300000 /dev/urandom > big
  for i in $(seq 200); do echo $i > many/$i; done
  ln file hard; ln file deep/hard
  ln -s ../file deep/link; ln -s /nowhere dangling
  mkfifo fifo
  truncate -s 10M sparse; printf middle | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
  fallocate -l 1M reserved
  cp file program; chmod 6755 program; chmod 0700 deep; chmod 1777 empty
  printf 'a\\xff' > "$(printf 'odd\\xffname')"
  setfattr -n user.one -v first file; setfattr -n user.two -v second deep
  setfacl --set u::rwx,g::r-x,o::- file; setfacl -d --set u::rwx,g::rwx,o::- many
  touch -d '2001-02-03 04:05:06.123456789' file; touch -h -d '2002-02-03 04:05:06.5' dangling
  touch -a -d '2003-02-03 04:05:06.987654321' big; touch -d '1965-01-01 00:00:00.25' deep/er
`
const AS_ROOT = `
  chown 1001:1002 program; chmod 6755 program; chown -h 1003 dangling; mknod null c 1 3
  setfattr -n trusted.three -v third file
`
const CHANGED = `
  rm -r deep many/1? sparse fifo dangling; echo more >> file; echo other > big; mkdir deep new; echo new > new/file
  chmod 600 program; setfattr -x user.one file; setfattr -n user.new -v new empty; setfacl -b file; rmdir empty
  mv many/1 many/first; ln big bigger; truncate -s 5 reserved; touch file; echo x > fifo
`

t.test('everything comes back, and an undo brings back what was before', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh(EVERYTHING + (isRoot ? AS_ROOT : ''), dir)
  const before = fingerprint(dir)
  snapshot(mount, 'first')
  sh(CHANGED, dir)
  const changed = fingerprint(dir)
  t.not(changed, before)

  const dry = mount.json<RestoreInfo>('restore', '/workspace/a', 'first', '--dry-run')
  t.equal(fingerprint(dir), changed, 'a dry run changes nothing')
  t.equal(dry.undo, null)
  t.equal(dry.dry_run, true)
  const paths = dry.changes.map((change) => `${change.change} ${change.path}`)
  for (const path of [
    'removed new',
    'removed new/file',
    'added sparse',
    'added deep/er/est/file',
    'renamed many/1',
    'modified big',
  ]) {
    t.ok(paths.includes(path), `a dry run tells: ${path}`)
  }

  const done = restore(mount, 'first')
  t.equal(fingerprint(dir), before)
  t.same(done.changes, dry.changes, 'a restore does what its dry run said')
  t.equal(fs.statSync(`${dir}/file`).ino, fs.statSync(`${dir}/deep/hard`).ino, 'hard links are links again')

  const undone = restore(mount, done.undo ?? '')
  t.equal(fingerprint(dir), changed)
  restore(mount, undone.undo ?? '')
  t.equal(fingerprint(dir), before, 'the undo can be undone')

  sh('echo after > after', dir)
  const after = fingerprint(dir)
  await mount.kill()
  await mount.start()
  t.equal(fingerprint(dir), after, 'restored state and later writes survive SIGKILL')
  restore(mount, done.undo ?? '')
  t.equal(fingerprint(dir), changed)
  t.equal(await mount.stop(), 0)
  await mount.start()
  t.equal(fingerprint(dir), changed, 'and a clean end')
  snapshot(mount, 'of-restored')
  restore(mount, 'first')
  restore(mount, 'of-restored')
  t.equal(fingerprint(dir), changed, 'a snapshot of a restored state')
})

t.test('names, listings, attributes and pages that were cached', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir d e; echo old > d/kept; echo gone > d/gone; ln -s old link; echo same > same; mkdir was; echo x > thing', dir)
  snapshot(mount, 'old')
  sh('rm d/gone; echo newer > d/kept; echo added > d/added; ln -sf new link; rmdir was; rm thing; mkdir thing; mkdir e/new', dir)
  const guests = [new Guest(t, dir), new Guest(t, dir)]
  const look = `[sorted(os.listdir('d')), open('d/kept').read(), os.path.exists('d/gone'), os.path.exists('d/added'),
    os.readlink('link'), open('same').read(), os.path.isdir('was'), os.path.isdir('thing'), os.listdir('e'),
    os.stat('d/kept').st_size, os.stat('e').st_nlink, sorted(e.name for e in os.scandir('.') if e.is_dir())]`
  const fresh = [['added', 'kept'], 'newer\n', false, true, 'new', 'same\n', false, true, ['new'], 6, 3, ['d', 'e', 'thing']]
  const old = [['gone', 'kept'], 'old\n', true, false, 'old', 'same\n', true, false, [], 4, 2, ['d', 'e', 'was']]
  for (const guest of guests) for (let i = 0; i < 2; i++) t.same(await guest.run(look), fresh, 'warms every cache')
  const { undo } = restore(mount, 'old')
  for (const guest of guests) for (let i = 0; i < 2; i++) t.same(await guest.run(look), old)
  restore(mount, undo ?? '')
  for (const guest of guests) for (let i = 0; i < 2; i++) t.same(await guest.run(look), fresh)
})

t.test('open files', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('echo old > both; mkdir d', dir)
  snapshot(mount, 'old')
  const guest = new Guest(t, dir)
  await guest.run("both = os.open('both', os.O_RDWR); os.pwrite(both, b'newer content', 0)")
  await guest.run("made = os.open('d/made', os.O_RDWR | os.O_CREAT); os.write(made, b'made later' * 1000)")
  await guest.run("quiet = os.open('quiet', os.O_RDWR | os.O_CREAT); os.write(quiet, b'never looked at')")
  await guest.run("inner = os.open('d', os.O_RDONLY); nodir = (os.mkdir('n'), os.open('n', os.O_RDONLY))[1]")
  const { undo } = restore(mount, 'old')

  t.same(await guest.run('[os.pread(both, 100, 0), os.fstat(both).st_size]'), ['old\n', 4], 'open in both states')
  t.same(await guest.run('[os.fstat(made).st_nlink, os.fstat(made).st_size]'), [0, 10000], 'made later: lives on without a name')
  t.equal(await guest.run('os.pread(made, 10, 9990)'), 'made later')
  t.equal(await guest.run("os.pwrite(made, b'!', 10000)"), 1)
  t.equal(await guest.run('os.pread(made, 20, 9990)'), 'made later!')
  t.equal(await guest.run('(os.ftruncate(made, 4), os.fstat(made).st_size)[1]'), 4)
  t.equal(await guest.run('os.fchmod(made, 0o600)'), null)
  t.same(await guest.run('os.listdir(inner)'), [])
  t.same(await guest.run('[os.listdir(nodir), os.fstat(nodir).st_nlink]'), [[], 0], 'a directory that is gone is empty')
  t.equal(await guest.run("os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=nodir)"), 'ENOENT')
  t.equal(await guest.run("os.pwrite(both, b'written', 0)"), 7, 'what is written now is in the restored file')
  t.equal(fs.readFileSync(`${dir}/both`, 'utf8'), 'written')

  const second = restore(mount, 'old')
  t.equal(await guest.run('os.pread(made, 20, 0)'), 'made', 'it lives through the next restore')
  restore(mount, undo ?? '')
  t.equal(await guest.run('os.pread(both, 100, 0)'), 'newer content')
  t.same(await guest.run('[os.fstat(made).st_nlink, os.fstat(made).st_size]'), [1, 10000], 'it has its name and content again')
  t.equal(await guest.run('os.pread(quiet, 100, 0)'), 'never looked at')
  restore(mount, second.undo ?? '')
  t.equal(await guest.run('os.fstat(quiet).st_nlink'), 0)
  guest.end()
  await mount.kill()
  await mount.start()
  t.same(fs.readdirSync(dir).sort(), ['both', 'd'], 'nothing comes back after SIGKILL')
  t.equal(fs.readFileSync(`${dir}/both`, 'utf8'), 'written')
})

t.test('an open file of the snapshot that was unlinked then', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  const guest = new Guest(t, dir)
  await guest.run("f = os.open('f', os.O_RDWR | os.O_CREAT); os.write(f, b'no name'); os.unlink('f')")
  t.equal(snapshot(mount, 'with-open').file_count, 0, 'a file without a name is not counted')
  await guest.run("os.pwrite(f, b'xx', 0)")
  restore(mount, 'with-open')
  t.same(await guest.run('[os.pread(f, 100, 0), os.fstat(f).st_nlink]'), ['no name', 0])
  guest.end()
  restore(mount, 'with-open')
  t.same(fs.readdirSync(dir), [])
  t.equal(mount.json<{ file_count: number }>('workspace', 'show', '/workspace/a').file_count, 0)
})

t.test('mappings', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  const guest = new Guest(t, dir)
  await guest.run(`
for name in ('shared', 'dirty', 'removed'):
    open(name, 'wb').write(b'o' * 20000)
def mapped(name):
    fd = os.open(name, os.O_RDWR)
    return mmap.mmap(fd, 20000)
`)
  snapshot(mount, 'old')
  await guest.run(`
open('later', 'wb').write(b'l' * 20000)
shared, dirty, removed, later = mapped('shared'), mapped('dirty'), mapped('removed'), mapped('later')
private = mmap.mmap(os.open('shared', os.O_RDWR), 20000, flags=mmap.MAP_PRIVATE)
private[8192:8196] = b'mine'
os.unlink('removed')
shared[100:104] = b'NEWS'
shared.flush()
`)
  t.same(await guest.run('[shared[99:105], private[99:105]]'), ['oNEWSo', 'oNEWSo'])
  await guest.run("dirty[5000:5004] = b'LOST'; later[0:5] = b'later'")
  const { undo } = restore(mount, 'old')
  t.equal(await guest.run('shared[99:105]'), 'oooooo', 'a shared mapping shows the restored bytes')
  t.equal(await guest.run('private[99:105] + private[8192:8196]'), 'oooooomine', 'a private one too, but for its own pages')
  t.equal(await guest.run('dirty[4999:5005]'), 'oooooo', 'what a mapping had dirtied is not in the restored file')
  t.equal(await guest.run('later[0:6]'), 'laterl', 'the mapping of a file without a name stays')
  t.equal(fs.readFileSync(`${dir}/dirty`, 'latin1'), 'o'.repeat(20000))
  await guest.run("dirty[0:3] = b'new'; dirty.flush()")
  t.equal(fs.readFileSync(`${dir}/dirty`, 'latin1'), `new${'o'.repeat(19997)}`, 'the mapping is one of the restored file')
  restore(mount, undo ?? '')
  t.equal(fs.readFileSync(`${dir}/dirty`, 'latin1').slice(4999, 5005), 'oLOSTo', 'the undo has what had been dirty')
  t.equal(await guest.run('later[0:6]'), 'laterl')
  t.equal(await guest.run('shared[99:105]'), 'oNEWSo')
})

t.test('a mapping that is written to all the time does not bring back what was before', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  const guest = new Guest(t, dir)
  await guest.run(`
import threading
SIZE = 4096 * 256
open('f', 'wb').write(b'o' * SIZE)
stop = False
def dirty():
    while not stop:
        for at in range(0, SIZE, 4096):
            m[at] = 68
`)
  snapshot(mount, 'old')
  for (let round = 0; round < 6; round++) {
    await guest.run(`
fd = os.open('f', os.O_RDWR)
os.pwrite(fd, b'n' * SIZE, 0)
m = mmap.mmap(fd, SIZE)
stop = False
thread = threading.Thread(target=dirty)
thread.start()
`)
    const { undo } = restore(mount, 'old')
    await guest.run('stop = True; thread.join(); m.flush(); m.close(); os.close(fd)')
    for (const [name, letter] of [
      ['f', 'o'],
      [`.snapshots/${undo}/f`, 'n'],
    ] as const) {
      const bytes = fs.readFileSync(`${dir}/${name}`, 'latin1')
      const pages = Array.from({ length: 256 }, (_, i) => bytes.slice(i * 4096 + 1, (i + 1) * 4096))
      t.equal(pages.filter((page) => page !== letter.repeat(4095)).length, 0, `every page of ${name} is of one state`)
    }
  }
})

t.test('a nested workspace that was deleted under somebody comes back', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  mount.ctl('workspace', 'create', '/workspace/a/sub')
  sh('mkdir sub/d; echo 1 > sub/d/f', dir)
  snapshot(mount, 'all')
  sh('mkdir sub/d/later; echo 2 > sub/d/f; echo 3 > sub/d/later/f', dir)
  const guests = [new Guest(t, `${dir}/sub/d/later`), new Guest(t, `${dir}/sub/d`)]
  for (const guest of guests) await guest.run("f = open('f'); f.read(); os.listdir('.')")
  mount.ctl('workspace', 'delete', '/workspace/a/sub')
  const { undo } = restore(mount, 'all')
  t.equal(sh('ls sub sub/d; cat sub/d/f; ls sub/d/later 2>&1 || true; mkdir sub/d/x', dir).includes('No such file'), true)
  t.same(fs.readdirSync(`${dir}/sub/d`).sort(), ['f', 'x'])
  restore(mount, undo ?? '')
  t.same(fs.readdirSync(dir), [])
  restore(mount, 'all')
  t.equal(sh('find . -mindepth 1 | sort | tr "\\n" " "; touch sub/d/new; cat sub/d/f', dir), './sub ./sub/d ./sub/d/f 1\n')
})

t.test('working directories', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir -p kept/in; echo 1 > kept/in/f', dir)
  snapshot(mount, 'old')
  sh('echo 2 > kept/in/f; mkdir -p gone/in kept/in/new; echo 3 > gone/in/f', dir)
  const [kept, gone, below] = [new Guest(t, `${dir}/kept/in`), new Guest(t, `${dir}/gone`), new Guest(t, `${dir}/gone/in`)]
  const look = '[os.getcwd(), sorted(os.listdir(".")), open("f").read()]'
  t.same(await kept.run(look), [`${dir}/kept/in`, ['f', 'new'], '2\n'])
  t.same(await below.run(look), [`${dir}/gone/in`, ['f'], '3\n'])
  const { undo } = restore(mount, 'old')
  t.same(await kept.run(look), [`${dir}/kept/in`, ['f'], '1\n'], 'kept: getcwd works and shows what was restored')
  t.equal(await kept.run('os.path.samefile(".", os.getcwd())'), true)
  for (const guest of [gone, below]) {
    t.equal(await guest.run('os.getcwd()'), 'ENOENT', 'gone: getcwd says so')
    t.same(await guest.run('os.listdir(".")'), [])
    t.equal(await guest.run('open("f").read()'), 'ENOENT')
    t.equal(await guest.run('open("new", "w")'), 'ENOENT')
  }
  t.equal(await gone.run('os.path.exists("..")'), true)

  restore(mount, undo ?? '')
  t.same(await kept.run(look), [`${dir}/kept/in`, ['f', 'new'], '2\n'])
  t.same(await below.run('[os.listdir("."), open("f").read()]'), [['f'], '3\n'], 'gone and back: who was in it is in it again')
  const fresh = new Guest(t, `${dir}/gone/in`)
  t.same(await fresh.run(look), [`${dir}/gone/in`, ['f'], '3\n'], 'who comes after the undo finds the directory')
  t.equal(await below.run('os.getcwd()'), `${dir}/gone/in`, 'and with that it has its path again')
  sh('echo 4 > gone/in/new; mkdir gone/sub; rm gone/in/f; mv gone/in/new gone/in/f', dir)
  t.same(await fresh.run(look), [`${dir}/gone/in`, ['f'], '4\n'], 'and can write in it')
})

t.test('a directory that was removed by rmdir under somebody comes back', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir -p d/in over from', dir)
  snapshot(mount, 'old')
  const guests = [new Guest(t, `${dir}/d/in`), new Guest(t, `${dir}/over`)]
  for (const guest of guests) await guest.run('os.listdir(".")')
  for (let i = 0; i < 3; i++) {
    sh('rm -r d; mv -T from over', dir)
    restore(mount, 'old')
    sh('touch d/in/file over/file from/file; mkdir d/in/sub over/sub; ls d/in over', dir)
    t.same(fs.readdirSync(`${dir}/over`).sort(), ['file', 'sub'])
    sh('rm -r d/in/* over/* from/*', dir)
  }
})
