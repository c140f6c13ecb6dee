/**
 * What whoever is not root may ask the daemon for. Each call has a row that throws when the caller may not, and its type
 * demands one for every call there is.
 *
 * A row is asked right before its call begins, in the same turn: what a call does at once, it does by the rights of this
 * moment. A call that waits before it reads or changes a tree (snapshot, diff, restore, fork) asks again in the turn in
 * which it does (`still` in asuser.ts).
 */
import type { CallName, Service } from '../api/calls.ts'
import { NexusError } from '../errors.ts'
import { goalAt, missingIn } from '../snapshots/gone.ts'
import { originOf } from '../snapshots/graft.ts'
import { stateOfSnapshot } from '../snapshots/snapshots.ts'
import type { Place } from '../vfs/place.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { type Context, findSnapshot, targetAt } from '../workspaces/context.ts'
import { isInside } from '../workspaces/paths.ts'
import type { SnapshotRecord, WorkspaceRecord } from '../workspaces/records.ts'
import type { UserCaller } from './caller.ts'

/** Throws NEXUS_DENIED (or NEXUS_NOT_FOUND) when the caller may not; `context` is where that is read from. */
type Rule<K extends CallName> = (ask: { caller: UserCaller; context: Context }, ...args: Parameters<Service[K]>) => void

export const policy: { readonly [K in CallName]: Rule<K> } = {
  status: anybody,
  workspaceCreate: ({ caller }, path, { owner, quotaBytes, quotaInodes }) => {
    caller.demandMaking(path)
    if (quotaBytes !== undefined || quotaInodes !== undefined) caller.refuse('make workspaces with a quota')
    refuseOtherOwner(caller, owner)
  },
  // What the caller may not read is taken out of the answer.
  workspaceList: anybody,
  workspaceShow: on('read'),
  workspaceDelete: ({ caller, context }, path) => {
    const place = changeable(caller, context, path, 'delete')
    caller.demandAll('share', place, path)
    caller.demandTaking(path)
  },
  workspaceRename: ({ caller, context }, path, newPath) => {
    changeable(caller, context, path, 'rename')
    caller.demandTaking(path)
    caller.demandMaking(newPath)
  },
  workspaceUpdate: ({ caller, context }, path) => void changeable(caller, context, path, 'update'),
  snapshotCreate: on('snapshot'),
  snapshotList: on('read'),
  snapshotShow: ({ caller, context }, path, snapshot) => ofSnapshot(caller, context, 'read', path, snapshot),
  snapshotDelete: ({ caller, context }, path, snapshot) => ofSnapshot(caller, context, 'restore', path, snapshot),
  snapshotDiff: ({ caller, context }, path) => {
    caller.demandAll('read', caller.lookUp(path), path)
    refuseHidden(caller, context, `compare snapshots of ${path}`)
  },
  restore: ({ caller, context }, path, snapshot) => {
    // Of what is not there, the nearest directory around it decides.
    const place = caller.nearest(path)
    // A caller who may not is told what stat(2) would tell.
    if (!caller.has('restore', place)) caller.lookUp(path)
    caller.demandAll('restore', place, path)
    const goal = goalAt(context, path)
    const record = findSnapshot(context, goal.target, snapshot)
    if (goal.missing.length > 0) {
      const source = missingIn(context, goal, record).at(-1)
      const then = stateOfSnapshot(context, record).get(place.volume.number)
      const wasInside = then !== undefined && source !== undefined && isInside(then, source, place.ino)
      if (!wasInside) demandOnRoot(caller, 'restore', place, path)
      return
    }
    // Another directory that lay at this path is not what the caller was given this one for.
    if (place.ino !== ROOT_INO && originOf(context, goal.target, record) !== place.ino)
      demandOnRoot(caller, 'restore', place, path)
  },
  fork: ({ caller, context }, path, newPath, { withGrants, owner }) => {
    const place = caller.lookUp(path)
    caller.demandAll('read', place, path)
    if (withGrants === true) caller.demandAll('share', place, path)
    refuseHidden(caller, context, `fork ${path}`)
    caller.demandMaking(newPath)
    refuseOtherOwner(caller, owner)
  },
  identityAdd: root('say who is who'),
  identityList: root('list identities'),
  identityRemove: root('say who is who'),
  grant: ({ caller }, _subject, _relation, path) => void caller.demand('share', path),
  revoke: ({ caller }, _subject, _relation, path) => void caller.demand('share', path),
  grants: on('share'),
  check: ({ caller }, subject, _permission, path) => about(caller, subject, path),
  explain: ({ caller }, subject, _permission, path) => about(caller, subject, path),
  whoCan: ({ caller }, _permission, path) => void caller.demand('share', path),
  whatCan: ({ caller }, subject) => {
    if (subject !== caller.subject) caller.refuse(`ask what ${subject} can`)
  },
  groupAdd: root('change groups'),
  groupRemove: root('change groups'),
  groupList: root('list groups'),
  modelShow: anybody,
  modelApply: root('change the model'),
  tenantOnboard: root('make tenants'),
  quotaSet: ({ caller, context }, path) => {
    const { parent_volume } = workspaceOf(caller, context, path)
    const outer = context.core.volumes.get(parent_volume)
    // Whose quota it counts for may deal it out.
    if (parent_volume === 0 || outer === undefined) return caller.refuse(`change the quota of ${path}`)
    demandOnRoot(caller, 'share', { volume: outer }, path)
  },
  quotaShow: on('read'),
  // What the caller may not read is taken out of the answer.
  quotaList: anybody,
  checkpoint: root('ask for a checkpoint'),
  collect: root('collect garbage'),
  collectStatus: root('collect garbage'),
  diskUsage: ({ caller }, path) => {
    if (path === null) caller.refuse('see what takes space in the whole store')
    else caller.demand('read', path)
  },
  shutdown: root('end nexusd'),
  fsck: root('check the store'),
  scrub: root('check the store'),
  scrubStatus: root('check the store'),
  scrubStop: root('check the store'),
  metrics: root('see what nexusd measures'),
}

function anybody(): void {
  // Nothing is asked of him.
}

function root(what: string): Rule<never> {
  return ({ caller }) => caller.refuse(what)
}

/** A permission on the path that is the first argument. */
function on(permission: string): ({ caller }: { caller: UserCaller }, path: string) => void {
  return ({ caller }, path) => void caller.demand(permission, path)
}

function workspaceOf(caller: UserCaller, { registry }: Context, path: string): WorkspaceRecord {
  const record = registry.workspace(caller.lookUp(path).volume.number)
  if (record === undefined) throw new NexusError('NEXUS_NOT_FOUND', `there is no ${path}: see "nexusctl workspace list"`)
  return record
}

/** A workspace that the caller shares; a tenant is root's to change. */
function changeable(caller: UserCaller, { registry }: Context, path: string, how: string): Place {
  const place = caller.demand('share', path)
  if (registry.isTenant(place.volume.number)) caller.refuse(`${how} the tenant ${path}`)
  return place
}

/** A snapshot is known by every path of its workspace: what counts is the directory that it was taken of. */
function ofSnapshot(caller: UserCaller, context: Context, permission: string, path: string, snapshot: string): void {
  const place = caller.demand(permission, path)
  const record = findSnapshot(context, targetAt(context, path), snapshot)
  if (record.ino !== place.ino) demandOnDirectory(caller, permission, place, record)
}

function demandOnDirectory(caller: UserCaller, permission: string, { volume }: Place, record: SnapshotRecord): void {
  const attr = volume.attr(record.ino)
  const isThere = attr !== undefined && attr.nlink > 0
  if (isThere) caller.demandOn(permission, { volume, ino: record.ino, attr }, record.path)
  else demandOnRoot(caller, permission, { volume }, record.path)
}

function demandOnRoot(caller: UserCaller, permission: string, { volume }: Pick<Place, 'volume'>, path: string): void {
  const attr = volume.attr(ROOT_INO)
  if (attr === undefined) throw new NexusError('NEXUS_NOT_FOUND', `there is no ${path}: see "nexusctl workspace list"`)
  caller.demandOn(permission, { volume, ino: ROOT_INO, attr }, `the workspace of ${path}`)
}

/** Who may read a directory takes all of it along: so he must be allowed to read all of it. */
function refuseHidden(caller: UserCaller, { access }: Context, what: string): void {
  if (access.hides) caller.refuse(`${what}, because the store's model can hide parts of what he may read`)
}

function refuseOtherOwner(caller: UserCaller, owner: string | undefined): void {
  if (owner !== undefined && owner !== caller.subject) caller.refuse(`make ${owner} the owner`)
}

/** About himself the caller may ask wherever stat(2) would tell him that something is there. */
function about(caller: UserCaller, subject: string, path: string): void {
  if (subject === caller.subject) caller.lookUp(path)
  else caller.demand('share', path)
}
