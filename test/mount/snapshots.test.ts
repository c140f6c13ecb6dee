/** Snapshots, forks and `.snapshots` by the commands and through the mount. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { DiffInfo, RestoreInfo, SnapshotInfo } from '../../src/api/snapshots.ts'
import type { ForkInfo, WorkspaceInfo } from '../../src/api/workspaces.ts'
import { fingerprint, Guest, inSnapshot, sh, shFails, withoutWriting } from './guest.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const nexusctl = fileURLToPath(new URL('../../bin/nexusctl.js', import.meta.url))

async function workspaceFor(t: Test): Promise<{ mount: TestMount; dir: string }> {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace/a'))
  return { mount, dir: mount.at('workspace/a') }
}

/** Runs nexusctl, which must fail: its exit status and its one line. */
function fails(mount: TestMount, ...words: string[]): { status: number | null; line: string } {
  const { status, stderr } = spawnSync(process.execPath, [nexusctl, '--data', mount.data, ...words], { encoding: 'utf8' })
  return { status, line: stderr }
}

t.test('the commands, their JSON and their failures', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir d; echo 12345 > d/f; ln d/f d/g; ln -s f d/l', dir)
  const first = mount.json<SnapshotInfo>('snapshot', '/workspace/a', '--name', 'first', '--meta', 'k=v', '--meta', 'why=a test')
  t.match(first, {
    snapshot_id: /^snap_[0-9A-HJKMNP-TV-Z]{26}$/,
    name: 'first',
    path: '/workspace/a',
    created_at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
    root: /^[0-9a-f]{64}$/,
    file_count: 2,
    bytes: 6,
    metadata: { k: 'v', why: 'a test' },
    parent: null,
    automatic: false,
    elapsed_ms: Number,
  })
  const same = mount.json<SnapshotInfo>('snapshot', dir)
  t.equal(same.name, null)
  t.equal(same.root, first.root, 'equal contents, equal root')
  t.equal(same.parent, first.snapshot_id)
  t.equal(mount.json<SnapshotInfo[]>('snapshot', 'list', '/workspace/a').length, 2)
  const { elapsed_ms, ...listed } = first
  t.ok(elapsed_ms !== undefined && elapsed_ms < 1000)
  for (const word of ['first', first.snapshot_id]) {
    t.same(mount.json<SnapshotInfo>('snapshot', 'show', '/workspace/a', word), listed, 'shown by name and id')
  }
  sh('echo 6 >> d/f; mkdir e; rm d/l; chmod 700 d', dir)
  const diff = mount.json<DiffInfo>('snapshot', 'diff', '/workspace/a', 'first')
  t.equal(diff.to, 'live')
  t.same(diff.changes.map(({ change, path, what }) => [change, path, what.join()]).sort(), [
    ['added', 'e', ''],
    ['modified', 'd', 'mode'],
    ['modified', 'd/g', 'content,mtime'],
    ['removed', 'd/l', ''],
  ])
  t.same(mount.json<DiffInfo>('snapshot', 'diff', '/workspace/a', 'first', same.snapshot_id).changes, [])

  const failures: [status: number, line: RegExp, words: string[]][] = [
    [1, /has a snapshot first already/, ['snapshot', '/workspace/a', '--name', 'first']],
    [1, /has no snapshot nothing/, ['restore', '/workspace/a', 'nothing']],
    [1, /fits 2 snapshots/, ['restore', '/workspace/a', first.snapshot_id.slice(0, 10)]],
    [1, /there is no \/workspace\/b/, ['snapshot', '/workspace/b']],
    [1, /not a directory/, ['snapshot', '/workspace/a/d/f']],
    [2, /./, ['snapshot', '/workspace/a', '--name', 'a/b']],
    [2, /./, ['snapshot', '/workspace/a', '--name', '..']],
    [2, /./, ['fork', '/workspace/a/d', '/workspace/b']],
    [1, /exists already/, ['fork', '/workspace/a', '/workspace/a']],
    [1, /there is no/, ['fork', '/workspace/a', '/nowhere/b']],
  ]
  for (const [status, line, words] of failures) {
    const failure = fails(mount, ...words)
    t.equal(failure.status, status, words.join(' '))
    t.match(failure.line, line)
    t.equal(failure.line.trimEnd().split('\n').length, 1, 'one line')
  }

  const gone = mount.json<SnapshotInfo>('snapshot', 'delete', '/workspace/a', 'first')
  t.equal(gone.snapshot_id, first.snapshot_id)
  const left = mount.json<SnapshotInfo[]>('snapshot', 'list', '/workspace/a')
  t.same(
    left.map(({ snapshot_id, parent }) => [snapshot_id, parent]),
    [[same.snapshot_id, null]],
    'its heir descends from its parent',
  )
  t.ok(mount.json<SnapshotInfo>('snapshot', '/workspace/a', '--name', 'first'), 'the name is free again')
})

t.test('.snapshots', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir -p d/e; echo 1 > d/f; ln d/f d/g; ln -s f d/l; setfattr -n user.x -v y d/f; touch -d 2001-01-01 d/f', dir)
  const guest = new Guest(t, dir)
  t.same(await guest.run('[os.path.exists(".snapshots/one"), os.listdir(".snapshots"), os.listdir(".")]'), [false, [], ['d']])
  const before = fingerprint(dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'one')
  t.same(await guest.run('[os.path.exists(".snapshots/one"), os.listdir(".snapshots"), os.listdir(".")]'), [true, ['one'], ['d']])
  sh('rm -r d; mkdir d', dir)
  const unnamed = mount.json<SnapshotInfo>('snapshot', '/workspace/a').snapshot_id
  t.same((await guest.run<string[]>('os.listdir(".snapshots")')).sort(), ['one', unnamed].sort(), 'unnamed ones by their id')

  const view = `${dir}/.snapshots/one`
  t.equal(fingerprint(view), inSnapshot(before), 'a view shows everything')
  sh(`cp -a ${view} copy; diff -r ${view} copy; rsync -aHAX --delete ${view}/ synced/; diff -r synced ${view}`, mount.data)
  t.equal(fingerprint(`${mount.data}/copy`).split('\n').length, before.split('\n').length)
  t.equal(sh('find . | sort | tr "\\n" " "', dir).trim(), '. ./d', 'find does not find it')
  const inode = (path: string) => fs.statSync(path, { bigint: true }).ino
  t.not(inode(`${view}/d`), inode(`${dir}/d`), 'inode numbers are unique in the mount')
  t.equal(fs.realpathSync(`${view}/d/..`), view)

  const writes = [
    'echo > new',
    'mkdir new',
    'echo 2 > d/f',
    'rm d/f',
    'rmdir d/e',
    'mv d/f d/h',
    'ln d/f d/h',
    'ln -s x d/h',
    'chmod 600 d/f',
    'chown 1 d/f',
    'touch d/f',
    'truncate -s 0 d/f',
    'setfattr -n user.x -v z d/f',
    'setfattr -x user.x d/f',
    'mkfifo p',
    'setfacl -m u:1:r d/f',
    'fallocate -l 10 d/f',
    'mkdir ../new',
    'rmdir ../one',
    'mv ../one ../two',
    'touch ..',
    'mv d/f ../../d/f',
  ]
  for (const write of writes) t.match(shFails(write, view), /Read-only file system/, `${write}: EROFS`)
  for (const write of [
    'mkdir .snapshots',
    'echo > .snapshots',
    'rmdir .snapshots',
    'rm -f .snapshots/one/d/f',
    'mv d .snapshots',
    'mv .snapshots d/',
    'ln -s x .snapshots',
  ]) {
    t.ok(shFails(write, dir), `${write}: refused`)
  }
  t.notOk(fs.existsSync(`${dir}/d/.snapshots`), 'in the root of a workspace only')
  t.ok(sh('mkdir d/.snapshots; rmdir d/.snapshots; echo fine', dir))

  sh('cp .snapshots/one/d/f d/f; cp --reflink=auto -a .snapshots/one/d back', dir)
  t.equal(fs.readFileSync(`${dir}/d/f`, 'utf8'), '1\n', 'copied back')
  t.equal(fingerprint(`${dir}/back`), fingerprint(`${view}/d`), 'the whole directory, by cp -a')

  await guest.run('f = open(".snapshots/one/d/f"); os.chdir(".snapshots/one/d")')
  t.equal(await guest.run('open("f").read()'), '1\n')
  mount.ctl('snapshot', 'delete', '/workspace/a', 'one')
  await guest.run('os.chdir("/")')
  t.same(await guest.run(`[os.path.exists("${view}"), os.path.exists("${view}/d/f"), os.listdir("${dir}/.snapshots")]`), [
    false,
    false,
    [unnamed],
  ])
  mount.ctl('snapshot', '/workspace/a', '--name', 'one')
  t.same(await guest.run(`sorted(os.listdir("${view}"))`), ['back', 'd'], 'the name now leads to the new one')
  await mount.kill()
  await mount.start()
  t.same(fs.readdirSync(view).sort(), ['back', 'd'])
})

t.test('forks', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir d; echo 1 > d/f; ln d/f d/g; setfattr -n user.x -v y d/f; truncate -s 1M d/sparse', dir)
  const original = fingerprint(dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 'old')
  const guest = new Guest(t, dir)
  await guest.run("f = os.open('open', os.O_RDWR | os.O_CREAT); os.unlink('open'); f2 = open('d/f')")
  const live = fingerprint(dir)
  t.match(mount.json<ForkInfo>('fork', '/workspace/a', '/workspace/b'), {
    path: '/workspace/b',
    source: '/workspace/a',
    snapshot: null,
  })
  const [b, c, d] = ['b', 'c', 'd'].map((name) => mount.at('workspace', name)) as [string, string, string]
  t.equal(fingerprint(b), live)
  t.notMatch(mount.json<WorkspaceInfo>('workspace', 'show', '/workspace/b'), { number: 1 })
  t.equal(mount.json<WorkspaceInfo>('workspace', 'show', '/workspace/b').file_count, 2, 'what was only open is not in it')
  sh('echo 2 > d/f; echo only > here; rm d/sparse', dir)
  sh('echo 3 > d/f; echo only > there', b)
  t.equal(fs.readFileSync(`${dir}/d/g`, 'utf8'), '2\n')
  t.equal(fs.readFileSync(`${b}/d/g`, 'utf8'), '3\n')
  t.same([fs.existsSync(`${b}/here`), fs.existsSync(`${dir}/there`), fs.existsSync(`${b}/d/sparse`)], [false, false, true])

  mount.ctl('fork', '/workspace/b', '/workspace/c')
  mount.ctl('fork', '/workspace/a', '/workspace/d', '--snapshot', 'old')
  t.equal(fingerprint(c), fingerprint(b), 'a fork of a fork')
  t.equal(fingerprint(d), original, 'a fork of an old snapshot')
  t.equal(
    mount.json<WorkspaceInfo>('workspace', 'show', '/workspace/d').parent,
    mount.json<SnapshotInfo>('snapshot', 'show', '/workspace/a', 'old').snapshot_id,
  )
  const numbers = [dir, b, c, d].map((path) => fs.statSync(`${path}/d/f`, { bigint: true }).ino)
  t.equal(new Set(numbers).size, 4, 'inode numbers are unique in the mount')
  sh('echo 4 > d/f', d)
  t.same(
    [dir, b, c, d].map((path) => fs.readFileSync(`${path}/d/f`, 'utf8')),
    ['2\n', '3\n', '3\n', '4\n'],
  )
  t.match(shFails(`ln ${b}/d/f ${c}/link`, b), /cross-device/i)

  const states = [dir, b, c, d].map(fingerprint)
  guest.end()
  await mount.kill()
  await mount.start()
  t.same([dir, b, c, d].map(fingerprint), states, 'all survive SIGKILL')
  mount.ctl('snapshot', '/workspace/c', '--name', 'of-c')
  mount.ctl('workspace', 'delete', '/workspace/b')
  mount.ctl('workspace', 'delete', '/workspace/a')
  t.equal(fingerprint(c), states[2], 'a fork lives without its source')
  sh('rm -r d', c)
  mount.ctl('restore', '/workspace/c', 'of-c')
  await mount.stop()
  await mount.start()
  t.same([c, d].map(fingerprint), states.slice(2))
})

t.test('a workspace inside a workspace', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  mount.ctl('workspace', 'create', '/workspace/a/sub', '--meta', 'k=v')
  sh('echo outer > f; echo inner > sub/f; mkdir sub/d; mkdir dir', dir)
  mount.ctl('workspace', 'create', '/workspace/a/sub/d/deep')
  sh('echo deep > sub/d/deep/f', dir)
  t.match(shFails('mv sub/f f2; ln f sub/link', dir), /cross-device/i)
  sh('mv f2 sub/f; touch -d 2001-01-01 f sub/f sub/d/deep/f', dir)
  const before = fingerprint(dir)
  const made = mount.json<SnapshotInfo>('snapshot', '/workspace/a', '--name', 'all')
  t.equal(made.file_count, 3, 'all files are counted')
  t.equal(fingerprint(`${dir}/.snapshots/all`), inSnapshot(before), 'the view has them too')
  t.match(shFails('touch .snapshots/all/sub/d/deep/new', dir), /Read-only/)

  sh('echo x > f; echo x > sub/f; echo x > sub/d/deep/f', dir)
  mount.ctl('workspace', 'create', '/workspace/a/later')
  sh('echo later > later/f', dir)
  const guest = new Guest(t, dir)
  t.same(await guest.run('[open(n).read() for n in ("f", "sub/f", "sub/d/deep/f", "later/f")]'), ['x\n', 'x\n', 'x\n', 'later\n'])
  const { undo } = mount.json<RestoreInfo>('restore', '/workspace/a', 'all')
  t.same(await guest.run('[open(n).read() for n in ("f", "sub/f", "sub/d/deep/f")]'), ['outer\n', 'inner\n', 'deep\n'])
  t.equal(await guest.run('os.path.exists("later")'), false, 'made later: gone')
  t.equal(fingerprint(dir), before)
  mount.ctl('restore', '/workspace/a', undo ?? '')
  t.same(await guest.run('[open(n).read() for n in ("f", "sub/f", "sub/d/deep/f", "later/f")]'), ['x\n', 'x\n', 'x\n', 'later\n'])

  mount.ctl('workspace', 'delete', '/workspace/a/sub')
  t.equal(await guest.run('os.path.exists("sub/f")'), false)
  mount.ctl('restore', '/workspace/a', 'all')
  t.equal(fingerprint(dir), before, 'deleted ones come back')
  sh('echo 5 > sub/new; rm sub/new', dir)
  mount.ctl('restore', '/workspace/a', 'all')
  t.same(mount.json<WorkspaceInfo>('workspace', 'show', '/workspace/a/sub').metadata, { k: 'v' })

  mount.ctl('fork', '/workspace/a', '/workspace/b')
  mount.ctl('fork', '/workspace/a/sub', '/workspace/s')
  t.equal(fingerprint(mount.at('workspace/b')), before)
  sh('echo b > sub/d/deep/f; echo b > sub/f', mount.at('workspace/b'))
  sh('echo s > d/deep/f', mount.at('workspace/s'))
  t.equal(fingerprint(dir), before, 'forks of nested ones are independent')
  t.same(
    mount.json<WorkspaceInfo[]>('workspace', 'list').map(({ path }) => path),
    [
      '/',
      '/workspace/a',
      '/workspace/a/sub',
      '/workspace/a/sub/d/deep',
      '/workspace/b',
      '/workspace/b/sub',
      '/workspace/b/sub/d/deep',
      '/workspace/s',
      '/workspace/s/d/deep',
    ],
  )
  mount.ctl('workspace', 'delete', '/workspace/a')
  t.equal(fs.readFileSync(mount.at('workspace/b/sub/d/deep/f'), 'utf8'), 'b\n')
  await mount.kill()
  await mount.start()
  t.equal(fs.readFileSync(mount.at('workspace/s/d/deep/f'), 'utf8'), 's\n')
})

t.test('workspaces in a plain directory', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh('mkdir -p p/d other', dir)
  for (const path of ['p/d/one', 'p/d/one/in', 'p/two', 'p/three']) mount.ctl('workspace', 'create', `/workspace/a/${path}`)
  sh('for w in p/d/one p/d/one/in p/two p/three; do echo $w > $w/f; done; touch -d 2001-01-01 p/d/one', dir)
  const content = (directory: string) => sh('find . | sort; find . -name f | sort | xargs cat', directory)
  const before = content(`${dir}/p`)
  mount.ctl('snapshot', '/workspace/a/p', '--name', 'plain')
  mount.ctl('snapshot', '/workspace/a', '--name', 'whole')
  sh('mv p/d/one other/moved; echo x > other/moved/in/f; echo x > p/two/f; mv p/two p/renamed', dir)
  mount.ctl('workspace', 'delete', '/workspace/a/p/three')
  mount.ctl('workspace', 'create', '/workspace/a/p/new')
  mount.ctl('restore', '/workspace/a/p', 'plain')
  t.equal(content(`${dir}/p`), before)
  t.equal(sh('cat other/moved/f other/moved/in/f', dir), 'p/d/one\nx\n', 'one that was moved out stays as it is')
  sh('echo y > p/d/one/in/f', dir)
  t.equal(fs.readFileSync(`${dir}/other/moved/in/f`, 'utf8'), 'x\n', 'the two are independent')
  const paths = () => mount.json<WorkspaceInfo[]>('workspace', 'list').map(({ path }) => path.slice('/workspace/a/'.length))
  t.same(
    paths().filter((path) => path !== ''),
    ['other/moved', 'other/moved/in', 'p/d/one', 'p/d/one/in', 'p/three', 'p/two'],
  )
  sh('rm -r other/moved/in/f; echo z > p/d/one/f', dir)

  for (const path of ['p/d/one', 'p/two', 'p/three']) mount.ctl('workspace', 'delete', `/workspace/a/${path}`)
  sh('rm -r p; mkdir p', dir)
  mount.ctl('restore', '/workspace/a/p', 'whole')
  t.equal(content(`${dir}/p`), before, 'into a new directory of the same path')
  t.same(
    paths().filter((path) => path !== ''),
    ['other/moved', 'other/moved/in', 'p/d/one', 'p/d/one/in', 'p/three', 'p/two'],
  )
  mount.ctl('restore', '/workspace/a', 'whole')
  t.equal(content(`${dir}/p`), before)
  t.same(
    paths().filter((path) => path !== ''),
    ['p/d/one', 'p/d/one/in', 'p/three', 'p/two'],
  )
  await mount.kill()
  await mount.start()
  t.equal(content(`${dir}/p`), before)
})

t.test('a plain directory', { skip }, async (t) => {
  const { mount, dir } = await workspaceFor(t)
  sh(
    'mkdir -p top/p/in out; echo 1 > top/p/f; echo 2 > top/p/in/g; ln top/p/f out/linked; echo 3 > top/p/moved; echo 4 > out/o; echo 5 > top/p/gone',
    dir,
  )
  sh('setfattr -n user.x -v y top/p/f; truncate -s 1M top/p/sparse; ln top/p/in/g top/p/g2', dir)
  const whole = mount.json<SnapshotInfo>('snapshot', '/workspace/a', '--name', 'whole')
  const made = mount.json<SnapshotInfo>('snapshot', '/workspace/a/top/p', '--name', 'plain')
  t.same([made.file_count, made.path], [null, '/workspace/a/top/p'])
  t.equal(mount.json<SnapshotInfo>('snapshot', 'show', '/workspace/a/top/p', 'plain').file_count, 5, 'counted when shown')
  t.equal(whole.file_count, 6)
  const inside = fingerprint(`${dir}/top/p`)
  t.equal(fingerprint(`${dir}/.snapshots/plain`), inSnapshot(inside), 'its view is of the directory')
  sh(
    `echo changed > top/p/in/g; mv top/p/moved out/moved; mv out/o top/p/o; rm top/p/gone; mkdir top/p/new; echo n > top/p/new/n; ln top/p/o out/o2
    mv top renamed; echo changed >> out/linked; chmod 700 renamed/p/in; echo later > outside`,
    dir,
  )
  const outside = () => sh('cat out/linked out/moved out/o2 outside; ls out . renamed; stat -c "%h %n" out/moved out/o2', dir)
  const { text, changed } = { text: outside(), changed: fingerprint(`${dir}/renamed/p`) }
  const guest = new Guest(t, `${dir}/renamed/p`)
  await guest.run("f = open('new/n'); os.listdir('in')")
  const dry = mount.json<RestoreInfo>('restore', '/workspace/a/renamed/p', 'plain', '--dry-run')
  t.equal(fingerprint(`${dir}/renamed/p`), changed)
  t.ok(dry.changes.some(({ path, change }) => path === 'gone' && change === 'added'))
  t.ok(
    dry.changes.every(({ path }) => !path.startsWith('out')),
    'a dry run tells of nothing outside',
  )

  const done = mount.json<RestoreInfo>('restore', '/workspace/a/renamed/p', 'plain')
  const content = (directory: string) =>
    sh(
      'find . -type f | sort | xargs sha256sum; find . -printf "%p %y%m %s %b %T@\\n" | grep -v "^\\. " | sort; getfattr -n user.x f',
      directory,
    )
  const shown = (text: string): string => text.replace(/ f(\d+) /g, (_, mode: string) => ` f${withoutWriting(mode)} `)
  t.equal(shown(content(`${dir}/renamed/p`)), content(`${dir}/.snapshots/plain`))
  t.equal(fs.statSync(`${dir}/renamed/p/g2`).ino, fs.statSync(`${dir}/renamed/p/in/g`).ino, 'links inside are links')
  t.equal(outside(), text.replace('2 out/o2', '1 out/o2'), 'nothing outside changed, but that a file has a name less')
  t.same(await guest.run('[f.read(), os.fstat(f.fileno()).st_nlink, sorted(os.listdir("."))]'), [
    'n\n',
    0,
    ['f', 'g2', 'gone', 'in', 'moved', 'sparse'],
  ])
  mount.ctl('restore', '/workspace/a/renamed/p', done.undo ?? '')
  t.equal(sh('ls -R; cat o in/g f', `${dir}/renamed/p`), sh('ls -R; cat o in/g f', `${dir}/.snapshots/${done.undo}`), 'undone')

  sh('rm -r renamed/p/*; echo x > renamed/x', dir)
  mount.ctl('restore', '/workspace/a/renamed/p', 'whole')
  t.equal(shown(content(`${dir}/renamed/p`)), content(`${dir}/.snapshots/whole/top/p`), 'from a snapshot of the whole workspace')
  t.ok(fs.existsSync(`${dir}/renamed/x`))
  const refused = fails(mount, 'restore', '/workspace/a/out', 'plain')
  t.equal(refused.status, 2, 'a snapshot of one directory does not restore another')
  t.equal(fails(mount, 'restore', '/workspace/a', 'plain').status, 2, 'nor what is above it')
  t.ok(fs.existsSync(`${dir}/out/linked`))
  const after = fingerprint(dir)
  await mount.kill()
  await mount.start()
  t.equal(fingerprint(dir), after)
})
