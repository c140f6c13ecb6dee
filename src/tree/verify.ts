/** Checking a whole tree: that it is sound, and that it is the one tree of its content. */
import type { Address } from '../cas/address.ts'
import { NexusError, systemCode } from '../errors.ts'
import type { NodeCache } from './cache.ts'
import { Chunker, type Shape } from './chunker.ts'
import { compareKeys } from './compare.ts'
import { corruptNode, keyHeaderBytes, type Node } from './node.ts'

export interface TreeCounts {
  entries: number
  nodes: number
  /** levels; 0 for the empty map */
  height: number
}

/** Who is told of a tree while it is verified. */
export interface TreeVisitor {
  /** a node that can be read, before what is below it */
  node?(address: Address): void
  /** an entry of a leaf, in key order */
  entry?(key: Buffer, value: Buffer): void
  /**
   * A node that cannot be read (then all below it is passed over) or is not where or as it should be. Without
   * this the first one is thrown.
   * @param from the first key that should be in it, as far as that is known
   */
  damaged?(error: Error, address: Address, isLost: boolean, from: Buffer | undefined): void
}

/** @throws NEXUS_CORRUPT, naming the first node in key order that is not as a build from scratch would make it */
export function verifyTree(nodes: NodeCache, shape: Shape, root: Address | null): TreeCounts {
  const work = verifySlices(nodes, shape, root, {})
  for (;;) {
    const { done, value } = work.next()
    if (done) return value
  }
}

/** The same with a yield at each node, for who has other work between, and for who wants to know of every damage. */
export function* verifySlices(
  nodes: NodeCache,
  shape: Shape,
  root: Address | null,
  visitor: TreeVisitor,
): Generator<void, TreeCounts> {
  if (root === null) return { entries: 0, nodes: 0, height: 0 }
  const verifier = new Verifier(nodes, shape, visitor)
  const height = yield* verifier.start(root)
  return { entries: verifier.entries, nodes: verifier.nodesVisited, height }
}

/** What is known of a level while it is read from left to right. */
interface Level {
  chunker: Chunker
  isComplete: boolean
  last: Node | undefined
}

/** Visits nodes in key order, and repeats in each level the cutting that made them. */
class Verifier {
  readonly #nodes: NodeCache
  readonly #shape: Shape
  readonly #visitor: TreeVisitor
  readonly #levels: Level[] = []
  entries = 0
  nodesVisited = 0

  constructor(nodes: NodeCache, shape: Shape, visitor: TreeVisitor) {
    this.#nodes = nodes
    this.#shape = shape
    this.#visitor = visitor
  }

  *start(root: Address): Generator<void, number> {
    const node = this.#readable(root, undefined, () => this.#nodes.peek(root))
    if (node === undefined) return 0
    if (node.level > 0 && node.count === 1) this.#report(corruptNode(root, 'root with one child'), root, false, undefined)
    yield* this.#visit(node)
    return node.level + 1
  }

  *#visit(node: Node): Generator<void, void> {
    this.nodesVisited++
    this.#visitor.node?.(node.address)
    this.#checkBounds(node)
    yield
    if (node.level === 0) {
      this.entries += node.count
      for (let i = 0; i < node.count; i++) this.#visitor.entry?.(node.key(i), node.value(i))
      return
    }
    for (let i = 0; i < node.count; i++) {
      const key = node.key(i)
      const child = this.#readable(node.child(i), key, () => this.#nodes.peekChild(node, i))
      if (child === undefined) {
        this.#forget(node.level - 1)
        continue
      }
      if (child.compareKey(0, key) !== 0) {
        this.#report(corruptNode(node.address, `wrong separator in entry ${i}`), node.address, false, key)
      }
      yield* this.#visit(child)
    }
  }

  #readable(address: Address, from: Buffer | undefined, read: () => Node): Node | undefined {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof Error) || !isDamage(error)) throw error
      this.#report(error, address, true, from)
      return undefined
    }
  }

  #report(error: Error, address: Address, isLost: boolean, from: Buffer | undefined): void {
    if (this.#visitor.damaged === undefined) throw error
    this.#visitor.damaged(error, address, isLost, from)
  }

  /** What comes next in these levels cannot be compared with what came last. */
  #forget(level: number): void {
    for (const each of this.#levels.slice(0, level + 1)) {
      if (each === undefined) continue
      each.last = undefined
      each.isComplete = true
      each.chunker.reset()
    }
  }

  #levelOf(node: Node): Level {
    let level = this.#levels[node.level]
    if (level === undefined) {
      level = { chunker: new Chunker(this.#shape, node.level), isComplete: true, last: undefined }
      this.#levels[node.level] = level
    }
    return level
  }

  #checkBounds(node: Node): void {
    const level = this.#levelOf(node)
    const { last, isComplete } = level
    level.last = node
    level.isComplete = true
    try {
      if (last !== undefined) checkNeighbours(last, node)
      if (!isComplete && !level.chunker.cutsBefore(node.end(0) - node.start(0))) {
        throw corruptNode((last ?? node).address, 'ends too early')
      }
      level.chunker.reset()
      level.isComplete = this.#replay(node, level.chunker)
    } catch (error) {
      if (!(error instanceof NexusError)) throw error
      level.chunker.reset()
      this.#report(error, node.address, false, node.key(0))
    }
  }

  /** Feeds a node's entries to the chunker; returns whether it ends the node after the last one. */
  #replay(node: Node, chunker: Chunker): boolean {
    let isComplete = false
    for (let i = 0; i < node.count; i++) {
      const start = node.start(i)
      const entryBytes = node.end(i) - start
      if (isComplete || chunker.cutsBefore(entryBytes)) throw corruptNode(node.address, `should end before entry ${i}`)
      isComplete = chunker.add(entryBytes, node.bytes, start + keyHeaderBytes, node.keyEnd(start))
    }
    return isComplete
  }
}

function checkNeighbours(left: Node, right: Node): void {
  if (compareKeys(left.key(left.count - 1), right.key(0)) >= 0) {
    throw corruptNode(right.address, 'starts before its left neighbour ends')
  }
}

/** Rot, or a disk that fails to read; anything else is a bug. */
function isDamage(error: Error): boolean {
  if (error instanceof NexusError) return error.code === 'NEXUS_CORRUPT'
  return systemCode(error) === 'EIO'
}
