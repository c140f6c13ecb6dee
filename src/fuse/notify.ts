/**
 * Telling the kernel what changed behind its back. Notifies go through threads of their own (binding.ts), because the
 * kernel may hold one up until we have answered another request; which may wait for which is in notices.ts.
 *
 * Who must answer a request gets `pages` or `privateListings`, and nothing else of this: their types have no method that
 * could wait for a lock of that request.
 */
import { NexusError } from '../errors.ts'
import { type Logger, limited } from '../logger.ts'
import type { KernelCaches } from '../vfs/filesystem.ts'
import { ECANCELED, Lane, type NotifySender } from './lane.ts'
import { NamesLane } from './names-lane.ts'
import {
  attributesNotice,
  deletionNotice,
  entryNotice,
  epochNotice,
  type LaneName,
  listingNotice,
  type NameNotice,
  type Notice,
  pagesNotice,
  privateListingNotice,
  resendNotice,
} from './notices.ts'

export type { NotifySender } from './lane.ts'

export interface KernelNotifierOptions {
  /** a thread that sends notifies, one after the other */
  newSender: () => NotifySender
  /** whether a node is a directory, as far as we know; true also where nothing is known */
  isDirectory: (node: number) => boolean
  /** whether this kernel knows FUSE_NOTIFY_INC_EPOCH */
  canDropNames: () => boolean
  /** writes back what mappings of these workspaces dirtied */
  writeBack: (volumes: readonly number[]) => Promise<void>
  logger: Logger
}

/** What an answer to WRITE may wait for. */
export interface FilePages {
  /** Resolves when the kernel has no pages of those bytes of a regular file any more. */
  invalidateRange(node: number, offset: number, length: number): Promise<void>
}

/** What an answer to READDIR may wait for. */
export interface PrivateListingPages {
  /**
   * Resolves when the kernel has no pages of that listing any more. Never resolves when the process ends before: the kernel
   * asks the next one again.
   */
  dropListing(node: number): Promise<void>
}

/** asm-generic/errno-base.h, errno.h */
const ENOENT = -2
const EBUSY = -16
const ENODEV = -19
const ENOTEMPTY = -39

/**
 * - ENOENT: the kernel did not know it, so there was nothing to drop
 * - ENODEV, ECANCELED: the mount is gone, and its caches with it
 * - EBUSY, ENOTEMPTY: of DELETE; the name is dropped, only inotify was not told
 */
const HARMLESS: readonly number[] = [0, ENOENT, ENODEV, ECANCELED, EBUSY, ENOTEMPTY]

export class KernelNotifier implements KernelCaches {
  readonly pages: FilePages = { invalidateRange: (node, offset, length) => this.#dropPages(node, offset, length) }
  readonly privateListings: PrivateListingPages = { dropListing: (node) => this.#dropPrivateListing(node) }
  readonly #options: KernelNotifierOptions
  readonly #senders: NotifySender[] = []
  readonly #attributes: Lane<'attributes'>
  readonly #pages: Lane<'pages'>
  readonly #private: Lane<'private'>
  readonly #names: NamesLane
  /** one that is about to be sent */
  #epoch: Promise<boolean> | undefined

  constructor(options: KernelNotifierOptions) {
    this.#options = options
    const newSender = (): NotifySender => {
      const sender = options.newSender()
      this.#senders.push(sender)
      return sender
    }
    this.#attributes = new Lane(newSender())
    this.#pages = new Lane(newSender())
    this.#private = new Lane(newSender())
    this.#names = new NamesLane({
      newSender: options.newSender,
      dropAllNames: () => this.#dropAllNames(),
      logger: limited(options.logger),
    })
  }

  /** Ends the threads, without waiting for what is stuck in the kernel. Quiet when repeated. */
  stop(): void {
    this.#names.stop()
    for (const sender of this.#senders) sender.stop()
  }

  /** Attributes, ACLs, and all cached pages: of a file its data, of a directory its listing, of a symlink its target. */
  async invalidateNode(node: number): Promise<void> {
    if (!this.#options.isDirectory(node)) return this.#dropPages(node, 0, 0)
    // The listing may have to be waited for.
    await Promise.all([this.invalidateAttributes(node), this.#sendName(listingNotice(node))])
  }

  async invalidateAttributes(node: number): Promise<void> {
    await this.#send(this.#attributes, attributesNotice(node))
  }

  /**
   * The kernel drops the parent's cached listing along with the name only if it had that name cached, so a change of what a
   * directory holds needs `invalidateNode(parent)` too.
   */
  invalidateEntry(parent: number, name: string): Promise<void> {
    return this.#sendName(entryNotice(parent, name, 'drop'))
  }

  expireEntry(parent: number, name: string): Promise<void> {
    return this.#sendName(entryNotice(parent, name, 'expire'))
  }

  deleteEntry(parent: number, child: number, name: string): Promise<void> {
    return this.#sendName(deletionNotice(parent, child, name))
  }

  async invalidateNames(): Promise<void> {
    await this.#send(this.#attributes, epochNotice())
  }

  writeBack(volumes: readonly number[]): Promise<void> {
    return this.#options.writeBack(volumes)
  }

  /** After a takeover: the kernel sends again what the process before us had read and not answered. Since 6.9. */
  async resend(): Promise<void> {
    await this.#send(this.#attributes, resendNotice())
  }

  async #dropPages(node: number, offset: number, length: number): Promise<void> {
    await this.#send(this.#pages, pagesNotice(node, offset, length))
  }

  async #dropPrivateListing(node: number): Promise<void> {
    const errno = await this.#send(this.#private, privateListingNotice(node))
    if (errno === ECANCELED) await new Promise(() => undefined)
  }

  /** Those who ask for it in one turn of the event loop share one. */
  #dropAllNames(): Promise<boolean> {
    if (!this.#options.canDropNames()) return Promise.resolve(false)
    this.#epoch ??= this.#nextEpoch()
    return this.#epoch
  }

  async #nextEpoch(): Promise<boolean> {
    setImmediate(() => {
      this.#epoch = undefined
    })
    await this.invalidateNames()
    return true
  }

  async #send<Name extends LaneName>(lane: Lane<Name>, notice: Notice<Name>): Promise<number> {
    const errno = await lane.send(notice)
    this.#demandTaken(notice, errno)
    return errno
  }

  async #sendName(notice: NameNotice): Promise<void> {
    this.#demandTaken(notice, await this.#names.send(notice))
  }

  #demandTaken({ code }: Notice<LaneName>, errno: number): void {
    if (HARMLESS.includes(errno)) return
    this.#options.logger.error({ code, errno }, 'fuse: the kernel refused a notify')
    throw new NexusError(
      'NEXUS_INTERNAL',
      `the kernel did not drop what it has cached (notify ${code}, errno ${-errno}): unmount and mount again`,
    )
  }
}
