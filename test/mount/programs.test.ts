/** Real programs at work in the mount, and what they left there after a restart and after a kill. */
import fs from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { mountFor, noMount, plainFor } from './harness.ts'
import { check, folder, OPEN, type ProgramTest, run, runOnBoth, shell } from './programs.ts'

async function git(t: Test, directory: string): Promise<void> {
  const origin = folder(directory, 'origin')
  const $ = (...words: string[]): Promise<string> =>
    run(origin, 'git', '-c', 'user.name=Test', '-c', 'user.email=test@example.com', ...words)
  await $('init', '-q', '-b', 'main')
  for (let i = 0; i < 300; i++) {
    const parent = path.join(origin, `dir-${i % 20}`)
    fs.mkdirSync(parent, { recursive: true })
    fs.writeFileSync(path.join(parent, `file-${i}`), `line ${i}\n`.repeat(i + 1))
  }
  await $('add', '.')
  await $('commit', '-qm', 'first')
  t.equal(await $('status', '--porcelain'), '', 'nothing is changed after a commit')
  await $('checkout', '-qb', 'branch')
  for (let i = 0; i < 30; i++) {
    fs.appendFileSync(path.join(origin, `dir-${i % 20}`, `file-${i}`), 'more\n')
    await $('commit', '-qam', `change ${i}`)
  }
  await $('checkout', '-q', 'main')
  t.equal(fs.readFileSync(path.join(origin, 'dir-7', 'file-7'), 'utf8'), 'line 7\n'.repeat(8), 'checkout brings the old text')
  fs.writeFileSync(path.join(origin, 'new'), 'new\n')
  await $('add', 'new')
  await $('commit', '-qm', 'beside')
  await $('merge', '-q', '--no-edit', 'branch')
  await $('gc', '-q', '--prune=now')
  await $('fsck', '--strict', '--no-dangling')
  t.equal(await $('status', '--porcelain'), '', 'nothing is changed after merge and gc')
  await $('worktree', 'add', '-q', '../worktree', 'branch')
  t.equal((await $('worktree', 'list')).trim().split('\n').length, 2, 'a worktree more')
  t.notOk(fs.existsSync(path.join(directory, 'worktree', 'new')), 'the worktree has its own branch')
  await run(directory, 'git', 'clone', '-q', 'origin', 'clone')
  await run(directory, 'git', 'clone', '-q', '--bare', '--no-hardlinks', 'origin', 'bare.git')
  const head = await $('rev-parse', 'HEAD^{tree}')
  for (const other of ['clone', 'bare.git']) {
    const copy = path.join(directory, other)
    await run(copy, 'git', 'fsck', '--strict')
    t.equal(await run(copy, 'git', 'rev-parse', 'HEAD^{tree}'), head, `${other} has the same tree`)
  }
  t.equal(await run(path.join(directory, 'clone'), 'git', 'status', '--porcelain'), '', 'nothing is changed in the clone')
}

const PACKAGES = 60
const FILES_OF_PACKAGE = 170

/** Tarballs of packages, so that npm needs no network. */
async function makePackages(directory: string): Promise<string[]> {
  const names = Array.from({ length: PACKAGES }, (_, i) => `package-${i}`)
  for (const [i, name] of names.entries()) {
    const home = path.join(directory, name)
    fs.mkdirSync(path.join(home, 'lib'), { recursive: true })
    fs.writeFileSync(path.join(home, 'package.json'), JSON.stringify({ name, version: `1.${i}.0`, bin: { [name]: 'lib/1.js' } }))
    for (let j = 1; j < FILES_OF_PACKAGE; j++) {
      fs.writeFileSync(path.join(home, 'lib', `${j}.js`), `#!/usr/bin/env node\n${`console.log(${i}, ${j})\n`.repeat(j % 50)}`)
    }
    await run(directory, 'tar', '-czf', `${name}.tgz`, '--transform', `s/^${name}/package/`, name)
  }
  return names
}

async function npm(t: Test, directory: string): Promise<void> {
  const source = plainFor(t)
  const names = await makePackages(source)
  const project = folder(directory, 'project')
  const dependencies = Object.fromEntries(names.map((name) => [name, `file:${source}/${name}.tgz`]))
  fs.writeFileSync(path.join(project, 'package.json'), JSON.stringify({ name: 'project', version: '1.0.0', dependencies }))
  const flags = ['--offline', '--no-audit', '--no-fund', '--cache', path.join(source, 'cache')]
  const verify = async (): Promise<void> => {
    for (const name of names)
      await run(directory, 'diff', '-r', path.join(source, name), path.join(project, 'node_modules', name))
    const count = Number(await shell(project, 'find node_modules -type f | wc -l'))
    t.ok(count > 10_000, `${count} files`)
  }
  await run(project, 'npm', 'install', ...flags)
  await verify()
  await run(project, 'npm', 'ci', ...flags)
  await verify()
  t.equal(await run(project, 'node_modules/.bin/package-3'), '3 1\n', 'a program that it installed runs')
  await run(project, 'rm', '-r', 'node_modules')
  t.strictSame(fs.readdirSync(project).sort(), ['package-lock.json', 'package.json'], 'and all of it can be removed')
}

async function sqlite(t: Test, directory: string): Promise<void> {
  for (const mode of ['delete', 'wal']) {
    await check('sqlite', directory, mode)
    const file = path.join(directory, `${mode}.db`)
    t.equal(await run(directory, 'sqlite3', file, 'PRAGMA integrity_check'), 'ok\n', `${mode}: sound`)
    t.equal(
      await run(directory, 'sqlite3', file, 'PRAGMA journal_mode; VACUUM; SELECT sum(amount) FROM accounts'),
      `${mode}\n20000\n`,
    )
    t.notOk(fs.existsSync(`${file}-journal`), `${mode}: no journal is left`)
  }
}

/** Everything that rsync can keep; times to the nanosecond. */
const RSYNC = ['-aHAX', '--sparse', '--modify-window=-1']

async function isSame(t: Test, from: string, to: string, what: string): Promise<void> {
  t.equal(await run('/', 'rsync', ...RSYNC, '-nic', '--delete', `${from}/`, `${to}/`), '', what)
}

async function rsync(t: Test, directory: string): Promise<void> {
  const local = plainFor(t)
  await check('tree', local)
  const from = path.join(local, 'tree')
  await shell(from, 'setfacl -m u:1234:rwx,g:99:r plain-1; setfacl -m u:7:x sticky; setfacl -d -m u:1234:rx,o::- empty')
  const to = path.join(directory, 'tree')
  const back = path.join(local, 'back')
  await run('/', 'rsync', ...RSYNC, `${from}/`, `${to}/`)
  await isSame(t, from, to, 'nothing left to do on the way there')
  await run('/', 'rsync', ...RSYNC, `${to}/`, `${back}/`)
  await isSame(t, to, back, 'nothing left to do on the way back')
  await isSame(t, from, back, 'what came back is what went there')
  // diff calls two fifos different.
  const same = `-r --no-dereference --exclude=fifo --exclude=socket --exclude=null --exclude=disk ${from} ${to}`
  t.equal(await shell('/', `diff ${same}`), '', 'diff sees no difference')
  t.equal(fs.statSync(path.join(to, 'hard-1')).ino, fs.statSync(path.join(to, 'empty', 'hard-3')).ino, 'hard links are links')
  t.ok(fs.statSync(path.join(to, 'holes')).blocks < 2048, 'holes are holes')
}

const SOURCES = 30

async function make(t: Test, directory: string): Promise<void> {
  const numbers = Array.from({ length: SOURCES }, (_, i) => i)
  for (const i of numbers) {
    const text = `#include "all.h"\nint f${i}(int x) { return x * ${i + 1} + SHARED; }\n`
    fs.writeFileSync(path.join(directory, `f${i}.c`), text)
  }
  const header = (shared: number): string => `#define SHARED ${shared}\n${numbers.map((i) => `int f${i}(int);`).join('\n')}\n`
  fs.writeFileSync(path.join(directory, 'all.h'), header(1))
  const sum = numbers.map((i) => `f${i}(2)`).join(' + ')
  fs.writeFileSync(
    path.join(directory, 'main.c'),
    `#include "all.h"\n#include <stdio.h>\nint main(void) { printf("%d\\n", ${sum}); return 0; }\n`,
  )
  fs.writeFileSync(
    path.join(directory, 'Makefile'),
    'OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\tcc -o $@ $^\n%.o: %.c all.h\n\tcc -O -c -o $@ $<\n',
  )
  const expected = numbers.reduce((total, i) => total + 2 * (i + 1) + 1, 0)
  await run(directory, 'make', '-j2')
  t.equal(await run(directory, './program'), `${expected}\n`, 'the program runs')
  await run(directory, 'make', '-q')
  t.pass('nothing to do the second time')
  const text = fs.readFileSync(path.join(directory, 'f3.c'), 'utf8')
  fs.writeFileSync(path.join(directory, 'f3.c'), text.replace('SHARED', '100'))
  const rebuilt = (await run(directory, 'make')).trim().split('\n')
  t.strictSame(
    rebuilt.map((line) => line.split(' ')[1]),
    ['-O', '-o'],
    'one object and the program are made anew',
  )
  t.equal(await run(directory, './program'), `${expected + 99}\n`, 'and it shows')
  fs.writeFileSync(path.join(directory, 'all.h'), header(2))
  t.equal((await run(directory, 'make', '-j2')).trim().split('\n').length, SOURCES + 2, 'the header is in all of them')
}

const PROGRAMS: Record<string, ProgramTest> = {
  git: { run: git },
  npm: { run: npm, onlyMount: true },
  sqlite: { run: sqlite },
  rsync: { run: rsync, keepsModes: true },
  make: { run: make },
}

t.test('programs', { skip: noMount ?? false }, async (t) => {
  const mount = await mountFor(t)
  await runOnBoth(t, mount, PROGRAMS)

  const workspaces = mount.at('workspace')
  const manifest = async (): Promise<string> => (await check('manifest', workspaces)) + (await check('manifest', mount.at(OPEN)))
  const verify = async (before: string, how: string): Promise<void> => {
    t.equal(await manifest(), before, `every file and attribute is there after ${how}`)
    await run(path.join(workspaces, 'git', 'origin'), 'git', 'fsck', '--strict', '--no-dangling')
    t.equal(
      await run(path.join(workspaces, 'git', 'origin'), 'git', 'status', '--porcelain'),
      '',
      `git sees no change after ${how}`,
    )
    for (const mode of ['delete', 'wal']) {
      const file = path.join(workspaces, 'sqlite', `${mode}.db`)
      t.equal(await run('/', 'sqlite3', file, 'PRAGMA integrity_check'), 'ok\n', `${mode} is sound after ${how}`)
    }
  }

  await t.test('a restart', async () => {
    const before = await manifest()
    t.ok(before.split('\n').length > 500, 'there is something to lose')
    t.equal(await mount.stop(), 0, 'it ends well')
    await mount.start()
    await verify(before, 'a restart')
  })

  await t.test('a kill', async () => {
    await check('tree', folder(mount.at('workspace'), 'late'))
    fs.rmSync(path.join(workspaces, 'git', 'clone'), { recursive: true })
    await run(workspaces, 'cp', '-a', 'git/worktree', 'late/copy')
    const before = await manifest()
    await mount.kill()
    await mount.start()
    await verify(before, 'a kill')
  })
  t.equal(mount.log, '', 'the daemon had nothing to complain about')
})
