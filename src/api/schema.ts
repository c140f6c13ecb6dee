/**
 * How calls describe values: schemas of valibot, which give the TypeScript type, the check at run time and, by
 * `openapi.ts`, the JSON Schema.
 *
 * - A schema of a parameter says what is wrong in words that follow the value's name: "is empty: give a path …". `{label}` in
 *   them is that name, where it does not come first.
 * - A schema of an answer says what the value should have been: "time", "one of ok, full".
 */
import * as v from 'valibot'
import { usage } from './text.ts'

/** The part of an issue that messages quote: the value that was refused. */
export type Input<T> = { input: T }

/** Turns an unknown value into a `T` or throws NEXUS_USAGE; `label` names the value in the message. */
export type Check<T> = (value: unknown, label: string) => T

/** A schema with what its value means, for people; Markdown. */
export function field<const S extends v.GenericSchema>(schema: S, meaning: string) {
  return v.pipe(schema, v.description(meaning))
}

/** A check that goes by a parameter's schema. */
export function checkOf<S extends v.GenericSchema>(schema: S): Check<v.InferOutput<S>> {
  return (value, label) => {
    const result = v.safeParse(schema, value, { abortPipeEarly: true, abortEarly: true })
    if (result.success) return result.output
    const { message } = result.issues[0]
    throw usage(message.includes('{label}') ? message.replace('{label}', () => label) : `${label} ${message}`)
  }
}

/** An answer is not what it has to be; the message says where. */
export class UnlikeAnswer extends Error {}

/** @throws UnlikeAnswer */
export function checkLike(schema: v.GenericSchema, answer: unknown): void {
  const { issues } = v.safeParse(schema, answer, { abortEarly: true })
  if (issues !== undefined) throw unlike(issues[0])
}

function unlike(issue: v.BaseIssue<unknown>): UnlikeAnswer {
  let at = 'it'
  for (const { key, input } of (issue.path ?? []) as { key: unknown; input: unknown }[]) {
    // A list is an object for valibot, and lacks the fields.
    if (Array.isArray(input) && typeof key !== 'number') return new UnlikeAnswer(`${at} is no object`)
    at += typeof key === 'number' ? `[${key}]` : `.${String(key)}`
  }
  return new UnlikeAnswer(issue.input === undefined ? `${at} is missing` : `${at} is no ${issue.message}`)
}

// What answers are made of.

export const text = v.string('text')
export const time = v.pipe(
  v.string('time'),
  v.check((value) => !Number.isNaN(Date.parse(value)), 'time'),
  v.metadata({ format: 'date-time' }),
)
/** JSON's 1e999 is infinite. */
export const number = v.pipe(v.number('number'), v.finite('number'))
export const integer = v.pipe(v.number('number'), v.finite('number'), v.safeInteger('whole number'))
export const boolean = v.boolean('true or false')

export function oneOf<const T extends string>(...words: T[]) {
  return v.picklist(words, `one of ${words.join(', ')}`)
}

export function listOf<const S extends v.GenericSchema>(schema: S) {
  return v.array(schema, 'list')
}

export function mapOf<const S extends v.GenericSchema>(schema: S) {
  return v.record(v.string(), schema, 'object')
}

export function pairOf<const A extends v.GenericSchema, const B extends v.GenericSchema>(first: A, second: B) {
  return v.tuple([first, second], 'list')
}

export const nullOr = v.nullable
/** A field that is added once there is a released version is one of these: daemons that still run do not answer it. */
export const absentOr = v.exactOptional

/**
 * An object of a kind that has a name: a table of `docs/cli-abi.md`, a component of the OpenAPI document. Fields that it
 * does not name are let through.
 */
export function record<const F extends v.ObjectEntries>(title: string, fields: F) {
  return v.pipe(v.object(fields, 'object'), v.title(title))
}
