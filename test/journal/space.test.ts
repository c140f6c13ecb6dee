/** Who may still write on a disk that fills up. */
import t from 'tap'
import { Space } from '../../src/journal/space.ts'

const MIB = 1024 * 1024

/** A disk of so many MiB, and a clock. */
function diskOf(total: number): { space: Space; disk: { free: number; now: number; looks: number } } {
  const disk = { free: total * MIB, now: 0, looks: 0 }
  const look = () => {
    disk.looks++
    return { blockBytes: 4096, blocks: (total * MIB) / 4096, blocksFree: disk.free / 4096, blocksAvailable: disk.free / 4096 }
  }
  return { space: new Space('/data', look, () => disk.now), disk }
}

const NO_SPACE = { code: 'NEXUS_NO_SPACE', message: /^the disk that holds \/data is full: delete files or snapshots/ }

t.test('the reserve and the size of a segment fit the disk', async (t) => {
  for (const [total, reserve, segment] of [
    [100, 16, 2],
    [1000, 50, 15.625],
    [100_000, 96, 64],
  ] as const) {
    const { space } = diskOf(total)
    t.equal(space.reserve, reserve * MIB)
    t.equal(space.segmentBytesMax, segment * MIB)
  }
})

t.test('each purpose goes as far as it may, and data only when there is room for all of it', async (t) => {
  const { space, disk } = diskOf(100)
  const may = (purpose: 'data' | 'overwrite' | 'attributes' | 'removal', bytes: number): boolean => {
    disk.now += 1000
    try {
      space.admit(purpose, bytes)
      return true
    } catch (error) {
      t.match(error, NO_SPACE)
      return false
    }
  }
  disk.free = 17 * MIB
  t.equal(may('data', MIB), true)
  t.equal(may('data', MIB + 1), false)
  t.equal(may('data', 1), false, 'once refused, until there is more')
  disk.free = 18 * MIB
  t.equal(may('data', 1), true)
  disk.free = 12 * MIB + 1
  t.same([may('data', 1), may('overwrite', 1), may('overwrite', 2), may('attributes', 2)], [false, true, false, true])
  disk.free = 8 * MIB
  t.same([may('overwrite', 1), may('attributes', 1), may('removal', 1)], [false, false, true])
  disk.free = 0
  t.equal(may('removal', 1), true, 'whether it fits is for the disk to say')
  t.equal(space.removals, 2)
})

t.test('what is written counts at once, and the disk is looked at seldom', async (t) => {
  const { space, disk } = diskOf(100)
  disk.free = 17 * MIB
  disk.now = 1000
  const write = (): void => {
    space.admit('data', 4096)
    space.written(4096)
    disk.free -= 4096
  }
  for (let i = 0; i < 250; i++) write()
  t.ok(disk.looks < 4, `${disk.looks} looks`)
  t.equal(space.blocks().blocksAvailable, 6)
  for (let i = 0; i < 6; i++) write()
  t.throws(write, NO_SPACE)
  t.equal(space.isFull, true)
  t.equal(space.blocks().blocksAvailable, 0)
})

t.test('what a checkpoint will need is spoken for', async (t) => {
  const { space, disk } = diskOf(100)
  space.estimate = () => 3 * MIB
  disk.now = 1000
  disk.free = 19 * MIB
  t.throws(() => space.admit('data', 1), NO_SPACE)
  t.equal(space.copyBytesMax, 6 * MIB)
})

t.test('a collection leaves the reserve, and on a full disk what removals need of it', async (t) => {
  const { space, disk } = diskOf(100)
  const rows: [free: number, isPressed: boolean, may: boolean][] = [
    [17, false, true],
    [16, false, false],
    [16, true, true],
    [10, true, false],
  ]
  for (const [free, isPressed, may] of rows) {
    disk.now += 1000
    disk.free = free * MIB
    t.equal(space.mayCopy(isPressed), may, `${free} MiB free`)
  }
  disk.now += 1000
  disk.free = 17 * MIB
  t.equal(space.mayCopy(false), true)
  space.written(2 * MIB)
  t.equal(space.mayCopy(false), false, 'its own copies are counted at once')
})

t.test('a disk that refuses although it has room is full until it takes something', async (t) => {
  const { space, disk } = diskOf(100)
  space.refused()
  disk.now = 1000
  t.equal(space.isFull, true)
  space.admit('data', 100)
  space.written(100)
  t.equal(space.isFull, false)
})

t.test('a look aside holds nobody up, counts what is written meanwhile, and is dropped for a newer one', async (t) => {
  const blocks = (mib: number) => ({ blockBytes: MIB, blocks: 100, blocksFree: mib, blocksAvailable: mib })
  let [now, free] = [0, 50]
  const asked: ((mib: number) => void)[] = []
  const aside = () => new Promise<ReturnType<typeof blocks>>((resolve) => asked.push((mib) => resolve(blocks(mib))))
  const look = () => blocks(free)
  const space = new Space('/data', look, () => now, aside)
  space.written(5 * MIB)
  const first = space.refresh()
  space.written(2 * MIB)
  t.equal(space.free, 43 * MIB, 'nobody waits for the disk')
  now = 40
  asked[0]?.(40)
  await first
  now = 80
  t.equal(space.free, 38 * MIB, 'what was written meanwhile may be in it or not')
  const second = space.refresh()
  now = 200
  free = 20
  t.equal(space.free, 20 * MIB)
  asked[1]?.(38)
  await second
  t.equal(space.free, 20 * MIB)
})
