/** Forking: a new workspace whose root is the same; what either writes later is its own. */
import { type StoredTuple, storeTuple } from '../acl/tuples.ts'
import type { ForkInfo } from '../api/workspaces.ts'
import { NexusError } from '../errors.ts'
import { entryChange, touched } from '../vfs/names.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { slotOf } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import {
  type Context,
  entryChanged,
  findSnapshot,
  nestedIn,
  type Permit,
  targetAt,
  targetNow,
  volumesOf,
} from '../workspaces/context.ts'
import { ownerTuple } from '../workspaces/grants.ts'
import { demandRoom, takenMore } from '../workspaces/limits.ts'
import { parentAt } from '../workspaces/paths.ts'
import type { WorkspaceRecord } from '../workspaces/records.ts'
import { wayChanged } from '../workspaces/rights.ts'
import { demandWorkspaces, freeParent } from '../workspaces/workspaces.ts'
import { liveState, type State, stateOfSnapshot } from './snapshots.ts'

export interface ForkOptions {
  snapshot?: string
  /** give it the grants of its source; else it belongs to its owner alone */
  withGrants?: boolean
  /** subject that owns the fork; nobody but the administrator when not given */
  owner?: string
  permit?: Permit
  /** whether it is refused when its owner has as many workspaces as a subject may have; only root is not */
  isLimited?: boolean
}

export async function fork(context: Context, path: string, newPath: string, options: ForkOptions): Promise<ForkInfo> {
  const start = performance.now()
  const target = targetAt(context, path)
  if (target.place.ino !== ROOT_INO) {
    throw new NexusError(
      'NEXUS_USAGE',
      `${path} is a plain directory: only whole workspaces are forked; copy it with cp -a, which copies no data`,
    )
  }
  const snapshot = options.snapshot === undefined ? undefined : findSnapshot(context, target, options.snapshot)
  const wanted = freeParent(context, newPath).parent
  const finish = (state: State, records: readonly WorkspaceRecord[]): void => {
    const { workspace } = targetNow(context, target, options.permit)
    const { parent, name } = freeParent(context, newPath)
    // Whoever asked was allowed to make it in that very directory.
    if (parent.volume !== wanted.volume || parent.ino !== wanted.ino) {
      throw new NexusError('NEXUS_BUSY', `the directory of ${newPath} was replaced at this very moment: try again`)
    }
    const source = { ...workspace, parent: snapshot?.id ?? workspace.parent }
    const charge = context.registry.chargeFor(parent.volume.number, parent.ino, options.owner)
    const changes = forkChanges(context, state, source, records, { volume: parent.volume.number, ino: parent.ino, name, charge })
    if (options.isLimited === true) demandWorkspaces(context, charge.charged, changes.numbers.length)
    demandRoom(context, parent.volume.number, () => takenMore(context, changes.changes), newPath)
    const tuples = grantsOfFork(context, changes, parent, options)
    context.core.volumes.commit([
      ...changes.changes,
      ...tuples.map(storeTuple),
      entryChange(parent, name, { type: S_IFDIR, ino: ROOT_INO, volume: changes.number }),
      touched(context.core, parent, 1),
    ])
    context.access.written(tuples)
    dropOrphans(context, changes.numbers)
  }
  if (snapshot === undefined) {
    await context.kernel.writeBack(volumesOf(context, target))
    await context.core.volumes.merged(
      () => volumesOf(context, target),
      (states) => finish(liveState(context, states), nestedIn(context, target.place)),
    )
  } else {
    finish(
      stateOfSnapshot(context, snapshot),
      snapshot.nested.map((one) => one.record),
    )
  }
  const { parent, name } = parentAt(context.core, newPath)
  await entryChanged(context, nodeOf(parent.volume.number, parent.ino), name)
  await wayChanged(context, parent.volume.number, parent.ino)
  return { path: newPath, source: path, snapshot: snapshot?.id ?? null, elapsed_ms: performance.now() - start }
}

interface ForkChanges {
  changes: Change[]
  /** of the fork itself */
  number: number
  /** of the fork and of what lies inside it */
  numbers: number[]
  /** the same by the number of what each was forked from */
  copies: Map<number, number>
}

function forkChanges(
  context: Context,
  state: State,
  source: WorkspaceRecord,
  nested: readonly WorkspaceRecord[],
  place: { volume: number; ino: number; name: string; charge: Pick<WorkspaceRecord, 'charged'> },
): ForkChanges {
  const { registry } = context
  const created_at = context.now().toISOString()
  const inside = nested.filter((record) => state.has(record.number))
  const numbers = new Map([source, ...inside].map((record) => [record.number, registry.allocateNumber()]))
  const changes: Change[] = []
  for (const record of [source, ...inside]) {
    const number = numbers.get(record.number) as number
    const volume = state.get(record.number) as Volume
    changes.push({ kind: 'root', volume: number, root: volume.root, domain: volume.domain, inoNext: volume.super.inoNext })
    const isTop = record === source
    changes.push(
      registry.storeWorkspace({
        ...record,
        quota: undefined,
        charged: undefined,
        ...place.charge,
        number,
        created_at,
        parent_volume: isTop ? place.volume : (numbers.get(record.parent_volume) ?? place.volume),
        parent_ino: isTop ? place.ino : record.parent_ino,
        name: isTop ? place.name : record.name,
      }),
    )
  }
  for (const record of inside) changes.push(...repointed(state, numbers, record))
  return { changes, number: numbers.get(source.number) as number, numbers: [...numbers.values()], copies: numbers }
}

/** Grants are no part of what is forked; inodes have the same numbers in a fork, so those asked for go along as they are. */
function grantsOfFork(
  context: Context,
  { number, copies, changes }: ForkChanges,
  parent: Place,
  options: ForkOptions,
): StoredTuple[] {
  const { access, registry } = context
  const type = registry.isTenantsDirectory(parent.volume.number, parent.ino) ? 'tenant' : 'workspace'
  const tuples = options.owner === undefined ? [] : [ownerTuple(context, number, type, options.owner)]
  if (options.withGrants !== true) return tuples
  for (const [from, to] of copies) {
    // A snapshot knows nothing of what was made later, and the fork will give those numbers to something else.
    const root = changes.find((change) => change.kind === 'root' && change.volume === to)
    const inoNext = root?.kind === 'root' ? root.inoNext : 0
    for (const ino of access.tuples.inodesIn(from).filter((one) => one < inoNext)) {
      for (const tuple of access.tuples.on(`${from}/${ino}`)) tuples.push({ ...tuple, object: `${to}/${ino}` })
    }
  }
  return tuples
}

/** In the copy of a state, the entry of a workspace that lies inside leads to the copy of that. */
export function repointed(state: State, numbers: ReadonlyMap<number, number>, record: WorkspaceRecord): Change[] {
  const entry = state.get(record.parent_volume)?.entry(record.parent_ino, record.name)
  const outer = numbers.get(record.parent_volume)
  const number = numbers.get(record.number)
  if (entry === undefined || outer === undefined || number === undefined) return []
  return [
    { kind: 'entry', volume: outer, ino: record.parent_ino, slot: slotOf(record.name), entry: { ...entry, volume: number } },
  ]
}

/** What was open without a name in the source is not open in the fork. */
function dropOrphans({ core }: Context, numbers: readonly number[]): void {
  for (const number of numbers) core.volumes.dropOrphans(number)
}
