/**
 * The numbers of the kernel's FUSE protocol, as written down in include/uapi/linux/fuse.h of Linux
 * 6.18 (protocol 7.45). Distributions ship older headers than their kernels, so they are kept here.
 * Nothing in this file decides anything: what we ask for is in init.ts, what we answer in *-ops.ts.
 */

/** FUSE_KERNEL_VERSION: the only major there has been since 2005. */
export const KERNEL_MAJOR = 7
/** FUSE_KERNEL_MINOR_VERSION of Linux 6.18, the newest that these constants know. */
export const KERNEL_MINOR_MAX = 45
/** Linux 5.4. Older ones lack what `init.ts` cannot do without (FUSE_EXPLICIT_INVAL_DATA is 7.30). */
export const KERNEL_MINOR_MIN = 31
/** FUSE_ROOT_ID */
export const ROOT_NODE = 1

/** enum fuse_opcode, every one of them. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
  CUSE_INIT: 4096,
} as const

export type OpcodeName = keyof typeof Opcode

/** FUSE_* flags of fuse_init_in.flags and fuse_init_out.flags: bits 0 to 31. */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  FLOCK_LOCKS: 1 << 10,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const

/** The same for flags2, which carries bits 32 to 63 shifted down (only with INIT_EXT). */
export const InitFlag2 = {
  SECURITY_CTX: 1 << 0,
  CREATE_SUPP_GROUP: 1 << 2,
  HAS_EXPIRE_ONLY: 1 << 3,
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  PASSTHROUGH: 1 << 5,
  NO_EXPORT_SUPPORT: 1 << 6,
  HAS_RESEND: 1 << 7,
} as const

/** FATTR_*: which members of fuse_setattr_in count. */
export const SetAttr = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const

/** FOPEN_*: what the kernel may do with an opened file. */
export const OpenFlag = { DIRECT_IO: 1 << 0, KEEP_CACHE: 1 << 1, CACHE_DIR: 1 << 3 } as const

/** fuse_open_out.fh of a file that is written past the page cache: WRITE brings it back. */
export const DIRECT_HANDLE = 1

/** open(2) as asm-generic/fcntl.h has it; what a file is open for, and O_DSYNC, which O_SYNC includes. */
const O_ACCMODE = 0o3
const O_WRONLY = 0o1
const O_DSYNC = 0o10000

/**
 * Whether what is made with these flags of open(2) is written past the page cache: nobody reads or maps it through
 * this descriptor. With O_DSYNC the kernel has to sync what was written, which it does only for cached files.
 */
export function isWrittenDirectly(flags: number): boolean {
  return (flags & O_ACCMODE) === O_WRONLY && (flags & O_DSYNC) === 0
}

/** The node of a probe (operation.ts): the last that there can be, which no volume has. */
export const PROBE_NODE = Number.MAX_SAFE_INTEGER

/** A regular file, as in linux/stat.h. */
export const S_IFREG = 0o100000

/** FUSE_WRITE_*: bits of fuse_write_in.write_flags. */
export const WriteFlag = { CACHE: 1 << 0, KILL_SUIDGID: 1 << 2 } as const

/** FUSE_FSYNC_FDATASYNC */
export const FSYNC_DATA_ONLY = 1 << 0

/** FUSE_SETXATTR_ACL_KILL_SGID */
export const SETXATTR_ACL_KILL_SGID = 1 << 0

/** STATX_BASIC_STATS | STATX_BTIME of linux/stat.h: all that a Stat can tell. */
export const STATX_MASK = 0x7ff | 0x800

/** enum fuse_notify_code: sent as `error` of a reply whose `unique` is 0. */
export const Notify = { INVAL_INODE: 2, INVAL_ENTRY: 3, DELETE: 6, RESEND: 7, INC_EPOCH: 8 } as const

/** FUSE_EXPIRE_ONLY: flag of fuse_notify_inval_entry_out, if HAS_EXPIRE_ONLY was agreed on */
export const EXPIRE_ONLY = 1 << 0

/** Bytes of the structs that frame every message, checked against the header in the tests. */
export const IN_HEADER_BYTES = 40
export const OUT_HEADER_BYTES = 16
export const ATTR_BYTES = 88
export const ENTRY_OUT_BYTES = 40 + ATTR_BYTES
export const ATTR_OUT_BYTES = 16 + ATTR_BYTES
export const OPEN_OUT_BYTES = 16
export const DIRENT_BYTES = 24

/** FUSE_MAX_MAX_PAGES of fs/fuse/fuse_i.h: 256 pages of 4 KiB are the most one request carries. */
export const PAGES_MAX = 256
export const TRANSFER_BYTES_MAX = PAGES_MAX * 4096
/** Room for the headers in front of a full WRITE; FUSE_MIN_READ_BUFFER is 8192 for the same reason. */
export const REQUEST_BYTES_MAX = TRANSFER_BYTES_MAX + 8192
