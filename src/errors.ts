/**
 * The three kinds of failure, each handled in its own way.
 *
 * - `FsError`: an expected answer of a filesystem call (ENOENT, EEXIST …). It is thrown on the
 *   request path millions of times, so each errno has one shared, stackless instance in `FS`.
 * - `NexusError`: an expected failure of a command or of the store, with a code that scripts may
 *   rely on and a message that says what to do next.
 * - anything else is a bug: it becomes EIO at the mount and a logged stack.
 */
import { constants as os } from 'node:os'

/** Errnos that Node's `os.constants.errno` does not name (asm-generic/errno.h). */
const ENODATA = 61
const ENOTTY = 25

export class FsError extends Error {
  readonly errno: number
  readonly code: string

  constructor(code: string, errno: number) {
    super(code)
    this.name = 'FsError'
    this.code = code
    this.errno = errno
    delete (this as { stack?: string }).stack
  }
}

const e = os.errno

/** The shared instance for every errno that the filesystem answers. `throw FS.ENOENT`. */
export const FS = {
  EPERM: new FsError('EPERM', e.EPERM),
  ENOENT: new FsError('ENOENT', e.ENOENT),
  EINTR: new FsError('EINTR', e.EINTR),
  ECANCELED: new FsError('ECANCELED', e.ECANCELED),
  EIO: new FsError('EIO', e.EIO),
  ENXIO: new FsError('ENXIO', e.ENXIO),
  E2BIG: new FsError('E2BIG', e.E2BIG),
  EBADF: new FsError('EBADF', e.EBADF),
  EAGAIN: new FsError('EAGAIN', e.EAGAIN),
  EACCES: new FsError('EACCES', e.EACCES),
  EBUSY: new FsError('EBUSY', e.EBUSY),
  EEXIST: new FsError('EEXIST', e.EEXIST),
  EXDEV: new FsError('EXDEV', e.EXDEV),
  ENOTDIR: new FsError('ENOTDIR', e.ENOTDIR),
  EISDIR: new FsError('EISDIR', e.EISDIR),
  EINVAL: new FsError('EINVAL', e.EINVAL),
  ENOTTY: new FsError('ENOTTY', ENOTTY),
  EFBIG: new FsError('EFBIG', e.EFBIG),
  ENOSPC: new FsError('ENOSPC', e.ENOSPC),
  EROFS: new FsError('EROFS', e.EROFS),
  EMLINK: new FsError('EMLINK', e.EMLINK),
  ERANGE: new FsError('ERANGE', e.ERANGE),
  ENAMETOOLONG: new FsError('ENAMETOOLONG', e.ENAMETOOLONG),
  ENOSYS: new FsError('ENOSYS', e.ENOSYS),
  ENOTEMPTY: new FsError('ENOTEMPTY', e.ENOTEMPTY),
  ENODATA: new FsError('ENODATA', ENODATA),
  EOPNOTSUPP: new FsError('EOPNOTSUPP', e.EOPNOTSUPP),
  ESTALE: new FsError('ESTALE', e.ESTALE),
  EDQUOT: new FsError('EDQUOT', e.EDQUOT),
} as const

/** What can go wrong for a command or in the store. Codes are stable; messages are for people. */
export type ErrorCode =
  | 'NEXUS_USAGE' // the caller's words are off
  | 'NEXUS_NOT_FOUND' // no such path, workspace or snapshot
  | 'NEXUS_EXISTS' // a name is taken
  | 'NEXUS_AMBIGUOUS' // an id prefix fits several snapshots
  | 'NEXUS_NOT_EMPTY' // a workspace or directory still has entries
  | 'NEXUS_BUSY' // locked by another daemon, or in use
  | 'NEXUS_NOT_RUNNING' // no daemon answers
  | 'NEXUS_READ_ONLY' // the disk or the target cannot be written
  | 'NEXUS_NO_SPACE' // the disk is full
  | 'NEXUS_CORRUPT' // bytes on disk are not what was written
  | 'NEXUS_TOO_NEW' // written by a newer version
  | 'NEXUS_DENIED' // the caller may not
  | 'NEXUS_UNSUPPORTED' // this kernel or system lacks something
  | 'NEXUS_TIMEOUT' // a wait reached its end
  | 'NEXUS_INTERNAL' // a bug

/**
 * An expected failure with a stable code.
 * @param message one line: what went wrong and what to do next
 */
export class NexusError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'NexusError'
    this.code = code
  }
}

const errnoOf: Record<ErrorCode, FsError> = {
  NEXUS_USAGE: FS.EINVAL,
  NEXUS_NOT_FOUND: FS.ENOENT,
  NEXUS_EXISTS: FS.EEXIST,
  NEXUS_AMBIGUOUS: FS.EINVAL,
  NEXUS_NOT_EMPTY: FS.ENOTEMPTY,
  NEXUS_BUSY: FS.EBUSY,
  NEXUS_NOT_RUNNING: FS.EIO,
  NEXUS_READ_ONLY: FS.EROFS,
  NEXUS_NO_SPACE: FS.ENOSPC,
  NEXUS_CORRUPT: FS.EIO,
  NEXUS_TOO_NEW: FS.EIO,
  NEXUS_DENIED: FS.EACCES,
  NEXUS_UNSUPPORTED: FS.EOPNOTSUPP,
  NEXUS_TIMEOUT: FS.EIO,
  NEXUS_INTERNAL: FS.EIO,
}

/** Exit status of a command for each code: 2 is wrong usage, 1 everything else (docs/cli-abi.md). */
const exitStatusOf: Record<ErrorCode, 1 | 2> = {
  NEXUS_USAGE: 2,
  NEXUS_NOT_FOUND: 1,
  NEXUS_EXISTS: 1,
  NEXUS_AMBIGUOUS: 1,
  NEXUS_NOT_EMPTY: 1,
  NEXUS_BUSY: 1,
  NEXUS_NOT_RUNNING: 1,
  NEXUS_READ_ONLY: 1,
  NEXUS_NO_SPACE: 1,
  NEXUS_CORRUPT: 1,
  NEXUS_TOO_NEW: 1,
  NEXUS_DENIED: 1,
  NEXUS_UNSUPPORTED: 1,
  NEXUS_TIMEOUT: 1,
  NEXUS_INTERNAL: 1,
}

/** The errno that the kernel is told for a failure, and whether it was expected. */
export function toFsError(error: unknown): { fsError: FsError; expected: boolean } {
  if (error instanceof FsError) return { fsError: error, expected: true }
  if (error instanceof NexusError) return { fsError: errnoOf[error.code], expected: error.code !== 'NEXUS_INTERNAL' }
  if (isNoSpace(error)) return { fsError: FS.ENOSPC, expected: true }
  return { fsError: FS.EIO, expected: false }
}

/** True for a system error that says that a disk, or somebody's share of it, is full. */
export function isNoSpace(error: unknown): boolean {
  const code = systemCode(error)
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'NEXUS_NO_SPACE'
}

/** The exit status of a command that ended with this failure. */
export function toExitStatus(error: unknown): 1 | 2 {
  return error instanceof NexusError ? exitStatusOf[error.code] : 1
}

/** The `code` of a Node system error (`ENOENT` …), or undefined for anything else. */
export function systemCode(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return undefined
}

/** States what must be true here; a failure is our bug or damaged data, never the caller's. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new NexusError('NEXUS_INTERNAL', `assertion failed: ${message}`)
}
