/** What is made of the table of calls for readers: by `npm run docs`, whose page a test compares, and by the build. */
import { callRows, fieldRows, markdownTable, namedObjects } from './describe.ts'
import { openApi } from './openapi.ts'

/** `docs/cli-abi.md` with its tables of calls and fields made anew; all other text stays. */
export function withTables(page: string): string {
  let made = withTable(page, 'Calls', markdownTable(['call', 'effect', 'fields', 'answer', 'what it does'], callRows()))
  for (const [title, schema] of namedObjects()) {
    made = withTable(made, title, markdownTable(['field', 'type', 'meaning'], fieldRows(schema)))
  }
  return made
}

/** The page with the first table below a heading replaced; where there is no such heading, the section is added at the end. */
function withTable(page: string, heading: string, table: string): string {
  const lines = page.split('\n')
  const start = lines.findIndex((line) => /^#{2,3} /.test(line) && line.replace(/^#+ /, '') === heading)
  if (start < 0) return `${page.trimEnd()}\n\n### ${heading}\n\n${table}\n`
  const first = lines.findIndex((line, i) => i > start && line.startsWith('|'))
  const next = lines.findIndex((line, i) => i > start && line.startsWith('#'))
  if (first < 0 || (next >= 0 && first > next)) throw new Error(`there is no table below "${heading}"`)
  let end = first
  while (lines[end]?.startsWith('|')) end++
  return [...lines.slice(0, first), table, ...lines.slice(end)].join('\n')
}

/**
 * `dist/openapi.json`.
 * @param version of the program
 */
export function openApiText(version: string): string {
  return `${JSON.stringify(openApi(version), null, 2)}\n`
}
