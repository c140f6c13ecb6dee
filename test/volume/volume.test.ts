/**
 * What a volume shows through its layers (active, frozen, tree) against plain maps, while it is
 * frozen, merged and unfrozen at random; counters; and that its root tells nothing of how it came about.
 */
import fc from 'fast-check'
import t from 'tap'
import { applyChange } from '../../src/volume/apply.ts'
import { S_IFDIR, S_IFLNK, S_IFREG } from '../../src/volume/attr.ts'
import type { Dirent } from '../../src/volume/dirent.ts'
import { cookieOf } from '../../src/volume/dirent.ts'
import { WINDOW_BYTES } from '../../src/volume/piece.ts'
import { xattrCost } from '../../src/volume/xattrbytes.ts'
import { smallShape } from '../tree/support.ts'
import { attrOf, same, TestVolume } from './support.ts'

interface ModelInode {
  attr?: { mode: number; size: number }
  link?: string
  dirents: Map<string, Dirent>
  /** by file offset: a character of the content, '0' for allocated zeros */
  bytes: Map<number, string>
  xattrs: Map<string, string>
}

class Model {
  readonly inodes = new Map<number, ModelInode>()
  readonly orphans = new Set<number>()

  inode(ino: number): ModelInode {
    let inode = this.inodes.get(ino)
    if (inode === undefined) {
      inode = { dirents: new Map(), bytes: new Map(), xattrs: new Map() }
      this.inodes.set(ino, inode)
    }
    return inode
  }
}

interface Real {
  test: TestVolume
  model: Model
}

type Step = { name: string; run(real: Real): void | Promise<void> }

const inos = [3, 4, 5, 6]
const slots = [1, 2, 77, 2 ** 33, 2 ** 48 - 1]
/** Around the edges of windows, and far away. */
const offsets = [0, 5, 100, WINDOW_BYTES - 30, WINDOW_BYTES, 2 * WINDOW_BYTES - 7, 9 * WINDOW_BYTES + 3, 2 ** 40]
const xattrNames = ['user.a', 'user.b', 'user.bb', 'user.\xff']
const modes = [S_IFREG | 0o644, S_IFDIR | 0o755, S_IFLNK | 0o777]

const ino = fc.constantFrom(...inos)
const offset = fc.constantFrom(...offsets).chain((base) => fc.nat(40).map((more) => base + more))
/** Copies that keep windows whole, and others. */
const shift = fc.oneof(fc.constantFrom(0, WINDOW_BYTES, -WINDOW_BYTES, 3 * WINDOW_BYTES), fc.integer({ min: -60, max: 60 }))
const copied = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constantFrom(WINDOW_BYTES, 2 * WINDOW_BYTES, 4 * WINDOW_BYTES + 9))
const text = fc.string({ unit: fc.constantFrom(...'abcdefgh'), minLength: 1, maxLength: 90 })

/** Steps change the model at once and the volume with it. */
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(ino, fc.constantFrom(...modes), fc.nat(1000)).map(([i, mode, size]) => ({
    name: `attr ${i} ${mode.toString(8)} ${size}`,
    run({ test, model }: Real) {
      // So many are only ever said to be there: how many there are, the volume finds out.
      test.volume.setAttr(i, attrOf(mode, size, { xattrs: 1 }))
      model.inode(i).attr = { mode, size }
    },
  })),
  ino.map((i) => ({
    name: `drop ${i}`,
    run({ test, model }: Real) {
      test.volume.drop(i)
      model.inodes.delete(i)
    },
  })),
  fc.tuple(ino, fc.boolean()).map(([i, present]) => ({
    name: `orphan ${i} ${present}`,
    run({ test, model }: Real) {
      test.volume.setOrphan(i, present)
      if (present) model.orphans.add(i)
      else model.orphans.delete(i)
    },
  })),
  fc.tuple(ino, fc.constantFrom(...slots), fc.nat(3), fc.integer({ min: 1, max: 20 })).map(([i, slot, index, target]) => ({
    name: `entry ${i} ${slot}.${index} -> ${target}`,
    run({ test, model }: Real) {
      const entry: Dirent = { index, name: `name${slot}.${index}`, type: S_IFREG, ino: target, volume: 0 }
      test.volume.setEntry(i, slot, entry)
      model.inode(i).dirents.set(`${slot}.${index}`, entry)
    },
  })),
  fc.tuple(ino, fc.constantFrom(...slots), fc.nat(3)).map(([i, slot, index]) => ({
    name: `unentry ${i} ${slot}.${index}`,
    run({ test, model }: Real) {
      test.volume.removeEntry(i, slot, index)
      model.inode(i).dirents.delete(`${slot}.${index}`)
    },
  })),
  fc.tuple(ino, fc.constantFrom(...xattrNames), fc.option(text)).map(([i, name, value]) => ({
    name: `xattr ${i} ${name} ${value}`,
    run({ test, model }: Real) {
      test.volume.setXattr(i, name, value === null ? null : Buffer.from(value))
      if (value === null) model.inode(i).xattrs.delete(name)
      else model.inode(i).xattrs.set(name, value)
    },
  })),
  fc.tuple(ino, text).map(([i, target]) => ({
    name: `link ${i}`,
    run({ test, model }: Real) {
      test.volume.setLink(i, Buffer.from(target))
      model.inode(i).link = target
    },
  })),
  fc.tuple(ino, offset, text).map(([i, at, content]) => ({
    name: `write ${i} ${at} ${content}`,
    run({ test, model }: Real) {
      test.write(i, at, Buffer.from(content))
      for (const [skip, char] of [...content].entries()) model.inode(i).bytes.set(at + skip, char)
    },
  })),
  fc.tuple(ino, offset, fc.integer({ min: 1, max: 60 })).map(([i, at, length]) => ({
    name: `zero ${i} ${at} ${length}`,
    run({ test, model }: Real) {
      test.volume.place(i, at, length, { kind: 'zero' })
      for (let skip = 0; skip < length; skip++) model.inode(i).bytes.set(at + skip, '0')
    },
  })),
  fc
    .tuple(ino, offset, fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constantFrom(WINDOW_BYTES, 2 ** 45)))
    .map(([i, at, length]) => ({
      name: `clear ${i} ${at} ${length}`,
      run({ test, model }: Real) {
        test.volume.clear(i, at, length)
        const { bytes } = model.inode(i)
        for (const each of bytes.keys()) if (each >= at && each < at + length) bytes.delete(each)
      },
    })),
  fc.tuple(ino, ino, offset, shift, copied).map(([i, fromIno, fromOffset, by, length]) => {
    const at = Math.max(0, fromOffset + by)
    return {
      name: `copy ${i} ${at} ${length} from ${fromIno} ${fromOffset}`,
      run({ test, model }: Real) {
        const change = { kind: 'copy', volume: 1, ino: i, offset: at, length, fromVolume: 1, fromIno, fromOffset } as const
        applyChange(change, { segment: 1, offset: 0, length: 0 }, () => test.volume)
        const found = [...model.inode(fromIno).bytes].filter(([each]) => each >= fromOffset && each < fromOffset + length)
        const { bytes } = model.inode(i)
        for (const each of bytes.keys()) if (each >= at && each < at + length) bytes.delete(each)
        for (const [each, char] of found) bytes.set(at + (each - fromOffset), char)
      },
    }
  }),
)

const many = fc.array(step, { maxLength: 25, size: 'max' })
/** What lies between two looks: changes, and how far a merge gets meanwhile. */
const round = fc.record({ before: many, during: many, fate: fc.constantFrom('none', 'frozen', 'unfrozen', 'merged', 'merged') })

t.test('a volume shows what plain maps show, whatever lies in which layer', async (t) => {
  const runs = fc.asyncProperty(fc.array(round, { minLength: 1, maxLength: 6 }), async (rounds) => {
    const real: Real = { test: new TestVolume(smallShape), model: new Model() }
    const { volume } = real.test
    for (const { before, during, fate } of rounds) {
      for (const each of before) await each.run(real)
      if (fate !== 'none' && volume.frozen === null) volume.freeze()
      check(real)
      const merging = fate === 'merged' && volume.frozen !== null ? real.test.merge() : undefined
      for (const each of during) await each.run(real)
      check(real)
      if (merging !== undefined) volume.thaw(await merging)
      else if (fate === 'unfrozen') volume.unfreeze()
      check(real)
    }
    volume.unfreeze()
    check(real)
    await real.test.checkpoint()
    check(real)
  })
  await fc.assert(runs, { numRuns: 120 })
  t.pass()
})

/** Compares everything that a volume can be asked. */
function check({ test, model }: Real): void {
  const { volume } = test
  for (const i of inos) {
    const { attr, link, dirents, xattrs, bytes } = model.inodes.get(i) ?? new Model().inode(i)
    const found = volume.attr(i)
    same(found && { mode: found.mode, size: found.size }, attr, `attr of ${i}`)
    same(volume.link(i)?.toString(), link, `link of ${i}`)
    same(volume.xattrs(i).sort(), [...xattrs.keys()].sort(), `xattrs of ${i}`)
    for (const name of xattrNames) same(volume.xattr(i, name)?.toString(), xattrs.get(name), `xattr ${name} of ${i}`)
    checkEntries(test, i, dirents)
    checkBytes(test, i, bytes)
  }
  same([...volume.orphanInos].sort(), [...model.orphans].sort(), 'orphans')
  same(volume.super, countersOf(model, volume.super.inoNext), 'counters')
}

function checkEntries({ volume }: TestVolume, i: number, dirents: ReadonlyMap<string, Dirent>): void {
  const expected = slots.flatMap((slot) =>
    [0, 1, 2, 3].flatMap((index) => {
      const entry = dirents.get(`${slot}.${index}`)
      return entry === undefined ? [] : [{ slot, ...entry }]
    }),
  )
  const from = (cookie: number) => [...volume.entries(i, cookie)].map(([slot, entry]) => ({ slot, ...entry }))
  same(from(0), expected, `entries of ${i}`)
  same(volume.hasEntries(i), expected.length > 0, `hasEntries of ${i}`)
  for (const [n, { slot, index }] of expected.entries())
    same(from(cookieOf(slot, index)), expected.slice(n + 1), `entries of ${i} from a cookie`)
}

function checkBytes(test: TestVolume, i: number, bytes: ReadonlyMap<number, string>): void {
  for (const base of offsets) {
    const start = Math.max(0, base - 20)
    const expected = Array.from({ length: 180 }, (_, skip) => bytes.get(start + skip) ?? '.').join('')
    same(test.read(i, start, 180), expected, `bytes of ${i} at ${start}`)
  }
  same(test.volume.allocatedIn(i, 0, 2 ** 50), bytes.size, `allocated of ${i}`)
  const windows = [...new Set([...bytes.keys()].map((at) => Math.floor(at / WINDOW_BYTES)))].sort((a, b) => a - b)
  same([...test.volume.windows(i)], windows, `windows of ${i}`)
  same(
    [...test.volume.windows(i, 2)],
    windows.filter((index) => index >= 2),
    `windows of ${i} from 2`,
  )
}

function countersOf(model: Model, inoNext: number) {
  const attrs = [...model.inodes.values()].flatMap(({ attr }) => attr ?? [])
  const directories = attrs.filter(({ mode }) => (mode & 0o170000) === S_IFDIR).length
  const bytes = attrs.reduce((sum, { mode, size }) => sum + ((mode & 0o170000) === S_IFREG ? size : 0), 0)
  const allocated = attrs.reduce((sum, { mode, size }) => sum + attrOf(mode, size).allocated, 0)
  const xattrs = [...model.inodes.values()].flatMap((inode) => [...inode.xattrs])
  const xattrBytes = xattrs.reduce((sum, [name, value]) => sum + xattrCost(name, Buffer.from(value)), 0)
  return { inoNext, files: attrs.length - directories, directories, bytes, allocated, inodes: attrs.length, xattrBytes }
}

/** A volume that nothing ever touched has no tree, not even one with counters; to clear what is not there is nothing. */
function isTouched({ test: { volume } }: Real): boolean {
  return volume.root !== null || !volume.active.empty
}

t.test('the root depends on the content, not on how it came about', async (t) => {
  const runs = fc.asyncProperty(many, fc.infiniteStream(fc.nat(5)), async (steps, random) => {
    const plain: Real = { test: new TestVolume(smallShape), model: new Model() }
    for (const each of steps) each.run(plain)
    fc.pre(isTouched(plain))
    const wanted = await plain.test.checkpoint()
    const detour: Real = { test: new TestVolume(smallShape), model: new Model() }
    await rebuild(detour.test, plain.model, random)
    fc.pre(isTouched(detour))
    detour.test.volume.super.inoNext = plain.test.volume.super.inoNext
    same(await detour.test.checkpoint(), wanted, 'root')
  })
  await fc.assert(runs, { numRuns: 100 })
  t.pass()
})

/** Makes the same content in another order, with things that come and go, and a checkpoint now and then. */
async function rebuild(test: TestVolume, model: Model, random: fc.Stream<number>): Promise<void> {
  const { volume } = test
  const tasks: (() => void)[] = []
  for (const [i, { attr, link, dirents, xattrs }] of model.inodes) {
    if (attr !== undefined)
      tasks.push(
        () => volume.setAttr(i, attrOf(S_IFREG, 5, { xattrs: 1 })),
        () => volume.setAttr(i, attrOf(attr.mode, attr.size, { xattrs: 1 })),
      )
    if (link !== undefined) tasks.push(() => volume.setLink(i, Buffer.from(link)))
    for (const [key, entry] of dirents) tasks.push(() => volume.setEntry(i, Number(key.split('.')[0]), entry))
    for (const [name, value] of xattrs) tasks.push(() => volume.setXattr(i, name, Buffer.from(value)))
    tasks.push(() => volume.setEntry(i, 1, { index: 9, name: 'gone', type: S_IFREG, ino: 9, volume: 0 }))
    tasks.push(() => volume.removeEntry(i, 1, 9))
  }
  for (const i of model.orphans) tasks.push(() => volume.setOrphan(i, true))
  for (const gone of [40, 41]) {
    tasks.push(() => volume.setAttr(gone, attrOf(S_IFREG, 50)))
    tasks.push(() => test.write(gone, 0, Buffer.from('temporary')))
    tasks.push(() => volume.drop(gone))
  }
  for (const each of tasks) {
    each()
    if (random.next().value === 0) await test.checkpoint()
  }
  // Content is cut into chunks where a merge finds it: this is all in the last.
  for (const [i, { bytes }] of [...model.inodes].reverse()) {
    for (const [at, text] of stretches(bytes)) {
      if (text[0] === '0') volume.place(i, at, text.length, { kind: 'zero' })
      else for (const [skip, char] of [...text].entries()) test.write(i, at + skip, Buffer.from(char))
    }
  }
  for (const i of inos) if (model.inodes.get(i) === undefined) volume.drop(i)
  // Whatever happened last, there is something to merge, and the counters with it.
  volume.setOrphan(50, false)
}

/** Neighbouring bytes as one text, zeros apart from others, in windows of their own. */
function stretches(bytes: ReadonlyMap<number, string>): [number, string][] {
  const found: [number, string][] = []
  for (const at of [...bytes.keys()].sort((a, b) => a - b)) {
    const char = bytes.get(at) as string
    const last = found.at(-1)
    const joins =
      last !== undefined && last[0] + last[1].length === at && (last[1][0] === '0') === (char === '0') && at % WINDOW_BYTES !== 0
    if (joins) last[1] += char
    else found.push([at, char])
  }
  return found
}

t.test('an inode number is never used twice, not even after a restore', async (t) => {
  const test = new TestVolume()
  test.volume.setAttr(10, attrOf(S_IFREG, 1))
  t.equal(test.volume.super.inoNext, 11)
  await test.checkpoint()
  const { root } = test.volume
  test.volume.setAttr(99, attrOf(S_IFREG, 1))
  test.volume.drop(99)
  t.equal(test.volume.super.inoNext, 100)
  test.volume.reset(root, test.volume.super.inoNext)
  t.equal(test.volume.super.inoNext, 100)
  t.equal(test.volume.super.files, 1)
})

t.test('a reset voids a merge that runs', async (t) => {
  const test = new TestVolume()
  test.volume.setAttr(10, attrOf(S_IFREG, 1))
  const { epoch } = test.volume
  test.volume.freeze()
  test.volume.reset(null, test.volume.super.inoNext)
  t.not(test.volume.epoch, epoch)
  t.equal(test.volume.frozen, null)
  t.equal(test.volume.attr(10), undefined)
  t.same(test.volume.super, { inoNext: 11, files: 0, directories: 0, bytes: 0, allocated: 0, inodes: 0, xattrBytes: 0 })
})

t.test('damage in the log costs the stretch that it hit, and is told', async (t) => {
  const test = new TestVolume()
  test.volume.setAttr(5, attrOf(S_IFREG, 30))
  test.write(5, 0, Buffer.from('aaaaaaaaaa'))
  test.write(5, 10, Buffer.from('bbbbbbbbbb'))
  test.write(5, 20, Buffer.from('cccccccccc'))
  const file = test.disk.bytesOf('0000000001.log')
  file[file.indexOf('bbbb') + 2] = 120
  await test.checkpoint()
  t.equal(test.read(5, 0, 30), 'aaaaaaaaaa!!!!!!!!!!cccccccccc')
  t.match(test.damage, [{ volume: 1, ino: 5, segment: 1, length: 10 }])
})

t.test('a layer knows how far back in the log its pieces may lie', async (t) => {
  const test = new TestVolume()
  const { volume } = test
  t.equal(volume.active.firstRaw, Number.POSITIVE_INFINITY)
  test.write(5, 0, Buffer.alloc(1000, 'a'))
  t.equal(volume.active.firstRaw, 1)
  volume.freeze()
  t.equal(volume.active.firstRaw, Number.POSITIVE_INFINITY)
  while (test.log.end.segment < 3) test.log.append(1, Buffer.alloc(20_000), Buffer.alloc(0))
  test.write(6, 0, Buffer.alloc(10, 'b'))
  test.write(5, 10, Buffer.alloc(10, 'b'))
  t.equal(volume.active.firstRaw, 1, 'the rest of the window still lies in the first segment')
  volume.unfreeze()
  t.equal(volume.active.firstRaw, 1)
  await test.checkpoint()
  test.write(5, 30, Buffer.alloc(10, 'c'))
  t.equal(volume.active.firstRaw, 3)
})
