/**
 * What a filesystem offers to the kernel, one method an operation. `src/fuse` decodes requests into
 * these calls and encodes what they return; `src/vfs` implements them; tests call them without a mount.
 *
 * Every method answers synchronously or throws an `FsError`, except where the type says otherwise.
 * Names and xattr names are *latin1 strings*: one character a byte, so that any bytes survive.
 * Node ids are durable integers below 2^53 (see docs/architecture.md, "Node ids").
 * The caller of each request is passed in, because permission is a property of the caller.
 */
import type { Time } from '../volume/attr.ts'

export interface Caller {
  uid: number
  gid: number
  pid: number
}

export type { Time }

/** The attributes of an inode, as stat(2) reports them. */
export interface Stat {
  /** node id; also st_ino */
  node: number
  /** tells the kernel's inodes of one node apart, when the one it has cannot be used any more; 0 when not given */
  generation?: number
  /** file type and permission bits */
  mode: number
  nlink: number
  uid: number
  gid: number
  rdev: number
  /** bytes */
  size: number
  /** bytes that are backed by data (st_blocks is this / 512, rounded up) */
  allocated: number
  atime: Time
  mtime: Time
  ctime: Time
  btime: Time
  /** set where a name is not for every caller: the kernel may not remember it */
  isPrivate?: boolean
  /** set where the attributes are good for once: the kernel asks for them again at the next occasion */
  isFleeting?: boolean
}

/** Only what is present changes. */
export interface SetStat {
  mode?: number
  uid?: number
  gid?: number
  size?: number
  atime?: Time | 'now'
  mtime?: Time | 'now'
  ctime?: Time
  /** the kernel asks for set-uid and set-gid to be cleared (FATTR_KILL_SUIDGID) */
  killSuidGid?: boolean
}

export interface StatFs {
  blockBytes: number
  blocks: number
  blocksFree: number
  blocksAvailable: number
  files: number
  filesFree: number
  nameBytesMax: number
}

/**
 * Receives directory entries; returns false when its buffer is full (that entry was not taken).
 * `cookie` is the position after this entry: pass it to `readdir` to go on. `stat` is given when
 * the listing was asked for with attributes; it is undefined for "." and "..".
 */
export type DirectorySink = (name: string, node: number, mode: number, cookie: number, stat: Stat | undefined) => boolean

/**
 * An errand of a thread of ours through the mount. It changes nothing, but the kernel takes the attributes that it is
 * answered, and tells programs that watch (inotify(7)):
 * - `attributes`: IN_ATTRIB
 * - `content`: IN_MODIFY
 * - `written`: IN_OPEN and IN_CLOSE_WRITE; leases of the file are broken
 * - `came`, `went`: IN_CREATE and IN_DELETE of a name in the node
 */
export interface Touch {
  kind: 'attributes' | 'content' | 'written' | 'came' | 'went'
  node: number
  /** as the kernel was told it with the node */
  generation: number
  /** what it has: nothing is lost should a request of ours be taken for somebody's */
  atime: Time
  mtime: Time
  /** from the mountpoint to the node, one character a byte; for where it cannot be opened by its node */
  path: string
  /** a name in the node, which is a directory; without it the errand is to the node itself */
  name?: string
  /** S_IFMT bits, of a name that came or went */
  type?: number
}

export interface Filesystem {
  /** undefined: no such name, and the kernel may remember that until it is told otherwise */
  lookup(caller: Caller, parent: number, name: string): Stat | undefined
  /** the inode of a handle that the kernel has dropped (open_by_handle_at); undefined: there is none, or none for this caller */
  lookupNode(caller: Caller, node: number): Stat | undefined
  /** the kernel gives back `times` of the references that answers with a Stat gave it */
  forget(node: number, times: number): void
  /** what `getattr` for this caller has to wait for; undefined, as nearly always: for nothing */
  arrival?(caller: Caller, node: number): Promise<void> | undefined
  /** the same for his look at an ACL */
  aclArrival?(caller: Caller, node: number): Promise<void> | undefined
  getattr(caller: Caller, node: number): Stat
  setattr(caller: Caller, node: number, change: SetStat): Stat
  readlink(caller: Caller, node: number): Uint8Array
  symlink(caller: Caller, parent: number, name: string, target: Uint8Array): Stat
  mknod(caller: Caller, parent: number, name: string, mode: number, rdev: number, umask: number): Stat
  mkdir(caller: Caller, parent: number, name: string, mode: number, umask: number): Stat
  unlink(caller: Caller, parent: number, name: string): void
  rmdir(caller: Caller, parent: number, name: string): void
  /** @param flags RENAME_NOREPLACE 1, RENAME_EXCHANGE 2; any other is EINVAL */
  rename(caller: Caller, parent: number, name: string, newParent: number, newName: string, flags: number): void
  link(caller: Caller, node: number, newParent: number, newName: string): Stat
  /** creates a regular file, or with O_EXCL unset returns the existing one */
  create(caller: Caller, parent: number, name: string, mode: number, umask: number, openFlags: number): Stat
  tmpfile(caller: Caller, parent: number, mode: number, umask: number): Stat
  /**
   * Reads at most `size` bytes into `into` from `at` on; returns how many (less only at end of file).
   */
  read(caller: Caller, node: number, offset: number, size: number, into: Buffer, at: number): number
  /**
   * Writes `length` bytes that lie in `buffer` at `start`. To append to the log without a copy the
   * callee may overwrite `buffer` in [start - 80, start) and [start + length, start + length + 1024).
   */
  write(caller: Caller, node: number, offset: number, buffer: Buffer, start: number, length: number, killSuidGid: boolean): number
  /**
   * True while pages of this file that the kernel writes back are of a state that a restore has replaced:
   * they are not to be written.
   */
  isStale?(node: number): boolean
  /** asked before pages that the kernel writes back are written: they carry no caller; throws what refuses them */
  admitWriteBack?(node: number): void
  /**
   * Where a WRITE of a descriptor with O_APPEND belongs, while the kernel may not know where the file ends; undefined
   * when it does, as nearly always: then it belongs where the kernel says.
   */
  appendsAt?(node: number): number | undefined
  /**
   * A file is about to be changed at [offset, offset + length), and perhaps grows by that: `write`, `fallocate` or
   * `copyFileRange` follows at once.
   * @param isLocked the kernel may hold the pages of that range locked until it has its answer
   * @returns what that answer has to wait for
   */
  changing?(node: number, offset: number, length: number, isLocked: boolean): Promise<void> | undefined
  /** The kernel writes back what mappings have dirtied: what is not to be written is cleared in `buffer`. `write` follows at once. */
  writtenBack?(node: number, offset: number, buffer: Buffer, start: number, length: number): void
  /** … and that `write` has failed: the kernel still has it. */
  notWrittenBack?(node: number): void
  /** @param mode FALLOC_FL_* bits */
  fallocate(caller: Caller, node: number, mode: number, offset: number, length: number): void
  /**
   * @param whence SEEK_DATA 3 or SEEK_HOLE 4
   * @returns a promise where mappings may have dirtied pages that are to be written back first
   */
  lseek(caller: Caller, node: number, offset: number, whence: number): number | Promise<number>
  copyFileRange(caller: Caller, node: number, offset: number, toNode: number, toOffset: number, length: number): number
  /** resolves when everything acknowledged before is on stable storage */
  fsync(caller: Caller, node: number, dataOnly: boolean): Promise<void>
  /**
   * `.` comes first, then `..`; no cookie is above 2^52.
   * @param cookie 0 to start, or one that the sink was given
   */
  readdir(caller: Caller, node: number, cookie: number, withStats: boolean, sink: DirectorySink): void
  /**
   * Where listings differ by caller, finds the cookie to list from, in place of another: what lies between is hidden from
   * the caller, may be much, and is passed over in slices.
   * @returns undefined when nothing is hidden from the caller
   */
  passHidden?(caller: Caller, node: number, cookie: number): Promise<number> | undefined
  statfs(caller: Caller, node: number): StatFs
  /** @param flags XATTR_CREATE 1, XATTR_REPLACE 2 */
  setxattr(caller: Caller, node: number, name: string, value: Uint8Array, flags: number, killSgid: boolean): void
  getxattr(caller: Caller, node: number, name: string): Uint8Array
  listxattr(caller: Caller, node: number): string[]
  removexattr(caller: Caller, node: number, name: string): void
}

/**
 * What the filesystem asks of the kernel after something changed that the kernel did not ask for
 * itself (a restore, a deleted workspace). Each resolves when the kernel has acted on it.
 */
export interface KernelCaches {
  /** drop attributes and cached pages (or a cached listing) of a node */
  invalidateNode(node: number): Promise<void>
  /** drop attributes and ACL of a node, no pages: nothing can hold that up */
  invalidateAttributes(node: number): Promise<void>
  /** drop a name, positive or negative */
  invalidateEntry(parent: number, name: string): Promise<void>
  /** drop every name, positive or negative, in all directories */
  invalidateNames(): Promise<void>
  /** a name is to be asked for again by the next who comes by; what lies below it stays. Since 6.2 */
  expireEntry(parent: number, name: string): Promise<void>
  /** a name is gone: drop it and tell inotify watchers of the deleted child */
  deleteEntry(parent: number, child: number, name: string): Promise<void>
  /** write back what mappings have dirtied in these volumes, so that it is in the log before this resolves */
  writeBack(volumes: readonly number[]): Promise<void>
}

/** Has a thread of ours touch files through the mount, so that the kernel takes their attributes from us. */
export interface FileToucher {
  /**
   * It may wait for whoever writes to one of them.
   * @returns for each 0 or a negative errno
   */
  touch(files: readonly Touch[]): Promise<number[]>
  /**
   * The same, for what can be left out: when too many threads wait, nothing is done.
   * @param onDone called when nothing more of it will be done
   * @returns also when it is not done after a while: then undefined
   */
  tell(errands: readonly Touch[], onDone: () => void): Promise<number[] | undefined>
}
