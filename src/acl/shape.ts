/** What a model means for a tree: questions that are asked of it once, so that they need not be asked of each inode. */
import { Evaluator } from './evaluator.ts'
import { CONTAINMENT } from './graph.ts'
import type { Model, SubjectType } from './model.ts'
import { eachRewrite } from './rewrite.ts'
import type { Relationships } from './run.ts'

const TYPES = ['dir', 'workspace', 'tenant']
const LEVELS = 4

/** True when a model can take away inside of a directory what it gives on it. */
export function narrows(model: Model): boolean {
  let found = false
  for (const relations of model.types.values()) {
    for (const { rewrite } of relations.values()) {
      eachRewrite(rewrite, ({ kind }) => {
        found ||= kind === 'difference' || kind === 'intersection'
      })
    }
  }
  return found
}

/**
 * True when whatever has no tuples of its own has the rights of the directory that contains it, so that those can be
 * looked up instead of walking to the root. Tried out, with each relation given at each of a few levels above: where
 * nothing is taken away, rights are the union of what single tuples give, so single tuples are all there is to try.
 */
export function inheritsAll(model: Model, permissions: readonly string[]): boolean {
  return !narrows(model) && inherits(model, permissions, ['dir'])
}

/** True when somebody who may read a directory may be refused a part of what lies in it, be that in a workspace inside. */
export function hides(model: Model): boolean {
  return narrows(model) || !inherits(model, ['read', 'share'], ['dir', 'workspace'])
}

/** @param containers types that may lie in each other, below the one that something is given on */
function inherits(model: Model, permissions: readonly string[], containers: readonly string[]): boolean {
  const tried: Tried = { types: [], relation: '', subject: '' }
  const evaluator = new Evaluator(model, relationshipsOf(tried))
  const rights = (asker: string, object: string): string => permissions.map((one) => evaluator.check(asker, one, object)).join()
  for (const types of chains(containers)) {
    const below = types.slice(1).flatMap((type, i) => [`${type}:${i + 1}`, `file:${i + 1}`])
    for (const { top, relation, given } of gifts(model)) {
      const { subject, askers } = probeOf(model, given)
      Object.assign(tried, { types: [top, ...types.slice(1)], relation, subject })
      for (const asker of askers) {
        const above = rights(asker, `${top}:0`)
        if (below.some((object) => rights(asker, object) !== above)) return false
      }
    }
  }
  return true
}

/** Each way to give something on what contains files. */
function* gifts(model: Model): Generator<{ top: string; relation: string; given: SubjectType }> {
  for (const top of TYPES) {
    for (const [relation, { subjects }] of model.types.get(top) ?? []) {
      if (relation !== CONTAINMENT) for (const given of subjects) yield { top, relation, given }
    }
  }
}

/** A subject of that kind, and who may gain by what it is given: also those to whom it is something, for `x from y`. */
function probeOf(model: Model, { type, relation, wildcard }: SubjectType): { subject: string; askers: string[] } {
  if (wildcard === true) return { subject: `${type}:*`, askers: [`${type}:*`] }
  const subject = `${type}:probe`
  if (relation !== undefined) return { subject: `${subject}#${relation}`, askers: [`${subject}#${relation}`] }
  return { subject, askers: [subject, ...[...(model.types.get(type)?.keys() ?? [])].map((name) => `${subject}#${name}`)] }
}

/** Types from the outside in; the first is left to be said. */
function chains(containers: readonly string[]): string[][] {
  let found: string[][] = [['']]
  for (let level = 0; level < LEVELS; level++) found = found.flatMap((types) => containers.map((type) => [...types, type]))
  return found
}

/** Containers one in the other, with a single tuple on the outermost; beside each of the inner ones lies a file. */
interface Tried {
  types: readonly string[]
  relation: string
  subject: string
}

function relationshipsOf(tried: Tried): Relationships {
  const container = (object: string): string | undefined => {
    const above = Number(object.slice(object.indexOf(':') + 1)) - 1
    const type = tried.types[above]
    return type === undefined ? undefined : `${type}:${above}`
  }
  const subjects = (object: string, asked: string): string[] => {
    if (asked === CONTAINMENT) return [container(object) ?? []].flat()
    return object === `${tried.types[0]}:0` && asked === tried.relation ? [tried.subject] : []
  }
  return {
    subjects,
    has: (object, asked, subject) => subjects(object, asked).includes(subject),
    usersets: (object, asked) => subjects(object, asked).filter((subject) => subject.includes('#')),
    objects: (object, asked) => subjects(object, asked).filter((subject) => !subject.includes('#') && !subject.endsWith(':*')),
  }
}
