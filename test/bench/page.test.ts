/** The page of the benchmark: what a run of a few workloads writes into the tables of a whole one. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { type Run, writeRun } from '../../bench/page.ts'
import { parseTable, type Row, TITLES } from '../../bench/report.ts'

function pageFor(t: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-test-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  const file = path.join(directory, 'page.md')
  fs.writeFileSync(
    file,
    'Before.\n<!-- releases -->\n<!-- /releases -->\nBetween.\n<!-- workloads -->\n<!-- /workloads -->\nAfter.\n',
  )
  return file
}

function row(name: string, ratio: string, met: string): Row {
  return { [TITLES.workload]: `${name} (1,000)`, [TITLES.ratio]: ratio, [TITLES.met]: met }
}

function run(rows: Row[], change: Partial<Run> = {}): Run {
  const about = { release: '1.0.0', date: '2026-01-01', machine: 'two cores', command: 'npm run bench', circumstances: 'quiet.' }
  return { ...about, peers: [], rows, ...change }
}

function releases(file: string): Row[] {
  return parseTable(/<!-- releases -->\n([\s\S]*)<!-- \/releases -->/.exec(fs.readFileSync(file, 'utf8'))?.[1] ?? '').rows
}

t.test('the means of a release are those of its whole table, also when some rows are measured again', async (t) => {
  const file = pageFor(t)
  writeRun(file, run([row('stat, warm', '2.00', 'met'), row('find, warm', '8.00', 'missed'), row('untar', '3.00', 'missed')]))
  t.match(releases(file), [{ release: '1.0.0', 'aims met': '1 of 3', names: '4.00', small: '3.00', git: '–' }])
  writeRun(file, run([row('find, warm', '2.00', 'met')], { command: 'npm run bench -- --only find' }))
  t.match(releases(file), [{ release: '1.0.0', 'aims met': '2 of 3', names: '2.00', small: '3.00', git: '–' }])
  const text = fs.readFileSync(file, 'utf8')
  t.match(text, /^Before\.\n[\s\S]*\nBetween\.\n[\s\S]*\nAfter\.\n$/)
  t.match(text, 'In parts, the last with `npm run bench -- --only find`')
})

t.test('a new release begins a table, and the row of the old one stays', async (t) => {
  const file = pageFor(t)
  writeRun(file, run([row('stat, warm', '2.00', 'met'), row('untar', '3.00', 'missed')]))
  writeRun(file, run([row('stat, warm', '1.00', 'met')], { release: '1.1.0' }))
  t.match(releases(file), [
    { release: '1.0.0', names: '2.00', small: '3.00' },
    { release: '1.1.0', names: '1.00', small: '–' },
  ])
  t.notMatch(fs.readFileSync(file, 'utf8'), /\| untar/)
})
