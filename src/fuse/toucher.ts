/**
 * Touches files through the mount, which makes the kernel take their attributes from us and tells programs that watch them.
 * Each call has a thread of its own, because a touch waits for the file's or directory's lock, which a program may hold for
 * long: no other call, no notify and no request waits for that thread.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../logger.ts'
import type { FileToucher, Touch } from '../vfs/filesystem.ts'

/** What is needed of `Notifier` in binding.ts. */
export interface TouchSender {
  readonly thread: number
  touch(mountpoint: string, files: readonly Touch[]): Promise<number[]>
  stop(): void
}

export interface ToucherOptions {
  newSender: () => TouchSender
  mountpoint: string
  /** the filesystem knows by this that a request changes nothing */
  threads: Set<number>
  logger: Logger
}

/** The kernel has no such inode (ESTALE), or the process ends (ECANCELED). */
const HARMLESS: readonly number[] = [0, -116, -125]
/** So long one call of `tell` waits before the next goes on beside it, and so many threads may wait at a time. */
const TELL_MS_MAX = 1000
const WAITING_MAX = 16

export class Toucher implements FileToucher {
  readonly #options: ToucherOptions
  readonly #senders = new Set<TouchSender>()
  #stopped = false

  constructor(options: ToucherOptions) {
    this.#options = options
  }

  /** @returns for each 0 or a negative errno */
  async touch(files: readonly Touch[]): Promise<number[]> {
    const results = await this.#carryOut(files)
    const failed = results.findIndex((errno) => !HARMLESS.includes(errno))
    if (failed >= 0) {
      const { node, path } = files[failed] as Touch
      const report = { errno: results[failed], node, path }
      this.#options.logger.warn(report, 'fuse: a file could not be touched: the kernel may have its old size')
    }
    return results
  }

  async tell(errands: readonly Touch[], onDone: () => void): Promise<number[] | undefined> {
    if (this.#senders.size >= WAITING_MAX) {
      onDone()
      return undefined
    }
    const timer = new AbortController()
    try {
      // A wait that is aborted rejects, when the race is over.
      const over = sleep(TELL_MS_MAX, undefined, { ref: false, signal: timer.signal }).catch(() => undefined)
      return await Promise.race([this.#carryOut(errands).finally(onDone), over])
    } finally {
      timer.abort()
    }
  }

  async #carryOut(errands: readonly Touch[]): Promise<number[]> {
    const { newSender, mountpoint, threads } = this.#options
    if (errands.length === 0 || this.#stopped) return errands.map(() => 0)
    const sender = newSender()
    const { thread } = sender
    this.#senders.add(sender)
    threads.add(thread)
    try {
      return await sender.touch(mountpoint, errands)
    } finally {
      this.#senders.delete(sender)
      sender.stop()
      threads.delete(thread)
    }
  }

  /** Threads that wait end when the kernel lets them go. */
  stop(): void {
    this.#stopped = true
    for (const sender of this.#senders) sender.stop()
  }
}
