/** Workspaces, snapshots and grants against each other and against the trees. */
import { TUPLE_KIND, workspacesOf } from '../acl/tuples.ts'
import { NexusError } from '../errors.ts'
import { S_IFDIR } from '../volume/attr.ts'
import type { Dirent } from '../volume/dirent.ts'
import { slotOf } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import {
  isInItself,
  type NestedRecord,
  type SnapshotRecord,
  WORKSPACE_PREFIX,
  type WorkspaceRecord,
} from '../workspaces/records.ts'
import { TENANTS_NAME, WORKSPACES_NAME } from '../workspaces/registry.ts'
import { type Capture, rootOfCaptured } from './capture.ts'
import { type Findings, pathIn } from './finding.ts'
import type { NestedEntry } from './inodes.ts'

/** By volume, what each live tree was found to have in it of other volumes. */
export type NestedEntries = ReadonlyMap<number, readonly NestedEntry[]>

export class CatalogCheck {
  readonly #capture: Capture
  readonly #volumes: Volumes
  readonly #findings: Findings

  constructor(capture: Capture, volumes: Volumes, findings: Findings) {
    this.#capture = capture
    this.#volumes = volumes
    this.#findings = findings
  }

  check(nested: NestedEntries): void {
    for (const { key, text } of this.#capture.unreadable) {
      this.#findings.note(key.startsWith(WORKSPACE_PREFIX) ? 'workspace' : 'snapshot', '/', text)
    }
    this.#entries(nested)
    for (const record of this.#capture.workspaces.values()) this.#workspace(record, nested)
    for (const number of this.#capture.volumes) {
      if (!this.#capture.workspaces.has(number)) this.#workspaceNote(number, `volume ${number} belongs to no workspace`)
    }
    this.#plainDirectories()
    this.#snapshots()
    this.#grants()
  }

  /** Each entry that leads to another volume leads to the workspace that is recorded to lie there. */
  #entries(nested: NestedEntries): void {
    for (const [volume, entries] of nested) {
      for (const { directory, slot, entry } of entries) {
        const record = this.#capture.workspaces.get(entry.volume)
        if (record !== undefined && isAt(record, volume, directory, entry)) continue
        const text =
          record === undefined
            ? `an entry of directory ${directory} leads to workspace ${entry.volume}, which is not there`
            : `an entry of directory ${directory} leads to workspace ${entry.volume}, which is recorded to lie elsewhere`
        this.#findings.note('entry', this.#path(volume), text, { ino: directory })
        this.#findings.fix(volume, { kind: 'unentry', directory, slot, index: entry.index })
      }
    }
  }

  #workspace(record: WorkspaceRecord, nested: NestedEntries): void {
    const { number, parent_volume, parent_ino, name } = record
    const state = this.#capture.live.get(number)
    if (!this.#capture.volumes.has(number)) this.#workspaceNote(number, `workspace ${number} has no volume`)
    if (state !== undefined && state.domain !== record.domain)
      this.#workspaceNote(number, `workspace ${number} is of domain ${record.domain}, and its content of ${state.domain}`)
    if (record.parent !== null && !this.#capture.snapshots.some(({ id }) => id === record.parent))
      this.#workspaceNote(number, `workspace ${number} descends from snapshot ${record.parent}, which is not there`)
    if (isInItself(number, (inner) => (inner === 0 ? undefined : this.#capture.workspaces.get(inner)?.parent_volume)))
      this.#workspaceNote(number, `workspace ${number} is recorded to lie in itself: no path leads to it`)
    // What its directory holds is not known where that could not be read.
    const around = nested.get(parent_volume)
    if (number === 0 || (around === undefined && this.#capture.volumes.has(parent_volume))) return
    const isThere = around?.some((one) => one.entry.volume === number && isAt(record, parent_volume, one.directory, one.entry))
    if (isThere === true) return
    this.#workspaceNote(number, `workspace ${number} has no entry where it is recorded to lie`)
    const entry = { index: 0, name, type: S_IFDIR, ino: ROOT_INO, volume: number }
    this.#findings.fix(parent_volume, { kind: 'entry', directory: parent_ino, slot: slotOf(name), entry })
  }

  /** Directories that an older version let be moved to where workspaces are. */
  #plainDirectories(): void {
    const state = this.#capture.live.get(0)
    if (state === undefined) return
    try {
      const view = this.#volumes.view(0, state.domain, state.root)
      for (const gate of [WORKSPACES_NAME, TENANTS_NAME]) {
        const directory = view.entry(ROOT_INO, gate)
        if (directory?.volume !== 0) continue
        for (const [, { name, type, volume, ino }] of view.entries(directory.ino)) {
          if (type !== S_IFDIR || volume !== 0) continue
          const text =
            'a directory among workspaces is none: only its permission bits say who may enter; move it elsewhere and back'
          this.#findings.note('workspace', '/', text, { ino, path: pathIn('/', [gate, name]) })
        }
      }
    } catch (error) {
      // A tree that cannot be read has been reported.
      if (!(error instanceof NexusError)) throw error
    }
  }

  #snapshots(): void {
    const views = new Set<number>(this.#capture.workspaces.keys())
    const names = new Set<string>()
    for (const record of this.#capture.snapshots) {
      const name = record.name === null ? undefined : `${record.workspace} ${record.name}`
      if (name !== undefined && names.has(name)) this.#snapshotNote(record, `has the name ${record.name} of another one`)
      if (name !== undefined) names.add(name)
      for (const view of [record.view, ...record.nested.map((inner) => inner.view)]) {
        if (views.has(view)) this.#snapshotNote(record, `is seen under the number ${view}, which is another's`)
        views.add(view)
      }
      if (record.parent !== null && !this.#capture.snapshots.some(({ id }) => id === record.parent))
        this.#snapshotNote(record, `descends from snapshot ${record.parent}, which is not there`)
      this.#content(record)
    }
  }

  #content(record: SnapshotRecord): void {
    try {
      const view = this.#volumes.view(record.workspace, record.domain, rootOfCaptured(record.root))
      const attr = view.attr(record.ino)
      if (attr === undefined || (attr.mode & S_IFDIR) !== S_IFDIR)
        this.#snapshotNote(record, `is of directory ${record.ino}, which it does not have`)
      for (const inner of record.nested) {
        const around = viewAround(record, inner, view, this.#volumes)
        const entry = around?.entry(inner.record.parent_ino, inner.record.name)
        if (entry?.volume !== inner.record.number)
          this.#snapshotNote(record, `has workspace ${inner.record.number}, and no entry for it`)
      }
    } catch (error) {
      // A tree that cannot be read has been reported.
      if (!(error instanceof NexusError)) throw error
    }
  }

  #grants(): void {
    const known = new Set<number>(this.#capture.workspaces.keys())
    for (const record of this.#capture.snapshots) {
      known.add(record.workspace)
      for (const inner of record.nested) known.add(inner.record.number)
    }
    for (const key of this.#capture.grants) {
      const missing = workspacesIn(key).find((number) => !known.has(number))
      if (missing === undefined) continue
      this.#findings.note('grant', '/', `a grant names workspace ${missing}, which is not there: ${key}`)
      this.#findings.strayGrants.push(key)
    }
  }

  #path(number: number): string {
    return this.#capture.paths.get(number) ?? `/#${number}`
  }

  #workspaceNote(number: number, text: string): void {
    this.#findings.note('workspace', this.#path(number), text)
  }

  #snapshotNote(record: SnapshotRecord, text: string): void {
    const more = { live: false, snapshots: [record.id] }
    this.#findings.note('snapshot', record.path, `snapshot ${record.name ?? record.id} ${text}`, more)
  }
}

/** The workspaces that the key of a grant in the catalog names: what it is on, and what its subject is a set of. */
function workspacesIn(key: string): number[] {
  const [object = '', , subject = ''] = key.slice(TUPLE_KIND.length).split(' ')
  return workspacesOf({ object, subject })
}

function isAt(record: WorkspaceRecord, volume: number, directory: number, { ino, name, type }: Dirent): boolean {
  const isPlace = record.parent_volume === volume && record.parent_ino === directory && record.name === name
  return isPlace && ino === ROOT_INO && type === S_IFDIR
}

/** The state that a nested workspace's entry is in. */
function viewAround(record: SnapshotRecord, inner: NestedRecord, whole: Volume, volumes: Volumes): Volume | undefined {
  const { parent_volume } = inner.record
  if (parent_volume === record.workspace) return whole
  const outer = record.nested.find((one) => one.record.number === parent_volume)
  return outer && volumes.view(parent_volume, outer.record.domain, rootOfCaptured(outer.root))
}
