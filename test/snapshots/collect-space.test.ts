/** What a collection gives back, what it leaves alone, and when the daemon begins one by itself. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { isGarbageWorthIt } from '../../src/engine/garbage.ts'
import { Space } from '../../src/journal/space.ts'
import type { Logger } from '../../src/logger.ts'
import type { DaemonService } from '../../src/service/service.ts'
import { MemoryIndex, noise } from '../cas/support.ts'
import { MemoryDisk } from '../journal/support.ts'
import { TestEngine } from './support.ts'

const SEGMENT_BYTES = 64 * 1024
const limits = { sealWorkers: 0, nodeCacheBytesMax: 1, chunkCacheBytesMax: 1 }

class Store {
  readonly data: string
  disk = new MemoryDisk()
  index = new MemoryIndex()
  segmentBytes = SEGMENT_BYTES
  readonly warnings: string[] = []
  /** MiB of 200 */
  free = 150
  test!: TestEngine

  constructor(t: Test) {
    this.data = mkdtempSync(path.join(tmpdir(), 'nexus-space-'))
    t.teardown(() => rmSync(this.data, { recursive: true, force: true }))
  }

  async open(): Promise<this> {
    const warn = (_details: unknown, text: string): void => void this.warnings.push(text)
    const logger = { info: () => undefined, warn, error: warn } as unknown as Logger
    const { data, disk, index, segmentBytes: segmentBytesMax } = this
    const space = () => ({ blockBytes: 1 << 20, blocks: 200, blocksFree: this.free, blocksAvailable: this.free })
    this.test = new TestEngine(await Engine.open({ data, disk, index, logger, space, limits: { ...limits, segmentBytesMax } }))
    return this
  }

  get engine(): Engine {
    return this.test.engine
  }

  get service(): DaemonService {
    return this.test.service
  }

  /** Nobody has it open. */
  unlink(file: string): void {
    const { node } = this.test.stat(file)
    this.test.unlink(file)
    this.engine.fs.forget(node, 1000)
  }

  /** A workspace of files of 20,000 bytes, all different. */
  async fill(workspace: string, count: number, seed: number): Promise<void> {
    await this.service.workspaceCreate(`/workspace/${workspace}`, {})
    for (let i = 0; i < count; i++) this.test.write(`/workspace/${workspace}/f${i}`, noise(20_000, seed + i))
    await this.service.checkpoint()
  }
}

t.test('what a deleted workspace took is given back, that of others is not touched', async (t) => {
  const store = await new Store(t).open()
  await store.fill('kept', 10, 1)
  await store.fill('gone', 100, 100)
  const full = store.engine.volumes.logBytes
  await store.service.workspaceDelete('/workspace/gone')
  const { freed_bytes } = await store.service.collect()
  t.ok(freed_bytes > 1_800_000, `${freed_bytes} bytes freed`)
  t.ok(store.engine.volumes.logBytes < full - 1_800_000)
  t.equal(store.test.read('/workspace/kept/f3'), noise(20_000, 4).toString())
})

t.test('without copying, only segments in which nothing is alive go, and nothing is written but a checkpoint', async (t) => {
  const store = await new Store(t).open()
  await store.fill('gone', 50, 100)
  for (let i = 0; i < 30; i++) {
    // Of each segment a third stays alive.
    store.test.write(`/workspace/gone/x${i}`, noise(20_000, 500 + i))
    if (i % 3 === 0) await store.service.checkpoint()
  }
  await store.service.workspaceCreate('/workspace/kept', {})
  await store.service.fork('/workspace/gone', '/workspace/fork', {})
  await store.service.workspaceDelete('/workspace/gone')
  for (let i = 0; i < 50; i++) store.unlink(`/workspace/fork/f${i}`)
  for (let i = 0; i < 30; i++) if (i % 3 !== 0) store.unlink(`/workspace/fork/x${i}`)
  const before = store.engine.volumes.logBytes
  const free = await store.engine.collect({ copy: false })
  t.equal(free.copiedBytes, 0)
  t.ok(free.segments > 10, `${free.segments} segments`)
  t.ok(store.engine.volumes.logBytes < before - 800_000)
  const rest = await store.engine.collect()
  t.ok(rest.copiedBytes > 0, 'the rest is for one that copies')
  for (let i = 0; i < 30; i += 3) t.equal(store.test.read(`/workspace/fork/x${i}`), noise(20_000, 500 + i).toString())
})

t.test('a collection ends early when the disk fills while it copies, and the next one goes on', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 60, 1)
  for (let i = 0; i < 60; i++) if (i % 3 !== 0) store.unlink(`/workspace/w/f${i}`)
  const segments = store.disk.list().length
  let copies = 0
  const { mayCopy } = Space.prototype
  t.teardown(() => {
    Space.prototype.mayCopy = mayCopy
  })
  Space.prototype.mayCopy = function (isPressed) {
    // Somebody else fills the disk when a few chunks are copied.
    if (++copies === 5) {
      store.free = 1
      this.written(200 << 20)
    }
    return mayCopy.call(this, isPressed)
  }
  const first = await store.engine.collect()
  t.ok(first.copiedBytes > 0 && first.copiedBytes < 200_000, `${first.copiedBytes} bytes copied`)
  t.ok(store.disk.list().length >= segments, 'no segment that holds anything went')
  Space.prototype.mayCopy = mayCopy
  store.free = 150
  await new Promise((resolve) => setTimeout(resolve, 60))
  const second = await store.engine.collect()
  t.ok(second.freedBytes > 500_000, `${second.freedBytes} bytes freed`)
  for (let i = 0; i < 60; i += 3) t.equal(store.test.read(`/workspace/w/f${i}`), noise(20_000, 1 + i).toString())
  t.same((await store.service.fsck()).findings, [])
})

t.test('a store that fits into one segment gives back what is deleted, and no more is written for nothing', async (t) => {
  const store = new Store(t)
  store.segmentBytes = 64 * 1024 * 1024
  await store.open()
  await store.fill('w', 300, 1)
  await store.fill('kept', 5, 1000)
  const { volumes } = store.engine
  const full = volumes.logBytes
  t.ok(full > 6_000_000 && store.disk.files.size === 1, `${full} bytes in one segment`)
  for (let i = 0; i < 300; i++) store.unlink(`/workspace/w/f${i}`)
  store.test.write('/workspace/kept/fresh', noise(20_000, 5000))
  const done = await store.service.collect()
  t.ok(done.freed_bytes >= full, `${done.freed_bytes} bytes freed`)
  t.ok(volumes.logBytes < 250_000, `${volumes.logBytes} bytes of log for 120,000 that are alive`)
  const left = volumes.logBytes
  const again = await store.service.collect()
  t.equal(again.segments, 0, 'there is nothing more to get')
  t.equal(volumes.logBytes, left, 'and nothing is written for that')
  const check = (when: string): void => {
    for (let i = 0; i < 5; i++) t.equal(store.test.read(`/workspace/kept/f${i}`), noise(20_000, 1000 + i).toString(), when)
    t.equal(store.test.read('/workspace/kept/fresh'), noise(20_000, 5000).toString(), when)
  }
  check('at once')
  store.disk = store.disk.afterKill()
  await store.open()
  check('after a kill')
  store.disk = store.disk.afterKill()
  store.index = new MemoryIndex()
  await store.open()
  check('with an index made from the log')
})

t.test('a segment that is being written stays while little of it is dead, or it is small', async (t) => {
  const store = new Store(t)
  store.segmentBytes = 64 * 1024 * 1024
  await store.open()
  await store.fill('w', 40, 1)
  for (let i = 0; i < 40; i++) store.unlink(`/workspace/w/f${i}`)
  t.equal((await store.service.collect()).segments, 0, 'less than a 64th of a whole one is in it')
  await store.fill('x', 300, 100)
  for (let i = 0; i < 60; i++) store.unlink(`/workspace/x/f${i}`)
  const { segments, copied_bytes } = await store.service.collect()
  t.strictSame([segments, copied_bytes], [0, 0], 'most of it is alive')
})

t.test('what is written while the last segment is being left is not lost', async (t) => {
  for (let at = 1; at < 60; at += 1) {
    const store = new Store(t)
    store.segmentBytes = 1024 * 1024
    await store.open()
    await store.fill('w', 20, at * 100)
    for (let i = 1; i < 20; i++) store.unlink(`/workspace/w/f${i}`)
    let slices = 0
    const written: number[] = []
    const pause = async (): Promise<void> => {
      if (++slices < at || written.length > 2) return
      const seed = 10_000 + slices
      written.push(seed)
      store.test.write(`/workspace/w/n${seed}`, noise(20_000, seed))
      // Again what the collection has just forgotten, and what it is about to move.
      if (written.length === 1) store.test.write('/workspace/w/again', noise(20_000, at * 100 + 2))
      if (written.length === 2) await store.service.checkpoint()
    }
    const { segments } = await store.engine.collect({ pause })
    if (written.length === 0) {
      t.ok(at > 5, `${at - 1} slices`)
      return
    }
    t.ok(segments > 0, 'it was left')
    store.disk = store.disk.afterKill()
    if (at % 2 === 0) store.index = new MemoryIndex()
    await store.open()
    for (const seed of written) t.equal(store.test.read(`/workspace/w/n${seed}`), noise(20_000, seed).toString())
    t.equal(store.test.read('/workspace/w/again'), noise(20_000, at * 100 + 2).toString())
    t.equal(store.test.read('/workspace/w/f0'), noise(20_000, at * 100).toString())
  }
})

t.test('a rotten chunk costs itself: its segment stays, the others go', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 60, 100)
  // One file in six stays, so that every segment is worth emptying.
  for (let i = 0; i < 60; i++) if (i % 6 !== 0) store.unlink(`/workspace/w/f${i}`)
  await store.service.checkpoint()
  const at = store.test.stat('/workspace/w/f30')
  const content = noise(20_000, 130)
  const name = [...store.disk.files.keys()].find((one) => store.disk.bytesOf(one).includes(content.subarray(0, 500))) as string
  const bytes = store.disk.bytesOf(name)
  const place = bytes.indexOf(content.subarray(0, 500)) + 250
  bytes[place] = (bytes[place] as number) ^ 1
  const done = await store.service.collect()
  t.ok(done.segments > 10, `${done.segments} segments went`)
  t.ok(store.disk.files.has(name), 'the one with the rotten chunk is there')
  t.equal(store.warnings.length, 1, 'one line')
  t.match(store.warnings[0], /not collected, and nothing is lost/)
  t.equal(at.size, 20_000)
  t.throws(() => store.test.read('/workspace/w/f30'), 'it reads as it did')
  t.equal(store.test.read('/workspace/w/f36'), noise(20_000, 136).toString())
  bytes[place] = (bytes[place] as number) ^ 1
  t.equal(store.test.read('/workspace/w/f30'), content.toString(), 'and would be whole again with its disk')
})

t.test('a segment whose records cannot be read to the end stays', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 20, 100)
  for (let i = 0; i < 20; i++) store.unlink(`/workspace/w/f${i}`)
  await store.service.checkpoint()
  const name = [...store.disk.files.keys()].sort()[1] as string
  const bytes = store.disk.bytesOf(name)
  const record = bytes.indexOf('NXRC', 2000)
  bytes[record + 8] = (bytes[record + 8] as number) ^ 1
  const done = await store.service.collect()
  t.ok(done.segments > 3)
  t.ok(store.disk.files.has(name))
  t.equal(store.warnings.length, 1)
})

t.test('what is garbage is known after a start too, and less of it after a collection', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 50, 100)
  t.ok(store.engine.volumes.releasedBytes < 10_000, `${store.engine.volumes.releasedBytes}: nothing yet`)
  store.test.write('/workspace/w/f0', noise(20_000, 700))
  for (let i = 1; i < 20; i++) store.unlink(`/workspace/w/f${i}`)
  const held = store.engine.volumes.releasedBytes
  t.ok(held >= 20_000, 'what was overwritten counts')
  const { engine } = store
  await engine.close()
  store.disk = store.disk.afterKill()
  await store.open()
  t.ok(store.engine.volumes.releasedBytes >= 390_000, `${store.engine.volumes.releasedBytes}: what was unlinked counts`)
  await store.service.workspaceDelete('/workspace/w')
  t.ok(store.engine.volumes.releasedBytes >= 980_000)
  await store.service.collect()
  t.ok(store.engine.volumes.releasedBytes < 10_000)
  t.ok(store.engine.volumes.collectedBytes > 0)
  await store.service.checkpoint()
  const { collectedBytes } = store.engine.volumes
  store.disk = store.disk.afterKill()
  await store.open()
  t.equal(store.engine.volumes.collectedBytes, collectedBytes)
})

t.test('df tells what is alive, what only snapshots have, and what a collection gives back', async (t) => {
  const store = await new Store(t).open()
  await store.fill('a', 30, 100)
  await store.service.snapshotCreate('/workspace/a', { name: 's' })
  await store.service.fork('/workspace/a', '/workspace/b', {})
  for (const workspace of ['a', 'b']) for (let i = 0; i < 10; i++) store.unlink(`/workspace/${workspace}/f${i}`)
  await store.fill('c', 20, 1000)
  await store.service.workspaceDelete('/workspace/c')
  const before = await store.service.diskUsage(null)
  const near = (found: number, wanted: number): boolean => Math.abs(found - wanted) < 20_000
  t.ok(near(before.live_bytes, 400_000), `live ${before.live_bytes}`)
  t.ok(near(before.snapshot_bytes, 200_000), `only in a snapshot ${before.snapshot_bytes}`)
  t.ok(before.reclaimable_bytes >= 400_000 && before.reclaimable_bytes < 600_000, `reclaimable ${before.reclaimable_bytes}`)
  t.equal(before.logical_bytes, 800_000)
  t.ok(Math.abs(before.deduplication - 2) < 0.05, `two names for each byte: ${before.deduplication}`)
  t.strictSame(
    before.workspaces.filter(({ path }) => path !== '/').map(({ path, bytes }) => ({ path, bytes })),
    ['a', 'b'].map((name) => ({ path: `/workspace/${name}`, bytes: 400_000 })),
  )
  t.strictSame(
    (await store.service.diskUsage('/workspace/b')).workspaces.map(({ path }) => path),
    ['/workspace/b'],
  )
  t.equal((await store.service.diskUsage('/workspace/b')).measured_at, before.measured_at, 'measured once')
  await store.service.collect()
  const after = await store.service.diskUsage(null)
  t.ok(after.reclaimable_bytes < 200_000, `${after.reclaimable_bytes} left`)
  t.ok(near(after.live_bytes, before.live_bytes) && near(after.snapshot_bytes, before.snapshot_bytes))
})

t.test('requests are served between the slices of a collection, and a snapshot goes first', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 300, 1)
  let slices = 0
  const order: string[] = []
  const pause = async (): Promise<void> => {
    if (++slices !== 20) return
    await store.service.snapshotCreate('/workspace/w', { name: 'meanwhile' }).then(() => order.push('snapshot'))
  }
  await store.engine.collect({ pause }).then(() => order.push('collection'))
  t.strictSame(order, ['snapshot', 'collection'], 'a snapshot that is asked for in the middle does not wait for its end')
  t.equal(store.test.read('/workspace/w/.snapshots/meanwhile/f7'), noise(20_000, 8).toString())
})

t.test('a daemon that ends does not wait for a collection', async (t) => {
  const store = await new Store(t).open()
  await store.fill('w', 300, 1)
  const collecting = store.engine.collect().then(
    () => 'done',
    (error: Error) => error.message,
  )
  await store.engine.close()
  t.match(await collecting, /done|the daemon ends/)
})

t.test('when the daemon begins by itself', async (t) => {
  const MIB = 2 ** 20
  const day = 24 * 60 * 60_000
  const rows: [logMib: number, collectedMib: number, releasedMib: number, ageMs: number, want: boolean][] = [
    [0, 0, 0, 2 * day, false],
    [10, 0, 9, 0, false],
    [10, 10, 0, 2 * day, false],
    [10, 10, 1, 2 * day, true],
    [10, 10, 9, day / 24, true],
    [10, 10, 1, day / 24, false],
    [4, 4, 1, day / 24, true],
    [4, 4, 1, day / 144, false],
    [2, 2, 0.9, day / 24, false],
    [80, 70, 15, day / 24, false],
    [80, 70, 15, 0, false],
    [80, 70, 16, 0, true],
    [1000, 1000, 199, 0, false],
    [1000, 1000, 200, 0, true],
    [100_000, 100_000, 255, 0, false],
    [100_000, 100_000, 256, 0, true],
    [513, 0, 0, 0, true],
    [1500, 1000, 0, 0, false],
    [1513, 1000, 0, 0, true],
    [3000, 2000, 0, 0, false],
    [3001, 2000, 0, 0, true],
  ]
  for (const [log, collected, released, age, want] of rows) {
    const garbage = { logBytes: log * MIB, collectedBytes: collected * MIB, releasedBytes: released * MIB }
    t.equal(isGarbageWorthIt(garbage, age), want, JSON.stringify([log, collected, released, age]))
  }
})
