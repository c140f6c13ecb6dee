/** What a daemon measures: sums since the process began that serves, and how things stand. */
import type * as v from 'valibot'
import { call } from './call.ts'
import { boolean, field, integer, listOf, mapOf, number, pairOf, record, text, time } from './schema.ts'

export const distribution = record('Distribution', {
  count: integer,
  sum_us: field(number, 'microseconds'),
  max_us: number,
  buckets: field(
    listOf(pairOf(number, integer)),
    'those that are not empty, ascending: microseconds that nothing in it has reached, and how many',
  ),
})

export const operation = record('Requests of a kind', {
  count: field(integer, 'also those that take no answer'),
  errors: field(mapOf(integer), 'by errno'),
  latency: field(distribution, 'from when a request was read until its answer was sent'),
})
export type OperationInfo = v.InferOutput<typeof operation>

export const stall = record('Stall', {
  operation: text,
  at: field(time, 'when it was answered'),
  elapsed_ms: number,
  waited: field(boolean, 'its answer waited for the disk; else all others waited for it'),
})
export type StallInfo = v.InferOutput<typeof stall>

export const cache = record('Cache', { hits: integer, misses: integer })
export type CacheInfo = v.InferOutput<typeof cache>

export const metricsInfo = record('Metrics', {
  version: field(text, 'of the daemon'),
  pid: field(integer, 'of the process that serves; where it differs from an earlier answer, counts began anew'),
  at: field(time, 'of this answer'),
  started_at: field(time, 'of the process that serves'),
  takeovers: field(integer, 'how often another process took the mount over since it was mounted, upgrades included'),
  taken_over_at: field(listOf(time), 'of the last eight'),
  operations: field(mapOf(operation), "by the kernel's name for the operation"),
  read_bytes: field(integer, 'file content handed to the kernel'),
  written_bytes: field(integer, 'file content taken from it'),
  timeout_count: field(integer, 'requests that had waited too long and got EIO (`nexusd mount --request-timeout`)'),
  stall_count: field(integer, 'requests that took more than 50 ms'),
  stalls: field(listOf(stall), 'the worst eight of the last ten minutes, the worst first'),
  loop_delay: field(distribution, 'how late the event loop came to a timer; while it is late, requests wait'),
  tree_cache: field(cache, '`hits` and `misses` of tree nodes'),
  chunk_cache: field(cache, '`hits` and `misses` of chunks that are read from'),
  log_bytes: field(integer, 'the log on disk'),
  dirty_bytes: field(integer, 'in the log since the last checkpoint'),
  appended_bytes: field(integer, 'added to the log'),
  fsync: field(distribution, 'making the log durable'),
  merge: field(distribution, 'merging changes into trees'),
  checkpoint: field(distribution, 'checkpoints that ended well'),
  checkpoint_running: field(boolean, 'one is being taken, or waits for its turn'),
  checkpoint_failures: integer,
  seal: field(distribution, 'cutting written data into chunks, waiting for a thread included'),
  sealed_bytes: field(integer, 'data that was cut'),
  collect: field(distribution, 'collections that ended well'),
  collect_phase: field(text, '`idle`, `mark`, `sweep`, `move` or `remove`'),
  collect_failures: integer,
  freed_bytes: field(integer, 'given back by collections'),
  access_checks: field(integer, 'looks at whether relations let a user do something'),
  access_refusals: field(integer, 'those that did not'),
  known_inodes: field(integer, 'that the kernel may hold'),
  workspaces: integer,
  snapshots: integer,
  memory_bytes: integer,
  disk_bytes: field(integer, 'of the disk of the data directory'),
  disk_free_bytes: field(integer, 'free of that for whoever is not root'),
})
export type MetricsInfo = v.InferOutput<typeof metricsInfo>

export const metricsCalls = {
  metrics: call({
    summary: 'what was measured since the serving process began',
    effect: 'read',
    params: [],
    answer: metricsInfo,
  }),
}
