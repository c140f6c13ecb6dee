/**
 * How a relation is made of others: the right side of a `define` (docs of OpenFGA, "Configuration Language"), read from the
 * JSON that OpenFGA's parser makes of a model.
 */
import { NexusError } from '../errors.ts'
import type { Model } from './model.ts'

/** The right side of a `define`. */
export type Rewrite =
  /** `[user, group#member]`: who was given this relation itself */
  | { readonly kind: 'this' }
  /** `editor`: who has that relation to the same object */
  | { readonly kind: 'computed'; readonly relation: string }
  /** `editor from parent`: who has `computed` to an object that is `tupleset` of this one */
  | { readonly kind: 'from'; readonly tupleset: string; readonly computed: string }
  /** `a or b` */
  | { readonly kind: 'union'; readonly children: readonly Rewrite[] }
  /** `a and b` */
  | { readonly kind: 'intersection'; readonly children: readonly Rewrite[] }
  /** `base but not subtract` */
  | { readonly kind: 'difference'; readonly base: Rewrite; readonly subtract: Rewrite }

/** A rewrite as OpenFGA's API writes it: one of these is there. */
export interface RewriteJson {
  this?: object
  computedUserset?: { relation?: string }
  tupleToUserset?: { tupleset?: { relation?: string }; computedUserset?: { relation?: string } }
  union?: { child?: RewriteJson[] }
  intersection?: { child?: RewriteJson[] }
  difference?: { base?: RewriteJson; subtract?: RewriteJson }
}

/**
 * The rewrite that this JSON states.
 * @param where what is being read, for the message when it is none
 */
export function rewriteFromJson(json: RewriteJson | undefined, where: string): Rewrite {
  if (json?.this !== undefined) return { kind: 'this' }
  if (json?.computedUserset !== undefined) return { kind: 'computed', relation: named(json.computedUserset.relation, where) }
  if (json?.tupleToUserset !== undefined) {
    const { tupleset, computedUserset } = json.tupleToUserset
    return { kind: 'from', tupleset: named(tupleset?.relation, where), computed: named(computedUserset?.relation, where) }
  }
  if (json?.union !== undefined) return { kind: 'union', children: children(json.union.child, where) }
  if (json?.intersection !== undefined) return { kind: 'intersection', children: children(json.intersection.child, where) }
  if (json?.difference !== undefined) {
    const { base, subtract } = json.difference
    return { kind: 'difference', base: rewriteFromJson(base, where), subtract: rewriteFromJson(subtract, where) }
  }
  throw new NexusError('NEXUS_USAGE', `${where} is defined by something unknown; use OpenFGA's schema 1.1`)
}

/** Calls `visit` with this rewrite and every one in it. */
export function eachRewrite(rewrite: Rewrite, visit: (rewrite: Rewrite) => void): void {
  visit(rewrite)
  if (rewrite.kind === 'union' || rewrite.kind === 'intersection') for (const child of rewrite.children) eachRewrite(child, visit)
  if (rewrite.kind !== 'difference') return
  eachRewrite(rewrite.base, visit)
  eachRewrite(rewrite.subtract, visit)
}

function children(json: RewriteJson[] | undefined, where: string): Rewrite[] {
  if (json === undefined || json.length === 0) throw new NexusError('NEXUS_USAGE', `${where} combines nothing; name its parts`)
  return json.map((child) => rewriteFromJson(child, where))
}

function named(relation: string | undefined, where: string): string {
  if (relation === undefined || relation === '') {
    throw new NexusError('NEXUS_USAGE', `${where} uses a relation without a name; name it`)
  }
  return relation
}

/** A type with its relations, its names looked up once and for all. */
export interface TypePlan {
  readonly name: string
  /** `type:*` */
  readonly wildcard: string
  readonly relations: ReadonlyMap<string, RelationPlan>
}

export interface RelationPlan {
  readonly type: TypePlan
  readonly name: string
  /** position among the relations of its type */
  readonly ordinal: number
  readonly step: Step
  /** types of which one object, and of which all objects at once, may be given it directly */
  readonly objects: ReadonlySet<TypePlan>
  readonly wildcards: ReadonlySet<TypePlan>
  /** sets that may be given it directly */
  readonly usersets: ReadonlySet<RelationPlan>
  /** everything that any path through the model leads to: a subject that is none of it cannot have the relation */
  readonly reach: ReadonlySet<TypePlan | RelationPlan>
}

/** A rewrite with its names looked up. Cheap children come first where the order does not matter. */
export type Step =
  | { readonly kind: 'this' }
  | { readonly kind: 'computed'; readonly relation: RelationPlan }
  | {
      readonly kind: 'from'
      readonly tupleset: string
      readonly computed: string
      readonly parents: ReadonlyMap<TypePlan, RelationPlan>
    }
  | { readonly kind: 'union'; readonly children: readonly Step[] }
  | { readonly kind: 'intersection'; readonly children: readonly Step[] }
  | { readonly kind: 'difference'; readonly base: Step; readonly subtract: Step }

interface Draft extends RelationPlan {
  step: Step
  readonly objects: Set<TypePlan>
  readonly wildcards: Set<TypePlan>
  readonly usersets: Set<RelationPlan>
  readonly reach: Set<TypePlan | RelationPlan>
}

interface TypeDraft extends TypePlan {
  readonly relations: Map<string, Draft>
}

const unset: Step = { kind: 'this' }
const costs: Record<Step['kind'], number> = { this: 0, computed: 1, union: 2, intersection: 2, difference: 2, from: 3 }

/** The model with every name looked up, by the names of types. */
export function planModel(model: Model): ReadonlyMap<string, TypePlan> {
  const plans = planned.get(model) ?? makePlans(model)
  planned.set(model, plans)
  return plans
}

/** Those who ask about one model share its plans. */
const planned = new WeakMap<Model, ReadonlyMap<string, TypePlan>>()

function makePlans(model: Model): ReadonlyMap<string, TypePlan> {
  const types = new Map<string, TypeDraft>()
  for (const [name, relations] of model.types) {
    const type = { name, wildcard: `${name}:*`, relations: new Map<string, Draft>() }
    for (const relation of relations.keys()) type.relations.set(relation, draft(type, relation, type.relations.size))
    types.set(name, type)
  }
  const find = (type: string, relation: string): Draft => {
    const found = types.get(type)?.relations.get(relation)
    if (found === undefined)
      throw new NexusError('NEXUS_USAGE', `relation '${relation}' is not defined for type '${type}'; define it`)
    return found
  }
  for (const [name, relations] of model.types) {
    for (const [relation, { subjects }] of relations) {
      const plan = find(name, relation)
      for (const each of subjects) {
        const type = types.get(each.type)
        if (type === undefined) throw new NexusError('NEXUS_USAGE', `type '${each.type}' is not in the model; add it`)
        if (each.relation !== undefined) plan.usersets.add(find(each.type, each.relation))
        else if (each.wildcard) plan.wildcards.add(type)
        else plan.objects.add(type)
      }
    }
  }
  const drafts: Draft[] = []
  for (const [name, relations] of model.types) {
    for (const [relation, { rewrite }] of relations) {
      const plan = find(name, relation)
      plan.step = stepOf(rewrite, name, find)
      drafts.push(plan)
    }
  }
  while (drafts.some(grow));
  return types
}

function draft(type: TypePlan, name: string, ordinal: number): Draft {
  const plan = {
    type,
    name,
    ordinal,
    step: unset,
    objects: new Set<TypePlan>(),
    wildcards: new Set<TypePlan>(),
    usersets: new Set<RelationPlan>(),
    reach: new Set<TypePlan | RelationPlan>(),
  }
  plan.reach.add(plan)
  return plan
}

function stepOf(rewrite: Rewrite, type: string, find: (type: string, relation: string) => Draft): Step {
  switch (rewrite.kind) {
    case 'this':
      return rewrite
    case 'computed':
      return { kind: 'computed', relation: find(type, rewrite.relation) }
    case 'from': {
      const parents = new Map<TypePlan, RelationPlan>()
      for (const parent of find(type, rewrite.tupleset).objects) {
        const relation = parent.relations.get(rewrite.computed)
        if (relation !== undefined) parents.set(parent, relation)
      }
      return { kind: 'from', tupleset: rewrite.tupleset, computed: rewrite.computed, parents }
    }
    case 'difference':
      return { kind: 'difference', base: stepOf(rewrite.base, type, find), subtract: stepOf(rewrite.subtract, type, find) }
    default: {
      const children = rewrite.children.map((child) => stepOf(child, type, find))
      return { kind: rewrite.kind, children: children.sort((a, b) => costs[a.kind] - costs[b.kind]) }
    }
  }
}

/** Adds to `reach` what its parts reach by now; true when that was more. */
function grow(plan: Draft): boolean {
  const before = plan.reach.size
  reachOf(plan.step, plan)
  return plan.reach.size > before
}

function reachOf(step: Step, plan: Draft): void {
  if (step.kind === 'union' || step.kind === 'intersection') for (const child of step.children) reachOf(child, plan)
  // Who is only subtracted never gets in.
  if (step.kind === 'difference') reachOf(step.base, plan)
  if (step.kind === 'computed') merge(plan, step.relation)
  if (step.kind === 'from') for (const relation of step.parents.values()) merge(plan, relation)
  if (step.kind !== 'this') return
  for (const type of plan.objects) plan.reach.add(type)
  for (const type of plan.wildcards) plan.reach.add(type)
  for (const relation of plan.usersets) merge(plan, relation)
}

function merge(plan: Draft, from: RelationPlan): void {
  for (const each of from.reach) plan.reach.add(each)
}
