/**
 * SEEK_DATA and SEEK_HOLE of files with pages that mappings may have dirtied: `fuse_lseek` (fs/fuse/file.c, 6.18) sends LSEEK
 * without writing back first. So the kernel is told to drop the pages that lie in those holes that an answer depends on, which
 * writes back the dirty ones. Data stays cached. How this is kept rare:
 *
 * - A file of which no READ touched a hole has no such pages: HOLE_PAGE says so for each inode.
 * - Of a few files it is remembered where READs touched holes. `cp` reads data alone, but for some readahead at the start.
 * - The holes behind are dropped as well, which costs no more: a listing of holes waits once for many.
 */
import type { Core } from './core.ts'
import type { PageDropper } from './direct.ts'
import { HOLE_PAGE, type KnownNodes } from './known.ts'
import { inoOfNode, volumeOf } from './place.ts'
import { type Hole, holesOf } from './seek.ts'

/** Holes that are dropped at a time. */
const HOLES_MAX = 64
/** Files of which it is remembered where they have pages in holes. Of the others each hole costs a notify. */
const FILES_MAX = 256
/** Stretches that are remembered of a file; beyond that it is one, from the first to the last. */
const STRETCHES_MAX = 64

/** The holes in [from, to) may have pages. */
interface Stretch {
  from: number
  to: number
}

export class HolePages {
  readonly #core: Core
  readonly #known: KnownNodes
  /** by node, where READs touched holes: no other hole of the file has a page. Of a file that is not here any hole may. */
  readonly #touched = new Map<number, Stretch[]>()
  /** files with a page that could not be written back, while the kernel holds them: what is data there is not known */
  readonly #unknown = new Set<number>()

  constructor(core: Core) {
    this.#core = core
    this.#known = core.known
  }

  /** The kernel is handed a page that begins in a hole, in [offset, offset + length). */
  handed(node: number, offset: number, length: number): void {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    const isFirst = !this.#known.hasPages(number, ino, HOLE_PAGE)
    this.#known.setPages(number, ino, HOLE_PAGE)
    const stretches = isFirst ? [] : this.#touched.get(node)
    if (stretches === undefined) return
    this.#keep(node, withStretch(stretches, { from: offset, to: offset + length }))
  }

  /** What an answer has to wait for that depends on this hole: until then it is not known what the hole holds. */
  settled(kernel: PageDropper, node: number, hole: Hole): Promise<unknown> | undefined {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    if (!this.#known.hasPages(number, ino, HOLE_PAGE) || !this.#mayHavePages(node, hole)) return undefined
    // To drop what could not be written back would be to lose it.
    if (this.#unknown.has(node)) return undefined
    // In a snapshot nothing is dirty.
    const volume = this.#core.volumes.get(number)
    if (volume === undefined) return undefined
    const dropped: Hole[] = []
    let [to, looked] = [hole[1], 0]
    for (const one of holesOf(volume, ino, volume.attr(ino)?.size ?? 0, hole[0])) {
      to = one[1]
      if (this.#mayHavePages(node, one)) dropped.push(one)
      if (++looked === HOLES_MAX) break
    }
    this.#keep(node, withoutStretch(this.#touched.get(node) ?? EVERYWHERE, { from: hole[0], to }))
    return Promise.all(dropped.map(([from, end]) => kernel.invalidateRange(node, from, end - from)))
  }

  /** A page could not be written back. The kernel has it still, for reads, and takes it for clean. */
  notWritten(node: number): void {
    this.#unknown.add(node)
  }

  isUnknown(node: number): boolean {
    return this.#unknown.has(node)
  }

  forgotten(node: number): void {
    this.#touched.delete(node)
    this.#unknown.delete(node)
  }

  #mayHavePages(node: number, [from, to]: Hole): boolean {
    return this.#touched.get(node)?.some((one) => one.from < to && one.to > from) ?? true
  }

  #keep(node: number, stretches: Stretch[]): void {
    this.#touched.delete(node)
    this.#touched.set(node, stretches)
    const [oldest] = this.#touched.keys()
    if (this.#touched.size > FILES_MAX && oldest !== undefined) this.#touched.delete(oldest)
  }
}

const EVERYWHERE: readonly Stretch[] = [{ from: 0, to: Number.MAX_SAFE_INTEGER }]

function withStretch(stretches: readonly Stretch[], { from, to }: Stretch): Stretch[] {
  const isApart = (one: Stretch): boolean => one.to < from || one.from > to
  const joined = [{ from, to }, ...stretches.filter((one) => !isApart(one))]
  return bounded([...stretches.filter(isApart), hullOf(joined)])
}

function withoutStretch(stretches: readonly Stretch[], { from, to }: Stretch): Stretch[] {
  const left = stretches.flatMap((one) => [
    { from: one.from, to: Math.min(one.to, from) },
    { from: Math.max(one.from, to), to: one.to },
  ])
  return bounded(left.filter((one) => one.from < one.to))
}

function bounded(stretches: Stretch[]): Stretch[] {
  return stretches.length <= STRETCHES_MAX ? stretches : [hullOf(stretches)]
}

function hullOf(stretches: readonly Stretch[]): Stretch {
  return { from: Math.min(...stretches.map((one) => one.from)), to: Math.max(...stretches.map((one) => one.to)) }
}
