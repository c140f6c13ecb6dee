/** Mounting and unmounting: what is at a mountpoint, and how to get there as root or as anybody. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { NexusError, systemCode } from '../errors.ts'
import { mount, mountWithHelper } from '../fuse/binding.ts'

const run = promisify(execFile)

/** linux/mount.h: reading a file does not change its access time, here as on most disks. */
const MS_NOATIME = 1024
const FILESYSTEM_TYPE = 'fuse.nexus'
const SOURCE_PREFIX = 'nexus:'
const UNMOUNT_MS_MAX = 10_000
const PROBE_MS_MAX = 3000

export interface Mount {
  mountpoint: string
  /** data directory of the daemon that serves it */
  data: string
  type: string
}

export interface MountOptions {
  data: string
  /** nobody but this user can reach it; always so without root */
  singleUser: boolean
}

/** Mounts of nexus on this machine, from /proc/self/mountinfo (proc_pid_mountinfo(5)). */
export function nexusMounts(): Mount[] {
  return allMounts().filter((entry) => entry.type === FILESYSTEM_TYPE)
}

function allMounts(): Mount[] {
  const mounts: Mount[] = []
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [front, back] = line.split(' - ')
    const mountpoint = front?.split(' ')[4]
    const [type, source] = back?.split(' ') ?? []
    if (mountpoint === undefined || type === undefined || source === undefined) continue
    mounts.push({ mountpoint: unescaped(mountpoint), data: unescaped(source).replace(SOURCE_PREFIX, ''), type })
  }
  return mounts
}

/** mountinfo writes space, tab, newline and backslash as octal. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/**
 * Makes a mountpoint ready: it must be a directory with nothing mounted on it. A dead mount of
 * ours that an earlier daemon left is cleared.
 * @returns its real path
 * @throws NexusError with what to do
 */
export async function prepareMountpoint(mountpoint: string): Promise<string> {
  const absolute = path.resolve(mountpoint)
  const state = await probe(absolute)
  if (state === 'dead') await unmount(absolute, true)
  else if (state === 'missing') throw new NexusError('NEXUS_NOT_FOUND', `${absolute} does not exist: mkdir -p ${absolute} first`)
  else if (state === 'file') throw new NexusError('NEXUS_USAGE', `${absolute} is not a directory: name one to mount on`)
  const real = fs.realpathSync(absolute)
  if (!fs.statSync(real).isDirectory())
    throw new NexusError('NEXUS_USAGE', `${absolute} is not a directory: name one to mount on`)
  const there = allMounts().findLast((entry) => entry.mountpoint === real)
  if (there !== undefined) {
    const what = there.type === FILESYSTEM_TYPE ? `nexus (data in ${there.data})` : there.type
    throw new NexusError(
      'NEXUS_BUSY',
      `${real} is busy: ${what} is mounted there; unmount it first (nexusd unmount ${real}) or choose another`,
    )
  }
  return real
}

async function probe(mountpoint: string): Promise<'directory' | 'file' | 'missing' | 'dead'> {
  const timeout = new Promise<never>((_, reject) => {
    const give = (): void =>
      reject(
        new NexusError(
          'NEXUS_TIMEOUT',
          `${mountpoint} does not answer: something is mounted there whose server hangs; umount -l it first`,
        ),
      )
    setTimeout(give, PROBE_MS_MAX).unref()
  })
  try {
    return (await Promise.race([stat(mountpoint), timeout])).isDirectory() ? 'directory' : 'file'
  } catch (error) {
    const code = systemCode(error)
    // ENOTCONN: the server is gone. EIO, ECONNABORTED: it is about to be.
    if (code === 'ENOTCONN' || code === 'ECONNABORTED') return 'dead'
    if (code === 'ENOENT') return 'missing'
    if (code === 'ENOTDIR') return 'file'
    if (code === 'EACCES')
      throw new NexusError('NEXUS_DENIED', `${mountpoint} cannot be reached by this user: choose another mountpoint`, {
        cause: error,
      })
    throw error
  }
}

/**
 * Mounts and returns the kernel's descriptor.
 * @throws NexusError with what to do
 */
export function mountFilesystem(mountpoint: string, options: MountOptions): number {
  const source = SOURCE_PREFIX + options.data
  try {
    if (process.getuid?.() === 0) {
      const reach = options.singleUser ? '' : ',allow_other'
      return mount(
        mountpoint,
        `rootmode=40000,user_id=0,group_id=0,default_permissions${reach}`,
        MS_NOATIME,
        FILESYSTEM_TYPE,
        source,
      )
    }
    const name = source.replaceAll('\\', '\\\\').replaceAll(',', '\\,')
    return mountWithHelper(mountpoint, `fsname=${name},subtype=nexus,default_permissions,noatime`)
  } catch (error) {
    throw explainMount(mountpoint, error)
  }
}

function explainMount(mountpoint: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !('syscall' in cause)) return cause
  const code = systemCode(cause)
  if (cause.syscall === 'open /dev/fuse') {
    const how = code === 'ENOENT' ? 'modprobe fuse (in a container: --device /dev/fuse)' : 'check its permissions'
    return new NexusError('NEXUS_UNSUPPORTED', `/dev/fuse cannot be opened (${code}): ${how}`, { cause })
  }
  if (cause.syscall === 'fusermount3' && code === 'ENOENT') {
    return new NexusError('NEXUS_UNSUPPORTED', 'fusermount3 is missing, and only root mounts without it: apt-get install fuse3', {
      cause,
    })
  }
  const code2 = code === 'EPERM' || code === 'EACCES' ? 'NEXUS_DENIED' : 'NEXUS_UNSUPPORTED'
  return new NexusError(code2, `cannot mount on ${mountpoint}: ${cause.message}`, { cause })
}

/**
 * Unmounts, in a process of its own: the kernel may have to write back to the daemon first.
 * @param lazy detach now, let go when nobody uses it any more
 * @throws NexusError NEXUS_BUSY when it is in use and not lazy
 */
export async function unmount(mountpoint: string, lazy: boolean): Promise<void> {
  const isRoot = process.getuid?.() === 0
  const [program, ...flags] = isRoot ? ['umount', ...(lazy ? ['-l'] : [])] : ['fusermount3', '-u', ...(lazy ? ['-z'] : [])]
  try {
    await run(program as string, [...flags, mountpoint], { timeout: UNMOUNT_MS_MAX })
  } catch (cause) {
    if (!nexusMounts().some((entry) => entry.mountpoint === mountpoint)) return
    throw new NexusError(
      'NEXUS_BUSY',
      `${mountpoint} is in use: end the programs that work there (fuser -vm ${mountpoint}) and try again`,
      { cause },
    )
  }
}
