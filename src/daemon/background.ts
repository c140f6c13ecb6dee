/** `nexusd mount --background`: a daemon of its own session, and a parent that waits until it serves. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { NexusError } from '../errors.ts'
import { explainDisk, prepareDataDirectory } from '../volume/datadir.ts'
import { LOG_NAME } from './logfile.ts'

/** What the child tells its parent over the process channel. */
export type StartReport = { mounted: string } | { failed: string; status: number }

/** A replay of a long log may take a while; a child that is silent for longer than this hangs. */
const START_MS_MAX = 10 * 60_000

/**
 * Starts this program again.
 * @param words what it was called with, but `--background`
 * @param directory the data directory, which gets the log; the caller has looked whether it may
 * @returns what the child says when it serves
 */
export async function startInBackground(words: readonly string[], directory: string): Promise<StartReport> {
  const log = openLog(directory)
  const script = process.argv[1] as string
  const child = spawn(process.execPath, [script, ...words], { detached: true, stdio: ['ignore', log, log, 'ipc'] })
  fs.closeSync(log)
  const report = await new Promise<StartReport>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill()
      reject(
        new NexusError(
          'NEXUS_TIMEOUT',
          `nexusd did not start within ${START_MS_MAX / 1000} s: see ${path.join(directory, LOG_NAME)}`,
        ),
      )
    }, START_MS_MAX)
    child.once('message', (message) => resolve(message as StartReport))
    child.once('error', reject)
    child.once('exit', (status) =>
      reject(new NexusError('NEXUS_INTERNAL', `nexusd ended with ${status}: see ${path.join(directory, LOG_NAME)}`)),
    )
    child.once('message', () => clearTimeout(timer))
    child.once('exit', () => clearTimeout(timer))
  })
  child.removeAllListeners()
  if (child.connected) child.disconnect()
  child.unref()
  return report
}

/** Tells the parent, if there is one that waits; who serves from then on holds no directory busy. */
export function reportToParent(report: StartReport): void {
  if (process.send === undefined) return
  if ('mounted' in report) process.chdir('/')
  process.send(report, undefined, undefined, () => {
    if (process.connected) process.disconnect()
  })
}

function openLog(directory: string): number {
  try {
    prepareDataDirectory(directory)
    return fs.openSync(path.join(directory, LOG_NAME), 'a', 0o600)
  } catch (error) {
    throw explainDisk(directory, error)
  }
}
