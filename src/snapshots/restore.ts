/** Restoring: the root is swapped, and whoever looks next sees the state of the snapshot. */
import type { RestoreInfo, RestoreWish } from '../api/snapshots.ts'
import { NexusError } from '../errors.ts'
import { volumeOf } from '../vfs/place.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Pin } from '../volume/live.ts'
import type { MergedState } from '../volume/table.ts'
import type { Volumes } from '../volume/volumes.ts'
import {
  type Context,
  findSnapshot,
  nestedIn,
  snapshotsChanged,
  stateOf,
  type Target,
  targetNow,
  volumesOf,
} from '../workspaces/context.ts'
import { demandRoomToRestore } from '../workspaces/limits.ts'
import { directoryAt, isInside } from '../workspaces/paths.ts'
import type { NestedRecord, SnapshotRecord, WorkspaceRecord } from '../workspaces/records.ts'
import { workspaceKey } from '../workspaces/records.ts'
import { rightsChanged } from '../workspaces/rights.ts'
import { type Changed, guardPages, invalidateBetween, type PageGuard, unguardPages } from './caches.ts'
import type { Sees } from './changes.ts'
import { repointed } from './fork.ts'
import { haunt, layGhosts } from './ghosts.ts'
import { type Goal, goalAt, type Made, makeMissing, missingIn } from './gone.ts'
import { graft, originOf } from './graft.ts'
import { News, tellWatchers } from './news.ts'
import { settleSizes } from './sizes.ts'
import { compare, firstOf, liveState, rootOf, type State, snapshotChanges, snapshotRecord, stateOfSnapshot } from './snapshots.ts'
import { pruneUndos } from './undos.ts'
import { demandNoWriters, type Restored, reportWriters, type WritersOptions } from './writers.ts'

export interface RestoreOptions extends RestoreWish, WritersOptions {
  /** leaves out of the report what lies in other directories */
  sees?: Sees
}

const CHANGES_LIMIT = 1000
/** How often the state before a restore is merged again beside those who keep writing to it, before they have to wait. */
const CATCH_UPS_MAX = 3

export async function restore(context: Context, path: string, wanted: string, options: RestoreOptions): Promise<RestoreInfo> {
  const pin = context.core.volumes.pin()
  try {
    return await restorePinned(context, path, wanted, options, pin)
  } finally {
    pin.release()
  }
}

/** @param pin keeps what it reads, whatever becomes of snapshots meanwhile */
async function restorePinned(
  context: Context,
  path: string,
  wanted: string,
  options: RestoreOptions,
  pin: Pin,
): Promise<RestoreInfo> {
  const start = performance.now()
  const goal = goalAt(context, path)
  const { target } = goal
  const record = findSnapshot(context, target, wanted)
  const restored = stateOfSnapshot(context, record)
  pin.add(restored.values())
  const wish: Restored = { goal, states: restored, source: sourceOf(context, goal, record) }
  if (options.dryRun !== true) await demandNoWriters(context, wish, options)
  await context.kernel.writeBack(volumesOf(context, target))
  if (options.dryRun === true) return dryRun(context, wish, record, { options, start, pin })

  const { core } = context
  const { undo, before, guards, reached } = await core.volumes.merged(
    () => volumesOf(context, target),
    async (first) => {
      const states = await catchUp(core.volumes, first)
      pin.add(states.values())
      // From here to the commit nothing is waited for.
      const now = targetNow(context, target, options.permit)
      const wantedNow = goalNow(goal, now)
      findSnapshot(context, now, record.id)
      refuseUnmerged(context, now, states)
      const made = snapshotRecord(context, now, states, {
        automatic: true,
        metadata: { reason: `before restore of ${record.id}` },
      })
      const old = liveState(context, states)
      const changes = restoreChanges(context, wantedNow, record, old)
      demandRoomToRestore(context, { ...now, path }, isWhole(wantedNow, record), changes)
      core.volumes.commit([...snapshotChanges(context, made), ...changes])
      const reached = context.access.restored([...old.keys()])
      const guards = new Map([...old].map(([number, volume]) => [number, guardPages(core, number, volume, changes)]))
      for (const number of old.keys()) if (core.volumes.get(number) === undefined) core.buriedVolume(number)
      context.registry.snapshotStored(made)
      haunt(core, old)
      for (const number of volumesOf(context, now)) dropUnheld(context, number)
      return { undo: made, before: old, guards, reached }
    },
  )
  const changed: Changed = { resized: new Set(), news: new News() }
  try {
    // What leads to a grant deep inside may be gone.
    await core.gates.expire(before.keys())
    const gone = [...before.keys()].filter((number) => core.volumes.get(number) === undefined)
    await rightsChanged(context, [...reached, ...gone], true)
    const stateAfter = (): State | Promise<State> => (isWhole(goal, record) ? restored : mergedNow(context, before, pin))
    await tellKernel(context, before, guards, stateAfter, changed)
  } finally {
    for (const node of changed.resized) core.staleSizes.add(node)
    for (const [number, guard] of guards) unguardPages(core, number, guard)
  }
  await settleSizes(context, changed.resized)
  context.aside('telling programs that watch restored files', () => tellWatchers(context, changed.news))
  await snapshotsChanged(context, undo.workspace, undo.id)
  await pruneUndos(context, undo.workspace)
  context.inBackground('keeping what a restore removed and somebody has open', () => layGhosts(core))
  const elapsed_ms = performance.now() - start
  const changes = mayKnow(context, goal, options) ? report(context, goal, record, { before, restored }, options) : WITHHELD
  const done = { path, restored: record.id, undo: undo.id, undo_path: undo.path, dry_run: false, ...changes }
  return { ...done, writers: [], writers_hidden: 0, elapsed_ms }
}

async function dryRun(
  context: Context,
  wish: Restored,
  record: SnapshotRecord,
  { options, start, pin }: { options: RestoreOptions; start: number; pin: Pin },
): Promise<RestoreInfo> {
  const { goal, states: restored } = wish
  const { target, path } = goal
  const writers = await reportWriters(context, wish, options)
  const live = await context.core.volumes.merged(
    () => volumesOf(context, target),
    (states) => {
      targetNow(context, target, options.permit)
      pin.add(states.values())
      return liveState(context, states)
    },
  )
  options.permit?.(target.place)
  const changes = report(context, goal, record, { before: live, restored }, options)
  const elapsed_ms = performance.now() - start
  return { path, restored: record.id, undo: null, undo_path: null, dry_run: true, ...changes, ...writers, elapsed_ms }
}

const WITHHELD: Pick<RestoreInfo, 'changes' | 'truncated'> = { changes: [], truncated: true }

/** A restore that is done is answered, but names are told only to a caller who may still have them. */
function mayKnow(context: Context, { target, missing, path }: Goal, { permit }: RestoreOptions): boolean {
  try {
    permit?.(missing.length === 0 ? target.place : directoryAt(context.core, path))
    return true
  } catch (error) {
    if (error instanceof NexusError) return false
    throw error
  }
}

/** What a restore changes in the state before it. */
function report(
  context: Context,
  goal: Goal,
  record: SnapshotRecord,
  { before, restored }: { before: State; restored: State },
  { limit = CHANGES_LIMIT, sees }: RestoreOptions,
): Pick<RestoreInfo, 'changes' | 'truncated'> {
  const { target, missing } = goal
  if (missing.length === 0) return firstOf(compare(before, restored, target, record, sees), limit)
  const { volumes } = context.core
  // Of what was gone, all is new.
  const nothing = new Map([...restored].map(([number, { domain }]) => [number, volumes.view(number, domain, null)]))
  const source = { ...target, place: { ...target.place, ino: sourceOf(context, goal, record) } }
  return firstOf(compare(nothing, restored, source, record, sees), limit)
}

/** The directory of the snapshot that is restored. @throws NexusError when it has none, or it is a snapshot of another */
function sourceOf(context: Context, goal: Goal, record: SnapshotRecord): number {
  if (goal.missing.length > 0) return missingIn(context, goal, record).at(-1) ?? ROOT_INO
  return isWhole(goal, record) ? ROOT_INO : originOf(context, goal.target, record)
}

/** What is missing below the directory that is held must still be missing. */
function goalNow(goal: Goal, target: Target): Goal {
  const { missing, path } = goal
  const isThere = missing.length > 0 && target.place.volume.entry(target.place.ino, missing[0] ?? '') !== undefined
  if (isThere) throw new NexusError('NEXUS_BUSY', `${path} was made at this very moment: try again`)
  return { ...goal, target }
}

/** A workspace that came into the directory during the merge would go without being in the undo snapshot. */
function refuseUnmerged(context: Context, target: Target, states: ReadonlyMap<number, MergedState>): void {
  for (const number of volumesOf(context, target)) stateOf(states, number)
}

/**
 * Merges until nothing is left that the undo snapshot, and those who have to be told, would miss. What writers who
 * never rest have added by the last time is merged before anybody else gets his turn.
 */
async function catchUp(volumes: Volumes, first: Map<number, MergedState>): Promise<Map<number, MergedState>> {
  const states = first
  const numbers = [...states.keys()]
  for (let i = 0; numbers.some((number) => volumes.get(number)?.active.empty === false); i++) {
    for (const [number, state] of await volumes.mergeAgain(numbers, i >= CATCH_UPS_MAX)) states.set(number, state)
  }
  return states
}

function restoreChanges(context: Context, goal: Goal, record: SnapshotRecord, live: State): Change[] {
  const { target } = goal
  const { place, workspace } = target
  if (!isWhole(goal, record)) return graftChanges(context, goal, record, live)
  const current = context.registry.workspace(workspace.number) ?? workspace
  const inoNext = place.volume.super.inoNext
  return [
    { kind: 'root', volume: workspace.number, root: rootOf(record.root), domain: record.domain, inoNext },
    context.registry.storeWorkspace({ ...current, parent: record.id }),
    ...goneChanges(context, target, record.nested),
    ...record.nested.flatMap((nested) => returnChanges(context, nested, nested.record)),
  ]
}

function graftChanges(context: Context, goal: Goal, record: SnapshotRecord, live: State): Change[] {
  const source = sourceOf(context, goal, record)
  const made = goal.missing.length === 0 ? undefined : madeFor(context, goal, record)
  const target = made === undefined ? goal.target : { ...goal.target, place: made.place }
  const here = new Set(nestedIn(context, target.place).map(({ number }) => number))
  const wanted = record.nested.filter((one) => isBelow(context, target, record, source, one.record))
  const elsewhere = wanted.filter(({ record: { number } }) => !here.has(number) && context.core.volumes.get(number) !== undefined)
  const volumes = new Map(elsewhere.map((one) => [one.record.number, context.registry.allocateNumber()]))
  const { changes, inos } = graft(context, target, record, live, { source, volumes, inoNext: made?.inoNext })
  const state = stateOfSnapshot(context, record)
  const back = wanted.flatMap((nested) => {
    const { record: then } = nested
    const parent_ino = then.parent_volume === target.workspace.number ? inos.get(then.parent_ino) : undefined
    const parent_volume = volumes.get(then.parent_volume) ?? then.parent_volume
    const number = volumes.get(then.number) ?? then.number
    // What takes the place of one that is elsewhere is a copy, and a quota is not copied.
    const quota = number === then.number ? then.quota : undefined
    return returnChanges(context, nested, { ...then, number, parent_volume, parent_ino: parent_ino ?? then.parent_ino, quota })
  })
  const inner = elsewhere.flatMap(({ record: then }) => repointed(state, volumes, then))
  return [...(made?.changes ?? []), ...changes, ...goneChanges(context, target, wanted), ...back, ...inner]
}

function madeFor(context: Context, goal: Goal, record: SnapshotRecord): Made {
  const then = stateOfSnapshot(context, record).get(goal.target.workspace.number)
  if (then === undefined) throw new NexusError('NEXUS_INTERNAL', 'a restore has lost its workspace')
  return makeMissing(context.core, goal, then, missingIn(context, goal, record))
}

/** Workspaces inside that the snapshot does not have go; the undo snapshot has them. */
function goneChanges(context: Context, target: Target, wanted: readonly NestedRecord[]): Change[] {
  return nestedIn(context, target.place)
    .filter((live) => !wanted.some((one) => one.record.number === live.number))
    .flatMap((live): Change[] => [
      { kind: 'catalog', key: workspaceKey(live.number), value: null },
      { kind: 'unvolume', volume: live.number },
    ])
}

/** A workspace that lay inside comes back as it was, at its place and number from now on. */
function returnChanges({ core, registry, access }: Context, { root, ino_next }: NestedRecord, place: WorkspaceRecord): Change[] {
  const live = registry.workspace(place.number)
  // Grants stay when what they are on, or name, goes: its number must not be given to something else.
  const granted = access.tuples.inodesOf(place.number).reduce((most, ino) => Math.max(most, ino + 1), 0)
  const inoNext = Math.max(ino_next, granted, core.volumes.get(place.number)?.super.inoNext ?? 0)
  return [
    { kind: 'root', volume: place.number, root: rootOf(root), domain: place.domain, inoNext },
    registry.storeWorkspace(live === undefined ? place : { ...place, ...keptOf(live) }),
  ]
}

/** What a workspace that is there keeps of the present. */
function keptOf({ metadata, parent, quota, snapshot_dir }: WorkspaceRecord): Partial<WorkspaceRecord> {
  return { metadata, parent, quota, snapshot_dir }
}

/** True when a workspace lay, at the time of the snapshot, in the directory that is restored. */
function isBelow(context: Context, target: Target, record: SnapshotRecord, source: number, inner: WorkspaceRecord): boolean {
  const outer = record.nested.find((one) => one.record.number === inner.parent_volume)
  if (outer !== undefined) return isBelow(context, target, record, source, outer.record)
  const then = stateOfSnapshot(context, record).get(target.workspace.number)
  return then !== undefined && inner.parent_volume === target.workspace.number && isInside(then, inner.parent_ino, source)
}

/** What had no name in the snapshot and nobody has open any more does not come back. */
function dropUnheld({ core }: Context, number: number): void {
  core.volumes.dropOrphans(number, (ino) => core.known.has(number, ino))
}

/**
 * @param stateAfter what the kernel is to see instead of the state before
 * @param changed takes up what the kernel has to look at again
 */
async function tellKernel(
  context: Context,
  before: State,
  guards: ReadonlyMap<number, PageGuard>,
  stateAfter: () => State | Promise<State>,
  changed: Changed,
): Promise<void> {
  const after = await stateAfter()
  for (const [number, old] of before) {
    const [now, guard] = [after.get(number), guards.get(number)]
    if (now !== undefined && guard !== undefined) await invalidateBetween(context, number, old, now, guard, changed)
  }
  // Appended to meanwhile, a file may have come back to the size of before.
  for (const node of context.core.staleSizes.takeMisplaced((one) => before.has(volumeOf(one)))) {
    changed.resized.add(node)
    context.core.staleSizes.misplaced(node)
  }
}

/** The state at this moment, which writers have added to since the restore: that did not pass the kernel by. */
function mergedNow(context: Context, before: State, pin: Pin): Promise<State> {
  return context.core.volumes.merged(
    () => [...before.keys()],
    (states) => {
      pin.add(states.values())
      return liveState(context, states)
    },
  )
}

/** True when the root of the workspace is simply replaced by the snapshot's. */
function isWhole({ target, missing }: Goal, record: SnapshotRecord): boolean {
  return missing.length === 0 && target.place.ino === ROOT_INO && record.ino === ROOT_INO
}
