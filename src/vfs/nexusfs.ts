/** The filesystem: every operation of the kernel, on volumes. Each family has a file of its own. */
import { FS } from '../errors.ts'
import { getattr, setattr } from './attributes.ts'
import { Core, type CoreOptions } from './core.ts'
import { copyFileRange, fallocate, lseek, read, write } from './data.ts'
import type { Caller, DirectorySink, Filesystem, SetStat, Stat, StatFs } from './filesystem.ts'
import { readdir } from './listing.ts'
import { create, forget, link, lookup, mkdir, mknod, NAME_BYTES_MAX, readlink, rmdir, symlink, tmpfile, unlink } from './names.ts'
import { rename } from './rename.ts'
import { getxattr, listxattr, removexattr, setxattr } from './xattr.ts'

export interface NexusFsOptions extends CoreOptions {
  /** blocks of the disk that holds the log, as statfs(2) reports them */
  space(): { blockBytes: number; blocks: number; blocksFree: number; blocksAvailable: number }
}

/** Inodes are numbered, not allocated: this many can be in use is as good an answer as any. */
const FILES_MAX = 2 ** 32

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

  lookup(_caller: Caller, parent: number, name: string): Stat | undefined {
    return lookup(this.core, parent, name)
  }

  forget(node: number, times: number): void {
    forget(this.core, node, times)
  }

  getattr(_caller: Caller, node: number): Stat {
    return getattr(this.core, node)
  }

  setattr(_caller: Caller, node: number, change: SetStat): Stat {
    return setattr(this.core, node, change)
  }

  readlink(_caller: Caller, node: number): Uint8Array {
    return readlink(this.core, node)
  }

  symlink(caller: Caller, parent: number, name: string, target: Uint8Array): Stat {
    return symlink(this.core, caller, parent, name, target)
  }

  mknod(caller: Caller, parent: number, name: string, mode: number, rdev: number, umask: number): Stat {
    return mknod(this.core, caller, parent, name, mode, rdev, umask)
  }

  mkdir(caller: Caller, parent: number, name: string, mode: number, umask: number): Stat {
    return mkdir(this.core, caller, parent, name, mode, umask)
  }

  unlink(_caller: Caller, parent: number, name: string): void {
    unlink(this.core, parent, name)
  }

  rmdir(_caller: Caller, parent: number, name: string): void {
    rmdir(this.core, parent, name)
  }

  rename(_caller: Caller, parent: number, name: string, newParent: number, newName: string, flags: number): void {
    rename(this.core, parent, name, newParent, newName, flags)
  }

  link(_caller: Caller, node: number, newParent: number, newName: string): Stat {
    return link(this.core, node, newParent, newName)
  }

  create(caller: Caller, parent: number, name: string, mode: number, umask: number, openFlags: number): Stat {
    return create(this.core, caller, parent, name, mode, umask, openFlags)
  }

  tmpfile(caller: Caller, parent: number, mode: number, umask: number): Stat {
    return tmpfile(this.core, caller, parent, mode, umask)
  }

  read(_caller: Caller, node: number, offset: number, size: number, into: Buffer, at: number): number {
    return read(this.core, node, offset, size, into, at)
  }

  write(
    _caller: Caller,
    node: number,
    offset: number,
    buffer: Buffer,
    start: number,
    length: number,
    killSuidGid: boolean,
  ): number {
    return write(this.core, node, offset, buffer, start, length, killSuidGid)
  }

  isStale(node: number): boolean {
    return this.core.isStale(node)
  }

  fallocate(caller: Caller, node: number, mode: number, offset: number, length: number): void {
    const wanted = { mode, offset, length, killSuidGid: losesSetId(caller) }
    fallocate(this.core, node, wanted, () => {
      const { blockBytes, blocksAvailable } = this.#options.space()
      return blockBytes * blocksAvailable
    })
  }

  lseek(_caller: Caller, node: number, offset: number, whence: number): number {
    return lseek(this.core, node, offset, whence)
  }

  copyFileRange(caller: Caller, node: number, offset: number, toNode: number, toOffset: number, length: number): number {
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

  readdir(_caller: Caller, node: number, cookie: number, withStats: boolean, sink: DirectorySink): void {
    readdir(this.core, node, cookie, withStats, sink)
  }

  statfs(): StatFs {
    const counters = this.core.volumes.numbers().map((number) => this.core.volumes.get(number)?.super)
    const used = counters.reduce((sum, one) => sum + (one === undefined ? 0 : one.files + one.directories), 0)
    return { ...this.#options.space(), files: FILES_MAX, filesFree: FILES_MAX - used, nameBytesMax: NAME_BYTES_MAX }
  }

  setxattr(_caller: Caller, node: number, name: string, value: Uint8Array, flags: number, killSgid: boolean): void {
    setxattr(this.core, node, name, value, flags, killSgid)
  }

  getxattr(_caller: Caller, node: number, name: string): Uint8Array {
    return getxattr(this.core, node, name)
  }

  listxattr(_caller: Caller, node: number): string[] {
    return listxattr(this.core, node)
  }

  removexattr(_caller: Caller, node: number, name: string): void {
    removexattr(this.core, node, name)
  }
}
