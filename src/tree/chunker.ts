/**
 * Where one node ends and the next begins.
 *
 * The decision looks at nothing but the entries since the node's start and the one that comes next.
 * That makes the shape of a tree a function of its content, and lets an edit stop re-chunking as
 * soon as one of its boundaries coincides with an old one.
 *
 * The idea is Noms' "prolly tree", with minimum, maximum and a chance in proportion to an entry's
 * size. The hash has no secret: keys chosen to avoid or to force boundaries only reach the limits.
 */

/** The limits of a node, in bytes of its encoding. They belong to the format: other limits, other roots. */
export interface Shape {
  /** no boundary below */
  readonly bytesMin: number
  /** bytes past the minimum after which a boundary is to be expected */
  readonly bytesSpread: number
  /** never exceeded, except by a node that cannot be smaller: one entry, or two children */
  readonly bytesMax: number
}

/** Nodes of 2 to 16 KiB, 7 KiB in the mean. */
export const standardShape: Shape = { bytesMin: 2048, bytesSpread: 5632, bytesMax: 16384 }

/** magic, version, level, count */
export const headerBytes = 8
/** one slot of the offset table */
export const slotBytes = 4

/** Follows the size of a node while entries are added to it, and says where it ends. */
export class Chunker {
  readonly #shape: Shape
  readonly #level: number
  readonly #countMin: number
  #bytes = headerBytes
  #count = 0

  constructor(shape: Shape, level: number) {
    this.#shape = shape
    this.#level = level
    // A level of nodes with one child each would be as long as the level below, and the tree endless.
    this.#countMin = level === 0 ? 1 : 2
  }

  get count(): number {
    return this.#count
  }

  reset(): void {
    this.#bytes = headerBytes
    this.#count = 0
  }

  /** Whether an entry of that many encoded bytes has to start a new node. */
  cutsBefore(entryBytes: number): boolean {
    return this.#count >= this.#countMin && this.#bytes + slotBytes + entryBytes > this.#shape.bytesMax
  }

  /**
   * Counts an entry in. Its key is `bytes[keyStart, keyEnd)`.
   * @returns whether the node ends after it
   */
  add(entryBytes: number, bytes: Uint8Array, keyStart: number, keyEnd: number): boolean {
    const cost = slotBytes + entryBytes
    this.#bytes += cost
    this.#count++
    if (this.#bytes < this.#shape.bytesMin || this.#count < this.#countMin) return false
    const threshold = (cost / this.#shape.bytesSpread) * 2 ** 32
    return hashKey(bytes, keyStart, keyEnd, this.#level) < threshold
  }
}

/**
 * 32 bits of hash: FNV-1a (Fowler, Noll, Vo), finished with fmix32 of MurmurHash3 (Appleby) because
 * FNV hardly carries the last bytes into the high bits. Seeded by level, so that a key that ended a
 * leaf does not end the node above it too.
 */
export function hashKey(bytes: Uint8Array, start: number, end: number, level: number): number {
  let hash = 0x811c9dc5 ^ Math.imul(level, 0x9e3779b1)
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
