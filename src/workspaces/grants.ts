/** Grants, groups, identities and questions about them, by command: paths and names outside, inodes and tuples inside. */
import { inodeOf } from '../acl/graph.ts'
import { allowsTuple } from '../acl/model.ts'
import type { StoredTuple } from '../acl/tuples.ts'
import type { CheckInfo, ExplainInfo, GrantInfo, GroupInfo, IdentityInfo, ModelInfo, ReachInfo } from '../api/access.ts'
import { NexusError } from '../errors.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Context } from './context.ts'
import { pathOf, placeAt } from './paths.ts'
import { TENANTS_NAME } from './registry.ts'
import { rightsChanged } from './rights.ts'

const MEMBER = 'member'
/** What the filesystem asks for: the permissions that every model has. */
const PERMISSIONS = ['read', 'write', 'share', 'snapshot', 'restore']

export async function grant(
  context: Context,
  subject: string,
  relation: string,
  path: string,
  options: { expires?: string },
): Promise<GrantInfo> {
  const { access } = context
  const { key, object } = objectAt(context, path)
  const stored = subjectInside(context, subject)
  const reason = allowsTuple(access.model, { subject: stored, relation, object })
  if (reason !== undefined)
    throw new NexusError('NEXUS_USAGE', `${subject} cannot be made ${relation} of ${path}: ${shown(context, reason)}`)
  const tuple = access.newTuple(stored, relation, key, options.expires ?? null)
  access.write([tuple])
  await rightsChanged(context, access.reached([key]), false)
  return grantInfo(context, tuple, false)
}

export async function revoke(context: Context, subject: string, relation: string, path: string): Promise<GrantInfo> {
  const { access } = context
  const { key } = objectAt(context, path)
  const tuple = access.tuples.get(key, relation, subjectInside(context, subject))
  if (tuple === undefined) {
    throw new NexusError(
      'NEXUS_NOT_FOUND',
      `${subject} has no grant ${relation} on ${path} itself: see "nexusctl grants ${path}"`,
    )
  }
  access.write([], [tuple])
  await rightsChanged(context, access.reached([key]), true)
  return grantInfo(context, tuple, false)
}

/** Those on the path itself, then those that it inherits, from the inside out. */
export function grants(context: Context, path: string): GrantInfo[] {
  const { access } = context
  const { object } = objectAt(context, path)
  const infos: GrantInfo[] = []
  for (let at: string | undefined = object, inherited = false; at !== undefined; inherited = true) {
    const here = [...access.tuples.on(access.graph.keyOf(at))].filter((tuple) => access.graph.isValid(tuple))
    infos.push(...here.map((tuple) => grantInfo(context, tuple, inherited)).sort(byRelationAndSubject))
    at = [...access.graph.objects(at, 'parent')][0]
  }
  return infos
}

export function check(context: Context, subject: string, permission: string, path: string): CheckInfo {
  const { object } = objectAt(context, path)
  refuseUnknown(context, permission, object)
  return { subject, permission, path, allowed: context.access.check(subjectInside(context, subject), permission, object) }
}

export function explain(context: Context, subject: string, permission: string, path: string): ExplainInfo {
  const { object } = objectAt(context, path)
  refuseUnknown(context, permission, object)
  const { allowed, steps } = context.access.explain(subjectInside(context, subject), permission, object)
  return { subject, permission, path, allowed, steps: steps.map((step) => shown(context, step)) }
}

export function whoCan(context: Context, permission: string, path: string): { subjects: string[] } {
  const { access } = context
  const { object } = objectAt(context, path)
  refuseUnknown(context, permission, object)
  const candidates = new Set(access.identities.subjects())
  for (const subject of access.tuples.subjects()) if (!subject.includes('#')) candidates.add(subject)
  return { subjects: [...candidates].filter((subject) => access.check(subject, permission, object)).sort() }
}

export function whatCan(context: Context, subject: string): ReachInfo[] {
  const { access } = context
  const inside = subjectInside(context, subject)
  const infos = reachedBy(context, inside).flatMap((key): ReachInfo[] => {
    const { volume, ino } = inodeOf(key)
    const object = access.graph.objectOf(volume, ino)
    if (object === undefined || !access.isNamed(volume, ino)) return []
    const permissions = PERMISSIONS.filter((permission) => access.check(inside, permission, object))
    return permissions.length === 0 ? [] : [{ path: pathOf(context.core, context.registry, volume, ino), permissions }]
  })
  return infos.sort((a, b) => (a.path < b.path ? -1 : 1))
}

export async function addToGroup(context: Context, group: string, member: string): Promise<GroupInfo> {
  const { access } = context
  const object = `group:${group}`
  const stored = subjectInside(context, member)
  const reason = allowsTuple(access.model, { subject: stored, relation: MEMBER, object })
  if (reason !== undefined)
    throw new NexusError('NEXUS_USAGE', `${member} cannot be in the group ${group}: ${shown(context, reason)}`)
  access.write([access.newTuple(stored, MEMBER, object)])
  await rightsChanged(context, access.reached([object]), false)
  return groupInfo(context, group)
}

export async function removeFromGroup(context: Context, group: string, member: string): Promise<GroupInfo> {
  const { access } = context
  const object = `group:${group}`
  const tuple = access.tuples.get(object, MEMBER, subjectInside(context, member))
  if (tuple === undefined) {
    throw new NexusError('NEXUS_NOT_FOUND', `${member} is not in the group ${group}: see "nexusctl group list"`)
  }
  access.write([], [tuple])
  await rightsChanged(context, access.reached([object]), true)
  return groupInfo(context, group)
}

export function listGroups(context: Context): GroupInfo[] {
  const names = [...context.access.tuples.groups()].map((object) => object.slice('group:'.length)).sort()
  return names.map((group) => groupInfo(context, group))
}

export async function addIdentity(context: Context, subject: string, uid: number): Promise<IdentityInfo> {
  const { access } = context
  const taken = access.identities.named(uid)
  if (taken !== undefined && taken !== subject) {
    throw new NexusError('NEXUS_EXISTS', `uid ${uid} is ${taken} already: "nexusctl identity remove ${taken} --uid ${uid}" first`)
  }
  await identityChanged(context, [uid], subject)
  return { subject, uids: access.identities.uidsOf(subject) }
}

export async function removeIdentity(context: Context, subject: string, options: { uid?: number }): Promise<IdentityInfo> {
  const { access } = context
  const uids = access.identities.uidsOf(subject).filter((uid) => access.identities.named(uid) === subject)
  const gone = uids.filter((uid) => options.uid === undefined || uid === options.uid)
  if (gone.length === 0) {
    const which = options.uid === undefined ? 'no uid' : `not the uid ${options.uid}`
    throw new NexusError('NEXUS_NOT_FOUND', `${subject} has ${which}: see "nexusctl identity list"`)
  }
  await identityChanged(context, gone, null)
  return { subject, uids: uids.filter((uid) => !gone.includes(uid)) }
}

/** Whoever becomes somebody else is no more who they were; an agent is not among `user:*`. */
async function identityChanged(context: Context, uids: readonly number[], subject: string | null): Promise<void> {
  const { access } = context
  const before = uids.map((uid) => access.identities.subjectOf(uid))
  for (const uid of uids) access.setIdentity(uid, subject)
  const after = uids.map((uid) => access.identities.subjectOf(uid))
  await rightsChanged(context, access.reachedBy(['user:*', 'agent:*', ...before, ...after]), true)
}

export function listIdentities({ access }: Context): IdentityInfo[] {
  return access.identities.subjects().map((subject) => ({ subject, uids: access.identities.uidsOf(subject) }))
}

export function showModel({ access }: Context): ModelInfo {
  return { text: access.model.text, builtin: access.isBuiltinModel }
}

export async function applyModel(context: Context, text: string): Promise<ModelInfo> {
  context.access.setModel(text)
  await rightsChanged(context, context.access.tuples.volumes(), true)
  return showModel(context)
}

/**
 * A subject as tuples have it: a tenant by its workspace's number, so that renaming it changes nothing.
 * @throws NexusError NEXUS_NOT_FOUND when there is no such tenant
 */
export function subjectInside({ core, registry }: Context, subject: string): string {
  const tenant = /^tenant:([^#]+)(#.*)$/.exec(subject)
  if (tenant === null) return subject
  const place = placeAt(core, `/${TENANTS_NAME}/${tenant[1]}`)
  if (!registry.isTenant(place.volume.number) || place.ino !== ROOT_INO) {
    throw new NexusError('NEXUS_NOT_FOUND', `there is no tenant ${tenant[1]}: see "nexusctl workspace list"`)
  }
  return `tenant:${place.volume.number}/${place.ino}${tenant[2]}`
}

/** What gives an owner his workspace. @throws NexusError NEXUS_USAGE when nobody like that can own one */
export function ownerTuple(context: Context, volume: number, type: 'workspace' | 'tenant', owner: string): StoredTuple {
  const { access } = context
  const subject = subjectInside(context, owner)
  const reason = allowsTuple(access.model, { subject, relation: 'owner', object: `${type}:${volume}/${ROOT_INO}` })
  if (reason !== undefined) throw new NexusError('NEXUS_USAGE', `${owner} cannot own it: ${shown(context, reason)}`)
  return access.newTuple(subject, 'owner', `${volume}/${ROOT_INO}`)
}

/** The object at a path, typed and as the key of its tuples. */
export function objectAt(context: Context, path: string): { key: string; object: string } {
  const { core, access } = context
  const place = placeAt(core, path)
  const key = `${place.volume.number}/${place.ino}`
  const object = access.graph.objectOf(place.volume.number, place.ino)
  if (place.volume.number === 0 || object === undefined) {
    throw new NexusError(
      'NEXUS_USAGE',
      `${path} is in no workspace, and plain permissions decide there: name a workspace or what is in it`,
    )
  }
  return { key, object }
}

/** @throws NexusError NEXUS_USAGE when the model has no such permission on an object */
export function refuseUnknown({ access }: Context, permission: string, object: string): void {
  const relations = access.model.types.get(object.slice(0, object.indexOf(':')))
  if (relations?.has(permission) === true) return
  const known = [...(relations?.keys() ?? [])].filter((name) => name !== 'parent').join(', ')
  throw new NexusError('NEXUS_USAGE', `there is no permission ${permission}: use one of ${known}`)
}

/** Inodes with tuples that may give a subject something: more than do, so each has to be checked. */
function reachedBy({ access }: Context, subject: string): string[] {
  const everybody = `${subject.slice(0, subject.indexOf(':'))}:*`
  const reached = access.objectsReached(access.objectsGivenTo([subject, everybody]))
  return [...reached].filter((object) => !object.startsWith('group:') && [...access.tuples.on(object)].length > 0)
}

function groupInfo({ access, ...context }: Context, group: string): GroupInfo {
  const members = [...access.tuples.on(`group:${group}`)].map(({ subject }) => shown({ access, ...context }, subject))
  return { group, members: members.sort() }
}

function grantInfo(context: Context, tuple: StoredTuple, inherited: boolean): GrantInfo {
  const { volume, ino } = inodeOf(tuple.object)
  const { relation, created_at, expires_at } = tuple
  const path = pathOf(context.core, context.registry, volume, ino)
  return { subject: shown(context, tuple.subject), relation, path, inherited, created_at, expires_at }
}

/** Text of the inside with paths and names in place of numbers. */
export function shown({ core, registry }: Context, text: string): string {
  return text.replaceAll(/\b(dir|file|workspace|tenant):(\d+)\/(\d+)/g, (whole, type: string, volume: string, ino: string) => {
    const number = Number(volume)
    const record = registry.workspace(number)
    if (record === undefined) return whole
    if (type === 'tenant') return `tenant:${Buffer.from(record.name, 'latin1').toString()}`
    return pathOf(core, registry, number, Number(ino))
  })
}

function byRelationAndSubject(a: GrantInfo, b: GrantInfo): number {
  if (a.relation !== b.relation) return a.relation < b.relation ? -1 : 1
  return a.subject < b.subject ? -1 : 1
}
