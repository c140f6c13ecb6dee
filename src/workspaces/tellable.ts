/**
 * Which names somebody may be told who is not root and asks who has what on a path. Those who were given something on it, or
 * on what contains it, are no secret to whoever shares it; that a group or a tenant was given something neither. Who is in
 * a group or a tenant is told to those who are in it too, and to whoever may share that tenant.
 */
import { inodeOf } from '../acl/graph.ts'
import { namedBy } from '../acl/tuples.ts'
import type { ExplainInfo } from '../api/access.ts'
import type { Context } from './context.ts'
import { explain, objectAt, refuseUnknown, shown } from './grants.ts'

/** The subjects that have a permission on a path, as far as the asker may know them. */
export function whoCanFor(context: Context, asker: string, permission: string, path: string): { subjects: string[] } {
  const { access } = context
  const { object } = objectAt(context, path)
  refuseUnknown(context, permission, object)
  const { subjects } = tellable(context, asker, object)
  const able = [asker, ...subjects].filter((subject) => access.check(subject, permission, object))
  return { subjects: [...new Set(able)].map((subject) => shown(context, subject)).sort() }
}

/** Why somebody may or may not, without the steps that lie in a group or tenant whose members are not for the asker to know. */
export function explainFor(context: Context, asker: string, subject: string, permission: string, path: string): ExplainInfo {
  const { object } = objectAt(context, path)
  const { subjects, hidden } = tellable(context, asker, object)
  const inside = within(context, hidden)
  const nameOf = (set: string): string => shown(context, set.split('#', 1)[0] ?? set)
  const isHidden = (step: string): boolean =>
    [...inside].some((set) => speaksOf(step, nameOf(set), hidden.has(set) ? ' ,' : subjects.has(set) ? '' : ' ,#'))
  const answer = explain(context, subject, permission, path)
  const steps = answer.steps.filter((step) => !isHidden(step))
  if (steps.length === answer.steps.length) return answer
  const names = [...hidden].map(nameOf).join(', ')
  return { ...answer, steps: [`who is in ${names} is told to those who are in it, and to its owners`, ...steps] }
}

/** Sets, and all that they are made of. */
function within({ access }: Context, sets: ReadonlySet<string>): Set<string> {
  const all = new Set(sets)
  // A set grows while it is walked.
  for (const set of all) {
    const named = namedBy(set)
    for (const { subject } of named === undefined ? [] : access.tuples.on(named.object)) {
      if (namedBy(subject) !== undefined) all.add(subject)
    }
  }
  return all
}

/**
 * Whether a step names a group or tenant in a way that is not to be told.
 * @param ends what may follow the name then: `NAME#member is …` is no secret of a set that was given something here
 */
function speaksOf(step: string, name: string, ends: string): boolean {
  if (ends === '') return false
  for (let at = step.indexOf(name); at !== -1; at = step.indexOf(name, at + 1)) {
    const next = step[at + name.length]
    if (next === undefined || ends.includes(next)) return true
  }
  return false
}

/** Subjects with something on an object and on what contains it; of the sets among them only the members that may be told. */
function tellable(context: Context, asker: string, object: string): { subjects: Set<string>; hidden: Set<string> } {
  const { access } = context
  const subjects = new Set<string>()
  const hidden = new Set<string>()
  const add = (from: string): void => {
    for (let at: string | undefined = from; at !== undefined; at = [...access.graph.objects(at, 'parent')][0]) {
      for (const tuple of access.tuples.on(access.graph.keyOf(at))) if (access.graph.isValid(tuple)) subjects.add(tuple.subject)
    }
  }
  add(object)
  // A set grows while it is walked: members of members are reached as well.
  for (const subject of subjects) {
    const named = namedBy(subject)
    if (named === undefined) continue
    const of = named.type === 'group' ? named.object : access.typed(named.object)
    if (mayKnow(context, asker, subject, of)) add(of)
    else hidden.add(subject)
  }
  return { subjects, hidden }
}

function mayKnow({ access }: Context, asker: string, set: string, of: string): boolean {
  const hash = set.indexOf('#')
  if (hash !== -1 && access.check(asker, set.slice(hash + 1), of)) return true
  if (of.startsWith('group:')) return false
  const { volume, ino } = inodeOf(of)
  return access.isNamed(volume, ino) && access.check(asker, 'share', of)
}
