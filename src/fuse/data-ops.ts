/** Operations on what is in files. The node says which file, also after a restart; a handle says only whether a WRITE is direct. */
import { FS } from '../errors.ts'
import type { Connection, Encode, Late, Operation, OperationAnswer } from './operation.ts'
import { DIRECT_HANDLE, FSYNC_DATA_ONLY, IN_HEADER_BYTES, OUT_HEADER_BYTES, WriteFlag } from './protocol.ts'
import type { Reply } from './reply.ts'
import { KERNEL, type Request } from './request.ts'
import { checkEnd } from './wire.ts'

/** sizeof(fuse_write_in): the data follows it. */
const WRITE_IN_BYTES = 40
/** asm-generic/fcntl.h */
const O_APPEND = 0o2000
/** Where the data of a WRITE begins. */
const DATA_AT = IN_HEADER_BYTES + WRITE_IN_BYTES
/** COPY_FILE_RANGE answers in 32 bits; a whole number of pages below that. */
const COPY_BYTES_MAX = 0xfffff000

/** Pages that are not in the page cache, read ahead as it sees fit; and read(2) of O_DIRECT. Short means end of file. */
function read({ fs, direct }: Connection, request: Request, reply: Reply): OperationAnswer {
  const size = request.u32(16)
  if (size > reply.capacity) throw FS.EINVAL
  direct?.cached(request.node)
  return fs.read(request.caller, request.node, request.offsetCapped(8), size, reply.buffer, OUT_HEADER_BYTES)
}

/**
 * write(2), in pieces of at most 1 MiB, before it returns; and pages dirtied through mmap, whenever
 * the kernel likes: those carry nobody's name. The data is handed on where it lies, and the callee
 * may overwrite what is in front of it, so nothing of the request is read after the call.
 */
function write(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  const { node } = request
  const isDirect = request.u32(0) === DIRECT_HANDLE
  const length = request.u32(16)
  const flags = request.u32(20)
  const offset = (isAppend(request) ? connection.fs.appendsAt?.(node) : undefined) ?? request.offset(8)
  if (WRITE_IN_BYTES + length > request.bodyBytes) throw FS.EINVAL
  checkEnd(offset, length)
  const isWriteBack = (flags & WriteFlag.CACHE) !== 0
  if (isWriteBack) {
    connection.noteWriteBack(node)
    // Whole pages, of which somebody changed a byte: they would bring back all the rest of what was before.
    if (connection.fs.isStale?.(node)) return reply.size(length)
    return reply.size(writeBack(connection, request, node, offset, length))
  }
  const { caller } = request
  const killSuidGid = (flags & WriteFlag.KILL_SUIDGID) !== 0
  const settled = connection.fs.changing?.(node, offset, length, !isDirect)
  const written = connection.fs.write(caller, node, offset, request.buffer, DATA_AT, length, killSuidGid)
  return writtenAnswer(connection, reply, { node, offset, written, isDirect, again: false, settled })
}

/** Pages that were dirtied through mappings: in the name of nobody. @returns bytes */
function writeBack(connection: Connection, request: Request, node: number, offset: number, length: number): number {
  const { fs, direct } = connection
  try {
    fs.admitWriteBack?.(node)
  } catch (error) {
    connection.writeBackFailed(node, error)
    throw error
  }
  direct?.cached(node)
  fs.writtenBack?.(node, offset, request.buffer, DATA_AT, length)
  try {
    return fs.write(KERNEL, node, offset, request.buffer, DATA_AT, length, false)
  } catch (error) {
    fs.notWrittenBack?.(node)
    connection.writeBackFailed(node, error)
    throw error
  }
}

/**
 * Whether the kernel found out the position by itself, by what it took for the end of the file (fuse_write_in.flags
 * are those of the descriptor, and 0 for what is written back). RWF_APPEND on another descriptor is not told.
 */
function isAppend(request: Request): boolean {
  return (request.u32(32) & O_APPEND) !== 0
}

/** All of it was stored; since then somebody may have written there again. */
function writeAgain(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  const [offset, written, isDirect] = [request.offset(8), request.u32(16), request.u32(0) === DIRECT_HANDLE]
  return writtenAnswer(connection, reply, { node: request.node, offset, written, isDirect, again: true, settled: undefined })
}

interface Written {
  node: number
  offset: number
  /** bytes */
  written: number
  isDirect: boolean
  again: boolean
  /** what it has to wait for besides */
  settled: Promise<void> | undefined
}

/** Who wrote goes on when nobody can read what was there before. */
function writtenAnswer({ direct }: Connection, reply: Reply, write: Written): OperationAnswer {
  const { node, offset, written, isDirect, again, settled } = write
  if (!isDirect) direct?.cached(node)
  const dropped = isDirect ? direct?.written(node, offset, written, again) : undefined
  if (dropped === undefined && settled === undefined) return reply.size(written)
  return { waitsFor: 'pages', answer: Promise.all([dropped, settled]).then<Encode>(() => (late) => late.size(written)) }
}

/** fallocate(2); the kernel has checked the mode and drops the pages of a hole itself. */
function fallocate({ fs }: Connection, request: Request): OperationAnswer {
  const offset = request.offset(8)
  const length = request.offset(16)
  checkEnd(offset, length)
  // Nothing is written there, so what counts is the end.
  const settled = fs.changing?.(request.node, offset + length, 0, false)
  fs.fallocate(request.caller, request.node, request.u32(24), offset, length)
  return settled === undefined ? 0 : { waitsFor: 'pages', answer: settled }
}

/** lseek(2) with SEEK_DATA or SEEK_HOLE; the others the kernel does alone. */
function lseek({ fs }: Connection, request: Request, reply: Reply): OperationAnswer {
  const found = fs.lseek(request.caller, request.node, request.offsetCapped(8), request.u32(16))
  if (typeof found === 'number') return reply.position(found)
  return { waitsFor: 'pages', answer: found.then<Encode>((position) => (late) => late.position(position)) }
}

/** copy_file_range(2) inside this mount, after the kernel has written back both ranges. */
function copyFileRange(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  const { settled, bytes } = copy(connection, request, COPY_BYTES_MAX)
  if (settled === undefined) return reply.size(bytes)
  return { waitsFor: 'pages', answer: settled.then<Encode>(() => (late) => late.size(bytes)) }
}

/** The same with an answer of 64 bits, since 6.18 (7.45). */
function copyFileRange64(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  const { settled, bytes } = copy(connection, request, Number.MAX_SAFE_INTEGER)
  if (settled === undefined) return reply.position(bytes)
  return { waitsFor: 'pages', answer: settled.then<Encode>(() => (late) => late.position(bytes)) }
}

interface Copied {
  bytes: number
  settled: Promise<void> | undefined
}

function copy({ fs }: Connection, request: Request, lengthMax: number): Copied {
  const from = request.offset(8)
  const to = request.offset(32)
  // A length beyond any file means "to the end" and is no error.
  const length = Math.min(request.offsetCapped(40), lengthMax, Number.MAX_SAFE_INTEGER - Math.max(from, to))
  if (request.u32(48) !== 0) throw FS.EINVAL
  const target = request.nodeAt(16)
  const settled = fs.changing?.(target, to, length, false)
  return { bytes: fs.copyFileRange(request.caller, request.node, from, target, to, length), settled }
}

/** fsync(2) and fdatasync(2) of a file or directory, after the kernel has written back its pages. */
function fsync({ fs }: Connection, request: Request): Late {
  const answer = fs.fsync(request.caller, request.node, (request.u32(8) & FSYNC_DATA_ONLY) !== 0)
  return { waitsFor: 'disk', answer }
}

/** syncfs(2) of the mount, where the kernel passes it on (not to an ordinary mount as of 6.18). */
function syncfs({ fs }: Connection, request: Request): Late {
  return { waitsFor: 'disk', answer: fs.fsync(request.caller, request.node, false) }
}

export const dataOperations = {
  READ: { bodyBytes: 40, run: read },
  WRITE: { bodyBytes: WRITE_IN_BYTES, run: write, again: writeAgain },
  FALLOCATE: { bodyBytes: 32, run: fallocate },
  LSEEK: { bodyBytes: 24, run: lseek },
  COPY_FILE_RANGE: { bodyBytes: 56, run: copyFileRange },
  COPY_FILE_RANGE_64: { bodyBytes: 56, run: copyFileRange64 },
  FSYNC: { bodyBytes: 16, run: fsync },
  FSYNCDIR: { bodyBytes: 16, run: fsync },
  SYNCFS: { bodyBytes: 8, run: syncfs },
} as const satisfies Record<string, Operation>
