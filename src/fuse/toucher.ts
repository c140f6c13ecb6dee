/**
 * Touches files through the mount, which makes the kernel take their attributes from us and tells whoever watches them.
 * Each call has a thread of its own, because a touch waits for the file's lock, which a program may hold for long:
 * no other call, no notify and no request waits for that thread.
 */
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

export class Toucher implements FileToucher {
  readonly #options: ToucherOptions
  readonly #senders = new Set<TouchSender>()
  #stopped = false

  constructor(options: ToucherOptions) {
    this.#options = options
  }

  /** @returns for each 0 or a negative errno */
  async touch(files: readonly Touch[]): Promise<number[]> {
    const { newSender, mountpoint, threads, logger } = this.#options
    if (files.length === 0 || this.#stopped) return files.map(() => 0)
    const sender = newSender()
    const { thread } = sender
    this.#senders.add(sender)
    threads.add(thread)
    try {
      const results = await sender.touch(mountpoint, files)
      const failed = results.findIndex((errno) => !HARMLESS.includes(errno))
      if (failed >= 0) {
        const { node, path } = files[failed] as Touch
        logger.warn({ errno: results[failed], node, path }, 'fuse: a file could not be touched: the kernel may have its old size')
      }
      return results
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
