/** Metrics in the text format of Prometheus, version 0.0.4: seconds and bytes, one family after the other. */
import type { Distribution } from '../histogram.ts'
import type { MetricsInfo } from './metrics.ts'

export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Bounds in microseconds: powers of two, at which buckets of `Histogram` end. */
const OPERATION_BOUNDS = powers(1, 24)
const WORK_BOUNDS = powers(128, 22)

type Labels = Record<string, string>
type Sample = [value: number, labels?: Labels]

export function exposition(info: MetricsInfo): string {
  const operations = Object.entries(info.operations)
  const text = new Exposition()
  text.gauge('build_info', 'Always 1; the version is in the label.', [[1, { version: info.version }]])
  text.gauge('start_time_seconds', 'When the process began that serves: counters begin with it.', [
    [Date.parse(info.started_at) / 1000],
  ])
  text.counter('takeovers_total', 'Times another process took the mount over since it was mounted.', [[info.takeovers]])
  text.counter(
    'requests_total',
    'Requests of the kernel; those that it answers from its caches are not known.',
    operations.map(([operation, { count }]) => [count, { operation }]),
  )
  text.counter(
    'request_errors_total',
    'Requests that failed.',
    operations.flatMap(([operation, { errors }]) =>
      Object.entries(errors).map(([errno, count]): Sample => [count, { operation, errno }]),
    ),
  )
  text.histogram(
    'request_duration_seconds',
    'From when a request was read until its answer was sent.',
    OPERATION_BOUNDS,
    operations.filter(([, { latency }]) => latency.count > 0).map(([operation, { latency }]) => [latency, { operation }]),
  )
  text.counter('read_bytes_total', 'File content handed to the kernel.', [[info.read_bytes]])
  text.counter('written_bytes_total', 'File content taken from the kernel.', [[info.written_bytes]])
  text.counter('request_timeouts_total', 'Requests that had waited too long and got EIO.', [[info.timeout_count]])
  text.counter('stalls_total', 'Requests that took more than 50 ms.', [[info.stall_count]])
  const work: [name: string, help: string, distribution: Distribution][] = [
    ['event_loop_delay_seconds', 'How late the event loop came to a timer.', info.loop_delay],
    ['fsync_duration_seconds', 'Making the log durable.', info.fsync],
    ['merge_duration_seconds', 'Merging what changed into trees.', info.merge],
    ['checkpoint_duration_seconds', 'Checkpoints that ended well.', info.checkpoint],
    ['seal_duration_seconds', 'Cutting written data into chunks.', info.seal],
    ['collect_duration_seconds', 'Garbage collections that ended well.', info.collect],
  ]
  for (const [name, help, distribution] of work) text.histogram(name, help, WORK_BOUNDS, [[distribution, {}]])
  text.counter('checkpoint_failures_total', 'Checkpoints that failed.', [[info.checkpoint_failures]])
  text.counter('collect_failures_total', 'Garbage collections that failed.', [[info.collect_failures]])
  text.counter('sealed_bytes_total', 'Written data cut into chunks.', [[info.sealed_bytes]])
  text.counter('freed_bytes_total', 'Given back by garbage collections.', [[info.freed_bytes]])
  text.counter('log_appended_bytes_total', 'Added to the log.', [[info.appended_bytes]])
  const caches: [string, keyof MetricsInfo & `${string}_cache`][] = [
    ['tree', 'tree_cache'],
    ['chunk', 'chunk_cache'],
  ]
  const help = 'Looks for something in a cache of the daemon'
  text.counter(
    'cache_hits_total',
    `${help} that found it.`,
    caches.map(([cache, name]) => [info[name].hits, { cache }]),
  )
  text.counter(
    'cache_misses_total',
    `${help} that did not find it.`,
    caches.map(([cache, name]) => [info[name].misses, { cache }]),
  )
  text.counter('access_checks_total', 'Looks at whether relations let a user do something.', [[info.access_checks]])
  text.counter('access_refusals_total', 'Those that did not.', [[info.access_refusals]])
  const gauges: [name: string, help: string, value: number][] = [
    ['log_bytes', 'Size of the log on disk.', info.log_bytes],
    ['dirty_bytes', 'In the log since the last checkpoint.', info.dirty_bytes],
    ['checkpoint_running', '1 while a checkpoint is taken.', Number(info.checkpoint_running)],
    ['collect_running', '1 while garbage is collected.', Number(info.collect_phase !== 'idle')],
    ['known_inodes', 'Inodes that the kernel may hold.', info.known_inodes],
    ['workspaces', 'Workspaces.', info.workspaces],
    ['snapshots', 'Snapshots of all workspaces.', info.snapshots],
    ['memory_bytes', 'Resident memory of the process that serves.', info.memory_bytes],
    ['disk_bytes', 'Size of the disk of the data directory.', info.disk_bytes],
    ['disk_free_bytes', 'What is free of it.', info.disk_free_bytes],
  ]
  for (const [name, what, value] of gauges) text.gauge(name, what, [[value]])
  return text.toString()
}

class Exposition {
  readonly #lines: string[] = []

  counter(name: string, help: string, samples: readonly Sample[]): void {
    this.#family(name, 'counter', help)
    for (const [value, labels] of samples) this.#sample(name, value, labels)
  }

  gauge(name: string, help: string, samples: readonly Sample[]): void {
    this.#family(name, 'gauge', help)
    for (const [value, labels] of samples) this.#sample(name, value, labels)
  }

  /** @param bounds microseconds, ascending */
  histogram(name: string, help: string, bounds: readonly number[], samples: readonly [Distribution, Labels][]): void {
    this.#family(name, 'histogram', help)
    for (const [{ count, sum_us, buckets }, labels] of samples) {
      let [next, below] = [0, 0]
      for (const bound of bounds) {
        for (let bucket = buckets[next]; bucket !== undefined && bucket[0] <= bound; bucket = buckets[++next]) below += bucket[1]
        this.#sample(`${name}_bucket`, below, { ...labels, le: String(bound / 1e6) })
      }
      this.#sample(`${name}_bucket`, count, { ...labels, le: '+Inf' })
      this.#sample(`${name}_sum`, sum_us / 1e6, labels)
      this.#sample(`${name}_count`, count, labels)
    }
  }

  toString(): string {
    return `${this.#lines.join('\n')}\n`
  }

  #family(name: string, type: string, help: string): void {
    this.#lines.push(`# HELP nexus_${name} ${help}`, `# TYPE nexus_${name} ${type}`)
  }

  /** Labels have no character that would have to be escaped. */
  #sample(name: string, value: number, labels: Labels = {}): void {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${text}"`)
    this.#lines.push(`nexus_${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}`)
  }
}

function powers(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, power) => first * 2 ** power)
}
