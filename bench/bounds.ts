/**
 * The bounds that a mount keeps, measured: `node dist/bench/bounds.js [which…] [--files N] …`, on a real mount of its own
 * for each part. Prints a row for each figure, with the bound where there is one; ends with status 1 when one is missed.
 * All parts take about an hour and 20 GiB of disk; `--scale 0.01` looks at a hundredth of everything. `--first` puts this and the
 * mount before others on a busy machine: what a request waits for otherwise is its turn on a processor.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Service } from '../src/api/calls.ts'
import { connectControl } from '../src/client/client.ts'
import { socketPathOf } from '../src/host/location.ts'
import { childrenOf, TestMount } from '../test/mount/harness.ts'
import { median } from './report.ts'

const MIB = 1024 * 1024
/** No request waits longer for others, at the 99th percentile. */
const WAIT_MS_MAX = 50
/** What is promised of snapshot, restore and fork, whatever the size. */
const INSTANT_MS_MAX = 20
const ROUNDS = 3

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    memory: { type: 'string', default: '512' },
    files: { type: 'string', default: '5000000' },
    names: { type: 'string', default: '1000000' },
    snapshots: { type: 'string', default: '10000' },
    workspaces: { type: 'string', default: '10000' },
    open: { type: 'string', default: '10000' },
    clients: { type: 'string', default: '64' },
    mib: { type: 'string', default: '4096' },
    scale: { type: 'string', default: '1' },
    first: { type: 'boolean', default: false },
    directory: { type: 'string', default: os.tmpdir() },
  },
})

function size(name: 'files' | 'names' | 'snapshots' | 'workspaces' | 'open' | 'mib'): number {
  return Math.max(1, Math.round(Number(given[name]) * Number(given.scale)))
}

const memoryMiB = Number(given.memory)
const clients = Number(given.clients)

/** What bench/load.c prints. */
interface Load {
  count: number
  failures: number
  seconds: number
  p50: number
  p99: number
  worst: number
}

class Table {
  missed = 0

  row(what: string, value: string, bound = '', holds = true): void {
    const load = (os.loadavg()[0] as number).toFixed(0)
    if (!holds) this.missed++
    console.log(
      `${what.padEnd(58)} ${value.padStart(30)}  ${bound.padEnd(12)} ${bound === '' ? '' : holds ? 'held' : 'MISSED'}  [load ${load}]`,
    )
  }

  atMost(what: string, value: number, unit: string, bound: number): void {
    this.row(what, `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`, `≤ ${bound} ${unit}`, value <= bound)
  }
}

const table = new Table()
const program = path.join(os.tmpdir(), `nexus-load-${process.pid}`)

/** A mount, and the process that serves it. */
class Bench {
  readonly mount: TestMount
  readonly control: Service

  constructor(mount: TestMount) {
    this.mount = mount
    this.control = connectControl({ socketPath: socketPathOf(mount.data) })
  }

  get serving(): number {
    return childrenOf(this.mount.pid)[0] ?? 0
  }

  /** MiB that the serving process has, had at most since `forgetPeak`, and shares with the next one. */
  memory(): { now: number; most: number; shared: number } {
    const status = fs.readFileSync(`/proc/${this.serving}/status`, 'utf8')
    const field = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024
    return { now: field('VmRSS'), most: field('VmHWM'), shared: field('RssShmem') }
  }

  tellMemory(what: string): void {
    const { now, most, shared } = this.memory()
    table.row(`${what}: memory now, shared`, `${now.toFixed(0)}, ${shared.toFixed(0)} MiB`)
    table.atMost(`${what}: memory at most`, most, 'MiB', memoryMiB)
  }

  start(directory: string, load: string, count: number, seed = 0): ChildProcess {
    return spawn(program, [this.mount.at(directory), load, String(count), String(seed)], { stdio: ['pipe', 'pipe', 'inherit'] })
  }

  async load(directory: string, load: string, count: number): Promise<Load> {
    return resultOf(this.start(directory, load, count))
  }

  /** Runs a load and tells how long one operation takes, and how many fail. */
  async tell(what: string, directory: string, load: string, count: number): Promise<void> {
    const { count: done, failures, seconds, p99 = 0, worst = 0 } = await this.load(directory, load, count)
    const each = `${done} in ${seconds.toFixed(0)} s, p99 ${(p99 / 1000).toFixed(2)}, worst ${(worst / 1000).toFixed(0)} ms`
    table.row(what, each, failures > 0 ? 'no failure' : '', failures === 0)
  }

  /** How long an uncached stat takes while something else is done, over some rounds. */
  async probeWhile(what: string, work: (round: number) => Promise<void>, rounds = ROUNDS): Promise<void> {
    const found: Load[] = []
    fs.mkdirSync(this.mount.at('workspace/probe'), { recursive: true })
    fs.writeFileSync(this.mount.at('workspace/probe/probe'), 'here')
    for (let round = 0; round < rounds; round++) {
      const probe = this.start('workspace/probe', 'probe', 0)
      const result = resultOf(probe)
      await work(round)
      probe.stdin?.end()
      found.push(await result)
    }
    const ms = (pick: (load: Load) => number): number[] => found.map((load) => pick(load) / 1000).sort((a, b) => a - b)
    const [p99, worst] = [ms((load) => load.p99), ms((load) => load.worst)]
    const asked = found.reduce((sum, load) => sum + load.count, 0)
    const typical = p99[p99.length >> 1] as number
    const detail = `best ${p99[0]?.toFixed(1)}, worst of all ${worst.at(-1)?.toFixed(0)} (best ${worst[0]?.toFixed(0)})`
    table.row(`stat while ${what}: ${asked} asked`, detail)
    table.atMost(`stat while ${what}: p99, typical of ${rounds}`, typical, 'ms', WAIT_MS_MAX)
  }
}

async function resultOf(child: ChildProcess): Promise<Load> {
  let text = ''
  child.stdout?.on('data', (part: Buffer) => {
    text += part.toString()
  })
  const [status] = (await once(child, 'close')) as [number | null]
  if (status !== 0) throw new Error(`load ended with ${status}`)
  return JSON.parse(text.slice(text.lastIndexOf('{'))) as Load
}

async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

/** Snapshot, restore and fork of a workspace, after a small change each. */
async function instants(bench: Bench, workspace: string): Promise<void> {
  const times = { snapshot: [] as number[], restore: [] as number[], fork: [] as number[] }
  for (let i = 0; i < 9; i++) {
    const change = (): void => fs.writeFileSync(bench.mount.at(workspace, 'changed'), `${i} ${Math.random()}`)
    change()
    times.snapshot.push((await bench.control.snapshotCreate(`/${workspace}`, { name: `s${i}` })).elapsed_ms as number)
    change()
    times.restore.push((await bench.control.restore(`/${workspace}`, `s${i}`, { force: true })).elapsed_ms)
    change()
    times.fork.push((await bench.control.fork(`/${workspace}`, `/workspace/fork-${i}`, {})).elapsed_ms)
  }
  for (const [name, values] of Object.entries(times)) table.atMost(`${name}, median of 9`, median(values), 'ms', INSTANT_MS_MAX)
}

async function files(bench: Bench): Promise<void> {
  fs.mkdirSync(bench.mount.at('workspace/files'))
  await bench.tell(`create ${size('files')} files`, 'workspace/files', 'tree', size('files'))
  bench.tellMemory('created')
  await bench.tell('walk all of them', 'workspace/files', 'walk', 0)
  bench.tellMemory('walked, the kernel holds them')
  await instants(bench, 'workspace/files')
  await bench.control.checkpoint()
  const restart = await milliseconds(async () => {
    await bench.mount.stop()
    await bench.mount.start()
  })
  table.row('stop and start', `${restart.toFixed(0)} ms`)
  await bench.tell('walk again, cold', 'workspace/files', 'walk', 0)
  bench.tellMemory('walked cold')
  const collected = await milliseconds(() => bench.control.collect())
  table.row('collect garbage', `${(collected / 1000).toFixed(0)} s`)
  bench.tellMemory('collected')
}

async function names(bench: Bench): Promise<void> {
  fs.mkdirSync(bench.mount.at('workspace/names'))
  const count = size('names')
  await bench.tell(`create ${count} in one directory`, 'workspace/names', 'create', count)
  await bench.tell('list (readdir), all known', 'workspace/names', 'list', 0)
  await bench.tell('stat by name', 'workspace/names', 'stat', count)
  bench.tellMemory('created, listed, looked at')
  await bench.mount.stop()
  await bench.mount.start()
  await bench.tell('list (readdirplus), none known', 'workspace/names', 'walk', 0)
  await bench.tell('unlink all', 'workspace/names', 'unlink', count)
  bench.tellMemory('listed and unlinked')
  table.row('left', String(fs.readdirSync(bench.mount.at('workspace/names')).length))
}

async function snapshots(bench: Bench): Promise<void> {
  const count = size('snapshots')
  const place = bench.mount.at('workspace/snapshots')
  fs.mkdirSync(place)
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    fs.writeFileSync(`${place}/changed`, `change ${i}`)
    times.push(await milliseconds(() => bench.control.snapshotCreate('/workspace/snapshots', { name: `s${i}` })))
  }
  const part = Math.max(1, Math.min(500, count >> 2))
  const [first, last] = [median(times.slice(0, part)), median(times.slice(-part))]
  table.row(`${count} snapshots: first and last ${part}, median`, `${first.toFixed(1)}, ${last.toFixed(1)} ms`)
  table.atMost('the last ones as a multiple of the first', last / first, 'times', 3)
  bench.tellMemory('taken')
  const seen = await milliseconds(async () => fs.promises.readdir(`${place}/.snapshots`))
  const looked = await milliseconds(async () => execFileSync('ls', ['-l', `${place}/.snapshots`], { maxBuffer: 64 * MIB }))
  const listed = await milliseconds(() => bench.control.snapshotList('/workspace/snapshots'))
  table.row(
    'ls .snapshots, ls -l, snapshot list',
    [seen, looked, listed]
      .map((ms) => ms.toFixed(0))
      .join(', ')
      .concat(' ms'),
  )
  const read = await milliseconds(async () => {
    for (let i = 0; i < count; i++) await fs.promises.readFile(`${place}/.snapshots/s${i}/changed`)
  })
  table.row('read a file in each', `${(read / 1000).toFixed(1)} s`)
  bench.tellMemory('all looked into')
  const restart = await milliseconds(async () => {
    await bench.mount.stop()
    await bench.mount.start()
  })
  table.row('stop and start', `${restart.toFixed(0)} ms`)
  await bench.probeWhile('garbage is collected', async () => void (await bench.control.collect()), 1)
  const deletions: number[] = []
  for (let i = 0; i < count; i++) {
    deletions.push(await milliseconds(() => bench.control.snapshotDelete('/workspace/snapshots', `s${i}`)))
  }
  const [early, late] = [median(deletions.slice(0, part)), median(deletions.slice(-part))]
  table.row('delete all: first, last, median', `${early.toFixed(1)}, ${late.toFixed(1)} ms`)
  bench.tellMemory('deleted')
}

async function workspaces(bench: Bench): Promise<void> {
  const count = size('workspaces')
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    times.push(
      await milliseconds(async () => {
        await fs.promises.mkdir(bench.mount.at(`workspace/w${i}`))
        await fs.promises.writeFile(bench.mount.at(`workspace/w${i}/file`), `${i}`)
      }),
    )
  }
  const part = Math.max(1, Math.min(500, count >> 2))
  const [first, last] = [median(times.slice(0, part)), median(times.slice(-part))]
  table.row(`${count} workspaces with a file: first, last, median`, `${first.toFixed(1)}, ${last.toFixed(1)} ms`)
  bench.tellMemory('made')
  const checkpoint = async (i: number): Promise<number> => {
    fs.writeFileSync(bench.mount.at(`workspace/w${i}/file`), `changed ${i}`)
    return (await bench.control.checkpoint()).elapsed_ms
  }
  await bench.control.checkpoint()
  const checkpoints: number[] = []
  for (let i = 0; i < 20; i++) checkpoints.push(await checkpoint(i % count))
  table.row('checkpoint after one change, median', `${median(checkpoints).toFixed(1)} ms`)
  const taken: number[] = []
  for (let i = 0; i < 20; i++) {
    fs.writeFileSync(bench.mount.at('workspace/w0/file'), `snapshot ${i}`)
    taken.push((await bench.control.snapshotCreate('/workspace/w0', { name: `s${i}` })).elapsed_ms as number)
  }
  table.atMost('snapshot of one of them, median', median(taken), 'ms', INSTANT_MS_MAX)
  const everything = await milliseconds(() => bench.control.snapshotCreate('/', { name: 'all' }))
  table.row('snapshot of all of them together', `${everything.toFixed(0)} ms`)
  await bench.probeWhile('each of them changes and a checkpoint runs', async (round) => {
    for (let i = 0; i < count; i++) fs.appendFileSync(bench.mount.at(`workspace/w${i}/file`), String(round))
    await bench.control.checkpoint()
  })
  const restart = await milliseconds(async () => {
    await bench.mount.stop()
    await bench.mount.start()
  })
  table.row('stop and start', `${restart.toFixed(0)} ms`)
  const listed = await milliseconds(async () => fs.promises.readdir(bench.mount.at('workspace')))
  table.row('ls /workspace', `${listed.toFixed(0)} ms`)
  bench.tellMemory('checkpoints, snapshots, start')
}

async function open(bench: Bench): Promise<void> {
  fs.mkdirSync(bench.mount.at('workspace/open'))
  fs.mkdirSync(bench.mount.at('workspace/clients'))
  const count = size('open')
  const holder = bench.start('workspace/open', 'hold', count)
  const held = resultOf(holder)
  await once(holder.stdout as NodeJS.ReadableStream, 'data')
  bench.tellMemory(`${count} open files, half without a name`)
  const running = Array.from({ length: clients }, (_, i) => resultOf(bench.start('workspace/clients', 'mixed', 20_000, i)))
  const all = await Promise.all(running)
  const failures = all.reduce((sum, { failures }) => sum + failures, 0)
  const operations = all.reduce((sum, load) => sum + load.count, 0)
  const p99 = median(all.map((load) => load.p99 / 1000))
  const worst = Math.max(...all.map((load) => load.worst / 1000))
  table.row(`${clients} clients, 20 s`, `${operations} done, p99 ${p99.toFixed(0)}, worst ${worst.toFixed(0)} ms`)
  table.atMost('failures', failures, '', 0)
  holder.stdin?.end()
  table.atMost('open files that were not as written', (await held).failures, '', 0)
  bench.tellMemory('all of it')
}

async function latency(bench: Bench): Promise<void> {
  for (const name of ['large', 'many']) fs.mkdirSync(bench.mount.at(`workspace/${name}`))
  await bench.probeWhile('nothing else happens', () => sleep(5000))
  await bench.probeWhile(
    `${size('mib')} MiB are written`,
    async () => void (await bench.load('workspace/large', 'stream', size('mib'))),
  )
  await bench.probeWhile('a checkpoint runs', async (round) => {
    // Small files by the thousand are what a checkpoint works at.
    fs.mkdirSync(bench.mount.at(`workspace/many/${round}`))
    await bench.load(`workspace/many/${round}`, 'tree', 20_000)
    await bench.control.checkpoint()
  })
  await bench.load('workspace/many', 'tree', size('names') / 5)
  await bench.probeWhile('garbage is collected', async (round) => {
    fs.rmSync(bench.mount.at(`workspace/many/${round}`), { recursive: true })
    if (round === 0) fs.rmSync(bench.mount.at('workspace/large/stream'))
    await bench.control.collect()
  })
  bench.tellMemory('all of it')
}

const parts: Record<string, (bench: Bench) => Promise<void>> = { latency, open, snapshots, workspaces, names, files }

async function run(name: string): Promise<void> {
  const part = parts[name]
  if (part === undefined) throw new Error(`there is no ${name}: ${Object.keys(parts).join(', ')}`)
  const directory = fs.mkdtempSync(path.join(given.directory, 'nexus-bounds-'))
  const mount = new TestMount(directory, { flags: ['--memory', `${memoryMiB}MiB`] })
  console.log(`\n${name}`)
  try {
    await mount.start()
    await part(new Bench(mount))
    if (mount.log !== '') console.log(mount.log)
    await mount.stop()
  } finally {
    await mount.dispose()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** Of the session that this and what it starts belong to (sched(7), "The autogroup feature"). */
function setPriority(nice: number): void {
  if (given.first) fs.writeFileSync('/proc/self/autogroup', String(nice))
}

setPriority(-15)
execFileSync('cc', ['-O2', '-o', program, fileURLToPath(new URL('../../bench/load.c', import.meta.url))])
try {
  for (const name of positionals.length === 0 ? Object.keys(parts) : positionals) await run(name)
} finally {
  fs.rmSync(program, { force: true })
  setPriority(0)
}
if (table.missed > 0) {
  console.log(`${table.missed} bounds were missed`)
  process.exitCode = 1
}
