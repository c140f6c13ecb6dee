/** Calls of the daemon and its store: how it is, checks, collections, the end. */
import * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { path, rate } from './parameters.ts'
import { boolean, field, integer, listOf, mapOf, nullOr, number, oneOf, record, text, time } from './schema.ts'

export const limits = record('Limits', {
  workspaces: field(nullOr(integer), 'outside of tenants (`nexusd mount --max-workspaces`); null: no limit'),
  snapshots: field(nullOr(integer), 'taken by the user or agent (`--max-snapshots`)'),
  calls: field(nullOr(integer), 'at a time, on the socket for everybody; null where there is none'),
  calls_of_all: field(nullOr(integer), 'of all users together'),
})
export type LimitsInfo = v.InferOutput<typeof limits>

export const statusInfo = record('Status', {
  version: field(text, 'of the daemon'),
  pid: field(integer, 'of the process that serves; another may take over'),
  supervisor_pid: field(
    integer,
    'of the process that keeps the mount: SIGTERM unmounts and ends, SIGHUP serves with the program installed now',
  ),
  mountpoint: field(text, 'on the host'),
  data: field(text, 'the data directory, on the host'),
  started_at: time,
  uptime_s: number,
  single_user: field(boolean, 'mounted by an ordinary user, for that user'),
  kernel_protocol: field(text, 'version of the FUSE protocol agreed on'),
  workspaces: integer,
  snapshots: integer,
  requests: field(mapOf(integer), 'answered by the process that serves, by operation'),
  memory_bytes: integer,
  log_bytes: integer,
  dirty_bytes: field(integer, 'in the log since the last checkpoint'),
  state: field(
    oneOf('ok', 'full', 'read-only'),
    '`ok`; `full`: nothing can be added, but read and removed; `read-only`: the disk has failed, nothing can be changed until the next mount',
  ),
  reason: field(nullOr(text), 'why, and what to do; with `ok`, of a checkpoint or collection that fails at the moment'),
  takeovers: field(integer, 'how often another process took the mount over, upgrades included'),
  taken_over_at: field(nullOr(time), 'when one last did'),
  stalls: field(integer, 'requests of the process that serves that took more than 50 ms'),
  disk_free_bytes: field(integer, 'of the disk of the data directory'),
  limits: field(limits, 'of each user and agent'),
  used: field(
    nullOr(v.object({ workspaces: integer, snapshots: integer }, 'object')),
    '`workspaces` and `snapshots` that count for the caller; null for the administrator, whom nobody refuses',
  ),
})
export type StatusInfo = v.InferOutput<typeof statusInfo>

export const checkpointInfo = record('Checkpoint', { elapsed_ms: field(number, 'time inside the daemon') })

export const collectInfo = record('Collection', {
  forgotten: field(integer, 'chunks and tree nodes that nothing reached any more'),
  segments: field(integer, 'segment files removed from the log'),
  freed_bytes: field(integer, 'their size'),
  copied_bytes: field(integer, 'what was alive in them, moved to the end of the log'),
  elapsed_ms: number,
})
export type CollectInfo = v.InferOutput<typeof collectInfo>

export const collectStatusInfo = record('Collection at work', {
  phase: field(
    text,
    '`idle`, `mark` (counts nodes and chunks that stay), `sweep` (those looked at), `move` (bytes) or `remove` (segments)',
  ),
  done: integer,
  total: field(integer, '0: not known'),
})
export type CollectStatusInfo = v.InferOutput<typeof collectStatusInfo>

export const workspaceUsage = record('Disk usage of a workspace', {
  path: text,
  bytes: field(integer, 'sum of file sizes'),
  file_count: integer,
  snapshot_count: integer,
})

export const diskUsageInfo = record('Disk usage', {
  measured_at: field(time, 'when the store was walked through: at most a minute ago'),
  physical_bytes: field(integer, 'the log on disk'),
  live_bytes: field(integer, 'what workspaces need of it'),
  snapshot_bytes: field(integer, 'what only snapshots need'),
  reclaimable_bytes: field(integer, 'the rest: about what collections give back'),
  logical_bytes: field(integer, 'sum of the file sizes of all workspaces'),
  deduplication: field(number, 'that, divided by what is stored of the content; 1 for an empty store'),
  workspaces: field(listOf(workspaceUsage), 'all, or with `PATH` the one that it is in and those inside, by path'),
})
export type DiskUsageInfo = v.InferOutput<typeof diskUsageInfo>

export const finding = record('Finding', {
  kind: field(
    text,
    '`node`, `tree`, `value`, `attributes`, `links`, `entry`, `unreachable`, `orphan`, `place`, `pieces`, `size`, `content`, `counters`, `workspace`, `snapshot`, `grant` or `index`',
  ),
  severity: field(oneOf('damage', 'error'), '`damage`: bytes are lost; `error`: what is stored contradicts itself'),
  workspace: field(text, 'path of the workspace'),
  ino: field(nullOr(integer), 'the inode in it that this is about'),
  path: field(nullOr(text), 'where that is, if it can be told'),
  live: field(boolean, 'the state of now has it'),
  snapshots: field(listOf(text), 'ids of the snapshots that have it'),
  text: field(text, 'for people'),
})
export type Finding = v.InferOutput<typeof finding>

export const fsckInfo = record('Fsck', {
  clean: field(boolean, 'nothing was found'),
  findings: field(listOf(finding), 'at most 1000'),
  total: field(integer, 'how many there are'),
  repaired: field(integer, 'how many others `nexusd fsck --repair` has mended'),
  states: field(integer, 'trees checked: workspaces, snapshots and what restores left behind; equal ones count once'),
  workspaces: field(integer, 'with the root of all'),
  snapshots: integer,
  inodes: field(integer, 'in all states together'),
  chunks: field(integer, 'different ones'),
  elapsed_ms: field(number, 'time inside the daemon'),
})
export type FsckInfo = v.InferOutput<typeof fsckInfo>

export const badContent = record('Bad content', {
  kind: field(oneOf('chunk', 'node'), '`chunk` or `node`'),
  address: field(text, 'SHA-256, hex'),
  segment: field(nullOr(integer), 'where it lies in the log'),
  offset: field(nullOr(integer), "of its first byte, in the segment's file"),
  files: field(
    listOf(v.object({ path: text, live: boolean, snapshots: listOf(text) }, 'object')),
    'what has it: `path`, `live` and `snapshots` as in a finding; at most 100. Of a node the workspace',
  ),
})
export type BadContent = v.InferOutput<typeof badContent>

export const scrubInfo = record('Scrub', {
  state: field(
    oneOf('none', 'running', 'stopped', 'done', 'failed'),
    '`none` (never begun), `running`, `stopped`, `done` or `failed`',
  ),
  started_at: nullOr(time),
  finished_at: nullOr(time),
  rate: field(nullOr(integer), 'bytes a second at most'),
  done_bytes: integer,
  total_bytes: field(integer, '0 until it is known'),
  bad: field(listOf(badContent), 'at most 1000'),
})
export type ScrubInfo = v.InferOutput<typeof scrubInfo>

export const storeCalls = {
  status: call({ summary: 'how the daemon is', effect: 'read', params: [], answer: statusInfo }),
  checkpoint: call({
    summary: 'write everything out, so that the next start is quick',
    effect: 'operate',
    params: [],
    answer: checkpointInfo,
  }),
  collect: call({
    summary: 'give back the space of what was deleted; the daemon also does so by itself',
    effect: 'operate',
    params: [],
    answer: collectInfo,
  }),
  collectStatus: call({ summary: 'how far a collection is', effect: 'read', params: [], answer: collectStatusInfo }),
  diskUsage: call({
    summary: 'what is stored and which workspaces need it; measured anew when the last time was a minute ago',
    effect: 'read',
    params: [parameter('path', v.nullish(path, null))],
    answer: diskUsageInfo,
  }),
  shutdown: call({
    summary: 'write out, unmount and end; answered before the end',
    effect: 'operate',
    params: [],
    answer: v.object({ pid: integer }, 'object'),
  }),
  fsck: call({ summary: 'check everything there is, beside running writers', effect: 'read', params: [], answer: fsckInfo }),
  scrub: call({
    summary: 'begin to read all that is stored, or go on with it; `rate` is bytes a second at most',
    effect: 'operate',
    params: [],
    options: { rate: optional(rate) },
    answer: scrubInfo,
  }),
  scrubStatus: call({ summary: 'how far a scrub is, and what it found', effect: 'read', params: [], answer: scrubInfo }),
  scrubStop: call({ summary: 'stop a scrub where it is', effect: 'operate', params: [], answer: scrubInfo }),
}
