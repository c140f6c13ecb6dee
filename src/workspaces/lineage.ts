/** Which snapshot descends from which, when some of them go. */
import type { Change } from '../volume/change.ts'
import type { Context } from './context.ts'
import type { SnapshotRecord, WorkspaceRecord } from './records.ts'

/**
 * Removes snapshots, and whatever else goes at the same instant.
 * @param gone workspaces that go with them
 * @returns the workspaces in which rights are others without them: the kernel has to be told
 */
export function removeSnapshots(
  { core, registry, access }: Context,
  removed: readonly SnapshotRecord[],
  gone: readonly WorkspaceRecord[],
  more: readonly Change[],
): Set<number> {
  const parents = new Map(removed.map((record) => [record.id, record.parent]))
  // What descends from a snapshot that goes descends from its parent.
  const inherited = <T extends { parent: string | null }>(one: T): T => ({ ...one, parent: ancestor(parents, one.parent) })
  // So do the workspaces that a snapshot would bring back with it.
  const heirs = new Set(removed.flatMap((record) => registry.heirsOf(record.id)).filter((record) => !parents.has(record.id)))
  const orphaned = [...heirs].map((record) => ({
    ...inherited(record),
    nested: record.nested.map((inner) => ({ ...inner, record: inherited(inner.record) })),
  }))
  const workspaces = [...registry.workspaces()].filter(
    (record) => isHeir(parents, record) && !gone.some((other) => other.number === record.number),
  )
  core.volumes.commit([
    ...removed.map((record) => registry.removeSnapshot(record.id)),
    ...orphaned.map((record) => registry.storeSnapshot(record)),
    ...workspaces.map((record) => registry.storeWorkspace(inherited(record))),
    ...more,
  ])
  for (const record of orphaned) registry.snapshotStored(record)
  for (const record of removed) registry.snapshotRemoved(record)
  const ends = removed.flatMap((record) => [record.workspace, ...record.nested.map((inner) => inner.record.number)])
  return access.ended([...gone.map((record) => record.number), ...ends])
}

function isHeir(parents: ReadonlyMap<string, string | null>, { parent }: { parent: string | null }): boolean {
  return parent !== null && parents.has(parent)
}

/** The nearest that stays. */
function ancestor(parents: ReadonlyMap<string, string | null>, id: string | null): string | null {
  let at = id
  while (at !== null && parents.has(at)) at = parents.get(at) ?? null
  return at
}
