/**
 * INIT, the first request of a connection: the kernel tells its version and what it can do, and we
 * answer with what of that we want. Everything here aims at being asked as little as possible.
 */
import { NexusError } from '../errors.ts'
import type { Connection } from './operation.ts'
import {
  InitFlag,
  InitFlag2,
  KERNEL_MAJOR,
  KERNEL_MINOR_MAX,
  KERNEL_MINOR_MIN,
  PAGES_MAX,
  TRANSFER_BYTES_MAX,
} from './protocol.ts'
import type { Reply } from './reply.ts'
import type { Request } from './request.ts'

/** What both sides keep to from now on. Plain data: another process that takes the mount over needs it too. */
export interface Negotiated {
  /** the protocol's minor version */
  minor: number
  /** InitFlag bits */
  flags: number
  /** InitFlag2 bits */
  flags2: number
  readaheadBytesMax: number
}

/** FUSE_NOTIFY_INC_EPOCH came with Linux 6.16. */
const EPOCH_MINOR = 44
/** FUSE_PASSTHROUGH came with Linux 6.9. */
const PASSTHROUGH_MINOR = 40

/** Whether another process can go on with a mount whose process died: the kernel sends again what was not answered. */
export function canResend({ flags2 }: Negotiated): boolean {
  return (flags2 & InitFlag2.HAS_RESEND) !== 0
}

/** Whether the kernel drops cached pages before it writes past them. Since 6.6; 6.9 (7.40) is the first that can be told apart. */
export function canWriteDirectly({ minor }: Negotiated): boolean {
  return minor >= PASSTHROUGH_MINOR
}

/** Whether the kernel can be told to drop all names at once. */
export function canDropNames({ minor }: Negotiated): boolean {
  return minor >= EPOCH_MINOR
}

/** What the kernel says of itself. */
export interface Offer {
  major: number
  minor: number
  readaheadBytesMax: number
  flags: number
  flags2: number
}

/**
 * Wanted whenever they are offered. What is missing here is missing on purpose:
 * - WRITEBACK_CACHE: small files would cost two SETATTR more each, and an acknowledged write would not be in our log
 * - AUTO_INVAL_DATA: it asks for attributes on every read, to find changes that only we can make (EXPLICIT_INVAL_DATA)
 * - ATOMIC_O_TRUNC: O_TRUNC comes as SETATTR, because OPEN does not come at all
 * - ASYNC_DIO: an asynchronous O_DIRECT write drops cached pages before it is sent and never after (fs/fuse/file.c, fuse_direct_IO
 *   returns -EIOCBQUEUED to generic_file_direct_write), so a page that is read in between stays stale for ever. One thread
 *   serves: requests in parallel would gain nothing
 * - POSIX_LOCKS, FLOCK_LOCKS: the kernel's own locks are exact on one machine, and die with their owner
 * - SECURITY_CTX, CREATE_SUPP_GROUP, PASSTHROUGH: nothing here uses them
 */
const WANTED =
  InitFlag.EXPORT_SUPPORT | // a handle of an inode that the kernel has dropped (open_by_handle_at) is asked for by LOOKUP of "."
  InitFlag.ASYNC_READ | // several READs of one readahead at a time
  InitFlag.BIG_WRITES | // more than a page in a WRITE
  InitFlag.DONT_MASK | // the umask is ours to apply, because a default ACL overrules it
  InitFlag.DO_READDIRPLUS | // a listing brings its attributes along …
  InitFlag.READDIRPLUS_AUTO | // … where somebody looks at them
  InitFlag.NO_OPEN_SUPPORT | // OPEN may be answered ENOSYS
  InitFlag.NO_OPENDIR_SUPPORT | // and so may OPENDIR
  InitFlag.PARALLEL_DIROPS | // lookups in one directory don't wait for each other
  InitFlag.POSIX_ACL | // the kernel caches and enforces ACLs (implies default_permissions)
  InitFlag.ABORT_ERROR | // ECONNABORTED tells an abort from an unmount
  InitFlag.MAX_PAGES | // requests of 1 MiB
  InitFlag.CACHE_SYMLINKS |
  InitFlag.EXPLICIT_INVAL_DATA | // cached pages are good until we say otherwise
  InitFlag.HANDLE_KILLPRIV_V2 | // we clear set-uid and set-gid, so a write needs no GETXATTR before it
  InitFlag.SETXATTR_EXT |
  InitFlag.INIT_EXT

const WANTED2 = InitFlag2.HAS_EXPIRE_ONLY | InitFlag2.DIRECT_IO_ALLOW_MMAP | InitFlag2.HAS_RESEND

/** Most readahead we agree to; the kernel offers what its block device settings say (128 KiB). */
const READAHEAD_BYTES_MAX = 1 << 20
/** Background requests (readahead, write-back, direct I/O) that the kernel has in flight; its own default is 12. */
const BACKGROUND_MAX = 64
/** From here on the kernel holds back readahead: three quarters, as fs/fuse/inode.c has it. */
const CONGESTION_THRESHOLD = 48
/** Times are kept in nanoseconds. */
const TIME_GRANULARITY_NS = 1
/** sizeof(fuse_init_out), since 7.23 */
const INIT_OUT_BYTES = 64

/** The table's entry: answers INIT, or refuses the connection. */
export function initialize(connection: Connection, request: Request, reply: Reply): number {
  try {
    const terms = negotiate(readOffer(request))
    connection.accept(terms)
    return writeTerms(reply, terms)
  } catch (error) {
    if (error instanceof NexusError) connection.refuse(error)
    throw error
  }
}

/** fuse_init_in: 16 bytes until 7.35; then 64, of which flags2 is good if INIT_EXT is offered. */
function readOffer(request: Request): Offer {
  const flags = request.u32(12)
  const extended = (flags & InitFlag.INIT_EXT) !== 0 && request.bodyBytes >= 20
  return {
    major: request.u32(0),
    minor: request.u32(4),
    readaheadBytesMax: request.u32(8),
    flags,
    flags2: extended ? request.u32(16) : 0,
  }
}

/**
 * @throws NexusError NEXUS_UNSUPPORTED when this kernel is too old, or of a protocol yet to be invented
 */
export function negotiate(offer: Offer): Negotiated {
  const version = `${offer.major}.${offer.minor}`
  if (offer.major !== KERNEL_MAJOR) {
    throw new NexusError(
      'NEXUS_UNSUPPORTED',
      `the kernel speaks FUSE ${version}, nexus speaks ${KERNEL_MAJOR}: use another kernel or a newer nexus`,
    )
  }
  if (offer.minor < KERNEL_MINOR_MIN) {
    throw new NexusError(
      'NEXUS_UNSUPPORTED',
      `the kernel speaks FUSE ${version}, nexus needs Linux 5.4 or later (FUSE 7.${KERNEL_MINOR_MIN})`,
    )
  }
  return {
    minor: Math.min(offer.minor, KERNEL_MINOR_MAX),
    flags: offer.flags & WANTED,
    flags2: offer.flags2 & WANTED2,
    readaheadBytesMax: Math.min(offer.readaheadBytesMax, READAHEAD_BYTES_MAX),
  }
}

/** fuse_init_out */
function writeTerms(reply: Reply, terms: Negotiated): number {
  reply.zero(0, INIT_OUT_BYTES)
  reply.u32(0, KERNEL_MAJOR)
  reply.u32(4, terms.minor)
  reply.u32(8, terms.readaheadBytesMax)
  reply.u32(12, terms.flags)
  reply.u32(16, BACKGROUND_MAX | (CONGESTION_THRESHOLD << 16)) // two u16
  reply.u32(20, TRANSFER_BYTES_MAX)
  reply.u32(24, TIME_GRANULARITY_NS)
  reply.u32(28, PAGES_MAX) // u16, then map_alignment 0
  reply.u32(32, terms.flags2)
  return INIT_OUT_BYTES
}
