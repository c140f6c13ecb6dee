/** The table of calls for readers: the rows of `docs/cli-abi.md`. */
import * as v from 'valibot'
import type { Call } from './call.ts'
import { callNames, callOf } from './calls.ts'

/** The parts of a schema that are looked at here; valibot's own types are one for each kind. */
interface Node {
  type: string
  entries?: Record<string, Node>
  item?: Node
  value?: Node
  wrapped?: Node
  items?: Node[]
  pipe?: readonly Node[]
}

/** The objects that have a name and appear in answers, by that name, in the order in which they are met. */
export function namedObjects(): Map<string, v.GenericSchema> {
  const found = new Map<string, v.GenericSchema>()
  for (const name of callNames) collect(callOf(name).answer, found)
  return found
}

function collect(schema: v.GenericSchema, found: Map<string, v.GenericSchema>): void {
  const title = v.getTitle(schema)
  if (title !== undefined) {
    if (found.has(title)) return
    found.set(title, schema)
  }
  const { entries = {}, item, value, wrapped, items = [] } = schema as unknown as Node
  for (const inner of [...Object.values(entries), item, value, wrapped, ...items]) {
    if (inner !== undefined) collect(inner as unknown as v.GenericSchema, found)
  }
}

/** The fields of a named object: name, type in words, and what it means. */
export function fieldRows(schema: v.GenericSchema): [name: string, type: string, meaning: string][] {
  const { entries = {} } = schema as unknown as Node
  return Object.entries(entries).map(([name, field]) => {
    const whole = field.type === 'exact_optional' ? (field.wrapped as Node) : field
    const meaning = v.getDescription(field as unknown as v.GenericSchema) ?? ''
    return [`\`${name}\``, typeInWords(whole), meaning]
  })
}

function typeInWords(node: Node): string {
  const title = v.getTitle(node as unknown as v.GenericSchema)
  if (title !== undefined) return `${/^[AEIO]/.test(title) ? 'an' : 'a'} ${linkTo(title)}`
  switch (node.type) {
    case 'nullable':
      return `${typeInWords(node.wrapped as Node)} or null`
    case 'exact_optional':
      return typeInWords(node.wrapped as Node)
    case 'array':
      return `array of ${severalOf(node.item as Node)}`
    case 'record':
      return `object of ${severalOf(node.value as Node)}`
    case 'tuple':
      return 'pair'
    case 'object':
      return `object of ${Object.keys(node.entries ?? {})
        .map((name) => `\`${name}\``)
        .join(', ')}`
    case 'number':
      return actionsOf(node).includes('safe_integer') ? 'integer' : 'number'
    case 'string':
      return actionsOf(node).includes('metadata') ? 'time' : 'string'
    case 'boolean':
      return 'boolean'
    case 'picklist':
      return 'string'
    default:
      throw new Error(`no words for a schema of type ${node.type}`)
  }
}

/** What a pipe does, and those within it. */
function actionsOf(node: Node): string[] {
  return (node.pipe ?? []).flatMap((action) => (action.pipe === undefined ? action.type : actionsOf(action)))
}

function severalOf(node: Node): string {
  const title = v.getTitle(node as unknown as v.GenericSchema)
  if (title !== undefined) return linkTo(title)
  return node.type === 'object' ? 'objects' : `${typeInWords(node)}s`
}

function linkTo(title: string): string {
  return `[${title}](#${title.toLowerCase().replaceAll(' ', '-')})`
}

/** A row for each call: its name, effect, fields, answer and summary. */
export function callRows(): [name: string, effect: string, fields: string, answer: string, summary: string][] {
  return callNames.map((name) => {
    const call = callOf(name)
    return [`\`${name}\``, call.effect, fieldsInWords(call), typeInWords(call.answer as unknown as Node), call.summary]
  })
}

function fieldsInWords({ params, options = {} }: Call): string {
  const needed = params.map(({ name, schema }) => (schema.type === 'nullish' ? `[${name}]` : name))
  const named = Object.entries(options).map(([name, { type }]) => (type === 'exact_optional' ? `[${name}]` : name))
  return [...needed, ...named].map((name) => `\`${name}\``).join(', ')
}

/** A table of Markdown. */
export function markdownTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`.replaceAll(/ {2,}(?=\|)/g, ' ')
  return [line(titles), `|${titles.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}
