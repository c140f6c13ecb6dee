/** What programs do to files, each of it by hand: mappings, locks, saves, links, holes, copies, archives. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { StatusInfo } from '../../src/api/store.ts'
import { mountFor, noMount, plainFor } from './harness.ts'
import { check, folder, type ProgramTest, run, runOnBoth, shell, startCheck } from './programs.ts'

/** A test that is one of the checks in fixtures/programs.py. */
function checked(name: string): ProgramTest {
  return {
    async run(t, directory) {
      await check(name, directory)
      t.pass(name)
    },
  }
}

async function editor(t: Test, directory: string): Promise<void> {
  const file = path.join(directory, 'text')
  fs.writeFileSync(file, 'old\n'.repeat(1000))
  fs.chmodSync(file, 0o640)
  const options = 'set nobackup writebackup backupcopy=no fsync'
  for (const text of ['new', 'newer']) {
    await run(directory, 'vim', '-es', '-u', 'NONE', '-c', options, '-c', `%s/.*/${text}/`, '-c', 'wq', 'text')
    t.equal(fs.readFileSync(file, 'utf8'), `${text}\n`.repeat(1000), 'the text is saved')
  }
  t.equal(fs.statSync(file).mode & 0o777, 0o640, 'the mode is kept')
  t.strictSame(fs.readdirSync(directory), ['text'], 'no backup or swap file is left')
}

async function archives(t: Test, directory: string): Promise<void> {
  await check('tree', directory)
  // What no archive keeps, or complains about.
  await shell(directory, 'rm -f tree/socket tree/plain-8 tree/plain-9 tree/disk tree/null')
  await run(directory, 'tar', '--format=posix', '--xattrs', '--xattrs-include=*', '--acls', '--sparse', '-cf', 'tree.tar', 'tree')
  const out = folder(directory, 'out')
  await run(out, 'tar', '--xattrs', '--xattrs-include=*', '--acls', '--same-owner', '-xpf', '../tree.tar')
  t.equal(await run(out, 'tar', '-df', '../tree.tar'), '', 'tar sees no difference')
  t.equal(await run('/', 'rsync', '-aHAXnic', '--modify-window=-1', '--delete', `${directory}/tree/`, `${out}/tree/`), '')

  const pack = folder(directory, 'pack')
  for (let i = 0; i < 100; i++) {
    fs.writeFileSync(path.join(pack, `f${i}`), `${i}`.repeat(i * 10))
    fs.utimesSync(path.join(pack, `f${i}`), 1_000_000_000 + 2 * i, 1_000_000_000 + 2 * i)
  }
  fs.chmodSync(path.join(pack, 'f5'), 0o751)
  await run(directory, 'zip', '-qr', 'pack.zip', 'pack')
  await run(out, 'unzip', '-q', '../pack.zip')
  await run(directory, 'diff', '-r', 'pack', 'out/pack')
  const states = (place: string): string[] =>
    fs.readdirSync(place).map((name) => {
      const { mode, mtimeMs, size } = fs.statSync(path.join(place, name))
      return `${name} ${mode} ${mtimeMs} ${size}`
    })
  t.strictSame(states(path.join(out, 'pack')), states(pack), 'modes and times as in the zip file')
}

async function copies(t: Test, directory: string): Promise<void> {
  await check('tree', directory)
  await run(directory, 'cp', '-a', 'tree', 'copy')
  t.equal(await run('/', 'rsync', '-aHAXnic', '--modify-window=-1', '--delete', `${directory}/tree/`, `${directory}/copy/`), '')
  await run(directory, 'find', 'copy', '-delete')
  t.notOk(fs.existsSync(path.join(directory, 'copy')), 'find has deleted all of it')
  fs.writeFileSync(path.join(directory, 'words'), 'red green red\n'.repeat(5000))
  await run(directory, 'sed', '-i', 's/red/blue/g', 'words')
  t.equal(fs.readFileSync(path.join(directory, 'words'), 'utf8'), 'blue green blue\n'.repeat(5000), 'sed -i')
  await shell(directory, 'for i in 1 2 3; do echo $i >> appended; done; install -m 751 appended installed; mv installed moved')
  t.equal(fs.readFileSync(path.join(directory, 'moved'), 'utf8'), '1\n2\n3\n')
  t.equal(fs.statSync(path.join(directory, 'moved')).mode & 0o777, 0o751)
  await shell(directory, 'dd if=/dev/urandom of=random bs=1M count=20 conv=fsync 2>/dev/null; cp random other; cmp random other')
  await shell(directory, 'dd if=/dev/zero of=random bs=4096 seek=100 count=1 conv=notrunc 2>/dev/null; ! cmp -s random other')
  t.pass('a copy does not change with its original')
}

/** Without it, `saves` does the same by hand. */
const hasVim = spawnSync('vim', ['--version']).error === undefined

const FILES: Record<string, ProgramTest> = {
  mapping: checked('mapping'),
  locks: checked('locks'),
  saves: checked('saves'),
  sparse: checked('sparse'),
  append: checked('append'),
  'a hundred thousand': { ...checked('hundred_thousand'), onlyMount: true },
  ...(hasVim ? { editor: { run: editor } } : {}),
  archives: { run: archives },
  copies: { run: copies, keepsModes: true },
}

t.test('files', { skip: noMount ?? false }, async (t) => {
  const mount = await mountFor(t)
  await runOnBoth(t, mount, FILES)

  await t.test('a file that is unlinked while it is open', async (t) => {
    const signal = path.join(plainFor(t), 'signal')
    const directory = folder(mount.at('workspace'), 'unlinked')
    const { ended } = await startCheck('unlinked', directory, signal)
    mount.ctl('gc')
    const before = mount.json<StatusInfo>('status').log_bytes
    fs.writeFileSync(signal, '')
    t.equal(await ended, 0, 'its content stays as long as it is open')
    // The kernel lets go of it a moment after the process has ended.
    let freed = 0
    for (let tries = 0; tries < 10 && freed < 100e6; tries++) {
      await sleep(100)
      mount.ctl('gc')
      freed = before - mount.json<StatusInfo>('status').log_bytes
    }
    t.ok(freed > 100e6, `its space goes when it is closed: ${freed} bytes`)
  })

  await t.test('a copy of a large file moves no data', async (t) => {
    const directory = folder(mount.at('workspace'), 'reflink')
    await shell(directory, 'dd if=/dev/urandom of=large bs=1M count=256 2>/dev/null')
    const writes = (): number => mount.json<StatusInfo>('status').requests['WRITE'] ?? 0
    const before = writes()
    const begun = performance.now()
    await run(directory, 'cp', '--reflink=auto', 'large', 'copy')
    const ms = performance.now() - begun
    t.equal(writes(), before, 'not one WRITE')
    t.ok(ms < 1000, `${ms.toFixed(0)} ms`)
    await run(directory, 'cmp', 'large', 'copy')
  })
  t.equal(mount.log, '', 'the daemon had nothing to complain about')
})
