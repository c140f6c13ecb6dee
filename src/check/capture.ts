/** What a check goes by: every state of the store and the catalog, all of one instant. */
import { TUPLE_KIND } from '../acl/tuples.ts'
import { type Address, fromHex } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import type { Root } from '../volume/live.ts'
import type { MergedState } from '../volume/table.ts'
import type { Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import {
  parseSnapshot,
  parseWorkspace,
  SNAPSHOT_PREFIX,
  type SnapshotRecord,
  WORKSPACE_PREFIX,
  type WorkspaceRecord,
} from '../workspaces/records.ts'
import { namesInPath, pathIn, type StateHolder } from './finding.ts'

/** One tree, and who has it. */
export interface CapturedState extends Root {
  holders: StateHolder[]
}

export interface Capture {
  workspaces: Map<number, WorkspaceRecord>
  snapshots: SnapshotRecord[]
  /** keys of grants in the catalog */
  grants: string[]
  /** numbers of all volumes; one that was replaced at that very moment is not in `live` */
  volumes: ReadonlySet<number>
  /** by volume */
  live: ReadonlyMap<number, MergedState>
  /** of the live workspaces */
  paths: ReadonlyMap<number, string>
  /** each different tree once */
  states: CapturedState[]
  /** entries of the catalog that cannot be read */
  unreadable: { key: string; text: string }[]
  /** the collector may take the states again */
  release(): void
}

/** Keeps states from the collector until they are released. */
export type Hold = (roots: readonly Root[]) => () => void

const ATTEMPTS = 5

export async function capture(volumes: Volumes, hold: Hold): Promise<Capture> {
  for (let attempt = 1; ; attempt++) {
    let documents: Documents | undefined
    let ghosts: Ghost[] = []
    let numbers: number[] = []
    const taken = await volumes.merged(
      () => {
        documents = readCatalog(volumes)
        ghosts = ghostsOf(volumes)
        numbers = volumes.numbers()
        return numbers
      },
      (live) => {
        if (documents === undefined) throw new NexusError('NEXUS_INTERNAL', 'nothing was merged')
        if (live.size < numbers.length && attempt < ATTEMPTS) return undefined
        const views = new Map([...live].map(([number, state]) => [number, viewOf(volumes, { number, ...state })]))
        const paths = workspacePaths(documents.workspaces, (number) => views.get(number))
        const states = statesOf(documents, live, ghosts, paths)
        return { ...documents, paths, volumes: new Set(numbers), live, states, release: hold(states) }
      },
    )
    if (taken !== undefined) return taken
  }
}

type Documents = Pick<Capture, 'workspaces' | 'snapshots' | 'grants' | 'unreadable'>

interface Ghost extends Root {
  volume: number
}

function ghostsOf(volumes: Volumes): Ghost[] {
  return volumes.numbers().flatMap((volume) => {
    const ghosts = volumes.get(volume)?.ghosts ?? []
    return ghosts.map(({ root, domain }) => ({ volume, root, domain }))
  })
}

function readCatalog(volumes: Volumes): Documents {
  const documents: Documents = { workspaces: new Map(), snapshots: [], grants: [], unreadable: [] }
  const read = (key: string, adopt: () => void): void => {
    try {
      adopt()
    } catch (error) {
      if (!(error instanceof NexusError)) throw error
      documents.unreadable.push({ key, text: error.message })
    }
  }
  for (const [key, text] of volumes.catalog.list(WORKSPACE_PREFIX)) {
    read(key, () => {
      const record = parseWorkspace(key, text)
      documents.workspaces.set(record.number, record)
    })
  }
  for (const [key, text] of volumes.catalog.list(SNAPSHOT_PREFIX)) {
    read(key, () => documents.snapshots.push(parseSnapshot(key, text)))
  }
  for (const [key] of volumes.catalog.list(TUPLE_KIND)) documents.grants.push(key)
  return documents
}

/** Where the live workspaces lie, as far as their records and trees can tell. */
function workspacePaths(
  workspaces: ReadonlyMap<number, WorkspaceRecord>,
  viewOf: (volume: number) => Volume | undefined,
): Map<number, string> {
  const paths = new Map([[0, '/']])
  const pathOf = (record: WorkspaceRecord, depth: number): string | undefined => {
    const known = paths.get(record.number)
    const outer = workspaces.get(record.parent_volume)
    // What lies in itself is found elsewhere.
    if (known !== undefined || outer === undefined || depth > workspaces.size) return known
    const around = pathOf(outer, depth + 1)
    const view = viewOf(record.parent_volume)
    const names = view && namesInPath(view, record.parent_ino)
    if (around === undefined || names === undefined) return undefined
    const path = pathIn(around, [...names, record.name])
    paths.set(record.number, path)
    return path
  }
  for (const record of workspaces.values()) pathOf(record, 0)
  return paths
}

function statesOf(
  { snapshots }: Documents,
  live: ReadonlyMap<number, MergedState>,
  ghosts: readonly Ghost[],
  paths: ReadonlyMap<number, string>,
): CapturedState[] {
  const states = new Map<string, CapturedState>()
  const holderOf = (root: Address | null, domain: number, volume: number, path: string): StateHolder => {
    const key = `${domain} ${root ?? ''}`
    const state = states.get(key) ?? { root, domain, holders: [] }
    states.set(key, state)
    const known = state.holders.find((holder) => holder.volume === volume)
    if (known !== undefined) return known
    const made: StateHolder = { volume, path: paths.get(volume) ?? path, live: false, snapshots: [] }
    state.holders.push(made)
    return made
  }
  for (const [number, { root, domain }] of live) holderOf(root, domain, number, `/#${number}`).live = true
  for (const record of snapshots) {
    holderOf(rootOfCaptured(record.root), record.domain, record.workspace, record.path).snapshots.push(record.id)
    for (const nested of record.nested) {
      const { number, domain, name } = nested.record
      holderOf(rootOfCaptured(nested.root), domain, number, pathIn(record.path, [name])).snapshots.push(record.id)
    }
  }
  for (const { root, domain, volume } of ghosts) holderOf(root, domain, volume, `/#${volume}`)
  return [...states.values()]
}

/** A tree to look for names in; one whose very root cannot be read has none. */
export function viewOf(volumes: Volumes, { number, domain, root }: Root & { number: number }): Volume {
  try {
    return volumes.view(number, domain, root)
  } catch (error) {
    if (!(error instanceof NexusError)) throw error
    return volumes.view(number, domain, null)
  }
}

export function rootOfCaptured(hex: string | null): Address | null {
  return hex === null ? null : fromHex(hex)
}
