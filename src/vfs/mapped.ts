/**
 * What programs have stored through shared mappings, and the kernel has not written back. The daemon hears of no mapping and of
 * no store, but two answers depend on them: what LSEEK says of holes (holepages.ts), and what a file holds behind its old end when it
 * has grown. POSIX wants zeros there, whatever a mapping stored in the last page; the kernel neither clears it, nor leaves it
 * out once its i_size covers it.
 *
 * The facts that this relies on (Linux 6.18, fs/fuse):
 * - A page has to be read before a mapping can store into it, so it was sent a READ, or a WRITE that covers it whole
 *   (which makes data of it). Only files with a READ that touched a hole or the last page cost anything more.
 * - INVAL_INODE with a range writes dirty pages back, waits for that, and drops them (`invalidate_inode_pages2_range`).
 *   It takes no inode lock, only locks of pages. Afterwards a store into one needs a READ again.
 * - LSEEK, FALLOCATE, COPY_FILE_RANGE and a WRITE past the page cache hold the inode's lock and no page's. A buffered WRITE
 *   holds a page only if it was not cached before and is not written whole (`fuse_fill_write_pages`): such a page no mapping has.
 *   So the answer to it waits as well, but not for ever: a last page that was given back to the system before is held by it.
 *   Linkers leave gaps and read back: so for a buffered WRITE nothing is done unless a mapping has been written back before.
 * - When a WRITE is answered, the program may store into the gap through a mapping. Nothing tells those stores from what lay there
 *   before. So a write-back is never cleared on account of a WRITE: what a program has stored must not be lost.
 * - While SETATTR sets a size, the kernel sends no write-back (`fuse_set_nowrite`). Right after the answer it writes all dirty pages
 *   back and drops them (`fuse_do_setattr`), before the program that asked goes on.
 */
import { atMost } from './atmost.ts'
import type { Core } from './core.ts'
import type { PageDropper } from './direct.ts'
import { HolePages } from './holepages.ts'
import { type KnownNodes, STORED_INTO, TAIL_PAGE } from './known.ts'
import { PAGE_BYTES, pageAfter, pageOf } from './pages.ts'
import { inoOfNode, volumeOf } from './place.ts'
import type { Hole } from './seek.ts'

/** Longest wait of a buffered WRITE that may hold the page itself. What lay in the gap stays there then. */
const LOCKED_MS_MAX = 500

/** Bytes of the last page that were behind the end of a file, and are not any more. */
interface Tail {
  from: number
  to: number
}

export class MappedPages {
  readonly #known: KnownNodes
  readonly #core: Core
  readonly #holes: HolePages
  #kernel: PageDropper | undefined
  /** by node; gone with whatever reads or changes those bytes next */
  readonly #tails = new Map<number, Tail>()

  constructor(core: Core) {
    this.#core = core
    this.#known = core.known
    this.#holes = new HolePages(core)
  }

  /** From now on the kernel can be told to write back. */
  serve(kernel: PageDropper): void {
    this.#kernel = kernel
  }

  /** The kernel is handed content. @param hasHolePage a page of it begins in a hole */
  handed(node: number, offset: number, length: number, size: number, hasHolePage: boolean): void {
    if (size % PAGE_BYTES !== 0 && offset + length >= size) this.#known.setPages(volumeOf(node), inoOfNode(node), TAIL_PAGE)
    if (hasHolePage) this.#holes.handed(node, offset, length)
    if (this.#tails.size > 0) this.#touched(node, offset, length)
  }

  /** What an LSEEK whose answer depends on this hole has to wait for. */
  settled(node: number, hole: Hole): Promise<unknown> | undefined {
    return this.#kernel === undefined ? undefined : this.#holes.settled(this.#kernel, node, hole)
  }

  notWritten(node: number): void {
    this.#holes.notWritten(node)
  }

  /** Whether the kernel may have something of a file that could not be written back. */
  isUnknown(node: number): boolean {
    return this.#holes.isUnknown(node)
  }

  forgotten(node: number): void {
    this.#holes.forgotten(node)
    this.#tails.delete(node)
  }

  /** A file has been given another size by SETATTR. */
  resized(node: number, before: number, after: number): void {
    this.#tails.delete(node)
    if (after <= before || before % PAGE_BYTES === 0) return
    if (this.#known.takePages(volumeOf(node), inoOfNode(node), TAIL_PAGE)) this.#setTail(node, before, after)
  }

  /**
   * A file is about to be changed at [offset, offset + length), and perhaps grows by it.
   * @param isLocked the kernel may hold pages of it locked until it is answered
   * @returns what the answer has to wait for
   */
  changing(node: number, offset: number, length: number, isLocked: boolean): Promise<void> | undefined {
    if (this.#tails.size > 0) this.#touched(node, offset, length)
    const [volume, ino] = [volumeOf(node), inoOfNode(node)]
    if (!this.#known.hasPages(volume, ino, TAIL_PAGE)) return undefined
    if (isLocked && !this.#known.hasPages(volume, ino, STORED_INTO)) return undefined
    const size = this.#core.volumes.get(volume)?.attr(ino)?.size ?? 0
    if (size % PAGE_BYTES === 0 || offset <= size || this.#kernel === undefined) return undefined
    this.#known.takePages(volume, ino, TAIL_PAGE)
    const dropped = this.#kernel.invalidateRange(node, pageOf(size), PAGE_BYTES)
    // Until it is answered the kernel goes by the size before, and leaves out what is behind that.
    if (!isLocked) return dropped
    const ignored = (): void => undefined
    // A notify that fails is in the log; the write itself is done.
    return atMost(dropped.catch(ignored), LOCKED_MS_MAX, ignored)
  }

  /** Bytes that the kernel writes back, which lie in `buffer` at `start`. */
  writtenBack(node: number, offset: number, buffer: Buffer, start: number, length: number): void {
    this.#known.setPages(volumeOf(node), inoOfNode(node), STORED_INTO)
    const tail = this.#tails.get(node)
    if (tail === undefined || tail.to <= offset || tail.from >= offset + length) return
    const at = start - offset
    buffer.fill(0, Math.max(at + tail.from, start), Math.min(at + tail.to, start + length))
    this.#tails.delete(node)
  }

  #setTail(node: number, from: number, to: number): void {
    this.#tails.set(node, { from, to: Math.min(to, pageAfter(from)) })
  }

  #touched(node: number, offset: number, length: number): void {
    const tail = this.#tails.get(node)
    if (tail !== undefined && offset < tail.to && offset + length > tail.from) this.#tails.delete(node)
  }
}
