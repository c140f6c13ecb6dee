/** Which daemon is meant by somebody who names none, and by which of its sockets he reaches it. */
import { accessSync, constants, existsSync } from 'node:fs'
import { connect } from 'node:net'
import { isAbsolute } from 'node:path'
import { NexusError, systemCode } from '../errors.ts'
import { openAddress } from '../host/address.ts'
import { dataDirectory, publicSocketOf, type Seen, type Surroundings, socketPathOf } from '../host/location.ts'
import { allMounts, filesystemType, type Mount, nexusMounts } from '../host/mounts.ts'

export interface Wanted {
  /** the value of `--data`, if given */
  data: string | undefined
  surroundings: Surroundings
  /** the shell's directory; may throw */
  cwd: () => string
  /** a PATH argument, if there is one */
  path?: string | undefined
  /** for tests */
  mounts?: () => Mount[]
}

/**
 * The socket to talk to: of the data directory that is named, else of one's own if a daemon answers there, else of the
 * mount that the shell or PATH is in, else of the only mount that there is.
 * @throws NexusError NEXUS_USAGE when several could be meant
 */
export async function findSocket(wanted: Wanted): Promise<string> {
  const { data, surroundings, mounts = nexusMounts } = wanted
  const own = dataDirectory(data, surroundings)
  if (data !== undefined || surroundings.env['NEXUS_DATA'] || (await answers(socketPathOf(own)))) return reachable(own)
  const there = mounts().filter((mount) => isTrusted(mount, surroundings.uid))
  const at = mountWith(there, wanted)
  if (at !== undefined) return reachable(at.data)
  const stores = [...new Set(there.map((mount) => mount.data))]
  if (stores.length > 1) {
    const where = there.map((mount) => mount.mountpoint).join(', ')
    throw new NexusError('NEXUS_USAGE', `several are mounted (${where}): go into one, or name its data directory with --data`)
  }
  return reachable(stores[0] ?? own)
}

/** The daemon's own socket, which gives more, or the one for everybody where that is closed to this user. */
function reachable(data: string): string {
  const socketPath = socketPathOf(data)
  try {
    accessSync(socketPath, constants.R_OK | constants.W_OK)
  } catch (error) {
    const everybody = publicSocketOf(data)
    if (systemCode(error) === 'EACCES' && existsSync(everybody)) return everybody
  }
  return socketPath
}

/** Anybody can mount something that calls itself nexus: only what this user or root has mounted, for him too, is asked. */
export function isTrusted({ options }: Mount, uid: number): boolean {
  const mounter = options.find((option) => option.startsWith('user_id='))?.slice('user_id='.length)
  if (mounter === String(uid)) return true
  return mounter === '0' && options.includes('allow_other')
}

/** All mounts of this process, and which of them show the filesystem of a data directory. */
export function seenMounts(data: string, uid: number, mounts = allMounts()): Seen[] {
  return mounts.map((mount) => {
    const isShown = mount.type === filesystemType && mount.data === data && isTrusted(mount, uid)
    return { mountpoint: mount.mountpoint, root: isShown ? mount.root : undefined }
  })
}

/** The innermost mount that PATH, or else the shell's directory, lies in. */
function mountWith(mounts: readonly Mount[], { path, cwd }: Wanted): Mount | undefined {
  const byPath = path !== undefined && isAbsolute(path) ? innermost(mounts, path) : undefined
  return byPath ?? innermost(mounts, quietly(cwd) ?? '')
}

function innermost(mounts: readonly Mount[], path: string): Mount | undefined {
  const around = mounts.filter(({ mountpoint }) => path === mountpoint || path.startsWith(`${mountpoint}/`))
  return around.toSorted((a, b) => a.mountpoint.length - b.mountpoint.length).at(-1)
}

/** A directory that is gone is in no mount. */
function quietly(cwd: () => string): string | undefined {
  try {
    return cwd()
  } catch {
    return undefined
  }
}

/** Whether somebody listens; one who has too many callers does, and so does one who is closed to this user. */
function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    if (!existsSync(socketPath)) {
      resolve(false)
      return
    }
    const address = openAddress(socketPath)
    const socket = connect(address.path)
    const end = (answer: boolean): void => {
      socket.destroy()
      address.close()
      resolve(answer)
    }
    socket.once('connect', () => end(true))
    socket.once('error', (error) => end(!['ECONNREFUSED', 'ENOENT'].includes(systemCode(error) ?? '')))
  })
}
