/**
 * Restoring a directory that is not there any more: it is made anew in the nearest directory on its path that is, with
 * those between that are missing, as the snapshot has them; what belongs in it is then restored as in any directory.
 */
import { NexusError } from '../errors.ts'
import { type Core, contentChanges } from '../vfs/core.ts'
import { entryChange, touched } from '../vfs/names.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { type Attr, altered, isDirectory, S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import { type Context, type Target, targetAt } from '../workspaces/context.ts'
import { isInside, namesInVolume, namesOf, shownName } from '../workspaces/paths.ts'
import type { SnapshotRecord } from '../workspaces/records.ts'
import { stateOfSnapshot } from './snapshots.ts'

/** What is to be restored: a target, or what is missing below one. */
export interface Goal {
  /** the directory that is restored, or else the nearest around it that is there */
  target: Target
  /** names from that down to what is restored, as bytes; none when it is there */
  missing: string[]
  /** as it was given */
  path: string
}

/**
 * What a path leads to, or would.
 * @throws NexusError NEXUS_EXISTS when something else is in the way, NEXUS_NOT_FOUND outside of workspaces
 */
export function goalAt(context: Context, path: string): Goal {
  const { core } = context
  const names = namesOf(path)
  let place: Place = core.place(nodeOf(0, ROOT_INO))
  let depth = 0
  for (const name of names) {
    const entry = place.volume.entry(place.ino, name)
    if (entry === undefined) break
    const next = core.target(place.volume, entry)
    const shown = path
      .split('/')
      .filter(Boolean)
      .slice(0, depth + 1)
      .join('/')
    if (!isDirectory(next.attr)) {
      throw new NexusError('NEXUS_EXISTS', `/${shown} is in the way and not a directory: move it, then restore again`)
    }
    place = next
    depth++
  }
  if (depth === names.length) return { target: targetAt(context, path), missing: [], path }
  const around = `/${path.split('/').filter(Boolean).slice(0, depth).join('/')}`
  if (context.registry.workspace(place.volume.number) === undefined || place.volume.number === 0) {
    throw new NexusError(
      'NEXUS_NOT_FOUND',
      `there is no ${path}, and it was in no workspace that is there: see "nexusctl workspace list"`,
    )
  }
  return { target: targetAt(context, around), missing: names.slice(depth), path }
}

/**
 * The directories of a snapshot that are missing, from the outermost to the one that is restored.
 * @throws NexusError NEXUS_NOT_FOUND when the snapshot has no such directory, NEXUS_USAGE when it is of another
 */
export function missingIn(context: Context, { target, missing, path }: Goal, record: SnapshotRecord): number[] {
  const { place, workspace } = target
  const then = stateOfSnapshot(context, record).get(workspace.number)
  const found = then && way(then, place, missing, record, path)
  const source = found?.at(-1)
  if (then === undefined || found === undefined || source === undefined) {
    throw new NexusError(
      'NEXUS_NOT_FOUND',
      `snapshot ${record.name ?? record.id} does not have ${path}: look into it under ${shownName(context.registry.snapshotsNameOf(workspace.number))}, or restore the whole workspace`,
    )
  }
  if (record.ino === ROOT_INO || isInside(then, source, record.ino)) return found
  throw new NexusError(
    'NEXUS_USAGE',
    `snapshot ${record.name ?? record.id} is of ${record.path} only: restore that, or a directory in it`,
  )
}

/** By the names that lead there from the directory around, as it was then; a directory's own snapshot knows its path. */
function way(
  then: Volume,
  around: Place,
  missing: readonly string[],
  record: SnapshotRecord,
  path: string,
): number[] | undefined {
  const isOwn = record.ino !== ROOT_INO && namesOf(record.path).join('/') === namesOf(path).join('/')
  const own = isOwn ? namesInVolume(then, record.ino) : undefined
  const from = own !== undefined && own.length >= missing.length ? ROOT_INO : around.ino
  const names = own !== undefined && own.length >= missing.length ? own : missing
  const found: number[] = []
  let at = from
  for (const name of names) {
    const entry = then.entry(at, name)
    const attr = entry === undefined || entry.volume !== 0 ? undefined : then.attr(entry.ino)
    if (entry === undefined || attr === undefined || !isDirectory(attr)) return undefined
    at = entry.ino
    found.push(at)
  }
  return found.slice(-missing.length)
}

export interface Made {
  changes: Change[]
  /** what is restored, before anything is in it */
  place: Place
  /** the next number that is free */
  inoNext: number
}

/** Makes the missing directories: the last of them is a place that has no attributes of its own yet. */
export function makeMissing(core: Core, { target: { place }, missing }: Goal, then: Volume, sources: readonly number[]): Made {
  const { volume } = place
  let inoNext = volume.super.inoNext
  const inoFor = (source: number): number => {
    const live = volume.attr(source)
    return live === undefined || live.nlink === 0 ? source : inoNext++
  }
  const changes: Change[] = [touched(core, place, 1)]
  let around = place.ino
  let attr: Attr = place.attr
  for (const [i, name] of missing.entries()) {
    const source = sources[i] as number
    const ino = inoFor(source)
    changes.push(entryChange({ volume, ino: around, attr }, name, { type: S_IFDIR, ino, volume: 0 }))
    attr = altered(then.attr(source) as Attr, { parent: around, name, nlink: i === missing.length - 1 ? 2 : 3 })
    if (i < missing.length - 1) {
      const base = { volume: volume.number, ino }
      changes.push(
        { kind: 'drop', ...base },
        { kind: 'orphan', ...base, present: false },
        { kind: 'attr', ...base, attr },
        ...contentChanges(then, source, volume.number, ino),
      )
    }
    around = ino
  }
  return { changes, place: { volume, ino: around, attr }, inoNext }
}
