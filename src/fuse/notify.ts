/**
 * Telling the kernel what changed behind its back. Each message is a `fuse_out_header` whose
 * `unique` is 0 and whose `error` is the notify's code. They go through a thread of their own
 * (binding.ts), because the kernel may hold one up until we have answered another request.
 */
import { integersOf } from '../bytes.ts'
import { NexusError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { KernelCaches } from '../vfs/filesystem.ts'
import { EXPIRE_ONLY, Notify, OUT_HEADER_BYTES } from './protocol.ts'
import { writeOutHeader } from './reply.ts'
import { writeU64 } from './wire.ts'

/** What is needed of `Notifier` in binding.ts. */
export interface NotifySender {
  /** 0 or a negative errno for each, when the kernel has taken all of them */
  send(buffers: readonly Uint8Array[]): Promise<number[]>
}

export interface KernelNotifierOptions {
  notifier: NotifySender
  /** writes back what mappings dirtied: `syncfs` of the mountpoint, then `session.drained` */
  writeBack: () => Promise<void>
  logger: Logger
}

interface Queued {
  message: Buffer
  resolve: (errno: number) => void
  reject: (error: unknown) => void
}

/** asm-generic/errno-base.h, errno.h */
const ENOENT = -2
const EBUSY = -16
const ENODEV = -19
const ENOTEMPTY = -39
const ECANCELED = -125

/**
 * - ENOENT: the kernel did not know it, so there was nothing to drop
 * - ENODEV, ECANCELED: the mount is gone, and its caches with it
 * - EBUSY, ENOTEMPTY: of DELETE; the name is dropped, only inotify was not told
 */
const HARMLESS: readonly number[] = [0, ENOENT, ENODEV, ECANCELED, EBUSY, ENOTEMPTY]

export class KernelNotifier implements KernelCaches {
  readonly #notifier: NotifySender
  readonly #writeBack: () => Promise<void>
  readonly #logger: Logger
  #queue: Queued[] = []

  constructor({ notifier, writeBack, logger }: KernelNotifierOptions) {
    this.#notifier = notifier
    this.#writeBack = writeBack
    this.#logger = logger
  }

  /** Attributes, ACLs, and all cached pages: of a file its data, of a directory its listing, of a symlink its target. */
  async invalidateNode(node: number): Promise<void> {
    await this.#send(invalidateInode(node, 0))
  }

  /**
   * The same, for an answer that is given only when it is done. Never resolves when the process ends before: the kernel
   * asks the next one again.
   */
  async invalidateListing(node: number): Promise<void> {
    if ((await this.#send(invalidateInode(node, 0))) === ECANCELED) await new Promise(() => undefined)
  }

  /** Attributes and ACLs only: enough when no content changed, and it waits for no page. */
  async invalidateAttributes(node: number): Promise<void> {
    await this.#send(invalidateInode(node, -1))
  }

  /** Attributes, ACLs, and the pages that hold those bytes. */
  async invalidateRange(node: number, offset: number, length: number): Promise<void> {
    await this.#send(invalidateInode(node, offset, length))
  }

  /**
   * A name, positive or negative. The kernel drops the parent's cached listing along with it only if it
   * had that name cached, so a change of what a directory holds needs `invalidateNode(parent)` too.
   */
  async invalidateEntry(parent: number, name: string): Promise<void> {
    await this.#send(invalidateName(parent, name, 0))
  }

  /** Unlike `invalidateEntry` it leaves mounts, working directories and everything cached below the name alone. */
  async expireEntry(parent: number, name: string): Promise<void> {
    await this.#send(invalidateName(parent, name, EXPIRE_ONLY))
  }

  async deleteEntry(parent: number, child: number, name: string): Promise<void> {
    const message = Buffer.alloc(OUT_HEADER_BYTES + 24 + name.length + 1)
    const integers = integersOf(message)
    writeU64(integers, OUT_HEADER_BYTES, parent)
    writeU64(integers, OUT_HEADER_BYTES + 8, child)
    message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 16)
    message.write(name, OUT_HEADER_BYTES + 24, 'latin1')
    await this.#send(framed(message, Notify.DELETE))
  }

  writeBack(): Promise<void> {
    return this.#writeBack()
  }

  /** Every name, positive or negative, in all directories. Since 6.16. */
  async invalidateNames(): Promise<void> {
    await this.#send(framed(Buffer.alloc(OUT_HEADER_BYTES), Notify.INC_EPOCH))
  }

  /** After a takeover: the kernel sends again what the process before us had read and not answered. Since 6.9. */
  async resend(): Promise<void> {
    await this.#send(framed(Buffer.alloc(OUT_HEADER_BYTES), Notify.RESEND))
  }

  /** What is sent in one turn of the event loop goes to the thread together. */
  #send(message: Buffer): Promise<number> {
    if (this.#queue.length === 0) setImmediate(() => void this.#flush())
    return new Promise((resolve, reject) => this.#queue.push({ message, resolve, reject }))
  }

  async #flush(): Promise<void> {
    const batch = this.#queue
    this.#queue = []
    try {
      const results = await this.#notifier.send(batch.map(({ message }) => message))
      for (const [index, queued] of batch.entries()) this.#settle(queued, results[index] ?? ECANCELED)
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  #settle({ message, resolve, reject }: Queued, errno: number): void {
    if (HARMLESS.includes(errno)) {
      resolve(errno)
      return
    }
    const code = message.readInt32LE(4)
    this.#logger.error({ code, errno }, 'fuse: the kernel refused a notify')
    reject(
      new NexusError(
        'NEXUS_INTERNAL',
        `the kernel did not drop what it has cached (notify ${code}, errno ${-errno}): unmount and mount again`,
      ),
    )
  }
}

/** fuse_notify_inval_inode_out; from offset 0 on all pages (length 0 is "to the end"), below 0 none. */
function invalidateInode(node: number, offset: number, length = 0): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 24)
  const integers = integersOf(message)
  writeU64(integers, OUT_HEADER_BYTES, node)
  writeU64(integers, OUT_HEADER_BYTES + 8, offset)
  writeU64(integers, OUT_HEADER_BYTES + 16, length)
  return framed(message, Notify.INVAL_INODE)
}

/** fuse_notify_inval_entry_out */
function invalidateName(parent: number, name: string, flags: number): Buffer {
  const message = Buffer.alloc(OUT_HEADER_BYTES + 16 + name.length + 1)
  writeU64(integersOf(message), OUT_HEADER_BYTES, parent)
  message.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8)
  message.writeUInt32LE(flags, OUT_HEADER_BYTES + 12)
  message.write(name, OUT_HEADER_BYTES + 16, 'latin1')
  return framed(message, Notify.INVAL_ENTRY)
}

function framed(message: Buffer, code: number): Buffer {
  writeOutHeader(integersOf(message), message.length, code, 0, 0)
  return message
}
