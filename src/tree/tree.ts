/**
 * The immutable ordered map from byte keys to byte values. A map is the address of its root node,
 * null when it is empty; equal maps have equal roots, however they came about.
 *
 * Keys have at most 65,535 bytes and are meant to be short. Buffers that come out are views of
 * cached nodes: they must not be modified, and who keeps one for long should copy it.
 *
 * Every method throws NEXUS_CORRUPT when a node is missing or damaged (where it is reached, for
 * those that yield), and NEXUS_TOO_NEW for one of a later format.
 */
import type { Address } from '../cas/address.ts'
import { NodeCache } from './cache.ts'
import { type Shape, standardShape } from './chunker.ts'
import { Cursor } from './cursor.ts'
import { type Difference, diffTrees } from './diff.ts'
import { type Edit, editTree } from './edit.ts'
import { keyHeaderBytes, type Node, type NodeStore } from './node.ts'
import { type TreeCounts, type TreeVisitor, verifySlices, verifyTree } from './verify.ts'
import { type VisitEntry, walkTree } from './walk.ts'

export type { Difference } from './diff.ts'
export type { Edit } from './edit.ts'
export type { TreeVisitor } from './verify.ts'

export interface TreeOptions {
  /** memory for nodes, in bytes */
  cacheBytesMax: number
  /** for tests: other limits make other roots */
  shape?: Shape
}

/** Where an entry lies in the bytes of its node: the key from `key` to `value`, the value from there to `end`. */
export interface EntryPlace {
  readonly bytes: Buffer
  readonly key: number
  readonly value: number
  readonly end: number
}

/** All trees in one store. */
export class Tree {
  readonly #nodes: NodeCache
  readonly #shape: Shape

  constructor(store: NodeStore, options: TreeOptions) {
    this.#nodes = new NodeCache(store, options.cacheBytesMax)
    this.#shape = options.shape ?? standardShape
  }

  /** How often a node was in memory when it was asked for, and how often not. */
  get cacheUse(): { hits: number; misses: number } {
    return this.#nodes.use
  }

  get(root: Address | null, key: Buffer): Buffer | undefined {
    if (root === null) return undefined
    let node = this.#nodes.load(root)
    while (node.level > 0) node = this.#nodes.child(node, node.childFor(key))
    const index = node.countBelow(key)
    return index < node.count && node.compareKey(index, key) === 0 ? node.value(index) : undefined
  }

  /** The greatest key, a view; undefined when there is none. */
  lastKey(root: Address | null): Buffer | undefined {
    if (root === null) return undefined
    let node = this.#nodes.load(root)
    while (node.level > 0) node = this.#nodes.child(node, node.count - 1)
    return node.key(node.count - 1)
  }

  /** The entries in [from, to), ascending; without `to` up to the end. */
  *scan(root: Address | null, from: Buffer, to?: Buffer): IterableIterator<[Buffer, Buffer]> {
    for (const { node, first, end } of this.#leaves(root, from, to)) {
      for (let i = first; i < end; i++) yield [node.key(i), node.value(i)]
    }
  }

  /** As `scan`, for who goes through many: views take longer to make than to look at. */
  *places(root: Address | null, from: Buffer, to?: Buffer): IterableIterator<EntryPlace> {
    for (const { node, first, end } of this.#leaves(root, from, to)) {
      for (let i = first; i < end; i++) {
        const start = node.start(i)
        yield { bytes: node.bytes, key: start + keyHeaderBytes, value: node.keyEnd(start), end: node.end(i) }
      }
    }
  }

  *#leaves(root: Address | null, from: Buffer, to: Buffer | undefined): Generator<{ node: Node; first: number; end: number }> {
    const cursor = new Cursor(this.#nodes, root, 0)
    cursor.seek(from)
    for (let isFirst = true; !cursor.ended; isFirst = false, cursor.next()) {
      const { node } = cursor
      const end = to === undefined || node.compareKey(node.count - 1, to) < 0 ? node.count : node.countBelow(to)
      yield { node, first: isFirst ? node.countBelow(from) : 0, end }
      if (end < node.count) return
    }
  }

  /**
   * Applies edits, which ascend strictly by key. Yields between slices of work, so that the caller
   * can go back to the event loop. The old tree stays as it is.
   * @returns (when done) the new root; the old one if nothing changed, and then nothing is stored
   */
  edit(root: Address | null, edits: Iterable<Edit>): Generator<void, Address | null> {
    return editTree(this.#nodes, this.#shape, root, edits)
  }

  /** `edit` in one go. */
  editNow(root: Address | null, edits: Iterable<Edit>): Address | null {
    const work = this.edit(root, edits)
    for (;;) {
      const { done, value } = work.next()
      if (done) return value
    }
  }

  /** What differs between two maps in [from, to), ascending by key. Subtrees that both share are not read. */
  diff(a: Address | null, b: Address | null, from?: Buffer, to?: Buffer): IterableIterator<Difference> {
    return diffTrees(this.#nodes, a, b, from, to)
  }

  /**
   * Visits every node of a tree, in slices as `edit`. `seen` is told each address once and may record
   * it; where it says true, the subtree is passed over. Leaves are read only if `visitEntry` is given.
   */
  walk(root: Address | null, seen: (address: Address) => boolean, visitEntry?: VisitEntry): Generator<void, void> {
    return walkTree(this.#nodes, root, seen, visitEntry)
  }

  /**
   * Reads the whole tree and checks the order of keys, separators, levels, and that each node ends
   * where it would in a build from scratch.
   * @throws NEXUS_CORRUPT naming the node
   */
  verify(root: Address | null): TreeCounts {
    return verifyTree(this.#nodes, this.#shape, root)
  }

  /** `verify` in slices, telling the visitor of every entry, and of every damage instead of throwing. */
  verifySlices(root: Address | null, visitor: TreeVisitor): Generator<void, TreeCounts> {
    return verifySlices(this.#nodes, this.#shape, root, visitor)
  }
}
