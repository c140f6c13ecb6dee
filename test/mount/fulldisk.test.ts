/** A disk that is full, at a real mount with real programs: what is acknowledged stays, deleting works, and space comes back. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { TestMount } from './harness.ts'
import { fill, MIB, mountOn, noSmallDisk, refill, run, sha, smallDiskFor, verify, waitForState } from './smalldisk.ts'

const skip = noSmallDisk ?? false
const PROGRAM = path.resolve(import.meta.dirname, '../../../test/mount/fulldisk.py')
const GIT = ['-c', 'user.name=n', '-c', 'user.email=n@example.org', '-c', 'gc.auto=0', '-c', 'core.fsync=all']

/** The other words are for what the kernel could not write back for a mapping. */
const FULL = /is full: (delete files or snapshots|free some space)/

const DONE = 'it did not fail'

interface Status {
  state: string
  reason: string | null
}

function one(words: string): RegExp {
  return new RegExp(`^${words}$`)
}

/** What nexusctl says when it fails. */
function failureOf(work: () => unknown): string {
  try {
    work()
    return DONE
  } catch (error) {
    return String(error)
  }
}

/** Adds what still fits until the disk is full: a checkpoint or a collection may make some room at any time. */
function isFilled(mount: TestMount, directory: string, files: Map<string, string>): boolean {
  for (let i = 0; i < 5; i++) {
    if (mount.json<Status>('status').state === 'full') return true
    for (const [name, content] of fill(directory, `gap${i}-`)) files.set(name, content)
  }
  return mount.json<Status>('status').state === 'full'
}

t.test('a disk is filled, the daemon killed, started, and the disk emptied and filled again', { skip }, async (t) => {
  const disk = smallDiskFor(t, 128)
  const mount = await mountOn(t, disk)
  const top = mount.at('workspace/w')
  fs.mkdirSync(top)
  fs.mkdirSync(mount.at('workspace/x'))
  mount.ctl('snapshot', '/workspace/x', '--name', 'then')
  const at = (name: string): string => path.join(top, name)
  fs.writeFileSync(at('mapped'), Buffer.alloc(2 * MIB, 'x'))
  fs.writeFileSync(at('hole'), '')
  fs.truncateSync(at('hole'), 2 * MIB)
  fs.mkdirSync(at('repository'))
  const git = (...words: string[]) => run(at('repository'), 'git', ...GIT, ...words)
  t.equal(git('init', '-q').status, 0)
  fs.writeFileSync(at('repository/file'), 'first')
  t.equal(git('add', '.').status, 0)
  t.equal(git('commit', '-qm', 'first').status, 0)
  const old = fill(top, 'old').size
  t.ok(old > 60, `${old} MiB are written to a disk of 128`)
  // Snapshotted, so that removing the files gives nothing back.
  for (let i = 0; i < 8; i++) fs.rmSync(at(`old${old - 1 - i}`))
  await waitForState(mount, 'ok')
  mount.ctl('snapshot', '/workspace/w', '--name', 'then')
  const held = 20
  for (let i = 0; i < held; i++) fs.rmSync(at(`old${i}`))
  const files = fill(top, 'new')

  t.match(mount.json<Status>('status'), { state: 'full', reason: /is full: delete files or snapshots/ })
  t.match(mount.ctl('status'), /^state +full: the disk that holds /m)
  const { bsize, bavail } = fs.statfsSync(top)
  t.ok(bsize * bavail < 3 * MIB, `df says that ${bsize * bavail} bytes are left`)
  t.ok(disk.free() > 8 * MIB, `${disk.free()} bytes are kept for removals`)

  t.test('what adds is refused with ENOSPC, the rest works', async (t) => {
    const said = run(top, 'python3', PROGRAM, 'mapped', 'fresh', 'hole').stdout.trim().split('\n')
    t.match(said, ['msync fine', 'fsync fine', 'mapped True', 'fallocate ENOSPC', 'hole (ENOSPC|EIO)', 'create ENOSPC'].map(one))
    t.match(run(top, 'cp', '-r', '/etc', 'etc').stderr, /No space left on device/)
    t.equal(run(top, 'chmod', '600', 'new0').status, 0)
    t.equal(run(top, 'mv', 'new0', 'moved').status, 0)
    t.equal(run(top, 'mv', 'moved', 'new0').status, 0)
    fs.writeFileSync(at('repository/file'), '')
    t.match(git('commit', '-qam', 'second').status, 128)
    t.equal(git('fsck').status, 0)
    const adding: [what: string[], undo: string[]][] = [
      [
        ['snapshot', '/workspace/w', '--name', 'one'],
        ['snapshot', 'delete', '/workspace/w', 'one'],
      ],
      [
        ['fork', '/workspace/w', '/workspace/v'],
        ['workspace', 'delete', '/workspace/v'],
      ],
      [['restore', '/workspace/x', 'then'], []],
    ]
    for (const [what, undo] of adding) {
      // A checkpoint or a collection may make some room at any time: then nothing is refused, and the reserve is whole.
      let said = DONE
      for (let i = 0; i < 5 && said === DONE; i++) {
        said = failureOf(() => mount.ctl(...what))
        if (said !== DONE) break
        t.ok(disk.free() > 15 * MIB, `${what[0]}: ${disk.free()} bytes were free`)
        if (undo.length > 0) mount.ctl(...undo)
        for (const [name, content] of fill(top, `${what[0]}${i}-`)) files.set(name, content)
      }
      t.match(said, said === DONE ? DONE : FULL)
    }
    verify(top, files)
  })

  await mount.kill()
  await mount.start()
  verify(top, files)
  t.equal(git('fsck').status, 0)
  t.ok(fill(top, 'rest').size < 4, 'it is still full')
  t.ok(isFilled(mount, top, files))

  mount.ctl('snapshot', 'delete', '/workspace/w', 'then')
  t.comment(`space is back after ${await waitForState(mount, 'ok')} ms`)
  fs.writeFileSync(at('repository/file'), 'second')
  t.equal(git('commit', '-qam', 'second').status, 0)
  t.equal(git('fsck').status, 0)
  const more = await refill(top, 'more', held / 2)
  t.ok(more.size >= held / 2, `${more.size} MiB of ${held} are written again`)
  verify(top, files)
  verify(top, more)

  t.equal(await mount.stop(), 0)
  await mount.start()
  verify(top, files)
  verify(top, more)
  for (const name of [...files.keys(), ...more.keys()]) fs.rmSync(at(name))
  await waitForState(mount, 'ok')
  t.ok((await refill(top, 'last', 25)).size >= 25, 'it is empty and filled once more')
  t.notMatch(mount.log, /Unhandled|operation failed/)
  const lines = mount.log.trim().split('\n').filter(Boolean)
  t.ok(lines.length < 30, `${lines.length} lines in the log`)
})

t.test('10,000 files are removed from a full disk', { skip }, async (t) => {
  const disk = smallDiskFor(t, 160)
  const mount = await mountOn(t, disk)
  const top = mount.at('workspace/w')
  fs.mkdirSync(path.join(top, 'many'), { recursive: true })
  for (let i = 0; i < 10_000; i++) fs.writeFileSync(path.join(top, 'many', `${i}`), `${i} `.repeat(400))
  const files = fill(top, 'f')
  t.ok(isFilled(mount, top, files))
  const start = Date.now()
  t.match(run(top, 'rm', '-rf', 'many'), { status: 0, stderr: '' })
  t.comment(`removed in ${Date.now() - start} ms`)
  t.notOk(fs.existsSync(path.join(top, 'many')))
  t.comment(`space is back after ${await waitForState(mount, 'ok')} ms`)
  verify(top, files)
  const more = await refill(top, 'more', 10)
  t.ok(more.size >= 10, `${more.size} MiB of about 20 are written again`)
  await mount.kill()
  await mount.start()
  verify(top, files)
  verify(top, more)
})

t.test('small overwrites that fill the disk with what is dead end by themselves', { skip }, async (t) => {
  const disk = smallDiskFor(t, 96)
  const mount = await mountOn(t, disk)
  const top = mount.at('workspace/w')
  fs.mkdirSync(top)
  const file = path.join(top, 'file')
  const fd = fs.openSync(file, 'w')
  const block = Buffer.alloc(64 * 1024)
  let waits = 0
  try {
    // 400 MiB through a disk of 96.
    for (let i = 0; i < 6400; i++) {
      block.fill(i % 251)
      block.writeUInt32LE(i)
      for (;;) {
        try {
          fs.writeSync(fd, block, 0, block.length, (i % 16) * block.length)
          break
        } catch (error) {
          if ((error as { code?: string }).code !== 'ENOSPC' || ++waits > 600) throw error
          await sleep(100)
        }
      }
    }
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
  t.comment(`${waits} waits of 100 ms`)
  const wanted = sha(file)
  await mount.kill()
  await mount.start()
  t.equal(sha(file), wanted)
})

for (const journal of ['wal', 'delete']) {
  t.test(`SQLite (${journal}) meets a full disk and is whole`, { skip }, async (t) => {
    const disk = smallDiskFor(t, 96)
    const mount = await mountOn(t, disk)
    const top = mount.at('workspace/w')
    fs.mkdirSync(top)
    const sql = (...lines: string[]) => run(top, 'sqlite3', '-bail', 'base', ...lines)
    t.equal(sql(`pragma journal_mode=${journal}`, 'create table t(n integer primary key, b blob)').status, 0)
    const pages = fill(top, 'f')
    for (const name of [...pages.keys()].slice(-6)) fs.rmSync(path.join(top, name))
    await waitForState(mount, 'ok')
    let committed = 0
    let refused = ''
    for (let i = 1; i < 5000 && refused === ''; i++) {
      const { status, stderr } = sql('begin', `insert into t values(${i}, randomblob(200000))`, 'commit')
      if (status === 0) committed = i
      else refused = stderr
    }
    // The last one: it opens a WAL anew each time, which is a file to be created.
    t.match(refused, /full|disk I\/O error|unable to open database file/)
    t.ok(committed > 0)
    const look = (): void => {
      t.match(sql('pragma integrity_check'), { stdout: /^ok$/m, stderr: '' })
      t.ok(Number(sql('select count(*) from t').stdout) >= committed)
    }
    // A database with a WAL needs room to be opened at all, wherever it lies.
    if (journal === 'delete') look()
    await mount.kill()
    await mount.start()
    if (journal === 'delete') look()
    for (const name of pages.keys()) fs.rmSync(path.join(top, name), { force: true })
    const end = Date.now() + 60_000
    const insert = (): boolean => sql(`insert into t values(9999, randomblob(200000))`).status === 0
    let isBack = insert()
    for (; !isBack && Date.now() < end; isBack = insert()) await sleep(500)
    t.ok(isBack, 'rows can be added again')
    look()
  })
}

t.test('a disk that dies makes the mount read-only, and fsync never says that all is well', { skip }, async (t) => {
  const disk = smallDiskFor(t, 512, 96)
  const mount = await mountOn(t, disk)
  const top = mount.at('workspace/w')
  fs.mkdirSync(top)
  const files = new Map<string, string>()
  let failure = ''
  for (let i = 0; i < 400 && failure === ''; i++) {
    const name = `f${i}`
    const { status, stderr } = run(top, 'dd', 'if=/dev/urandom', `of=${name}`, 'bs=1M', 'count=1', 'conv=fsync', 'status=none')
    if (status === 0) files.set(name, sha(path.join(top, name)))
    else failure = stderr
  }
  t.match(failure, /Input\/output error|Read-only file system/)
  t.ok(files.size > 20, `${files.size} MiB were fsynced`)
  await waitForState(mount, 'read-only')
  t.match(
    mount.ctl('status'),
    /^state +read-only: the disk failed to store the log \(E[A-Z]+\): .*then unmount and mount again$/m,
  )
  for (let i = 0; i < 3; i++) t.match(run(top, 'sync', 'f0').stderr, /Input\/output error/)
  t.match(run(top, 'mkdir', 'x').stderr, /Read-only file system/)
  t.match(run(top, 'rm', '-f', 'f0').stderr, /Read-only file system/)
  t.match(run(top, 'sh', '-c', 'echo > f0').stderr, /Read-only file system/)
  t.match(
    failureOf(() => mount.ctl('workspace', 'delete', '/workspace/w')),
    /is read-only; look at the disk/,
  )
  verify(top, files)
  await sleep(2000)
  const lines = mount.log.split('\n').filter((line) => line.includes('the disk failed to store the log'))
  t.equal(lines.length, 1, mount.log)
  // What comes after is for test/crash/faults: the loop driver takes the write at the very edge, of which a part was done,
  // for a whole one, and a log that a disk has lied about is refused.
  t.equal(await mount.stop(), 0)
})
