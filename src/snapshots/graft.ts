/**
 * Restoring one directory of a workspace: its subtree is rebuilt from the snapshot, inode by inode,
 * and nothing outside it changes. An inode that also has a name outside keeps its content there;
 * inside, a new one takes its place.
 */
import { NexusError } from '../errors.ts'
import { contentChanges } from '../vfs/core.ts'
import type { Place } from '../vfs/place.ts'
import { type Attr, altered, isDirectory } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type Dirent, freeIndex, slotOf } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Context, Target } from '../workspaces/context.ts'
import { isInside, namesInVolume } from '../workspaces/paths.ts'
import type { SnapshotRecord } from '../workspaces/records.ts'
import { isDifferent } from './caches.ts'
import { type State, stateOfSnapshot } from './snapshots.ts'

/** A directory with everything below it: for each inode, how many names it has inside. */
interface Subtree {
  names: Map<number, number>
  /** one of those names of each */
  places: Map<number, { parent: number; name: string }>
  directories: Map<number, Dirent[]>
}

/** What a directory is restored from, and what the restore gives new numbers. */
export interface Origin {
  /** the directory in the snapshot */
  source: number
  /** workspaces that lay inside and now lie elsewhere → the number that takes their place */
  volumes: ReadonlyMap<number, number>
  /** the next number that is free, where some were given already */
  inoNext?: number | undefined
}

/**
 * The directory that a snapshot has for the target.
 * @throws NexusError when it has none, or it is a snapshot of another directory
 */
export function originOf(context: Context, target: Target, record: SnapshotRecord): number {
  const { place, workspace } = target
  const then = stateOfSnapshot(context, record).get(workspace.number)
  const source = then && sourceDirectory(then, place.volume, record, place)
  if (then === undefined || source === undefined) {
    throw new NexusError(
      'NEXUS_NOT_FOUND',
      `snapshot ${record.name ?? record.id} does not have ${target.path}: restore the whole workspace, or fork it and look`,
    )
  }
  // What is inside the workspaces that lay elsewhere is not in this snapshot.
  if (record.ino === ROOT_INO || isInside(then, source, record.ino)) return source
  throw new NexusError(
    'NEXUS_USAGE',
    `snapshot ${record.name ?? record.id} is of ${record.path} only: restore that, or a directory in it`,
  )
}

/** @returns the changes, and the inode that each directory of the snapshot is restored as */
export function graft(
  context: Context,
  target: Target,
  record: SnapshotRecord,
  live: State,
  origin: Origin,
): { changes: Change[]; inos: ReadonlyMap<number, number> } {
  const { place, workspace } = target
  const then = stateOfSnapshot(context, record).get(workspace.number)
  const now = live.get(workspace.number)
  if (then === undefined || now === undefined) throw new NexusError('NEXUS_INTERNAL', 'a restore has lost its workspace')
  const made = new Graft(place, then, now, origin)
  return { changes: made.changes(), inos: made.inos }
}

/** The directory in the snapshot: the same inode, or else the same path. */
function sourceDirectory(then: Volume, now: Volume, record: SnapshotRecord, place: Place): number | undefined {
  if (record.ino === place.ino) return place.ino
  const same = then.attr(place.ino)
  if (same !== undefined && isDirectory(same) && same.nlink > 0) return place.ino
  const names = namesInVolume(now, place.ino)
  if (names === undefined) return undefined
  let at = ROOT_INO
  for (const name of names) {
    const entry = then.entry(at, name)
    if (entry === undefined || entry.volume !== 0) return undefined
    at = entry.ino
  }
  const attr = then.attr(at)
  return attr !== undefined && isDirectory(attr) ? at : undefined
}

class Graft {
  readonly #place: Place
  readonly #then: Volume
  readonly #now: Volume
  readonly #source: number
  readonly #volumes: ReadonlyMap<number, number>
  readonly #old: Subtree
  readonly #current: Subtree
  /** inode in the snapshot → inode from now on */
  readonly inos = new Map<number, number>()
  #inoNext: number

  constructor(place: Place, then: Volume, now: Volume, { source, volumes, inoNext }: Origin) {
    this.#place = place
    this.#then = then
    this.#now = now
    this.#source = source
    this.#volumes = volumes
    this.#old = subtree(then, source)
    this.#current = subtree(now, place.ino)
    this.#inoNext = inoNext ?? place.volume.super.inoNext
  }

  changes(): Change[] {
    for (const ino of this.#old.names.keys()) this.inos.set(ino, this.#inoFor(ino))
    const changes: Change[] = []
    for (const [ino, names] of this.#current.names) changes.push(...this.#leave(ino, names))
    for (const [ino, names] of this.#old.names) changes.push(...this.#restore(ino, names))
    return changes
  }

  /** The inode keeps its number unless that has a name outside the directory now. */
  #inoFor(ino: number): number {
    if (ino === this.#source) return this.#place.ino
    const attr = this.#now.attr(ino)
    if (attr === undefined || attr.nlink === 0 || this.#isAllInside(ino, attr)) return ino
    return this.#inoNext++
  }

  #isAllInside(ino: number, attr: Attr): boolean {
    const names = this.#current.names.get(ino)
    return names !== undefined && (isDirectory(attr) || names >= attr.nlink)
  }

  /** What is here now and does not stay. */
  #leave(ino: number, names: number): Change[] {
    if (ino === this.#place.ino || this.inos.get(ino) === ino) return []
    const attr = this.#now.attr(ino)
    if (attr === undefined) return []
    const base = { volume: this.#place.volume.number, ino }
    if (this.#isAllInside(ino, attr)) return [{ kind: 'drop', ...base }]
    // The name that is recorded may be one of those that go; which others there are is not known.
    const place = this.#current.directories.has(attr.parent) ? { parent: 0, name: '' } : {}
    return [{ kind: 'attr', ...base, attr: altered(attr, { nlink: attr.nlink - names, ...place }) }]
  }

  #restore(old: number, names: number): Change[] {
    const ino = this.inos.get(old) as number
    const attr = this.#then.attr(old)
    if (attr === undefined) return []
    if (old === ino && this.#isUnchanged(ino) && names === this.#current.names.get(ino)) return []
    const volume = this.#place.volume.number
    const changes: Change[] = [
      { kind: 'drop', volume, ino },
      { kind: 'orphan', volume, ino, present: false },
      { kind: 'attr', volume, ino, attr: this.#attrOf(old, attr, names) },
      ...contentChanges(this.#then, old, volume, ino),
    ]
    const buckets = new Map<number, Dirent[]>()
    for (const entry of this.#old.directories.get(old) ?? []) {
      const slot = slotOf(entry.name)
      const bucket = buckets.get(slot) ?? []
      buckets.set(slot, bucket)
      const moved = {
        ...entry,
        index: freeIndex(bucket),
        ino: entry.volume === 0 ? (this.inos.get(entry.ino) as number) : entry.ino,
        volume: this.#volumes.get(entry.volume) ?? entry.volume,
      }
      bucket.push(moved)
      changes.push({ kind: 'entry', volume, ino, slot, entry: moved })
    }
    return changes
  }

  /** Same content, same place, and every child and the directory that it lies in keep their numbers. */
  #isUnchanged(ino: number): boolean {
    if (isDifferent(this.#then, this.#now, ino)) return false
    const parent = this.#then.attr(ino)?.parent ?? 0
    if (ino !== this.#source && (this.inos.get(parent) ?? parent) !== parent) return false
    return (this.#old.directories.get(ino) ?? []).every((entry) =>
      entry.volume === 0 ? this.inos.get(entry.ino) === entry.ino : !this.#volumes.has(entry.volume),
    )
  }

  #attrOf(old: number, attr: Attr, names: number): Attr {
    if (old === this.#source) {
      const { parent, name } = this.#place.attr
      return altered(attr, { parent, name })
    }
    // Of several names the one recorded may lie outside of what is restored.
    const place = this.#old.directories.has(attr.parent) ? attr : this.#old.places.get(old)
    const parent = this.inos.get(place?.parent ?? 0) ?? 0
    const name = parent === 0 ? '' : (place?.name ?? '')
    return altered(attr, { parent, name, nlink: isDirectory(attr) ? attr.nlink : names })
  }
}

function subtree(volume: Volume, directory: number): Subtree {
  const found: Subtree = { names: new Map([[directory, 1]]), places: new Map(), directories: new Map() }
  const waiting = [directory]
  for (let i = 0; i < waiting.length; i++) {
    const ino = waiting[i] as number
    const entries = [...volume.entries(ino)].map(([, entry]) => entry)
    found.directories.set(ino, entries)
    for (const entry of entries) {
      if (entry.volume !== 0) continue
      const names = found.names.get(entry.ino) ?? 0
      found.names.set(entry.ino, names + 1)
      found.places.set(entry.ino, { parent: ino, name: entry.name })
      if (names === 0 && entry.type === 0o040000) waiting.push(entry.ino)
    }
  }
  return found
}
