/** Calls of quotas: what a workspace takes with all workspaces in it, and may take. */
import * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { path as pathSchema, quota } from './parameters.ts'
import { field, integer, listOf, nullOr, record, text } from './schema.ts'

const fields = {
  path: text,
  number: field(integer, 'of the workspace'),
  bytes_used: field(integer, 'allocated to its files and to those of workspaces in it, as `du` counts; without snapshots'),
  bytes_limit: field(nullOr(integer), 'null: none'),
  bytes_remaining: field(nullOr(integer), 'what the limit leaves, 0 when more is used; null without one'),
  inodes_used: field(integer, 'files, directories and others, each once; also what is deleted and still open'),
  inodes_limit: field(nullOr(integer), 'null: none'),
  inodes_remaining: field(nullOr(integer), 'likewise'),
}
export const quotaInfo = record('Quota', fields)
export type QuotaInfo = v.InferOutput<typeof quotaInfo>

export const quotaShowInfo = record('Quota shown', {
  ...fields,
  around: field(
    listOf(quotaInfo),
    'of those workspaces that it lies in and that have one, from inside out; for a user, those that he may read',
  ),
})
export type QuotaShowInfo = v.InferOutput<typeof quotaShowInfo>

const path = parameter('path', pathSchema)
/** Absent: as it is. Null: none. */
const limit = optional(v.nullable(quota))

export const quotaCalls = {
  quotaSet: call({
    summary: 'set the quota of a workspace, from the next operation of any process on',
    effect: 'change',
    params: [path],
    options: { bytes: limit, inodes: limit },
    answer: quotaInfo,
  }),
  quotaShow: call({
    summary: 'show the quota of the workspace that a path lies in',
    effect: 'read',
    params: [path],
    answer: quotaShowInfo,
  }),
  quotaList: call({ summary: 'list the workspaces that have a quota', effect: 'read', params: [], answer: listOf(quotaInfo) }),
}
