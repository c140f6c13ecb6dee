/**
 * What the answers of the control API have to look like, one row a call, and how a client makes sure: what it prints is
 * what the types say, whoever answers. The types demand a row for each call and each field. A field that is added once there
 * is a released version is `absentOr(…)`: daemons that are still running do not answer it. Strangers among the fields are let through.
 */
import type { Distribution } from '../histogram.ts'
import type { CallName } from './calls.ts'
import type { CacheInfo, MetricsInfo, OperationInfo, StallInfo } from './metrics.ts'
import type * as api from './service.ts'

/** An answer is not what it has to be; the message says where. */
export class UnlikeAnswer extends Error {}

/** Returns the value that it was given, or throws `UnlikeAnswer`; `at` is where that is. */
type Shape<T> = (value: unknown, at: string) => T

function primitive<T>(kind: string, is: (value: unknown) => value is T): Shape<T> {
  return (value, at) => {
    if (is(value)) return value
    throw new UnlikeAnswer(value === undefined ? `${at} is missing` : `${at} is no ${kind}`)
  }
}

const text = primitive('text', (value) => typeof value === 'string')
const time = primitive('time', (value): value is string => typeof value === 'string' && !Number.isNaN(Date.parse(value)))
/** JSON's 1e999 is infinite. */
const number = primitive('number', (value): value is number => typeof value === 'number' && Number.isFinite(value))
const boolean = primitive('true or false', (value) => typeof value === 'boolean')

function oneOf<T extends string>(...words: T[]): Shape<T> {
  return primitive(`one of ${words.join(', ')}`, (value): value is T => words.includes(value as T))
}

function nullOr<T>(shape: Shape<T>): Shape<T | null> {
  return (value, at) => (value === null ? null : shape(value, at))
}

function absentOr<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, at) => (value === undefined ? undefined : shape(value, at))
}

function listOf<T>(shape: Shape<T>): Shape<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new UnlikeAnswer(`${at} is no list`)
    for (const [i, each] of value.entries()) shape(each, `${at}[${i}]`)
    return value
  }
}

function pairOf<A, B>(first: Shape<A>, second: Shape<B>): Shape<[A, B]> {
  return (value, at) => {
    const pair = listOf((each) => each)(value, at)
    return [first(pair[0], `${at}[0]`), second(pair[1], `${at}[1]`)]
  }
}

const object = primitive(
  'object',
  (value): value is object => typeof value === 'object' && value !== null && !Array.isArray(value),
)

function mapOf<T>(shape: Shape<T>): Shape<Record<string, T>> {
  return (value, at) => {
    const map = object(value, at)
    for (const [key, each] of Object.entries(map)) shape(each, `${at}.${key}`)
    return map as Record<string, T>
  }
}

function record<T extends object>(fields: { [K in keyof Required<T>]: Shape<T[K]> }): Shape<T> {
  const rows = Object.entries<Shape<unknown>>(fields)
  return (value, at) => {
    const given = object(value, at) as Record<string, unknown>
    // Own ones only: an answer has no constructor.
    for (const [name, shape] of rows) shape(Object.hasOwn(given, name) ? given[name] : undefined, `${at}.${name}`)
    return given as T
  }
}

const workspace = record<api.WorkspaceInfo>({
  path: text,
  number,
  created_at: time,
  metadata: mapOf(text),
  file_count: number,
  directory_count: number,
  bytes: number,
  snapshot_count: number,
  parent: nullOr(text),
  snapshot_dir: text,
  snapshot_dir_hidden: boolean,
})

const snapshot = record<api.SnapshotInfo>({
  snapshot_id: text,
  name: nullOr(text),
  path: text,
  created_at: time,
  root: text,
  file_count: nullOr(number),
  bytes: nullOr(number),
  metadata: mapOf(text),
  parent: nullOr(text),
  automatic: boolean,
  elapsed_ms: absentOr(number) as Shape<number>,
})

const changes = listOf(
  record<api.Change>({
    path: text,
    change: oneOf('added', 'removed', 'modified', 'renamed'),
    from: absentOr(text) as Shape<string>,
    kind: oneOf('file', 'directory', 'symlink', 'other'),
    what: listOf(text),
  }),
)

const restored = record<api.RestoreInfo>({
  path: text,
  restored: text,
  undo: nullOr(text),
  undo_path: nullOr(text),
  dry_run: boolean,
  changes,
  truncated: boolean,
  writers: listOf(record<api.WriterInfo>({ pid: number, command: text, files: number })),
  writers_hidden: number,
  elapsed_ms: number,
})

const quotaFields = {
  path: text,
  number,
  bytes_used: number,
  bytes_limit: nullOr(number),
  bytes_remaining: nullOr(number),
  inodes_used: number,
  inodes_limit: nullOr(number),
  inodes_remaining: nullOr(number),
}
const quota = record<api.QuotaInfo>(quotaFields)

const identity = record<api.IdentityInfo>({ subject: text, uids: listOf(number) })
const group = record<api.GroupInfo>({ group: text, members: listOf(text) })
const model = record<api.ModelInfo>({ text, builtin: boolean })
const grant = record<api.GrantInfo>({
  subject: text,
  relation: text,
  path: text,
  inherited: boolean,
  created_at: time,
  expires_at: nullOr(time),
})
const checkFields = { subject: text, permission: text, path: text, allowed: boolean }

const status = record<api.StatusInfo>({
  version: text,
  pid: number,
  supervisor_pid: number,
  mountpoint: text,
  data: text,
  started_at: time,
  uptime_s: number,
  single_user: boolean,
  kernel_protocol: text,
  workspaces: number,
  snapshots: number,
  requests: mapOf(number),
  memory_bytes: number,
  log_bytes: number,
  dirty_bytes: number,
  state: oneOf('ok', 'full', 'read-only'),
  reason: nullOr(text),
  takeovers: number,
  taken_over_at: nullOr(time),
  stalls: number,
  disk_free_bytes: number,
  limits: record<api.LimitsInfo>({
    workspaces: nullOr(number),
    snapshots: nullOr(number),
    calls: nullOr(number),
    calls_of_all: nullOr(number),
  }),
  used: nullOr(record({ workspaces: number, snapshots: number })),
})

const diskUsage = record<api.DiskUsageInfo>({
  measured_at: time,
  physical_bytes: number,
  live_bytes: number,
  snapshot_bytes: number,
  reclaimable_bytes: number,
  logical_bytes: number,
  deduplication: number,
  workspaces: listOf(record({ path: text, bytes: number, file_count: number, snapshot_count: number })),
})

const fsck = record<api.FsckInfo>({
  clean: boolean,
  findings: listOf(
    record<api.Finding>({
      kind: text,
      severity: oneOf('damage', 'error'),
      workspace: text,
      ino: nullOr(number),
      path: nullOr(text),
      live: boolean,
      snapshots: listOf(text),
      text,
    }),
  ),
  total: number,
  repaired: number,
  states: number,
  workspaces: number,
  snapshots: number,
  inodes: number,
  chunks: number,
  elapsed_ms: number,
})

const scrub = record<api.ScrubInfo>({
  state: oneOf('none', 'running', 'stopped', 'done', 'failed'),
  started_at: nullOr(time),
  finished_at: nullOr(time),
  rate: nullOr(number),
  done_bytes: number,
  total_bytes: number,
  bad: listOf(
    record<api.BadContent>({
      kind: oneOf('chunk', 'node'),
      address: text,
      segment: nullOr(number),
      offset: nullOr(number),
      files: listOf(record({ path: text, live: boolean, snapshots: listOf(text) })),
    }),
  ),
})

const distribution = record<Distribution>({
  count: number,
  sum_us: number,
  max_us: number,
  buckets: listOf(pairOf(number, number)),
})
const cache = record<CacheInfo>({ hits: number, misses: number })

const metrics = record<MetricsInfo>({
  version: text,
  pid: number,
  at: time,
  started_at: time,
  takeovers: number,
  taken_over_at: listOf(time),
  operations: mapOf(record<OperationInfo>({ count: number, errors: mapOf(number), latency: distribution })),
  read_bytes: number,
  written_bytes: number,
  timeout_count: number,
  stall_count: number,
  stalls: listOf(record<StallInfo>({ operation: text, at: time, elapsed_ms: number, waited: boolean })),
  loop_delay: distribution,
  tree_cache: cache,
  chunk_cache: cache,
  log_bytes: number,
  dirty_bytes: number,
  appended_bytes: number,
  fsync: distribution,
  merge: distribution,
  checkpoint: distribution,
  checkpoint_running: boolean,
  checkpoint_failures: number,
  seal: distribution,
  sealed_bytes: number,
  collect: distribution,
  collect_phase: text,
  collect_failures: number,
  freed_bytes: number,
  access_checks: number,
  access_refusals: number,
  known_inodes: number,
  workspaces: number,
  snapshots: number,
  memory_bytes: number,
  disk_bytes: number,
  disk_free_bytes: number,
})

const answers: { readonly [K in CallName]: Shape<Awaited<ReturnType<api.Service[K]>>> } = {
  status,
  workspaceCreate: workspace,
  workspaceList: listOf(workspace),
  workspaceShow: workspace,
  workspaceDelete: workspace,
  workspaceRename: workspace,
  workspaceUpdate: workspace,
  snapshotCreate: snapshot,
  snapshotList: listOf(snapshot),
  snapshotShow: snapshot,
  snapshotDelete: snapshot,
  snapshotDiff: record<api.DiffInfo>({
    from: text,
    to: text,
    from_path: nullOr(text),
    to_path: nullOr(text),
    changes,
    truncated: boolean,
  }),
  restore: restored,
  fork: record<api.ForkInfo>({ path: text, source: text, snapshot: nullOr(text), elapsed_ms: number }),
  identityAdd: identity,
  identityList: listOf(identity),
  identityRemove: identity,
  grant,
  revoke: grant,
  grants: listOf(grant),
  check: record<api.CheckInfo>(checkFields),
  explain: record<api.ExplainInfo>({ ...checkFields, steps: listOf(text) }),
  whoCan: record({ subjects: listOf(text) }),
  whatCan: listOf(record<api.ReachInfo>({ path: text, permissions: listOf(text) })),
  groupAdd: group,
  groupRemove: group,
  groupList: listOf(group),
  modelShow: model,
  modelApply: model,
  tenantOnboard: record<api.TenantInfo>({ tenant: text, workspace, admin: text, directories: listOf(text), snapshot }),
  quotaSet: quota,
  quotaShow: record<api.QuotaShowInfo>({ ...quotaFields, around: listOf(quota) }),
  quotaList: listOf(quota),
  checkpoint: record({ elapsed_ms: number }),
  collect: record<api.CollectInfo>({
    forgotten: number,
    segments: number,
    freed_bytes: number,
    copied_bytes: number,
    elapsed_ms: number,
  }),
  collectStatus: record<api.CollectStatusInfo>({ phase: text, done: number, total: number }),
  diskUsage,
  shutdown: record({ pid: number }),
  fsck,
  scrub,
  scrubStatus: scrub,
  scrubStop: scrub,
  metrics,
}

/** @throws UnlikeAnswer when it is no answer to this call */
export function checkAnswer(name: CallName, answer: unknown): void {
  answers[name](answer, 'it')
}
