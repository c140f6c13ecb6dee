/**
 * Who may have which relation to what: a model in OpenFGA's modelling language, schema 1.1.
 *
 * The text is read by OpenFGA's own parser and validator, so that a model means here what it means there. Conditions are
 * refused: to ignore one would allow what it forbids.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { NexusError, systemCode } from '../errors.ts'
import { eachRewrite, type Rewrite, type RewriteJson, rewriteFromJson } from './rewrite.ts'

export type { Rewrite } from './rewrite.ts'

/** Who may be given a relation: `user`, `group#member` or `user:*`. */
export interface SubjectType {
  readonly type: string
  readonly relation?: string
  readonly wildcard?: true
}

export interface Relation {
  readonly rewrite: Rewrite
  /** who may be given it directly; none where the rewrite has no `[…]` */
  readonly subjects: readonly SubjectType[]
}

export interface Model {
  readonly text: string
  readonly types: ReadonlyMap<string, ReadonlyMap<string, Relation>>
}

/** `subject` has `relation` to `object`. */
export interface Tuple {
  readonly subject: string
  readonly relation: string
  readonly object: string
}

/** A model as OpenFGA's API writes it, as far as it is read here. */
interface ModelJson {
  schema_version?: string
  conditions?: Record<string, unknown>
  type_definitions?: TypeJson[]
}

interface TypeJson {
  type?: string
  relations?: Record<string, RewriteJson> | null
  metadata?: { relations?: Record<string, { directly_related_user_types?: SubjectJson[] }> | null } | null
}

interface SubjectJson {
  type?: string
  relation?: string
  wildcard?: object
  condition?: string
}

/** What the filesystem asks of a type that stands for something in it. */
const objectTypes = ['dir', 'file', 'workspace', 'tenant'] as const
const objectRelations = ['parent', 'owner', 'editor', 'viewer', 'read', 'write', 'share', 'snapshot', 'restore'] as const
const parentTypes = ['dir', 'workspace', 'tenant'] as const

/** OpenFGA's parser takes longer to load than all of nexus: only who has a text to read waits for it. */
function parser(): typeof import('@openfga/syntax-transformer') {
  return createRequire(import.meta.url)('@openfga/syntax-transformer')
}

/**
 * The model that this text states.
 * @throws NexusError NEXUS_USAGE naming the line and what is off
 */
export function parseModel(text: string): Model {
  return { ...modelFromJson(jsonOf(text)), text }
}

function jsonOf(text: string): ModelJson {
  refuseDepth(text)
  const { transformer, validator } = parser()
  const json = withLine(text, () => transformer.transformDSLToJSONObject(text)) as ModelJson
  refuseConditions(json, text)
  withLine(text, () => validator.validateDSL(text))
  return json
}

/** The parser takes seconds for sixty, and minutes for some hundreds. */
const PARENTHESES_DEEP_MAX = 16

function refuseDepth(text: string): void {
  let depth = 0
  for (const [index, line] of text.split('\n').entries()) {
    for (const [parenthesis] of line.replace(/(^|\s)#.*/, '').matchAll(/[()]/g)) {
      depth = parenthesis === '(' ? depth + 1 : Math.max(0, depth - 1)
      if (depth <= PARENTHESES_DEEP_MAX) continue
      const why = `more than ${PARENTHESES_DEEP_MAX} parentheses inside each other`
      throw new NexusError('NEXUS_USAGE', `line ${index + 1} of the model: ${why}; make relations of the inner ones`)
    }
  }
}

/** The model that this JSON of OpenFGA's API states; the parser makes it of a text, and this does not validate it again. */
export function modelFromJson(json: object): Model {
  const model = json as ModelJson
  refuseConditions(model, '')
  if (model.schema_version !== '1.1') {
    throw new NexusError('NEXUS_USAGE', `the model has schema ${model.schema_version ?? 'none'}; write "schema 1.1"`)
  }
  const types = new Map<string, ReadonlyMap<string, Relation>>()
  for (const each of model.type_definitions ?? []) types.set(each.type ?? '', relationsOf(each))
  return { text: JSON.stringify(json), types }
}

let builtin: Model | undefined

/** Not compiled: it is read where it lies in the source, beside dist. */
const BUILTIN = new URL('../../../src/acl/builtin.fga', import.meta.url)
/** What the parser made of it when nexus was built. */
const BUILTIN_PARSED = new URL('builtin.json', import.meta.url)

interface Parsed {
  text: string
  json: ModelJson
}

/** The model that is used where nobody gave another (builtin.fga). */
export function builtinModel(): Model {
  builtin ??= readBuiltin()
  return builtin
}

function readBuiltin(): Model {
  const text = readFileSync(BUILTIN, 'utf8')
  const parsed = readParsed()
  return parsed?.text === text ? { ...modelFromJson(parsed.json), text } : parseModel(text)
}

function readParsed(): Parsed | undefined {
  try {
    return JSON.parse(readFileSync(BUILTIN_PARSED, 'utf8')) as Parsed
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && !(error instanceof SyntaxError)) throw error
    return undefined
  }
}

/** For the build: the file that spares every start the parser. */
export function parsedBuiltin(): { url: URL; content: string } {
  const text = readFileSync(BUILTIN, 'utf8')
  const parsed: Parsed = { text, json: jsonOf(text) }
  return { url: BUILTIN_PARSED, content: JSON.stringify(parsed) }
}

/**
 * States that the filesystem can ask this model what it needs.
 * @throws NexusError NEXUS_USAGE naming everything that is missing
 */
export function checkFilesystemModel(model: Model): void {
  const missing: string[] = []
  for (const type of ['user', 'agent']) if (!model.types.has(type)) missing.push(`type ${type}`)
  needs(model, 'group', ['member'], missing)
  for (const type of objectTypes) {
    needs(model, type, type === 'tenant' ? [...objectRelations, 'member'] : objectRelations, missing)
    const parent = model.types.get(type)?.get('parent')
    if (parent === undefined) continue
    for (const above of parentTypes) {
      const given = parent.subjects.some((each) => each.type === above && each.relation === undefined && !each.wildcard)
      if (!given) missing.push(`${above} among those that may be parent of ${type}`)
    }
    // What lies in what is stated by tuples alone: a parent that is computed would not be found.
    if (parent.rewrite.kind !== 'this') missing.push(`a parent of ${type} that is only given directly`)
  }
  if (missing.length === 0) return
  throw new NexusError(
    'NEXUS_USAGE',
    `the model lacks ${missing.join(', ')}; add what is missing, or start from the built-in model`,
  )
}

/** Why the model does not permit this tuple, or undefined when it does. */
export function allowsTuple(model: Model, { subject, relation, object }: Tuple): string | undefined {
  const target = parseObject(object)
  if (target === undefined) return `'${object}' is not an object; write type:id`
  if (target.id === '*') return `'${object}' stands for all of a type; name one object`
  const relations = model.types.get(target.type)
  if (relations === undefined) return `type '${target.type}' is not in the model`
  const definition = relations.get(relation)
  if (definition === undefined) return `relation '${relation}' is not defined for type '${target.type}'`

  const given = parseSubject(subject)
  if (given === undefined) return `'${subject}' is not a subject; write type:id, type:id#relation or type:*`
  const subjectRelations = model.types.get(given.type)
  if (subjectRelations === undefined) return `type '${given.type}' is not in the model`
  if (given.relation !== undefined && !subjectRelations.has(given.relation)) {
    return `relation '${given.relation}' is not defined for type '${given.type}'`
  }
  if (given.relation !== undefined && given.id === '*')
    return `'${subject}' is both all of a type and a set; it can be one of them`
  const allObjects = given.id === '*'
  if ((allObjects || given.relation !== undefined) && isTupleset(relations, relation)) {
    return `'${relation}' of '${target.type}' is followed to other objects; its subject must be one object`
  }
  const allowed = definition.subjects.some(
    (each) => each.type === given.type && each.relation === given.relation && (each.wildcard ?? false) === allObjects,
  )
  if (allowed) return undefined
  const kind = subjectTypeText({
    type: given.type,
    ...(given.relation !== undefined && { relation: given.relation }),
    ...(allObjects && { wildcard: true }),
  })
  const those = definition.subjects.map(subjectTypeText).join(', ')
  const hint = those === '' ? 'it follows from other relations' : `it can be given to ${those}`
  return `'${kind}' cannot be given '${relation}' of '${target.type}': ${hint}`
}

/** `type:id` in its parts, or undefined when it is malformed. */
export function parseObject(object: string): { type: string; id: string } | undefined {
  const parts = /^([^\s:#@]+):([^\s:#]+)$/.exec(object)
  return parts === null ? undefined : { type: parts[1] ?? '', id: parts[2] ?? '' }
}

/** `type:id`, `type:*` or `type:id#relation` in its parts, or undefined when it is malformed. */
export function parseSubject(subject: string): { type: string; id: string; relation: string | undefined } | undefined {
  const parts = /^([^\s:#@]+):([^\s:#]+)(?:#([^\s:#@]+))?$/.exec(subject)
  return parts === null ? undefined : { type: parts[1] ?? '', id: parts[2] ?? '', relation: parts[3] }
}

/** `user`, `user:*` or `group#member`. */
export function subjectTypeText({ type, relation, wildcard }: SubjectType): string {
  if (wildcard) return `${type}:*`
  return relation === undefined ? type : `${type}#${relation}`
}

function needs(model: Model, type: string, relations: readonly string[], missing: string[]): void {
  const defined = model.types.get(type)
  if (defined === undefined) {
    missing.push(`type ${type}`)
    return
  }
  for (const relation of relations) if (!defined.has(relation)) missing.push(`relation ${relation} of ${type}`)
}

function isTupleset(relations: ReadonlyMap<string, Relation>, relation: string): boolean {
  let found = false
  for (const { rewrite } of relations.values()) {
    eachRewrite(rewrite, (each) => {
      if (each.kind === 'from' && each.tupleset === relation) found = true
    })
  }
  return found
}

function relationsOf({ type = '', relations, metadata }: TypeJson): ReadonlyMap<string, Relation> {
  const result = new Map<string, Relation>()
  for (const [name, rewrite] of Object.entries(relations ?? {})) {
    const subjects = metadata?.relations?.[name]?.directly_related_user_types ?? []
    result.set(name, {
      rewrite: rewriteFromJson(rewrite, `relation ${name} of ${type}`),
      subjects: subjects.map(subjectType),
    })
  }
  return result
}

function subjectType({ type = '', relation, wildcard }: SubjectJson): SubjectType {
  if (wildcard !== undefined) return { type, wildcard: true }
  return relation === undefined || relation === '' ? { type } : { type, relation }
}

function refuseConditions(json: ModelJson, text: string): void {
  const used = (json.type_definitions ?? []).some((type) =>
    Object.values(type.metadata?.relations ?? {}).some((relation) =>
      relation.directly_related_user_types?.some(({ condition }) => condition !== undefined && condition !== ''),
    ),
  )
  if (!used && Object.keys(json.conditions ?? {}).length === 0) return
  const line = text.split('\n').findIndex((each) => /^\s*condition\b|^[^#]*\[[^\]]*\bwith\b/.test(each)) + 1
  const where = line === 0 ? 'the model' : `line ${line} of the model`
  throw new NexusError('NEXUS_USAGE', `${where}: conditions are not supported; state it with relations alone`)
}

/** Runs the parser; what it finds wrong becomes one message with the line of the first mistake. */
function withLine<T>(text: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    const first = firstMistake(error)
    const line = first?.line === undefined ? 'the model' : `line ${Math.min(first.line + 1, lineCount(text))} of the model`
    const what = (first?.message ?? (error instanceof Error ? error.message : String(error)))
      .replaceAll('\n', '\\n')
      .replace(/\.+$/, '')
    throw new NexusError('NEXUS_USAGE', `${line}: ${what}; correct it and try again`, { cause: error })
  }
}

function firstMistake(error: unknown): { line: number | undefined; message: string } | undefined {
  if (!(error instanceof Error) || !('errors' in error) || !Array.isArray(error.errors)) return undefined
  const first = error.errors[0] as { msg?: string; line?: { start?: number } } | undefined
  return first === undefined ? undefined : { line: first.line?.start, message: first.msg ?? 'cannot be read' }
}

function lineCount(text: string): number {
  return Math.max(1, text.split('\n').length)
}
