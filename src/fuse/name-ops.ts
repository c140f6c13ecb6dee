/** Operations on names: finding, making, moving and removing them. Parents are the request's node. */
import { FS } from '../errors.ts'
import type { Stat } from '../vfs/filesystem.ts'
import { type Connection, emptyAgain, type Operation, type Probe, silent } from './operation.ts'
import { DIRECT_HANDLE, ENTRY_OUT_BYTES, isWrittenDirectly, OpenFlag, PROBE_NODE, S_IFREG } from './protocol.ts'
import type { Reply } from './reply.ts'
import { KERNEL, type Request } from './request.ts'

/**
 * A name that is not in the kernel's cache. "." and ".." come only from open_by_handle_at(2) and NFS, for an
 * inode the kernel has dropped. An answer is cached for ever, and so is "no such name" (node 0); a
 * filesystem that *throws* ENOENT instead is asked again the next time.
 */
function lookup({ fs, probe }: Connection, request: Request, reply: Reply): number {
  const name = request.name(0)
  if (probe !== undefined && name === probe.name) return reply.entry(0, probeStat(probe))
  const stat = name === '.' ? fs.lookupNode(request.caller, request.node) : fs.lookup(request.caller, request.node, name)
  return stat === undefined ? reply.noEntry(0) : reply.entry(0, stat)
}

function probeStat({ uid }: Probe): Stat {
  const never = { s: 0, ns: 0 }
  return {
    node: PROBE_NODE,
    mode: S_IFREG | 0o400,
    nlink: 1,
    uid,
    gid: 0,
    rdev: 0,
    size: 0,
    allocated: 0,
    atime: never,
    mtime: never,
    ctime: never,
    btime: never,
    isPrivate: true,
  }
}

/** symlink(2): the name comes first, then what it points to. */
function symlink({ fs }: Connection, request: Request, reply: Reply): number {
  const name = request.name(0)
  const target = request.name(name.length + 1)
  return reply.entry(0, fs.symlink(request.caller, request.node, name, Buffer.from(target, 'latin1')))
}

/** mknod(2) of any type; also open(O_CREAT) once CREATE was answered ENOSYS (we never do). The mode holds the type. */
function mknod({ fs }: Connection, request: Request, reply: Reply): number {
  const { caller, node } = request
  return reply.entry(0, fs.mknod(caller, node, request.name(16), request.u32(0), request.u32(4), request.u32(8)))
}

/** mkdir(2). The umask is ours to apply (FUSE_DONT_MASK), because a default ACL replaces it. */
function mkdir({ fs }: Connection, request: Request, reply: Reply): number {
  return reply.entry(0, fs.mkdir(request.caller, request.node, request.name(8), request.u32(0), request.u32(4)))
}

/** unlink(2). The inode lives on until its FORGET: somebody may have it open, and we see no OPEN. */
function unlink({ fs }: Connection, request: Request): number {
  fs.unlink(request.caller, request.node, request.name(0))
  return 0
}

function rmdir({ fs }: Connection, request: Request): number {
  fs.rmdir(request.caller, request.node, request.name(0))
  return 0
}

/** rename(2), and renameat2(2) without flags. */
function rename(connection: Connection, request: Request): number {
  return moveName(connection, request, 8, 0)
}

/** renameat2(2) with flags. */
function rename2(connection: Connection, request: Request): number {
  return moveName(connection, request, 16, request.u32(8))
}

function moveName({ fs }: Connection, request: Request, namesAt: number, flags: number): number {
  const name = request.name(namesAt)
  const newName = request.name(namesAt + name.length + 1)
  fs.rename(request.caller, request.node, name, request.nodeAt(0), newName, flags)
  return 0
}

/** link(2), and linkat(2) of what TMPFILE made: here the request's node is the new parent. */
function link({ fs }: Connection, request: Request, reply: Reply): number {
  return reply.entry(0, fs.link(request.caller, request.nodeAt(0), request.node, request.name(8)))
}

/**
 * open(O_CREAT) of a name that the kernel knows (or believes) to be absent: makes it and opens it at
 * once. The kernel takes the file for new, so an existing one is truncated by us if O_TRUNC says so.
 */
function create(connection: Connection, request: Request, reply: Reply): number {
  const { caller, node } = request
  const name = request.name(16)
  const flags = request.u32(0)
  return openedEntry(connection, reply, connection.fs.create(caller, node, name, request.u32(4), request.u32(8), flags), flags)
}

/** open(O_TMPFILE), since 6.1 (7.37). The kernel sends some name along that means nothing. */
function tmpfile(connection: Connection, request: Request, reply: Reply): number {
  const stat = connection.fs.tmpfile(request.caller, request.node, request.u32(4), request.u32(8))
  return openedEntry(connection, reply, stat, request.u32(0))
}

/** What was made, asked of the kernel's behalf: whoever made it was allowed to. */
function made({ fs }: Connection, node: number, name: string): Stat {
  const stat = fs.lookup(KERNEL, node, name)
  // It was made, and somebody else has removed it since.
  if (stat === undefined) throw FS.ENOENT
  return stat
}

/** The answer of an operation that made a name, which begins `nameAt` bytes into the body. */
function entryAgain(nameAt: number) {
  return (connection: Connection, request: Request, reply: Reply): number =>
    reply.entry(0, made(connection, request.node, request.name(nameAt)))
}

function createAgain(connection: Connection, request: Request, reply: Reply): number {
  return openedEntry(connection, reply, made(connection, request.node, request.name(16)), request.u32(0))
}

/** @param flags of the open(2) that made it */
function openedEntry({ direct }: Connection, reply: Reply, stat: Stat, flags: number): number {
  const entryBytes = reply.entry(0, stat)
  if (direct === undefined || !isWrittenDirectly(flags)) return entryBytes + reply.opened(ENTRY_OUT_BYTES, OpenFlag.KEEP_CACHE)
  direct.made(stat.node)
  return entryBytes + reply.opened(ENTRY_OUT_BYTES, OpenFlag.DIRECT_IO, DIRECT_HANDLE)
}

/** readlink(2), once a symlink: the kernel keeps the answer (FUSE_CACHE_SYMLINKS). */
function readlink({ fs }: Connection, request: Request, reply: Reply): number {
  return reply.raw(fs.readlink(request.caller, request.node))
}

/**
 * References given back, one for each answer that carried the node (entries of READDIRPLUS count). The kernel
 * mostly gives back all it had, when it drops the inode; but a single one of a lost race comes alone.
 */
function forget(connection: Connection, request: Request): void {
  connection.forget(request.node, request.offsetCapped(0))
}

/** Many of them at once, when the kernel shrinks its caches or unmounts. */
function batchForget(connection: Connection, request: Request): void {
  const count = request.u32(0)
  if (8 + count * 16 > request.bodyBytes) throw FS.EINVAL
  for (let at = 8; at < 8 + count * 16; at += 16) connection.forget(request.nodeAt(at), request.offsetCapped(at + 8))
}

export const nameOperations = {
  LOOKUP: { bodyBytes: 2, run: lookup },
  SYMLINK: { bodyBytes: 4, run: symlink, again: entryAgain(0) },
  MKNOD: { bodyBytes: 18, run: mknod, again: entryAgain(16) },
  MKDIR: { bodyBytes: 10, run: mkdir, again: entryAgain(8) },
  UNLINK: { bodyBytes: 2, run: unlink, again: emptyAgain },
  RMDIR: { bodyBytes: 2, run: rmdir, again: emptyAgain },
  RENAME: { bodyBytes: 12, run: rename, again: emptyAgain },
  RENAME2: { bodyBytes: 20, run: rename2, again: emptyAgain },
  LINK: { bodyBytes: 10, run: link, again: entryAgain(8) },
  CREATE: { bodyBytes: 18, run: create, again: createAgain },
  TMPFILE: { bodyBytes: 16, run: tmpfile },
  READLINK: { bodyBytes: 0, run: readlink },
  FORGET: silent(8, forget),
  BATCH_FORGET: silent(8, batchForget),
} as const satisfies Record<string, Operation>
