/**
 * Editing: from a tree and a sorted list of edits to the new tree, level by level from the leaves up.
 *
 * In each level the nodes that the edits touch are merged with them and cut anew. The nodes
 * replaced and the nodes written in their place are the edits of the level above. A run of cutting
 * goes on into the next old node until it ends exactly where an old node begins; from there to the
 * next edit everything would come out as it was, and is skipped unread.
 */
import { type Address, addressAt } from '../cas/address.ts'
import { assert } from '../errors.ts'
import { entryBytesOf, NodeBuilder } from './builder.ts'
import type { NodeCache } from './cache.ts'
import type { Shape } from './chunker.ts'
import { compareKeys } from './compare.ts'
import { Cursor } from './cursor.ts'
import type { Node } from './node.ts'

/** Sets a key, or deletes it when the value is null. */
export interface Edit {
  key: Buffer
  value: Buffer | null
}

/** Work between two yields. */
const sliceEntries = 256
const sliceNodesWritten = 16

/**
 * Applies edits, which ascend strictly by key.
 * @returns at the end the new root, null when nothing is left
 */
export function* editTree(
  nodes: NodeCache,
  shape: Shape,
  root: Address | null,
  edits: Iterable<Edit>,
): Generator<void, Address | null> {
  // One for all levels: allocating its buffer costs as much as hashing a node.
  const builder = new NodeBuilder(shape)
  let result: LevelResult = { kind: 'edits', base: root, edits }
  for (let level = 0; result.kind === 'edits'; level++) {
    builder.startLevel(level)
    const pass: LevelPass = new LevelPass(nodes, builder, result.base, level, result.edits)
    result = yield* pass.run()
  }
  return result.kind === 'root' ? result.root : root
}

/** What an edited level means for the tree. */
type LevelResult =
  | { kind: 'unchanged' }
  /** the level has one node, or none: the tree ends here */
  | { kind: 'root'; root: Address | null }
  /** edits of the level above, in the tree `base`: the old one, or none if the levels above start afresh */
  | { kind: 'edits'; base: Address | null; edits: Iterable<Edit> }

/** A node as the level above knows it. */
interface Separator {
  key: Buffer
  address: Address
}

class LevelPass {
  readonly #nodes: NodeCache
  readonly #base: Address | null
  readonly #level: number
  readonly #edits: Iterator<Edit>
  readonly #cursor: Cursor
  readonly #builder: NodeBuilder
  readonly #replaced: Separator[] = []
  readonly #written: Separator[] = []
  #edit: Edit | undefined
  /** the old node with which the node being built starts, if it does */
  #origin: Node | undefined
  /** no old node was skipped so far */
  #isWhole = true
  #entriesMerged = 0
  #nodesPut = 0

  constructor(nodes: NodeCache, builder: NodeBuilder, base: Address | null, level: number, edits: Iterable<Edit>) {
    this.#nodes = nodes
    this.#base = base
    this.#level = level
    this.#edits = edits[Symbol.iterator]()
    this.#cursor = new Cursor(nodes, base, level)
    this.#builder = builder
  }

  *run(): Generator<void, LevelResult> {
    this.#nextEdit()
    if (this.#edit === undefined) return { kind: 'unchanged' }
    // One node early if the key starts a node: whether an entry still fits is why the one before ended.
    this.#cursor.seekBefore(this.#edit.key)
    this.#isWhole = this.#cursor.isFirst
    do {
      yield* this.#mergeNode()
    } while (this.#findNextNode())
    return this.#finish()
  }

  /** Moves to the next old node that has to be cut anew; false when there is none. */
  #findNextNode(): boolean {
    const cursor = this.#cursor
    if (cursor.ended) return false
    if (!this.#isInSync()) return true
    this.#closeNode()
    if (this.#edit === undefined) {
      this.#isWhole = false
      return false
    }
    const before = cursor.address
    cursor.seekBefore(this.#edit.key)
    if (cursor.address !== before) this.#isWhole = false
    return true
  }

  /** Whether a new node begins exactly where the cursor's node does, with the same entry. */
  #isInSync(): boolean {
    if (this.#edit !== undefined && this.#cursor.compareFirstKey(this.#edit.key) >= 0) return false
    if (this.#builder.count === 0) return true
    const node = this.#cursor.node
    return this.#builder.cutsBefore(node.end(0) - node.start(0))
  }

  /** Merges the cursor's node with the edits up to the node that follows, and moves there. */
  *#mergeNode(): Generator<void, void> {
    const cursor = this.#cursor
    const node = cursor.ended ? undefined : cursor.node
    if (node !== undefined) {
      this.#replaced.push(separatorOf(node))
      cursor.next()
    }
    const count = node?.count ?? 0
    let index = 0
    for (;;) {
      if (node !== undefined && index < count) index += this.#mergeEntry(node, index)
      else if (this.#isNextEditHere()) this.#applyEdit()
      else return
      if (this.#isSliceDone()) yield
    }
  }

  /** Adds the entry or the edit, whichever comes first; returns how many entries of the node are done with. */
  #mergeEntry(node: Node, index: number): 0 | 1 {
    const order = this.#edit === undefined ? -1 : node.compareKey(index, this.#edit.key)
    if (order < 0) {
      this.#keepEntry(node, index)
      return 1
    }
    this.#applyEdit()
    return order === 0 ? 1 : 0
  }

  /** Whether the next edit lies before the node that the cursor has moved on to. */
  #isNextEditHere(): boolean {
    if (this.#edit === undefined) return false
    return this.#cursor.ended || this.#cursor.compareFirstKey(this.#edit.key) > 0
  }

  #keepEntry(node: Node, index: number): void {
    if (this.#builder.cutsBefore(node.end(index) - node.start(index))) this.#closeNode()
    if (index === 0 && this.#builder.count === 0) this.#origin = node
    if (this.#builder.copy(node, index)) this.#closeNode()
  }

  #applyEdit(): void {
    const { key, value } = this.#edit as Edit
    if (value !== null) {
      if (this.#builder.cutsBefore(entryBytesOf(key, value))) this.#closeNode()
      // An edit may set what was there already, so the node may still come out as an old one.
      if (this.#builder.count === 0) this.#origin = this.#replacedNodeAt(key)
      if (this.#builder.add(key, value)) this.#closeNode()
    }
    this.#nextEdit()
  }

  #replacedNodeAt(key: Buffer): Node | undefined {
    const last = this.#replaced.at(-1)
    return last?.key.equals(key) ? this.#nodes.load(last.address) : undefined
  }

  #nextEdit(): void {
    const before = this.#edit
    const { value: edit, done } = this.#edits.next()
    this.#edit = done ? undefined : edit
    if (before === undefined || this.#edit === undefined) return
    assert(compareKeys(before.key, this.#edit.key) < 0, 'edits ascend strictly by key')
  }

  /** Ends the node being built, if there is one. A node equal to the old one there is not stored again. */
  #closeNode(): void {
    if (this.#builder.count === 0) return
    const key = this.#builder.firstKey()
    const bytes = this.#builder.finish()
    const origin = this.#origin
    this.#origin = undefined
    if (origin?.bytes.equals(bytes)) {
      this.#written.push({ key, address: origin.address })
      return
    }
    this.#nodesPut++
    this.#written.push({ key, address: this.#nodes.put(bytes) })
  }

  #isSliceDone(): boolean {
    if (++this.#entriesMerged < sliceEntries && this.#nodesPut < sliceNodesWritten) return false
    this.#entriesMerged = 0
    this.#nodesPut = 0
    return true
  }

  #finish(): LevelResult {
    if (this.#isWhole && this.#written.length === 0) {
      if (this.#builder.count === 0) return { kind: 'root', root: null }
      if (this.#level > 0 && this.#builder.count === 1) return this.#collapse()
    }
    this.#closeNode()
    if (isSame(this.#replaced, this.#written)) return { kind: 'unchanged' }
    if (!this.#isWhole) return { kind: 'edits', base: this.#base, edits: difference(this.#replaced, this.#written) }
    const [first] = this.#written
    if (first !== undefined && this.#written.length === 1) return { kind: 'root', root: first.address }
    return { kind: 'edits', base: null, edits: difference([], this.#written) }
  }

  /** An inner node with one child is no root: the child is, or the first below it that branches. */
  #collapse(): LevelResult {
    let address = addressAt(this.#builder.lastValue(), 0)
    for (;;) {
      const node = this.#nodes.load(address)
      if (node.level === 0 || node.count > 1) return { kind: 'root', root: address }
      address = node.child(0)
    }
  }
}

/** The key is copied: a view of it would keep the whole node in memory until the level above is done. */
function separatorOf(node: Node): Separator {
  return { key: Buffer.from(node.key(0)), address: node.address }
}

function isSame(a: Separator[], b: Separator[]): boolean {
  return a.length === b.length && a.every((separator, i) => separator.address === b[i]?.address)
}

/** The edits that turn some separators into others; both ascend by key. */
function* difference(before: Separator[], after: Separator[]): Generator<Edit, void> {
  let i = 0
  for (const { key, address } of after) {
    let old = before[i]
    for (; old !== undefined && compareKeys(old.key, key) < 0; old = before[++i]) yield { key: old.key, value: null }
    const isReplaced = old?.key.equals(key)
    if (isReplaced) i++
    if (!isReplaced || old?.address !== address) yield { key, value: Buffer.from(address, 'latin1') }
  }
  for (; i < before.length; i++) yield { key: (before[i] as Separator).key, value: null }
}
