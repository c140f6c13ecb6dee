/** Calls of access: who is who, who was given what, who may, and by which model. */
import type * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { path as pathSchema } from './parameters.ts'
import {
  futureTime,
  group as groupSchema,
  modelText,
  permission as permissionSchema,
  person as personSchema,
  relation as relationSchema,
  subject as subjectSchema,
  uid,
} from './parameters-access.ts'
import { boolean, field, integer, listOf, nullOr, record, text, time } from './schema.ts'

export const identityInfo = record('Identity', {
  subject: field(text, '`user:NAME` or `agent:NAME`'),
  uids: field(listOf(integer), 'user ids whose processes are this subject, ascending'),
})
export type IdentityInfo = v.InferOutput<typeof identityInfo>

export const grantInfo = record('Grant', {
  subject: field(text, 'such as `user:alice`, `group:eng#member`, `user:*`'),
  relation: field(text, '`owner`, `editor` or `viewer`, or what the model names instead'),
  path: field(text, 'what it was granted on'),
  inherited: field(boolean, 'it reaches the asked path from a directory above'),
  created_at: time,
  expires_at: field(nullOr(time), 'when it ends by itself; null for never'),
})
export type GrantInfo = v.InferOutput<typeof grantInfo>

export const checkInfo = record('Check', {
  subject: text,
  permission: text,
  path: text,
  allowed: field(boolean, 'the answer'),
})
export type CheckInfo = v.InferOutput<typeof checkInfo>

export const explainInfo = record('Explanation', {
  subject: text,
  permission: text,
  path: text,
  allowed: field(boolean, 'the answer'),
  steps: field(listOf(text), 'the tuples and rules that give it, outermost first, or what denies it; in words for people'),
})
export type ExplainInfo = v.InferOutput<typeof explainInfo>

export const subjects = record('Subjects', {
  subjects: field(listOf(text), 'every user and agent who may, sorted; `user:*` when everybody may'),
})

export const reachInfo = record('Reach', {
  path: field(text, 'where the rights begin; what lies below inherits them'),
  permissions: field(listOf(text), 'those that begin here'),
})
export type ReachInfo = v.InferOutput<typeof reachInfo>

export const groupInfo = record('Group', {
  group: field(text, 'its name, without `group:`'),
  members: field(listOf(text), 'subjects, sorted'),
})
export type GroupInfo = v.InferOutput<typeof groupInfo>

export const modelInfo = record('Model', {
  text: field(text, "in OpenFGA's modelling language"),
  builtin: field(boolean, 'it is the one that comes with the program'),
})
export type ModelInfo = v.InferOutput<typeof modelInfo>

const path = parameter('path', pathSchema)
const person = parameter('subject', personSchema)
const subject = parameter('subject', subjectSchema)
const relation = parameter('relation', relationSchema)
/** read, write, share, snapshot, restore, or a relation */
const permission = parameter('permission', permissionSchema)
const group = parameter('group', groupSchema)
const member = parameter('member', subjectSchema)

export const accessCalls = {
  identityAdd: call({
    summary: 'say that processes with a uid are a subject; a uid has one subject, a subject any number of uids',
    effect: 'change',
    params: [person, parameter('uid', uid)],
    answer: identityInfo,
  }),
  identityList: call({ summary: 'list who is who', effect: 'read', params: [], answer: listOf(identityInfo) }),
  identityRemove: call({
    summary: 'take a uid, or all, from a subject; answers with those that remain',
    effect: 'change',
    params: [person],
    options: { uid: optional(uid) },
    answer: identityInfo,
  }),
  grant: call({
    summary: 'grant a relation on a path; answers when every process sees it',
    effect: 'change',
    params: [subject, relation, path],
    options: { expires: optional(futureTime) },
    answer: grantInfo,
  }),
  revoke: call({
    summary: 'take a grant back that was given on that very path; answers when every process is refused',
    effect: 'change',
    params: [subject, relation, path],
    answer: grantInfo,
  }),
  grants: call({
    summary: 'list the grants on a path, then those from directory to directory above it',
    effect: 'read',
    params: [path],
    answer: listOf(grantInfo),
  }),
  check: call({
    summary: 'whether a subject may do something on a path',
    effect: 'read',
    params: [subject, permission, path],
    answer: checkInfo,
  }),
  explain: call({
    summary: 'why a subject may do something on a path, or why not',
    effect: 'read',
    params: [subject, permission, path],
    answer: explainInfo,
  }),
  whoCan: call({
    summary: 'list every user and agent that is known and may',
    effect: 'read',
    params: [permission, path],
    answer: subjects,
  }),
  whatCan: call({
    summary: "list where a subject's rights begin, by path",
    effect: 'read',
    params: [subject],
    answer: listOf(reachInfo),
  }),
  groupAdd: call({ summary: 'put a member into a group', effect: 'change', params: [group, member], answer: groupInfo }),
  groupRemove: call({
    summary: 'take a member out of a group',
    effect: 'change',
    params: [group, member],
    answer: groupInfo,
  }),
  groupList: call({ summary: 'list the groups', effect: 'read', params: [], answer: listOf(groupInfo) }),
  modelShow: call({ summary: 'show the access model', effect: 'read', params: [], answer: modelInfo }),
  modelApply: call({
    summary: 'put an access model in force that parses, has what the filesystem asks for, and fits the tuples',
    effect: 'change',
    params: [parameter('text', modelText)],
    answer: modelInfo,
  }),
}
