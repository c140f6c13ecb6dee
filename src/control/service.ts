/**
 * What the daemon offers to its tools: the calls behind `nexusctl`, with plain data in and out.
 * `src/control/server.ts` serves them over HTTP on a unix socket, `client.ts` calls them from
 * another process with the same types, and the daemon implements them in `src/workspaces` and
 * `src/snapshots`. Times are ISO-8601 strings, sizes are bytes, paths are absolute in the
 * filesystem (`/workspace/acme`), never of the host. Every call may reject with a `NexusError`.
 */

import type { MetricsInfo } from './metrics.ts'

export type Metadata = Record<string, string>

export interface WorkspaceInfo {
  /** where it is now */
  path: string
  /** number in the node ids of its files; never used for another workspace while mounted */
  number: number
  created_at: string
  metadata: Metadata
  /** files, symlinks and special files; directories are counted apart */
  file_count: number
  directory_count: number
  /** sum of file sizes */
  bytes: number
  snapshot_count: number
  /** id of the snapshot that it was forked from or last restored to, if any */
  parent: string | null
  /** the name in its root under which its snapshots are seen */
  snapshot_dir: string
  /** true when it has an entry of that name, which hides them */
  snapshot_dir_hidden: boolean
}

/** What `workspace update` changes; what is absent stays as it is. */
export interface WorkspaceWish {
  metadata?: Metadata
  snapshotDir?: string
}

export interface SnapshotInfo {
  /** `snap_` and 26 characters that sort by time */
  snapshot_id: string
  name: string | null
  /** path that was snapshotted: a workspace root or a directory in one */
  path: string
  created_at: string
  /** SHA-256 of the tree's root node, hex; equal contents have equal roots */
  root: string
  /** null where it would have to be counted (a plain directory); `snapshot show` counts */
  file_count: number | null
  bytes: number | null
  metadata: Metadata
  /** id of the snapshot that the workspace's state descends from */
  parent: string | null
  /** true when the daemon took it by itself, before a restore */
  automatic: boolean
  /** time inside the daemon, in milliseconds; only in the answer to `snapshot` */
  elapsed_ms?: number
}

export interface Change {
  /**
   * relative to the directory compared, with `/` between names; where a name is not UTF-8, its odd bytes are shown as \xNN,
   * and so is a backslash that could be taken for one of these
   */
  path: string
  change: 'added' | 'removed' | 'modified' | 'renamed'
  /** the path before, for `renamed` */
  from?: string
  kind: 'file' | 'directory' | 'symlink' | 'other'
  /** what differs, for `modified` and `renamed`: content, mode, owner, mtime, xattr, target; or only type */
  what: string[]
}

export interface DiffInfo {
  from: string
  to: string
  /**
   * where the older side of the directory compared is seen in the filesystem, names as in a change's path; null where it is not:
   * it was not there then, or the caller cannot look at it
   */
  from_path: string | null
  /** the same of the newer side */
  to_path: string | null
  changes: Change[]
  /** true when there were more than `limit` */
  truncated: boolean
}

export interface RestoreInfo {
  path: string
  restored: string
  /** the automatic snapshot that undoes this restore; null for a dry run */
  undo: string | null
  /** what to restore to that snapshot: the directory around, where the one restored was not there; null for a dry run */
  undo_path: string | null
  dry_run: boolean
  changes: Change[]
  truncated: boolean
  /** of a dry run: the processes that it would be refused for; a user sees those of their own uid */
  writers: WriterInfo[]
  /** of a dry run: how many more there are, of other users */
  writers_hidden: number
  elapsed_ms: number
}

/** A process that has files open for writing where something is restored, or mapped so that it can change them. */
export interface WriterInfo {
  pid: number
  /** as in /proc/PID/comm */
  command: string
  /** how many files */
  files: number
}

export interface RestoreWish {
  dryRun?: boolean
  /** how many changes to report */
  limit?: number
  /** restores also while processes have files there open for writing */
  force?: boolean
  /** sends those processes SIGTERM, and waits until none is left */
  stop?: boolean
}

export interface ForkInfo {
  path: string
  source: string
  snapshot: string | null
  elapsed_ms: number
}

/** What a workspace takes with all workspaces in it, and may take. */
export interface QuotaInfo {
  path: string
  number: number
  /** allocated to files, as du(1) counts them, and extended attributes; snapshots are not counted */
  bytes_used: number
  /** null: none */
  bytes_limit: number | null
  /** of the limit alone, 0 when more is used; null without one */
  bytes_remaining: number | null
  /** files, directories and whatever else there is, each once; also what is deleted and still open */
  inodes_used: number
  inodes_limit: number | null
  inodes_remaining: number | null
}

export interface QuotaShowInfo extends QuotaInfo {
  /** of the workspaces that it lies in, those with a quota, from inside out */
  around: QuotaInfo[]
}

export interface StatusInfo {
  version: string
  /** of the process that serves; another may take over */
  pid: number
  /** of the process that keeps the mount while it lives */
  supervisor_pid: number
  mountpoint: string
  data: string
  started_at: string
  uptime_s: number
  single_user: boolean
  kernel_protocol: string
  workspaces: number
  snapshots: number
  /** requests answered since the mount, by operation name */
  requests: Record<string, number>
  memory_bytes: number
  log_bytes: number
  /** bytes in the log since the last checkpoint */
  dirty_bytes: number
  /** full: nothing can be added; read-only: nothing can be changed until the next mount */
  state: 'ok' | 'full' | 'read-only'
  /** why, and what to do; also of a checkpoint or collection that fails while all is served */
  reason: string | null
  /** how often another process took the mount over, and when it last did */
  takeovers: number
  taken_over_at: string | null
  /** requests of the process that serves that took more than 50 ms */
  stalls: number
  /** of the disk of the data directory */
  disk_free_bytes: number
  /** how much one subject may have; null: as much as there is */
  limits: LimitsInfo
  /** what counts for the caller; null for root, whom nobody refuses */
  used: { workspaces: number; snapshots: number } | null
}

/** Of each user and agent. */
export interface LimitsInfo {
  /** workspaces outside of tenants, and as many plain names outside of workspaces */
  workspaces: number | null
  /** snapshots that it has taken, wherever */
  snapshots: number | null
  /** calls at a time, and those of all users together */
  calls: number | null
  calls_of_all: number | null
}

export interface CollectInfo {
  /** chunks and tree nodes that nothing reached any more */
  forgotten: number
  /** segment files removed from the log, and their size */
  segments: number
  freed_bytes: number
  /** what was still alive in them, copied to the log's end */
  copied_bytes: number
  elapsed_ms: number
}

export interface IdentityInfo {
  /** `user:alice` or `agent:coder-7` */
  subject: string
  /** numeric user ids of processes that are this subject, ascending */
  uids: number[]
}

export interface GrantInfo {
  /** `user:alice`, `agent:coder-7`, `group:eng#member`, `tenant:acme#member`, `user:*` */
  subject: string
  /** owner, editor or viewer (or what the store's model names instead) */
  relation: string
  /** what it was granted on */
  path: string
  /** true when it reaches the asked path from a directory above */
  inherited: boolean
  created_at: string
  /** when it ends by itself; null: never */
  expires_at: string | null
}

export interface CheckInfo {
  subject: string
  permission: string
  path: string
  allowed: boolean
}

export interface ExplainInfo extends CheckInfo {
  /** the chain of tuples and rules that gives it, outermost first, or the reasons that deny it */
  steps: string[]
}

export interface ReachInfo {
  path: string
  /** permissions that begin here, such as read and write; what lies below inherits them */
  permissions: string[]
}

export interface GroupInfo {
  /** name without `group:` */
  group: string
  /** subjects, sorted */
  members: string[]
}

export interface ModelInfo {
  /** in OpenFGA's modelling language */
  text: string
  /** true when it is the one that comes with the program */
  builtin: boolean
}

export interface TenantInfo {
  tenant: string
  workspace: WorkspaceInfo
  admin: string
  directories: string[]
  /** the snapshot `initial-setup` */
  snapshot: SnapshotInfo
}

export interface CollectStatusInfo {
  /** idle, mark (counts nodes and chunks that stay), sweep (those looked at), move (bytes) or remove (segments) */
  phase: string
  done: number
  /** 0: not known */
  total: number
}

export interface DiskUsageInfo {
  /** when the store was measured; the workspaces are as of now */
  measured_at: string
  /** the log on disk */
  physical_bytes: number
  /** what workspaces need of it … */
  live_bytes: number
  /** … what only snapshots need … */
  snapshot_bytes: number
  /** … and about what a collection would give back */
  reclaimable_bytes: number
  /** sum of the file sizes of all workspaces */
  logical_bytes: number
  /** that, divided by what is stored of it */
  deduplication: number
  /** below the path that was asked for */
  workspaces: { path: string; bytes: number; file_count: number; snapshot_count: number }[]
}

/** Something that is not as it must be. */
export interface Finding {
  /**
   * node, tree, value, attributes, links, entry, unreachable, orphan, place, pieces, size, content, counters,
   * workspace, snapshot, grant, index
   */
  kind: string
  /** `damage`: bytes are lost; `error`: what is stored contradicts itself, and nothing is lost */
  severity: 'damage' | 'error'
  /** path of the workspace */
  workspace: string
  /** inode number in it, if it is about one */
  ino: number | null
  /** where that is, as far as it can be told */
  path: string | null
  /** whether the state of now has it */
  live: boolean
  /** ids of the snapshots whose state has it */
  snapshots: string[]
  text: string
}

export interface FsckInfo {
  clean: boolean
  /** at most 1,000 */
  findings: Finding[]
  /** how many there are */
  total: number
  /** how many others a repair has mended */
  repaired: number
  /** what was checked; states that are equal count once */
  states: number
  workspaces: number
  snapshots: number
  inodes: number
  chunks: number
  elapsed_ms: number
}

/** Something stored that is not what was stored. */
export interface BadContent {
  kind: 'chunk' | 'node'
  /** SHA-256, hex */
  address: string
  /** where its first byte lies in the log; null when nobody knows */
  segment: number | null
  offset: number | null
  /** what reads damaged bytes because of it: at most 100 */
  files: { path: string; live: boolean; snapshots: string[] }[]
}

export interface ScrubInfo {
  /** none: never begun */
  state: 'none' | 'running' | 'stopped' | 'done' | 'failed'
  started_at: string | null
  finished_at: string | null
  /** bytes a second at most; null: as fast as it goes */
  rate: number | null
  done_bytes: number
  /** 0 until it is known */
  total_bytes: number
  /** at most 1,000 */
  bad: BadContent[]
}

export interface Service {
  status(): Promise<StatusInfo>
  workspaceCreate(
    path: string,
    options: { metadata?: Metadata; owner?: string; quotaBytes?: number; quotaInodes?: number; snapshotDir?: string },
  ): Promise<WorkspaceInfo>
  workspaceList(): Promise<WorkspaceInfo[]>
  workspaceShow(path: string): Promise<WorkspaceInfo>
  workspaceDelete(path: string): Promise<WorkspaceInfo>
  workspaceRename(path: string, newPath: string): Promise<WorkspaceInfo>
  /** replaces the given keys; an empty value removes one */
  workspaceUpdate(path: string, options: WorkspaceWish): Promise<WorkspaceInfo>
  snapshotCreate(path: string, options: { name?: string; metadata?: Metadata }): Promise<SnapshotInfo>
  /** newest last */
  snapshotList(path: string): Promise<SnapshotInfo[]>
  /** @param snapshot an id, a unique prefix of one, or a name in the workspace of `path` */
  snapshotShow(path: string, snapshot: string): Promise<SnapshotInfo>
  snapshotDelete(path: string, snapshot: string): Promise<SnapshotInfo>
  /** @param to another snapshot, or null for the live state */
  snapshotDiff(path: string, from: string, to: string | null, limit: number): Promise<DiffInfo>
  restore(path: string, snapshot: string, options: RestoreWish): Promise<RestoreInfo>
  fork(path: string, newPath: string, options: { snapshot?: string; withGrants?: boolean; owner?: string }): Promise<ForkInfo>
  /** from now on a process with this uid is that subject; a uid has one subject, a subject any number of uids */
  identityAdd(subject: string, uid: number): Promise<IdentityInfo>
  identityList(): Promise<IdentityInfo[]>
  /** without a uid all of the subject's; answers with those that remain */
  identityRemove(subject: string, options: { uid?: number }): Promise<IdentityInfo>
  /** answers when every process sees it. @param options.expires ISO-8601 time in the future */
  grant(subject: string, relation: string, path: string, options: { expires?: string }): Promise<GrantInfo>
  /** answers when every process is refused; NEXUS_NOT_FOUND when there is no such grant at that very path */
  revoke(subject: string, relation: string, path: string): Promise<GrantInfo>
  /** those on the path itself first, then from directory to directory above it */
  grants(path: string): Promise<GrantInfo[]>
  /** @param permission read, write, share, snapshot, restore, or a relation */
  check(subject: string, permission: string, path: string): Promise<CheckInfo>
  explain(subject: string, permission: string, path: string): Promise<ExplainInfo>
  /** every user and agent that is known from tuples or identities and may, sorted; `user:*` when everybody may */
  whoCan(permission: string, path: string): Promise<{ subjects: string[] }>
  /** where a subject's rights begin, by path */
  whatCan(subject: string): Promise<ReachInfo[]>
  groupAdd(group: string, member: string): Promise<GroupInfo>
  groupRemove(group: string, member: string): Promise<GroupInfo>
  groupList(): Promise<GroupInfo[]>
  modelShow(): Promise<ModelInfo>
  /** refused when the text does not parse, lacks what the filesystem asks for, or does not fit the tuples there are */
  modelApply(text: string): Promise<ModelInfo>
  /** the workspace /tenants/ID with its directories, its owner and a first snapshot: all of it or nothing */
  tenantOnboard(
    id: string,
    options: { admin: string; metadata?: Metadata; directories?: string[]; quotaBytes?: number; quotaInodes?: number },
  ): Promise<TenantInfo>
  /** holds from the next operation of any process on. @param options what is absent stays, null is no limit */
  quotaSet(path: string, options: { bytes?: number | null; inodes?: number | null }): Promise<QuotaInfo>
  /** of the workspace that a path lies in */
  quotaShow(path: string): Promise<QuotaShowInfo>
  /** of all workspaces that have one, by path */
  quotaList(): Promise<QuotaInfo[]>
  /** writes everything out and makes the next start quick */
  checkpoint(): Promise<{ elapsed_ms: number }>
  /** gives back the space of what was deleted; the daemon also does so by itself */
  collect(): Promise<CollectInfo>
  /** how far a collection is */
  collectStatus(): Promise<CollectStatusInfo>
  /** what is stored and who needs it; measured anew when the last time was a minute ago. @param path null: all workspaces */
  diskUsage(path: string | null): Promise<DiskUsageInfo>
  /** flush, unmount and exit; answered before the exit */
  shutdown(): Promise<{ pid: number }>
  /** checks everything there is, beside running writers */
  fsck(): Promise<FsckInfo>
  /** begins to read all that is stored, or goes on with it. @param options.rate bytes a second at most */
  scrub(options: { rate?: number }): Promise<ScrubInfo>
  scrubStatus(): Promise<ScrubInfo>
  scrubStop(): Promise<ScrubInfo>
  /** what was measured since the serving process began */
  metrics(): Promise<MetricsInfo>
}
