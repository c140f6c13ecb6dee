/**
 * A collection one slice at a time, with everything that may happen between two slices: what is written, copied, forked,
 * restored, deleted, or stored just when the same was about to go, and the machine stopping at any write.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { content, SEGMENT_BYTES, World } from './collect-world.ts'

const RUNS = Number(process.env['NEXUS_RUNS'] ?? 150)
/** A segment stays while more than this share of it is alive. */
const SHARE = 0.6

const ws = fc.constantFrom('w0', 'w1', 'w2')
const file = fc.constantFrom('a', 'b', 'c')
const pick = fc.nat(7)
const holds = fc.constantFrom('nothing' as const, 'writeBack' as const, 'notify' as const)
const op = <T extends string, R extends object>(name: T, fields: { [K in keyof R]: fc.Arbitrary<R[K]> }) =>
  fc.record({ op: fc.constant(name), ...fields }) as unknown as fc.Arbitrary<{ op: T } & R>
const step = fc.oneof(
  { weight: 7, arbitrary: op('write', { ws, file, seed: fc.nat(3), kib: fc.integer({ min: 1, max: 40 }) }) },
  { weight: 2, arbitrary: op('patch', { ws, file, seed: fc.nat(3), at: fc.nat(30_000) }) },
  { weight: 3, arbitrary: op('copy', { ws, file, toWs: ws, to: file }) },
  { weight: 1, arbitrary: op('copyKept', { pick, file, toWs: ws, to: file }) },
  { weight: 2, arbitrary: op('copyOpen', { pick, toWs: ws, to: file }) },
  { weight: 2, arbitrary: op('hold', { ws, file }) },
  { weight: 1, arbitrary: op('close', {}) },
  { weight: 4, arbitrary: op('unlink', { ws, file }) },
  { weight: 1, arbitrary: op('create', { ws }) },
  { weight: 1, arbitrary: op('remove', { ws }) },
  { weight: 3, arbitrary: op('snapshot', { ws }) },
  { weight: 3, arbitrary: op('unsnapshot', { pick }) },
  { weight: 2, arbitrary: op('fork', { ws, to: ws, pick, isOld: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: op('restore', { pick, holds }),
  },
  { weight: 1, arbitrary: op('diff', { pick }) },
  { weight: 1, arbitrary: op('race', { pick, holds, isDiff: fc.boolean() }) },
  { weight: 2, arbitrary: op('finish', {}) },
  { weight: 3, arbitrary: op('checkpoint', {}) },
  { weight: 14, arbitrary: op('step', { count: fc.constantFrom(1, 2, 5, 20, 60), copy: fc.boolean() }) },
  { weight: 2, arbitrary: op('collected', {}) },
  { weight: 2, arbitrary: op('die', { after: fc.nat(12), rebuild: fc.boolean() }) },
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

function picked(world: World, number: number): string {
  const ids = [...world.snapshots.keys()]
  return ids[number % Math.max(1, ids.length)] ?? ''
}

async function apply(world: World, one: Step): Promise<void> {
  if (one.op === 'write') world.write(one.ws, one.file, content(one.seed, one.kib), 0)
  else if (one.op === 'patch') world.write(one.ws, one.file, content(one.seed, 3), one.at)
  else if (one.op === 'copy') world.copy(one.ws, one.file, one.toWs, one.to)
  else if (one.op === 'copyOpen') world.copyOpen(one.pick, one.toWs, one.to)
  else if (one.op === 'copyKept') world.copyKept(picked(world, one.pick), one.file, one.toWs, one.to)
  else if (one.op === 'hold') world.hold(one.ws, one.file)
  else if (one.op === 'close') world.closeAll()
  else if (one.op === 'unlink') world.unlink(one.ws, one.file)
  else if (one.op === 'create') await world.create(one.ws)
  else if (one.op === 'remove') await world.remove(one.ws)
  else if (one.op === 'snapshot') await world.snapshot(one.ws)
  else if (one.op === 'unsnapshot') await world.unsnapshot(picked(world, one.pick))
  else if (one.op === 'fork') {
    const id = one.isOld ? picked(world, one.pick) : undefined
    await world.fork(id === undefined ? one.ws : (world.snapshots.get(id)?.workspace ?? one.ws), one.to, id)
  } else if (one.op === 'restore') await world.restore(picked(world, one.pick), one.holds)
  else if (one.op === 'diff') await world.diff(picked(world, one.pick))
  else if (one.op === 'race') await world.race(picked(world, one.pick), one.holds, one.isDiff)
  else if (one.op === 'finish') await world.finish()
  else if (one.op === 'checkpoint') await world.engine.volumes.checkpoint()
  else if (one.op === 'step') await world.step(one.count, one.copy)
  else if (one.op === 'collected') {
    await world.collected()
    world.check()
  } else {
    await world.die(one.after, one.rebuild)
    world.check()
  }
}

/** When nobody works, a collection leaves nothing but what is alive. */
async function checkSpace(world: World): Promise<void> {
  await world.collected()
  await world.finish()
  world.closeAll()
  await world.engine.collect()
  const last = await world.engine.collect()
  assert.equal(last.forgotten, 0, 'nothing is left to forget')
  const [physical, stored] = [world.engine.volumes.logBytes, await world.storedBytes()]
  assert(physical <= stored / SHARE + 2 * SEGMENT_BYTES, `${physical} bytes of log for ${stored} that are alive`)
}

t.test('whatever happens between two slices, nothing that is reached is lost, and all else goes', async (t) => {
  const data = mkdtempSync(path.join(tmpdir(), 'nexus-collect-'))
  t.teardown(() => rmSync(data, { recursive: true, force: true }))
  const runs = fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 80, size: 'max' }), async (steps) => {
    const world = new World(data)
    await world.start()
    await world.create('w0')
    await world.create('w1')
    for (const one of steps) await apply(world, one)
    world.check()
    await checkSpace(world)
    world.check()
    await world.die(0, true)
    world.check()
  })
  await fc.assert(runs, { numRuns: RUNS, ...(process.env['NEXUS_SEED'] && { seed: Number(process.env['NEXUS_SEED']) }) })
  t.pass(`${RUNS} sequences`)
})

t.test('what only a file in memory refers to is copied at any moment, and that file goes', async (t) => {
  const data = mkdtempSync(path.join(tmpdir(), 'nexus-collect-'))
  t.teardown(() => rmSync(data, { recursive: true, force: true }))
  for (let slices = 0; slices < 12; slices++) {
    const world = new World(data)
    await world.start()
    for (const one of ['w0', 'w1']) await world.create(one)
    world.write('w0', 'a', content(1, 30), 0)
    await world.snapshot('w0')
    world.unlink('w0', 'a')
    await world.engine.volumes.checkpoint()
    world.write('w0', 'c', content(2, 1), 0)
    const release = await world.beginHeld()
    // The collection has merged everything, and marks later: what comes now is in no tree.
    const id = [...world.snapshots.keys()][0] as string
    world.write('w0', 'c', content(3, 1), 0)
    world.write('w1', 'e', content(3, 2), 0)
    world.copyKept(id, 'a', 'w1', 'b')
    await world.unsnapshot(id)
    release()
    await world.step(slices, true)
    world.copy('w1', 'b', 'w0', 'd')
    world.unlink('w1', 'b')
    await world.collected()
    world.check()
    await checkSpace(world)
    world.check()
  }
  t.pass('12 moments')
})
