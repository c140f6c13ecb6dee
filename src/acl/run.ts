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
import type { RelationPlan, Step, TypePlan } from './rewrite.ts'

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
/** The subject of a check, in its parts. */
export interface Subject {
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
export class Run {
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

export function isOneObject(subject: string): boolean {
  return !subject.endsWith(':*') && !subject.includes('#')
}

export function typeOf(subject: string): string {
  return subject.slice(0, subject.indexOf(':'))
}
