/**
 * What a daemon measures, as the call `metrics` answers it: sums since the process began that serves, and how things stand.
 * Two answers are enough to tell what happened between them.
 */
import { type Distribution, NOTHING_MEASURED, since } from '../histogram.ts'

export interface OperationInfo {
  /** requests of this kind, answered or not */
  count: number
  /** those that failed, by errno */
  errors: Record<string, number>
  /** from when a request was read until its answer was sent; some kinds take no answer */
  latency: Distribution
}

export interface StallInfo {
  operation: string
  at: string
  elapsed_ms: number
  /** its answer waited for the disk, and others were served meanwhile */
  waited: boolean
}

export interface CacheInfo {
  hits: number
  misses: number
}

export interface MetricsInfo {
  version: string
  /** of the process that serves: where it differs, counting began anew */
  pid: number
  at: string
  started_at: string
  /** how often another process took the mount over, and when the last times were */
  takeovers: number
  taken_over_at: string[]
  operations: Record<string, OperationInfo>
  /** file content that the kernel was handed, and that it handed in */
  read_bytes: number
  written_bytes: number
  /** requests that had waited too long and got EIO */
  timeout_count: number
  /** requests that took more than 50 ms, and the worst of the last ten minutes */
  stall_count: number
  stalls: StallInfo[]
  /** how much later than asked for the event loop came to a timer */
  loop_delay: Distribution
  tree_cache: CacheInfo
  chunk_cache: CacheInfo
  /** of the log on disk; since the last checkpoint; added by this process */
  log_bytes: number
  dirty_bytes: number
  appended_bytes: number
  fsync: Distribution
  merge: Distribution
  checkpoint: Distribution
  checkpoint_running: boolean
  checkpoint_failures: number
  seal: Distribution
  sealed_bytes: number
  collect: Distribution
  collect_phase: string
  collect_failures: number
  freed_bytes: number
  /** looks at whether relations let a user do something, and those that did not */
  access_checks: number
  access_refusals: number
  /** that the kernel may hold */
  known_inodes: number
  workspaces: number
  snapshots: number
  memory_bytes: number
  /** of the disk below */
  disk_bytes: number
  disk_free_bytes: number
}

/** What happened between two answers; how things stand is as of the second. */
export interface MetricsChange extends MetricsInfo {
  /** that it took, at least a millisecond */
  interval_s: number
  /** another process took over in between: it is all that this one has done so far */
  began_anew: boolean
}

const COUNTS = [
  ...(['read_bytes', 'written_bytes', 'timeout_count', 'stall_count', 'appended_bytes', 'sealed_bytes', 'freed_bytes'] as const),
  ...(['checkpoint_failures', 'collect_failures', 'access_checks', 'access_refusals'] as const),
]
const DISTRIBUTIONS = ['loop_delay', 'fsync', 'merge', 'checkpoint', 'seal', 'collect'] as const

export function changeBetween(before: MetricsInfo, after: MetricsInfo): MetricsChange {
  const began_anew = before.pid !== after.pid
  const from = Date.parse(began_anew ? after.started_at : before.at)
  const change: MetricsChange = { ...after, interval_s: Math.max(1, Date.parse(after.at) - from) / 1000, began_anew }
  if (began_anew) return change
  for (const name of COUNTS) change[name] = after[name] - before[name]
  for (const name of DISTRIBUTIONS) change[name] = since(before[name], after[name])
  for (const name of ['tree_cache', 'chunk_cache'] as const) {
    change[name] = { hits: after[name].hits - before[name].hits, misses: after[name].misses - before[name].misses }
  }
  change.takeovers = after.takeovers - before.takeovers
  change.operations = Object.fromEntries(
    Object.entries(after.operations)
      .map(([name, operation]) => [name, operationBetween(before.operations[name], operation)] as const)
      .filter(([, { count, latency }]) => count > 0 || latency.count > 0),
  )
  return change
}

function operationBetween(before: OperationInfo | undefined, after: OperationInfo): OperationInfo {
  const errors = Object.entries(after.errors)
    .map(([errno, count]) => [errno, count - (before?.errors[errno] ?? 0)] as const)
    .filter(([, count]) => count > 0)
  return {
    count: after.count - (before?.count ?? 0),
    errors: Object.fromEntries(errors),
    latency: since(before?.latency ?? NOTHING_MEASURED, after.latency),
  }
}
