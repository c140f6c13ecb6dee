/** The filesystem: every operation of the kernel, on volumes. Each family has a file of its own. */
import { FS } from '../errors.ts'
import { Pace } from '../pace.ts'
import { ACCESS_ACL } from './acl.ts'
import { getattr, setattr } from './attributes.ts'
import { Core, type CoreOptions } from './core.ts'
import { copyFileRange, fallocate, read, write } from './data.ts'
import type { Caller, DirectorySink, Filesystem, SetStat, Stat, StatFs } from './filesystem.ts'
import { READ, WRITE } from './guard.ts'
import { passHidden, readdir } from './listing.ts'
import {
  create,
  forget,
  link,
  lookup,
  lookupNode,
  mkdir,
  mknod,
  NAME_BYTES_MAX,
  readlink,
  rmdir,
  symlink,
  tmpfile,
  unlink,
} from './names.ts'
import { volumeOf } from './place.ts'
import { rename } from './rename.ts'
import { lseek } from './seek.ts'
import { ERRAND_GID } from './tidings.ts'
import { getxattr, listxattr, removexattr, setxattr } from './xattr.ts'

export interface NexusFsOptions extends CoreOptions {
  /** blocks of the disk that holds the log, as statfs(2) reports them */
  space(): { blockBytes: number; blocks: number; blocksFree: number; blocksAvailable: number }
}

/** Inodes are numbered, not allocated: this many can be in use is as good an answer as any. */
const FILES_MAX = 2 ** 32

/**
 * What users who share a store are told of its disk: free space in steps, for else each could see what the others do, and
 * whether what one stores is there already.
 */
const STEP_BYTES = 64 * 1024 * 1024
/** Of a small disk a step is no more than this part. */
const STEPS_MIN = 16

function inSteps<S extends { blockBytes: number; blocks: number; blocksFree: number; blocksAvailable: number }>(space: S): S {
  const step = Math.max(1, Math.min(Math.floor(STEP_BYTES / space.blockBytes), Math.floor(space.blocks / STEPS_MIN)))
  const floor = (blocks: number): number => blocks - (blocks % step)
  return { ...space, blocksFree: floor(space.blocksFree), blocksAvailable: floor(space.blocksAvailable) }
}

/** FALLOCATE and COPY_FILE_RANGE do not say, as WRITE does, that the caller lacks CAP_FSETID: we go by its uid. */
function losesSetId(caller: Caller): boolean {
  return caller.uid !== 0
}

export class NexusFs implements Filesystem {
  readonly core: Core
  readonly #options: NexusFsOptions

  constructor(options: NexusFsOptions) {
    this.#options = options
    this.core = new Core(options)
  }

  lookup(caller: Caller, parent: number, name: string): Stat | undefined {
    this.core.gates.heard(caller.pid)
    const told = this.#isOurs(caller) ? this.core.tidings.lookup(parent, name) : undefined
    return told ?? lookup(this.core, caller, parent, name)
  }

  lookupNode(caller: Caller, node: number): Stat | undefined {
    // A thread of ours looks for what the kernel holds. What it had to ask for is not held.
    if (this.core.touchers.has(caller.pid)) return undefined
    this.core.gates.heard(caller.pid)
    return lookupNode(this.core, caller, node)
  }

  forget(node: number, times: number): void {
    forget(this.core, node, times)
  }

  arrival(caller: Caller, node: number): Promise<void> | undefined {
    this.core.gates.heard(caller.pid)
    if (volumeOf(node) === 0) return this.core.gates.arrival(caller.uid, this.core.place(node))
    return this.core.crowds.arrival(caller.uid, node, () => this.core.ruling(node))
  }

  aclArrival(caller: Caller, node: number): Promise<void> | undefined {
    return volumeOf(node) === 0 && this.core.gates.awaitsAcl(caller.uid) ? this.arrival(caller, node) : undefined
  }

  getattr(caller: Caller, node: number): Stat {
    this.#see(caller, node)
    return getattr(this.core, node)
  }

  setattr(caller: Caller, node: number, change: SetStat): Stat {
    if (this.#isOurs(caller)) return this.core.touched(node)
    this.#demand(caller, node, WRITE)
    // The kernel knows of set-id bits, and is about to let a caller write who loses them (__remove_privs, fs/inode.c). It asks
    // for no change, because clearing is ours; but it waits for this answer before it writes, and keeps the mode that it has.
    const isOfWrite = Object.keys(change).length === 0 && losesSetId(caller)
    return setattr(this.core, node, isOfWrite ? { killSuidGid: true } : change)
  }

  readlink(caller: Caller, node: number): Uint8Array {
    this.#demand(caller, node, READ)
    return readlink(this.core, node)
  }

  symlink(caller: Caller, parent: number, name: string, target: Uint8Array): Stat {
    if (this.#isTiding(caller)) return this.#made(caller, parent, name)
    this.#demand(caller, parent, WRITE)
    return symlink(this.core, caller, parent, name, target)
  }

  mknod(caller: Caller, parent: number, name: string, mode: number, rdev: number, umask: number): Stat {
    if (this.#isTiding(caller)) return this.#made(caller, parent, name)
    this.#demand(caller, parent, WRITE)
    return mknod(this.core, caller, parent, name, mode, rdev, umask)
  }

  mkdir(caller: Caller, parent: number, name: string, mode: number, umask: number): Stat {
    if (this.#isTiding(caller)) return this.#made(caller, parent, name)
    this.#demand(caller, parent, WRITE)
    return mkdir(this.core, caller, parent, name, mode, umask)
  }

  unlink(caller: Caller, parent: number, name: string): void {
    if (this.#isTiding(caller)) {
      this.core.tidings.demand('went', parent, name)
      return
    }
    this.#demand(caller, parent, WRITE)
    unlink(this.core, parent, name)
  }

  rmdir(caller: Caller, parent: number, name: string): void {
    if (this.#isTiding(caller)) {
      this.core.tidings.demand('went', parent, name)
      return
    }
    this.#demand(caller, parent, WRITE)
    rmdir(this.core, parent, name)
  }

  rename(caller: Caller, parent: number, name: string, newParent: number, newName: string, flags: number): void {
    this.#demand(caller, parent, WRITE)
    this.#demand(caller, newParent, WRITE)
    rename(this.core, parent, name, newParent, newName, flags)
  }

  link(caller: Caller, node: number, newParent: number, newName: string): Stat {
    this.#demand(caller, newParent, WRITE)
    this.#demand(caller, node, READ | WRITE)
    return link(this.core, caller, node, newParent, newName)
  }

  create(caller: Caller, parent: number, name: string, mode: number, umask: number, openFlags: number): Stat {
    this.#demand(caller, parent, WRITE)
    return create(this.core, caller, parent, name, mode, umask, openFlags)
  }

  tmpfile(caller: Caller, parent: number, mode: number, umask: number): Stat {
    this.#demand(caller, parent, WRITE)
    return tmpfile(this.core, caller, parent, mode, umask)
  }

  read(caller: Caller, node: number, offset: number, size: number, into: Buffer, at: number): number {
    this.#demand(caller, node, READ)
    return read(this.core, node, offset, size, into, at)
  }

  write(
    caller: Caller,
    node: number,
    offset: number,
    buffer: Buffer,
    start: number,
    length: number,
    killSuidGid: boolean,
  ): number {
    this.#demand(caller, node, WRITE)
    return write(this.core, node, offset, buffer, start, length, killSuidGid)
  }

  admitWriteBack(node: number): void {
    this.core.tainted.admitWriteBack(node)
  }

  isStale(node: number): boolean {
    return this.core.isStale(node)
  }

  appendsAt(node: number): number | undefined {
    return this.core.appendsAt(node)
  }

  fallocate(caller: Caller, node: number, mode: number, offset: number, length: number): void {
    this.#demand(caller, node, WRITE)
    const wanted = { mode, offset, length, killSuidGid: losesSetId(caller) }
    fallocate(this.core, node, wanted, () => {
      const { blockBytes, blocksAvailable } = this.#options.space()
      return blockBytes * blocksAvailable
    })
  }

  changing(node: number, offset: number, length: number, isLocked: boolean): Promise<void> | undefined {
    return this.core.mapped.changing(node, offset, length, isLocked)
  }

  writtenBack(node: number, offset: number, buffer: Buffer, start: number, length: number): void {
    this.core.mapped.writtenBack(node, offset, buffer, start, length)
  }

  notWrittenBack(node: number): void {
    this.core.mapped.notWritten(node)
  }

  lseek(caller: Caller, node: number, offset: number, whence: number): number | Promise<number> {
    this.#demand(caller, node, READ)
    return lseek(this.core, node, offset, whence)
  }

  copyFileRange(caller: Caller, node: number, offset: number, toNode: number, toOffset: number, length: number): number {
    this.#demand(caller, node, READ)
    this.#demand(caller, toNode, WRITE)
    return copyFileRange(this.core, node, offset, toNode, toOffset, length, losesSetId(caller))
  }

  async fsync(): Promise<void> {
    try {
      await this.core.volumes.sync()
    } catch {
      // The log has recorded why and told the logger once; every caller gets EIO.
      throw FS.EIO
    }
  }

  readdir(caller: Caller, node: number, cookie: number, withStats: boolean, sink: DirectorySink): void {
    this.#demand(caller, node, READ)
    readdir(this.core, caller, node, cookie, withStats, sink)
  }

  passHidden(caller: Caller, node: number, cookie: number): Promise<number> | undefined {
    return caller.uid === 0 ? undefined : new Pace().run(passHidden(this.core, caller, node, cookie))
  }

  statfs(caller: Caller, node: number): StatFs {
    // Quotas and counts of a workspace are for those who see it, also where a caller holds a descriptor from before.
    this.#see(caller, node)
    const number = volumeOf(node)
    const isWhole = this.core.guard.chargedSubject(caller.uid) === undefined
    const space = isWhole ? this.#options.space() : inSteps(this.#options.space())
    const filesFree = FILES_MAX - this.#filesIn(isWhole ? this.core.volumes.numbers() : [number])
    return this.core.quotas.within(number, { ...space, files: FILES_MAX, filesFree, nameBytesMax: NAME_BYTES_MAX })
  }

  #filesIn(volumes: readonly number[]): number {
    const counters = volumes.map((number) => this.core.volumes.get(number)?.super)
    return counters.reduce((sum, one) => sum + (one === undefined ? 0 : one.files + one.directories), 0)
  }

  setxattr(caller: Caller, node: number, name: string, value: Uint8Array, flags: number, killSgid: boolean): void {
    this.#demand(caller, node, WRITE)
    setxattr(this.core, node, name, value, flags, killSgid)
  }

  getxattr(caller: Caller, node: number, name: string): Uint8Array {
    this.core.gates.heard(caller.pid)
    // The kernel asks for this ACL in the name of a caller that it is about to refuse with it. The default ACL it never asks for itself.
    if (name !== ACCESS_ACL) this.#see(caller, node)
    return getxattr(this.core, node, name, caller.uid)
  }

  listxattr(caller: Caller, node: number): string[] {
    this.#see(caller, node)
    return listxattr(this.core, node)
  }

  removexattr(caller: Caller, node: number, name: string): void {
    this.#demand(caller, node, WRITE)
    removexattr(this.core, node, name)
  }

  /** A thread of ours makes what has come: it is there. */
  #made(caller: Caller, parent: number, name: string): Stat {
    this.core.tidings.demand('came', parent, name)
    const stat = lookup(this.core, caller, parent, name)
    if (stat === undefined) throw FS.ECANCELED
    return stat
  }

  /** Whether a thread of ours asks: then nothing is changed. */
  #isOurs(caller: Caller): boolean {
    return this.core.touchers.has(caller.pid)
  }

  /** Whether a name is made or removed for the kernel to tell of, by a thread of ours or of a process that served before. */
  #isTiding(caller: Caller): boolean {
    return this.#isOurs(caller) || (caller.gid === ERRAND_GID && caller.uid === 0)
  }

  /** @throws EACCES when relations do not give the caller all of these bits; whatever the kernel thought, this decides */
  #demand(caller: Caller, node: number, bits: number): void {
    if (caller.uid !== 0 && this.core.guard.guards(volumeOf(node))) this.core.permitted(caller, node, bits)
  }

  /** @throws EACCES when relations give the caller nothing on an inode, not even a way through it */
  #see(caller: Caller, node: number): void {
    if (caller.uid === 0 || !this.core.guard.guards(volumeOf(node))) return
    this.core.visible(caller, this.core.permitted(caller, node, 0))
  }
}
