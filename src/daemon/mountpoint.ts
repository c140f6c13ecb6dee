/** Mounting and unmounting: what is at a mountpoint, and how to get there as root or as anybody. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import { stat, statfs } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { NexusError, systemCode } from '../errors.ts'
import { MNT_DETACH, MNT_FORCE, mount, mountWithHelper, umount } from '../fuse/binding.ts'
import { allMounts, filesystemType, type Mount, nexusMounts, sourcePrefix } from '../host/mounts.ts'

const run = promisify(execFile)

/** linux/mount.h: reading a file does not change its access time, here as on most disks. */
const MS_NOATIME = 1024
const MS_NOSUID = 2
const MS_NODEV = 4
/** as much as one READ may ask for */
const READ_AHEAD_KIB = 1024
const UNMOUNT_MS_MAX = 10_000
const PROBE_MS_MAX = 3000

/** O_PATH in asm-generic/fcntl.h, which Node does not name. */
const O_PATH = 0o10000000

export interface MountOptions {
  data: string
  /** nobody but this user can reach it; always so without root */
  singleUser: boolean
  /** whether set-id bits and file capabilities take effect; never without root */
  suid: boolean
  /** whether device files can be used; never without root */
  dev: boolean
}

/** Where a path leads, and what is mounted right there. */
export interface MountPlace {
  /** without symlinks */
  path: string
  mount: Mount | undefined
}

/**
 * Looks at a path without asking the server of what is mounted there, which may be dead, hang, or
 * let nobody in: opening with O_PATH walks to a mount and not into it.
 * @throws a system error (ENOENT, ENOTDIR, EACCES …)
 */
export function lookAt(file: string): MountPlace {
  const fd = fs.openSync(file, O_PATH)
  try {
    const real = fs.readlinkSync(`/proc/self/fd/${fd}`)
    const id = /^mnt_id:\s*(\d+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
    return { path: real, mount: allMounts().find((entry) => entry.id === id && entry.mountpoint === real) }
  } finally {
    fs.closeSync(fd)
  }
}

/**
 * Makes a mountpoint ready: it must be a directory with nothing mounted on it. Dead mounts of
 * nexus that earlier daemons left are cleared.
 * @returns its real path
 * @throws NexusError with what to do
 */
export async function prepareMountpoint(mountpoint: string): Promise<string> {
  const absolute = path.resolve(mountpoint)
  for (;;) {
    const place = lookAtMountpoint(absolute)
    const state = await probe(place.path)
    if (place.mount === undefined && state === 'directory') return place.path
    if (state === 'file') throw new NexusError('NEXUS_USAGE', `${absolute} is not a directory: name one to mount on`)
    if (state !== 'dead' || place.mount?.type !== filesystemType) throw busy(place)
    await unmount(place.path, true)
  }
}

function lookAtMountpoint(absolute: string): MountPlace {
  try {
    return lookAt(absolute)
  } catch (cause) {
    switch (systemCode(cause)) {
      case 'ENOENT':
        throw new NexusError('NEXUS_NOT_FOUND', `${absolute} does not exist: mkdir -p ${absolute} first`, { cause })
      case 'ENOTDIR':
        throw new NexusError('NEXUS_USAGE', `${absolute} is not a directory: name one to mount on`, { cause })
      case 'EACCES':
        throw new NexusError('NEXUS_DENIED', `${absolute} cannot be reached by this user: choose another mountpoint`, { cause })
      default:
        if (!(cause instanceof Error)) throw cause
        throw new NexusError('NEXUS_USAGE', `${absolute} cannot be used (${cause.message}): choose another mountpoint`, { cause })
    }
  }
}

function busy({ path: mountpoint, mount: there }: MountPlace): NexusError {
  if (there === undefined) {
    const what = 'is inside of a mount whose server is gone: unmount that first'
    return new NexusError('NEXUS_BUSY', `${mountpoint} ${what}, or choose another mountpoint`)
  }
  const ours = there.type === filesystemType
  const what = ours ? `nexus (data in ${there.data})` : there.type
  const how = `${ours ? 'nexusd unmount' : 'umount'} ${mountpoint}`
  return new NexusError(
    'NEXUS_BUSY',
    `${mountpoint} is busy: ${what} is mounted there; unmount it first (${how}) or choose another mountpoint`,
  )
}

/** `guarded` is a directory that lets this user not even look: somebody's mount. */
async function probe(mountpoint: string): Promise<'directory' | 'file' | 'dead' | 'guarded'> {
  const timeout = new Promise<never>((_, reject) => {
    const give = (): void =>
      reject(
        new NexusError(
          'NEXUS_TIMEOUT',
          `${mountpoint} does not answer: what is mounted there hangs; unmount it first (umount -l ${mountpoint})`,
        ),
      )
    setTimeout(give, PROBE_MS_MAX).unref()
  })
  try {
    const stats = await Promise.race([stat(mountpoint), timeout])
    // The kernel may have known the attributes of a dead mount's root: this it always asks the server.
    await Promise.race([statfs(mountpoint), timeout])
    return stats.isDirectory() ? 'directory' : 'file'
  } catch (error) {
    const code = systemCode(error)
    // ENOTCONN: the server is gone. EIO, ECONNABORTED: it is about to be.
    if (code === 'ENOTCONN' || code === 'ECONNABORTED') return 'dead'
    if (code === 'EACCES') return 'guarded'
    throw error
  }
}

/**
 * Mounts and returns the kernel's descriptor.
 * @throws NexusError with what to do
 */
export function mountFilesystem(mountpoint: string, options: MountOptions): number {
  const source = sourcePrefix + options.data
  try {
    if (process.getuid?.() === 0) {
      const reach = options.singleUser ? '' : ',allow_other'
      return mount(
        mountpoint,
        `rootmode=40000,user_id=0,group_id=0,default_permissions${reach}`,
        MS_NOATIME | (options.suid ? 0 : MS_NOSUID) | (options.dev ? 0 : MS_NODEV),
        filesystemType,
        source,
      )
    }
    const name = source.replaceAll('\\', '\\\\').replaceAll(',', '\\,')
    return mountWithHelper(mountpoint, `fsname=${name},subtype=nexus,default_permissions,noatime`)
  } catch (error) {
    throw explainMount(mountpoint, error)
  }
}

/**
 * Lets the kernel read ahead by more than its 128 KiB: a request costs more than its bytes do. Only
 * root may, and a kernel without the setting does without.
 */
export function setReadAhead(mountpoint: string): void {
  const device = allMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device
  try {
    fs.writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(READ_AHEAD_KIB))
  } catch {
    // It was an optimisation.
  }
}

/**
 * Ends a mount whatever happens: programs that wait for an answer get ECONNABORTED. By fusectl, if that is mounted, since
 * then the daemon is told that it was an abort (fs/fuse/control.c); without it root does it by a forced unmount
 * (Documentation/filesystems/fuse.rst).
 * @param device as in mountinfo
 * @returns false when neither could be done; the mount may be gone
 */
export function abort(mountpoint: string, device: string): boolean {
  try {
    fs.writeFileSync(`/sys/fs/fuse/connections/${device.split(':')[1]}/abort`, '1')
    return true
  } catch {
    // Not mounted, or not this user's.
  }
  try {
    umount(mountpoint, MNT_FORCE | MNT_DETACH)
    return true
  } catch {
    return false
  }
}

/**
 * The same by hand, and nothing is left at the mountpoint.
 * @throws NexusError NEXUS_DENIED when this user may not, or has no way to
 */
export async function abortAndUnmount({ mountpoint, device }: Mount): Promise<void> {
  const isAborted = abort(mountpoint, device)
  const isThere = allMounts().some((entry) => entry.mountpoint === mountpoint && entry.device === device)
  if (isThere) await unmount(mountpoint, true)
  if (isAborted || !isThere) return
  throw new NexusError(
    'NEXUS_DENIED',
    `${mountpoint} is detached, but its connection could not be aborted: mount -t fusectl none /sys/fs/fuse/connections, ` +
      `and echo 1 > /sys/fs/fuse/connections/${device.split(':')[1]}/abort`,
  )
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
  if (cause.syscall === 'fusermount3' && /open \/dev\/fuse: Permission denied/.test(cause.message)) {
    return new NexusError('NEXUS_DENIED', '/dev/fuse cannot be opened by this user: let root chmod 666 /dev/fuse, as udev does', {
      cause,
    })
  }
  if (cause.syscall === 'fusermount3' && /could not determine username/.test(cause.message)) {
    const how = 'let root give it one in /etc/passwd, or mount as root'
    return new NexusError('NEXUS_UNSUPPORTED', `this uid has no name, and fusermount3 mounts for users with one only: ${how}`, {
      cause,
    })
  }
  if (cause.syscall === 'mount' && code === 'EPERM') {
    const how = 'a container needs --cap-add SYS_ADMIN, and often --security-opt apparmor=unconfined'
    return new NexusError('NEXUS_DENIED', `cannot mount on ${mountpoint}: this root may not (EPERM); ${how}`, { cause })
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
    throw explainUnmount(mountpoint, cause)
  }
}

function explainUnmount(mountpoint: string, cause: unknown): NexusError {
  const said =
    cause instanceof Error && 'stderr' in cause
      ? String(cause.stderr)
          .trim()
          .replaceAll(/\s*\n\s*/g, '; ')
      : ''
  if (said === '' || /busy/i.test(said)) {
    return new NexusError(
      'NEXUS_BUSY',
      `${mountpoint} is in use: end the programs that work there (fuser -vm ${mountpoint}) and try again`,
      { cause },
    )
  }
  return new NexusError('NEXUS_DENIED', `cannot unmount ${mountpoint} (${said}): be the user who mounted it, or root`, { cause })
}
