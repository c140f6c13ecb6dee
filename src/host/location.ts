/** Where things are: the data directory, the daemon's sockets, and what a PATH argument means. */
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { shown, usage } from '../api/text.ts'

const rootDataDir = '/var/lib/nexus'
/** Where daemons for several users have their sockets for everybody. */
export const publicDirectory = '/run/nexus'

/** What the data directory depends on besides `--data`; `hostSurroundings()` has the real ones. */
export interface Surroundings {
  env: Readonly<Record<string, string | undefined>>
  uid: number
  /** undefined for a user who has none */
  home: string | undefined
}

/** The environment, user and home directory of this process. */
export function hostSurroundings(env: Surroundings['env'] = process.env): Surroundings {
  return { env, uid: process.geteuid?.() ?? -1, home: homeDirectory() }
}

/** `homedir` throws for a uid that no user has, unless HOME is set. */
function homeDirectory(): string | undefined {
  try {
    return homedir()
  } catch {
    return undefined
  }
}

/**
 * The data directory: `--data`, else NEXUS_DATA, else `/var/lib/nexus` for root and
 * `$XDG_DATA_HOME/nexus` (or `~/.local/share/nexus`) for anybody else.
 * @param data the value of `--data`, if given
 * @returns an absolute path; it need not exist
 */
export function dataDirectory(data: string | undefined, { env, uid, home }: Surroundings): string {
  if (data === '') throw usage('--data is empty: give a directory')
  const chosen = data ?? env['NEXUS_DATA']
  if (chosen) return resolve(chosen)
  if (uid === 0) return rootDataDir
  const dataHome = env['XDG_DATA_HOME']
  // The XDG specification tells to ignore a relative one.
  if (dataHome && isAbsolute(dataHome)) return join(dataHome, 'nexus')
  if (home === undefined) throw usage('this user has no home: name a data directory with --data')
  return join(home, '.local/share/nexus')
}

/** The daemon's socket. It may be longer than the kernel takes: see address.ts. */
export function socketPathOf(dataDir: string): string {
  return join(dataDir, 'control.sock')
}

/** The socket for every user of the daemon that keeps its data there, wherever that directory is and whoever may enter it. */
export function publicSocketOf(dataDir: string): string {
  const name = createHash('sha256').update(realPathOf(dataDir)).digest('hex').slice(0, 16)
  return join(publicDirectory, `${name}.sock`)
}

/** As it is written where it may not be looked at. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return resolve(path)
  }
}

/** Where something is mounted, and which directory of the filesystem is seen there; undefined: it is another filesystem. */
export interface Seen {
  mountpoint: string
  root: string | undefined
}

/** What the shell may see of a filesystem. */
export interface Shell {
  cwd: string
  /** where the daemon has mounted it */
  mountpoint: string
  /** all mounts of this process, the later ones over the earlier; bind mounts show a part of the filesystem */
  mounts?: readonly Seen[]
}

/** The path in the filesystem of what is at an absolute path, if a mount shows it there. */
function through(path: string, { mountpoint, mounts = [] }: Shell): string | undefined {
  let innermost: Seen | undefined
  for (const seen of [{ mountpoint, root: '/' }, ...mounts]) {
    if (!isIn(path, seen.mountpoint) || seen.mountpoint.length < (innermost?.mountpoint.length ?? 0)) continue
    innermost = seen
  }
  if (innermost?.root === undefined) return undefined
  const rest = innermost.mountpoint === '/' ? path : path.slice(innermost.mountpoint.length)
  if (innermost.root === '/') return rest === '' ? '/' : rest
  return `${innermost.root}${rest === '/' ? '' : rest}`
}

/** Where a path in the filesystem is seen by this process: the other way round. Undefined: no mount shows it. */
export function hostPathOf(path: string, shell: Pick<Shell, 'mountpoint' | 'mounts'>): string | undefined {
  for (const { mountpoint, root } of shell.mounts ?? []) {
    if (root === undefined || !isIn(path, root)) continue
    const rest = root === '/' ? path : path.slice(root.length)
    const there = rest === '/' || rest === '' ? mountpoint : `${mountpoint === '/' ? '' : mountpoint}${rest}`
    // Another mount may lie over it.
    if (through(there, { ...shell, cwd: '/' }) === path) return there
  }
  return undefined
}

function isIn(path: string, directory: string): boolean {
  return path === directory || directory === '/' || path.startsWith(`${directory}/`)
}

/**
 * The path in the filesystem that a PATH argument means.
 * - absolute and in a mount of the filesystem, or a bind mount of a part of it: what is seen there
 * - absolute elsewhere: a path in the filesystem already
 * - relative: from the shell's directory, which must be inside the mount
 *
 * Only relative paths are normalised; `checkPath` refuses `..` and the like in the others.
 */
export function resolvePath(argument: string, shell: Shell): string {
  const { cwd, mountpoint } = shell
  if (argument === '') throw usage('PATH is empty: give a path such as /workspace/acme')
  if (isAbsolute(argument)) return through(argument, shell) ?? argument
  const path = through(resolve(cwd, argument), shell)
  if (path !== undefined) return path
  throw usage(
    `${shown(argument)} from ${cwd} is outside the mount: go into ${mountpoint} first, or give a path such as /workspace/acme`,
  )
}
