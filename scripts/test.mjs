/**
 * npm test [-- WORD...]: builds, lints, and runs the compiled tests whose path contains one of the words.
 *
 * Each file is an ordinary Node program that prints TAP. They are not run by tap's own runner: it loads a compiler and
 * a process tracer into every process that a test starts, our daemons too, at several seconds a file.
 * The last line is `N passed, N failed`, counted in assertions; a failed lint and what a test leaves behind count too.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import {
  build,
  die,
  filesBelow,
  fuseProblem,
  loopProblem,
  missingPackages,
  mountsBelow,
  processesNaming,
  ROOT,
  run,
  runQuietly,
  sanitizerProblem,
  tool,
  tryRun,
} from './lib.mjs'

const JOBS = 2
const PROGRAMS = {
  setfacl: 'acl',
  getfattr: 'attr',
  setpriv: 'util-linux',
  rsync: 'rsync',
  sqlite3: 'sqlite3',
  'mkfs.ext4': 'e2fsprogs',
  losetup: 'mount',
  git: 'git',
  patch: 'patch',
  make: 'make',
  fio: 'fio',
  zip: 'zip',
  unzip: 'unzip',
  fusermount3: 'fuse3',
  'ssh-keygen': 'openssh-client',
  zsh: 'zsh',
  fish: 'fish',
  groff: 'groff',
}
const CI = process.env.CI === 'true'

function needPrograms() {
  const packages = missingPackages(PROGRAMS)
  if (packages.length === 0) return
  const isRoot = process.getuid() === 0
  if (!isRoot || missingPackages({ 'apt-get': 'apt' }).length > 0) die(`the tests need: apt-get install ${packages.join(' ')}`)
  console.log(`installing what the tests need: ${packages.join(' ')}`)
  runQuietly('apt-get', ['update'])
  run('apt-get', ['install', '-y', '--no-install-recommends', ...packages])
}

/** Without FUSE the mount tests are skipped, except where that would go unseen. */
function needFuse() {
  const problem = fuseProblem()
  if (!problem) return
  console.log(`*** MOUNT TESTS ARE ${CI ? 'IMPOSSIBLE' : 'SKIPPED'}: ${problem} ***`)
  if (CI) process.exit(1)
  process.env.NEXUS_NO_FUSE = '1'
}

/** The same for disks that can be filled. */
function needLoop() {
  const problem = loopProblem()
  if (!problem) return
  console.log(`*** TESTS ON SMALL DISKS ARE ${CI ? 'IMPOSSIBLE' : 'SKIPPED'}: ${problem} ***`)
  if (CI) process.exit(1)
  process.env.NEXUS_NO_LOOP = '1'
}

/** The same for the addon with sanitizers. */
function needSanitizers() {
  const problem = sanitizerProblem()
  if (!problem) return
  console.log(`*** THE ADDON CANNOT BE TESTED WITH SANITIZERS${CI ? '' : ', THAT IS SKIPPED'}: ${problem} ***`)
  if (CI) process.exit(1)
  process.env.NEXUS_NO_SANITIZERS = '1'
}

/** By the sources, because dist may still hold the tests of a file that is gone. */
function findTests(words) {
  return filesBelow(join(ROOT, 'test'))
    .map((file) => relative(ROOT, file))
    .filter((file) => file.endsWith('.test.ts') && (words.length === 0 || words.some((word) => file.includes(word))))
}

/** Runs the files, a few at a time, and adds up what they say. */
async function runAll(files) {
  const waiting = [...files]
  // Not sooner: it needs what the build has installed.
  const { runTestFile } = await import('./testfile.mjs')
  const total = { passed: 0, failed: 0, skipped: 0 }
  const work = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      const { passed, failed, skipped } = await runTestFile(file)
      total.passed += passed
      total.failed += failed
      total.skipped += skipped
    }
  }
  await Promise.all(Array.from({ length: JOBS }, work))
  return total
}

/** What the tests forgot in the directory that they had to themselves: it is named, ended, unmounted, and counts as a failure. */
function clearUp(directory) {
  const processes = processesNaming(directory)
  for (const { pid, command } of processes) {
    console.log(`*** a test left a process behind: ${command} ***`)
    process.kill(pid, 'SIGKILL')
  }
  const mounts = mountsBelow(directory)
  for (const mountpoint of mounts.toReversed()) {
    console.log(`*** a test left a mount behind: ${mountpoint} ***`)
    runQuietly(...(process.getuid() === 0 ? ['umount', ['--lazy', mountpoint]] : ['fusermount3', ['-uz', mountpoint]]))
  }
  rmSync(directory, { recursive: true, force: true })
  return processes.length + mounts.length
}

/** Returns the number of failures, which count as those of the tests do. The tests run all the same: what they say is worth knowing. */
function lint() {
  const colors = process.stdout.isTTY ? [] : ['--colors=off']
  if (tryRun(tool('biome'), ['ci', '.', ...colors]) === 0) return 0
  console.log('FAIL lint')
  return 1
}

build()
needFuse()
needPrograms()
needLoop()
needSanitizers()
const lintFailures = lint()
const files = findTests(process.argv.slice(2))
const scratch = mkdtempSync(join(tmpdir(), 'nexus-test-'))
// Some tests are other users.
chmodSync(scratch, 0o711)
process.env.TMPDIR = scratch
const { passed, failed: failedTests, skipped } = await runAll(files)
const failed = failedTests + lintFailures + clearUp(scratch)
if (skipped > 0) console.log(`${skipped} skipped`)
if (passed === 0) console.log('*** no test passed ***')
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = passed > 0 && failed === 0 ? 0 : 1
