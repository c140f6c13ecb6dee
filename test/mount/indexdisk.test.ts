/** The index on a disk of its own that dies and is mended, the log on another: what is acknowledged stays, and reads go on. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { noise } from '../cas/support.ts'
import { MIB, noSmallDisk, smallDiskFor } from './smalldisk.ts'

const caller = { uid: 0, gid: 0, pid: 1 }
const ROOT = nodeOf(0, 1)
const BYTES = 3000
/** Everything is read from the disk each time. */
const limits = { nodeCacheBytesMax: 1, chunkCacheBytesMax: 1 }

function write(engine: Engine, name: string, seed: number): void {
  const { node } = engine.fs.create(caller, ROOT, name, 0o644, 0, 0)
  const buffer = Buffer.alloc(BYTES + 2048)
  noise(BYTES, seed).copy(buffer, 128)
  engine.fs.write(caller, node, 0, buffer, 128, BYTES, false)
}

function isWhole(engine: Engine, name: string, seed: number): boolean {
  const found = engine.fs.lookup(caller, ROOT, name)
  const into = Buffer.alloc(BYTES)
  if (found !== undefined) engine.fs.read(caller, found.node, 0, BYTES, into, 0)
  return into.equals(noise(BYTES, seed))
}

t.test('LevelDB on a disk that fails to write', { skip: noSmallDisk ?? false }, async (t) => {
  const disk = smallDiskFor(t, 64, 24)
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-index-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  await (await Engine.open({ data, logger: silentLogger })).close()
  fs.cpSync(path.join(data, 'index'), disk.data, { recursive: true })
  fs.rmSync(path.join(data, 'index'), { recursive: true })
  fs.symlinkSync(disk.data, path.join(data, 'index'))
  let engine = await Engine.open({ data, logger: silentLogger, limits })
  t.teardown(() => engine.close().catch(() => undefined))
  let count = 0
  const more = (): void => {
    for (let i = 0; i < 50; i++) write(engine, `f${count}`, count++)
  }
  more()
  await engine.volumes.checkpoint()

  // The rest of what the disk really has is taken; it says itself that it has twice as much.
  const ballast = fs.openSync(path.join(disk.directory, 'disk/ballast'), 'w')
  let isDead = false
  for (let i = 0; i < 40 && !isDead; i++) {
    fs.writeSync(ballast, noise(MIB, i))
    try {
      fs.fsyncSync(ballast)
    } catch {
      isDead = true
    }
  }
  t.ok(isDead, 'the disk fails to write')
  t.ok(disk.free() > 10 * MIB, 'and has room')
  let failure: unknown
  for (let i = 0; i < 200 && failure === undefined; i++) {
    more()
    await engine.volumes.checkpoint().catch((error: unknown) => {
      failure = error
    })
  }
  t.match(failure, { message: /index/ }, `${count} files`)
  t.equal(engine.volumes.log.failure, undefined, 'the log is on another disk')
  t.ok(isWhole(engine, 'f1', 1) && isWhole(engine, `f${count - 1}`, count - 1), 'reads go on')
  const again = await engine.volumes.checkpoint().then(
    () => undefined,
    (error: unknown) => error,
  )
  t.match(again, { message: /index cannot be written/ }, 'it is not closed for a disk that cannot be written')
  t.ok(isWhole(engine, 'f1', 1) && isWhole(engine, `f${count - 1}`, count - 1), 'reads still go on')

  // The disk is mended, and a request that comes at any moment is answered, if it waits as a session does.
  execFileSync('mount', ['-o', 'remount,size=200m', path.join(disk.directory, 'backing')])
  more()
  let isOver = false
  let [answers, waits] = [0, 0]
  const checkpoint = engine.volumes.checkpoint().finally(() => {
    isOver = true
  })
  while (!isOver) {
    await nextTurn()
    if (engine.opening !== undefined) {
      waits++
      await engine.opening
    }
    const name = (answers++ * 7) % count
    if (!isWhole(engine, `f${name}`, name)) t.fail(`f${name} is not whole`)
  }
  await checkpoint
  t.ok(answers > 0 && waits > 0, `${answers} answers, ${waits} waits`)
  await engine.close()
  engine = await Engine.open({ data, logger: silentLogger, limits })
  let whole = 0
  for (let i = 0; i < count; i++) if (isWhole(engine, `f${i}`, i)) whole++
  t.equal(whole, count, 'everything that was acknowledged')
  t.strictSame((await engine.check()).findings, [])
})
