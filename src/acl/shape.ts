/** What a model means for a tree: questions that are asked of it once, so that they need not be asked of each inode. */
import { Evaluator, type Relationships } from './evaluator.ts'
import { allowsTuple, type Model } from './model.ts'
import { eachRewrite } from './rewrite.ts'

const SUBJECT = 'user:probe'
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
  if (narrows(model)) return false
  return TYPES.every((top) =>
    [...(model.types.get(top)?.keys() ?? [])].every((relation) => {
      if (allowsTuple(model, { subject: SUBJECT, relation, object: `${top}:0` }) !== undefined) return true
      const evaluator = new Evaluator(model, chain(top, relation))
      const rights = (object: string): string => permissions.map((one) => evaluator.check(SUBJECT, one, object)).join()
      const above = rights(`${top}:0`)
      const below = Array.from({ length: LEVELS }, (_, level) => [`dir:${level + 1}`, `file:${level + 1}`]).flat()
      return below.every((object) => rights(object) === above)
    }),
  )
}

/** Directories one in the other, the outermost of a type, with a single tuple on that; beside each directory a file. */
function chain(top: string, relation: string): Relationships {
  const container = (object: string): string | undefined => {
    const level = Number(object.slice(object.indexOf(':') + 1))
    if (level === 0) return undefined
    return level === 1 ? `${top}:0` : `dir:${level - 1}`
  }
  const subjects = (object: string, asked: string): string[] => {
    if (asked === 'parent') return [container(object) ?? []].flat()
    return object === `${top}:0` && asked === relation ? [SUBJECT] : []
  }
  return {
    subjects,
    has: (object, asked, subject) => subjects(object, asked).includes(subject),
    usersets: () => [],
    objects: (object, asked) => subjects(object, asked).filter((subject) => subject !== SUBJECT),
  }
}
