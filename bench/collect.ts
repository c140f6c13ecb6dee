/**
 * What a garbage collection costs those who work meanwhile: `node dist/bench/collect.js [files]`. A workspace of many small
 * files stays, one of some large files was deleted; while the collection runs, timers tell how long a request would have
 * waited, and snapshots are taken. Inside the daemon, without a mount.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { Engine } from '../src/engine/engine.ts'
import { type DaemonService, daemonService } from '../src/service/service.ts'
import { nodeOf } from '../src/vfs/place.ts'
import { ROOT_INO } from '../src/volume/keys.ts'

const FILES = 1_000_000
const FILES_PER_DIRECTORY = 1000
const LARGE_FILES = 256
const LARGE_BYTES = 1024 * 1024
const SNAPSHOT_EVERY_MS = 100
const MIB = 1024 * 1024

const caller = { uid: 0, gid: 0, pid: 1 }
const nothing = async (): Promise<void> => undefined
const kernel = {
  invalidateNode: nothing,
  invalidateAttributes: nothing,
  invalidateEntry: nothing,
  invalidateNames: nothing,
  expireEntry: nothing,
  deleteEntry: nothing,
  writeBack: nothing,
}

interface Watched {
  /** the longest that a timer was late because of the daemon's work */
  stallMs: number
  /** the same by phase */
  stalls: Record<string, number>
  snapshots: number[]
  rss: number
}

class Bench {
  readonly engine: Engine
  readonly service: DaemonService

  constructor(engine: Engine, data: string) {
    this.engine = engine
    const session = { protocol: '', counts: {} }
    const options = { engine, kernel, session, mountpoint: '/', data, singleUser: false, logger: pino({ level: 'silent' }) }
    this.service = daemonService({ ...options, stop: () => undefined })
  }

  node(file: string): number {
    let node = nodeOf(0, ROOT_INO)
    for (const name of file.split('/').filter(Boolean)) node = this.engine.fs.lookup(caller, node, name)?.node as number
    return node
  }

  write(node: number, bytes: Buffer): void {
    const buffer = Buffer.concat([Buffer.alloc(128), bytes, Buffer.alloc(1024)])
    this.engine.fs.write(caller, node, 0, buffer, 128, bytes.length, false)
  }

  async fill(workspace: string, count: number, content: (i: number) => Buffer): Promise<void> {
    await this.service.workspaceCreate(workspace, {})
    const top = this.node(workspace)
    let directory = 0
    for (let i = 0; i < count; i++) {
      if (i % FILES_PER_DIRECTORY === 0) {
        directory = this.engine.fs.mkdir(caller, top, `d${i / FILES_PER_DIRECTORY}`, 0o755, 0).node
        if (this.engine.volumes.checkpointDue) await this.engine.volumes.checkpoint()
      }
      const { node } = this.engine.fs.create(caller, directory, `f${i}`, 0o644, 0, 0)
      this.write(node, content(i))
      this.engine.fs.forget(node, 1)
    }
    await this.service.checkpoint()
  }

  /** Until told to stop: how late a timer is at most, and how long each snapshot takes. */
  async watch(isOver: () => boolean): Promise<Watched> {
    const found: Watched = { stallMs: 0, stalls: {}, snapshots: [], rss: 0 }
    const probe = async (): Promise<void> => {
      while (!isOver()) {
        const at = performance.now()
        const before = process.cpuUsage()
        await sleep(1)
        // On a busy machine others make a timer late too: what the daemon did not compute is not its fault.
        const { user, system } = process.cpuUsage(before)
        const stallMs = Math.min(performance.now() - at - 1, (user + system) / 1000)
        const { phase } = this.engine.volumes.collectProgress
        found.stallMs = Math.max(found.stallMs, stallMs)
        found.stalls[phase] = Math.max(found.stalls[phase] ?? 0, stallMs)
        found.rss = Math.max(found.rss, process.memoryUsage.rss())
      }
    }
    const node = this.node('/workspace/kept/d0/f0')
    const snapshots = async (): Promise<void> => {
      for (let i = 0; !isOver(); i++) {
        this.write(node, Buffer.from(`snapshot ${i}`.padEnd(20)))
        const at = performance.now()
        await this.service.snapshotCreate('/workspace/kept', {})
        found.snapshots.push(performance.now() - at)
        await sleep(SNAPSHOT_EVERY_MS)
      }
    }
    await Promise.all([probe(), snapshots()])
    return found
  }
}

function noise(i: number): Buffer {
  const bytes = Buffer.allocUnsafe(LARGE_BYTES)
  let state = i + 1
  for (let at = 0; at < LARGE_BYTES; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes.writeUInt32LE((state ^ (state >>> 13)) >>> 0, at)
  }
  return bytes
}

async function run(data: string, count: number): Promise<void> {
  const engine = await Engine.open({ data, logger: pino({ level: 'silent' }) })
  const bench = new Bench(engine, data)
  await bench.fill('/workspace/kept', count, (i) => Buffer.from(`${i}`.padEnd(20)))
  await bench.fill('/workspace/gone', LARGE_FILES, noise)
  await bench.service.workspaceDelete('/workspace/gone')
  let over = false
  const quietUntil = performance.now() + 3000
  const alone = await bench.watch(() => performance.now() > quietUntil)
  const before = engine.volumes.logBytes
  const rssBefore = process.memoryUsage.rss()
  const watching = bench.watch(() => over)
  const info = await bench.service.collect()
  over = true
  const { stallMs, stalls, snapshots, rss } = await watching
  const sorted = snapshots.sort((a, b) => a - b)
  const lines = {
    files: count,
    'collection s': (info.elapsed_ms / 1000).toFixed(1),
    'longest stall ms': `${stallMs.toFixed(1)} (without a collection ${alone.stallMs.toFixed(1)})`,
    'by phase': Object.entries(stalls)
      .map(([phase, ms]) => `${phase} ${ms.toFixed(1)}`)
      .join(', '),
    'snapshots: number, median ms, longest ms': `${sorted.length}, ${sorted[sorted.length >> 1]?.toFixed(1)}, ${sorted.at(-1)?.toFixed(1)} (without: ${Math.max(...alone.snapshots).toFixed(1)})`,
    'RSS before, most MiB': `${Math.round(rssBefore / MIB)}, ${Math.round(rss / MIB)}`,
    'log before, after MiB': `${Math.round(before / MIB)}, ${Math.round(engine.volumes.logBytes / MIB)}`,
    'freed, copied MiB': `${Math.round(info.freed_bytes / MIB)}, ${Math.round(info.copied_bytes / MIB)}`,
  }
  for (const [name, value] of Object.entries(lines)) console.log(`${name.padEnd(44)}${value}`)
  await engine.close()
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-collect-'))
try {
  await run(directory, Number(process.argv[2] ?? FILES))
} finally {
  fs.rmSync(directory, { recursive: true, force: true })
}
