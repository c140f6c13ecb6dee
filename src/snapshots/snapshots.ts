/** Taking, listing, comparing and deleting snapshots. */
import type { DiffInfo, SnapshotInfo } from '../api/snapshots.ts'
import type { Metadata } from '../api/workspaces.ts'
import { fromHex, toHex } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import { Pace } from '../pace.ts'
import { isDirectory, isRegular } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { MergedState } from '../volume/table.ts'
import type { Volume } from '../volume/volume.ts'
import {
  type Context,
  findSnapshot,
  nestedIn,
  type Permit,
  snapshotsChanged,
  stateOf,
  type Target,
  targetAt,
  targetNow,
  volumesOf,
} from '../workspaces/context.ts'
import { removeSnapshots } from '../workspaces/lineage.ts'
import { isInside, namesInVolume, pathOf } from '../workspaces/paths.ts'
import type { SnapshotRecord } from '../workspaces/records.ts'
import { rightsChanged } from '../workspaces/rights.ts'
import { visibleName } from '../workspaces/snapshotindex.ts'
import { demandWithin } from '../workspaces/subjectlimits.ts'
import { type Listed, pathChanges, type Sees } from './changes.ts'
import { seenInSnapshot, seenLive } from './seen.ts'

/** What is held besides, so that sorting is worth it. */
const ROOM = 1000

export interface SnapshotOptions {
  name?: string
  metadata?: Metadata
  permit?: Permit
  /** the subject whose limit it counts for, and which is refused beyond that; nobody's when not given */
  charged?: string
}

/** Takes a snapshot: the state of one instant, whoever is writing. */
export async function takeSnapshot(context: Context, path: string, options: SnapshotOptions): Promise<SnapshotInfo> {
  const start = performance.now()
  const target = targetAt(context, path)
  refuseTakenName(context, target, options.name)
  demandSnapshot(context, options.charged)
  await context.kernel.writeBack(volumesOf(context, target))
  const record = await context.core.volumes.merged(
    () => volumesOf(context, target),
    (states) => {
      const now = targetNow(context, target, options.permit)
      refuseTakenName(context, now, options.name)
      demandSnapshot(context, options.charged)
      return storeSnapshot(context, snapshotRecord(context, now, states, { ...options, automatic: false }))
    },
  )
  await snapshotsChanged(context, record.workspace, record.name ?? record.id)
  return { ...infoOfSnapshot(record), elapsed_ms: performance.now() - start }
}

/** What a snapshot of these states would be. */
export function snapshotRecord(
  context: Context,
  target: Target,
  states: ReadonlyMap<number, MergedState>,
  options: SnapshotOptions & { automatic: boolean },
): SnapshotRecord {
  const { place } = target
  const { registry } = context
  const workspace = registry.workspace(target.workspace.number) ?? target.workspace
  const state = stateOf(states, place.volume.number)
  const nested = nestedIn(context, place).flatMap((record) => {
    const inner = states.get(record.number)
    // One that was made after the instant of the merge is not in the tree either.
    if (inner === undefined) return []
    return [{ record, root: hex(inner), ino_next: inner.super.inoNext, view: registry.allocateNumber() }]
  })
  const counted = [state, ...nested.map((one) => stateOf(states, one.record.number))]
  return {
    id: context.newId(),
    name: options.name ?? null,
    workspace: place.volume.number,
    ino: place.ino,
    path: pathOf(context.core, registry, place.volume.number, place.ino),
    created_at: context.now().toISOString(),
    root: hex(state),
    domain: state.domain,
    ino_next: state.super.inoNext,
    view: registry.allocateNumber(),
    files: counted.reduce((sum, one) => sum + one.super.files, 0),
    bytes: counted.reduce((sum, one) => sum + one.super.bytes, 0),
    metadata: options.metadata ?? {},
    parent: workspace.parent,
    automatic: options.automatic,
    nested,
    ...(options.charged !== undefined && { charged: options.charged }),
  }
}

function storeSnapshot(context: Context, record: SnapshotRecord): SnapshotRecord {
  context.core.volumes.commit(snapshotChanges(context, record))
  context.registry.snapshotStored(record)
  return record
}

/** The changes that store a snapshot; the workspace's state descends from it from now on. */
export function snapshotChanges({ registry }: Context, record: SnapshotRecord): Change[] {
  const workspace = registry.workspace(record.workspace)
  const isWhole = record.ino === ROOT_INO && workspace !== undefined
  return [registry.storeSnapshot(record), ...(isWhole ? [registry.storeWorkspace({ ...workspace, parent: record.id })] : [])]
}

export function listSnapshots(context: Context, path: string): SnapshotInfo[] {
  const target = targetAt(context, path)
  const all = context.registry.snapshotsOf(target.workspace.number)
  return all.filter((record) => target.place.ino === ROOT_INO || record.ino === target.place.ino).map(infoOfSnapshot)
}

/** The same as listed, with files counted where they had not been. */
export function showSnapshot(context: Context, path: string, wanted: string): SnapshotInfo {
  const record = findSnapshot(context, targetAt(context, path), wanted)
  const info = infoOfSnapshot(record)
  return info.file_count === null ? { ...info, ...count(viewOf(context, record), record.ino) } : info
}

export async function deleteSnapshot(context: Context, path: string, wanted: string): Promise<SnapshotInfo> {
  const target = targetAt(context, path)
  const record = findSnapshot(context, target, wanted)
  const { registry } = context
  const lost = record.nested.length === 0 ? [] : registry.lostWith([], [record.id])
  const reached = removeSnapshots(context, [record, ...lost], [], [])
  await snapshotsChanged(context, record.workspace, visibleName(record))
  await rightsChanged(context, reached, true)
  return infoOfSnapshot(record)
}

export interface DiffOptions {
  /** leaves out what lies in other directories */
  sees?: Sees
  /** whether the caller may look into the workspace's directory of snapshots: else they are not told the names on the way there */
  seesSnapshots?: () => boolean
  permit?: Permit
}

export async function diffSnapshots(
  context: Context,
  path: string,
  from: string,
  to: string | null,
  limit: number,
  { sees, seesSnapshots = () => true, permit }: DiffOptions = {},
): Promise<DiffInfo> {
  const target = targetAt(context, path)
  const first = findSnapshot(context, target, from)
  const before = stateOfSnapshot(context, first)
  const directory = comparedIn(target, first)
  const inSnapshot = (record: SnapshotRecord, state: State): string | null =>
    seesSnapshots() ? seenInSnapshot(context, target, record, state.get(record.workspace), directory) : null
  const pin = context.core.volumes.pin(before.values())
  try {
    if (to !== null) {
      const second = findSnapshot(context, target, to)
      const after = stateOfSnapshot(context, second)
      pin.add(after.values())
      const result = await least(compare(before, after, target, first, sees), limit)
      permit?.(target.place)
      return {
        from: first.id,
        to: second.id,
        from_path: inSnapshot(first, before),
        to_path: inSnapshot(second, after),
        ...result,
      }
    }
    await context.kernel.writeBack(volumesOf(context, target))
    const after = await context.core.volumes.merged(
      () => volumesOf(context, target),
      (states) => {
        targetNow(context, target, permit)
        pin.add(states.values())
        return liveState(context, states)
      },
    )
    const result = await least(compare(before, after, target, first, sees), limit)
    // Once more: what was read is of states that do not change, but who asked may have lost the right to it.
    permit?.(target.place)
    return {
      from: first.id,
      to: 'live',
      from_path: inSnapshot(first, before),
      to_path: seenLive(context, target, directory),
      ...result,
    }
  } finally {
    pin.release()
  }
}

/** Volumes of one state by workspace number. */
export type State = ReadonlyMap<number, Volume>

export function stateOfSnapshot(context: Context, record: SnapshotRecord): State {
  const state = new Map([[record.workspace, viewOf(context, record)]])
  for (const nested of record.nested) {
    const view = context.registry.view(nested.view)
    if (view !== undefined) state.set(nested.record.number, view)
  }
  return state
}

/** The state that was merged, as volumes of its own: what is written later does not show in them. */
export function liveState({ core }: Context, states: ReadonlyMap<number, MergedState>): State {
  return new Map([...states].map(([number, { root, domain }]) => [number, core.volumes.view(number, domain, root)]))
}

/** The directory that a comparison with a snapshot is about: the one asked for, or in a workspace that of the snapshot. */
function comparedIn(target: Target, snapshot: SnapshotRecord): number {
  return target.place.ino === ROOT_INO ? snapshot.ino : target.place.ino
}

/** The changes from one state to another, in the directory that the target (or the snapshot) is about. */
export function* compare(
  before: State,
  after: State,
  target: Target,
  snapshot: SnapshotRecord,
  sees?: Sees,
): Generator<Listed | undefined> {
  const directory = comparedIn(target, snapshot)
  // A directory that was made later has no names then, and no workspace lay in it.
  const top = namesTo(before, snapshot, target.workspace.number, directory)
  for (const [number, volume] of before) {
    const other = after.get(number)
    if (other === undefined) continue
    if (number === target.workspace.number) {
      yield* pathChanges(volume, other, directory, { sees })
      continue
    }
    const names = namesTo(before, snapshot, number, ROOT_INO)
    if (top === undefined || names === undefined || !isNestedIn(before, snapshot, number, directory)) continue
    if (sees !== undefined && !seesNested(before, snapshot, number, sees)) continue
    yield* pathChanges(volume, other, ROOT_INO, { prefix: names.slice(top.length), sees })
  }
}

/** Whether a workspace lay, at the time of the snapshot, somewhere in this directory of the snapshotted workspace. */
function isNestedIn(state: State, snapshot: SnapshotRecord, number: number, directory: number): boolean {
  const record = snapshot.nested.find((one) => one.record.number === number)?.record
  if (record === undefined) return false
  const outer = state.get(record.parent_volume)
  if (record.parent_volume !== snapshot.workspace) return isNestedIn(state, snapshot, record.parent_volume, directory)
  return outer !== undefined && isInside(outer, record.parent_ino, directory)
}

/** Whether the names of workspaces that lie inside, from the snapshotted one's root down to one of them, are to be seen. */
function seesNested(state: State, snapshot: SnapshotRecord, number: number, sees: Sees): boolean {
  const record = snapshot.nested.find((one) => one.record.number === number)?.record
  const outer = record && state.get(record.parent_volume)
  if (record === undefined || outer === undefined || !sees(outer, record.parent_ino)) return false
  return outer.number === state.get(snapshot.workspace)?.number || seesNested(state, snapshot, record.parent_volume, sees)
}

/** Names from the snapshotted workspace's root down to a directory of it, or of a workspace in it. */
function namesTo(state: State, snapshot: SnapshotRecord, number: number, directory: number): string[] | undefined {
  const volume = state.get(number)
  const inside = volume === undefined ? undefined : namesInVolume(volume, directory)
  if (number === snapshot.workspace || inside === undefined) return inside
  const record = snapshot.nested.find((one) => one.record.number === number)?.record
  if (record === undefined) return undefined
  const outer = namesTo(state, snapshot, record.parent_volume, record.parent_ino)
  return outer === undefined ? undefined : [...outer, record.name, ...inside]
}

/** Some changes, sorted by path; which ones is by chance where there are more than the limit. */
export function firstOf(changes: Iterable<Listed | undefined>, limit: number): Pick<DiffInfo, 'changes' | 'truncated'> {
  const taken: Listed[] = []
  for (const listed of changes) {
    if (listed === undefined) continue
    if (taken.length === limit) return { changes: sorted(taken), truncated: true }
    taken.push(listed)
  }
  return { changes: sorted(taken), truncated: false }
}

/** The first changes by path, of however many: no more than twice the limit are held. In slices, between requests. */
async function least(changes: Generator<Listed | undefined>, limit: number): Promise<Pick<DiffInfo, 'changes' | 'truncated'>> {
  const pace = new Pace()
  let held: Listed[] = []
  let truncated = false
  const cut = (): void => {
    held.sort(byKey)
    truncated ||= held.length > limit
    held = held.slice(0, limit)
  }
  for (const listed of changes) {
    const wait = pace.pause()
    if (wait !== undefined) await wait
    if (listed === undefined) continue
    held.push(listed)
    if (held.length >= 2 * limit + ROOM) cut()
  }
  cut()
  return { changes: held.map(({ change }) => change), truncated }
}

function sorted(listed: Listed[]): DiffInfo['changes'] {
  return listed.sort(byKey).map(({ change }) => change)
}

function byKey(a: Listed, b: Listed): number {
  if (a.key === b.key) return 0
  return a.key < b.key ? -1 : 1
}

export function infoOfSnapshot(record: SnapshotRecord): SnapshotInfo {
  const isWhole = record.ino === ROOT_INO
  return {
    snapshot_id: record.id,
    name: record.name,
    path: record.path,
    created_at: record.created_at,
    root: record.root ?? EMPTY_ROOT,
    file_count: isWhole ? record.files : null,
    bytes: isWhole ? record.bytes : null,
    metadata: record.metadata,
    parent: record.parent,
    automatic: record.automatic,
  }
}

const EMPTY_ROOT = '0'.repeat(64)

export function rootOf(hexRoot: string | null): ReturnType<typeof fromHex> | null {
  return hexRoot === null ? null : fromHex(hexRoot)
}

function hex({ root }: MergedState): string | null {
  return root === null ? null : toHex(root)
}

function viewOf({ registry }: Context, record: SnapshotRecord): Volume {
  const view = registry.view(record.view)
  if (view === undefined) throw new NexusError('NEXUS_INTERNAL', `snapshot ${record.id} has no view`)
  return view
}

function count(volume: Volume, directory: number): { file_count: number; bytes: number } {
  // What is added while a set is walked is walked as well; a damaged directory may lie in itself.
  const directories = new Set([directory])
  const seen = new Set<number>()
  let bytes = 0
  for (const one of directories) {
    for (const [, entry] of volume.entries(one)) {
      if (entry.volume !== 0 || seen.has(entry.ino)) continue
      const attr = volume.attr(entry.ino)
      if (attr === undefined) continue
      if (isDirectory(attr)) directories.add(entry.ino)
      else {
        seen.add(entry.ino)
        if (isRegular(attr)) bytes += attr.size
      }
    }
  }
  return { file_count: seen.size, bytes }
}

function refuseTakenName({ registry }: Context, target: Target, name: string | undefined): void {
  if (name === undefined) return
  if (!registry.isNameTaken(target.workspace.number, name)) return
  throw new NexusError(
    'NEXUS_EXISTS',
    `${target.path} has a snapshot ${name} already: choose another name, or delete that one first`,
  )
}

/** @throws NexusError NEXUS_NO_SPACE when a subject would have more snapshots than it may */
function demandSnapshot({ registry, quotas }: Context, charged: string | undefined): void {
  if (charged !== undefined) {
    demandWithin(quotas.subjectLimits, 'snapshots', charged, registry.chargedTo(charged).snapshots, 1)
  }
}
