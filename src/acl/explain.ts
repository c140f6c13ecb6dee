/** Why a check is answered as it is: the chain of tuples that gives a right, or the ways that were tried. */
import type { RelationPlan, Step, TypePlan } from './rewrite.ts'
import { EvaluationError, isOneObject, type Relationships, Run, type Subject, typeOf } from './run.ts'

export interface Explanation {
  allowed: boolean
  /** at most 50 lines: why it is allowed, or what was tried */
  steps: string[]
}
const EXPLAIN_LINES = 50
/** Nodes that an explanation looks at: where very many ways lead around in circles, it stays general. */
const EXPLAIN_NODES = 2000

/** Puts into words what a check finds, by asking the same questions one by one. */
export class Explainer {
  readonly #types: ReadonlyMap<string, TypePlan>
  readonly #relationships: Relationships
  readonly #subject: Subject
  readonly #depthMax: number
  readonly #seen = new Set<string>()
  #lines: string[] = []
  #budget = EXPLAIN_NODES

  constructor(types: ReadonlyMap<string, TypePlan>, relationships: Relationships, subject: Subject, depthMax: number) {
    this.#types = types
    this.#relationships = relationships
    this.#subject = subject
    this.#depthMax = depthMax
  }

  explain(plan: RelationPlan, object: string): Explanation {
    let allowed = false
    try {
      allowed = this.#run().check(plan, object)
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error
      this.#lines.push(`refused: ${error.message}`)
    }
    if (allowed) this.#lines = this.#proof(plan, object) ?? [`${this.#subject.text} is ${plan.name} of ${object}`]
    else this.#denial(plan, object)
    return { allowed, steps: cut(this.#lines) }
  }

  #run(): Run {
    return new Run(this.#types, this.#relationships, this.#subject, this.#depthMax)
  }

  /** The steps that lead to this node, the first one first; undefined when they would lead in a circle. */
  #proof(plan: RelationPlan, object: string): string[] | undefined {
    if (this.#subject.relation === plan && this.#subject.object === object) return []
    const key = `${object}#${plan.name}`
    if (this.#budget-- <= 0 || this.#seen.has(key) || !this.#run().holds(plan.step, plan, object)) return undefined
    this.#seen.add(key)
    const steps = this.#proofOf(plan.step, plan, object)
    this.#seen.delete(key)
    return steps
  }

  #proofOf(step: Step, plan: RelationPlan, object: string): string[] | undefined {
    if (step.kind === 'this') return this.#directProof(plan, object)
    if (step.kind === 'computed') return this.#proof(step.relation, object)?.concat(comesFrom(plan, object, step.relation.name))
    if (step.kind === 'union') return first(step.children, (child) => this.#proofOf(child, plan, object))
    if (step.kind === 'from') {
      return first(this.#parents(step, object), ({ parent, relation }) =>
        this.#proof(relation, parent)?.concat(
          tuple(parent, step.tupleset, object),
          comesFrom(plan, object, `${step.computed} on ${parent}`),
        ),
      )
    }
    if (step.kind === 'difference') {
      if (this.#run().holds(step.subtract, plan, object)) return undefined
      return this.#proofOf(step.base, plan, object)?.concat(
        `${this.#subject.text} is not ${stepText(step.subtract)} of ${object}`,
      )
    }
    const all = step.children.map((child) => this.#proofOf(child, plan, object))
    return all.includes(undefined) ? undefined : all.flatMap((each) => each ?? [])
  }

  #directProof(plan: RelationPlan, object: string): string[] | undefined {
    const given = this.#given(plan, object)
    if (given !== undefined) return [tuple(given, plan.name, object)]
    return first(this.#usersets(plan, object), ({ userset, members, of }) =>
      this.#proof(members, of)?.concat(tuple(userset, plan.name, object)),
    )
  }

  #denial(plan: RelationPlan, object: string): void {
    const { text, type, relation } = this.#subject
    const key = `${object}#${plan.name}`
    if (this.#seen.has(key) || this.#lines.length > EXPLAIN_LINES || this.#budget-- <= 0) return
    this.#seen.add(key)
    if (plan.reach.has(relation ?? type)) {
      this.#denialOf(plan.step, plan, object)
      return
    }
    this.#lines.push(
      `${text} cannot be ${plan.name} of ${object}: the model has no way from ${relation ? text : type.name} to it`,
    )
  }

  #denialOf(step: Step, plan: RelationPlan, object: string): void {
    const { text } = this.#subject
    switch (step.kind) {
      case 'this':
        this.#directDenial(plan, object)
        return
      case 'computed':
        this.#lines.push(`${plan.name} on ${object} could come from ${step.relation.name}`)
        this.#denial(step.relation, object)
        return
      case 'from': {
        const parents = [...this.#parents(step, object)]
        if (parents.length === 0) this.#lines.push(`${object} has no ${step.tupleset} that has ${step.computed}`)
        for (const { parent, relation } of parents) {
          this.#lines.push(`${plan.name} on ${object} could come from ${step.computed} on ${parent}`)
          this.#denial(relation, parent)
        }
        return
      }
      case 'union':
        for (const child of step.children) this.#denialOf(child, plan, object)
        return
      case 'intersection':
        this.#lines.push(`${plan.name} on ${object} needs all of ${stepText(step)}`)
        for (const child of step.children) if (!this.#run().holds(child, plan, object)) this.#denialOf(child, plan, object)
        return
      case 'difference':
        if (!this.#run().holds(step.base, plan, object)) {
          this.#denialOf(step.base, plan, object)
          return
        }
        this.#lines.push(
          `${plan.name} on ${object} is taken away: ${text} is, or may be, ${stepText(step.subtract)} of ${object}`,
        )
        this.#lines.push(...(this.#takenAway(step.subtract, plan, object) ?? []))
    }
  }

  /** Why what is subtracted holds; without the line that it makes the whole, as it does the opposite. */
  #takenAway(step: Step, plan: RelationPlan, object: string): string[] | undefined {
    return step.kind === 'computed' ? this.#proof(step.relation, object) : this.#proofOf(step, plan, object)
  }

  #directDenial(plan: RelationPlan, object: string): void {
    const { text } = this.#subject
    this.#lines.push(`${text} was not given ${plan.name} of ${object}`)
    const usable = [...this.#usersets(plan, object)]
    for (const { userset, members, of } of usable) {
      this.#lines.push(`${tuple(userset, plan.name, object)}, and ${text} is not in it`)
      this.#denial(members, of)
    }
    for (const each of this.#relationships.subjects(object, plan.name)) {
      const ours = each === text || each === this.#subject.type.wildcard || each.includes('#')
      if (ours && !usable.some(({ userset }) => userset === each)) {
        this.#lines.push(`${tuple(each, plan.name, object)} is ignored: the model does not allow it`)
      }
    }
  }

  /** The tuple that gives it to the subject itself, or to all of its type. */
  #given(plan: RelationPlan, object: string): string | undefined {
    const { text, type, relation, all } = this.#subject
    const own = relation === undefined ? !all && plan.objects.has(type) : plan.usersets.has(relation)
    if (own && this.#relationships.has(object, plan.name, text)) return text
    const public_ =
      relation === undefined && plan.wildcards.has(type) && this.#relationships.has(object, plan.name, type.wildcard)
    return public_ ? type.wildcard : undefined
  }

  *#usersets(plan: RelationPlan, object: string): Generator<{ userset: string; members: RelationPlan; of: string }> {
    for (const userset of this.#relationships.usersets(object, plan.name)) {
      const hash = userset.indexOf('#')
      const members = this.#types.get(typeOf(userset))?.relations.get(userset.slice(hash + 1))
      if (members !== undefined && plan.usersets.has(members)) yield { userset, members, of: userset.slice(0, hash) }
    }
  }

  *#parents(step: Step & { kind: 'from' }, object: string): Generator<{ parent: string; relation: RelationPlan }> {
    for (const parent of this.#relationships.objects(object, step.tupleset)) {
      const type = this.#types.get(typeOf(parent))
      const relation = type === undefined ? undefined : step.parents.get(type)
      if (relation !== undefined && isOneObject(parent)) yield { parent, relation }
    }
  }
}

function first<T, R>(all: Iterable<T>, find: (each: T) => R | undefined): R | undefined {
  for (const each of all) {
    const found = find(each)
    if (found !== undefined) return found
  }
  return undefined
}

function tuple(subject: string, relation: string, object: string): string {
  return relation === 'parent' ? `${subject} contains ${object}` : `${subject} is ${relation} of ${object}`
}

function comesFrom(plan: RelationPlan, object: string, source: string): string {
  return `${plan.name} on ${object} comes from ${source}`
}

function stepText(step: Step): string {
  if (step.kind === 'this') return 'given it directly'
  if (step.kind === 'computed') return step.relation.name
  if (step.kind === 'from') return `${step.computed} from ${step.tupleset}`
  if (step.kind === 'difference') return `(${stepText(step.base)} but not ${stepText(step.subtract)})`
  return `(${step.children.map(stepText).join(step.kind === 'union' ? ' or ' : ' and ')})`
}

/** Two ways may share steps: each is said once, and no more than anybody would read. */
function cut(lines: string[]): string[] {
  const unique = [...new Set(lines)]
  if (unique.length <= EXPLAIN_LINES) return unique
  return [...unique.slice(0, EXPLAIN_LINES - 1), '… and more']
}
