/** Runs one compiled test file and reads its TAP. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { Parser } from 'tap-parser'
import { ROOT } from './lib.mjs'

/** How long a file may take on an idle machine. */
const TIMEOUT_SECONDS = 600

/** tap ends a file that takes too long and says where it was; this is how much later one is killed that cannot even do that. */
const KILL_SECONDS = 30

/** How long the output of a file that has ended may stay open: a process that it left behind holds it. */
const DRAIN_MS = 5000

/** Adds up assertions, at any depth. The line that closes a subtest counts only when it fails for a reason of its own. */
function collect(parser, path, tally) {
  let failedBefore = tally.failures.length
  parser.on('child', (child) => {
    failedBefore = tally.failures.length
    collect(child, [...path, child.name], tally)
  })
  parser.on('assert', (result) => {
    const explained = tally.failures.length > failedBefore
    if (result.closingTestPoint && (result.ok || explained)) return
    if (result.skip || result.todo) tally.skipped.push([...path, result.name].join(' > '))
    else if (result.ok) tally.passed++
    else tally.failures.push({ name: [...path, result.name].join(' > '), diag: result.diag })
  })
}

/** A failure that the file itself could not report: a crash, a signal, a missing plan. */
function addHiddenFailure(tally, results, status, signal) {
  if (tally.failures.length > 0 || (status === 0 && results.ok)) return
  const name = signal ? `ended by ${signal}` : status === 0 ? 'incomplete TAP' : `exit status ${status}`
  tally.failures.push({ name, diag: results.failures.map(({ tapError }) => tapError).filter(Boolean) })
}

/** What the parser makes of all that the ended process printed. */
async function finish(child, parser, completed) {
  const timer = setTimeout(() => {
    child.stdout.unpipe(parser)
    parser.end()
  }, DRAIN_MS)
  const [results] = await completed
  clearTimeout(timer)
  child.stdout.destroy()
  child.stderr.destroy()
  return results
}

function indent(text) {
  return text.trimEnd().replace(/^/gm, '      ')
}

function formatDiag(diag) {
  if (!diag) return []
  return Object.entries(diag).map(([key, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    return text.includes('\n') ? `    ${key}:\n${indent(text)}` : `    ${key}: ${text}`
  })
}

/** A line for a file that passed, everything that is known about one that did not. */
function formatReport(file, seconds, tally, output) {
  const { failures, skipped, passed } = tally
  const mark = failures.length > 0 ? 'FAIL' : 'ok  '
  const counts = `${passed} passed${failures.length > 0 ? `, ${failures.length} failed` : ''}`
  const lines = [`${mark} ${file} ${counts} (${seconds.toFixed(1)} s)`]
  for (const name of skipped) lines.push(`  skipped: ${name}`)
  for (const { name, diag } of failures) lines.push(`  not ok: ${name}`, ...formatDiag(diag))
  if (failures.length > 0 && output.trim()) lines.push('  output:', indent(output))
  return lines.join('\n')
}

/**
 * Runs one test file to its end and prints how it went.
 * @param file the source, relative to the root: test/a/b.test.ts runs as dist/test/a/b.test.js
 * @returns numbers of assertions
 */
export async function runTestFile(file) {
  const begun = performance.now()
  const tally = { passed: 0, failures: [], skipped: [] }
  // Where processes queue for the processors, each takes as many times longer.
  const timeoutSeconds = Math.ceil(TIMEOUT_SECONDS * Math.max(1, loadavg()[0] / availableParallelism()))
  const child = spawn(process.execPath, ['--enable-source-maps', join('dist', file.replace(/\.ts$/, '.js'))], {
    cwd: ROOT,
    env: { ...process.env, TAP: '1', TAP_TIMEOUT: String(timeoutSeconds) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), (timeoutSeconds + KILL_SECONDS) * 1000)
  let output = ''
  child.stderr.on('data', (data) => {
    output += data
  })
  const parser = new Parser()
  collect(parser, [], tally)
  parser.on('extra', (line) => {
    output += line
  })
  const completed = once(parser, 'complete')
  child.stdout.pipe(parser)
  const [status, signal] = await once(child, 'exit')
  clearTimeout(timer)
  addHiddenFailure(tally, await finish(child, parser, completed), status, signal)
  console.log(formatReport(file, (performance.now() - begun) / 1000, tally, output))
  return { passed: tally.passed, failed: tally.failures.length, skipped: tally.skipped.length }
}
