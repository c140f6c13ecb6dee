/** `nexusctl top` and `metrics`: what the daemon is busy with, and how well it goes. */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import { exposition } from '../../api/exposition.ts'
import type { CacheInfo, MetricsInfo, StallInfo } from '../../api/metrics.ts'
import { changeBetween, type MetricsChange } from '../../client/metrics.ts'
import { NexusError } from '../../errors.ts'
import { type Distribution, quantile } from '../../histogram.ts'
import { align, count, elapsed, localTime, size, table, uptime } from '../format.ts'
import { examples, intervalOption } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'
import type { Terminal } from '../terminal.ts'

/** Times in microseconds; 0 where nothing was measured. */
export interface TimesInfo {
  count: number
  p50_us: number
  p99_us: number
  max_us: number
}

export interface TopOperation extends TimesInfo {
  operation: string
  per_second: number
  errors: number
}

/** One frame: what happened in an interval, and how things stand at its end. */
export interface TopInfo {
  at: string
  interval_s: number
  began_anew: boolean
  pid: number
  uptime_s: number
  requests_per_second: number
  read_bytes_per_second: number
  written_bytes_per_second: number
  operations: TopOperation[]
  tree_cache_hit_rate: number | null
  chunk_cache_hit_rate: number | null
  loop_delay: TimesInfo
  fsync: TimesInfo
  checkpoint: TimesInfo
  checkpoint_running: boolean
  collect_phase: string
  log_bytes: number
  dirty_bytes: number
  disk_bytes: number
  disk_free_bytes: number
  memory_bytes: number
  known_inodes: number
  access_checks: number
  access_refusals: number
  stalls: StallInfo[]
}

export interface TopOptions {
  intervalMs: number
  once: boolean
}

/** @param terminal to draw on until somebody ends it; without one, frames go out one after the other */
export async function runTop(service: Service, options: TopOptions, output: Output, terminal?: Terminal): Promise<void> {
  const pause = new Pause(terminal?.quit)
  try {
    let before = await service.metrics()
    do {
      await pause.wait(options.intervalMs)
      if (pause.isOver) return
      const after = await (options.once ? service.metrics() : metricsOrNothing(service))
      if (after === undefined) {
        terminal?.draw('no nexusd answers: waiting for the next process')
        continue
      }
      const info = summary(changeBetween(before, after))
      before = after
      if (terminal === undefined) output.result(info, () => describeTop(info))
      else terminal.draw(`${describeTop(info)}\n\nq ends`)
    } while (!options.once)
  } finally {
    pause.end()
    terminal?.close()
  }
}

/** Between one process and the next nobody answers. */
async function metricsOrNothing(service: Service): Promise<MetricsInfo | undefined> {
  try {
    return await service.metrics()
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_NOT_RUNNING') return undefined
    throw error
  }
}

/** Waits that are cut short by the end of all. */
class Pause {
  isOver = false
  #timer: NodeJS.Timeout | undefined
  #wake: () => void = () => undefined

  constructor(quit: Promise<void> | undefined) {
    quit?.then(
      () => {
        this.isOver = true
        this.#wake()
      },
      () => undefined,
    )
  }

  wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
      this.#timer = setTimeout(resolve, this.isOver ? 0 : ms)
    })
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}

export function summary(change: MetricsChange): TopInfo {
  const seconds = change.interval_s
  const operations = Object.entries(change.operations).map(([operation, one]): TopOperation => {
    const errors = Object.values(one.errors).reduce((sum, number) => sum + number, 0)
    return { operation, per_second: one.count / seconds, errors, ...timesOf(one.latency), count: one.count }
  })
  operations.sort((a, b) => b.count - a.count)
  const { at, interval_s, began_anew, pid, checkpoint_running, collect_phase, log_bytes, dirty_bytes } = change
  const { disk_bytes, disk_free_bytes, memory_bytes, known_inodes, access_checks, access_refusals, stalls } = change
  return {
    ...{ at, interval_s, began_anew, pid },
    uptime_s: Math.round((Date.parse(at) - Date.parse(change.started_at)) / 1000),
    requests_per_second: operations.reduce((sum, one) => sum + one.per_second, 0),
    read_bytes_per_second: change.read_bytes / seconds,
    written_bytes_per_second: change.written_bytes / seconds,
    operations,
    tree_cache_hit_rate: hitRate(change.tree_cache),
    chunk_cache_hit_rate: hitRate(change.chunk_cache),
    loop_delay: timesOf(change.loop_delay),
    fsync: timesOf(change.fsync),
    checkpoint: timesOf(change.checkpoint),
    ...{ checkpoint_running, collect_phase, log_bytes, dirty_bytes },
    ...{ disk_bytes, disk_free_bytes, memory_bytes, known_inodes, access_checks, access_refusals, stalls },
  }
}

function timesOf(distribution: Distribution): TimesInfo {
  const { count, max_us } = distribution
  return { count, p50_us: quantile(distribution, 0.5), p99_us: quantile(distribution, 0.99), max_us }
}

function hitRate({ hits, misses }: CacheInfo): number | null {
  return hits + misses === 0 ? null : hits / (hits + misses)
}

export function describeTop(info: TopInfo): string {
  const began = info.began_anew ? ', took over just now' : ''
  const checkpoint = info.checkpoint_running ? 'a checkpoint runs' : `${count(info.checkpoint.count, 'checkpoint')} done`
  const head = align([
    ['nexusd', `pid ${info.pid}, up ${uptime(info.uptime_s)}${began}, ${localTime(info.at)}, ${elapsed(info.interval_s * 1000)}`],
    ['requests', `${rate(info.requests_per_second)}/s, besides what the kernel answers by itself`],
    [
      'content',
      `${size(Math.round(info.read_bytes_per_second))}/s read, ${size(Math.round(info.written_bytes_per_second))}/s written`,
    ],
    ['caches', `tree ${percent(info.tree_cache_hit_rate)}, chunks ${percent(info.chunk_cache_hit_rate)} found`],
    ['log', `${size(info.log_bytes)}, ${size(info.dirty_bytes)} since the last checkpoint; ${checkpoint}`],
    ['collection', info.collect_phase],
    ['disk', `${size(info.disk_free_bytes)} of ${size(info.disk_bytes)} free`],
    ['memory', `${size(info.memory_bytes)}; the kernel holds ${count(info.known_inodes, 'inode')}`],
    ['access', `${count(info.access_checks, 'check')}, ${count(info.access_refusals, 'refusal')}`],
  ])
  const times: (readonly [string, string, TimesInfo, string])[] = info.operations.map((one) => [
    one.operation,
    rate(one.per_second),
    one,
    one.errors === 0 ? '' : String(one.errors),
  ])
  const others = [
    ['(fsync of the log)', rate(info.fsync.count / info.interval_s), info.fsync, ''],
    ['(delay of the event loop)', '', info.loop_delay, ''],
  ] as const
  const rows = [...times, ...others].map(([name, perSecond, { count: measured, p50_us, p99_us, max_us }, errors]) => [
    name,
    perSecond,
    ...(measured === 0 ? ['-', '-', '-'] : [p50_us, p99_us, max_us].map(micros)),
    errors,
  ])
  const right = ['/S', 'P50 µs', 'P99 µs', 'MAX µs', 'ERRORS'].map((title) => ({ title, align: 'right' as const }))
  return [head, table([{ title: 'OPERATION' }, ...right], rows), ...describeStalls(info.stalls)].join('\n\n')
}

function describeStalls(stalls: readonly StallInfo[]): string[] {
  if (stalls.length === 0) return []
  const rows = stalls.map(({ operation, at, elapsed_ms, waited }) => [
    localTime(at),
    operation,
    elapsed(elapsed_ms),
    waited ? 'waited for the disk' : 'held all others',
  ])
  return [table([{ title: 'WORST STALLS' }, { title: 'OPERATION' }, { title: 'TOOK' }, { title: '' }], rows)]
}

function rate(perSecond: number): string {
  return perSecond < 10 ? perSecond.toFixed(1) : perSecond.toFixed(0)
}

function micros(time: number): string {
  return time < 10 ? time.toFixed(1) : time.toFixed(0)
}

function percent(share: number | null): string {
  return share === null ? '-' : `${(share * 100).toFixed(1)} %`
}

export async function runMetrics(service: Service, output: Output): Promise<void> {
  const info = await service.metrics()
  output.result(info, () => exposition(info).trimEnd())
}

export function addTopCommands(program: Command, open: OpenSession): void {
  program
    .command('top')
    .description('show what the daemon is busy with, again and again; q ends it')
    .addOption(intervalOption())
    .option('--once', 'one frame, over one interval')
    .addHelpText('after', examples('top', 'top --once --json --interval 10s'))
    .action(async (flags: { interval: number; once?: boolean }) => {
      const { service, output, terminal } = open()
      const options = { intervalMs: flags.interval, once: flags.once === true }
      await runTop(service, options, output, options.once ? undefined : terminal?.())
    })
  program
    .command('metrics')
    .description('print what the daemon measures, in the text format of Prometheus')
    .addHelpText('after', examples('metrics'))
    .action(async () => {
      const { service, output } = open()
      await runMetrics(service, output)
    })
}
