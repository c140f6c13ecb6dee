/** Calls of snapshots: take, look at, compare, restore. */
import * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { flag, limit, metadata, path as pathSchema, snapshotName, snapshotReference } from './parameters.ts'
import { absentOr, boolean, field, integer, listOf, mapOf, nullOr, number, oneOf, record, text, time } from './schema.ts'

export const snapshotInfo = record('Snapshot', {
  snapshot_id: field(text, '`snap_` and 26 characters that sort by time'),
  name: field(nullOr(text), 'unique in the workspace'),
  path: field(text, 'what was snapshotted: a workspace or a directory in one'),
  created_at: time,
  root: field(text, "SHA-256 of the tree's root, hex; equal contents have equal roots"),
  file_count: field(nullOr(integer), 'null where it would have to be counted; `snapshot show` counts'),
  bytes: field(nullOr(integer), 'the same'),
  metadata: mapOf(text),
  parent: field(nullOr(text), 'id of the snapshot that this state descends from'),
  automatic: field(boolean, 'taken by the daemon itself, before a restore'),
  elapsed_ms: field(absentOr(number), 'time inside the daemon; only from `snapshot create`'),
})
export type SnapshotInfo = v.InferOutput<typeof snapshotInfo>

export const change = record('Change', {
  path: field(
    text,
    'relative to the directory compared; where a name is not UTF-8 its odd bytes as `\\xNN`, and so is a backslash that could be taken for one',
  ),
  change: field(oneOf('added', 'removed', 'modified', 'renamed'), '`added`, `removed`, `modified` or `renamed`'),
  from: field(absentOr(text), 'the path before; only with `renamed`'),
  kind: field(oneOf('file', 'directory', 'symlink', 'other'), '`file`, `directory`, `symlink` or `other`'),
  what: field(
    listOf(text),
    'what differs when modified or renamed: `content`, `mode` (also the mask of those who have a grant), `owner`, `mtime`, `xattr`, `target`; `type` alone when it is another kind of thing now',
  ),
})
export type ChangeInfo = v.InferOutput<typeof change>

export const diffInfo = record('Diff', {
  from: field(text, 'the older side'),
  to: field(text, 'the newer side'),
  from_path: field(
    nullOr(text),
    "where the older side is seen in the filesystem, names as in a change's `path`; null where it is not: the directory was not there, the snapshot is of another one, an entry hides the snapshots, or the caller may not list the workspace's root",
  ),
  to_path: field(nullOr(text), 'the same of the newer side'),
  changes: field(listOf(change), 'at most `--limit`'),
  truncated: field(boolean, 'there were more'),
})
export type DiffInfo = v.InferOutput<typeof diffInfo>

export const writer = record('Writer', {
  pid: field(integer, 'its number, as `nexusd` sees it'),
  command: field(text, 'its name, as in `/proc/PID/comm`'),
  files: field(integer, 'how many files it has open for writing there, or mapped so that it can change them'),
})
export type WriterInfo = v.InferOutput<typeof writer>

export const restoreInfo = record('Restore', {
  path: field(text, 'what was restored'),
  restored: field(text, 'id of the snapshot'),
  undo: field(nullOr(text), 'id of the automatic snapshot that undoes this; null for a dry run'),
  undo_path: field(nullOr(text), 'what to restore to it: where the directory was not there, the nearest around it that was'),
  dry_run: field(boolean, 'nothing was changed'),
  changes: field(listOf(change), 'at most `--limit`'),
  truncated: field(boolean, 'there were more'),
  writers: field(
    listOf(writer),
    'of a dry run, the processes that have files there open for writing; a user is told those of their own uid; otherwise empty',
  ),
  writers_hidden: field(integer, 'of a dry run, how many more there are, of other users; otherwise 0'),
  elapsed_ms: field(number, 'time inside the daemon'),
})
export type RestoreInfo = v.InferOutput<typeof restoreInfo>

const path = parameter('path', pathSchema)
/** An id, the start of one that fits only one, or a name. */
const snapshot = parameter('snapshot', snapshotReference)

const wish = {
  /** only tells what would change */
  dryRun: optional(flag),
  /** how many changes to report */
  limit: optional(limit),
  /** restores also while processes have files there open for writing */
  force: optional(flag),
  /** sends those processes SIGTERM, and waits until none is left */
  stop: optional(flag),
}
export type RestoreWish = v.InferOutput<v.ObjectSchema<typeof wish, undefined>>

export const snapshotCalls = {
  snapshotCreate: call({
    summary: 'take a snapshot of a workspace or directory',
    effect: 'change',
    params: [path],
    options: { name: optional(snapshotName), metadata: optional(metadata) },
    answer: snapshotInfo,
  }),
  snapshotList: call({
    summary: 'list the snapshots of a workspace, newest last',
    effect: 'read',
    params: [path],
    answer: listOf(snapshotInfo),
  }),
  snapshotShow: call({
    summary: 'show a snapshot, and count what is in it',
    effect: 'read',
    params: [path, snapshot],
    answer: snapshotInfo,
  }),
  snapshotDelete: call({
    summary: 'delete a snapshot, and answer what it was',
    effect: 'change',
    params: [path, snapshot],
    answer: snapshotInfo,
  }),
  snapshotDiff: call({
    summary: 'compare a snapshot with another, or with the live state where `to` is null',
    effect: 'read',
    params: [
      path,
      parameter('from', snapshotReference),
      parameter('to', v.nullish(snapshotReference, null)),
      parameter('limit', limit),
    ],
    answer: diffInfo,
  }),
  restore: call({
    summary: 'restore a workspace or directory to a snapshot',
    effect: 'change',
    params: [path, snapshot],
    options: wish,
    answer: restoreInfo,
  }),
}
