/** Workspaces: making, listing, renaming and deleting them by command. */
import { type StoredTuple, storeTuple } from '../acl/tuples.ts'
import type { Metadata, WorkspaceInfo, WorkspaceWish } from '../api/workspaces.ts'
import { FsError, NexusError } from '../errors.ts'
import { Pace } from '../pace.ts'
import { SNAPSHOTS_NAME } from '../vfs/core.ts'
import { checkFree, existing, makeWorkspace, removeEntry, touched } from '../vfs/names.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { rename } from '../vfs/rename.ts'
import { S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { type Context, entryChanged, type Target, targetAt } from './context.ts'
import { ownerTuple } from './grants.ts'
import { demandRoom, quotaFor } from './limits.ts'
import { removeSnapshots } from './lineage.ts'
import { parentAt, pathOf, shownName } from './paths.ts'
import { type WorkspaceRecord, workspaceKey } from './records.ts'
import { rightsChanged, wayChanged } from './rights.ts'
import { demandWithin } from './subjectlimits.ts'

const RENAME_NOREPLACE = 1
const UMASK = 0o022

export interface NewWorkspace {
  metadata?: Metadata
  /** subject that owns it; nobody but the administrator when not given */
  owner?: string
  quotaBytes?: number
  quotaInodes?: number
  /** the name in its root under which its snapshots are seen, in UTF-8 */
  snapshotDir?: string
  /** whether it is refused when its owner has as many as a subject may have; only root is not */
  isLimited?: boolean
}

/** @param also changes to commit at the same instant */
export async function createWorkspace(
  context: Context,
  path: string,
  { metadata, owner, quotaBytes, quotaInodes, snapshotDir, isLimited }: NewWorkspace,
  also: readonly Change[] = [],
): Promise<WorkspaceInfo> {
  const { core, registry, access } = context
  const { parent, name } = freeParent(context, path)
  demandRoom(context, parent.volume.number, () => ({ bytes: 0, inodes: 1 }), path)
  const charge = registry.chargeFor(parent.volume.number, parent.ino, owner)
  if (isLimited === true) demandWorkspaces(context, charge.charged, 1)
  const quota = quotaFor({ bytes: quotaBytes ?? null, inodes: quotaInodes ?? null })
  const node = nodeOf(parent.volume.number, parent.ino)
  const tuples: StoredTuple[] = []
  const more = (number: number): Change[] => {
    const record = registry.newRecord(parent.volume.number, parent.ino, name, number)
    const type = registry.isTenantsDirectory(parent.volume.number, parent.ino) ? 'tenant' : 'workspace'
    if (owner !== undefined) tuples.push(ownerTuple(context, number, type, owner))
    const own = { ...charge, ...(quota && { quota }), ...(snapshotDir !== undefined && snapshotDirFor(snapshotDir)) }
    const stored = { ...record, metadata: metadata ?? {}, ...own }
    return [registry.storeWorkspace(stored), ...tuples.map(storeTuple), ...also]
  }
  makeWorkspace(
    core,
    { ...makerOf(context, owner, parent), pid: 0 },
    node,
    name,
    { mode: S_IFDIR | 0o777, umask: UMASK },
    { more },
  )
  access.written(tuples)
  await entryChanged(context, node, name)
  await wayChanged(context, parent.volume.number, parent.ino)
  return showWorkspace(context, path)
}

/** @throws NexusError NEXUS_NO_SPACE when a subject would have more workspaces than it may */
export function demandWorkspaces({ registry, quotas }: Context, charged: string | undefined, more: number): void {
  if (charged !== undefined) {
    demandWithin(quotas.subjectLimits, 'workspaces', charged, registry.chargedTo(charged).workspaces, more)
  }
}

/** Whose files it has: the owner's, if he has a uid, else those of whoever has the directory above. */
function makerOf({ access }: Context, owner: string | undefined, parent: Place): { uid: number; gid: number } {
  const uid = owner === undefined ? undefined : access.identities.uidsOf(owner)[0]
  return uid === undefined ? { uid: parent.attr.uid, gid: parent.attr.gid } : { uid, gid: uid }
}

/** By path. @param isShown which workspaces; all when not given */
export async function listWorkspaces(
  context: Context,
  isShown: (number: number) => boolean = () => true,
): Promise<WorkspaceInfo[]> {
  const found: WorkspaceInfo[] = []
  const pace = new Pace()
  for (const record of [...context.registry.workspaces()]) {
    // One may have gone while others had their turn.
    const now = context.registry.workspace(record.number)
    if (now !== undefined && isShown(record.number)) found.push(workspaceInfo(context, now))
    const wait = pace.pause()
    if (wait !== undefined) await wait
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : 1))
}

export function showWorkspace(context: Context, path: string): WorkspaceInfo {
  return workspaceInfo(context, workspaceAt(context, path).workspace)
}

/** @throws NexusError NEXUS_EXISTS when the workspace has an entry of the name that its snapshots are to be seen under */
export async function updateWorkspace(context: Context, path: string, wish: WorkspaceWish): Promise<WorkspaceInfo> {
  const { place, workspace } = workspaceAt(context, path)
  const { core, registry, kernel } = context
  const { number } = workspace
  const { metadata = {}, snapshotDir } = wish
  const merged = Object.fromEntries(Object.entries({ ...workspace.metadata, ...metadata }).filter(([, value]) => value !== ''))
  const before = registry.snapshotsNameOf(number)
  const own = snapshotDir === undefined ? {} : snapshotDirFor(snapshotDir)
  const after = snapshotDir === undefined ? before : (own.snapshot_dir ?? SNAPSHOTS_NAME)
  if (after !== before && place.volume.entry(ROOT_INO, after) !== undefined) {
    throw new NexusError(
      'NEXUS_EXISTS',
      `${path} has a file or directory ${shownName(after)}: give another name for its snapshots, or rename that first`,
    )
  }
  core.volumes.commit([registry.storeWorkspace({ ...workspace, metadata: merged, ...own })])
  if (after !== before) {
    // The kernel may know that the one is there, and that the other is not.
    await Promise.all([before, after].map((name) => kernel.invalidateEntry(nodeOf(number, ROOT_INO), name)))
  }
  return showWorkspace(context, path)
}

/** What a record has for a name from a command; the usual name is not recorded, as in older stores. */
function snapshotDirFor(name: string): Pick<WorkspaceRecord, 'snapshot_dir'> {
  const bytes = Buffer.from(name).toString('latin1')
  return { snapshot_dir: bytes === SNAPSHOTS_NAME ? undefined : bytes }
}

/** Deletes a workspace with everything in it, its snapshots too; takes as long for one file as for a million. */
export async function deleteWorkspace(context: Context, path: string): Promise<WorkspaceInfo> {
  const { place, workspace } = workspaceAt(context, path)
  if (workspace.number === 0) throw new NexusError('NEXUS_USAGE', '/ is the root of everything and stays: name a workspace in it')
  const info = workspaceInfo(context, workspace)
  const { core, registry } = context
  const { parent, name } = parentAt(core, path)
  const gone = [workspace, ...registry.inside(workspace.number)]
  const snapshots = registry.lostWith(gone.map((record) => record.number))
  const reached = removeSnapshots(context, snapshots, gone, [
    removeEntry(parent, existing(core, parent, name)),
    touched(core, parent, -1),
    ...gone.flatMap((record): Change[] => [
      { kind: 'catalog', key: workspaceKey(record.number), value: null },
      { kind: 'unvolume', volume: record.number },
    ]),
  ])
  for (const record of gone) core.buriedVolume(record.number)
  await core.gates.expire([parent.volume.number])
  await entryChanged(context, nodeOf(parent.volume.number, parent.ino), name, nodeOf(place.volume.number, ROOT_INO))
  await wayChanged(context, parent.volume.number, parent.ino)
  await rightsChanged(context, [...reached, ...gone.map((record) => record.number)], true)
  return info
}

export async function renameWorkspace(context: Context, path: string, newPath: string): Promise<WorkspaceInfo> {
  const { place, workspace } = workspaceAt(context, path)
  if (workspace.number === 0) throw new NexusError('NEXUS_USAGE', '/ is the root of everything and cannot be renamed')
  const { core } = context
  const from = parentAt(core, path)
  const to = freeParent(context, newPath)
  if (from.parent.volume !== to.parent.volume) {
    throw new NexusError('NEXUS_USAGE', `${newPath} is in another workspace than ${path}: fork it there and delete the old one`)
  }
  const fromNode = nodeOf(from.parent.volume.number, from.parent.ino)
  const toNode = nodeOf(to.parent.volume.number, to.parent.ino)
  rename(core, fromNode, from.name, toNode, to.name, RENAME_NOREPLACE)
  await Promise.all([
    entryChanged(context, fromNode, from.name),
    entryChanged(context, toNode, to.name),
    context.kernel.invalidateNode(nodeOf(place.volume.number, ROOT_INO)),
  ])
  if (from.parent.ino !== to.parent.ino) {
    await rightsChanged(context, context.access.reached([`${place.volume.number}/${ROOT_INO}`]), true)
  }
  return showWorkspace(context, newPath)
}

/** The directory for a new workspace. @throws NexusError when there is none, or the name is taken */
export function freeParent({ core, registry }: Context, path: string): { parent: Place; name: string } {
  const found = parentAt(core, path)
  const whatIsThere = ({ parent, name }: typeof found): string => {
    const entry = parent.volume.entry(parent.ino, name)
    const isPlain = entry?.volume === 0 && entry.type === S_IFDIR && registry.makesWorkspace(parent.volume.number, parent.ino)
    if (!isPlain) return 'exists already: choose another path'
    return 'is a directory, and no workspace: as root move it elsewhere (mv), then back, which makes a workspace of it'
  }
  try {
    checkFree(core, found.parent, found.name)
  } catch (error) {
    if (!(error instanceof FsError)) throw error
    if (error.code === 'EEXIST') throw new NexusError('NEXUS_EXISTS', `${path} ${whatIsThere(found)}`)
    throw new NexusError('NEXUS_USAGE', `${path} is no possible name (${error.code}): choose another path`)
  }
  return found
}

/** @throws NexusError NEXUS_NOT_FOUND when the path is not the root of a workspace */
function workspaceAt(context: Context, path: string): Target {
  const target = targetAt(context, path)
  if (target.place.ino === ROOT_INO) return target
  throw new NexusError('NEXUS_NOT_FOUND', `${path} is a directory of a workspace, not one itself: see "nexusctl workspace list"`)
}

function workspaceInfo({ core, registry }: Context, record: WorkspaceRecord): WorkspaceInfo {
  const volume = core.volumes.get(record.number)
  const counters = volume?.super
  const snapshotsName = registry.snapshotsNameOf(record.number)
  return {
    path: pathOf(core, registry, record.number, ROOT_INO),
    number: record.number,
    created_at: record.created_at,
    metadata: record.metadata,
    file_count: counters?.files ?? 0,
    directory_count: counters?.directories ?? 0,
    bytes: counters?.bytes ?? 0,
    snapshot_count: registry.snapshotCountOf(record.number),
    parent: record.parent,
    snapshot_dir: shownName(snapshotsName),
    snapshot_dir_hidden: volume?.entry(ROOT_INO, snapshotsName) !== undefined,
  }
}
