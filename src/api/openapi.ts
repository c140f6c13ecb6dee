/** The table of calls as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), for other languages and tools. */
import { type ConversionConfig, type JsonSchema, toJsonSchema } from '@valibot/to-json-schema'
import type * as v from 'valibot'
import type { Call } from './call.ts'
import { type CallName, callNames, callOf } from './calls.ts'
import { namedObjects } from './describe.ts'

/** The part of a document that is looked at here. */
export interface OpenApi {
  openapi: string
  info: { title: string; version: string; description: string }
  paths: Record<string, { post: object }>
  components: { schemas: Record<string, JsonSchema> }
}

const DESCRIPTION =
  'Each call is a POST of a JSON object with its fields. Times are ISO-8601 in UTC, sizes are bytes, paths are absolute in the filesystem.'

/** @param version of the program */
export function openApi(version: string): OpenApi {
  const named = namedObjects()
  const definitions = Object.fromEntries([...named].map(([title, schema]) => [nameOf(title), schema]))
  const config: ConversionConfig = {
    target: 'draft-2020-12',
    // What JSON Schema has no words for is checked all the same: a path's names, the one spelling of a subject.
    errorMode: 'ignore',
    definitions,
    overrideRef: ({ referenceId }) => `#/components/schemas/${referenceId}`,
  }
  const convert = (schema: v.GenericSchema, own?: string): JsonSchema => {
    const others = Object.fromEntries(Object.entries(definitions).filter(([name]) => name !== own))
    const {
      $schema: _,
      $defs: __,
      ...rest
    } = toJsonSchema(schema, { ...config, definitions: own === undefined ? definitions : others })
    return rest
  }
  return {
    openapi: '3.1.1',
    info: { title: 'nexus', version, description: DESCRIPTION },
    paths: Object.fromEntries(callNames.map((name) => [`/v1/${name}`, { post: operation(name, callOf(name), convert) }])),
    components: {
      schemas: {
        ...Object.fromEntries([...named].map(([title, schema]) => [nameOf(title), convert(schema, nameOf(title))])),
        Error: ERROR,
      },
    },
  }
}

const ERROR: JsonSchema = {
  type: 'object',
  properties: {
    error: {
      type: 'object',
      properties: { code: { type: 'string' }, message: { type: 'string' } },
      required: ['code', 'message'],
    },
  },
  required: ['error'],
}

function nameOf(title: string): string {
  return title.replaceAll(/(^| )(\w)/g, (_, __, letter: string) => letter.toUpperCase())
}

function operation(name: CallName, call: Call, convert: (schema: v.GenericSchema) => JsonSchema): object {
  const json = (schema: object): object => ({ content: { 'application/json': { schema } } })
  return {
    operationId: name,
    summary: call.summary,
    'x-effect': call.effect,
    ...(call.params.length > 0 || call.options !== undefined ? { requestBody: json(bodySchema(call, convert)) } : {}),
    responses: {
      200: { description: 'done', ...json(convert(call.answer)) },
      default: { description: 'failed', ...json({ $ref: '#/components/schemas/Error' }) },
    },
  }
}

function bodySchema({ params, options = {} }: Call, convert: (schema: v.GenericSchema) => JsonSchema): JsonSchema {
  const positional = params.map(({ name, schema }) => [name, schema] as const)
  const fields = [...positional, ...(Object.entries(options) as [string, v.GenericSchema][])]
  const isNeeded = (schema: v.GenericSchema): boolean => schema.type !== 'exact_optional' && schema.type !== 'nullish'
  return {
    type: 'object',
    properties: Object.fromEntries(fields.map(([name, schema]) => [name, convert(unwrapped(schema))])),
    required: fields.filter(([, schema]) => isNeeded(schema)).map(([name]) => name),
    additionalProperties: false,
  }
}

/** What an optional field has when it is there. */
function unwrapped(schema: v.GenericSchema): v.GenericSchema {
  return schema.type === 'exact_optional' ? (schema as v.GenericSchema & { wrapped: v.GenericSchema }).wrapped : schema
}
