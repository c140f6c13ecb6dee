/** What the catalog holds of workspaces and snapshots, as JSON under a key each. */
import { NexusError } from '../errors.ts'
import { VOLUMES_MAX } from '../vfs/place.ts'
import { isName } from '../volume/dirent.ts'

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
  /** latin1, the name in its root under which its snapshots are seen; absent: `.snapshots` */
  snapshot_dir?: string | undefined
  /** the subject whose limit it counts for; absent: nobody's */
  charged?: string | undefined
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
  /** the subject whose limit it counts for; absent: nobody's */
  charged?: string | undefined
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

type Document = Partial<Record<string, unknown>>
type Checks<T> = Record<keyof T, (value: unknown) => boolean>

const isText = (value: unknown): boolean => typeof value === 'string'
const isTextOrNull = (value: unknown): boolean => value === null || isText(value)
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0
const isCountOrNull = (value: unknown): boolean => value === null || isCount(value)
/** of a workspace or a view */
const isNumber = (value: unknown): boolean => isCount(value) && (value as number) < VOLUMES_MAX
const isRoot = (value: unknown): boolean => value === null || (typeof value === 'string' && /^[0-9a-f]{64}$/.test(value))
const isTextIfAny = (value: unknown): boolean => value === undefined || isText(value)
/** One that an entry of a directory can have, one character a byte. */
const isFileName = (value: unknown): boolean =>
  typeof value === 'string' && isName(value) && value.length <= 255 && Buffer.from(value, 'latin1').toString('latin1') === value
const isPairs = (value: unknown): boolean => isObject(value) && Object.values(value).every(isText)

const quotaFields: Checks<QuotaRecord> = { bytes: isCountOrNull, inodes: isCountOrNull }

const workspaceFields: Checks<WorkspaceRecord> = {
  number: isNumber,
  parent_volume: isNumber,
  parent_ino: isCount,
  name: isText,
  domain: isCount,
  created_at: isText,
  metadata: isPairs,
  parent: isTextOrNull,
  quota: (value) => value === undefined || hasAll(quotaFields, value),
  snapshot_dir: (value) => value === undefined || isFileName(value),
  charged: isTextIfAny,
}

const nestedFields: Checks<NestedRecord> = {
  record: (value) => hasAll(workspaceFields, value),
  root: isRoot,
  ino_next: isCount,
  view: isNumber,
}

const snapshotFields: Checks<SnapshotRecord> = {
  id: isText,
  name: isTextOrNull,
  workspace: isNumber,
  ino: isCount,
  path: isText,
  created_at: isText,
  root: isRoot,
  domain: isCount,
  ino_next: isCount,
  view: isNumber,
  files: isCount,
  bytes: isCount,
  metadata: isPairs,
  parent: isTextOrNull,
  automatic: (value) => typeof value === 'boolean',
  nested: (value) => Array.isArray(value) && value.every((each) => hasAll(nestedFields, each)) && isNoneInItself(value),
  charged: isTextIfAny,
}

/** Whoever goes from a workspace to the one around it comes out. */
function isNoneInItself(nested: readonly NestedRecord[]): boolean {
  const around = new Map(nested.map(({ record }) => [record.number, record.parent_volume]))
  return [...around.keys()].every((number) => !isInItself(number, (inner) => around.get(inner)))
}

/** @param around the workspace that another is recorded to lie in, if that is known */
export function isInItself(number: number, around: (inner: number) => number | undefined): boolean {
  const seen = new Set<number>()
  for (let at: number | undefined = number; at !== undefined; at = around(at)) {
    if (seen.has(at)) return true
    seen.add(at)
  }
  return false
}

function isObject(value: unknown): value is Document {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function hasAll<T>(checks: Checks<T>, value: unknown): boolean {
  if (!isObject(value)) return false
  return Object.entries<(field: unknown) => boolean>(checks).every(([name, check]) => check(value[name]))
}

/** @throws NexusError NEXUS_CORRUPT for what this program did not write */
export function parseWorkspace(key: string, text: string): WorkspaceRecord {
  return parseRecord(workspaceFields, key, text)
}

/** @throws NexusError NEXUS_CORRUPT for what this program did not write */
export function parseSnapshot(key: string, text: string): SnapshotRecord {
  return parseRecord(snapshotFields, key, text)
}

function parseRecord<T>(checks: Checks<T>, key: string, text: string): T {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    // Said below.
  }
  if (hasAll(checks, document)) return document as T
  throw new NexusError('NEXUS_CORRUPT', `the catalog's entry ${key} is damaged: mount again with --rebuild-index`)
}
