/**
 * Files that a process could change without a request, although its user may not write them (any more). A store in a shared
 * mapping reaches the daemon as a write-back, which carries no caller; neither mmap(2) nor the store sends anything.
 *
 * Invariants:
 * - After a right to write was lost and the kernel's pages were dropped, every file that a process without the right holds
 *   for writing is tainted, before the command that took the right returns.
 * - A write-back of a tainted file is refused with EACCES, and the kernel's pages of it are dropped. Not EIO: the store is well,
 *   and a snapshot that waits for what mappings dirtied must not fail for it (fuse/write-back.ts).
 * - A file is tainted until a search finds no such process, or the kernel has given its inode back. Before the mark goes, its
 *   pages are dropped once more: what was dirtied while it was held is still refused.
 * - Where processes cannot be seen (/proc of another pid namespace, one that lets nobody look), each file of the workspaces
 *   concerned counts as held.
 *
 * The marks lie with the counts of what the kernel holds (known.ts), so another process that takes the mount over has them.
 */
import { FS, FsError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { isRegular } from '../volume/attr.ts'
import type { Core } from './core.ts'
import type { KernelCaches } from './filesystem.ts'
import { WRITE } from './guard.ts'
import type { Holders, LookForHolders, Process } from './holders.ts'
import { inoOfNode, nodeOf, type Place, volumeOf } from './place.ts'

/** While there are tainted files, processes are looked for so often: at first, and at last. */
const LOOK_MS_MIN = 1000
const LOOK_MS_MAX = 15_000

export interface TaintedOptions {
  kernel: Pick<KernelCaches, 'invalidateNode'>
  look: LookForHolders
  logger: Logger
}

export class TaintedFiles {
  readonly #core: Core
  readonly #nodes = new Set<number>()
  #options: TaintedOptions | undefined
  #timer: NodeJS.Timeout | undefined
  #pauseMs = LOOK_MS_MIN
  readonly #dropping = new Set<number>()

  constructor(core: Core) {
    this.#core = core
  }

  /** Begins to look for holders; goes on with the marks of the process before. */
  serve(options: TaintedOptions): void {
    this.#options = options
    for (const volume of this.#core.known.volumes()) {
      for (const ino of this.#core.known.of(volume)) {
        if (this.#core.known.isTainted(volume, ino)) this.#nodes.add(nodeOf(volume, ino))
      }
    }
    this.#lookLater()
  }

  stop(): void {
    this.#options = undefined
    clearTimeout(this.#timer)
  }

  /**
   * Whether a write-back may be stored.
   * @throws EROFS of a snapshot, EACCES of a tainted file; either has its pages dropped
   */
  admitWriteBack(node: number): void {
    const { volumes, registry } = this.#core
    const isView = volumes.get(volumeOf(node)) === undefined && registry.view(volumeOf(node)) !== undefined
    if (!isView && !this.#nodes.has(node)) return
    this.#options?.logger.warn(
      { node, is_snapshot: isView },
      isView
        ? 'a mapping changed a file of a snapshot: it is not stored, and the changed pages are dropped'
        : 'a mapping changed a file that a process without the right to write holds open: it is not stored, and the changed pages are dropped',
    )
    this.#pauseMs = LOOK_MS_MIN
    this.#drop(node)
    throw isView ? FS.EROFS : FS.EACCES
  }

  /**
   * Rights to write were lost in these workspaces, and the pages of what the kernel has of them are dropped. Resolves when
   * what is held by processes without the right is tainted.
   */
  async revoked(volumes: readonly number[]): Promise<void> {
    const options = this.#options
    const files = volumes.flatMap((volume) => this.#filesOf(volume))
    if (options === undefined || files.length === 0) return
    const found = await options.look()
    for (const node of this.#heldWrongly(found, files)) this.#taint(node)
    this.#pauseMs = LOOK_MS_MIN
    this.#lookLater()
  }

  /** Regular files of a live workspace that the kernel has. */
  #filesOf(volume: number): number[] {
    const { known, volumes, guard } = this.#core
    const live = volumes.get(volume)
    if (live === undefined || !guard.guards(volume)) return []
    const inos = [...known.of(volume)].filter((ino) => {
      const attr = live.attr(ino)
      return attr !== undefined && isRegular(attr)
    })
    return inos.map((ino) => nodeOf(volume, ino))
  }

  /** @param all what counts as held when not all processes can be looked into */
  #heldWrongly(found: Holders, all: readonly number[]): Set<number> {
    const wrong = new Set(found.holders.filter((holder) => !this.#mayWrite(holder, holder.node)).map((holder) => holder.node))
    const unseen = found.isComplete ? found.unreadable.filter(({ uid }) => uid !== 0) : undefined
    if (unseen === undefined) this.#options?.logger.warn({}, UNSEEN)
    for (const node of all) {
      if (unseen === undefined || unseen.some((process) => !this.#mayWrite(process, node))) wrong.add(node)
    }
    return wrong
  }

  #mayWrite({ uid }: Process, node: number): boolean {
    if (uid === 0 || !this.#core.guard.guards(volumeOf(node))) return true
    const place = this.#placeOf(node)
    return place === undefined || (this.#core.guard.rwx(uid, place) & WRITE) !== 0
  }

  #placeOf(node: number): Place | undefined {
    if (this.#core.volumes.get(volumeOf(node)) === undefined) return undefined
    try {
      return this.#core.place(node)
    } catch (error) {
      if (error instanceof FsError) return undefined
      throw error
    }
  }

  #taint(node: number): void {
    const [volume, ino] = [volumeOf(node), inoOfNode(node)]
    this.#core.known.setTainted(volume, ino, true)
    if (this.#core.known.isTainted(volume, ino)) this.#nodes.add(node)
  }

  #lookLater(): void {
    clearTimeout(this.#timer)
    if (this.#nodes.size === 0 || this.#options === undefined) return
    this.#timer = setTimeout(() => void this.#lookAgain(), this.#pauseMs).unref()
    this.#pauseMs = Math.min(this.#pauseMs * 1.5, LOOK_MS_MAX)
  }

  /** Ends the marks of what is held no more; drops what was changed of the others, so that it is not read for long. */
  async #lookAgain(): Promise<void> {
    const options = this.#options
    if (options === undefined) return
    try {
      const before = [...this.#nodes]
      const wrong = this.#heldWrongly(await options.look(), before)
      for (const node of wrong) this.#taint(node)
      await Promise.all(before.map((node) => options.kernel.invalidateNode(node)))
      for (const node of before) if (!wrong.has(node) || !this.#isKnown(node)) this.#clear(node)
    } catch (err) {
      options.logger.error({ err }, 'pages of files that processes without the right to write hold could not be dropped')
    }
    this.#lookLater()
  }

  #isKnown(node: number): boolean {
    return this.#core.known.has(volumeOf(node), inoOfNode(node))
  }

  #clear(node: number): void {
    this.#nodes.delete(node)
    this.#core.known.setTainted(volumeOf(node), inoOfNode(node), false)
  }

  #drop(node: number): void {
    const options = this.#options
    if (options === undefined || this.#dropping.has(node)) return
    this.#dropping.add(node)
    // Not in this turn: the kernel waits for the answer to what it writes back.
    setImmediate(() => {
      this.#dropping.delete(node)
      options.kernel.invalidateNode(node).catch((err: unknown) => {
        options.logger.error({ err, node }, 'pages that a mapping changed could not be dropped')
      })
    })
  }
}

const UNSEEN =
  'not all processes can be seen in /proc: files of workspaces in which a right was lost count as held by processes without it, and what ' +
  'mappings change there is not stored until the kernel has given the files back (run nexusd in the pid namespace of the host)'
