/** docs/performance.md: the parts that a run writes, between markers; what else stands there stays. */
import fs from 'node:fs'
import { headerOf, parseTable, type Row, TITLES, tableOf } from './report.ts'
import { BenchError } from './workload.ts'
import { kinds } from './workloads/index.ts'

export interface Run {
  release: string
  /** ISO-8601 day */
  date: string
  /** processors, kernel, versions */
  machine: string
  command: string
  /** how many rounds its figures are medians of, and what else went on */
  circumstances: string
  peers: readonly string[]
  rows: readonly Row[]
}

/** Replaces what lies between `<!-- name -->` and `<!-- /name -->`. */
function replaced(text: string, name: string, change: (old: string) => string): string {
  const [start, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`]
  const [from, to] = [text.indexOf(start), text.indexOf(end)]
  if (from < 0 || to < from) throw new BenchError(`docs/performance.md has no ${start.trim()} … ${end}: put them back`)
  return text.slice(0, from + start.length) + change(text.slice(from + start.length, to)) + text.slice(to)
}

/** What names a row whatever its size was. */
function nameOf(row: Row): string {
  return (row[TITLES.workload] ?? '').replace(/ \([\d,]+\)$/, '')
}

/** Rows that were not measured this time stay if they are of the same release; in the order of the workloads. */
function merged(old: readonly Row[], rows: readonly Row[]): Row[] {
  const all = new Map([...old, ...rows].map((row) => [nameOf(row), row]))
  const order = Object.values(kinds).flatMap((workloads) => workloads.map(({ name }) => name))
  return order.map((name) => all.get(name)).filter((row) => row !== undefined)
}

function geometricMean(values: readonly number[]): string {
  if (values.length === 0) return '–'
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length).toFixed(2)
}

/** One row for all of a release: how many aims it meets, and its ratios to the local disk by kind (geometric means). */
function summaryOf(run: Run, rows: readonly Row[]): Row {
  const judged = rows.map((row) => row[TITLES.met]).filter((word) => word === 'met' || word === 'missed')
  const summary: Row = {
    ...{
      release: run.release,
      date: run.date,
      machine: run.machine,
      command: `\`${rows.length > run.rows.length ? 'npm run bench' : run.command}\``,
    },
    'aims met': `${judged.filter((word) => word === 'met').length} of ${judged.length}`,
  }
  for (const [kind, workloads] of Object.entries(kinds)) {
    const ratios = rows
      .filter((row) => workloads.some(({ name }) => name === nameOf(row)))
      .map((row) => Number(row[TITLES.ratio]))
    if (workloads.some(({ measure }) => measure === 'time')) summary[kind] = geometricMean(ratios.filter((one) => one > 0))
  }
  return summary
}

/** Writes a run into the page: its rows into the table of this release, and the release's row into the table of all. */
export function writeRun(file: string, run: Run): void {
  let rows: Row[] = []
  let text = replaced(fs.readFileSync(file, 'utf8'), 'workloads', (old) => {
    const isSame = old.includes(`Release ${run.release}.`)
    const table = isSame ? parseTable(old) : { header: [], rows: [] }
    const fixed = new Set<string>(headerOf([]))
    const peers = [...new Set([...table.header.filter((title) => !fixed.has(title)), ...run.peers])]
    rows = merged(table.rows, run.rows)
    const how = rows.length > run.rows.length ? `In parts, the last with \`${run.command}\`` : `\`${run.command}\``
    const said = `Release ${run.release}. ${how}, ${run.date}: ${run.machine}; ${run.circumstances}`
    return `${said}\n\n${tableOf(headerOf(peers), rows, false).join('\n')}\n`
  })
  text = replaced(text, 'releases', (old) => {
    const { rows: releases } = parseTable(old)
    const summary = summaryOf(run, rows)
    const all = [...releases.filter(({ release }) => release !== run.release), summary]
    return `${tableOf(Object.keys(summary), all, false).join('\n')}\n`
  })
  fs.writeFileSync(file, text)
}
