/** What commands on workspaces and snapshots work with. */
import type { Access } from '../acl/access.ts'
import { SNAPSHOT_ID_PREFIX } from '../api/parameters.ts'
import { NexusError } from '../errors.ts'
import type { Core } from '../vfs/core.ts'
import type { FileToucher, KernelCaches } from '../vfs/filesystem.ts'
import type { LookForHolders } from '../vfs/holders.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import type { LookForWatches } from '../vfs/watches.ts'
import { ROOT_INO, SNAPSHOTS_INO } from '../volume/keys.ts'
import type { MergedState } from '../volume/table.ts'
import { directoryAt, isInside } from './paths.ts'
import type { WorkspaceQuotas } from './quotas.ts'
import type { SnapshotRecord, WorkspaceRecord } from './records.ts'
import type { WorkspaceRegistry } from './registry.ts'

export interface Context {
  core: Core
  registry: WorkspaceRegistry
  access: Access
  quotas: WorkspaceQuotas
  kernel: KernelCaches
  /** there is none without a mount */
  toucher?: FileToucher | undefined
  /** finds the processes that have files open for writing; there is none without a mount */
  lookForHolders?: LookForHolders | undefined
  /** finds what programs watch; there is none without a mount */
  lookForWatches?: LookForWatches | undefined
  /** for what follows a call and nobody waits for; failures are logged */
  inBackground(what: string, run: () => Promise<void>): void
  /** the same, for what the kernel need not be told: a process that takes over does not drop all that the kernel has cached */
  aside(what: string, run: () => Promise<void>): void
  now(): Date
  newId(): string
}

/** A workspace, or a directory in one. */
export interface Target {
  place: Place
  workspace: WorkspaceRecord
  /** path as it was given */
  path: string
}

/** @throws NexusError NEXUS_NOT_FOUND when there is no directory at the path */
export function targetAt(context: Context, path: string): Target {
  const place = directoryAt(context.core, path)
  const workspace = context.registry.workspace(place.volume.number)
  if (workspace === undefined)
    throw new NexusError('NEXUS_NOT_FOUND', `${path} is in no workspace: see "nexusctl workspace list"`)
  return { place, workspace, path }
}

/**
 * Asked again, in the turn in which a call reads or changes what it had to wait for: whether the caller may still have
 * that of this directory.
 * @throws NexusError NEXUS_DENIED and others
 */
export type Permit = (place: Place) => void

/**
 * The directory of a target as it is at this moment: a call that waited holds the inode that was asked about, and nothing
 * that it has read of it before.
 * @throws NexusError NEXUS_BUSY when it was removed meanwhile; otherwise what `permit` throws
 */
export function targetNow({ core, registry }: Context, { place, path }: Target, permit?: Permit): Target {
  const volume = core.volumes.get(place.volume.number)
  const workspace = registry.workspace(place.volume.number)
  const attr = volume?.attr(place.ino)
  if (volume === undefined || workspace === undefined || attr === undefined || attr.nlink === 0) {
    throw new NexusError('NEXUS_BUSY', `${path} was removed at this very moment: try again`)
  }
  const now = { volume, ino: place.ino, attr }
  permit?.(now)
  return { place: now, workspace, path }
}

/** The target's volume and those of the workspaces that lie in it, at this instant. */
export function volumesOf(context: Context, { place }: Target): number[] {
  return [place.volume.number, ...nestedIn(context, place).map((record) => record.number)]
}

/** The workspaces that lie in a directory, outer before inner. */
export function nestedIn({ core, registry }: Context, { volume, ino }: Place): WorkspaceRecord[] {
  const all = registry.inside(volume.number)
  if (ino === ROOT_INO) return all
  const inside = new Set<number>()
  for (const record of all) {
    const isHere =
      record.parent_volume === volume.number ? isInside(volume, record.parent_ino, ino) : inside.has(record.parent_volume)
    if (isHere && core.volumes.get(record.number) !== undefined) inside.add(record.number)
  }
  return all.filter((record) => inside.has(record.number))
}

/** A merged state that must be there because the volume was asked for. */
export function stateOf(states: ReadonlyMap<number, MergedState>, number: number): MergedState {
  const state = states.get(number)
  if (state === undefined) throw new NexusError('NEXUS_BUSY', 'the workspace was replaced at this very moment: try again')
  return state
}

/**
 * The snapshot that an id, the start of one, or a name means in a workspace.
 * @throws NexusError NEXUS_NOT_FOUND, NEXUS_AMBIGUOUS
 */
export function findSnapshot({ registry }: Context, target: Target, wanted: string): SnapshotRecord {
  const all = registry.snapshotsOf(target.workspace.number)
  const exact = all.find((record) => record.id === wanted || record.name === wanted)
  if (exact !== undefined) return exact
  const fitting = wanted.startsWith(SNAPSHOT_ID_PREFIX) ? all.filter((record) => record.id.startsWith(wanted)) : []
  if (fitting.length === 1) return fitting[0] as SnapshotRecord
  if (fitting.length > 1) {
    throw new NexusError('NEXUS_AMBIGUOUS', `${wanted} fits ${fitting.length} snapshots of ${target.path}: give more of the id`)
  }
  throw new NexusError('NEXUS_NOT_FOUND', `${target.path} has no snapshot ${wanted}: see "nexusctl snapshot list ${target.path}"`)
}

/** Tells the kernel that the names under a workspace's `.snapshots` changed. */
export async function snapshotsChanged({ kernel }: Context, workspace: number, name: string): Promise<void> {
  const directory = nodeOf(workspace, SNAPSHOTS_INO)
  await Promise.all([kernel.invalidateEntry(directory, Buffer.from(name).toString('latin1')), kernel.invalidateNode(directory)])
}

/** An entry of a directory was made or removed by a command. */
export async function entryChanged(
  { core, kernel }: Context,
  directory: number,
  name: string,
  removedChild?: number,
): Promise<void> {
  if (removedChild !== undefined) core.buried(removedChild)
  const entry =
    removedChild === undefined ? kernel.invalidateEntry(directory, name) : kernel.deleteEntry(directory, removedChild, name)
  await Promise.all([entry, kernel.invalidateNode(directory)])
}
