/** A position in one level of a tree: a node, found by key, and then the next. */
import type { Address } from '../cas/address.ts'
import { assert } from '../errors.ts'
import type { NodeCache } from './cache.ts'
import type { Node } from './node.ts'

export interface Frame {
  readonly node: Node
  index: number
}

/**
 * Holds the path above the node and reads the node itself only when asked: its key and address are
 * known from its parent. Starts at the end; `seek` first.
 */
export class Cursor {
  readonly #nodes: NodeCache
  readonly #root: Address | null
  readonly #level: number
  /** from the root down to the parent of the position; empty when the root is the position */
  readonly #path: Frame[] = []
  #ended = true
  #node: Node | undefined

  /** @param level not above the root's; a null root is a tree without nodes in any level */
  constructor(nodes: NodeCache, root: Address | null, level: number) {
    this.#nodes = nodes
    this.#root = root
    this.#level = level
  }

  get ended(): boolean {
    return this.#ended
  }

  /** Whether no node of the level comes before this one. */
  get isFirst(): boolean {
    return this.#path.every((frame) => frame.index === 0)
  }

  get address(): Address {
    const parent = this.#path.at(-1)
    return parent === undefined ? (this.#root as Address) : parent.node.child(parent.index)
  }

  get node(): Node {
    this.#node ??= this.#readNode()
    return this.#node
  }

  /** The order of the node's first key and the given one: negative when the node's comes first. */
  compareFirstKey(key: Buffer): -1 | 0 | 1 {
    const parent = this.#path.at(-1)
    return parent === undefined ? this.node.compareKey(0, key) : parent.node.compareKey(parent.index, key)
  }

  /** Moves to the node that has the key if any has: the last that starts at or before it, else the first. */
  seek(key: Buffer): void {
    this.#descend((node) => node.childFor(key))
  }

  /** Moves to the node that has the last key below the given one, else to the first. */
  seekBefore(key: Buffer): void {
    this.#descend((node) => node.childBefore(key))
  }

  /** Moves to the following node, or to the end. */
  next(): void {
    this.#node = undefined
    let frame = this.#path.at(-1)
    while (frame !== undefined && frame.index + 1 === frame.node.count) {
      this.#path.pop()
      frame = this.#path.at(-1)
    }
    this.#ended = frame === undefined
    if (frame === undefined) return
    frame.index++
    this.#descendFrom(frame, () => 0)
  }

  #descend(choose: (node: Node) => number): void {
    this.#path.length = 0
    this.#node = undefined
    this.#ended = this.#root === null
    if (this.#root === null) return
    const node = this.#nodes.load(this.#root)
    assert(node.level >= this.#level, 'cursor on a level of the tree')
    if (node.level === this.#level) return
    const frame = { node, index: choose(node) }
    this.#path.push(frame)
    this.#descendFrom(frame, choose)
  }

  #descendFrom(start: Frame, choose: (node: Node) => number): void {
    let frame = start
    while (frame.node.level > this.#level + 1) {
      const node = this.#nodes.child(frame.node, frame.index)
      frame = { node, index: choose(node) }
      this.#path.push(frame)
    }
  }

  #readNode(): Node {
    const parent = this.#path.at(-1)
    if (parent === undefined) return this.#nodes.load(this.#root as Address)
    return this.#nodes.child(parent.node, parent.index)
  }
}
