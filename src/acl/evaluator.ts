/**
 * Whether a subject has a relation to an object, as OpenFGA 1.1 answers it.
 *
 * A relation of an object is a node, evaluated depth first. Three values are needed: `unknown` is what is beyond the depth
 * limit, or what would follow from its own absence (a cycle through `but not`). It is never an allow, and subtracting it
 * does not make one either.
 *
 * A cycle adds nothing, so a node that is met again while it is evaluated counts as false. What was computed from such a
 * false is provisional until the node that was met again is done: a false makes it final, and a true drops it, because it
 * may be true as well; an unknown makes it unknown. Without that, groups that contain each other would cost as many steps as there are ways through them.
 */
import { type Model, parseObject, parseSubject } from './model.ts'
import { planModel, type RelationPlan, type Step, type TypePlan } from './rewrite.ts'

/** Tuples as the evaluator asks for them. Objects are `type:id`, subjects `type:id`, `type:id#relation` or `type:*`. */
export interface Relationships {
  /** exactly this tuple */
  has(object: string, relation: string, subject: string): boolean
  /** subjects with `#` */
  usersets(object: string, relation: string): Iterable<string>
  /** plain object subjects, for `x from y` */
  objects(object: string, relation: string): Iterable<string>
  /** all of them, to explain */
  subjects(object: string, relation: string): Iterable<string>
}

export interface EvaluatorOptions {
  /** tuples that are followed one from another, as OpenFGA's resolve node limit counts them; 25 like there */
  depthMax?: number
  /** told why a check could not be answered and was therefore denied */
  onRefusal?(why: string): void
}

/** What a check cannot be answered for. OpenFGA: 2002 for `depth`, 2000 for the others. */
export type EvaluationReason = 'subject' | 'object' | 'type' | 'relation' | 'depth'

/** A check that has no answer. */
export class EvaluationError extends Error {
  readonly reason: EvaluationReason

  constructor(reason: EvaluationReason, message: string) {
    super(message)
    this.name = 'EvaluationError'
    this.reason = reason
  }
}

export interface Explanation {
  allowed: boolean
  /** at most 50 lines: why it is allowed, or what was tried */
  steps: string[]
}

const DEPTH_MAX = 25
const EXPLAIN_LINES = 50
/** Nodes that an explanation looks at: where very many ways lead around in circles, it stays general. */
const EXPLAIN_NODES = 2000

/** Answers checks about one model and the tuples behind `relationships`, which may change between two checks. */
export class Evaluator {
  readonly #types: ReadonlyMap<string, TypePlan>
  readonly #relationships: Relationships
  readonly #depthMax: number
  readonly #onRefusal: (why: string) => void

  constructor(model: Model, relationships: Relationships, options: EvaluatorOptions = {}) {
    this.#types = planModel(model)
    this.#relationships = relationships
    this.#depthMax = options.depthMax ?? DEPTH_MAX
    this.#onRefusal = options.onRefusal ?? (() => undefined)
  }

  /** Whether `subject` has `relation` to `object`. False as well, with a call of `onRefusal`, when there is no answer. */
  check(subject: string, relation: string, object: string): boolean {
    try {
      return this.checkStrict(subject, relation, object)
    } catch (error) {
      this.#onRefusal(`${subject} ${relation} ${object}: ${error instanceof Error ? error.message : String(error)}`)
      return false
    }
  }

  /**
   * As `check`, where no answer is an error.
   * @throws EvaluationError what is asked is not in the model, or too deep; and whatever the relationships throw
   */
  checkStrict(subject: string, relation: string, object: string): boolean {
    const asked = this.#subject(subject)
    const plan = this.#target(relation, object)
    return new Run(this.#types, this.#relationships, asked, this.#depthMax).check(plan, object)
  }

  /** Why `subject` has `relation` to `object`, or what was tried. */
  explain(subject: string, relation: string, object: string): Explanation {
    try {
      const asked = this.#subject(subject)
      const plan = this.#target(relation, object)
      return new Explainer(this.#types, this.#relationships, asked, this.#depthMax).explain(plan, object)
    } catch (error) {
      return { allowed: false, steps: [`refused: ${error instanceof Error ? error.message : String(error)}`] }
    }
  }

  #subject(subject: string): Subject {
    const parts = parseSubject(subject)
    if (parts === undefined || (parts.relation !== undefined && parts.id === '*')) {
      throw new EvaluationError('subject', `'${subject}' is not a subject (type:id, type:id#relation or type:*)`)
    }
    const type = this.#types.get(parts.type)
    if (type === undefined) throw new EvaluationError('type', `type '${parts.type}' is not in the model`)
    if (parts.relation === undefined) return { text: subject, object: '', type, relation: undefined, all: parts.id === '*' }
    const relation = type.relations.get(parts.relation)
    if (relation === undefined) throw undefinedRelation(parts.relation, parts.type)
    return { text: subject, object: `${parts.type}:${parts.id}`, type, relation, all: false }
  }

  #target(relation: string, object: string): RelationPlan {
    const parts = parseObject(object)
    if (parts === undefined || parts.id === '*') throw new EvaluationError('object', `'${object}' is not an object (type:id)`)
    const type = this.#types.get(parts.type)
    if (type === undefined) throw new EvaluationError('type', `type '${parts.type}' is not in the model`)
    const plan = type.relations.get(relation)
    if (plan === undefined) throw undefinedRelation(relation, parts.type)
    return plan
  }
}

function undefinedRelation(relation: string, type: string): EvaluationError {
  return new EvaluationError('relation', `relation '${relation}' is not defined for type '${type}'`)
}

/** The subject of a check, in its parts. */
interface Subject {
  readonly text: string
  readonly type: TypePlan
  /** for `group:eng#member`: `group:eng`, and the plan of its `member` */
  readonly object: string
  readonly relation: RelationPlan | undefined
  /** `type:*` */
  readonly all: boolean
}

type Value = 0 | 1 | 2
const FALSE = 0
const TRUE = 1
const UNKNOWN = 2

/** Lower than every position on the stack that a value may depend on: it depends on none. */
const NONE = Number.POSITIVE_INFINITY

/** What is known about a node within one check. */
interface Cell {
  state: 'open' | 'provisional' | 'final'
  value: Value
  /** while it is open: its position on the stack, and whether it was met again */
  position: number
  met: boolean
  /** while it is provisional: the lowest position that it depends on */
  low: number
  /** where it was evaluated: an unknown may be known with more depth left */
  depth: number
  readonly row: (Cell | undefined)[]
  readonly ordinal: number
}

/** One check. */
class Run {
  readonly #types: ReadonlyMap<string, TypePlan>
  readonly #relationships: Relationships
  readonly #subject: Subject
  readonly #depthMax: number
  readonly #rows = new Map<string, (Cell | undefined)[]>()
  readonly #provisional: Cell[] = []
  #height = 0
  /** the lowest position on the stack that the value being computed depends on */
  #low = NONE
  #tooDeep = false

  constructor(types: ReadonlyMap<string, TypePlan>, relationships: Relationships, subject: Subject, depthMax: number) {
    this.#types = types
    this.#relationships = relationships
    this.#subject = subject
    this.#depthMax = depthMax
  }

  check(plan: RelationPlan, object: string): boolean {
    const value = this.#node(plan, object, 0)
    if (value === UNKNOWN && this.#tooDeep) {
      throw new EvaluationError('depth', `more than ${this.#depthMax} relationships would have to be followed`)
    }
    return value === TRUE
  }

  /** Whether one part of a relation's definition holds by itself. */
  holds(step: Step, plan: RelationPlan, object: string): boolean {
    return this.#step(step, plan, object, 0) === TRUE
  }

  #node(plan: RelationPlan, object: string, depth: number): Value {
    if (depth >= this.#depthMax) {
      this.#tooDeep = true
      return UNKNOWN
    }
    const subject = this.#subject
    if (subject.relation === plan && subject.object === object) return TRUE
    if (!plan.reach.has(subject.relation ?? subject.type)) return FALSE

    let row = this.#rows.get(object)
    if (row === undefined) {
      row = []
      this.#rows.set(object, row)
    }
    const known = row[plan.ordinal]
    if (known !== undefined) {
      if (known.state === 'open') {
        known.met = true
        if (known.position < this.#low) this.#low = known.position
        return FALSE
      }
      if (known.value !== UNKNOWN || depth >= known.depth) {
        if (known.state === 'provisional' && known.low < this.#low) this.#low = known.low
        return known.value
      }
    }
    const cell: Cell = {
      state: 'open',
      value: FALSE,
      position: this.#height,
      met: false,
      low: NONE,
      depth,
      row,
      ordinal: plan.ordinal,
    }
    row[plan.ordinal] = cell
    const outerLow = this.#low
    const mark = this.#provisional.length
    this.#low = NONE
    this.#height++
    cell.value = this.#step(plan.step, plan, object, depth)
    this.#height--
    this.#low = Math.min(outerLow, this.#close(cell, mark))
    return cell.value
  }

  /** Ends a node; returns the lowest position that its value still depends on. */
  #close(cell: Cell, mark: number): number {
    const low = this.#low
    if (cell.value === TRUE) {
      cell.state = 'final'
      // What took this node for false may be true, too.
      if (cell.met)
        for (const each of this.#provisional.splice(mark)) if (each.row[each.ordinal] === each) delete each.row[each.ordinal]
      return NONE
    }
    if (cell.value === UNKNOWN && cell.met) this.#doubt(mark)
    if (low >= cell.position) {
      cell.state = 'final'
      if (this.#provisional.length > mark) for (const each of this.#provisional.splice(mark)) each.state = 'final'
      return NONE
    }
    cell.state = 'provisional'
    cell.low = low
    for (let i = mark; i < this.#provisional.length; i++) {
      const each = this.#provisional[i]
      if (each !== undefined && each.low > low) each.low = low
    }
    this.#provisional.push(cell)
    return low
  }

  /** What took a node for false that turned out unknown is unknown as well. */
  #doubt(mark: number): void {
    for (let i = mark; i < this.#provisional.length; i++) {
      const each = this.#provisional[i]
      if (each !== undefined) each.value = UNKNOWN
    }
  }

  #step(step: Step, plan: RelationPlan, object: string, depth: number): Value {
    switch (step.kind) {
      case 'this':
        return this.#direct(plan, object, depth)
      case 'computed':
        return this.#node(step.relation, object, depth)
      case 'from':
        return this.#from(step.tupleset, step.parents, object, depth)
      case 'union':
        return this.#union(step.children, plan, object, depth)
      case 'intersection':
        return this.#intersection(step.children, plan, object, depth)
      case 'difference':
        return this.#difference(step.base, step.subtract, plan, object, depth)
    }
  }

  #direct(plan: RelationPlan, object: string, depth: number): Value {
    const { text, type, relation, all } = this.#subject
    if (relation !== undefined) {
      if (plan.usersets.has(relation) && this.#relationships.has(object, plan.name, text)) return TRUE
    } else {
      if (!all && plan.objects.has(type) && this.#relationships.has(object, plan.name, text)) return TRUE
      if (plan.wildcards.has(type) && this.#relationships.has(object, plan.name, type.wildcard)) return TRUE
    }
    if (plan.usersets.size === 0) return FALSE
    let value: Value = FALSE
    for (const userset of this.#relationships.usersets(object, plan.name)) {
      const hash = userset.indexOf('#')
      const members = this.#types.get(typeOf(userset))?.relations.get(userset.slice(hash + 1))
      // A tuple that the model does not allow any more says nothing.
      if (hash < 0 || members === undefined || !plan.usersets.has(members)) continue
      const inner = this.#node(members, userset.slice(0, hash), depth + 1)
      if (inner === TRUE) return TRUE
      if (inner === UNKNOWN) value = UNKNOWN
    }
    return value
  }

  #from(tupleset: string, parents: ReadonlyMap<TypePlan, RelationPlan>, object: string, depth: number): Value {
    let value: Value = FALSE
    for (const parent of this.#relationships.objects(object, tupleset)) {
      const type = this.#types.get(typeOf(parent))
      const relation = type === undefined ? undefined : parents.get(type)
      if (relation === undefined || !isOneObject(parent)) continue
      const inner = this.#node(relation, parent, depth + 1)
      if (inner === TRUE) return TRUE
      if (inner === UNKNOWN) value = UNKNOWN
    }
    return value
  }

  #union(children: readonly Step[], plan: RelationPlan, object: string, depth: number): Value {
    const low = this.#low
    let value: Value = FALSE
    for (const child of children) {
      const inner = this.#step(child, plan, object, depth)
      if (inner === TRUE) {
        this.#low = low
        return TRUE
      }
      if (inner === UNKNOWN) value = UNKNOWN
    }
    return value
  }

  #intersection(children: readonly Step[], plan: RelationPlan, object: string, depth: number): Value {
    let value: Value = TRUE
    for (const child of children) {
      const inner = this.#step(child, plan, object, depth)
      if (inner === FALSE) return FALSE
      if (inner === UNKNOWN) value = UNKNOWN
    }
    return value
  }

  #difference(base: Step, subtract: Step, plan: RelationPlan, object: string, depth: number): Value {
    const value = this.#step(base, plan, object, depth)
    if (value === FALSE) return FALSE
    const low = this.#low
    this.#low = NONE
    const minus = this.#step(subtract, plan, object, depth)
    const leans = this.#low !== NONE
    this.#low = Math.min(low, this.#low)
    if (minus === TRUE) return FALSE
    // A false that is only so because of a cycle is none to build an allow on.
    return minus === UNKNOWN || leans ? UNKNOWN : value
  }
}

function isOneObject(subject: string): boolean {
  return !subject.endsWith(':*') && !subject.includes('#')
}

function typeOf(subject: string): string {
  return subject.slice(0, subject.indexOf(':'))
}

/** Puts into words what a check finds, by asking the same questions one by one. */
class Explainer {
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
