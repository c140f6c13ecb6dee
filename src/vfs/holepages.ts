/**
 * SEEK_DATA and SEEK_HOLE of files with pages that mappings may have dirtied: `fuse_lseek` (fs/fuse/file.c, 6.18) sends LSEEK
 * without writing back first. So the kernel is told to drop the pages that lie in those holes that an answer depends on, which
 * writes back the dirty ones. Data stays cached. How this is kept rare:
 *
 * - A file of which no READ touched a hole has no such pages: HOLE_PAGE says so for each inode.
 * - Holes that were dropped stay without pages until a READ touches them again. Of a few files it is remembered where that is
 *   so, and as it costs no more, the holes behind are dropped as well. `cp` then costs a notify for each readahead.
 */
import type { Core } from './core.ts'
import type { PageDropper } from './direct.ts'
import { HOLE_PAGE, type KnownNodes } from './known.ts'
import { inoOfNode, volumeOf } from './place.ts'
import { type Hole, holesOf } from './seek.ts'

/** Holes that are dropped at a time. */
const HOLES_MAX = 64
/** Files of which it is remembered where they have no pages in holes: whoever is forgotten costs a notify more. */
const FILES_MAX = 256

/** No hole in [from, to) has a page. */
interface Bare {
  from: number
  to: number
}

export class HolePages {
  readonly #core: Core
  readonly #known: KnownNodes
  /** by node */
  readonly #bare = new Map<number, Bare>()
  /** files with a page that could not be written back, while the kernel holds them: what is data there is not known */
  readonly #unknown = new Set<number>()

  constructor(core: Core) {
    this.#core = core
    this.#known = core.known
  }

  /** The kernel is handed a page that begins in a hole, in [offset, offset + length). */
  handed(node: number, offset: number, length: number): void {
    this.#known.setPages(volumeOf(node), inoOfNode(node), HOLE_PAGE)
    const bare = this.#bare.get(node)
    if (bare === undefined || offset >= bare.to || offset + length <= bare.from) return
    if (offset <= bare.from) bare.from = offset + length
    else bare.to = offset
    if (bare.from >= bare.to) this.#bare.delete(node)
  }

  /** What an answer has to wait for that depends on this hole: until then it is not known what the hole holds. */
  settled(kernel: PageDropper, node: number, hole: Hole): Promise<unknown> | undefined {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    if (!this.#known.hasPages(number, ino, HOLE_PAGE) || this.#isBare(node, hole)) return undefined
    // To drop what could not be written back would be to lose it.
    if (this.#unknown.has(node)) return undefined
    // In a snapshot nothing is dirty.
    const volume = this.#core.volumes.get(number)
    if (volume === undefined) return undefined
    const dropped: Hole[] = []
    for (const one of holesOf(volume, ino, volume.attr(ino)?.size ?? 0, hole[0])) {
      dropped.push(one)
      if (dropped.length === HOLES_MAX) break
    }
    this.#note(node, { from: hole[0], to: dropped.at(-1)?.[1] ?? hole[1] })
    return Promise.all(dropped.map(([from, to]) => kernel.invalidateRange(node, from, to - from)))
  }

  /** A page could not be written back. The kernel has it still, for reads, and takes it for clean. */
  notWritten(node: number): void {
    this.#unknown.add(node)
  }

  isUnknown(node: number): boolean {
    return this.#unknown.has(node)
  }

  forgotten(node: number): void {
    this.#bare.delete(node)
    this.#unknown.delete(node)
  }

  #isBare(node: number, [from, to]: Hole): boolean {
    const bare = this.#bare.get(node)
    return bare !== undefined && bare.from <= from && bare.to >= to
  }

  #note(node: number, bare: Bare): void {
    this.#bare.delete(node)
    this.#bare.set(node, bare)
    const [oldest] = this.#bare.keys()
    if (this.#bare.size > FILES_MAX && oldest !== undefined) this.#bare.delete(oldest)
  }
}
