/**
 * What a check costs, and what it costs others: `node dist/bench/check.js [files]`, without a mount. The files are made by a
 * process of its own, so that the memory of the check can be told. Prints time, memory, and how long a request would have
 * waited for its turn.
 */
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Engine } from '../src/engine/engine.ts'
import { silentLogger } from '../src/logger.ts'
import { nodeOf } from '../src/vfs/place.ts'
import { ROOT_INO } from '../src/volume/keys.ts'

const FILES = 1_000_000
const FILES_PER_DIRECTORY = 1000
const FILE_BYTES = 40
const CHILD = '--fill'
const BIG_MIB = 1024
const MIB = 1024 * 1024
const caller = { uid: 0, gid: 0, pid: 1 }

async function fill(data: string, count: number): Promise<void> {
  const engine = await Engine.open({ data, logger: silentLogger })
  const top = engine.fs.lookup(caller, nodeOf(0, ROOT_INO), 'workspace')?.node as number
  const workspace = engine.fs.mkdir(caller, top, 'a', 0o755, 0).node
  const buffer = Buffer.alloc(2048)
  let directory = 0
  for (let i = 0; i < count; i++) {
    if (i % FILES_PER_DIRECTORY === 0) {
      directory = engine.fs.mkdir(caller, workspace, `d${i}`, 0o755, 0).node
      if (engine.volumes.checkpointDue) await engine.volumes.checkpoint()
    }
    const { node } = engine.fs.create(caller, directory, `f${i}`, 0o644, 0, 0)
    buffer.write(`file ${i}`.padEnd(FILE_BYTES), 100)
    engine.fs.write(caller, node, 0, buffer, 100, FILE_BYTES, false)
    engine.fs.forget(node, 1)
  }
  await engine.close()
}

/** Milliseconds by which turns of the event loop came late, until it is told to end. */
async function lateness(isOver: () => boolean): Promise<number[]> {
  const late: number[] = []
  while (!isOver()) {
    const start = performance.now()
    await sleep(1)
    late.push(Math.max(0, performance.now() - start - 1))
  }
  return late.sort((a, b) => a - b)
}

async function measure(data: string): Promise<void> {
  const engine = await Engine.open({ data, logger: silentLogger })
  global.gc?.()
  const before = process.memoryUsage.rss()
  let [peak, isOver] = [before, false]
  const sampler = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
  }, 50)
  const waiting = lateness(() => isOver)
  const start = performance.now()
  const checked = await engine.check()
  const seconds = (performance.now() - start) / 1000
  isOver = true
  clearInterval(sampler)
  const late = await waiting
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => (late[Math.floor(late.length * share)] as number).toFixed(2))
  console.log(`${checked.inodes} inodes, ${checked.chunks} chunks, ${checked.total} findings: ${seconds.toFixed(1)} s`)
  console.log(`memory ${Math.round(before / MIB)} MiB before, ${Math.round(peak / MIB)} MiB at most`)
  console.log(`turns late by ${p50} ms (median), ${p99} (p99), ${p999} (p99.9), ${late.at(-1)?.toFixed(2)} (worst)`)
  await scrub(engine)
  await engine.close()
}

/** Reads a gigabyte of large files as well: of small ones the speed is that of looking them up. */
async function scrub(engine: Engine): Promise<void> {
  const top = engine.fs.lookup(caller, nodeOf(0, ROOT_INO), 'workspace')?.node as number
  const { node } = engine.fs.create(caller, engine.fs.mkdir(caller, top, 'big', 0o755, 0).node, 'big', 0o644, 0, 0)
  const buffer = Buffer.alloc(MIB + 2048)
  for (let i = 0; i < BIG_MIB; i++) {
    randomFillSync(buffer)
    engine.fs.write(caller, node, i * MIB, buffer, 100, MIB, false)
  }
  await engine.volumes.checkpoint()
  const start = performance.now()
  engine.scrub.begin(null)
  const waiting = lateness(() => engine.scrub.info.state !== 'running')
  const late = await waiting
  const { total_bytes, bad, state } = engine.scrub.info
  const seconds = (performance.now() - start) / 1000
  const p99 = late[Math.floor(late.length * 0.99)] as number
  console.log(
    `scrub ${state}, ${bad.length} bad: ${Math.round(total_bytes / MIB)} MiB in ${seconds.toFixed(1)} s, ${Math.round(total_bytes / MIB / seconds)} MiB/s`,
  )
  console.log(`turns late by ${p99.toFixed(2)} ms (p99)`)
}

if (process.argv[2] === CHILD) await fill(process.argv[3] as string, Number(process.argv[4]))
else {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-check-'))
  try {
    const data = path.join(directory, 'data')
    const words = [fileURLToPath(import.meta.url), CHILD, data, process.argv[2] ?? String(FILES)]
    execFileSync(process.execPath, words, { stdio: 'inherit' })
    await measure(data)
  } finally {
    fs.rmSync(directory, { recursive: true, force: true })
  }
}
