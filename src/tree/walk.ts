/** Visiting every node of a tree, for garbage collection and fsck. */
import type { Address } from '../cas/address.ts'
import type { NodeCache } from './cache.ts'
import type { Frame } from './cursor.ts'
import type { Node } from './node.ts'

export type VisitEntry = (key: Buffer, value: Buffer) => void

/** Nodes read between two yields. */
const sliceNodes = 16

/**
 * Tells `seen` each node's address, parents first and in key order, and passes over the subtree when
 * it says true. Leaves are read only if their entries are to be visited.
 */
export function* walkTree(
  nodes: NodeCache,
  root: Address | null,
  seen: (address: Address) => boolean,
  visitEntry?: VisitEntry,
): Generator<void, void> {
  if (root === null || seen(root)) return
  const path: Frame[] = [{ node: nodes.peek(root), index: 0 }]
  let nodesRead = 0
  for (let frame = path.at(-1); frame !== undefined; frame = path.at(-1)) {
    const { node, index } = frame
    if (index === 0 && ++nodesRead % sliceNodes === 0) yield
    if (node.level === 0 && visitEntry !== undefined) visitEntries(node, visitEntry)
    if (node.level === 0 || index === node.count) {
      path.pop()
      continue
    }
    frame.index++
    const isRead = !seen(node.child(index)) && (node.level > 1 || visitEntry !== undefined)
    if (isRead) path.push({ node: nodes.peekChild(node, index), index: 0 })
  }
}

function visitEntries(node: Node, visitEntry: VisitEntry): void {
  for (let i = 0; i < node.count; i++) visitEntry(node.key(i), node.value(i))
}
