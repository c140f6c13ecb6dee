/** Checking a whole tree: that it is sound, and that it is the one tree of its content. */
import type { Address } from '../cas/address.ts'
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

/** @throws NEXUS_CORRUPT, naming the first node in key order that is not as a build from scratch would make it */
export function verifyTree(nodes: NodeCache, shape: Shape, root: Address | null): TreeCounts {
  if (root === null) return { entries: 0, nodes: 0, height: 0 }
  const node = nodes.peek(root)
  if (node.level > 0 && node.count === 1) throw corruptNode(root, 'root with one child')
  const verifier = new Verifier(nodes, shape)
  verifier.visit(node)
  return { entries: verifier.entries, nodes: verifier.nodesVisited, height: node.level + 1 }
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
  readonly #levels: Level[] = []
  entries = 0
  nodesVisited = 0

  constructor(nodes: NodeCache, shape: Shape) {
    this.#nodes = nodes
    this.#shape = shape
  }

  visit(node: Node): void {
    this.nodesVisited++
    this.#checkBounds(node)
    if (node.level === 0) this.entries += node.count
    else for (let i = 0; i < node.count; i++) this.#visitChild(node, i)
  }

  #visitChild(node: Node, index: number): void {
    const child = this.#nodes.peekChild(node, index)
    if (child.compareKey(0, node.key(index)) !== 0) throw corruptNode(node.address, `wrong separator in entry ${index}`)
    this.visit(child)
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
    if (level.last !== undefined) checkNeighbours(level.last, node)
    if (!level.isComplete && !level.chunker.cutsBefore(node.end(0) - node.start(0))) {
      throw corruptNode((level.last ?? node).address, 'ends too early')
    }
    level.last = node
    level.chunker.reset()
    level.isComplete = this.#replay(node, level.chunker)
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
