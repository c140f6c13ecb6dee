/** Calls of workspaces, and forks of them. */
import type * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { directoryName, flag, metadata, path as pathSchema, quota, snapshotReference } from './parameters.ts'
import { subject } from './parameters-access.ts'
import { boolean, field, integer, listOf, mapOf, nullOr, number, record, text, time } from './schema.ts'

export type Metadata = v.InferOutput<typeof metadata>

export const workspaceInfo = record('Workspace', {
  path: field(text, 'where it is now'),
  number: field(integer, 'its number in the inode numbers of its files'),
  created_at: time,
  metadata: mapOf(text),
  file_count: field(integer, 'files, symlinks and special files'),
  directory_count: integer,
  bytes: field(integer, 'sum of file sizes'),
  snapshot_count: integer,
  parent: field(nullOr(text), 'id of the snapshot that it was forked from or last restored to'),
  snapshot_dir: field(
    text,
    "the name in its root under which its snapshots are seen; a name that is not UTF-8 as in a change's `path`",
  ),
  snapshot_dir_hidden: field(boolean, 'it has an entry of that name itself, which is seen instead'),
})
export type WorkspaceInfo = v.InferOutput<typeof workspaceInfo>

export const forkInfo = record('Fork', {
  path: field(text, 'the new workspace'),
  source: field(text, 'the old one'),
  snapshot: field(nullOr(text), 'id of the snapshot started from; null for the live state'),
  elapsed_ms: field(number, 'time inside the daemon'),
})
export type ForkInfo = v.InferOutput<typeof forkInfo>

const path = parameter('path', pathSchema)
const newPath = parameter('newPath', pathSchema)

/** The one who becomes the owner; the caller when absent. */
const owner = optional(subject)
/** The name in its root under which its snapshots are seen. */
const snapshotDir = optional(directoryName)
const limits = { quotaBytes: optional(quota), quotaInodes: optional(quota) }

/** What is absent stays as it is. */
const wish = { metadata: optional(metadata), snapshotDir }
export type WorkspaceWish = v.InferOutput<v.ObjectSchema<typeof wish, undefined>>

export const workspaceCalls = {
  workspaceCreate: call({
    summary: 'make a workspace',
    effect: 'change',
    params: [path],
    options: { metadata: optional(metadata), owner, ...limits, snapshotDir },
    answer: workspaceInfo,
  }),
  workspaceList: call({
    summary: 'list the workspaces that the caller may read',
    effect: 'read',
    params: [],
    answer: listOf(workspaceInfo),
  }),
  workspaceShow: call({ summary: 'show a workspace', effect: 'read', params: [path], answer: workspaceInfo }),
  workspaceDelete: call({
    summary: 'delete a workspace with all its snapshots, and answer what it was',
    effect: 'change',
    params: [path],
    answer: workspaceInfo,
  }),
  workspaceRename: call({
    summary: 'give a workspace another path',
    effect: 'change',
    params: [path, newPath],
    answer: workspaceInfo,
  }),
  workspaceUpdate: call({
    summary: 'set keys of the metadata, of which an empty value removes one, or the name that snapshots are seen under',
    effect: 'change',
    params: [path],
    options: wish,
    answer: workspaceInfo,
  }),
  fork: call({
    summary: 'make a workspace that begins as another is, or as a snapshot of it was',
    effect: 'change',
    params: [path, newPath],
    options: { snapshot: optional(snapshotReference), withGrants: optional(flag), owner },
    answer: forkInfo,
  }),
}
