/** The calls of the daemon as one user has them: each asks the policy first, and answers with what is his business. */
import type { ExplainInfo } from '../api/access.ts'
import type { Service } from '../api/calls.ts'
import { type CallName, callNames } from '../api/calls.ts'
import type { StatusInfo } from '../api/store.ts'
import { NexusError } from '../errors.ts'
import type { ForkOptions } from '../snapshots/fork.ts'
import type { RestoreOptions } from '../snapshots/restore.ts'
import { diffSnapshots, type SnapshotOptions } from '../snapshots/snapshots.ts'
import { nodeOf } from '../vfs/place.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Context, Permit } from '../workspaces/context.ts'
import { explainFor, whoCanFor } from '../workspaces/tellable.ts'
import { listWorkspaces, type NewWorkspace } from '../workspaces/workspaces.ts'
import { UserCaller } from './caller.ts'
import { diskUsageWithin } from './diskusage.ts'
import { policy } from './policy.ts'

type AnyCall = (...args: unknown[]) => Promise<unknown>
type AnyRule = (ask: { caller: UserCaller; context: Context }, ...args: unknown[]) => void

/** @param service with the rights of root, which uid 0 has */
export function serviceFor(service: Service, context: Context, uid: number): Service {
  if (uid === 0) return service
  const caller = new UserCaller(context, uid)
  const allowed = checked(service, context, caller)
  const ask = { caller, context }
  return {
    ...allowed,
    status: async () => ({ ...publicPart(await allowed.status()), used: context.registry.chargedTo(caller.subject) }),
    workspaceList: () => listWorkspaces(context, (number) => caller.mayList(number)),
    quotaList: async () => (await allowed.quotaList()).filter(({ number }) => caller.mayList(number)),
    quotaShow: async (path) => {
      const shown = await allowed.quotaShow(path)
      return { ...shown, around: shown.around.filter(({ number }) => caller.mayList(number)) }
    },
    workspaceCreate: (path, options) => {
      const limited: NewWorkspace = { ...options, owner: options.owner ?? caller.subject, isLimited: true }
      return allowed.workspaceCreate(path, limited)
    },
    fork: (path, newPath, options) => {
      const owned = { ...options, owner: options.owner ?? caller.subject }
      const permit = still(caller, path, () => policy.fork(ask, path, newPath, owned))
      const forked: ForkOptions = { ...owned, permit, isLimited: true }
      return allowed.fork(path, newPath, forked)
    },
    snapshotCreate: (path, options) => {
      const permit = still(caller, path, () => policy.snapshotCreate(ask, path, options))
      const taken: SnapshotOptions = { ...options, permit, charged: caller.subject }
      return allowed.snapshotCreate(path, taken)
    },
    snapshotDiff: async (path, from, to, limit) => {
      const rule = (): void => policy.snapshotDiff(ask, path, from, to, limit)
      rule()
      const seesSnapshots = (): boolean => {
        const { volume } = caller.lookUp(path)
        return caller.has('read', context.core.place(nodeOf(volume.number, ROOT_INO)))
      }
      const options = { sees: caller.sees(), seesSnapshots, permit: still(caller, path, rule) }
      return await diffSnapshots(context, path, from, to, limit, options)
    },
    restore: (path, snapshot, options) => {
      const permit = still(caller, path, () => policy.restore(ask, path, snapshot, options))
      const reported: RestoreOptions = { ...options, sees: caller.sees(), permit, uid: caller.uid }
      // Where relations hide parts, that tells no names at all.
      return allowed.restore(path, snapshot, context.access.hides ? { ...reported, limit: 0 } : reported)
    },
    whoCan: async (permission, path) => {
      policy.whoCan({ caller, context }, permission, path)
      return whoCanFor(context, caller.subject, permission, path)
    },
    diskUsage: async (path) => {
      policy.diskUsage({ caller, context }, path)
      // The policy has refused the whole store.
      return await diskUsageWithin(context, path ?? '/', (number) => caller.mayList(number))
    },
    explain: async (subject, permission, path) => {
      policy.explain({ caller, context }, subject, permission, path)
      const answer = explainFor(context, caller.subject, subject, permission, path)
      return caller.has('read', caller.lookUp(path)) ? answer : withoutReasons(answer)
    },
  }
}

/** Asks the policy again: also whether the path still leads the caller to what it led to. */
function still(caller: UserCaller, path: string, rule: () => void): Permit {
  return (place) => {
    rule()
    const now = caller.nearest(path)
    if (now.volume.number === place.volume.number && now.ino === place.ino) return
    throw new NexusError('NEXUS_BUSY', `${path} was replaced at this very moment: try again`)
  }
}

/** The same calls; the policy is asked in the turn in which the call begins. */
function checked(service: Service, context: Context, caller: UserCaller): Service {
  const call = (name: CallName): AnyCall => {
    const [rule, method] = [policy[name] as AnyRule, service[name] as AnyCall]
    return async (...args) => {
      rule({ caller, context }, ...args)
      return await method.apply(service, args)
    }
  }
  // The names are those of all calls.
  return Object.fromEntries(callNames.map((name) => [name, call(name)])) as unknown as Service
}

/** What a user of the mount sees anyway; whatever is added to a status is none of that until it is said here. */
function publicPart(status: StatusInfo): StatusInfo {
  const { version, mountpoint, data, started_at, uptime_s, single_user, kernel_protocol, state, limits } = status
  return {
    ...{ version, mountpoint, data, started_at, uptime_s, single_user, kernel_protocol, state, limits },
    ...{ pid: 0, supervisor_pid: 0, workspaces: 0, snapshots: 0, requests: {}, reason: null },
    ...{ memory_bytes: 0, log_bytes: 0, dirty_bytes: 0 },
    ...{ takeovers: 0, taken_over_at: null, stalls: 0, disk_free_bytes: 0, used: null },
  }
}

/** Who else has something on it is not for whoever may not read it. */
function withoutReasons(answer: ExplainInfo): ExplainInfo {
  return { ...answer, steps: [`${answer.subject} may not read ${answer.path}, and is not told who may: ask one of its owners`] }
}
