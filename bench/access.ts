/**
 * What a question about rights costs with few tuples and with many: `node --expose-gc dist/bench/access.js [tuples…]`.
 * Access is measured on a tree that is only arithmetic, so the figures are those of tuples, evaluator and memory of answers.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pino } from 'pino'
import { Access, type AccessTree } from '../src/acl/access.ts'
import { Engine } from '../src/engine/engine.ts'
import { daemonService } from '../src/service/service.ts'
import type { KernelCaches } from '../src/vfs/filesystem.ts'
import { nodeOf, type Place } from '../src/vfs/place.ts'
import { Catalog } from '../src/volume/catalog.ts'
import { ROOT_INO } from '../src/volume/keys.ts'

const WORKSPACES = 1000
const DEEP = 8
const ROUNDS = 2000
const logger = pino({ level: 'silent' })
const value = JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at: null })
const none = async (): Promise<void> => undefined
const kernel: KernelCaches = {
  ...{
    invalidateNode: none,
    invalidateAttributes: none,
    invalidateEntry: none,
    invalidateNames: none,
    expireEntry: none,
    deleteEntry: none,
    writeBack: none,
  },
}

/** Inodes from 1,000,000 on are chains of eight directories; all others lie in the root of their workspace. */
const tree: AccessTree = {
  typeOf: (_volume, ino) => (ino === ROOT_INO ? 'workspace' : 'dir'),
  parentOf: (volume, ino) => (ino === ROOT_INO ? undefined : { volume, ino: parentOf(ino) }),
  liveOf: (volume) => volume,
  nestedIn: () => [],
  isNamed: () => true,
  isPresent: () => true,
}

function parentOf(ino: number): number {
  return ino >= 1_000_000 && ino % DEEP !== 0 ? ino - 1 : ROOT_INO
}

function placeOf(volume: number, ino: number): Place {
  const attr = { mode: 0o040777, uid: 0, parent: ino === ROOT_INO ? 0 : parentOf(ino), nlink: 2 }
  const at = { number: volume, attr: (other: number) => placeOf(volume, other).attr }
  return { volume: at, ino, attr } as unknown as Place
}

/** Microseconds of one call, each of `batch` a round. */
function time(title: string, count: string, aim: number, call: (round: number) => unknown, batch = 1, rounds = ROUNDS): void {
  const samples: number[] = []
  for (let i = 0; i < rounds; i++) {
    const start = process.hrtime.bigint()
    for (let j = 0; j < batch; j++) call(i)
    samples.push(Number(process.hrtime.bigint() - start) / 1000 / batch)
  }
  samples.sort((a, b) => a - b)
  const at = (part: number): string => (samples[Math.floor(samples.length * part)] as number).toFixed(2)
  row(title, count, at(0.5), at(0.99), aim === 0 ? '' : String(aim))
}

function row(title: string, ...cells: string[]): void {
  console.log(title.padEnd(38) + cells.map((cell) => cell.padStart(12)).join(''))
}

function measure(count: number): void {
  const catalog = new Catalog()
  for (let i = 0; i < count; i++)
    catalog.load(`t/${(i % WORKSPACES) + 1}/${2 + Math.floor(i / WORKSPACES)} viewer user:uid-${i % 5000}`, value)
  for (let volume = 1; volume <= WORKSPACES; volume++) catalog.load(`t/${volume}/1 viewer group:eng#member`, value)
  catalog.load('t/group:eng member group:inner#member', value)
  catalog.load('t/group:inner member user:uid-9999', value)
  globalThis.gc?.()
  const before = process.memoryUsage().heapUsed
  const access = new Access({ catalog, tree, commit: () => undefined, logger, singleUser: false })
  globalThis.gc?.()
  const bytes = (process.memoryUsage().heapUsed - before) / access.tuples.size
  const text = String(count)
  const warm = placeOf(1, 1_000_000 + DEEP - 1)
  const volumeAt = (round: number): number => (round % WORKSPACES) + 1
  time('cached rwx', text, 1, () => access.rwx(9999, warm), 100)
  time('direct', text, 20, (i) => access.check(`user:uid-${(i % WORKSPACES) % 5000}`, 'read', `dir:${volumeAt(i)}/2`))
  time('8 directories deep, group in group', text, 100, (i) =>
    access.check('user:uid-9999', 'read', `dir:${volumeAt(i)}/1000007`),
  )
  time('denied, 8 directories deep', text, 100, (i) => access.check('user:uid-8888', 'read', `dir:${volumeAt(i)}/1000007`))
  time('first rwx after a change, 8 deep', text, 0, (i) => access.rwx(20_000 + i, placeOf(volumeAt(i), 1_000_007)), 1, 200)
  row('memory', text, globalThis.gc === undefined ? 'no --expose-gc' : `${Math.round(bytes)} B/tuple`)
  access.stop()
}

async function measureEngine(): Promise<void> {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-access-'))
  const engine = await Engine.open({ data, logger })
  const session = { protocol: '', counts: {} }
  const stop = (): void => undefined
  const service = daemonService({ engine, logger, kernel, session, mountpoint: '/', data, singleUser: false, stop })
  try {
    for (let i = 0; i < 1000; i++)
      await service.workspaceCreate(`/tenants/t${i}`, { owner: i % 400 === 7 ? 'user:uid-7' : `user:u${i}` })
    const caller = { uid: 7, gid: 7, pid: 1 }
    const { node } = engine.fs.lookup(caller, nodeOf(0, ROOT_INO), 'tenants') ?? { node: 0 }
    let seen = 0
    const list = (): void => {
      seen = -2
      engine.fs.readdir(caller, node, 0, false, () => ++seen < 1e6)
    }
    const first = performance.now()
    list()
    row(`readdir of 1000 tenants, first, ${seen} seen`, '1000', ((performance.now() - first) * 1000).toFixed(0))
    time('readdir of 1000 tenants, warm', '1000', 0, list, 1, 100)
    // These answer at once and are promises only in their type.
    time('who can', '1000', 0, () => void service.whoCan('read', '/tenants/t7'), 1, 50)
    time('what can', '1000', 0, () => void service.whatCan('user:uid-7'), 1, 50)
  } finally {
    await engine.close()
    fs.rmSync(data, { recursive: true, force: true })
  }
}

row('', 'tuples', 'median us', 'p99 us', 'aim us')
const counts = process.argv.slice(2).map(Number)
for (const count of counts.length > 0 ? counts : [1000, 1_000_000]) measure(count)
await measureEngine()
