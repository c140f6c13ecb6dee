/** Gathers entries until a node is complete, and encodes it (the format is in node.ts). */
import { assert } from '../errors.ts'
import { Chunker, headerBytes, type Shape, slotBytes } from './chunker.ts'
import { keyBytesMax, keyHeaderBytes, type Node, nodeMagic, nodeVersion } from './node.ts'

export class NodeBuilder {
  readonly #shape: Shape
  #level = 0
  #chunker: Chunker
  /** entries as they are encoded, one behind the other */
  #body: Buffer
  #bodyBytes = 0
  /** where each entry starts in `#body` */
  readonly #starts: number[] = []

  constructor(shape: Shape) {
    this.#shape = shape
    this.#chunker = new Chunker(shape, 0)
    this.#body = Buffer.allocUnsafeSlow(shape.bytesMax)
  }

  /** Goes on with nodes of another level; the builder is empty. */
  startLevel(level: number): void {
    this.#level = level
    this.#chunker = new Chunker(this.#shape, level)
  }

  get count(): number {
    return this.#starts.length
  }

  /** Whether an entry of that many encoded bytes has to start the next node. */
  cutsBefore(entryBytes: number): boolean {
    return this.#chunker.cutsBefore(entryBytes)
  }

  /**
   * Adds an entry.
   * @returns whether the node is complete
   */
  add(key: Buffer, value: Buffer): boolean {
    const keyEnd = keyHeaderBytes + key.length
    const at = this.#reserve(keyEnd + value.length)
    this.#body.writeUInt16LE(key.length, at)
    this.#body.set(key, at + keyHeaderBytes)
    this.#body.set(value, at + keyEnd)
    return this.#count(at, at + keyEnd)
  }

  /**
   * Adds an entry of another node.
   * @returns whether the node is complete
   */
  copy(node: Node, index: number): boolean {
    const start = node.start(index)
    const end = node.end(index)
    const at = this.#reserve(end - start)
    node.bytes.copy(this.#body, at, start, end)
    return this.#count(at, at + node.keyEnd(start) - start)
  }

  /** A copy of the first entry's key; the builder is not empty. */
  firstKey(): Buffer {
    return Buffer.from(this.#body.subarray(keyHeaderBytes, keyHeaderBytes + this.#body.readUInt16LE(0)))
  }

  /** A view of the last entry's value, valid until the next change. */
  lastValue(): Buffer {
    const start = this.#starts.at(-1) ?? 0
    const keyEnd = start + keyHeaderBytes + this.#body.readUInt16LE(start)
    return this.#body.subarray(keyEnd, this.#bodyBytes)
  }

  /** The bytes of the node; the builder is then empty again. */
  finish(): Buffer {
    const tableEnd = headerBytes + slotBytes * this.count
    // Not from Buffer's pool: a node lives long, and would keep its neighbours in the pool alive.
    const bytes = Buffer.allocUnsafeSlow(tableEnd + this.#bodyBytes)
    bytes.writeUInt16LE(nodeMagic, 0)
    bytes[2] = nodeVersion
    bytes[3] = this.#level
    bytes.writeUInt32LE(this.count, 4)
    for (let i = 0; i < this.count; i++) {
      const end = this.#starts[i + 1] ?? this.#bodyBytes
      bytes.writeUInt32LE(tableEnd + end, headerBytes + slotBytes * i)
    }
    this.#body.copy(bytes, tableEnd, 0, this.#bodyBytes)
    this.#reset()
    return bytes
  }

  #count(start: number, keyEnd: number): boolean {
    return this.#chunker.add(this.#bodyBytes - start, this.#body, start + keyHeaderBytes, keyEnd)
  }

  #reserve(entryBytes: number): number {
    const at = this.#bodyBytes
    if (at + entryBytes > this.#body.length) this.#grow(at + entryBytes)
    this.#bodyBytes = at + entryBytes
    this.#starts.push(at)
    return at
  }

  #grow(bytesMin: number): void {
    const body = Buffer.allocUnsafeSlow(2 * bytesMin)
    this.#body.copy(body)
    this.#body = body
  }

  #reset(): void {
    this.#bodyBytes = 0
    this.#starts.length = 0
    this.#chunker.reset()
  }
}

/** Bytes that an entry will take, without its slot in the offset table. */
export function entryBytesOf(key: Buffer, value: Buffer): number {
  assert(key.length <= keyBytesMax, `a key has at most ${keyBytesMax} bytes`)
  return keyHeaderBytes + key.length + value.length
}
