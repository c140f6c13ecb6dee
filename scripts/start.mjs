/**
 * npm start [-- MOUNTPOINT] [options of nexusd mount]: builds, then mounts in the foreground (default /mnt/nexus).
 */
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { build, die, fuseProblem, missingPackages, ROOT } from './lib.mjs'

const MOUNTPOINT_DEFAULT = '/mnt/nexus'

/** Options of `nexusd mount` that stand alone: a word after any other option is its value, not the mountpoint. */
const FLAGS = new Set(['--background', '--single-user', '--rebuild-index', '--suid', '--dev'])

function isMountpoint(word, index, words) {
  const before = words[index - 1]
  return !word.startsWith('-') && (!before?.startsWith('-') || before.includes('=') || FLAGS.has(before))
}

/** The mountpoint and what is left for nexusd. */
function splitArguments(words) {
  const index = words.findIndex(isMountpoint)
  if (index < 0) return { mountpoint: MOUNTPOINT_DEFAULT, rest: words }
  return { mountpoint: words[index], rest: words.toSpliced(index, 1) }
}

/** EEXIST is a mountpoint that is there, ENOTCONN a dead mount on it: both are for nexusd to judge. */
function makeMountpoint(mountpoint) {
  try {
    mkdirSync(mountpoint, { recursive: true })
  } catch (error) {
    if (error.code === 'EEXIST' || error.code === 'ENOTCONN') return
    die(
      `cannot make ${mountpoint} (${error.code}): run sudo mkdir -p ${mountpoint} && sudo chown $USER ${mountpoint}, ` +
        'or choose a place of your own: npm start -- ~/nexus',
    )
  }
}

/** A terminal sends SIGINT to nexusd as well; a second one from here would look like impatience. */
function forwardSignals(child) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
    })
  }
}

/** First of all, so that nobody waits for a build in vain. */
function needFuse() {
  const problem = fuseProblem()
  if (problem) die(problem)
  if (process.getuid() === 0) return
  const packages = missingPackages({ fusermount3: 'fuse3' })
  if (packages.length > 0) die(`without root a mount needs: sudo apt-get install ${packages.join(' ')}`)
}

needFuse()
build()
const { mountpoint, rest } = splitArguments(process.argv.slice(2))
makeMountpoint(mountpoint)
const daemon = spawn(process.execPath, [join(ROOT, 'dist', 'bin', 'nexusd.js'), 'mount', mountpoint, ...rest], {
  stdio: 'inherit',
})
forwardSignals(daemon)
daemon.on('exit', (status, signal) => process.exit(status ?? 128 + constants.signals[signal]))
