/**
 * The few things the log asks of a disk, as an interface, so that tests can record writes, lose
 * what was not synced and fail the n-th call.
 */
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'

export interface Disk {
  /** names of the files in the directory, in no order */
  list(): string[]
  /** opens a file for reading and writing; with `create` it must not exist yet */
  open(name: string, create: boolean): number
  close(fd: number): void
  /** bytes in the file */
  size(fd: number): number
  /** writes all of [start, start + length) at `position`, or throws */
  write(fd: number, buffer: Uint8Array, start: number, length: number, position: number): void
  /** reads until `length` bytes or the end of the file; returns how many */
  read(fd: number, buffer: Uint8Array, start: number, length: number, position: number): number
  /** begins to read what will be wanted soon, and waits for nothing */
  willNeed?(fd: number, position: number, length: number): void
  truncate(fd: number, length: number): void
  remove(name: string): void
  /** resolves when the file's content is on stable storage */
  sync(fd: number): Promise<void>
  /** resolves when the names in the directory are on stable storage */
  syncNames(): Promise<void>
}

/** Failures that pass, and say nothing about the disk: no room, no descriptors, no memory. */
export const PASSING: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM', 'EINTR', 'EAGAIN'])

const fdatasync = promisify(fs.fdatasync)
const fsync = promisify(fs.fsync)

/**
 * A directory of the local filesystem; it is created when it is missing.
 * @param willNeed posix_fadvise(2) with POSIX_FADV_WILLNEED, which Node has no name for
 */
export function directoryDisk(directory: string, willNeed?: Disk['willNeed']): Disk {
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
  const at = (name: string) => path.join(directory, name)
  return {
    list: () => fs.readdirSync(directory),
    open: (name, create) => fs.openSync(at(name), create ? 'wx+' : 'r+', 0o600),
    close: (fd) => fs.closeSync(fd),
    size: (fd) => fs.fstatSync(fd).size,
    write(fd, buffer, start, length, position) {
      for (let done = 0; done < length; ) {
        const count = fs.writeSync(fd, buffer, start + done, length - done, position + done)
        if (count === 0) throw Object.assign(new Error('EIO: nothing was written'), { code: 'EIO' })
        done += count
      }
    },
    read(fd, buffer, start, length, position) {
      let done = 0
      while (done < length) {
        const count = fs.readSync(fd, buffer, start + done, length - done, position + done)
        if (count === 0) break
        done += count
      }
      return done
    },
    ...(willNeed === undefined ? {} : { willNeed }),
    truncate: (fd, length) => fs.ftruncateSync(fd, length),
    remove: (name) => fs.unlinkSync(at(name)),
    sync: (fd) => fdatasync(fd),
    async syncNames() {
      const fd = fs.openSync(directory, 'r')
      try {
        await fsync(fd)
      } finally {
        fs.closeSync(fd)
      }
    },
  }
}
