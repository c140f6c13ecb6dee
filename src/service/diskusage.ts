/** `nexusctl df`: what the store holds, and which workspaces show how much. */
import type { DiskUsageInfo } from '../api/store.ts'
import type { WorkspaceInfo } from '../api/workspaces.ts'
import type { Engine } from '../engine/engine.ts'
import { type Context, targetAt } from '../workspaces/context.ts'
import { listWorkspaces } from '../workspaces/workspaces.ts'

/** @param path of a workspace or in one, with those inside; null: all */
export async function diskUsage(context: Context, engine: Engine, path: string | null): Promise<DiskUsageInfo> {
  const wanted = path === null ? undefined : numbersAt(context, path)
  const measured = await engine.usage()
  const workspaces = await listWorkspaces(context)
  const logical = workspaces.reduce((sum, { bytes }) => sum + bytes, 0)
  const { liveBytes, snapshotBytes, contentBytes, physicalBytes } = measured
  return {
    measured_at: measured.measuredAt.toISOString(),
    physical_bytes: physicalBytes,
    live_bytes: liveBytes,
    snapshot_bytes: snapshotBytes,
    reclaimable_bytes: Math.max(0, physicalBytes - liveBytes - snapshotBytes),
    logical_bytes: logical,
    deduplication: contentBytes === 0 ? 1 : logical / contentBytes,
    workspaces: workspaces.filter(({ number }) => wanted === undefined || wanted.has(number)).map(rowOf),
  }
}

/**
 * What a user is told of a workspace or of what lies in it: nothing of the store as a whole, in which all others are.
 * @param isShown which workspaces are
 */
export async function diskUsageWithin(
  context: Context,
  path: string,
  isShown: (number: number) => boolean,
): Promise<DiskUsageInfo> {
  const wanted = numbersAt(context, path)
  const workspaces = await listWorkspaces(context, (number) => wanted.has(number) && isShown(number))
  return {
    ...{ measured_at: new Date().toISOString(), physical_bytes: 0, live_bytes: 0, snapshot_bytes: 0, reclaimable_bytes: 0 },
    logical_bytes: workspaces.reduce((sum, { bytes }) => sum + bytes, 0),
    deduplication: 1,
    workspaces: workspaces.map(rowOf),
  }
}

function rowOf({ path, bytes, file_count, snapshot_count }: WorkspaceInfo): DiskUsageInfo['workspaces'][number] {
  return { path, bytes, file_count, snapshot_count }
}

function numbersAt(context: Context, path: string): Set<number> {
  const { workspace } = targetAt(context, path)
  return new Set([workspace.number, ...context.registry.inside(workspace.number).map(({ number }) => number)])
}
