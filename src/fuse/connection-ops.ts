/** Operations of the connection itself, and those that are the kernel's own business or nobody's. */
import { FS } from '../errors.ts'
import { initialize } from './init.ts'
import { type Connection, type Operation, refused, silent } from './operation.ts'
import { InitFlag, OpenFlag } from './protocol.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/** open(2). ENOSYS, where the kernel can take it, ends OPEN and RELEASE for the whole connection. */
function open({ negotiated }: Connection, _request: Request, reply: Reply): number {
  if ((negotiated?.flags ?? 0) & InitFlag.NO_OPEN_SUPPORT) throw FS.ENOSYS
  return reply.opened(0, OpenFlag.KEEP_CACHE)
}

/** A signal reached somebody who waits for the request of that `unique`. */
function interrupt(connection: Connection, request: Request): void {
  connection.interrupt(request.u32(0), request.u32(4))
}

const done: Operation = { bodyBytes: 0, run: () => 0 }
const unsupported = refused(FS.ENOSYS)

export const connectionOperations = {
  INIT: { bodyBytes: 16, run: initialize },
  /** The end of a mount on a block device; ours ends with ENODEV from the descriptor. */
  DESTROY: done,
  INTERRUPT: silent(8, interrupt),
  /** Answers a notify of ours that asked for data (RETRIEVE); we send none. */
  NOTIFY_REPLY: silent(0, () => undefined),
  OPEN: { bodyBytes: 8, run: open },
  /** The last close of a file that was opened before ENOSYS to OPEN was known. */
  RELEASE: { bodyBytes: 24, run: () => 0 },
  /** Each close(2); after ENOSYS the kernel sends no more of them. */
  FLUSH: unsupported,
  /** access(2) without `default_permissions`; ENOSYS means "allowed", what we check is on each operation. */
  ACCESS: unsupported,
  /** Locks: the kernel keeps them itself unless POSIX_LOCKS or FLOCK_LOCKS are asked for. On one machine that is exact. */
  GETLK: unsupported,
  SETLK: unsupported,
  SETLKW: unsupported,
  /** FIBMAP, for mounts on a block device. */
  BMAP: unsupported,
  /** ioctl(2) that the kernel does not know itself, such as lsattr. ENOTTY is what "no such ioctl" is called. */
  IOCTL: refused(FS.ENOTTY),
  /** poll(2); after ENOSYS files are always ready, as regular files are. */
  POLL: unsupported,
  /** DAX of virtiofs. */
  SETUPMAPPING: unsupported,
  REMOVEMAPPING: unsupported,
  /** Character devices in user space have their own INIT on their own device. */
  CUSE_INIT: unsupported,
} as const satisfies Record<string, Operation>
