/** What the catalog holds of workspaces and snapshots, as JSON under a key each. */
import { NexusError } from '../errors.ts'

export interface WorkspaceRecord {
  number: number
  /** the directory that holds its root, and its name there; 0 and '' for the root of all */
  parent_volume: number
  parent_ino: number
  /** latin1, as names are everywhere inside */
  name: string
  /** decides with whom chunks are shared */
  domain: number
  created_at: string
  metadata: Record<string, string>
  /** snapshot that its state descends from */
  parent: string | null
  /** absent: none */
  quota?: QuotaRecord | undefined
}

/** How much a workspace may take, with all that lie in it; null: as much as there is. */
export interface QuotaRecord {
  bytes: number | null
  inodes: number | null
}

export interface SnapshotRecord {
  id: string
  name: string | null
  /** workspace it was taken of, and the directory in it (ROOT_INO for the whole) */
  workspace: number
  ino: number
  /** where that was then */
  path: string
  created_at: string
  /** hex, null for an empty tree */
  root: string | null
  domain: number
  ino_next: number
  /** number in the node ids under `.snapshots` */
  view: number
  files: number
  bytes: number
  metadata: Record<string, string>
  parent: string | null
  automatic: boolean
  nested: NestedRecord[]
}

/** A workspace that lay inside, as it was at the same instant. */
export interface NestedRecord {
  record: WorkspaceRecord
  root: string | null
  ino_next: number
  view: number
}

export const WORKSPACE_PREFIX = 'w/'
export const SNAPSHOT_PREFIX = 's/'

export function workspaceKey(number: number): string {
  return WORKSPACE_PREFIX + number
}

export function snapshotKey(id: string): string {
  return SNAPSHOT_PREFIX + id
}

/**
 * Reads a document that this program wrote.
 * @throws NexusError NEXUS_CORRUPT when it is not JSON with an object inside
 */
export function parseRecord<T extends WorkspaceRecord | SnapshotRecord>(key: string, text: string): T {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (cause) {
    throw new NexusError('NEXUS_CORRUPT', `the catalog's entry ${key} is damaged: mount again with --rebuild-index`, { cause })
  }
  if (typeof document !== 'object' || document === null) {
    throw new NexusError('NEXUS_CORRUPT', `the catalog's entry ${key} is damaged: mount again with --rebuild-index`)
  }
  return document as T
}
