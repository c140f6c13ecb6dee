/** Processes that have files open for writing, or mapped: they are found in /proc, in whatever way they hold them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { type Test, test } from 'tap'
import { HolderSearch } from '../../src/daemon/holders.ts'
import { allMounts } from '../../src/host/mounts.ts'
import { silentLogger } from '../../src/logger.ts'
import type { Holder } from '../../src/vfs/holders.ts'
import { scriptOf } from './guest.ts'
import { mountFor, noMount, plainFor, type TestMount } from './harness.ts'
import { needsRoot } from './nexusd.ts'

const skip = noMount ?? needsRoot
const UID = 1001

function deviceOf(mount: TestMount): string {
  return allMounts().find(({ mountpoint }) => mountpoint === fs.realpathSync(mount.mountpoint))?.device ?? ''
}

function searchIn(mount: TestMount): HolderSearch {
  return new HolderSearch({ device: deviceOf(mount), logger: silentLogger })
}

/** A process that holds a file, once it does. */
async function hold(t: Test, way: string, file: string): Promise<ChildProcess> {
  const child = spawn('python3', ['-u', scriptOf('holds.py'), way, file, String(UID)], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await Promise.race([
    once(child.stdout as NodeJS.ReadableStream, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error(`could not hold it: ${way}`))),
  ])
  return child
}

/** A world in which one workspace has a file. */
async function worldFor(t: Test): Promise<{ mount: TestMount; file: string; node: number }> {
  const mount = await mountFor(t)
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  const file = mount.at('workspace', 'w', 'f')
  fs.mkdirSync(path.dirname(file))
  fs.writeFileSync(file, 'x'.repeat(5000))
  return { mount, file, node: fs.statSync(file).ino }
}

const WAYS: Record<string, Holder['how'] | undefined> = {
  nothing: undefined,
  read: undefined,
  path: undefined,
  'map read': undefined,
  'map private': undefined,
  write: 'writes',
  append: 'writes',
  both: 'writes',
  'map shared': 'maps',
  'map to be made writable': 'maps',
  thread: 'writes',
  'thread apart': 'writes',
  'detached mount': 'writes',
  passed: 'writes',
  'without leader': 'writes',
}

test('every process that can change a file is found, and no other', { skip }, async (t) => {
  const { mount, file, node } = await worldFor(t)
  const children = new Map<string, ChildProcess>()
  for (const way of Object.keys(WAYS)) children.set(way, await hold(t, way, file))
  const { holders, unreadable, isComplete } = await searchIn(mount).look()
  t.ok(isComplete)
  t.strictSame(
    unreadable.filter(({ uid }) => uid === UID),
    [],
  )
  for (const [way, how] of Object.entries(WAYS)) {
    const pid = children.get(way)?.pid
    const found = holders.filter((holder) => holder.pid === pid && holder.uid === UID)
    const wanted = how === undefined ? [] : [{ pid, uid: UID, node, how }]
    t.match(found, wanted, way)
    t.equal(found.length, wanted.length, way)
  }
  for (const child of children.values()) {
    child.stdin?.end()
    await once(child, 'exit')
  }
  t.strictSame((await searchIn(mount).look()).holders, [], 'none is left')
})

test('a process counts with the uid of each of its threads', { skip }, async (t) => {
  const { mount, file } = await worldFor(t)
  const { pid } = await hold(t, 'thread of another uid', file)
  const { holders } = await searchIn(mount).look()
  t.strictSame(
    holders
      .filter((holder) => holder.pid === pid)
      .map((holder) => holder.uid)
      .sort(),
    [0, UID],
  )
})

test('files of other filesystems are not told', { skip }, async (t) => {
  const { mount } = await worldFor(t)
  const file = path.join(plainFor(t), 'f')
  fs.chmodSync(path.dirname(file), 0o755)
  fs.writeFileSync(file, 'x'.repeat(5000))
  for (const way of ['both', 'map shared']) await hold(t, way, file)
  t.strictSame((await searchIn(mount).look()).holders, [])
})

test('a question that comes while a search runs is answered by the next one', { skip }, async (t) => {
  const { mount, file } = await worldFor(t)
  await hold(t, 'both', file)
  const search = searchIn(mount)
  const [first, second, third] = [search.look(), search.look(), search.look()]
  t.not(first, second)
  t.equal(second, third, 'one search answers all that wait')
  t.equal((await second).holders.length, 1)
})

/** Waits in the kernel as long as it is let: a look at such a process, as far as one can tell from outside. */
const STUCK = `
  const say = (line) => require('node:fs').writeSync(1, JSON.stringify(line) + '\\n')
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const { skip } = JSON.parse(line)
    for (const process of [{ pid: 7, uid: 1001, comm: 'slow' }, { pid: 8, uid: 0, comm: 'slower' }]) {
      if (skip.some((word) => word.split(',')[0] === String(process.pid))) continue
      say({ look: process })
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    }
    say({ found: { process: { pid: 9, uid: 1002, comm: 'w' }, holders: [{ pid: 9, uid: 1002, comm: 'w', node: 5, how: 'writes' }], isReadable: true } })
    say({ done: { seesAll: true } })
  })
`

test('a process that cannot be looked into does not end the search for the others', async (t) => {
  const child = path.join(plainFor(t), 'child.cjs')
  fs.writeFileSync(child, STUCK)
  const search = new HolderSearch({ device: '0:0', logger: silentLogger, child, silenceMs: 1000 })
  const { holders, unreadable, isComplete } = await search.look()
  t.ok(isComplete)
  t.strictSame(unreadable, [
    { pid: 7, uid: 1001, comm: 'slow' },
    { pid: 8, uid: 0, comm: 'slower' },
  ])
  t.match(holders, [{ pid: 9, node: 5 }])
  const before = performance.now()
  t.strictSame((await search.look()).unreadable.length, 2, 'and is not tried again at once')
  t.ok(performance.now() - before < 1000)
})

test('a search that cannot be made says so', async (t) => {
  const { isComplete } = await new HolderSearch({ device: '0:0', logger: silentLogger, child: '/nonexistent.js' }).look()
  t.notOk(isComplete)
})
