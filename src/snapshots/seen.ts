/** Where a state of a directory is seen in the filesystem, so that a caller can read there what a diff is about. */
import { isDirectory } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Context, Target } from '../workspaces/context.ts'
import { isInside, namesIfKnown, pathOf, shownName } from '../workspaces/paths.ts'
import type { SnapshotRecord } from '../workspaces/records.ts'
import { visibleName } from '../workspaces/snapshotindex.ts'

/**
 * The path of a directory in a snapshot; null where it is not to be seen: it was not there then, the snapshot is of another
 * directory, or the workspace has an entry in place of its snapshots.
 * @param then the snapshotted workspace, as it was
 */
export function seenInSnapshot(
  { core, registry }: Context,
  { workspace: { number } }: Target,
  record: SnapshotRecord,
  then: Volume | undefined,
  directory: number,
): string | null {
  const live = core.volumes.get(number)
  const snapshotsName = registry.snapshotsNameOf(number)
  if (then === undefined || live === undefined || live.entry(ROOT_INO, snapshotsName) !== undefined) return null
  const [top, names] = [namesThere(then, record.ino), namesThere(then, directory)]
  if (top === undefined || names === undefined || !isInside(then, directory, record.ino)) return null
  const inside = [snapshotsName, visibleName(record), ...names.slice(top.length)].map(shownName)
  return [pathOf(core, registry, number, ROOT_INO).replace(/\/$/, ''), ...inside].join('/')
}

/** The path of a directory as it is now; null when it is gone. */
export function seenLive({ core, registry }: Context, { workspace: { number } }: Target, directory: number): string | null {
  const live = core.volumes.get(number)
  if (live === undefined || namesThere(live, directory) === undefined) return null
  return pathOf(core, registry, number, directory)
}

function namesThere(volume: Volume, directory: number): string[] | undefined {
  const attr = volume.attr(directory)
  return attr === undefined || !isDirectory(attr) || attr.nlink === 0 ? undefined : namesIfKnown(volume, directory)
}
