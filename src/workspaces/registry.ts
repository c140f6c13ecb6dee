/**
 * Workspaces and snapshots by number, name and place, as the catalog has them. Reads only; what
 * changes them is committed through the log and read again from the catalog.
 */
import { LRUCache } from 'lru-cache'
import { fromHex } from '../cas/address.ts'
import { FS } from '../errors.ts'
import type { Registry } from '../vfs/core.ts'
import { SNAPSHOTS_NAME } from '../vfs/core.ts'
import type { GateName } from '../vfs/lasting.ts'
import { nodeOf, VOLUMES_MAX } from '../vfs/place.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Root } from '../volume/live.ts'
import type { Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import {
  parseSnapshot,
  SNAPSHOT_PREFIX,
  type SnapshotRecord,
  snapshotKey,
  type WorkspaceRecord,
  workspaceKey,
} from './records.ts'
import { SnapshotIndex, visibleName } from './snapshotindex.ts'
import { WorkspaceIndex } from './workspaceindex.ts'

/** Directories at the root whose subdirectories are workspaces. */
export const WORKSPACES_NAME = 'workspace'
export const TENANTS_NAME = 'tenants'

/** Snapshots that somebody looks into are few, but `find` looks into each of them once. */
const VIEWS_MAX = 1000

interface View {
  volume: Volume
  /** workspace number → view number, for what lay inside */
  nested: Map<number, number>
}

export class WorkspaceRegistry implements Registry {
  readonly #volumes: Volumes
  readonly #now: () => Date
  /** made from the snapshots when they are asked for */
  readonly #views = new LRUCache<number, View>({ max: VIEWS_MAX })
  readonly #snapshots = new SnapshotIndex()
  readonly #workspaces: WorkspaceIndex
  readonly #viewOwners = new Map<number, string>()
  /** false: since the start no workspace has had a quota */
  mayHaveQuotas = false
  #nextNumber = 1
  readonly #taken = new Set<number>([0])

  constructor(volumes: Volumes, now: () => Date) {
    this.#volumes = volumes
    this.#now = now
    this.#workspaces = new WorkspaceIndex(volumes.catalog)
    this.neverGive(volumes.numbers())
    for (const record of this.workspaces()) {
      this.neverGive([record.number, record.domain])
      if (record.quota !== undefined) this.mayHaveQuotas = true
    }
    for (const [key, text] of volumes.catalog.list(SNAPSHOT_PREFIX)) this.#adopt(parseSnapshot(key, text))
  }

  workspace(number: number): WorkspaceRecord | undefined {
    return this.#workspaces.get(workspaceKey(number))
  }

  workspaces(): Iterable<WorkspaceRecord> {
    return this.#workspaces.all()
  }

  get workspaceCount(): number {
    return this.#workspaces.size
  }

  /** The workspaces that lie in one, and in no other between. */
  directlyIn(number: number): Iterable<WorkspaceRecord> {
    return this.#workspaces.directlyIn(number)
  }

  /** The workspaces that lie somewhere inside one, outer before inner. */
  inside(number: number): WorkspaceRecord[] {
    const directly = (outer: number): [number, WorkspaceRecord][] =>
      [...this.#workspaces.directlyIn(outer)].map((record) => [record.number, record])
    const found = new Map(directly(number))
    for (const outer of found.keys()) {
      // Records that lie in each other, which only damage makes, would lead around for ever.
      for (const [inner, record] of directly(outer)) if (inner !== number) found.set(inner, record)
    }
    return [...found.values()]
  }

  /** Snapshots whose workspace may be any, in no order. */
  snapshots(): SnapshotRecord[] {
    return [...this.#snapshots.all()]
  }

  /** Snapshots of a workspace, oldest first. */
  snapshotsOf(number: number): SnapshotRecord[] {
    return [...this.#snapshots.of(number)]
  }

  /** How many that are. */
  snapshotCountOf(number: number): number {
    return this.#snapshots.countOf(number)
  }

  /** How many workspaces and snapshots count for a subject. */
  chargedTo(subject: string): { workspaces: number; snapshots: number } {
    return { workspaces: this.#workspaces.chargedTo(subject), snapshots: this.#snapshots.chargedTo(subject) }
  }

  /** Snapshots that descend from a given one, or would bring back a workspace that does. */
  heirsOf(id: string): SnapshotRecord[] {
    return this.#snapshots.heirsOf(id)
  }

  /** Whether a snapshot of a workspace was given this name. */
  isNameTaken(number: number, name: string): boolean {
    return this.#snapshots.isNameTaken(number, name)
  }

  /**
   * The snapshots that nobody could use any more without these workspaces or snapshots: their own, and those of
   * workspaces which only such snapshots could bring back.
   */
  lostWith(workspaces: readonly number[], snapshots: readonly string[] = []): SnapshotRecord[] {
    const all = this.snapshots().filter((record) => !snapshots.includes(record.id))
    const reached = new Set(
      [...this.workspaces()].map((record) => record.number).filter((number) => !workspaces.includes(number)),
    )
    for (let before = -1; before !== reached.size; ) {
      before = reached.size
      for (const record of all) {
        if (!reached.has(record.workspace)) continue
        for (const { record: inner } of record.nested) if (!workspaces.includes(inner.number)) reached.add(inner.number)
      }
    }
    return all.filter((record) => !reached.has(record.workspace))
  }

  get snapshotCount(): number {
    return this.#snapshots.size
  }

  snapshot(id: string): SnapshotRecord | undefined {
    return this.#snapshots.get(id)
  }

  /** The states that snapshots keep. */
  *roots(): Generator<Root> {
    for (const record of this.#snapshots.all()) {
      yield { root: record.root === null ? null : fromHex(record.root), domain: record.domain }
      for (const { root, record: inner } of record.nested)
        yield { root: root === null ? null : fromHex(root), domain: inner.domain }
    }
  }

  /**
   * A number that no workspace or view has had since the mount, and that nothing stored refers to: no record, no grant,
   * and no domain, or a new tenant would share chunks with the fork of one that is gone. @throws ENOSPC when there is none */
  allocateNumber(): number {
    while (this.#taken.has(this.#nextNumber)) this.#nextNumber++
    if (this.#nextNumber >= VOLUMES_MAX) throw FS.ENOSPC
    this.#taken.add(this.#nextNumber)
    return this.#nextNumber
  }

  /** Numbers that something still refers to, whatever has become of the workspaces or views: the kernel, or what is stored. */
  neverGive(numbers: Iterable<number>): void {
    for (const number of numbers) this.#taken.add(number)
  }

  /** The change that stores a snapshot; call `snapshotStored` when it is committed. */
  storeSnapshot(record: SnapshotRecord): Change {
    return { kind: 'catalog', key: snapshotKey(record.id), value: JSON.stringify(record) }
  }

  snapshotStored(record: SnapshotRecord): void {
    this.#adopt(record)
  }

  /** The change that removes a snapshot; call `snapshotRemoved` when it is committed. */
  removeSnapshot(id: string): Change {
    return { kind: 'catalog', key: snapshotKey(id), value: null }
  }

  snapshotRemoved(record: SnapshotRecord): void {
    this.#snapshots.delete(record.id)
    this.#volumes.addReleased(record.bytes)
    for (const view of viewsOf(record)) {
      this.#viewOwners.delete(view)
      this.#views.delete(view)
    }
  }

  storeWorkspace(record: WorkspaceRecord): Change {
    if (record.quota !== undefined) this.mayHaveQuotas = true
    return { kind: 'catalog', key: workspaceKey(record.number), value: JSON.stringify(record) }
  }

  newRecord(volume: number, directory: number, name: string, number: number): WorkspaceRecord {
    return {
      number,
      parent_volume: volume,
      parent_ino: directory,
      name,
      domain: this.#domainIn(volume, directory, number),
      created_at: this.#now().toISOString(),
      metadata: {},
      parent: null,
    }
  }

  /** The domain of a workspace made in a directory: a tenant's is its own, others share their parent's. */
  #domainIn(volume: number, directory: number, number: number): number {
    if (volume === 0 && directory === this.#topLevel(TENANTS_NAME)) return number
    return this.#volumes.get(volume)?.domain ?? 0
  }

  // What the filesystem asks.

  view(number: number): Volume | undefined {
    return this.#view(number)?.volume
  }

  snapshotNode(volume: number, name: string): number | undefined {
    const record = this.#snapshots.named(volume, name)
    return record === undefined ? undefined : nodeOf(record.view, record.ino)
  }

  *snapshotNames(volume: number): Generator<{ name: string; node: number }> {
    for (const record of this.#snapshots.of(volume)) yield { name: visibleName(record), node: nodeOf(record.view, record.ino) }
  }

  snapshotsNameOf(volume: number): string {
    return this.workspace(volume)?.snapshot_dir ?? SNAPSHOTS_NAME
  }

  get snapshotsRevision(): number {
    return this.#snapshots.revision
  }

  nested(volume: number, nested: number): number {
    return this.#view(volume)?.nested.get(nested) ?? nested
  }

  makesWorkspace(volume: number, directory: number): boolean {
    return volume === 0 && (directory === this.#topLevel(WORKSPACES_NAME) || directory === this.#topLevel(TENANTS_NAME))
  }

  makesWorkspaces(volume: number, directory: number, name: string): boolean {
    return volume === 0 && directory === ROOT_INO && (name === WORKSPACES_NAME || name === TENANTS_NAME)
  }

  addWorkspace(volume: number, directory: number, name: string, charged?: string): { number: number; changes: Change[] } {
    const number = this.allocateNumber()
    const record = { ...this.newRecord(volume, directory, name, number), ...this.chargeFor(volume, directory, charged) }
    return {
      number,
      changes: [this.storeWorkspace(record), { kind: 'root', volume: number, root: null, domain: record.domain, inoNext: 0 }],
    }
  }

  removeWorkspace(number: number): Change[] {
    // Losing a workspace's history to a stray rmdir would be a poor joke: `workspace delete` does that.
    if (this.#snapshots.countOf(number) > 0) throw FS.EBUSY
    return [
      { kind: 'catalog', key: workspaceKey(number), value: null },
      { kind: 'unvolume', volume: number },
    ]
  }

  moveWorkspace(number: number, directory: number, name: string): Change[] {
    const record = this.workspace(number)
    return record === undefined ? [] : [this.storeWorkspace({ ...record, parent_ino: directory, name })]
  }

  parentOf(volume: number): number | undefined {
    const live = this.workspace(volume)
    if (live !== undefined) return volume === 0 ? undefined : nodeOf(live.parent_volume, live.parent_ino)
    const owner = this.#ownerOf(volume)
    if (owner === undefined) return undefined
    const nested = owner.nested.find((one) => one.view === volume)
    if (nested === undefined) return nodeOf(owner.workspace, ROOT_INO)
    const outer = nested.record.parent_volume
    const outerView = outer === owner.workspace ? owner.view : owner.nested.find((one) => one.record.number === outer)?.view
    return nodeOf(outerView ?? owner.view, nested.record.parent_ino)
  }

  gateNameOf(volume: number): GateName | undefined {
    const record = this.workspace(volume)
    if (record === undefined || volume === 0 || record.parent_volume !== 0) return undefined
    return { directory: record.parent_ino, name: record.name }
  }

  /** The workspace that a snapshot's view shows; any other number is itself. */
  liveOf(number: number): number {
    const owner = this.#ownerOf(number)
    if (owner === undefined) return number
    return owner.nested.find((one) => one.view === number)?.record.number ?? owner.workspace
  }

  /** Views of snapshots that show these workspaces. */
  viewsOf(numbers: ReadonlySet<number>): number[] {
    return [...this.#viewOwners.keys()].filter((view) => numbers.has(this.liveOf(view)))
  }

  /** Whether a number is a workspace's, or one's that a snapshot can bring back. */
  isPresent(number: number): boolean {
    if (this.workspace(number) !== undefined) return true
    return this.snapshots().some(
      ({ workspace, nested }) => workspace === number || nested.some(({ record }) => record.number === number),
    )
  }

  isTenant(number: number): boolean {
    const record = this.workspace(number)
    return record !== undefined && this.isTenantsDirectory(record.parent_volume, record.parent_ino)
  }

  /** Whether what lies in a directory lies in a tenant, or is one. */
  isWithinTenants(volume: number, directory: number): boolean {
    let [outer, at] = [volume, directory]
    // Records that lie in each other, which only damage makes, would lead around for ever.
    for (let depth = 0; outer !== 0 && depth <= this.workspaceCount; depth++) {
      const record = this.workspace(outer)
      if (record === undefined) return false
      outer = record.parent_volume
      at = record.parent_ino
    }
    return this.isTenantsDirectory(outer, at)
  }

  /** For the record of a workspace in a directory, whom it counts for. Tenants are root's, and have quotas. */
  chargeFor(volume: number, directory: number, subject: string | undefined): Pick<WorkspaceRecord, 'charged'> {
    return subject === undefined || this.isWithinTenants(volume, directory) ? {} : { charged: subject }
  }

  /** Whether the workspaces in a directory are tenants. */
  isTenantsDirectory(volume: number, directory: number): boolean {
    return volume === 0 && directory === this.#topLevel(TENANTS_NAME)
  }

  #topLevel(name: string): number | undefined {
    return this.#volumes.get(0)?.entry(ROOT_INO, name)?.ino
  }

  #adopt(record: SnapshotRecord): void {
    this.#snapshots.put(record)
    this.neverGive([record.workspace, record.domain])
    for (const view of viewsOf(record)) {
      this.#viewOwners.set(view, record.id)
      this.#taken.add(view)
    }
    for (const { record: inner } of record.nested) this.neverGive([inner.number, inner.domain])
  }

  #ownerOf(view: number): SnapshotRecord | undefined {
    const id = this.#viewOwners.get(view)
    return id === undefined ? undefined : this.#snapshots.get(id)
  }

  #view(number: number): View | undefined {
    const made = this.#views.get(number)
    if (made !== undefined) return made
    const record = this.#ownerOf(number)
    if (record === undefined) return undefined
    const inner = record.nested.find((one) => one.view === number)
    const root = inner === undefined ? record.root : inner.root
    const domain = inner === undefined ? record.domain : inner.record.domain
    const view = {
      volume: this.#volumes.view(number, domain, root === null ? null : fromHex(root)),
      nested: new Map(record.nested.map((one) => [one.record.number, one.view])),
    }
    this.#views.set(number, view)
    return view
  }
}

function viewsOf(record: SnapshotRecord): number[] {
  return [record.view, ...record.nested.map((nested) => nested.view)]
}
