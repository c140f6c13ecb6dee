/**
 * What a snapshot, a restore and a fork cost with few files and with many: `node dist/bench/scale.js [counts…]`.
 * Times are those inside the daemon, without a mount; each count runs in a process of its own, so that
 * its memory can be read. Ends with status 1 when the promise is broken.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import type { RestoreInfo } from '../src/api/snapshots.ts'
import { Engine } from '../src/engine/engine.ts'
import { daemonService } from '../src/service/service.ts'
import type { KernelCaches } from '../src/vfs/filesystem.ts'
import { nodeOf } from '../src/vfs/place.ts'
import { ROOT_INO } from '../src/volume/keys.ts'
import { median } from './report.ts'

const COUNTS = [1_000, 100_000, 1_000_000]
const FILES_PER_DIRECTORY = 1000
const FILE_BYTES = 20
const ROUNDS = 31
const MS_MAX = 20
const FACTOR_MAX = 2
const CHILD = '--one'

const caller = { uid: 0, gid: 0, pid: 1 }

/** A kernel that caches nothing, and so has nothing to drop. */
const kernel: KernelCaches = {
  invalidateNode: async () => undefined,
  invalidateAttributes: async () => undefined,
  invalidateNames: async () => undefined,
  invalidateEntry: async () => undefined,
  expireEntry: async () => undefined,
  deleteEntry: async () => undefined,
  writeBack: async () => undefined,
}

interface Figures {
  count: number
  snapshot: number
  restore: number
  undo: number
  fork: number
  rssMiB: number
  heapMiB: number
  createSeconds: number
}

function print(figures: readonly Figures[]): void {
  const titles = ['files', 'snapshot ms', 'restore ms', 'undo ms', 'fork ms', 'RSS MiB', 'heap MiB', 'made in s']
  const rows = figures.map(({ count, snapshot, restore, undo, fork, rssMiB, heapMiB, createSeconds }) =>
    [count, ...[snapshot, restore, undo, fork].map((ms) => ms.toFixed(2)), rssMiB, heapMiB, createSeconds.toFixed(1)].map(String),
  )
  for (const row of [titles, ...rows]) console.log(row.map((cell) => cell.padStart(12)).join(''))
}

async function measure(count: number): Promise<Figures> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-scale-'))
  try {
    return await measureIn(directory, count)
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

async function measureIn(data: string, count: number): Promise<Figures> {
  const engine = await Engine.open({ data, logger: pino({ level: 'silent' }) })
  const session = { protocol: '', counts: {} }
  const service = daemonService({
    engine,
    kernel,
    session,
    mountpoint: '/',
    data,
    singleUser: false,
    stop: () => undefined,
  } as never)
  await service.workspaceCreate('/workspace/a', {})
  const begun = performance.now()
  const nodes = await fill(engine, count)
  await service.checkpoint()
  const createSeconds = (performance.now() - begun) / 1000

  const times = { snapshot: [] as number[], restore: [] as number[], undo: [] as number[], fork: [] as number[] }
  for (let round = 0; round < ROUNDS; round++) {
    const node = nodes[(round * 7919) % nodes.length] as number
    write(engine, node, `snapshot ${round}`)
    times.snapshot.push((await service.snapshotCreate('/workspace/a', { name: `s${round}` })).elapsed_ms as number)
    write(engine, node, `restore ${round}`)
    const done: RestoreInfo = await service.restore('/workspace/a', `s${round}`, {})
    times.restore.push(done.elapsed_ms)
    times.undo.push((await service.restore('/workspace/a', done.undo as string, {})).elapsed_ms)
    write(engine, node, `fork ${round}`)
    times.fork.push((await service.fork('/workspace/a', `/workspace/fork-${round}`, {})).elapsed_ms)
  }
  const { rss, heapUsed } = process.memoryUsage()
  await engine.close()
  const medians = Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]))
  return {
    count,
    ...(medians as Record<keyof typeof times, number>),
    rssMiB: toMiB(rss),
    heapMiB: toMiB(heapUsed),
    createSeconds,
  }
}

function toMiB(bytes: number): number {
  return Math.round(bytes / 1024 / 1024)
}

/** Makes files in directories; returns the node of some of them. */
async function fill(engine: Engine, count: number): Promise<number[]> {
  const top = nodeAt(engine, '/workspace/a')
  const nodes: number[] = []
  let directory = 0
  for (let i = 0; i < count; i++) {
    if (i % FILES_PER_DIRECTORY === 0) {
      directory = engine.fs.mkdir(caller, top, `d${i / FILES_PER_DIRECTORY}`, 0o755, 0).node
      // As the daemon does by itself when it is due.
      if (engine.volumes.checkpointDue) await engine.volumes.checkpoint()
    }
    const { node } = engine.fs.create(caller, directory, `f${i}`, 0o644, 0, 0)
    write(engine, node, `${i}`)
    if (i % Math.ceil(count / 1000) === 0) nodes.push(node)
    else engine.fs.forget(node, 1)
  }
  return nodes
}

function nodeAt(engine: Engine, file: string): number {
  let node = nodeOf(0, ROOT_INO)
  for (const name of file.split('/').filter(Boolean)) node = engine.fs.lookup(caller, node, name)?.node as number
  return node
}

function write(engine: Engine, node: number, text: string): void {
  const buffer = Buffer.alloc(2048)
  buffer.write(text.padEnd(FILE_BYTES), 100)
  engine.fs.write(caller, node, 0, buffer, 100, FILE_BYTES, false)
}

function measureApart(count: number): Figures {
  const words = [...process.execArgv, fileURLToPath(import.meta.url), CHILD, String(count)]
  return JSON.parse(execFileSync(process.execPath, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })) as Figures
}

if (process.argv[2] === CHILD) {
  console.log(JSON.stringify(await measure(Number(process.argv[3]))))
} else {
  const counts = process.argv.slice(2).map(Number)
  const figures = (counts.length === 0 ? COUNTS : counts).map(measureApart)
  print(figures)
  for (const name of ['snapshot', 'restore', 'fork'] as const) {
    const values = figures.map((one) => one[name])
    const [first, last, worst] = [values[0] as number, values.at(-1) as number, Math.max(...values)]
    const fine = worst < MS_MAX && last / first < FACTOR_MAX
    console.log(
      `${name}: at most ${worst.toFixed(2)} ms, factor ${(last / first).toFixed(2)}: ${fine ? 'as promised' : 'PROMISE BROKEN'}`,
    )
    if (!fine) process.exitCode = 1
  }
}
