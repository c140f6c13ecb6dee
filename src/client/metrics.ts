/** What happened between two answers of the call `metrics`. */
import type { MetricsInfo, OperationInfo } from '../api/metrics.ts'
import { NOTHING_MEASURED, since } from '../histogram.ts'

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
