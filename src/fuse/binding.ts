/**
 * The native addon, typed: the only module that loads it.
 *
 * Everything here moves bytes and descriptors; the protocol lives above. Results of calls on the
 * request path are numbers, not exceptions: 0 or a count of bytes, or a negative errno as the
 * kernel gave it. Everything else throws (or rejects with) a system error that has `code`,
 * `errno` (negative) and `syscall` as Node's own have.
 */
import { closeSync, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants as os } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { getSystemErrorMap } from 'node:util'
import { NexusError } from '../errors.ts'
import type { Touch } from '../vfs/filesystem.ts'

/** Flags of `umount` (include/uapi/linux/fs.h and umount2(2)). */
export const MNT_FORCE = 1
export const MNT_DETACH = 2

/** Who is at the other end of a unix socket, as of its connect(2). */
export interface PeerCredentials {
  pid: number
  uid: number
  gid: number
}

/** What C hands out and only C can look into. */
declare const handleKind: unique symbol
interface Handle<Kind extends string> {
  readonly [handleKind]: Kind
}
type WatchHandle = Handle<'watch'>
type NotifierHandle = Handle<'notifier'>

interface Addon {
  mount(mountpoint: string, options: string, flags: number, type: string, source: string): number
  mountWithHelper(mountpoint: string, options: string): number
  umount(mountpoint: string, flags: number): void
  read(fd: number, buffer: Uint8Array, stamp: Float64Array): number
  poll(fd: number, buffer: Uint8Array, stamp: Float64Array, spinMicros: number): number
  reply(fd: number, buffer: Uint8Array, length: number): number
  watch(fd: number, callback: () => void, keepAlive: boolean): WatchHandle
  unwatch(handle: WatchHandle): void
  startNotifier(fd: number): NotifierHandle
  notifierFd(notifier: NotifierHandle): number
  notify(notifier: NotifierHandle, bytes: Uint8Array, lengths: Uint32Array): void
  syncFilesystem(notifier: NotifierHandle, directory: string): void
  flushFiles(notifier: NotifierHandle, directory: string, files: Uint8Array): void
  touch(notifier: NotifierHandle, bytes: Uint8Array, lengths: Uint32Array): void
  notifierThread(notifier: NotifierHandle): number
  takeResults(notifier: NotifierHandle): Int32Array[]
  takeBack(notifier: NotifierHandle): number
  stopNotifier(notifier: NotifierHandle): void
  willNeed(fd: number, position: number, length: number): void
  peerCredentials(fd: number): PeerCredentials
  socketPair(): [number, number]
  sendDescriptor(socket: number, fd: number): void
  receiveDescriptor(socket: number): number
  memoryFile(bytes: number): number
  mapShared(fd: number): ArrayBuffer
  dieWithParent(parent: number): void
  clockTimer(): number
  armClockTimer(fd: number, seconds: number, nanos: number): void
  readClockTimer(fd: number): number
  sharesDescriptors(a: number, b: number): boolean
}

/** This file runs as dist/src/fuse/binding.js and as src/fuse/binding.ts: the root is where package.json is. */
function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json')) && directory !== dirname(directory)) directory = dirname(directory)
  return directory
}

/** The addon's file; `NEXUS_ADDON` names another, such as one that a sanitizer watches (scripts/asan.mjs). */
export function addonFile(): string {
  return process.env['NEXUS_ADDON'] || join(packageRoot(), 'build', 'Release', 'nexus_fuse.node')
}

function loadAddon(): Addon {
  const file = addonFile()
  if (!existsSync(file)) {
    throw new NexusError(
      'NEXUS_UNSUPPORTED',
      `the native addon ${file} is missing: run npm run build (it needs a C compiler: apt-get install build-essential)`,
    )
  }
  return createRequire(import.meta.url)(file) as Addon
}

const addon = loadAddon()

/**
 * Mounts on a new /dev/fuse descriptor by mount(2), which needs CAP_SYS_ADMIN.
 * @param options the kernel's mount data without `fd=`, such as `rootmode=40000,user_id=0,group_id=0`
 * @param flags MS_* of mount(2)
 * @returns the descriptor: non-blocking, closed on exec
 * @throws a system error: ENOENT, ENOTDIR, EPERM, EINVAL …; `syscall` is `open /dev/fuse` or `mount`
 */
export function mount(mountpoint: string, options: string, flags = 0, type = 'fuse.nexus', source = 'nexus'): number {
  return addon.mount(mountpoint, options, flags, type, source)
}

/**
 * Mounts through the setuid helper fusermount3, for a process without CAP_SYS_ADMIN. Waits until the helper has ended.
 * @param options for `fusermount3 -o`, such as `fsname=nexus,subtype=nexus`; not `auto_unmount`, with which the
 *   helper would stay
 * @returns the descriptor: non-blocking, closed on exec
 * @throws a system error with `syscall` `fusermount3`: ENOENT when there is no such program, EIO when it refuses;
 *   then the message ends with what it said
 */
export function mountWithHelper(mountpoint: string, options: string): number {
  return addon.mountWithHelper(mountpoint, options)
}

/**
 * umount2(2), which needs CAP_SYS_ADMIN; without it spawn `fusermount3 -u`.
 * @param flags 0, `MNT_DETACH` (lazy) or `MNT_FORCE` (aborts the connection, which also frees a notifier that is
 *   stuck in the kernel), or both
 * @throws a system error: EBUSY while it is in use, EINVAL when nothing is mounted there
 */
export function umount(mountpoint: string, flags = 0): void {
  addon.umount(mountpoint, flags)
}

/** Lets the kernel begin to read [position, position + length) of a file (posix_fadvise(2), POSIX_FADV_WILLNEED). It is advice: no errors. */
export function willNeed(fd: number, position: number, length: number): void {
  addon.willNeed(fd, position, length)
}

/**
 * SO_PEERCRED of a connected unix socket.
 * @throws a system error: ENOTSOCK, EBADF
 */
export function peerCredentials(fd: number): PeerCredentials {
  return addon.peerCredentials(fd)
}

/**
 * Two connected unix sockets, closed on exec.
 * @throws a system error: EMFILE
 */
export function socketPair(): [number, number] {
  return addon.socketPair()
}

/** Sends a descriptor through one of `socketPair`. @throws a system error: EPIPE when nobody has the other */
export function sendDescriptor(socket: number, fd: number): void {
  addon.sendDescriptor(socket, fd)
}

/** Takes what `sendDescriptor` has sent; waits for it. @throws a system error: EPIPE when nothing will come */
export function receiveDescriptor(socket: number): number {
  return addon.receiveDescriptor(socket)
}

/**
 * Memory that lives as long as somebody has its descriptor: zeroed, and sparse.
 * @returns the descriptor, closed on exec; `mapShared` makes it readable, here and in a process that inherits it
 * @throws a system error: ENOSYS, ENOMEM, EMFILE
 */
export function memoryFile(bytes: number): number {
  return addon.memoryFile(bytes)
}

/** All of what `memoryFile` made; what one process writes, the next one reads. */
export function mapShared(fd: number): ArrayBuffer {
  return addon.mapShared(fd)
}

/** From now on this process is killed when its parent, which must have this pid, ends. */
export function dieWithParent(parent: number): void {
  addon.dieWithParent(parent)
}

/** Whether two threads certainly have one table of descriptors (kcmp(2)); false when the kernel does not tell. */
export function sharesDescriptors(a: number, b: number): boolean {
  return addon.sharesDescriptors(a, b)
}

/**
 * Rings when the wall clock has come to a time, and whenever somebody sets that clock: what has to be over at a time is over
 * then, also after a suspend, which the timers of the event loop do not count. Does not keep the process alive.
 */
export class WallAlarm {
  readonly #fd: number
  readonly #watch: WatchHandle
  readonly #ring: () => void
  #at: number | undefined
  #closed = false

  /** @throws a system error: EMFILE, ENOMEM */
  constructor(ring: () => void) {
    this.#ring = ring
    this.#fd = addon.clockTimer()
    this.#watch = addon.watch(this.#fd, () => this.#wake(), false)
  }

  /** @param at milliseconds since the epoch, which may be over already; undefined: never */
  set(at: number | undefined): void {
    if (this.#closed) return
    this.#at = at
    // 0 would disarm.
    const ms = at === undefined ? 0 : Math.max(1, Math.ceil(at))
    addon.armClockTimer(this.#fd, Math.floor(ms / 1000), (ms % 1000) * 1_000_000)
  }

  /** Quiet when repeated. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    addon.unwatch(this.#watch)
    closeSync(this.#fd)
  }

  #wake(): void {
    const result = this.#closed ? 0 : addon.readClockTimer(this.#fd)
    if (result === 0) return
    // Canceled because the clock was set: from now on it waits by the new one.
    if (result < 0) this.set(this.#at)
    this.#ring()
  }
}

/** A /dev/fuse descriptor: requests come in, replies go out. */
export class Channel {
  readonly fd: number
  #watch: WatchHandle | undefined
  #closed = false

  constructor(fd: number) {
    this.fd = fd
  }

  /**
   * Reads one request without waiting.
   * @param buffer at least 8 KiB, and max_write plus a header once that is agreed (the kernel answers EINVAL to less)
   * @param stamp of two: set to the wall clock, seconds and nanoseconds, when a request was read
   * @returns its bytes; 0 when none waits; -ENODEV after the unmount; another negative errno
   */
  read(buffer: Uint8Array, stamp: Float64Array): number {
    return addon.read(this.fd, buffer, stamp)
  }

  /** The same as `read`, but tries again and again, keeping the thread, for up to `spinMicros` before it returns 0. */
  poll(buffer: Uint8Array, stamp: Float64Array, spinMicros: number): number {
    return addon.poll(this.fd, buffer, stamp, spinMicros)
  }

  /**
   * Writes one reply, `buffer[0..length)`.
   * @returns microseconds since this thread last read a request, which is how long an answer took that did not have to
   *   wait; or a negative errno. -ENOENT is normal: the caller was interrupted and waits no more
   */
  reply(buffer: Uint8Array, length: number): number {
    return addon.reply(this.fd, buffer, length)
  }

  /**
   * Calls back on the event loop whenever a request waits, again and again until it is read. After an unmount it calls
   * once more: `read` tells -ENODEV. Keeps the process alive. A second watch replaces the first.
   */
  watch(callback: () => void): void {
    this.unwatch()
    this.#watch = addon.watch(this.fd, callback, true)
  }

  /** Ends the watch; quiet when there is none. */
  unwatch(): void {
    if (this.#watch) addon.unwatch(this.#watch)
    this.#watch = undefined
  }

  /** Ends the watch and closes the descriptor; quiet when it is closed. Closing the last descriptor ends the mount. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.unwatch()
    closeSync(this.fd)
  }
}

/** sizeof(struct errand) in native/touch.c */
const ERRAND_BYTES = 56
/** enum kind there */
const ERRANDS: readonly Touch['kind'][] = ['attributes', 'content', 'written', 'came', 'went']

function encodeErrand(mountpoint: string, touch: Touch): Buffer {
  const { kind, node, generation, atime, mtime, path, name = '', type = 0 } = touch
  const [at, to] = [Buffer.from(`${mountpoint}\0`), Buffer.from(`${path}\0${name}\0`, 'latin1')]
  const message = Buffer.alloc(ERRAND_BYTES + at.length + to.length)
  message.writeUInt32LE(ERRANDS.indexOf(kind), 0)
  message.writeUInt32LE(generation, 4)
  message.writeUInt32LE(type, 48)
  message.writeBigUInt64LE(BigInt(node), 8)
  for (const [i, time] of [atime, mtime].entries()) {
    message.writeBigInt64LE(BigInt(time.s), 16 + 8 * i)
    message.writeBigInt64LE(BigInt(time.ns), 32 + 8 * i)
  }
  at.copy(message, ERRAND_BYTES)
  to.copy(message, ERRAND_BYTES + at.length)
  return message
}

interface PendingBatch {
  count: number
  resolve: (results: number[]) => void
}

/**
 * Does from a thread of its own what can wait in the kernel until we have answered another request: sends notifies,
 * writes filesystems out, and touches files. One thing after the other. Does not keep the process alive, nor does the thread keep anything of it
 * open: a process that is killed while this thread waits is as good as gone (`Child.death`).
 */
export class Notifier {
  readonly #handle: NotifierHandle
  readonly #watch: WatchHandle
  readonly #pending: PendingBatch[] = []
  #stopped = false

  /**
   * @param channel may be closed before the notifier is stopped; the mount lives until both are
   * @throws a system error: EBADF, or ENOSYS from close_range(2) before Linux 5.9
   */
  constructor(channel: Channel) {
    this.#handle = addon.startNotifier(channel.fd)
    this.#watch = addon.watch(addon.notifierFd(this.#handle), () => this.#deliver(), false)
  }

  /**
   * Sends whole messages, each with its fuse_out_header.
   * @returns when the kernel has taken all of them: for each 0 or a negative errno (-ENOENT: the kernel knows no such
   *   node or name, there was nothing to drop; -ECANCELED: stopped before)
   */
  send(buffers: readonly Uint8Array[]): Promise<number[]> {
    if (this.#stopped) return Promise.resolve(canceled(buffers.length))
    if (buffers.length === 0) return Promise.resolve([])
    addon.notify(
      this.#handle,
      Buffer.concat(buffers),
      Uint32Array.from(buffers, (buffer) => buffer.length),
    )
    return this.#results(buffers.length)
  }

  /**
   * Writes everything of the filesystem that holds a directory to its disk (syncfs(2)), as far as that can be done.
   * @throws a system error of open(2), such as ENOENT, ENOTDIR; ECANCELED when it was stopped before
   */
  async syncFilesystem(directory: string): Promise<void> {
    if (this.#stopped) throw systemError(-os.errno.ECANCELED, 'syncfs', directory)
    addon.syncFilesystem(this.#handle, directory)
    const [errno = 0] = await this.#results(1)
    if (errno !== 0) throw systemError(errno, 'syncfs', directory)
  }

  /**
   * Writes the dirty pages of files of a FUSE filesystem, and waits for them (sync_file_range(2)). Files that cannot be
   * opened are left out; without CAP_DAC_READ_SEARCH these are all.
   * @param directory a directory of the filesystem
   * @throws a system error of open(2) of the directory; ECANCELED when it was stopped before
   */
  async flushFiles(directory: string, files: readonly { node: number; generation: number }[]): Promise<void> {
    if (this.#stopped) throw systemError(-os.errno.ECANCELED, 'open', directory)
    const numbers = files.flatMap(({ node, generation }) => [BigInt(node), BigInt(generation)])
    addon.flushFiles(this.#handle, directory, new Uint8Array(BigUint64Array.from(numbers).buffer))
    const [errno = 0] = await this.#results(1 + files.length)
    if (errno !== 0) throw systemError(errno, 'open', directory)
  }

  /** The number of the thread that does all this, by which its own requests are known. */
  get thread(): number {
    return addon.notifierThread(this.#handle)
  }

  /**
   * Does errands through the mount, one after the other.
   * @returns for each 0 or a negative errno (-ESTALE: the kernel has no such inode)
   */
  touch(mountpoint: string, files: readonly Touch[]): Promise<number[]> {
    if (this.#stopped) return Promise.resolve(canceled(files.length))
    if (files.length === 0) return Promise.resolve([])
    const messages = files.map((file) => encodeErrand(mountpoint, file))
    addon.touch(
      this.#handle,
      Buffer.concat(messages),
      Uint32Array.from(messages, (message) => message.length),
    )
    return this.#results(files.length)
  }

  #results(count: number): Promise<number[]> {
    return new Promise((resolve) => this.#pending.push({ count, resolve }))
  }

  /**
   * Cancels the batches that the thread has not begun: each resolves with -ECANCELED.
   * @returns how many, which are those that were given last
   */
  takeBack(): number {
    if (this.#stopped) return 0
    const count = addon.takeBack(this.#handle)
    for (const batch of this.#pending.splice(this.#pending.length - count)) batch.resolve(canceled(batch.count))
    return count
  }

  /** Ends the thread, without waiting: one that is stuck in the kernel ends when that lets it go. Quiet when repeated. */
  stop(): void {
    if (this.#stopped) return
    this.#deliver()
    this.#stopped = true
    addon.unwatch(this.#watch)
    addon.stopNotifier(this.#handle)
    for (const { count, resolve } of this.#pending.splice(0)) resolve(canceled(count))
  }

  /** Batches come back in the order in which they were sent. */
  #deliver(): void {
    for (const results of addon.takeResults(this.#handle)) this.#pending.shift()?.resolve(Array.from(results))
  }
}

/** As those that the addon throws itself. */
function systemError(errno: number, syscall: string, detail: string): Error {
  const [code, reason] = getSystemErrorMap().get(errno) ?? [String(errno), 'unknown error']
  return Object.assign(new Error(`${code}: ${reason}, ${syscall} ${detail}`), { code, errno, syscall })
}

function canceled(count: number): number[] {
  return new Array<number>(count).fill(-os.errno.ECANCELED)
}
