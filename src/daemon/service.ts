/** The calls behind `nexusctl`, answered by the engine. */
import { monotonicFactory } from 'ulid'
import { fsckInfo } from '../check/report.ts'
import { callsMax, callsPerUidMax } from '../control/callers.ts'
import type { MetricsInfo } from '../control/metrics.ts'
import type * as api from '../control/service.ts'
import { packageVersion } from '../control/version.ts'
import type { Session } from '../fuse/session.ts'
import type { Logger } from '../logger.ts'
import { type ForkOptions, fork } from '../snapshots/fork.ts'
import { discardUnfinished, type NewTenant, onboardTenant } from '../snapshots/onboard.ts'
import { hauntUndone, refreshKernel } from '../snapshots/refresh.ts'
import { restore } from '../snapshots/restore.ts'
import { deleteSnapshot, diffSnapshots, listSnapshots, showSnapshot, takeSnapshot } from '../snapshots/snapshots.ts'
import type { FileToucher, KernelCaches } from '../vfs/filesystem.ts'
import type { LookForHolders } from '../vfs/holders.ts'
import type { LookForWatches } from '../vfs/watches.ts'
import { type Context, SNAPSHOT_ID_PREFIX } from '../workspaces/context.ts'
import {
  addIdentity,
  addToGroup,
  applyModel,
  check,
  explain,
  grant,
  grants,
  listGroups,
  listIdentities,
  removeFromGroup,
  removeIdentity,
  revoke,
  showModel,
  whatCan,
  whoCan,
} from '../workspaces/grants.ts'
import { listQuotas, type NewQuota, setQuota, showQuota } from '../workspaces/limits.ts'
import { rightsChanged } from '../workspaces/rights.ts'
import type { SubjectLimits } from '../workspaces/subjectlimits.ts'
import {
  createWorkspace,
  deleteWorkspace,
  listWorkspaces,
  type NewWorkspace,
  renameWorkspace,
  showWorkspace,
  updateWorkspace,
} from '../workspaces/workspaces.ts'
import { serviceFor } from './asuser.ts'
import { diskUsage } from './diskusage.ts'
import type { Engine } from './engine.ts'
import type { Handover } from './handover.ts'
import { LoopDelay, measure } from './measure.ts'

export interface ServiceOptions {
  engine: Engine
  logger: Logger
  kernel: KernelCaches
  /** there is none without a mount */
  toucher?: FileToucher
  /** there is none without a mount */
  lookForHolders?: LookForHolders | undefined
  lookForWatches?: LookForWatches | undefined
  session: Pick<Session, 'protocol' | 'counts'> & Partial<Pick<Session, 'metrics'>>
  mountpoint: string
  data: string
  singleUser: boolean
  /** where a next process finds what this one has not come to; there is none without a mount */
  handover?: Pick<Handover, 'telling' | 'isKernelStale' | 'kernelIsFresh' | 'takeovers'>
  /** the process that keeps the mount, and ends last; this one when not given */
  supervisor?: number
  loopDelay?: LoopDelay
  /** begins to unmount and end */
  stop(): void
}

/** The answer to `shutdown` must be out before the socket closes. */
const STOP_DELAY_MS = 10

export class DaemonService implements api.Service {
  readonly #options: ServiceOptions
  readonly #context: Context
  readonly #startedAt = new Date()

  constructor(options: ServiceOptions) {
    this.#options = options
    const ulid = monotonicFactory()
    const { engine, kernel, toucher, lookForHolders, lookForWatches } = options
    const newId = (): string => SNAPSHOT_ID_PREFIX + ulid()
    this.#context = {
      inBackground: (what, run) => this.#aside(what, () => this.#changing(run)),
      aside: (what, run) => this.#aside(what, run),
      core: engine.fs.core,
      registry: engine.registry,
      access: engine.access,
      quotas: engine.quotas,
      kernel,
      toucher,
      lookForHolders,
      lookForWatches,
      now: () => new Date(),
      newId,
    }
    const { access } = engine
    access.onChanged = (volumes, revoked) => this.#tellRights(volumes, revoked)
  }

  /** Call it before any request is served: what a process before this one has removed may be asked for. */
  prepare(): void {
    if (this.#options.handover?.isKernelStale === true) hauntUndone(this.#context)
  }

  /** Ends what a daemon before this one did not come to the end of. */
  async recover(): Promise<void> {
    const { handover, logger } = this.#options
    await this.#changing(() => discardUnfinished(this.#context))
    if (handover?.isKernelStale !== true) return
    refreshKernel(this.#context).then(
      () => handover.kernelIsFresh(),
      (error: unknown) => logger.error({ err: error }, 'the kernel may show what is no longer so: unmount, and mount again'),
    )
  }

  /** A change that the kernel has to be told of: should this process end before it is, the next one tells it. */
  #changing<T>(run: () => Promise<T>): Promise<T> {
    return this.#options.handover?.telling(run) ?? run()
  }

  #aside(what: string, run: () => Promise<void>): void {
    run().catch((error: unknown) => this.#options.logger.error({ err: error }, `${what} failed`))
  }

  /** The same calls with a user's rights. */
  forUser(uid: number): api.Service {
    return serviceFor(this, this.#context, uid)
  }

  /** For changes that nobody waits for. */
  #tellRights(volumes: Iterable<number>, revoked: boolean): void {
    this.#changing(() => rightsChanged(this.#context, volumes, revoked)).catch((error: unknown) =>
      this.#options.logger.error({ err: error }, 'the kernel was not told of changed rights; the daemon goes by them'),
    )
  }

  /** What this process has measured so far. */
  measure(): MetricsInfo {
    const { engine, session, handover, loopDelay = new LoopDelay() } = this.#options
    return measure({ engine, session, handover, loopDelay, startedAt: this.#startedAt })
  }

  async metrics(): Promise<MetricsInfo> {
    return this.measure()
  }

  async status(): Promise<api.StatusInfo> {
    const { engine, session, mountpoint, data, singleUser, handover, supervisor = process.pid } = this.#options
    const takeovers = handover?.takeovers
    return {
      version: packageVersion(),
      pid: process.pid,
      supervisor_pid: supervisor,
      mountpoint,
      data,
      started_at: this.#startedAt.toISOString(),
      uptime_s: Math.floor((Date.now() - this.#startedAt.getTime()) / 1000),
      single_user: singleUser,
      kernel_protocol: session.protocol,
      workspaces: engine.registry.workspaceCount,
      snapshots: engine.registry.snapshotCount,
      requests: session.counts,
      memory_bytes: process.memoryUsage.rss(),
      log_bytes: engine.volumes.logBytes,
      dirty_bytes: engine.volumes.dirtyBytes,
      ...engine.state,
      takeovers: takeovers?.count ?? 0,
      taken_over_at: takeovers?.last.at(-1)?.toISOString() ?? null,
      stalls: session.metrics?.stallCount ?? 0,
      disk_free_bytes: engine.diskSpace.free,
      limits: limitsInfo(engine.quotas.subjectLimits, singleUser),
      used: null,
    }
  }

  workspaceCreate(path: string, options: NewWorkspace): Promise<api.WorkspaceInfo> {
    return this.#changing(() => createWorkspace(this.#context, path, options))
  }

  async workspaceList(): Promise<api.WorkspaceInfo[]> {
    return listWorkspaces(this.#context)
  }

  async workspaceShow(path: string): Promise<api.WorkspaceInfo> {
    return showWorkspace(this.#context, path)
  }

  workspaceDelete(path: string): Promise<api.WorkspaceInfo> {
    return this.#changing(() => deleteWorkspace(this.#context, path))
  }

  workspaceRename(path: string, newPath: string): Promise<api.WorkspaceInfo> {
    return this.#changing(() => renameWorkspace(this.#context, path, newPath))
  }

  async workspaceUpdate(path: string, options: { metadata: api.Metadata }): Promise<api.WorkspaceInfo> {
    return updateWorkspace(this.#context, path, options.metadata)
  }

  snapshotCreate(path: string, options: { name?: string; metadata?: api.Metadata }): Promise<api.SnapshotInfo> {
    return this.#changing(() => takeSnapshot(this.#context, path, options))
  }

  async snapshotList(path: string): Promise<api.SnapshotInfo[]> {
    return listSnapshots(this.#context, path)
  }

  async snapshotShow(path: string, snapshot: string): Promise<api.SnapshotInfo> {
    return showSnapshot(this.#context, path, snapshot)
  }

  snapshotDelete(path: string, snapshot: string): Promise<api.SnapshotInfo> {
    return this.#changing(() => deleteSnapshot(this.#context, path, snapshot))
  }

  snapshotDiff(path: string, from: string, to: string | null, limit: number): Promise<api.DiffInfo> {
    return diffSnapshots(this.#context, path, from, to, limit)
  }

  restore(path: string, snapshot: string, options: api.RestoreWish): Promise<api.RestoreInfo> {
    return this.#changing(() => restore(this.#context, path, snapshot, options))
  }

  fork(path: string, newPath: string, options: ForkOptions): Promise<api.ForkInfo> {
    return this.#changing(() => fork(this.#context, path, newPath, options))
  }

  identityAdd(subject: string, uid: number): Promise<api.IdentityInfo> {
    return this.#changing(() => addIdentity(this.#context, subject, uid))
  }

  async identityList(): Promise<api.IdentityInfo[]> {
    return listIdentities(this.#context)
  }

  identityRemove(subject: string, options: { uid?: number }): Promise<api.IdentityInfo> {
    return this.#changing(() => removeIdentity(this.#context, subject, options))
  }

  grant(subject: string, relation: string, path: string, options: { expires?: string }): Promise<api.GrantInfo> {
    return this.#changing(() => grant(this.#context, subject, relation, path, options))
  }

  revoke(subject: string, relation: string, path: string): Promise<api.GrantInfo> {
    return this.#changing(() => revoke(this.#context, subject, relation, path))
  }

  async grants(path: string): Promise<api.GrantInfo[]> {
    return grants(this.#context, path)
  }

  async check(subject: string, permission: string, path: string): Promise<api.CheckInfo> {
    return check(this.#context, subject, permission, path)
  }

  async explain(subject: string, permission: string, path: string): Promise<api.ExplainInfo> {
    return explain(this.#context, subject, permission, path)
  }

  async whoCan(permission: string, path: string): Promise<{ subjects: string[] }> {
    return whoCan(this.#context, permission, path)
  }

  async whatCan(subject: string): Promise<api.ReachInfo[]> {
    return whatCan(this.#context, subject)
  }

  groupAdd(group: string, member: string): Promise<api.GroupInfo> {
    return this.#changing(() => addToGroup(this.#context, group, member))
  }

  groupRemove(group: string, member: string): Promise<api.GroupInfo> {
    return this.#changing(() => removeFromGroup(this.#context, group, member))
  }

  async groupList(): Promise<api.GroupInfo[]> {
    return listGroups(this.#context)
  }

  async modelShow(): Promise<api.ModelInfo> {
    return showModel(this.#context)
  }

  modelApply(text: string): Promise<api.ModelInfo> {
    return this.#changing(() => applyModel(this.#context, text))
  }

  tenantOnboard(id: string, options: NewTenant): Promise<api.TenantInfo> {
    return this.#changing(() => onboardTenant(this.#context, id, options))
  }

  async quotaSet(path: string, options: NewQuota): Promise<api.QuotaInfo> {
    return setQuota(this.#context, path, options)
  }

  async quotaShow(path: string): Promise<api.QuotaShowInfo> {
    return showQuota(this.#context, path)
  }

  async quotaList(): Promise<api.QuotaInfo[]> {
    return listQuotas(this.#context)
  }

  async checkpoint(): Promise<{ elapsed_ms: number }> {
    const start = performance.now()
    await this.#options.engine.volumes.checkpoint()
    return { elapsed_ms: performance.now() - start }
  }

  async collect(): Promise<api.CollectInfo> {
    const start = performance.now()
    const { forgotten, segments, freedBytes, copiedBytes } = await this.#options.engine.collect()
    return { forgotten, segments, freed_bytes: freedBytes, copied_bytes: copiedBytes, elapsed_ms: performance.now() - start }
  }

  async collectStatus(): Promise<api.CollectStatusInfo> {
    return { ...this.#options.engine.volumes.collectProgress }
  }

  diskUsage(path: string | null): Promise<api.DiskUsageInfo> {
    return diskUsage(this.#context, this.#options.engine, path)
  }

  async shutdown(): Promise<{ pid: number }> {
    setTimeout(() => this.#options.stop(), STOP_DELAY_MS)
    return { pid: this.#options.supervisor ?? process.pid }
  }

  async scrub({ rate }: { rate?: number }): Promise<api.ScrubInfo> {
    return this.#options.engine.scrub.begin(rate ?? null)
  }

  async scrubStatus(): Promise<api.ScrubInfo> {
    return this.#options.engine.scrub.info
  }

  scrubStop(): Promise<api.ScrubInfo> {
    return this.#options.engine.scrub.stop()
  }

  async fsck(): Promise<api.FsckInfo> {
    const start = performance.now()
    return fsckInfo(await this.#options.engine.check(), performance.now() - start)
  }
}

function limitsInfo({ workspaces, snapshots }: SubjectLimits, singleUser: boolean): api.LimitsInfo {
  const finite = (limit: number): number | null => (Number.isFinite(limit) ? limit : null)
  const calls = singleUser ? null : callsPerUidMax
  return { workspaces: finite(workspaces), snapshots: finite(snapshots), calls, calls_of_all: singleUser ? null : callsMax }
}
