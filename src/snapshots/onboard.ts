/** A new tenant: its workspace with folders, an owner and a first snapshot, all of it or nothing. */
import type { TenantInfo } from '../api/tenants.ts'
import type { Metadata } from '../api/workspaces.ts'
import { FS, FsError, NexusError } from '../errors.ts'
import { mkdir } from '../vfs/names.ts'
import { nodeOf } from '../vfs/place.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { type Context, entryChanged, targetAt } from '../workspaces/context.ts'
import { TENANTS_NAME } from '../workspaces/registry.ts'
import { createWorkspace, deleteWorkspace, showWorkspace } from '../workspaces/workspaces.ts'
import { takeSnapshot } from './snapshots.ts'

const FIRST_SNAPSHOT = 'initial-setup'
const DIRECTORY_MODE = 0o777
/** in the catalog, by path, while a tenant is being made: what is found at a start was cut short */
const UNFINISHED = 'o/'

export interface NewTenant {
  admin: string
  metadata?: Metadata
  directories?: string[]
  quotaBytes?: number
  quotaInodes?: number
}

export async function onboardTenant(context: Context, id: string, options: NewTenant): Promise<TenantInfo> {
  const { core } = context
  const path = `/${TENANTS_NAME}/${id}`
  const directories = options.directories ?? []
  await createWorkspaceMarked(context, path, options)
  try {
    const { place } = targetAt(context, path)
    const { uid, gid } = place.attr
    for (const name of directories) {
      const bytes = Buffer.from(name).toString('latin1')
      mkdir(core, { uid, gid, pid: 0 }, nodeOf(place.volume.number, ROOT_INO), bytes, DIRECTORY_MODE, 0)
      await entryChanged(context, nodeOf(place.volume.number, ROOT_INO), bytes)
    }
    const snapshot = await takeSnapshot(context, path, { name: FIRST_SNAPSHOT })
    core.volumes.commit([{ kind: 'catalog', key: UNFINISHED + path, value: null }])
    return { tenant: id, workspace: showWorkspace(context, path), admin: options.admin, directories, snapshot }
  } catch (error) {
    await discard(context, path)
    if (error === FS.EDQUOT) {
      throw new NexusError('NEXUS_NO_SPACE', `a quota has no room for the directories of the tenant ${id}: give it a larger one`)
    }
    if (error instanceof FsError) {
      throw new NexusError(
        'NEXUS_USAGE',
        `a directory of the tenant ${id} cannot be made (${error.code}): name others with --dirs`,
      )
    }
    throw error
  }
}

/** Removes tenants whose making the end of a daemon has cut short. */
export async function discardUnfinished(context: Context): Promise<void> {
  for (const [key] of [...context.core.volumes.catalog.list(UNFINISHED)]) await discard(context, key.slice(UNFINISHED.length))
}

async function createWorkspaceMarked(context: Context, path: string, options: NewTenant): Promise<void> {
  const { admin, directories: _, ...others } = options
  const mark = { kind: 'catalog', key: UNFINISHED + path, value: new Date().toISOString() } as const
  await createWorkspace(context, path, { owner: admin, ...others }, [mark])
}

async function discard(context: Context, path: string): Promise<void> {
  try {
    await deleteWorkspace(context, path)
  } catch (error) {
    if (!(error instanceof NexusError && error.code === 'NEXUS_NOT_FOUND')) throw error
  }
  context.core.volumes.commit([{ kind: 'catalog', key: UNFINISHED + path, value: null }])
}
