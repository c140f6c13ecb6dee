/** A `Service` with fixed answers that remembers how it was called, and a socket to serve it on. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { CheckInfo, ExplainInfo, GrantInfo, GroupInfo, IdentityInfo, ModelInfo, ReachInfo } from '../../src/api/access.ts'
import { type Answer, type CallName, callNames, type Service } from '../../src/api/calls.ts'
import type { MetricsInfo } from '../../src/api/metrics.ts'
import type { QuotaInfo, QuotaShowInfo } from '../../src/api/quotas.ts'
import type { ChangeInfo, DiffInfo, RestoreInfo, SnapshotInfo } from '../../src/api/snapshots.ts'
import type {
  BadContent,
  CollectInfo,
  CollectStatusInfo,
  DiskUsageInfo,
  Finding,
  FsckInfo,
  ScrubInfo,
  StatusInfo,
} from '../../src/api/store.ts'
import type { TenantInfo } from '../../src/api/tenants.ts'
import type { ForkInfo, WorkspaceInfo } from '../../src/api/workspaces.ts'
import { Histogram } from '../../src/histogram.ts'
import { type ControlLogger, serveControl } from '../../src/server/server.ts'

export const mountpoint = '/mnt/nexus'

export const workspace: Required<WorkspaceInfo> = {
  path: '/workspace/acme',
  number: 2,
  created_at: '2026-01-31T12:34:56.789Z',
  metadata: { team: 'red' },
  file_count: 12,
  directory_count: 3,
  bytes: 1536,
  snapshot_count: 1,
  parent: null,
  snapshot_dir: '.snapshots',
  snapshot_dir_hidden: false,
}

export const snapshot: Required<SnapshotInfo> = {
  snapshot_id: 'snap_01KG9Z0000000000000000000A',
  name: 'before',
  path: '/workspace/acme',
  created_at: '2026-01-31T12:35:00.000Z',
  root: 'ab'.repeat(32),
  file_count: 1,
  bytes: 100,
  metadata: {},
  parent: null,
  automatic: false,
  elapsed_ms: 4.25,
}

export const renamed: Required<ChangeInfo> = { path: 'new', change: 'renamed', from: 'old', kind: 'file', what: ['mtime'] }

export const changes: ChangeInfo[] = [
  { path: 'a.txt', change: 'modified', kind: 'file', what: ['content', 'mtime'] },
  { path: 'evil\u001b[2J', change: 'added', kind: 'directory', what: [] },
]

export const diff: Required<DiffInfo> = {
  from: snapshot.snapshot_id,
  to: 'live',
  from_path: '/workspace/acme/.snapshots/before',
  to_path: '/workspace/acme',
  changes,
  truncated: false,
}

export const restored: Required<RestoreInfo> = {
  path: '/workspace/acme',
  restored: snapshot.snapshot_id,
  undo: 'snap_01KG9Z0000000000000000000B',
  undo_path: '/workspace/acme',
  dry_run: false,
  changes,
  truncated: true,
  writers: [{ pid: 4711, command: 'evil\u001b[2J', files: 2 }],
  writers_hidden: 3,
  elapsed_ms: 3,
}

export const collected: CollectInfo = {
  forgotten: 12,
  segments: 2,
  freed_bytes: 128 * 1024 * 1024,
  copied_bytes: 1024 * 1024,
  elapsed_ms: 40,
}

export const collecting: Required<CollectStatusInfo> = { phase: 'sweep', done: 250, total: 1000 }

export const diskUsage: Required<DiskUsageInfo> = {
  measured_at: '2026-01-31T12:40:00.000Z',
  physical_bytes: 100 * 1024 * 1024,
  live_bytes: 60 * 1024 * 1024,
  snapshot_bytes: 30 * 1024 * 1024,
  reclaimable_bytes: 10 * 1024 * 1024,
  logical_bytes: 120 * 1024 * 1024,
  deduplication: 2.5,
  workspaces: [{ path: '/workspace/acme', bytes: 120 * 1024 * 1024, file_count: 3, snapshot_count: 1 }],
}

export const finding: Required<Finding> = {
  kind: 'links',
  severity: 'error',
  workspace: '/workspace/acme',
  ino: 7,
  path: '/workspace/acme/evil\u001b[2J',
  live: true,
  snapshots: [snapshot.snapshot_id],
  text: 'inode 7 has a link count of 3, which should be 1',
}

export const fsck: Required<FsckInfo> = {
  clean: false,
  findings: [finding],
  total: 1,
  repaired: 0,
  states: 2,
  workspaces: 2,
  snapshots: 1,
  inodes: 1234,
  chunks: 99,
  elapsed_ms: 40,
}

export const bad: Required<BadContent> = {
  kind: 'chunk',
  address: 'cd'.repeat(32),
  segment: 3,
  offset: 4096,
  files: [{ path: '/workspace/acme/evil\u001b[2J', live: true, snapshots: [snapshot.snapshot_id] }],
}

export const scrub: Required<ScrubInfo> = {
  state: 'done',
  started_at: '2026-01-31T12:36:00.000Z',
  finished_at: '2026-01-31T12:37:00.000Z',
  rate: null,
  done_bytes: 3 * 1024 * 1024,
  total_bytes: 3 * 1024 * 1024,
  bad: [bad],
}

export const forked: Required<ForkInfo> = {
  path: '/workspace/trial',
  source: '/workspace/acme',
  snapshot: null,
  elapsed_ms: 1.5,
}

export const identity: Required<IdentityInfo> = { subject: 'user:alice', uids: [1000, 1001] }

export const granted: Required<GrantInfo> = {
  subject: 'user:alice',
  relation: 'editor',
  path: '/workspace/acme',
  inherited: false,
  created_at: '2026-01-31T12:36:00.000Z',
  expires_at: null,
}

export const checked: Required<CheckInfo> = {
  subject: 'user:alice',
  permission: 'write',
  path: '/workspace/acme',
  allowed: true,
}

export const explained: Required<ExplainInfo> = {
  ...checked,
  steps: ['write is given by editor', 'user:alice is editor of /workspace/evil\u001b[2J'],
}

export const reach: Required<ReachInfo> = { path: '/workspace/acme', permissions: ['read', 'write'] }

export const group: Required<GroupInfo> = { group: 'eng', members: ['agent:coder-7', 'user:alice'] }

export const model: Required<ModelInfo> = { text: 'model\n  schema 1.1\ntype user\n', builtin: true }

export const tenant: Required<TenantInfo> = {
  tenant: 'acme',
  workspace: { ...workspace, path: '/tenants/acme' },
  admin: 'user:alice',
  directories: ['data', 'models', 'exports'],
  snapshot: { ...snapshot, name: 'initial-setup' },
}

export const quota: Required<QuotaInfo> = {
  path: '/workspace/acme',
  number: 2,
  bytes_used: 3 * 1024 * 1024,
  bytes_limit: 4 * 1024 * 1024,
  bytes_remaining: 1024 * 1024,
  inodes_used: 12,
  inodes_limit: null,
  inodes_remaining: null,
}

export const quotaShown: Required<QuotaShowInfo> = { ...quota, around: [{ ...quota, path: '/', number: 0 }] }

export const status: Required<StatusInfo> = {
  version: '0.1.0',
  pid: 4321,
  supervisor_pid: 4320,
  mountpoint,
  data: '/var/lib/nexus',
  started_at: '2026-01-31T12:00:00.000Z',
  uptime_s: 3725.5,
  single_user: false,
  kernel_protocol: '7.40',
  workspaces: 2,
  snapshots: 5,
  requests: { LOOKUP: 10, GETATTR: 3 },
  memory_bytes: 90 * 1024 * 1024,
  log_bytes: 2048,
  dirty_bytes: 0,
  state: 'ok',
  reason: null,
  takeovers: 2,
  taken_over_at: '2026-01-31T12:50:00.000Z',
  stalls: 1,
  disk_free_bytes: 50 * 1024 * 1024,
  limits: { workspaces: 1000, snapshots: null, calls: 8, calls_of_all: 64 },
  used: null,
}

const times = (...micros: number[]) => {
  const histogram = new Histogram()
  for (const time of micros) histogram.add(time)
  return histogram.distribution
}

export const metrics: Required<MetricsInfo> = {
  version: '0.1.0',
  pid: 4321,
  at: '2026-01-31T13:00:00.000Z',
  started_at: '2026-01-31T12:50:00.000Z',
  takeovers: 2,
  taken_over_at: ['2026-01-31T12:40:00.000Z', '2026-01-31T12:50:00.000Z'],
  operations: {
    LOOKUP: { count: 10, errors: { EACCES: 2 }, latency: times(...Array<number>(10).fill(20)) },
    WRITE: { count: 1, errors: {}, latency: times(60_000) },
    FORGET: { count: 5, errors: {}, latency: times() },
  },
  read_bytes: 0,
  written_bytes: 4096,
  timeout_count: 0,
  stall_count: 1,
  stalls: [{ operation: 'WRITE', at: '2026-01-31T12:59:59.000Z', elapsed_ms: 60, waited: false }],
  loop_delay: times(900, 1100),
  tree_cache: { hits: 30, misses: 10 },
  chunk_cache: { hits: 0, misses: 0 },
  log_bytes: 2048,
  dirty_bytes: 1024,
  appended_bytes: 4200,
  fsync: times(2500),
  merge: times(1000),
  checkpoint: times(5000),
  checkpoint_running: false,
  checkpoint_failures: 0,
  seal: times(700),
  sealed_bytes: 4096,
  collect: times(),
  collect_phase: 'idle',
  collect_failures: 0,
  freed_bytes: 0,
  access_checks: 12,
  access_refusals: 2,
  known_inodes: 7,
  workspaces: 2,
  snapshots: 5,
  memory_bytes: 90 * 1024 * 1024,
  disk_bytes: 100 * 1024 * 1024,
  disk_free_bytes: 50 * 1024 * 1024,
}

export interface FakeService extends Service {
  /** name and arguments of each call so far, without those of status */
  readonly called: unknown[][]
}

/** What the fake answers. */
export const answers: { readonly [K in CallName]: Answer<K> } = {
  workspaceCreate: workspace,
  workspaceList: [workspace],
  workspaceShow: workspace,
  workspaceDelete: workspace,
  workspaceRename: workspace,
  workspaceUpdate: workspace,
  fork: forked,
  snapshotCreate: snapshot,
  snapshotList: [snapshot],
  snapshotShow: snapshot,
  snapshotDelete: snapshot,
  snapshotDiff: diff,
  restore: restored,
  identityAdd: identity,
  identityList: [identity],
  identityRemove: identity,
  grant: granted,
  revoke: granted,
  grants: [granted],
  check: checked,
  explain: explained,
  whoCan: { subjects: ['user:alice'] },
  whatCan: [reach],
  groupAdd: group,
  groupRemove: group,
  groupList: [group],
  modelShow: model,
  modelApply: { ...model, builtin: false },
  tenantOnboard: tenant,
  quotaSet: quota,
  quotaShow: quotaShown,
  quotaList: [quota],
  status,
  checkpoint: { elapsed_ms: 7 },
  collect: collected,
  collectStatus: collecting,
  diskUsage,
  shutdown: { pid: 4321 },
  fsck,
  scrub,
  scrubStatus: scrub,
  scrubStop: scrub,
  metrics,
}

/** @param overrides methods that shall do something else */
export function fakeService(overrides: Partial<Service> = {}): FakeService {
  const called: unknown[][] = []
  const answering =
    (name: CallName) =>
    async (...args: unknown[]) => {
      if (name !== 'status') called.push([name, ...args])
      return answers[name]
    }
  const methods = Object.fromEntries(callNames.map((name) => [name, answering(name)])) as unknown as Service
  return { called, ...methods, ...overrides }
}

/** An empty directory that goes away with the test. */
export function scratchDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'nexus-control-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Remembers what was logged. */
export function memoryLogger(): ControlLogger & { lines: string[] } {
  const lines: string[] = []
  return { lines, error: (details, message) => void lines.push(`${message} ${Object.keys(details)}`) }
}

/** Serves on `dataDir/control.sock` until the test ends. */
export async function serveFake(t: Test, dataDir: string, service: Service) {
  const logger = memoryLogger()
  const socketPath = join(dataDir, 'control.sock')
  const server = await serveControl(service, { socketPath, logger })
  t.teardown(() => server.close())
  return { socketPath, logger, server }
}
