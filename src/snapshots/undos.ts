/**
 * Each restore takes a snapshot that undoes it. The newest few of a workspace are kept, and older ones go when another
 * is taken, but for one without which other snapshots could not be used any more.
 */
import { type Context, snapshotsChanged } from '../workspaces/context.ts'
import { removeSnapshots } from '../workspaces/lineage.ts'
import type { SnapshotRecord, WorkspaceRecord } from '../workspaces/records.ts'
import { visibleName } from '../workspaces/snapshotindex.ts'

/** In a workspace's metadata: how many are kept of it. */
export const KEEP_UNDOS_KEY = 'keep-undos'
const KEEP_UNDOS = 10

/** Removes what is too old of a workspace's; the newest always stays. */
export async function pruneUndos(context: Context, number: number): Promise<void> {
  const { registry } = context
  const workspace = registry.workspace(number)
  const undos = registry.snapshotsOf(number).filter(({ automatic }) => automatic)
  const old = undos.slice(0, Math.max(0, undos.length - keptOf(workspace)))
  const removed = old.filter((record) => !isNeeded(context, record))
  if (removed.length === 0) return
  removeSnapshots(context, removed, [], [])
  await Promise.all(removed.map((record) => snapshotsChanged(context, number, visibleName(record))))
}

/** A number that is none is as good as none. */
function keptOf(workspace: WorkspaceRecord | undefined): number {
  const text = workspace?.metadata[KEEP_UNDOS_KEY]
  return text !== undefined && /^\d{1,6}$/.test(text) ? Math.max(1, Number(text)) : KEEP_UNDOS
}

/** Only it can bring back a workspace that has snapshots of its own. */
function isNeeded({ registry }: Context, record: SnapshotRecord): boolean {
  return record.nested.length > 0 && registry.lostWith([], [record.id]).length > 0
}
