/**
 * npm run asan: the addon with gcc's address and undefined behaviour sanitizers, under its own tests and at a real mount.
 * Fails when a test does or a sanitizer reports anything. Needs dist (npm run build) and gcc's libasan. npm test runs it
 * as one of its files (test/fuse/sanitizers.test.ts).
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { die, filesBelow, fuseProblem, ROOT, runQuietly, sanitizerParts, sanitizerProblem } from './lib.mjs'

const BUILD = join(ROOT, 'build-asan')
const ADDON = join(BUILD, 'nexus_fuse.node')
const TESTS = ['fuzz/addon', 'fuse/channel', 'mount/posix-data']
const SECONDS_MAX = 120

function buildAddon(headers) {
  mkdirSync(BUILD, { recursive: true })
  const flags = ['-std=gnu11', '-O1', '-g', '-fno-omit-frame-pointer', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared']
  const sanitizers = ['-fsanitize=address,undefined,float-cast-overflow', '-fno-sanitize-recover=all']
  const sources = filesBelow(join(ROOT, 'src', 'fuse', 'native')).filter((file) => file.endsWith('.c'))
  runQuietly('gcc', [...flags, ...sanitizers, '-DNAPI_VERSION=8', '-D_GNU_SOURCE', `-I${headers}`, ...sources, '-o', ADDON])
}

/** @returns what is wrong, '' when nothing is */
function runTest(name, libraries, { fixtures, reports }) {
  const options = `detect_leaks=0:handle_sigbus=0:log_path=${join(reports, 'report')}`
  const { status, signal, stdout } = spawnSync(process.execPath, [join('dist', 'test', `${name}.test.js`)], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: SECONDS_MAX * 1000,
    env: {
      ...process.env,
      // Fixtures of its own: npm test runs the same files at the same time.
      TAP_CWD: fixtures,
      NEXUS_ADDON: ADDON,
      LD_PRELOAD: libraries.join(':'),
      ASAN_OPTIONS: options,
      UBSAN_OPTIONS: `print_stacktrace=1:${options}`,
      TAP: '1',
      TAP_TIMEOUT: String(SECONDS_MAX),
    },
  })
  if (status === 0) return ''
  const lines = stdout.split('\n').filter((line) => /^\s*not ok/.test(line))
  return `${name} ended with ${signal ?? status}\n${lines.join('\n')}`
}

const problem = sanitizerProblem()
if (problem) die(`the addon cannot be tested with sanitizers: ${problem}`)
const { libraries, headers } = sanitizerParts()
if (fuseProblem()) process.env.NEXUS_NO_FUSE = '1'
buildAddon(headers)
const scratch = mkdtempSync(join(tmpdir(), 'nexus-asan-'))
const directories = { fixtures: join(scratch, 'fixtures'), reports: join(scratch, 'reports') }
for (const directory of Object.values(directories)) mkdirSync(directory)
const begun = performance.now()
const wrong = TESTS.map((name) => runTest(name, libraries, directories)).filter(Boolean)
for (const file of readdirSync(directories.reports)) wrong.push(readFileSync(join(directories.reports, file), 'utf8'))
rmSync(scratch, { recursive: true, force: true })
for (const each of wrong) console.log(`*** ${each}`)
const seconds = ((performance.now() - begun) / 1000).toFixed(1)
console.log(wrong.length === 0 ? `ok   sanitizers: ${TESTS.join(', ')} (${seconds} s)` : '*** the sanitizers failed ***')
process.exitCode = wrong.length === 0 ? 0 : 1
