/** Nodes in memory: the decoded form of those used lately, in front of the store. */
import type { Address } from '../cas/address.ts'
import { corruptNode, decodeNode, Node, type NodeStore } from './node.ts'

/** Rough cost of the objects around a node's bytes, and around each child's address once used. */
const nodeOverheadBytes = 256
const childOverheadBytes = 64

/**
 * Evicts by the clock algorithm (Corbató's second chance): a hit sets a flag, where a strict LRU
 * would reorder a list three times in every lookup.
 */
export class NodeCache {
  readonly #store: NodeStore
  readonly #bytesMax: number
  readonly #nodes = new Map<Address, Node>()
  /** A Map's iterator stays valid while entries come and go, so it can be the clock's hand. */
  #hand: MapIterator<Node>
  #bytes = 0
  #hits = 0
  #misses = 0

  constructor(store: NodeStore, bytesMax: number) {
    this.#store = store
    this.#bytesMax = bytesMax
    this.#hand = this.#nodes.values()
  }

  /** @throws NEXUS_CORRUPT, NEXUS_TOO_NEW, or what the store throws */
  load(address: Address): Node {
    const cached = this.#nodes.get(address)
    if (cached !== undefined) {
      cached.isUsed = true
      this.#hits++
      return cached
    }
    this.#misses++
    const node = decodeNode(address, this.#store.get(address))
    this.#keep(node)
    return node
  }

  /** How often a node was there when it was asked for, and how often not. */
  get use(): { hits: number; misses: number } {
    return { hits: this.#hits, misses: this.#misses }
  }

  /** As `load`, for a walk through everything: what it reads does not push out what others need. */
  peek(address: Address): Node {
    return this.#nodes.get(address) ?? decodeNode(address, this.#store.get(address))
  }

  /** The child of an inner node; levels descend, so no damage can lead a walk in a circle. */
  child(parent: Node, index: number): Node {
    return checkLevel(this.load(parent.child(index)), parent)
  }

  peekChild(parent: Node, index: number): Node {
    return checkLevel(this.peek(parent.child(index)), parent)
  }

  /** Stores a node just encoded. */
  put(bytes: Buffer): Address {
    const address = this.#store.put(bytes)
    if (!this.#nodes.has(address)) this.#keep(new Node(address, bytes))
    return address
  }

  #keep(node: Node): void {
    // It comes last in the map's order. To a hand that is at the end it would else be the next, and the first to go: nothing new
    // was kept from then on, and what had been there stayed.
    node.isUsed = true
    this.#nodes.set(node.address, node)
    this.#bytes += weightOf(node)
    while (this.#bytes > this.#bytesMax) this.#evictOne()
  }

  #evictOne(): void {
    for (;;) {
      const { value: node, done } = this.#hand.next()
      if (done) {
        this.#hand = this.#nodes.values()
      } else if (node.isUsed) {
        node.isUsed = false
      } else {
        this.#nodes.delete(node.address)
        this.#bytes -= weightOf(node)
        return
      }
    }
  }
}

function weightOf(node: Node): number {
  const children = node.level > 0 ? node.count * childOverheadBytes : 0
  return node.bytes.length + nodeOverheadBytes + children
}

function checkLevel(node: Node, parent: Node): Node {
  if (node.level !== parent.level - 1) {
    throw corruptNode(node.address, `level ${node.level} under a node of level ${parent.level}`)
  }
  return node
}
