/** What was measured, as a table: on the terminal, and in docs/performance.md between its markers. */
import type { Sample } from './runner.ts'
import type { Workload } from './workload.ts'

export interface Result {
  kind: string
  workload: Workload
  size: number
  /** by name of the place */
  samples: Map<string, Sample[]>
  /** what stands where a peer has no figure, by its name: it is not measured again in this row */
  instead: Map<string, string>
}

/** A row by the titles of its columns. */
export type Row = Record<string, string>

export const TITLES = {
  ...{ workload: 'workload', local: 'ext4', nexus: 'nexus', ratio: 'ratio', granted: 'granted', aim: 'aim', met: 'met' },
  requests: 'requests for each',
} as const
const [NEXUS, GRANTED] = ['nexus', 'nexus, granted']
const NOTHING = '–'

/** Beside the table, for who waits for it. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2
}

export function medianAt({ samples }: Result, place: string): number | undefined {
  const all = samples.get(place)
  return all === undefined || all.length === 0 ? undefined : median(all.map(({ value }) => value))
}

/** A figure in what it is measured in. */
function describe(value: number | undefined, measure: Workload['measure']): string {
  if (value === undefined) return NOTHING
  if (measure === 'times') return value.toFixed(2)
  if (measure !== 'time') return `${digits(value)} ${measure}`
  return value < 1 ? `${digits(value * 1000)} ms` : `${digits(value)} s`
}

/** Three that count. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

/** Requests for one operation; kinds that come less than once in a hundred are left out. */
function describeRequests({ samples, size, workload }: Result): string {
  const all = (samples.get(NEXUS) ?? []).filter(({ requests }) => requests !== undefined)
  if (all.length === 0) return NOTHING
  const sums = new Map<string, number>()
  for (const { requests = [] } of all) for (const [name, count] of requests) sums.set(name, (sums.get(name) ?? 0) + count)
  const each = [...sums].map(([name, count]): [string, number] => [name, count / all.length / size])
  const total = each.reduce((sum, [, count]) => sum + count, 0)
  const kinds = each.filter(([, count]) => count >= 0.01).sort((a, b) => b[1] - a[1])
  const names = kinds.map(([name, count]) => (count > 0.95 && count < 1.05 ? name : `${name} ${digits(count)}`))
  return `${total.toFixed(2)} a ${workload.each}${names.length > 0 ? `: ${names.join(', ')}` : ''}`
}

/** @param peers names of the columns of peers */
export function rowOf(result: Result, local: string, peers: readonly string[]): Row {
  const { workload, size } = result
  const { measure, aim } = workload
  const values = { local: medianAt(result, local), nexus: medianAt(result, NEXUS), granted: medianAt(result, GRANTED) }
  const isTime = measure === 'time'
  const ratio = (value: number | undefined): number | undefined =>
    value === undefined || values.local === undefined ? undefined : value / values.local
  const figure = (value: number | undefined): string =>
    isTime ? (ratio(value)?.toFixed(2) ?? NOTHING) : describe(value, measure)
  const judged = [values.nexus, values.granted]
    .map((value) => (isTime ? ratio(value) : value))
    .filter((value) => value !== undefined)
  const isMet = judged.every((value) => value <= (aim ?? 0))
  const row: Row = {
    [TITLES.workload]: `${workload.name} (${size.toLocaleString('en')})`,
    [TITLES.local]: describe(values.local, measure),
    [TITLES.nexus]: describe(values.nexus, measure),
    [TITLES.ratio]: isTime ? figure(values.nexus) : NOTHING,
    [TITLES.granted]: figure(values.granted),
    [TITLES.aim]: aim === undefined ? NOTHING : isTime ? String(aim) : describe(aim, measure),
    [TITLES.met]: aim === undefined || judged.length === 0 ? NOTHING : isMet ? 'met' : 'missed',
    [TITLES.requests]: describeRequests(result),
  }
  for (const peer of peers) row[peer] = result.instead.get(peer) ?? figure(medianAt(result, peer))
  return row
}

/** Of all tables with these peers. */
export function headerOf(peers: readonly string[]): string[] {
  const { workload, local, nexus, ratio, granted, aim, met, requests } = TITLES
  return [workload, local, nexus, ratio, granted, ...peers, aim, met, requests]
}

/** In Markdown; with `wide`, padded for who reads it on a terminal. */
export function tableOf(header: readonly string[], rows: readonly Row[], wide: boolean): string[] {
  const cells = rows.map((row) => header.map((title) => row[title] ?? NOTHING))
  const widths = header.map((title, i) => (wide ? Math.max(title.length, ...cells.map((row) => (row[i] as string).length)) : 0))
  const line = (row: readonly string[]): string => `| ${row.map((cell, i) => cell.padEnd(widths[i] as number)).join(' | ')} |`
  return [line(header), `|${widths.map((width) => '-'.repeat(width === 0 ? 5 : width + 2)).join('|')}|`, ...cells.map(line)]
}

/** Rows of a table in Markdown. */
export function parseTable(text: string): { header: string[]; rows: Row[] } {
  const lines = text.split('\n').filter((line) => line.startsWith('|'))
  const [header = [], , ...rows] = lines.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
  return { header, rows: rows.map((cells) => Object.fromEntries(header.map((title, i) => [title, cells[i] ?? NOTHING]))) }
}
