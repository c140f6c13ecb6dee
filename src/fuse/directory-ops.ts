/** Listing directories. The kernel caches listings (FOPEN_CACHE_DIR) as pages of the directory's inode. */
import { FS } from '../errors.ts'
import type { DirectorySink, Stat } from '../vfs/filesystem.ts'
import type { Connection, Operation } from './operation.ts'
import { DIRENT_BYTES, ENTRY_OUT_BYTES, InitFlag, OpenFlag } from './protocol.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/**
 * opendir(3). ENOSYS tells the kernel to never ask again and to cache every listing for everybody.
 * Where listings differ by caller it must go on asking, and those stay out of its cache.
 */
function opendir({ negotiated, listingDependsOnCaller }: Connection, request: Request, reply: Reply): number {
  if (listingDependsOnCaller?.(request.node)) return reply.opened(0, 0)
  const mayRefuse = ((negotiated?.flags ?? 0) & InitFlag.NO_OPENDIR_SUPPORT) !== 0
  if (mayRefuse && listingDependsOnCaller === undefined) throw FS.ENOSYS
  return reply.opened(0, OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR)
}

/** getdents(2), where the kernel expects that nobody will stat the entries. */
function readdir({ fs }: Connection, request: Request, reply: Reply): number {
  const entries = new Entries(request, reply)
  const sink: DirectorySink = (name, node, mode, cookie) => entries.add(name, node, mode, cookie, 0)
  fs.readdir(request.caller, request.node, request.offset(8), false, sink)
  return entries.end()
}

/** Attributes that lie on the disk take a while each: so long does one answer collect them, then it ends early. */
const COLLECT_MS = 5
/** The clock is looked at after so many entries. */
const COLLECT_ENTRIES = 8

/**
 * getdents(2) with a lookup of each entry: it fills the kernel's caches, so that `ls -l` needs nothing
 * more. Each entry that carries a node counts as a reference, as one of LOOKUP does.
 */
function readdirplus({ fs }: Connection, request: Request, reply: Reply): number {
  const entries = new Entries(request, reply)
  const until = performance.now() + COLLECT_MS
  let count = 0
  const sink: DirectorySink = (name, node, mode, cookie, stat) => {
    // The kernel asks for the rest: others have their turn before.
    if (++count % COLLECT_ENTRIES === 0 && performance.now() > until) return false
    if (!entries.add(name, node, mode, cookie, ENTRY_OUT_BYTES)) return false
    entries.describe(name === '.' || name === '..' ? undefined : stat)
    return true
  }
  fs.readdir(request.caller, request.node, request.offset(8), true, sink)
  return entries.end()
}

/** fuse_dirent and fuse_direntplus, one after the other until the caller's buffer is full. */
class Entries {
  readonly #reply: Reply
  readonly #limit: number
  #length = 0
  /** where the last entry starts */
  #last = 0
  #full = false

  constructor(request: Request, reply: Reply) {
    this.#reply = reply
    this.#limit = Math.min(request.u32(16), reply.capacity)
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
  /** The last close of an opened directory; nothing is kept open here. */
  RELEASEDIR: { bodyBytes: 24, run: () => 0 },
} as const satisfies Record<string, Operation>
