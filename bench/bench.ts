/**
 * npm run bench [-- --quick]: what a file system costs its users, here and on the local disk in the
 * same run. Each figure is a median of rounds in which the two take turns, because the machine is
 * never quite the same twice; only the ratios can be compared from one run to another.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { connectControl } from '../src/control/client.ts'
import { socketPathOf } from '../src/control/location.ts'
import { TestMount } from '../test/mount/harness.ts'

interface Sizes {
  rounds: number
  files: number
  mebibytes: number
  commits: number
}

interface Place {
  directory: string
  /** a directory for the files of each round: space that was used before is faster than new one, above all in a virtual machine */
  rounds: string[]
  /** what lies under the files, to be taken out of the page cache with them */
  under?: string
}

interface Measure {
  name: string
  /** how many of what its figure is for; warming up not counted */
  operations: number
  /** microseconds for each */
  run(place: Place, round: number): number
  /** what it needs, and nobody measures; both filesystems are idle by then */
  prepare?(place: Place, round: number): void
  /** operations that are run for each that counts */
  repeats?: number
}

interface Result {
  measure: Measure
  localMicros: number[]
  nexusMicros: number[]
  /** requests in all rounds, by kind */
  requests: Map<string, number>
}

const FULL: Sizes = { rounds: 5, files: 5000, mebibytes: 1024, commits: 1000 }
const QUICK: Sizes = { rounds: 1, files: 2000, mebibytes: 256, commits: 200 }

const OPS_SOURCE = fileURLToPath(new URL('../../bench/ops.c', import.meta.url))

function measures(ops: string, { files, mebibytes, commits }: Sizes): Measure[] {
  const run =
    (operation: string, count: number) =>
    ({ rounds }: Place, round: number): number =>
      Number(execFileSync(ops, [rounds[round] as string, operation, String(count)], { encoding: 'utf8' }))
  const read = run('read', mebibytes)
  const forget = ({ rounds, under }: Place, round: number): void => {
    for (const one of [rounds[round], under]) if (one !== undefined) execFileSync(ops, [one, 'forget', '1'])
  }
  return [
    { name: 'create, write 4 KiB, close', operations: files, run: run('create', files) },
    { name: 'stat, warm', operations: files, run: run('stat', files), repeats: 21 },
    { name: 'open, read 4 KiB, close, warm', operations: files, run: run('open', files), repeats: 6 },
    { name: 'unlink', operations: files, run: run('unlink', files) },
    { name: 'write a MiB, with one fsync', operations: mebibytes, run: run('write', mebibytes) },
    { name: 'read a MiB, cold', operations: mebibytes, run: read, prepare: forget },
    { name: 'read a MiB, warm', operations: mebibytes, run: read, prepare: read },
    { name: 'SQLite commit, rollback', operations: commits, run: (place) => commitAll(place, 'delete', commits) },
    { name: 'SQLite commit, WAL', operations: commits, run: (place) => commitAll(place, 'wal', commits) },
  ]
}

/** Every INSERT is a transaction of its own. The start of the program is counted too, a few milliseconds. */
function commitAll({ directory }: Place, mode: 'delete' | 'wal', commits: number): number {
  const file = path.join(directory, `${mode}.db`)
  fs.rmSync(file, { force: true })
  const insert = "INSERT INTO t (text) VALUES ('a hundred bytes of text, more or less, that somebody wanted to keep for good');\n"
  const input = `PRAGMA journal_mode=${mode};\nPRAGMA synchronous=FULL;\nCREATE TABLE t (id INTEGER PRIMARY KEY, text);\n`
  const begun = performance.now()
  execFileSync('sqlite3', [file], { input: input + insert.repeat(commits), stdio: ['pipe', 'ignore', 'inherit'] })
  return ((performance.now() - begun) * 1000) / commits
}

/** One measure, here and there; who comes first changes from round to round. */
async function measureBoth(result: Result, round: number, local: Place, nexus: Place, mount: TestMount): Promise<void> {
  const { measure } = result
  const control = connectControl({ socketPath: socketPathOf(mount.data) })
  const settle = async (place: Place): Promise<void> => {
    measure.prepare?.(place, round)
    await control.checkpoint()
    execFileSync('sync', ['-f', local.directory]) // where everything of nexus is stored as well
  }
  const here = async (): Promise<void> => {
    await settle(nexus)
    const before = (await control.status()).requests
    result.nexusMicros.push(measure.run(nexus, round))
    for (const [name, count] of Object.entries((await control.status()).requests)) {
      const more = count - (before[name] ?? 0)
      if (more > 0) result.requests.set(name, (result.requests.get(name) ?? 0) + more)
    }
  }
  const nexusFirst = round % 2 === 1
  if (nexusFirst) await here()
  await settle(local)
  result.localMicros.push(measure.run(local, round))
  if (!nexusFirst) await here()
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}

/** Requests for one operation; kinds that come less than once in a hundred are left out. */
function describeRequests({ measure, requests, nexusMicros }: Result): string {
  const operations = measure.operations * (measure.repeats ?? 1) * nexusMicros.length
  const each = [...requests].map(([name, count]): [string, number] => [name, count / operations])
  const total = each.reduce((sum, [, count]) => sum + count, 0)
  const kinds = each.filter(([, count]) => count >= 0.01).sort((a, b) => b[1] - a[1])
  const names = kinds.map(([name, count]) => (count > 0.95 && count < 1.05 ? name : `${name} ${count.toFixed(2)}`))
  return `${total.toFixed(2)}${names.length > 0 ? `: ${names.join(', ')}` : ''}`
}

function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] as string).length)))
  const line = (cells: readonly string[]): string => {
    const padded = cells.map((cell, i) =>
      i === 0 || i === cells.length - 1 ? cell.padEnd(widths[i] as number) : cell.padStart(widths[i] as number),
    )
    return `| ${padded.join(' | ')} |`
  }
  console.log(line(header))
  console.log(`|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`)
  for (const row of rows) console.log(line(row))
}

function report(results: readonly Result[], localName: string): void {
  const micros = (value: number): string => value.toFixed(value < 100 ? 1 : 0)
  printTable(
    ['microseconds for', localName, 'nexus', 'ratio', 'requests for each'],
    results.map((result) => {
      const local = median(result.localMicros)
      const nexus = median(result.nexusMicros)
      return [result.measure.name, micros(local), micros(nexus), (nexus / local).toFixed(2), describeRequests(result)]
    }),
  )
}

/**
 * For minutes ext4 does not use the numbers of deleted files again and looks long for others in the same block group:
 * a run would suffer from what an earlier one deleted. With this, subdirectories go to groups of their own.
 */
function spreadOut(directory: string): void {
  spawnSync('chattr', ['+T', directory])
}

async function main(): Promise<void> {
  const sizes = process.argv.includes('--quick') ? QUICK : FULL
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-bench-'))
  const mount = new TestMount(directory, {})
  try {
    const ops = path.join(directory, 'ops')
    execFileSync('cc', ['-O2', '-o', ops, OPS_SOURCE])
    await mount.start()
    const rounds = Array.from({ length: sizes.rounds }, (_, round) => round)
    const place = (directory: string): Place => ({ directory, rounds: rounds.map((round) => path.join(directory, `${round}`)) })
    const local = place(path.join(directory, 'local'))
    const nexus = { ...place(mount.at('workspace', 'bench')), under: path.join(mount.data, 'log') }
    for (const { directory } of [local, nexus]) fs.mkdirSync(directory)
    spreadOut(local.directory)
    for (const name of [...local.rounds, ...nexus.rounds]) fs.mkdirSync(name)
    const results = measures(ops, sizes).map(
      (measure): Result => ({ measure, localMicros: [], nexusMicros: [], requests: new Map() }),
    )
    for (const result of results) for (const round of rounds) await measureBoth(result, round, local, nexus, mount)
    const localName = execFileSync('stat', ['-f', '-c', '%T', directory], { encoding: 'utf8' })
      .trim()
      .replace('ext2/ext3', 'ext4')
    const { files, mebibytes, commits } = sizes
    console.log(
      `medians of ${sizes.rounds} rounds: ${files} files, ${mebibytes} MiB, ${commits} commits; ${os.cpus().length} × ${os.cpus()[0]?.model}\n`,
    )
    report(results, localName)
  } finally {
    await mount.stop()
    await mount.dispose()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

await main()
