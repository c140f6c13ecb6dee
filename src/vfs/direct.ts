/**
 * Files that are written past the page cache by who made them, while somebody else may read them through it. The kernel
 * drops its pages of what is written before it asks us to write (fs/fuse/file.c, fuse_direct_io); a page that is read
 * between the two would stay as it was. So we have it drop them again after the write, if it has read anything since.
 */
import type { KnownNodes } from './known.ts'
import { inoOfNode, volumeOf } from './place.ts'

export interface PageDropper {
  /** Resolves when the kernel has no pages of those bytes any more. */
  invalidateRange(node: number, offset: number, length: number): Promise<void>
}

export class DirectWrites {
  readonly #known: KnownNodes
  readonly #kernel: PageDropper

  constructor(known: KnownNodes, kernel: PageDropper) {
    this.#known = known
    this.#kernel = kernel
  }

  made(node: number): void {
    this.#known.setWrittenDirectly(volumeOf(node), inoOfNode(node))
  }

  cached(node: number): void {
    this.#known.setCached(volumeOf(node), inoOfNode(node), true)
  }

  written(node: number, offset: number, length: number, again: boolean): Promise<void> | undefined {
    const [volume, ino] = [volumeOf(node), inoOfNode(node)]
    // A process that died may have forgotten the pages before the kernel heard of it.
    if (!again && !this.#known.isCached(volume, ino)) return undefined
    // What is read from now on is what was written.
    this.#known.setCached(volume, ino, false)
    return this.#kernel.invalidateRange(node, offset, length)
  }
}
