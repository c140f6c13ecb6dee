/**
 * One call of the API as one object: what it takes, what it answers, what it is for and whether it changes something.
 * Everything else is derived from it: the TypeScript types, the client, the routes, the checks of requests and answers, the
 * tables of `docs/cli-abi.md` and the OpenAPI document.
 */
import * as v from 'valibot'
import { checkObject } from './parameters.ts'
import { checkOf } from './schema.ts'
import { shown, usage } from './text.ts'

/**
 * What a call does:
 *
 * - `read`: nothing changes.
 * - `change`: workspaces, snapshots, rights or quotas change, and the kernel may have to be told.
 * - `operate`: the daemon or its store is put to work (a checkpoint, a collection, the end); what users stored stays.
 */
export type Effect = 'read' | 'change' | 'operate'

/** A parameter that a call cannot do without; it has its place among the arguments of the method. */
export interface Parameter<S extends v.GenericSchema = v.GenericSchema> {
  readonly name: string
  readonly schema: S
}

export interface Call<
  P extends readonly Parameter[] = readonly Parameter[],
  O extends v.ObjectEntries = v.ObjectEntries,
  A extends v.GenericSchema = v.GenericSchema,
> {
  /** one line, in the imperative */
  readonly summary: string
  readonly effect: Effect
  readonly params: P
  /** those that have names: the last argument of the method, an object whose absent fields stay absent */
  readonly options?: O
  readonly answer: A
}

export function parameter<const S extends v.GenericSchema>(name: string, schema: S): Parameter<S> {
  return { name, schema }
}

/** An option that may be absent. */
export const optional = v.exactOptional

/** Gives back the call that it was given, with the types of its parts. */
export function call<
  const P extends readonly Parameter[],
  A extends v.GenericSchema,
  // biome-ignore lint/complexity/noBannedTypes: a call without options has none
  const O extends v.ObjectEntries = {},
>(made: Call<P, O, A>): Call<P, O, A> {
  return made
}

type Positional<P> = { -readonly [I in keyof P]: P[I] extends Parameter<infer S> ? v.InferOutput<S> : never }
type Named<O> = O extends v.ObjectEntries
  ? [keyof O] extends [never]
    ? []
    : [options: v.InferOutput<v.ObjectSchema<O, undefined>>]
  : []

/** The arguments of the method. */
export type ArgumentsOf<C extends Pick<Call, 'params' | 'options'>> =
  Positional<C['params']> extends infer P extends unknown[] ? [...P, ...Named<Exclude<C['options'], undefined>>] : never

/** What the method gives. */
export type AnswerOf<C extends Pick<Call, 'answer'>> = v.InferOutput<C['answer']>

export type Fields = Record<string, unknown>

/** The fields that the body of a call may have. */
export function fieldsOf({ params, options = {} }: Call): string[] {
  return [...params.map(({ name }) => name), ...Object.keys(options)]
}

/** The body that carries these arguments. */
export function encode({ params }: Call, args: readonly unknown[]): Fields {
  const named = args[params.length] as Fields | undefined
  return { ...Object.fromEntries(params.map(({ name }, i) => [name, args[i]])), ...named }
}

/**
 * The arguments that a body carries, each checked.
 * @param name of the call, for messages
 * @throws NexusError NEXUS_USAGE
 */
export function decode(name: string, call: Call, body: unknown): unknown[] {
  const fields = checkObject(body, 'the body')
  const known = fieldsOf(call)
  const stranger = Object.keys(fields).find((key) => !known.includes(key))
  if (stranger !== undefined) {
    throw usage(`${name} has no field ${shown(stranger)}: it takes ${known.join(', ') || 'none'}`)
  }
  const positional = call.params.map(({ name, schema }) => checkOf(schema)(fields[name], name))
  return call.options === undefined ? positional : [...positional, optionsIn(call.options, fields)]
}

function optionsIn(options: v.ObjectEntries, fields: Fields): Fields {
  const rows = Object.entries(options).filter(([name, schema]) => schema.type !== 'exact_optional' || Object.hasOwn(fields, name))
  return Object.fromEntries(rows.map(([name, schema]) => [name, checkOf(schema as v.GenericSchema)(fields[name], name)]))
}
