/** The catalog's snapshots, parsed once, and found by what is asked for: id, workspace, name under `.snapshots`, parent. */
import type { SnapshotRecord } from './records.ts'
import { Tally } from './subjectlimits.ts'

interface OfWorkspace {
  /** by id; sorted when asked for, if one came out of order */
  byId: Map<string, SnapshotRecord>
  isSorted: boolean
  lastId: string
  /** ids by visible name: one, but for a name that looks like another's id */
  byName: Map<string, string[]>
}

const NONE: ReadonlySet<string> = new Set()

export class SnapshotIndex {
  readonly #all = new Map<string, SnapshotRecord>()
  readonly #workspaces = new Map<number, OfWorkspace>()
  /** ids of those that descend from a snapshot, or would bring back a workspace that does */
  readonly #heirs = new Map<string, Set<string>>()
  readonly #charged = new Tally()

  /** grows with every change */
  revision = 0

  get size(): number {
    return this.#all.size
  }

  all(): Iterable<SnapshotRecord> {
    return this.#all.values()
  }

  get(id: string): SnapshotRecord | undefined {
    return this.#all.get(id)
  }

  /** How many count for a subject. */
  chargedTo(subject: string): number {
    return this.#charged.of(subject)
  }

  countOf(workspace: number): number {
    return this.#workspaces.get(workspace)?.byId.size ?? 0
  }

  /** Snapshots of a workspace, oldest first. */
  of(workspace: number): Iterable<SnapshotRecord> {
    const found = this.#workspaces.get(workspace)
    if (found === undefined) return []
    if (!found.isSorted) {
      found.byId = new Map([...found.byId].sort(([a], [b]) => (a < b ? -1 : 1)))
      found.isSorted = true
    }
    return found.byId.values()
  }

  /** The oldest of that name under `.snapshots`. */
  named(workspace: number, name: string): SnapshotRecord | undefined {
    const ids = this.#workspaces.get(workspace)?.byName.get(name) ?? []
    return this.#all.get(ids.length > 1 ? (ids.toSorted()[0] as string) : (ids[0] ?? ''))
  }

  /** Whether somebody gave a snapshot of a workspace this name: one without a name is seen by its id. */
  isNameTaken(workspace: number, name: string): boolean {
    const ids = this.#workspaces.get(workspace)?.byName.get(latin1Of(name)) ?? []
    return ids.some((id) => this.#all.get(id)?.name === name)
  }

  /** Snapshots with something in them whose parent is a given one. */
  heirsOf(id: string): SnapshotRecord[] {
    return [...(this.#heirs.get(id) ?? NONE)].flatMap((heir) => this.#all.get(heir) ?? [])
  }

  /** Takes in a record, be it new or another version of one that is there. */
  put(record: SnapshotRecord): void {
    this.revision++
    const before = this.#all.get(record.id)
    if (before !== undefined) this.#unlink(before)
    this.#all.set(record.id, record)
    this.#charged.add(record.charged, 1)
    let found = this.#workspaces.get(record.workspace)
    if (found === undefined) {
      found = { byId: new Map(), isSorted: true, lastId: '', byName: new Map() }
      this.#workspaces.set(record.workspace, found)
    }
    if (record.id >= found.lastId) found.lastId = record.id
    // What is there already keeps its place.
    else if (!found.byId.has(record.id)) found.isSorted = false
    found.byId.set(record.id, record)
    const name = visibleName(record)
    found.byName.set(name, [...(found.byName.get(name) ?? []), record.id])
    for (const parent of parentsIn(record)) {
      const heirs = this.#heirs.get(parent)
      if (heirs === undefined) this.#heirs.set(parent, new Set([record.id]))
      else heirs.add(record.id)
    }
  }

  delete(id: string): void {
    const record = this.#all.get(id)
    if (record === undefined) return
    this.revision++
    this.#unlink(record)
    this.#all.delete(id)
    const found = this.#workspaces.get(record.workspace)
    found?.byId.delete(id)
    if (found?.byId.size === 0) this.#workspaces.delete(record.workspace)
  }

  #unlink(record: SnapshotRecord): void {
    this.#charged.add(record.charged, -1)
    for (const parent of parentsIn(record)) {
      const heirs = this.#heirs.get(parent)
      heirs?.delete(record.id)
      if (heirs?.size === 0) this.#heirs.delete(parent)
    }
    const byName = this.#workspaces.get(record.workspace)?.byName
    const name = visibleName(record)
    const ids = (byName?.get(name) ?? []).filter((id) => id !== record.id)
    if (ids.length === 0) byName?.delete(name)
    else byName?.set(name, ids)
  }
}

/** The name under `.snapshots`: its own, or the id when it has none. */
export function visibleName(record: SnapshotRecord): string {
  return record.name === null ? record.id : latin1Of(record.name)
}

/** Names in the filesystem are bytes, as latin1. */
function latin1Of(name: string): string {
  return Buffer.from(name).toString('latin1')
}

function parentsIn(record: SnapshotRecord): Set<string> {
  const parents = [record.parent, ...record.nested.map((inner) => inner.record.parent)]
  return new Set(parents.filter((parent) => parent !== null))
}
