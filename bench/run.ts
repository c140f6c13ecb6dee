/**
 * npm run bench [-- --quick]: what whole workloads cost on nexus, on the local disk beside it, and on the peers that are
 * installed. In each round they take turns, because the machine is never quite the same twice; only the ratios can be
 * compared from one run to another.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { packageVersion } from '../src/host/version.ts'
import { measureBudgets, writeBudgets } from './budgets.ts'
import { Inputs } from './inputs.ts'
import { machine, settings } from './machine.ts'
import { writeRun } from './page.ts'
import { type Peer, PeerMount, peers } from './peers.ts'
import { localPlace, NexusMount, noDropping, peerPlace } from './places.ts'
import { headerOf, rowOf, say, tableOf } from './report.ts'
import { Runner } from './runner.ts'
import { execute } from './shell.ts'
import { type Chosen, Turns } from './turns.ts'
import { BenchError, missingFor, type Scale } from './workload.ts'
import { kinds } from './workloads/index.ts'

const PAGE = fileURLToPath(new URL('../../docs/performance.md', import.meta.url))
const ROUNDS = { full: 3, quick: 1, budget: 3 }
/** their figures are there to compare with, and some of them take long */
const PEER_ROUNDS_MAX = 1
const REMOVE_MS_MAX = 600_000
/** since the start of the process; a machine that is slow or busy gets no further in that time */
const QUICK_MS_MAX = 55_000
/** what a run has on the disk at once, at most */
const FREE_BYTES = { full: 40e9, quick: 4e9, budget: 1e9 }

interface Options {
  quick?: true
  only?: RegExp
  rounds?: number
  peers?: readonly Peer[]
  directory: string
  write: boolean
  budgets?: true
}

let stopped = false

function expression(text: string): RegExp {
  try {
    return new RegExp(text, 'i')
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
}

function positive(text: string): number {
  const count = Number(text)
  if (!Number.isSafeInteger(count) || count < 1) throw new InvalidArgumentError('a whole number from 1 on')
  return count
}

function peersNamed(text: string): Peer[] {
  if (text === 'none') return []
  return text.split(',').map((name) => {
    const peer = peers.find((one) => one.name === name)
    if (peer === undefined) throw new InvalidArgumentError(`there is ${peers.map((one) => one.name).join(', ')}, or none`)
    return peer
  })
}

function options(): Options {
  return new Command('npm run bench --')
    .description('Measures whole workloads on nexus, on the local disk and on peers, in turns.')
    .option('--quick', 'small sizes, one round, no peers: a minute')
    .option('--only <regex>', 'workloads whose kind or name this matches', expression)
    .option('--rounds <n>', `rounds; ${ROUNDS.full}, or ${ROUNDS.quick} if quick`, positive)
    .option(
      '--peers <a,b>',
      `of ${peers.map(({ name }) => name).join(', ')}; or none. All that are installed, none if quick`,
      peersNamed,
    )
    .option('--directory <dir>', 'where to work, on the disk to compare with', os.tmpdir())
    .option('--no-write', 'leave docs/performance.md as it is (as if quick)')
    .option('--budgets', 'only count requests, and write bench/budgets.json anew')
    .parse()
    .opts<Options>()
}

/** Those asked for that can be run here; the others are named with what they need. */
function choose({ only }: Options): Chosen[] {
  const all = Object.entries(kinds).flatMap(([kind, workloads]) => workloads.map((workload) => ({ kind, workload })))
  const chosen = all.filter(({ kind, workload }) => only === undefined || only.test(`${kind}: ${workload.name}`))
  if (chosen.length === 0) throw new BenchError('no workload has such a name')
  return chosen.filter(({ workload }) => {
    const needs = missingFor(workload)
    const cannot = workload.cold === undefined ? undefined : noDropping()
    if (cannot !== undefined) needs.push(cannot)
    if (needs.length > 0) say(`*** SKIPPED: ${workload.name}: ${needs.join(', ')} ***`)
    return needs.length === 0
  })
}

/** By turns one of each kind: if the time is over before all are through, there is something of each. */
function mixed(chosen: readonly Chosen[]): Chosen[] {
  const placeOf = ({ kind, workload }: Chosen): number => kinds[kind]?.indexOf(workload) ?? 0
  return [...chosen].sort((a, b) => placeOf(a) - placeOf(b))
}

function choosePeers({ peers: named, quick }: Options): Peer[] {
  const wanted = named ?? (quick ? [] : peers)
  if (wanted.length > 0 && process.getuid?.() !== 0) {
    say('*** NO PEERS: they are mounted by root ***')
    return []
  }
  return wanted.filter((peer) => {
    if (!peer.isInstalled()) say(`*** NO ${peer.name}: it needs ${peer.from} ***`)
    return peer.isInstalled()
  })
}

async function main(given: Options): Promise<void> {
  const scale: Scale = given.budgets ? 'budget' : given.quick ? 'quick' : 'full'
  const rounds = given.rounds ?? ROUNDS[scale]
  const chosen = choose(given)
  const { bavail, bsize } = fs.statfsSync(given.directory)
  if (bavail * bsize < FREE_BYTES[scale])
    throw new BenchError(
      `${given.directory} has less than ${FREE_BYTES[scale] / 1e9} GB free: name another place with --directory`,
    )
  const directory = fs.mkdtempSync(path.join(given.directory, 'nexus-bench-'))
  fs.chmodSync(directory, 0o755) // mkdtemp(3) makes it for its maker alone
  const mounted: { stop(): void | Promise<void> }[] = []
  const load = os.loadavg()[0] as number
  const set = settings()
  try {
    const local = localPlace(directory)
    const places = [local]
    const nexus = await NexusMount.start(directory)
    mounted.push(nexus)
    places.push(...nexus.places())
    const inputs = path.join(directory, 'inputs')
    fs.mkdirSync(inputs)
    const runner = new Runner(new Inputs(inputs), directory, scale)
    if (given.budgets) {
      writeBudgets(await measureBudgets(runner, nexus.places(), rounds))
      return
    }
    for (const peer of choosePeers(given)) {
      try {
        const mount = await PeerMount.start(peer, directory)
        mounted.push(mount)
        places.push(await peerPlace(mount))
      } catch (error) {
        if (!(error instanceof BenchError)) throw error
        say(`*** NO ${peer.name}: ${(error as Error).message} ***`)
      }
    }
    // Whoever asks for peers wants all of them in each row.
    const endMs = given.quick && given.peers === undefined ? QUICK_MS_MAX : Infinity
    const turns = new Turns(runner, places, { all: rounds, peers: PEER_ROUNDS_MAX, endMs, isStopped: () => stopped })
    const results = await turns.measure(given.quick ? mixed(chosen) : chosen)
    const names = places.filter(({ kind }) => kind === 'peer').map(({ name }) => name)
    const inOrder = chosen.flatMap(({ workload }) => results.filter((result) => result.workload === workload))
    const rows = inOrder.map((result) => rowOf(result, local.name, names))
    const ofPeers = names.length > 0 && rounds > PEER_ROUNDS_MAX ? `, of ${PEER_ROUNDS_MAX} at peers` : ''
    const loads = `load ${load.toFixed(1)} before, ${(os.loadavg()[0] as number).toFixed(1)} after`
    const circumstances = `medians of ${rounds} round${rounds === 1 ? '' : 's'}${ofPeers}; ${loads}; ${set}.`
    console.log(`${machine()}; ${circumstances}\n`)
    console.log(tableOf(headerOf(names), rows, true).join('\n'))
    if (!given.quick && given.write) {
      const date = new Date().toISOString().slice(0, 10)
      writeRun(PAGE, {
        release: packageVersion(),
        date,
        machine: machine(),
        command: command(),
        circumstances,
        peers: names,
        rows,
      })
    }
  } finally {
    for (const one of mounted.reverse()) await one.stop()
    // What could not be unmounted is not to be looked into.
    await execute(['rm', '-rf', '--one-file-system', directory], REMOVE_MS_MAX)
  }
}

/** As it was called, without where it worked. */
function command(): string {
  const words = process.argv.slice(2)
  const at = words.indexOf('--directory')
  if (at >= 0) words.splice(at, 2)
  const shown = words.map((word) => (/^[\w,./-]+$/.test(word) ? word : `'${word}'`))
  return ['npm run bench', ...(shown.length > 0 ? ['--', ...shown] : [])].join(' ')
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    stopped = true
  })

try {
  await main(options())
} catch (error) {
  if (!(error instanceof BenchError)) throw error
  say(`bench: ${error.message}`)
  process.exitCode = 1
}
