/** What `npm start` does with its words: they are those of `nexusd mount`, and the mountpoint may be left out. */
import { mkdirSync, realpathSync } from 'node:fs'
import path from 'node:path'
import { CommanderError } from 'commander'
import { connectControl } from '../client/client.ts'
import { NexusError, systemCode } from '../errors.ts'
import { dataDirectory, hostSurroundings, socketPathOf } from '../host/location.ts'
import { nexusMounts } from '../host/mounts.ts'
import { readMountWords } from './nexusd.ts'

const MOUNTPOINT_DEFAULT = '/mnt/nexus'
const STATUS_MS_MAX = 10_000

/** Words to run `nexusd` with, or what there is to say instead, with the exit status. */
export type Start = { words: string[] } | { said: string; status: number }

export async function planStart(words: readonly string[], mountpointDefault = MOUNTPOINT_DEFAULT): Promise<Start> {
  if (words.includes('--help') || words.includes('-h')) return { words: ['mount', ...words] }
  try {
    const { mountpoint = mountpointDefault, data } = readMountWords(words)
    makeMountpoint(mountpoint)
    const running = await servedAt(mountpoint, data)
    if (running !== undefined) return { said: running, status: 0 }
    // In front: behind an option that somebody forgot the value of, it would be taken for that.
    const all = readMountWords(words).mountpoint === undefined ? [mountpoint, ...words] : words
    return { words: ['mount', ...all] }
  } catch (error) {
    if (error instanceof CommanderError) return { said: '', status: 2 }
    if (error instanceof NexusError) return { said: error.message, status: 1 }
    throw error
  }
}

/** EEXIST is a mountpoint that is there, ENOTCONN a dead mount on it: both are for nexusd to judge. */
function makeMountpoint(mountpoint: string): void {
  try {
    mkdirSync(mountpoint, { recursive: true })
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST' || code === 'ENOTCONN') return
    const text =
      `cannot make ${mountpoint} (${code ?? error}): run sudo mkdir -p ${mountpoint} && sudo chown $USER ${mountpoint}, ` +
      'or choose a place of your own: npm start -- ~/nexus'
    throw new NexusError('NEXUS_USAGE', text, { cause: error })
  }
}

/** Says what is mounted there, if it is what was to be mounted, and somebody serves it. */
async function servedAt(mountpoint: string, data: string | undefined): Promise<string | undefined> {
  // Whatever is mounted there may hang, so only the way to it is looked at.
  const absolute = path.resolve(mountpoint)
  const real = path.join(realpathSync(path.dirname(absolute)), path.basename(absolute))
  const mount = nexusMounts().findLast((one) => one.mountpoint === real)
  if (mount?.data !== dataDirectory(data, hostSurroundings())) return undefined
  try {
    const { pid } = await connectControl({ socketPath: socketPathOf(mount.data), timeoutMs: STATUS_MS_MAX }).status()
    return `${real} is mounted already (data in ${mount.data}, served by pid ${pid}): nexusd unmount ${real} ends it`
  } catch (error) {
    // A dead mount, which nexusd clears.
    if (error instanceof NexusError && error.code === 'NEXUS_NOT_RUNNING') return undefined
    throw error
  }
}
