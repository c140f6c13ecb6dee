/** How the daemon answers each call; their type demands a handler for every call there is. */
import type { Answer, Arguments, CallName } from '../api/calls.ts'
import type { LimitsInfo } from '../api/store.ts'
import { infoOfReport } from '../check/report.ts'
import { packageVersion } from '../host/version.ts'
import { callsMax, callsPerUidMax } from '../server/callers.ts'
import { fork } from '../snapshots/fork.ts'
import { onboardTenant } from '../snapshots/onboard.ts'
import { restore } from '../snapshots/restore.ts'
import { deleteSnapshot, diffSnapshots, listSnapshots, showSnapshot, takeSnapshot } from '../snapshots/snapshots.ts'
import type { Context } from '../workspaces/context.ts'
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
import { listQuotas, setQuota, showQuota } from '../workspaces/limits.ts'
import type { SubjectLimits } from '../workspaces/subjectlimits.ts'
import {
  createWorkspace,
  deleteWorkspace,
  listWorkspaces,
  renameWorkspace,
  showWorkspace,
  updateWorkspace,
} from '../workspaces/workspaces.ts'
import { diskUsage } from './diskusage.ts'
import { LoopDelay, measure } from './measure.ts'
import type { ServiceOptions } from './options.ts'

/** The answer to `shutdown` must be out before the socket closes. */
const STOP_DELAY_MS = 10

/** What the handlers work on. */
export interface Answering extends ServiceOptions {
  context: Context
  startedAt: Date
}

type Handler<K extends CallName> = (daemon: Answering, ...args: Arguments<K>) => Answer<K> | Promise<Answer<K>>

export const handlers: { readonly [K in CallName]: Handler<K> } = {
  workspaceCreate: ({ context }, path, options) => createWorkspace(context, path, options),
  workspaceList: ({ context }) => listWorkspaces(context),
  workspaceShow: ({ context }, path) => showWorkspace(context, path),
  workspaceDelete: ({ context }, path) => deleteWorkspace(context, path),
  workspaceRename: ({ context }, path, newPath) => renameWorkspace(context, path, newPath),
  workspaceUpdate: ({ context }, path, options) => updateWorkspace(context, path, options),
  fork: ({ context }, path, newPath, options) => fork(context, path, newPath, options),

  snapshotCreate: ({ context }, path, options) => takeSnapshot(context, path, options),
  snapshotList: ({ context }, path) => listSnapshots(context, path),
  snapshotShow: ({ context }, path, snapshot) => showSnapshot(context, path, snapshot),
  snapshotDelete: ({ context }, path, snapshot) => deleteSnapshot(context, path, snapshot),
  snapshotDiff: ({ context }, path, from, to, limit) => diffSnapshots(context, path, from, to, limit),
  restore: ({ context }, path, snapshot, options) => restore(context, path, snapshot, options),

  identityAdd: ({ context }, subject, uid) => addIdentity(context, subject, uid),
  identityList: ({ context }) => listIdentities(context),
  identityRemove: ({ context }, subject, options) => removeIdentity(context, subject, options),
  grant: ({ context }, subject, relation, path, options) => grant(context, subject, relation, path, options),
  revoke: ({ context }, subject, relation, path) => revoke(context, subject, relation, path),
  grants: ({ context }, path) => grants(context, path),
  check: ({ context }, subject, permission, path) => check(context, subject, permission, path),
  explain: ({ context }, subject, permission, path) => explain(context, subject, permission, path),
  whoCan: ({ context }, permission, path) => whoCan(context, permission, path),
  whatCan: ({ context }, subject) => whatCan(context, subject),
  groupAdd: ({ context }, group, member) => addToGroup(context, group, member),
  groupRemove: ({ context }, group, member) => removeFromGroup(context, group, member),
  groupList: ({ context }) => listGroups(context),
  modelShow: ({ context }) => showModel(context),
  modelApply: ({ context }, text) => applyModel(context, text),

  tenantOnboard: ({ context }, id, options) => onboardTenant(context, id, options),

  quotaSet: ({ context }, path, options) => setQuota(context, path, options),
  quotaShow: ({ context }, path) => showQuota(context, path),
  quotaList: ({ context }) => listQuotas(context),

  status,
  checkpoint: async ({ engine }) => {
    const start = performance.now()
    await engine.volumes.checkpoint()
    return { elapsed_ms: performance.now() - start }
  },
  collect: async ({ engine }) => {
    const start = performance.now()
    const { forgotten, segments, freedBytes, copiedBytes } = await engine.collect()
    return { forgotten, segments, freed_bytes: freedBytes, copied_bytes: copiedBytes, elapsed_ms: performance.now() - start }
  },
  collectStatus: ({ engine }) => ({ ...engine.volumes.collectProgress }),
  diskUsage: ({ context, engine }, path) => diskUsage(context, engine, path),
  shutdown: ({ stop, supervisor = process.pid }) => {
    setTimeout(() => stop(), STOP_DELAY_MS)
    return { pid: supervisor }
  },
  fsck: async ({ engine }) => {
    const start = performance.now()
    return infoOfReport(await engine.check(), performance.now() - start)
  },
  scrub: ({ engine }, { rate }) => engine.scrub.begin(rate ?? null),
  scrubStatus: ({ engine }) => engine.scrub.info,
  scrubStop: ({ engine }) => engine.scrub.stop(),

  metrics: measured,
}

/** What this process has measured so far. */
export function measured({ engine, session, handover, loopDelay = new LoopDelay(), startedAt }: Answering): Answer<'metrics'> {
  return measure({ engine, session, handover, loopDelay, startedAt })
}

function status(daemon: Answering): Answer<'status'> {
  const { engine, session, mountpoint, data, singleUser, handover, supervisor = process.pid, startedAt } = daemon
  const takeovers = handover?.takeovers
  return {
    version: packageVersion(),
    pid: process.pid,
    supervisor_pid: supervisor,
    mountpoint,
    data,
    started_at: startedAt.toISOString(),
    uptime_s: Math.floor((Date.now() - startedAt.getTime()) / 1000),
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

function limitsInfo({ workspaces, snapshots }: SubjectLimits, singleUser: boolean): LimitsInfo {
  const finite = (limit: number): number | null => (Number.isFinite(limit) ? limit : null)
  const calls = singleUser ? null : callsPerUidMax
  return { workspaces: finite(workspaces), snapshots: finite(snapshots), calls, calls_of_all: singleUser ? null : callsMax }
}
