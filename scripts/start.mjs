/**
 * npm start [-- MOUNTPOINT] [options of nexusd mount]: builds, then mounts in the foreground (default /mnt/nexus). What the words
 * mean is in src/cli/start.ts, which asks nexusd.
 */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build, die, fuseProblem, missingPackages, ROOT } from './lib.mjs'

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
// Only now there is something to import.
const { planStart } = await import(pathToFileURL(join(ROOT, 'dist', 'src', 'cli', 'start.js')).href)
const { words, said, status } = await planStart(process.argv.slice(2))
if (words === undefined) {
  if (said !== '') (status === 0 ? process.stdout : process.stderr).write(`${said}\n`)
  process.exit(status)
}
const daemon = spawn(process.execPath, [join(ROOT, 'dist', 'bin', 'nexusd.js'), ...words], { stdio: 'inherit' })
forwardSignals(daemon)
daemon.on('exit', (ended, signal) => process.exit(ended ?? 128 + constants.signals[signal]))
