/** Checks about a model and its tuples, as OpenFGA 1.1 answers them: run.ts has how, explain.ts why. */
import { Explainer, type Explanation } from './explain.ts'
import { type Model, parseObject, parseSubject } from './model.ts'
import { planModel, type RelationPlan, type TypePlan } from './rewrite.ts'
import { EvaluationError, type Relationships, Run, type Subject } from './run.ts'

export interface EvaluatorOptions {
  /** tuples that are followed one from another, as OpenFGA's resolve node limit counts them; 25 like there */
  depthMax?: number
  /** told why a check could not be answered and was therefore denied */
  onRefusal?(why: string): void
}
const DEPTH_MAX = 25

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
