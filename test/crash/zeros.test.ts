/** Zeros ahead of the log's end, as the store sees them: in what it counts, what it collects, and what a start says. */
import t, { type Test } from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import type { ZerosLimits } from '../../src/journal/ahead.ts'
import { segmentName } from '../../src/journal/record.ts'
import type { Logger } from '../../src/logger.ts'
import { MemoryIndex, noise } from '../cas/support.ts'
import { ALWAYS_ZEROS, MemoryDisk } from '../journal/support.ts'
import { caller, TestEngine } from '../snapshots/support.ts'
import { dataFor } from './pair.ts'

/** So many that they would count for something. */
const ZEROS: ZerosLimits = { ...ALWAYS_ZEROS, bytes: 40_000, restBytes: 20_000 }
const SEGMENT_BYTES = 100_000
const UNFINISHED = /unfinished/

class Store {
  readonly data: string
  disk = new MemoryDisk()
  index = new MemoryIndex()
  readonly said: string[] = []
  test!: TestEngine

  constructor(t: Test) {
    this.data = dataFor(t)
  }

  async open(): Promise<TestEngine> {
    const say = (_fields: object, message: string): void => void this.said.push(message)
    const logger: Logger = { error: say, warn: say, info: say, debug: say }
    const engine = await Engine.open({
      data: this.data,
      disk: this.disk,
      index: this.index,
      logger,
      limits: { sealWorkers: 0, segmentBytesMax: SEGMENT_BYTES, zeros: ZEROS },
      owner: caller,
      singleUser: true,
    })
    this.test = new TestEngine(engine)
    return this.test
  }

  /** Bytes of the log's files. */
  get fileBytes(): number {
    return this.disk.list().reduce((sum, name) => sum + this.disk.bytesOf(name).length, 0)
  }

  get logBytes(): number {
    return this.test.engine.volumes.logBytes
  }

  /** What the last segment's file holds behind the last record. */
  get behind(): Buffer {
    const { segment, offset } = this.test.engine.volumes.log.end
    return this.disk.bytesOf(segmentName(segment)).subarray(offset)
  }
}

t.test('what is told of the log, and what a checkpoint is due for, leaves them out', async (t) => {
  const store = new Store(t)
  const { engine } = await store.open()
  const { volumes } = engine
  store.test.mkdir('/workspace/w')
  const [before, dirty] = [store.logBytes, volumes.dirtyBytes]
  await volumes.sync()
  t.equal(store.behind.length, ZEROS.bytes)
  t.ok(store.behind.every((byte) => byte === 0))
  t.same([store.logBytes, volumes.dirtyBytes], [before, dirty])
  t.equal(store.fileBytes, before + ZEROS.bytes)
  t.equal([...volumes.segmentSizes().values()].at(-1), volumes.log.end.offset)
})

t.test('a start behind a death finds nothing unfinished, and goes on', async (t) => {
  const store = new Store(t)
  await store.open()
  store.test.mkdir('/workspace/w')
  for (let i = 0; i < 5; i++) {
    store.test.write(`/workspace/w/f${i}`, noise(300, i))
    await store.test.engine.volumes.sync()
    t.ok(store.behind.length > 0)
    store.disk = i % 2 === 0 ? store.disk.afterKill() : store.disk.afterPowerLoss(() => false)
    store.index = store.index.clone()
    await store.open()
    t.equal(store.behind.length, 0)
    t.equal(store.test.read(`/workspace/w/f${i}`), noise(300, i).toString())
  }
  t.notOk(store.said.some((message) => UNFINISHED.test(message)))
  // A half-written record over zeros is one.
  store.test.write('/workspace/w/last', noise(300, 9))
  await store.test.engine.volumes.sync()
  const { segment, offset } = store.test.engine.volumes.log.end
  const left = store.disk.afterKill()
  left.bytesOf(segmentName(segment)).write('NXRC and then', offset)
  store.disk = left
  await store.open()
  t.equal(store.said.filter((message) => UNFINISHED.test(message)).length, 1)
  t.equal((await store.test.engine.check()).total, 0)
})

t.test('a store that is closed has none', async (t) => {
  const store = new Store(t)
  const { engine } = await store.open()
  store.test.mkdir('/workspace/w')
  await engine.volumes.sync()
  t.ok(store.behind.length > 0)
  await engine.close()
  t.equal(store.behind.length, 0)
})

t.test('a collection takes none for garbage, and none for damage', async (t) => {
  const store = new Store(t)
  const { engine, service } = await store.open()
  store.test.mkdir('/workspace/w')
  store.test.write('/workspace/w/f', noise(25_000, 99))
  await service.checkpoint()
  t.ok(store.behind.length >= ZEROS.restBytes)
  const { segment } = engine.volumes.log.end
  await service.collect()
  t.equal(engine.volumes.log.end.segment, segment, 'zeros alone are no reason to leave a segment')
  for (let i = 0; i < 20; i++) {
    store.test.write(`/workspace/w/f${i}`, noise(20_000, i))
    await engine.volumes.sync()
  }
  const full = store.logBytes
  await service.workspaceDelete('/workspace/w')
  await service.collect()
  t.ok(store.logBytes < full / 4, `${store.logBytes} of ${full}`)
  t.same(
    store.said.filter((message) => /damaged|not collected/.test(message)),
    [],
  )
  t.equal((await engine.check()).total, 0)
})
