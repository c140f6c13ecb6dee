/**
 * Copies within a file and between files against plain arrays, over layers that are being merged and others; and again when the
 * log is read by the next who opens the store.
 */
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { inoOfNode } from '../../src/vfs/place.ts'
import { StoredWindow } from '../../src/volume/held.ts'
import { WINDOW_BYTES } from '../../src/volume/piece.ts'
import type { Volume } from '../../src/volume/volume.ts'
import { MemoryIndex, noise } from '../cas/support.ts'
import { dataFor } from '../crash/pair.ts'
import { diskOf, imageOf } from '../crash/powerdisk.ts'
import { MemoryDisk } from '../journal/support.ts'
import { caller, TestEngine } from '../snapshots/support.ts'
import { same } from './support.ts'

const FILES = ['a', 'b', 'c'] as const
const W = '/workspace/w'
/** No file gets longer: it is compared whole. */
const WINDOWS_MAX = 12
const BYTES_MAX = WINDOWS_MAX * WINDOW_BYTES
const PUNCH = 3
const limits = { segmentBytesMax: 1 << 18, sealWorkers: 0, checkpointBytes: 2 ** 40, checkpointWeight: 2 ** 40 }

/** What a file holds, and which of its bytes are allocated. */
class PlainFile {
  readonly bytes = Buffer.alloc(BYTES_MAX)
  readonly isAllocated = Buffer.alloc(BYTES_MAX)
  size = 0

  fill(at: number, bytes: Buffer, isAllocated: Buffer): void {
    bytes.copy(this.bytes, at)
    isAllocated.copy(this.isAllocated, at)
    this.size = Math.max(this.size, at + bytes.length)
  }

  copy(from: PlainFile, fromAt: number, at: number, length: number): void {
    const end = fromAt + Math.min(length, from.size - fromAt)
    if (end > fromAt)
      this.fill(at, Buffer.from(from.bytes.subarray(fromAt, end)), Buffer.from(from.isAllocated.subarray(fromAt, end)))
  }

  punch(at: number, end: number): void {
    this.bytes.fill(0, at, end)
    this.isAllocated.fill(0, at, end)
  }

  get allocated(): number {
    let sum = 0
    for (const four of new Uint32Array(this.isAllocated.buffer, this.isAllocated.byteOffset, BYTES_MAX / 4)) {
      // Most are alike.
      if (four === 0x0101_0101) sum += 4
      else if (four !== 0) sum += (four & 1) + ((four >>> 8) & 1) + ((four >>> 16) & 1) + (four >>> 24)
    }
    return sum
  }
}

type Name = (typeof FILES)[number]
type Step =
  | { kind: 'write'; file: Name; at: number; length: number; seed: number }
  | { kind: 'copy'; file: Name; from: Name; fromAt: number; at: number; length: number; isBeside: boolean }
  | { kind: 'punch' | 'truncate'; file: Name; at: number; length: number }
  | { kind: 'checkpoint' | 'collect' | 'reopen' }

const file = fc.constantFrom(...FILES)
/** At the edges of windows, and around them. */
const at = fc
  .tuple(fc.nat(9), fc.oneof(fc.constant(0), fc.integer({ min: -50, max: 50 })))
  .map(([window, by]) => Math.max(0, window * WINDOW_BYTES + by))
const windows = fc.integer({ min: 1, max: 10 }).map((count) => count * WINDOW_BYTES)
/** Such as leave windows what they are, up to eight and more than eight, and others. */
const copy = fc
  .record({
    file,
    from: file,
    fromAt: at,
    to: fc.oneof(
      fc.nat(9).map((window) => window * WINDOW_BYTES),
      at,
    ),
    isWhole: fc.boolean(),
    /** of a merge */
    isBeside: fc.boolean(),
  })
  .chain((one) => fc.oneof(windows, windows, fc.integer({ min: 1, max: 3000 })).map((length) => ({ ...one, length })))
  .map(({ file, from, fromAt, to, isWhole, isBeside, length }): Step => {
    const wanted = isWhole ? Math.floor(to / WINDOW_BYTES) * WINDOW_BYTES + (fromAt % WINDOW_BYTES) : to
    return { kind: 'copy', file, from, fromAt, at: wanted, length, isBeside }
  })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('write'), file, at, length: fc.integer({ min: 1, max: 90_000 }), seed: fc.nat() }),
  },
  { weight: 6, arbitrary: copy },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('punch', 'truncate'), file, at, length: fc.oneof(windows, fc.nat(300)) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('checkpoint', 'reopen', 'collect') }) },
)

/** A store, and the same files as plain arrays. */
class World {
  readonly #data: string
  readonly #plain = new Map<Name, PlainFile>(FILES.map((name) => [name, new PlainFile()]))
  #disk = new MemoryDisk()
  #index = new MemoryIndex()
  #test!: TestEngine
  #merging: Promise<void> | undefined
  /** copies of windows that were not decoded, and copies beside a merge */
  readonly seen = { stored: 0, beside: 0 }

  private constructor(data: string) {
    this.#data = data
  }

  static async make(data: string): Promise<World> {
    const world = new World(data)
    await world.#open()
    world.#test.mkdir(W)
    for (const file of FILES) world.#test.write(`${W}/${file}`, '')
    // Copies shall find something.
    for (let window = 0; window < WINDOWS_MAX - 2; window++) {
      world.#write({ kind: 'write', file: 'a', at: window * WINDOW_BYTES + 1000 * window, length: 5000, seed: window })
    }
    await world.run({ kind: 'checkpoint' })
    return world
  }

  async run(step: Step): Promise<void> {
    if (step.kind === 'write') this.#write(step)
    else if (step.kind === 'copy') await this.#copy(step)
    else if (step.kind === 'punch') this.#punch(step)
    else if (step.kind === 'truncate') this.#truncate(step)
    else if (step.kind === 'reopen') await this.#reopen()
    else {
      await this.#merged()
      await (step.kind === 'collect' ? this.#test.engine.collect() : this.#test.engine.volumes.checkpoint())
    }
  }

  /** Throws when a file is not what it should be. */
  check(): void {
    let allocated = 0
    for (const name of FILES) {
      const plain = this.#file(name)
      const { node, size, allocated: found } = this.#test.stat(`${W}/${name}`)
      same(size, plain.size, `size of ${name}`)
      same(found, plain.allocated, `allocated of ${name}`)
      same(this.#volume.allocatedIn(inoOfNode(node), 0, BYTES_MAX), plain.allocated, `allocated in ${name}`)
      const bytes = Buffer.alloc(size, 1)
      this.#test.engine.fs.read(caller, node, 0, size, bytes, 0)
      if (!bytes.equals(plain.bytes.subarray(0, size))) throw new Error(`${name} holds something else`)
      allocated += found
    }
    same(this.#volume.taken.bytes, allocated + this.#test.stat(W).allocated, 'bytes of the workspace')
  }

  /** What is stored in the end is sound, and nothing that it needs was collected. */
  async close(): Promise<void> {
    await this.#merged()
    same((await this.#test.engine.check()).findings, [], 'findings')
    await this.#test.engine.close()
  }

  #write({ file, at, length, seed }: Extract<Step, { kind: 'write' }>): void {
    const bytes = noise(length, seed)
    this.#test.write(`${W}/${file}`, bytes, at)
    this.#file(file).fill(at, bytes, Buffer.alloc(length, 1))
  }

  async #copy({ file, from, fromAt, at, length, isBeside }: Extract<Step, { kind: 'copy' }>): Promise<void> {
    if (isBeside) await this.#begin()
    const most = Math.min(length, BYTES_MAX - at)
    this.#test.engine.fs.copyFileRange(caller, this.#node(from), fromAt, this.#node(file), at, most)
    this.#file(file).copy(this.#file(from), fromAt, at, most)
    this.seen.stored += this.#isStoredIn(file) ? 1 : 0
    this.seen.beside += this.#volume.frozen === null ? 0 : 1
  }

  #punch({ file, at, length }: { file: Name; at: number; length: number }): void {
    if (length === 0) return
    this.#test.engine.fs.fallocate(caller, this.#node(file), PUNCH, at, length)
    this.#file(file).punch(at, Math.min(BYTES_MAX, at + length))
  }

  #truncate({ file, at }: { file: Name; at: number }): void {
    this.#test.engine.fs.setattr(caller, this.#node(file), { size: at })
    const plain = this.#file(file)
    plain.punch(at, BYTES_MAX)
    plain.size = at
  }

  /** A checkpoint that has frozen the layer, and goes on when the event loop does. */
  async #begin(): Promise<void> {
    await this.#merged()
    this.#merging = this.#test.engine.volumes.checkpoint()
    for (let turn = 0; turn < 5; turn++) await undefined
  }

  async #merged(): Promise<void> {
    await this.#merging
    this.#merging = undefined
  }

  /** As after SIGKILL at this moment: all that was acknowledged is in the log. */
  async #reopen(): Promise<void> {
    const image = imageOf(this.#disk, this.#index)
    await this.#merged()
    await this.#test.engine.close()
    this.#disk = diskOf(image)
    this.#index = image.index
    await this.#open()
    this.check()
  }

  async #open(): Promise<void> {
    const [disk, index] = [this.#disk, this.#index]
    const options = { data: this.#data, disk, index, logger: silentLogger, limits, owner: caller, singleUser: true }
    this.#test = new TestEngine(await Engine.open(options))
  }

  #isStoredIn(name: Name): boolean {
    const windows = this.#volume.active.inodes.get(inoOfNode(this.#node(name)))?.windows ?? new Map()
    return [...windows.values()].some((window) => window instanceof StoredWindow)
  }

  #file(name: Name): PlainFile {
    return this.#plain.get(name) as PlainFile
  }

  #node(name: Name): number {
    return this.#test.stat(`${W}/${name}`).node
  }

  get #volume(): Volume {
    const [volume] = this.#test.engine.volumes.numbers().slice(-1)
    return this.#test.engine.volumes.get(volume as number) as Volume
  }
}

t.test('copies are what they are of plain arrays, also when the log is read again', async (t: Test) => {
  const seen = { stored: 0, beside: 0 }
  const runs = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30, size: 'max' }), async (steps) => {
    const world = await World.make(dataFor(t))
    for (const each of steps) await world.run(each)
    world.check()
    await world.run({ kind: 'reopen' })
    await world.close()
    seen.stored += world.seen.stored
    seen.beside += world.seen.beside
  })
  await fc.assert(runs, { numRuns: 25 })
  t.ok(seen.stored > 5 && seen.beside > 5, `${seen.stored} copies of stored windows, ${seen.beside} beside a merge`)
})
