/** What the scripts share: running programs, finding them, and looking at the machine. */
import { execFileSync, spawnSync } from 'node:child_process'
import { accessSync, closeSync, constants, existsSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

/** Ends the script with one line that says what to do. */
export function die(message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

/** Runs a program that talks to the terminal. Returns its exit status. */
export function tryRun(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit' })
  if (error) die(`cannot run ${command}: ${error.message}`)
  return status ?? 1
}

/** The same; ends the script with its status when it fails. */
export function run(command, args) {
  const status = tryRun(command, args)
  if (status !== 0) process.exit(status)
}

/** Runs a program whose output matters only when it fails. */
export function runQuietly(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 28 })
  if (error) die(`cannot run ${command}: ${error.message}`)
  if (status !== 0) die(`${stdout}${stderr}${command} ${args.join(' ')} failed`)
}

/** A program of node_modules. */
export function tool(name) {
  return join(ROOT, 'node_modules', '.bin', name)
}

export function build() {
  run(process.execPath, [join(ROOT, 'scripts', 'build.mjs')])
}

export function onPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => isExecutable(join(directory, program)))
}

export function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The Debian packages of those programs that are missing; `packageOf` maps program to package. */
export function missingPackages(packageOf) {
  const missing = Object.entries(packageOf).filter(([program]) => !onPath(program))
  return [...new Set(missing.map(([, name]) => name))]
}

/** Every file below a directory, as paths that start with it. */
export function filesBelow(directory) {
  if (!existsSync(directory)) return []
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort()
}

export function modifiedMs(file) {
  return existsSync(file) ? statSync(file).mtimeMs : 0
}

/** Why FUSE cannot be used here, or undefined when it can. Opening shows what a container's rules forbid as well. */
export function fuseProblem() {
  try {
    closeSync(openSync('/dev/fuse', 'r+'))
    return undefined
  } catch (error) {
    // fusermount3 opens it with the rights of its caller, too.
    if (error.code === 'EACCES' && process.getuid() !== 0) {
      return '/dev/fuse cannot be opened by this user: run sudo chmod 666 /dev/fuse, as udev does'
    }
    if (error.code === 'ENOENT' || error.code === 'ENXIO' || error.code === 'ENODEV') {
      return '/dev/fuse is missing: run sudo modprobe fuse; a container needs --device /dev/fuse --cap-add SYS_ADMIN'
    }
    return `/dev/fuse cannot be opened (${error.code}): a container needs --device /dev/fuse --cap-add SYS_ADMIN`
  }
}

/** What keeps a test from a small disk of its own, a file mounted through a loop device; undefined if nothing does. */
export function loopProblem() {
  if (process.getuid() !== 0) return 'small disks can be mounted by root only'
  if (spawnSync('losetup', ['--find'], { stdio: 'ignore' }).status === 0) return undefined
  return 'there is no free loop device: run modprobe loop; a container needs --privileged'
}

/** What gcc's address and undefined behaviour sanitizers need. */
const SANITIZERS = ['libasan.so', 'libubsan.so']

/** What the addon takes to be built with sanitizers and run in Node: libraries, and the directory of Node's headers. */
export function sanitizerParts() {
  const versions = [dirname(dirname(process.execPath)), join(homedir(), '.cache', 'node-gyp', process.versions.node)]
  const headers = versions.map((prefix) => join(prefix, 'include', 'node')).find((path) => existsSync(join(path, 'node_api.h')))
  return { libraries: SANITIZERS.map((name) => saidByGcc(`-print-file-name=${name}`)), headers }
}

/** Why the addon cannot be tested with sanitizers here, or undefined when it can. */
export function sanitizerProblem() {
  const version = saidByGcc('-dumpversion')
  if (version === undefined) return 'gcc is missing: apt-get install gcc'
  const { libraries, headers } = sanitizerParts()
  // gcc repeats the name of what it does not find.
  const missing = SANITIZERS.filter((_, i) => !libraries[i]?.includes('/') || !existsSync(libraries[i]))
  if (missing.length > 0) return `${missing.join(' and ')} of gcc are missing: apt-get install libgcc-${version}-dev`
  if (headers === undefined)
    return "Node's headers (node_api.h) are missing: apt-get install libnode-dev, or npx node-gyp install"
  return undefined
}

function saidByGcc(word) {
  try {
    return execFileSync('gcc', [word], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return undefined
  }
}

/** Every mountpoint in a directory, in the order of mounting. The kernel writes blanks and backslashes in octal. */
export function mountsBelow(directory) {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[1] ?? '').replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(parseInt(digits, 8))))
    .filter((mountpoint) => mountpoint.startsWith(`${directory}/`))
}

/** Processes whose command line holds some text. */
export function processesNaming(text) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => ({ pid: Number(pid), command: commandOf(pid) }))
    .filter(({ command }) => command.includes(text))
}

/** Empty for one that has ended. */
function commandOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
  } catch {
    return ''
  }
}
