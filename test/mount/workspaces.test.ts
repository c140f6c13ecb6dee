/** Workspaces: by command and by the ordinary calls, moved, and deleted while they are in use. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { RestoreInfo } from '../../src/api/snapshots.ts'
import type { WorkspaceInfo } from '../../src/api/workspaces.ts'
import { SLACK } from '../machine.ts'
import { fingerprint, Guest, sh, shFails } from './guest.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const nexusctl = fileURLToPath(new URL('../../bin/nexusctl.js', import.meta.url))
const MANY = 20_000

function fails(mount: TestMount, ...words: string[]): { status: number | null; line: string } {
  const { status, stderr } = spawnSync(process.execPath, [nexusctl, '--data', mount.data, ...words], { encoding: 'utf8' })
  return { status, line: stderr }
}

function paths(mount: TestMount): string[] {
  return mount.json<WorkspaceInfo[]>('workspace', 'list').map(({ path }) => path)
}

t.test('create, list, show, update, rename, delete', { skip }, async (t) => {
  const mount = await mountFor(t)
  const guest = new Guest(t, mount.at('workspace'))
  t.equal(await guest.run('os.path.exists("a")'), false)
  const made = mount.json<WorkspaceInfo>('workspace', 'create', '/workspace/a', '--meta', 'team=x', '--meta', 'odd=ä = ö')
  t.match(made, {
    path: '/workspace/a',
    number: Number,
    created_at: /^\d{4}-\d\d-\d\dT.*Z$/,
    metadata: { team: 'x', odd: 'ä = ö' },
    file_count: 0,
    directory_count: 1,
    bytes: 0,
    snapshot_count: 0,
    parent: null,
  })
  t.equal(await guest.run('os.path.isdir("a")'), true, 'seen at once by who had looked before')
  sh('echo 12345 > a/f; mkdir -p a/d/e; ln -s x a/l', mount.at('workspace'))
  t.match(mount.json<WorkspaceInfo>('workspace', 'show', mount.at('workspace/a')), {
    file_count: 2,
    directory_count: 3,
    bytes: 6,
  })
  const updated = mount.json<WorkspaceInfo>(
    'workspace',
    'update',
    '/workspace/a',
    '--meta',
    'team=y',
    '--meta',
    'odd=',
    '--meta',
    'new=z',
  )
  t.same(updated.metadata, { team: 'y', new: 'z' })

  await guest.run('f = open("a/f"); os.listdir("a")')
  t.equal(mount.json<WorkspaceInfo>('workspace', 'rename', '/workspace/a', '/workspace/b').path, '/workspace/b')
  t.same(await guest.run('[os.listdir("."), os.path.exists("a"), open("b/f").read(), f.read()]'), [
    ['b'],
    false,
    '12345\n',
    '12345\n',
  ])
  sh('mv b c', mount.at('workspace'))
  t.same(mount.json<WorkspaceInfo>('workspace', 'show', '/workspace/c').metadata, { team: 'y', new: 'z' }, 'mv renames it too')
  t.same(paths(mount), ['/', '/workspace/c'])

  const failures: [status: number, line: RegExp, words: string[]][] = [
    [1, /exists already/, ['create', '/workspace/c']],
    [1, /there is no/, ['show', '/workspace/a']],
    [1, /there is no/, ['delete', '/workspace/a']],
    [1, /is a directory of a workspace/, ['delete', '/workspace/c/d']],
    [1, /is not a directory/, ['show', '/workspace/c/f']],
    [1, /there is no/, ['create', '/nowhere/a']],
    [1, /exists already/, ['rename', '/workspace/c', '/workspace/c/d']],
    [2, /./, ['delete', '/']],
    [2, /./, ['create', '/workspace/..']],
    [2, /./, ['create', '/workspace/a\nb']],
    [2, /./, ['create', `/workspace/${'x'.repeat(256)}`]],
    [2, /./, ['rename', '/workspace/c', '/workspace/c/d/inside']],
  ]
  for (const [status, line, words] of failures) {
    const failure = fails(mount, 'workspace', ...words)
    t.equal(failure.status, status, words.join(' ').slice(0, 50))
    t.match(failure.line, line)
    t.equal(failure.line.trimEnd().split('\n').length, 1, 'one line')
  }

  mount.ctl('snapshot', '/workspace/c', '--name', 's')
  const gone = mount.json<WorkspaceInfo>('workspace', 'delete', '/workspace/c')
  t.match(gone, { path: '/workspace/c', file_count: 2, snapshot_count: 1 })
  t.same(await guest.run('[os.listdir("."), os.path.exists("c"), os.path.exists("c/f"), os.path.exists("c/.snapshots/s/f")]'), [
    [],
    false,
    false,
    false,
  ])
  sh('mkdir c', mount.at('workspace'))
  t.same(mount.json('snapshot', 'list', '/workspace/c'), [], 'a new one of the same name has nothing of the old')
  await mount.kill()
  await mount.start()
  t.same(paths(mount), ['/', '/workspace/c'])
})

t.test('mkdir, rmdir and mv', { skip }, async (t) => {
  const mount = await mountFor(t)
  sh('mkdir workspace/a tenants/t; mkdir workspace/a/plain; echo 1 > workspace/a/f; mkdir workspace/b', mount.at())
  t.same(paths(mount), ['/', '/tenants/t', '/workspace/a', '/workspace/b'], 'mkdir makes workspaces there, and only there')
  t.match(shFails('rmdir workspace/a', mount.at()), /not empty/)
  sh('rm -r workspace/a/*', mount.at())
  mount.ctl('snapshot', '/workspace/a', '--name', 's')
  t.match(shFails('rmdir workspace/a', mount.at()), /busy/i, 'its history is not lost to a stray rmdir')
  mount.ctl('snapshot', 'delete', '/workspace/a', 's')
  sh('rmdir workspace/a; ! test -e workspace/a', mount.at())
  t.same(paths(mount), ['/', '/tenants/t', '/workspace/b'])

  sh(
    'mkdir workspace/a; mkdir -p workspace/a/d; echo 1 > workspace/a/d/f; ln workspace/a/d/f workspace/a/g; setfattr -n user.x -v y workspace/a/g',
    mount.at(),
  )
  const guest = new Guest(t, mount.at('workspace'))
  for (const call of [
    'os.rename("a/d", "b/d")',
    'os.link("a/g", "b/g")',
    'os.rename("a/g", "../tenants/t/g")',
    'os.rename("a", "../tenants/a")',
  ]) {
    const expected = call.includes('tenants/a') ? null : 'EXDEV'
    t.equal(await guest.run(call), expected, call)
  }
  t.same(
    paths(mount),
    ['/', '/tenants/a', '/tenants/t', '/workspace/b'],
    'a workspace itself moves anywhere in the same outer one',
  )
  await guest.run('os.rename("../tenants/a", "a")')
  const before = fingerprint(mount.at('workspace/a'))
  sh('mv a/d a/g b; mv b/d b/g ../tenants/t; mv ../tenants/t/* a', mount.at('workspace'))
  t.equal(fs.readFileSync(mount.at('workspace/a/d/f'), 'utf8'), '1\n', 'mv falls back to copying')
  t.match(fingerprint(mount.at('workspace/a')), /user\.x/)
  t.ok(before)
  t.match(shFails('mv b b/inside', mount.at('workspace')), /subdirectory of itself|Invalid argument/)
  t.match(shFails('mkdir c; touch c/f; mv -T b c', mount.at('workspace')), /not empty|exists/i)
  sh('rm c/f; mv -T b c; ! test -e b', mount.at('workspace'))
  t.same(paths(mount), ['/', '/tenants/t', '/workspace/a', '/workspace/c'], 'mv over an empty workspace removes that')
  sh('echo f > workspace/file; ln -s a workspace/link; mkdir other; mkdir other/plain', mount.at())
  t.same(paths(mount), ['/', '/tenants/t', '/workspace/a', '/workspace/c'], 'anything else is no workspace')
  const state = fingerprint(mount.at())
  await mount.kill()
  await mount.start()
  t.equal(fingerprint(mount.at()), state)
})

t.test('deleting one that is in use', { skip }, async (t) => {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  sh(`mkdir ${dir}; mkdir -p ${dir}/d/e; echo 1 > ${dir}/d/f`, mount.at())
  mount.ctl('workspace', 'create', '/workspace/a/nested')
  sh('echo 2 > nested/f', dir)
  const guests = [new Guest(t, dir), new Guest(t, `${dir}/d/e`), new Guest(t, `${dir}/nested`)]
  for (const guest of guests) await guest.run(`f = open('${dir}/d/f', 'r+'); m = mmap.mmap(f.fileno(), 2); os.listdir('.'); m[0]`)
  mount.ctl('workspace', 'delete', '/workspace/a')
  t.equal(await guests[0]?.run('os.getcwd()'), 'ENOENT')
  for (const guest of guests) {
    const codes = ['ENOENT', 'ESTALE', 'EIO']
    for (const call of [
      'os.listdir(".")',
      'open("new", "w")',
      'os.mkdir("x")',
      'open("f").read()',
      'os.stat("..").st_ino > 0',
      'os.pwrite(f.fileno(), b"x", 0)',
      'os.fsync(f.fileno())',
    ]) {
      const answer = await guest.run(call)
      t.ok(codes.includes(answer as string) || answer === null || answer === true || Array.isArray(answer), `${call} ends`, {
        answer,
      })
    }
    await guest.run('m.close(); f.close(); os.chdir("/")')
    t.same(await guest.run(`os.listdir("${mount.at('workspace')}")`), [])
  }
  sh('mkdir a; echo new > a/f; cat a/f', mount.at('workspace'))
  t.equal(await mount.stop(), 0, 'and the mount ends as it should')
  t.equal(mount.log, '')
})

t.test('one with many files goes at once, and is restored at once', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  fs.mkdirSync(dir)
  sh(
    `python3 -c "
import os
for d in range(${MANY / 1000}):
    os.mkdir(str(d))
    for f in range(1000): os.close(os.open('%d/%d' % (d, f), os.O_CREAT | os.O_WRONLY))
"`,
    dir,
  )
  mount.ctl('snapshot', '/workspace/a', '--name', 'full')
  sh('ls -lR > /dev/null', dir)
  const elapsed = [1, 2, 3].map((round) => {
    sh(`echo ${round} > 3/3`, dir)
    // Without --force it takes what a look at all processes of the machine takes.
    const { elapsed_ms } = mount.json<RestoreInfo>('restore', '/workspace/a', 'full', '--force')
    return elapsed_ms
  })
  t.comment(`restores: ${elapsed.map((ms) => ms.toFixed(1)).join(', ')} ms`)
  t.ok(Math.min(...elapsed) < 100, 'a restore of one change, with everything cached', { elapsed })
  const begun = performance.now()
  t.equal(mount.json<WorkspaceInfo>('workspace', 'delete', '/workspace/a').file_count, MANY)
  t.ok(performance.now() - begun < 3000, 'deleted at once', { ms: performance.now() - begun })
  t.same(fs.readdirSync(mount.at('workspace')), [])
})
