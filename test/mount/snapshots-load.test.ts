/** Snapshots and restores while other processes write: one instant, nothing stale, nothing hangs. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { RestoreInfo, SnapshotInfo } from '../../src/api/snapshots.ts'
import { SLACK } from '../machine.ts'
import { fingerprint, scriptOf, sh } from './guest.ts'
import { mountFor, noMount } from './harness.ts'

const skip = noMount ?? false
const WRITERS = 3
const FILES = 4
const SNAPSHOTS = 8
const HAMMERS = 8
const RESTORES = 30
const UNDOS = 4
const PAUSE_MS = 60

function start(t: Test, script: string, ...words: string[]): ChildProcess {
  const child = spawn('python3', [scriptOf(script), ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

async function ready(child: ChildProcess): Promise<void> {
  if (child.stdout !== null) await once(child.stdout, 'data')
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** How many whole records each log holds; a torn one fails the test. */
function recordsIn(t: Test, directory: string): number[] {
  return Array.from({ length: FILES }, (_, i) => {
    const text = fs.readFileSync(`${directory}/log-${i}`, 'latin1')
    const records = text.length / 10
    if (!Number.isInteger(records) || Number(text.slice(-10) || 0) !== records) t.fail(`log-${i} is torn at ${text.length}`)
    return records
  })
}

/**
 * The records of a log. A write that the kernel had begun when the file was restored lands where it was meant to, behind
 * the restored end, and leaves a hole.
 */
function recordsOf(file: string): number[] {
  const text = fs.readFileSync(file, 'latin1').replaceAll('\0', '')
  return text.split('\n').slice(0, -1).map(Number)
}

/** What was written before anything that is there is there as well. */
function checkPrefix(t: Test, directory: string): void {
  const counts = recordsIn(t, directory)
  const first = counts[0] ?? 0
  const last = counts[FILES - 1] ?? 0
  const ordered = counts.every((count, i) => i === 0 || count <= (counts[i - 1] as number)) && first - last <= 1
  if (!ordered) t.fail('not in the order of the writes', { counts })
  const pairs = fs.readdirSync(directory).filter((name) => name.startsWith('pair-'))
  t.equal(pairs.length, 1, 'a renamed file has one name')
  const renamed = Number(pairs[0]?.slice(5))
  t.ok(renamed === last || (renamed === last - 1 && first === last), 'a prefix of what was done', { counts, renamed })
}

t.test('a snapshot is one instant, whoever writes', { skip }, async (t) => {
  const mount = await mountFor(t)
  fs.mkdirSync(mount.at('workspace/a'))
  mount.ctl('workspace', 'create', '/workspace/a/nested')
  const places = ['one', 'two', 'nested/three'].slice(0, WRITERS)
  const writers = places.map((place) => start(t, 'writers.py', mount.at('workspace/a', place), String(FILES), '0'))
  await Promise.all(writers.map(ready))
  let parent: string | null = null
  for (let i = 0; i < SNAPSHOTS; i++) {
    const made = mount.json<SnapshotInfo>('snapshot', '/workspace/a', '--name', `s${i}`)
    t.equal(made.parent, parent, 'each descends from the one before')
    parent = made.snapshot_id
  }
  let before = places.map(() => 0)
  for (let i = 0; i < SNAPSHOTS; i++) {
    const now = places.map((place) => {
      const directory = mount.at('workspace/a/.snapshots', `s${i}`, place)
      checkPrefix(t, directory)
      return recordsIn(t, directory)[0] ?? 0
    })
    t.ok(
      now.every((count, k) => count >= (before[k] as number)),
      'later snapshots have more',
      { before, now },
    )
    before = now
  }
  t.ok(
    before.every((count) => count > 100),
    'the writers were not held up',
    { before },
  )
  for (const writer of writers) writer.kill('SIGKILL')
  await mount.kill()
  await mount.start()
  for (const place of places) checkPrefix(t, mount.at('workspace/a/.snapshots/s5', place))
})

t.test('an undo has all that was written before the restore, and nothing that came after', { skip }, async (t) => {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  fs.mkdirSync(dir)
  // The streams keep every merge from catching up.
  const streams = ['b', 'c'].map((name) => start(t, 'writers.py', `${dir}/${name}`, '1', String(1 << 20)))
  await Promise.all([start(t, 'writers.py', dir, String(FILES), '0'), ...streams].map(ready))
  mount.ctl('snapshot', '/workspace/a', '--name', 's0')
  for (let round = 0; round < UNDOS; round++) {
    await pause(PAUSE_MS)
    const { undo } = mount.json<RestoreInfo>('restore', '/workspace/a', 's0', '--force')
    await pause(PAUSE_MS)
    for (let i = 0; i < FILES; i++) {
      const kept = recordsOf(`${dir}/.snapshots/${undo}/log-${i}`).at(-1)
      const base = recordsOf(`${dir}/.snapshots/s0/log-${i}`).length
      t.equal(recordsOf(`${dir}/log-${i}`)[base], (kept ?? 0) + 1, 'the next record is the first of the restored file')
    }
  }
})

t.test('restores while everybody hammers', { skip, timeout: 120_000 * SLACK }, async (t) => {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  const run = (...words: string[]) =>
    promisify(execFile)(process.execPath, [
      new URL('../../bin/nexusctl.js', import.meta.url).pathname,
      '--data',
      mount.data,
      '--json',
      ...words,
    ])
  fs.mkdirSync(dir)
  const fill =
    'for d in 0 1 2 3 4 5; do mkdir -p d$d; for f in 0 1 2 3 4 5 6 7 8 9; do head -c 5000 /dev/urandom > d$d/f$f; done; done'
  sh(fill, dir)
  const first = fingerprint(dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 's0')
  sh(`rm -r d1 d2; ${fill}; ln d3/f0 d3/f11; rm d4/*`, dir)
  const second = fingerprint(dir)
  mount.ctl('snapshot', '/workspace/a', '--name', 's1')
  const hammers = Array.from({ length: HAMMERS }, (_, i) => start(t, 'hammer.py', dir, String(i)))
  const ends = hammers.map((hammer) => once(hammer, 'exit'))
  let slowest = 0
  for (let i = 0; i < RESTORES; i++) {
    const { stdout } = await run('restore', '/workspace/a', `s${i % 2}`, '--force')
    slowest = Math.max(slowest, (JSON.parse(stdout) as RestoreInfo).elapsed_ms)
    await pause(PAUSE_MS)
  }
  t.comment(`slowest restore ${slowest.toFixed(1)} ms`)
  for (const hammer of hammers) hammer.kill('SIGTERM')
  for (const end of ends) t.same(await end, [0, null], 'no error but those that a restore brings')
  const { stdout } = await run('restore', '/workspace/a', 's0')
  t.equal(fingerprint(dir), first, 'the kernel and the daemon agree, warm')
  await run('restore', '/workspace/a', 's1')
  t.equal(fingerprint(dir), second)
  const { undo } = JSON.parse(stdout) as RestoreInfo
  await run('restore', '/workspace/a', undo ?? '')
  const warm = fingerprint(dir)
  await mount.stop()
  await mount.start()
  t.equal(fingerprint(dir), warm, 'and cold')
  t.equal(mount.log, '', 'the daemon had nothing to complain about')
})
