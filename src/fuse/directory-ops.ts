/** Listing directories. The kernel caches listings (FOPEN_CACHE_DIR) as pages of the directory's inode. */
import { FS } from '../errors.ts'
import type { DirectorySink, Stat } from '../vfs/filesystem.ts'
import type { Connection, Operation, OperationAnswer } from './operation.ts'
import { type List, privately } from './private-listings.ts'
import { DIRENT_BYTES, ENTRY_OUT_BYTES, InitFlag, OpenFlag } from './protocol.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/** opendir(3). ENOSYS tells the kernel to never ask again and to cache every listing for everybody, as the answer does for one. */
function opendir({ negotiated }: Connection, _request: Request, reply: Reply): number {
  if (((negotiated?.flags ?? 0) & InitFlag.NO_OPENDIR_SUPPORT) !== 0) throw FS.ENOSYS
  return reply.opened(0, OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR)
}

/** Entries that lie on the disk take a while each, and a buffer may be large: so long does one answer collect them, then it ends early. */
const COLLECT_MS = 5
/** The clock is looked at after so many entries. */
const COLLECT_ENTRIES = 8

/** getdents(2), where the kernel expects that nobody will stat the entries. */
function readdir(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  return listed(connection, request, reply, false, (entries) => {
    const isOver = collecting()
    return (name, node, mode, cookie) => !isOver() && entries.add(name, node, mode, cookie, 0)
  })
}

/** Tells for each entry whether it has to wait for the next answer, which the kernel asks for when others had their turn. */
function collecting(): () => boolean {
  const until = performance.now() + COLLECT_MS
  let count = 0
  return () => ++count % COLLECT_ENTRIES === 0 && performance.now() > until
}

/**
 * getdents(2) with a lookup of each entry: it fills the kernel's caches, so that `ls -l` needs nothing
 * more. Each entry that carries a node counts as a reference, as one of LOOKUP does.
 */
function readdirplus(connection: Connection, request: Request, reply: Reply): OperationAnswer {
  return listed(connection, request, reply, true, (entries) => {
    const isOver = collecting()
    return (name, node, mode, cookie, stat) => {
      if (isOver()) return false
      if (!entries.add(name, node, mode, cookie, ENTRY_OUT_BYTES)) return false
      entries.describe(name === '.' || name === '..' ? undefined : stat)
      return true
    }
  })
}

/** Nothing of the request is read when an answer has waited: there is another in its place. */
function listed(
  { fs, privateListings }: Connection,
  request: Request,
  reply: Reply,
  withStats: boolean,
  sinkOf: (entries: Entries) => DirectorySink,
): OperationAnswer {
  const { caller, node } = request
  const [position, bytesMax] = [request.offset(8), request.u32(16)]
  const list: List =
    (from, narrow = (sink) => sink) =>
    (into) => {
      const entries = new Entries(bytesMax, into)
      fs.readdir(caller, node, from, withStats, narrow(sinkOf(entries)))
      return entries.end()
    }
  if (!privateListings?.has(node)) return list(position)(reply)
  const pass = (from: number): Promise<number> | undefined => fs.passHidden?.(caller, node, from)
  const answer = privately(privateListings, node, position, { list, pass })
  return typeof answer === 'function' ? answer(reply) : { waitsFor: 'listing', answer }
}

/** fuse_dirent and fuse_direntplus, one after the other until the caller's buffer is full. */
class Entries {
  readonly #reply: Reply
  readonly #limit: number
  #length = 0
  /** where the last entry starts */
  #last = 0
  #full = false

  constructor(bytesMax: number, reply: Reply) {
    this.#reply = reply
    this.#limit = Math.min(bytesMax, reply.capacity)
  }

  /** Appends a fuse_dirent, leaving `lead` bytes in front of it; false when it does not fit. */
  add(name: string, node: number, mode: number, cookie: number, lead: number): boolean {
    const unpadded = lead + DIRENT_BYTES + name.length
    const length = (unpadded + 7) & ~7
    if (this.#length + length > this.#limit) {
      this.#full = true
      return false
    }
    const reply = this.#reply
    const at = this.#length + lead
    reply.u64(at, node)
    reply.u64(at + 8, cookie)
    reply.u32(at + 16, name.length)
    reply.u32(at + 20, (mode >>> 12) & 15) // DT_* are the type bits of a mode
    reply.text(at + DIRENT_BYTES, name)
    reply.zero(this.#length + unpadded, length - unpadded)
    this.#last = this.#length
    this.#length += length
    return true
  }

  /** Fills the lead of the entry just added: with node 0 the kernel takes the name and nothing else. */
  describe(stat: Stat | undefined): void {
    if (stat === undefined) this.#reply.noEntry(this.#last)
    else this.#reply.entry(this.#last, stat)
  }

  /** An empty answer means the end of the directory, so one entry must have fitted (as getdents(2) has it). */
  end(): number {
    if (this.#full && this.#length === 0) throw FS.EINVAL
    return this.#length
  }
}

export const directoryOperations = {
  OPENDIR: { bodyBytes: 8, run: opendir },
  READDIR: { bodyBytes: 40, run: readdir },
  READDIRPLUS: { bodyBytes: 40, run: readdirplus },
  /** The last close of a directory that was opened by a request; nothing is kept open here. */
  RELEASEDIR: { bodyBytes: 24, run: () => 0 },
} as const satisfies Record<string, Operation>
