/**
 * The difference of two trees, read only where they differ.
 *
 * Two walks stand on one entry each, of a leaf or of an inner node: then it stands for a whole
 * subtree, whose first key is the entry's. Always the walk with the smaller key goes on; so wherever
 * both trees have the same subtree, both stand on it at the same time, and pass it unread.
 */
import type { Address } from '../cas/address.ts'
import type { NodeCache } from './cache.ts'
import { compareRanges } from './compare.ts'
import type { Frame } from './cursor.ts'
import { keyHeaderBytes } from './node.ts'

/** One key with different values; undefined where it is absent. */
export interface Difference {
  key: Buffer
  before: Buffer | undefined
  after: Buffer | undefined
}

/** Differences from `a` to `b` in [from, to), ascending by key. */
export function* diffTrees(
  nodes: NodeCache,
  a: Address | null,
  b: Address | null,
  from: Buffer | undefined,
  to: Buffer | undefined,
): Generator<Difference, void> {
  if (a === b) return
  const before = new Walk(nodes, a, from)
  const after = new Walk(nodes, b, from)
  for (;;) {
    const order = compareWalks(before, after)
    const first = order <= 0 ? before.frame : after.frame
    if (first === undefined || (to !== undefined && first.node.compareKey(first.index, to) >= 0)) return
    const difference = order === 0 ? stepBoth(before, after) : order < 0 ? stepBefore(before) : stepAfter(after)
    if (difference !== undefined) yield difference
  }
}

/** Both stand on the same key. */
function stepBoth(before: Walk, after: Walk): Difference | undefined {
  const a = before.frame as Frame
  const b = after.frame as Frame
  if (a.node.level > b.node.level) before.descend()
  else if (a.node.level < b.node.level) after.descend()
  else if (a.node.level === 0) return stepLeaves(before, after)
  else if (a.node.child(a.index) === b.node.child(b.index)) skipBoth(before, after)
  else {
    before.descend()
    after.descend()
  }
  return undefined
}

function stepLeaves(before: Walk, after: Walk): Difference | undefined {
  const a = before.frame as Frame
  const b = after.frame as Frame
  const key = b.node.key(b.index)
  const [valueBefore, valueAfter] = [a.node.value(a.index), b.node.value(b.index)]
  skipBoth(before, after)
  return valueBefore.equals(valueAfter) ? undefined : { key, before: valueBefore, after: valueAfter }
}

function skipBoth(before: Walk, after: Walk): void {
  before.advance()
  after.advance()
}

function stepBefore(walk: Walk): Difference | undefined {
  const entry = walk.stepAlone()
  return entry && { key: entry.key, before: entry.value, after: undefined }
}

function stepAfter(walk: Walk): Difference | undefined {
  const entry = walk.stepAlone()
  return entry && { key: entry.key, before: undefined, after: entry.value }
}

/** By the keys on which they stand; a walk at its end comes last, and two such are equal. */
function compareWalks(a: Walk, b: Walk): number {
  if (a.frame === undefined || b.frame === undefined) return Number(!a.frame) - Number(!b.frame)
  const [{ node: nodeA, index: indexA }, { node: nodeB, index: indexB }] = [a.frame, b.frame]
  const [startA, startB] = [nodeA.start(indexA), nodeB.start(indexB)]
  return compareRanges(
    nodeA.bytes,
    startA + keyHeaderBytes,
    nodeA.keyEnd(startA),
    nodeB.bytes,
    startB + keyHeaderBytes,
    nodeB.keyEnd(startB),
  )
}

/** A walk in key order that passes over a subtree or goes into it. */
class Walk {
  readonly #nodes: NodeCache
  readonly #path: Frame[] = []

  constructor(nodes: NodeCache, root: Address | null, from: Buffer | undefined) {
    this.#nodes = nodes
    if (root === null) return
    this.#path.push({ node: nodes.load(root), index: 0 })
    if (from !== undefined) this.#seek(from)
  }

  /** Where the walk stands; undefined at the end. */
  get frame(): Frame | undefined {
    return this.#path.at(-1)
  }

  /** To the first entry of the subtree under this one. */
  descend(): void {
    const { node, index } = this.frame as Frame
    this.#path.push({ node: this.#nodes.child(node, index), index: 0 })
  }

  /** Past the entry, to the next in this node or above. */
  advance(): void {
    let frame = this.frame
    while (frame !== undefined && ++frame.index >= frame.node.count) {
      this.#path.pop()
      frame = this.frame
    }
  }

  /** Past a leaf's entry, which it returns, or into a subtree. */
  stepAlone(): { key: Buffer; value: Buffer } | undefined {
    const { node, index } = this.frame as Frame
    if (node.level > 0) {
      this.descend()
      return undefined
    }
    this.advance()
    return { key: node.key(index), value: node.value(index) }
  }

  /** To the highest entry that starts the part of the tree not below the key. */
  #seek(key: Buffer): void {
    let frame = this.frame as Frame
    while (frame.node.level > 0) {
      frame.index = frame.node.childFor(key)
      if (frame.node.compareKey(frame.index, key) >= 0) return
      this.descend()
      frame = this.frame as Frame
    }
    frame.index = frame.node.countBelow(key)
    if (frame.index < frame.node.count) return
    frame.index--
    this.advance()
  }
}
