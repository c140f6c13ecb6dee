/** Operations on an inode's attributes, its extended attributes, and the numbers of the whole filesystem. */
import { FS } from '../errors.ts'
import type { SetStat, Stat, Time } from '../vfs/filesystem.ts'
import { type Connection, type Encode, emptyAgain, type Operation, type OperationAnswer } from './operation.ts'
import { InitFlag, SETXATTR_ACL_KILL_SGID, SetAttr } from './protocol.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/** What chmod(2) may set: the type of an inode never changes. */
const PERMISSION_BITS = 0o7777

/** stat(2) of an inode whose cached attributes were dropped: by a write, or by a notify of ours. */
function getattr(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  return afterArrival(connection, request, reply, (stat, to) => to.attr(stat))
}

/** statx(2) that asks for the time of birth, which the kernel does not cache. Since 6.6 (7.39). */
function statx(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  return afterArrival(connection, request, reply, (stat, to) => to.statx(stat))
}

/** The kernel also asks for the attributes of a directory in the name of whom it would refuse the way through it. */
function afterArrival(
  { fs }: Connection,
  { caller, node }: Request,
  reply: Reply,
  encode: (stat: Stat, to: Reply) => number,
): OperationAnswer {
  const arrival = fs.arrival?.(caller, node)
  if (arrival === undefined) return encode(fs.getattr(caller, node), reply)
  return { waitsFor: 'admission', answer: arrival.then<Encode>(() => (to) => encode(fs.getattr(caller, node), to)) }
}

/** chmod, chown, truncate, utimensat, and open(O_TRUNC). The kernel caches the attributes that come back. */
function setattr({ fs }: Connection, request: Request, reply: Reply): number {
  return reply.attr(fs.setattr(request.caller, request.node, readSetStat(request)))
}

/** fuse_setattr_in: `valid` tells which of its members mean anything. */
function readSetStat(request: Request): SetStat {
  const valid = request.u32(0)
  const change: SetStat = {}
  if (valid & SetAttr.MODE) change.mode = request.u32(68) & PERMISSION_BITS
  if (valid & SetAttr.UID) change.uid = request.u32(76)
  if (valid & SetAttr.GID) change.gid = request.u32(80)
  if (valid & SetAttr.SIZE) change.size = request.offset(16)
  if (valid & SetAttr.ATIME) change.atime = valid & SetAttr.ATIME_NOW ? 'now' : readTime(request, 32, 56)
  if (valid & SetAttr.MTIME) change.mtime = valid & SetAttr.MTIME_NOW ? 'now' : readTime(request, 40, 60)
  if (valid & SetAttr.CTIME) change.ctime = readTime(request, 48, 64)
  if (valid & SetAttr.KILL_SUIDGID) change.killSuidGid = true
  return change
}

/**
 * A time that cannot be stored becomes the nearest that can, without a fraction of a second: timestamp_truncate() (fs/inode.c)
 * does so by the limits of a superblock. Those of FUSE are all 64 bits.
 */
function readTime(request: Request, secondsAt: number, nanosAt: number): Time {
  const time = { s: request.i64(secondsAt), ns: request.u32(nanosAt) }
  if (time.ns > 999_999_999) throw FS.EINVAL
  if (Number.isSafeInteger(time.s)) return time
  return { s: time.s < 0 ? Number.MIN_SAFE_INTEGER : Number.MAX_SAFE_INTEGER, ns: 0 }
}

/** statfs(2) and df. Not cached. */
function statfs({ fs }: Connection, request: Request, reply: Reply): number {
  return reply.statfs(fs.statfs(request.caller, request.node))
}

/** setxattr(2), and setfacl. fuse_setxattr_in grew a flags word that is there only if both sides agreed. */
function setxattr({ fs, negotiated }: Connection, request: Request): number {
  const extended = negotiated !== undefined && (negotiated.flags & InitFlag.SETXATTR_EXT) !== 0
  const nameAt = extended ? 16 : 8
  const name = request.name(nameAt)
  const killSgid = extended && (request.u32(8) & SETXATTR_ACL_KILL_SGID) !== 0
  const value = request.bytes(nameAt + name.length + 1, request.u32(0))
  fs.setxattr(request.caller, request.node, name, value, request.u32(4), killSgid)
  return 0
}

/**
 * getxattr(2); and the kernel itself, once an inode, for `system.posix_acl_access`, into one page: an
 * ACL that is longer (more than 511 entries) makes every access fail with E2BIG, and any errno but
 * ENODATA fails it too (fs/fuse/acl.c). Other attributes are not cached.
 */
function getxattr({ fs }: Connection, request: Request, reply: Reply): OperationAnswer {
  const { caller, node } = request
  const name = request.name(8)
  const size = request.u32(0)
  const arrival = fs.aclArrival?.(caller, node)
  if (arrival === undefined) return xattrValue(fs.getxattr(caller, node, name), size, reply)
  return {
    waitsFor: 'admission',
    answer: arrival.then<Encode>(() => (to) => xattrValue(fs.getxattr(caller, node, name), size, to)),
  }
}

function xattrValue(value: Uint8Array, size: number, reply: Reply): number {
  if (size === 0) return reply.size(value.length)
  if (value.length > size) throw FS.ERANGE
  return reply.raw(value)
}

/** listxattr(2): names one after the other, each with its NUL. */
function listxattr({ fs }: Connection, request: Request, reply: Reply): number {
  const names = fs.listxattr(request.caller, request.node)
  let total = 0
  for (const name of names) total += name.length + 1
  const size = request.u32(0)
  if (size === 0) return reply.size(total)
  if (total > size || total > reply.capacity) throw FS.ERANGE
  reply.text(0, names.map((name) => `${name}\0`).join(''))
  return total
}

function removexattr({ fs }: Connection, request: Request): number {
  fs.removexattr(request.caller, request.node, request.name(0))
  return 0
}

export const attributeOperations = {
  GETATTR: { bodyBytes: 16, run: getattr },
  STATX: { bodyBytes: 24, run: statx },
  SETATTR: { bodyBytes: 88, run: setattr },
  STATFS: { bodyBytes: 0, run: statfs },
  SETXATTR: { bodyBytes: 10, run: setxattr, again: emptyAgain },
  GETXATTR: { bodyBytes: 10, run: getxattr },
  LISTXATTR: { bodyBytes: 8, run: listxattr },
  REMOVEXATTR: { bodyBytes: 2, run: removexattr, again: emptyAgain },
} as const satisfies Record<string, Operation>
