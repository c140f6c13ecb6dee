/** What is reserved for later with fallocate(2), as much as a disk may have: quickly, in little memory, and everything else goes on. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import type { DiffInfo } from '../../src/api/snapshots.ts'
import type { FsckInfo } from '../../src/api/store.ts'
import { childrenOf, noMount, type TestMount } from './harness.ts'
import { mountOn, noSmallDisk, run } from './smalldisk.ts'

const skip = noSmallDisk ?? noMount ?? false
const GIB = 2 ** 30
const TIB = 2 ** 40
/** A call is served by one thread: so long do others wait for it. */
const CALL_MS_MAX = 30_000
const RSS_BYTES_MAX = 900 * 2 ** 20

/** A data directory in memory, on a disk that says it has so much room. */
async function mountWith(t: Test, size: string): Promise<TestMount> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-large-'))
  t.teardown(() => {
    spawnSync('umount', ['-l', directory], { stdio: 'ignore' })
    fs.rmSync(directory, { recursive: true, force: true })
  })
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', directory])
  return mountOn(t, { directory, data: path.join(directory, 'data'), free: () => 0 })
}

/** Of the process that serves, the most it ever had. */
function rss(mount: TestMount): number {
  const of = childrenOf(mount.pid).map((pid) => /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  return Math.max(...of.map((kib) => Number(kib ?? 0) * 1024))
}

function timed<T>(t: Test, what: string, work: () => T): T {
  const start = performance.now()
  const result = work()
  const ms = performance.now() - start
  t.ok(ms < CALL_MS_MAX, `${what}: ${Math.round(ms)} ms`)
  return result
}

t.test('a terabyte that is reserved', { skip }, async (t) => {
  const mount = await mountWith(t, '4T')
  const directory = mount.at('workspace/w')
  fs.mkdirSync(directory)
  const file = path.join(directory, 'large')
  const allocate = (...words: string[]) => run(directory, 'fallocate', ...words, 'large')
  timed(t, 'reserved', () => t.match(allocate('-l', String(TIB)), { status: 0 }))
  t.match(fs.statSync(file), { size: TIB, blocks: TIB / 512 })
  timed(t, 'snapshot', () => mount.ctl('snapshot', '/workspace/w', '--name', 'before'))
  const fd = fs.openSync(file, 'r+')
  fs.writeSync(fd, 'here', TIB / 2)
  timed(t, 'reserved again', () => t.match(allocate('-l', String(TIB)), { status: 0 }))
  timed(t, 'a hole in it', () => t.match(allocate('-p', '-o', String(GIB + 1), '-l', String(100 * GIB)), { status: 0 }))
  const into = Buffer.alloc(6, 1)
  fs.readSync(fd, into, 0, 6, TIB / 2 - 1)
  t.equal(into.toString('latin1'), '\0here\0')
  t.equal(fs.statSync(file).blocks, (TIB - 100 * GIB) / 512)
  fs.closeSync(fd)
  const diff = timed(t, 'diff', () => JSON.parse(mount.ctl('snapshot', 'diff', '/workspace/w', 'before', '--json')) as DiffInfo)
  t.match(diff.changes, [{ path: 'large', change: 'modified', what: ['content', 'mtime'] }])
  const checked = timed(t, 'fsck', () => JSON.parse(mount.ctl('fsck', '--json')) as FsckInfo)
  t.match(checked, { clean: true, findings: [] })
  timed(t, 'truncate', () => fs.truncateSync(file, GIB))
  t.match(fs.statSync(file), { size: GIB, blocks: GIB / 512 })
  timed(t, 'unlink', () => fs.unlinkSync(file))
  timed(t, 'restore', () => mount.ctl('restore', '/workspace/w', 'before'))
  t.match(fs.statSync(file), { size: TIB, blocks: TIB / 512 })
  const most = rss(mount)
  t.ok(most < RSS_BYTES_MAX, `${Math.round(most / 2 ** 20)} MiB at most`)
  await mount.kill()
  await mount.start()
  t.match(fs.statSync(file), { size: TIB, blocks: TIB / 512 }, 'after a death')
})

t.test('more than can be kept track of is refused at once, and nothing is reserved', { skip }, async (t) => {
  const mount = await mountWith(t, '32P')
  const directory = mount.at('workspace/w')
  fs.mkdirSync(directory)
  fs.writeFileSync(path.join(directory, 'large'), 'content')
  for (const [words, what] of [
    [['-l', String(2 ** 53 - 1)], 'all that a file may have'],
    [['-l', String(16 * TIB)], '16 TiB'],
    [['-z', '-l', String(2 ** 53 - 1)], 'with zeros'],
    [['-n', '-o', '4096', '-l', String(5 * TIB)], 'behind the end'],
  ] as const) {
    const { status, stderr } = timed(t, what, () => run(directory, 'fallocate', ...words, 'large'))
    t.not(status, 0)
    t.match(stderr, /File too large/)
  }
  t.match(fs.statSync(path.join(directory, 'large')), { size: 7, blocks: 1 })
  timed(t, 'holes are of any size', () =>
    t.match(run(directory, 'fallocate', '-p', '-o', '0', '-l', String(2 ** 53 - 1), 'large'), { status: 0 }),
  )
  // What one call may not, many may, and what waits for the next checkpoint has an end.
  const said = [0, 1, 2, 3, 4, 5].map((i) =>
    run(directory, 'fallocate', '-o', String(i * TIB), '-l', String(TIB), 'large').stderr.trim(),
  )
  t.ok(
    said.every((one) => one === '' || one.includes('File too large')),
    said.join('; '),
  )
  t.ok(rss(mount) < 2 * RSS_BYTES_MAX, `${Math.round(rss(mount) / 2 ** 20)} MiB at most`)
  await mount.kill()
  await mount.start()
  t.ok(fs.statSync(path.join(directory, 'large')).size >= TIB)
})
