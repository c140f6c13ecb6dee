/** The mounts of this machine, as /proc/self/mountinfo tells them (proc_pid_mountinfo(5)). */
import { readFileSync } from 'node:fs'

export const filesystemType = 'fuse.nexus'
/** In front of the data directory, in a mount's source. */
export const sourcePrefix = 'nexus:'

export interface Mount {
  /** the kernel's number of the mount */
  id: string
  /** of the filesystem, as major:minor */
  device: string
  mountpoint: string
  /** the directory of the filesystem that is seen there: `/`, or what a bind mount was made of */
  root: string
  /** data directory of the daemon that serves it */
  data: string
  type: string
  /** options of the filesystem, such as `user_id=0` */
  options: string[]
}

/** Mounts of nexus. */
export function nexusMounts(): Mount[] {
  return allMounts().filter((entry) => entry.type === filesystemType)
}

export function allMounts(): Mount[] {
  return parseMounts(readFileSync('/proc/self/mountinfo', 'utf8'))
}

/** @param text as in mountinfo; lines that are none are left out */
export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = []
  for (const line of text.split('\n')) {
    const [front, back] = line.split(' - ')
    const [id, , device, root, mountpoint] = front?.split(' ') ?? []
    const [type, source, options] = back?.split(' ') ?? []
    if (root === undefined || mountpoint === undefined || type === undefined || source === undefined) continue
    const data = decodeOctal(source).replace(sourcePrefix, '')
    const places = { root: decodeOctal(root), mountpoint: decodeOctal(mountpoint) }
    mounts.push({ id: id as string, device: device as string, ...places, data, type, options: (options ?? '').split(',') })
  }
  return mounts
}

/** mountinfo writes space, tab, newline, backslash and number sign as octal. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}
