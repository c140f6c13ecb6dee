/**
 * One node of a tree, and its bytes. All numbers are little endian.
 *
 *     offset  size   field
 *     0       2      magic, "nt" (6e 74)
 *     2       1      version, 1
 *     3       1      level: 0 is a leaf, a child is one below its parent
 *     4       4      count of entries, at least 1
 *     8       4 × n  for each entry the offset behind its last byte, from the start of the node;
 *                    the last one is the length of the node
 *     8 + 4n         the entries, without gaps, keys strictly ascending
 *
 *     an entry:
 *     0       2      length of the key, k
 *     2       k      key
 *     2 + k          value, up to the next entry or the end of the node
 *
 * In a leaf, key and value are those of the map. Above, the key is the first key of the child's
 * subtree and the value is the child's address, 32 bytes of SHA-256. The empty map has no node.
 */
import { ADDRESS_BYTES, type Address, addressAt, toHex } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import { headerBytes, slotBytes } from './chunker.ts'
import { compareRanges } from './compare.ts'

/** Where nodes are kept. */
export interface NodeStore {
  /** The bytes of a node, checked against its address; throws NEXUS_CORRUPT if there are none. */
  get(address: Address): Buffer
  /** Keeps the bytes, which nobody changes afterwards. */
  put(bytes: Buffer): Address
}

export const nodeMagic = 0x746e
export const nodeVersion = 1
/** the length of a key has two bytes */
export const keyBytesMax = 0xffff
/** the length of a key comes before it */
export const keyHeaderBytes = 2

/** A node read in place: looking something up allocates nothing and decodes only what it passes. */
export class Node {
  readonly address: Address
  readonly bytes: Buffer
  readonly level: number
  readonly count: number
  /** set at each use, for the cache's clock */
  isUsed = false
  /** Addresses once made are kept: the same string object is found in a Map without hashing it again. */
  readonly #children: (Address | undefined)[] = []

  /** @param bytes a valid encoding: from `decodeNode`, or just encoded */
  constructor(address: Address, bytes: Buffer) {
    this.address = address
    this.bytes = bytes
    this.level = bytes[3] as number
    this.count = bytes.readUInt32LE(4)
  }

  /** Offset of an entry's first byte. */
  start(index: number): number {
    return index === 0 ? headerBytes + slotBytes * this.count : this.end(index - 1)
  }

  /** Offset behind an entry's last byte. */
  end(index: number): number {
    return u32At(this.bytes, headerBytes + slotBytes * index)
  }

  /** Offset behind the key of the entry that starts there. */
  keyEnd(start: number): number {
    return start + keyHeaderBytes + u16At(this.bytes, start)
  }

  /** A view of the key: not to be modified, and it keeps the whole node in memory. */
  key(index: number): Buffer {
    const start = this.start(index)
    return this.bytes.subarray(start + keyHeaderBytes, this.keyEnd(start))
  }

  /** A view of the value, as `key`. */
  value(index: number): Buffer {
    return this.bytes.subarray(this.keyEnd(this.start(index)), this.end(index))
  }

  /** The address of a child; only above the leaves. */
  child(index: number): Address {
    let address = this.#children[index]
    if (address === undefined) {
      address = addressAt(this.bytes, this.end(index) - ADDRESS_BYTES)
      this.#children[index] = address
    }
    return address
  }

  /** The order of an entry's key and the given one: negative when the entry's comes first. */
  compareKey(index: number, key: Buffer): -1 | 0 | 1 {
    const start = this.start(index)
    return compareRanges(this.bytes, start + keyHeaderBytes, this.keyEnd(start), key, 0, key.length)
  }

  /** How many entries have keys below the given one: the index of the first that has not. */
  countBelow(key: Buffer): number {
    return this.#countWhere(key, 0)
  }

  /** How many entries have keys below or equal to the given one. */
  countUpTo(key: Buffer): number {
    return this.#countWhere(key, 1)
  }

  /** The child in whose subtree the key is, if it is in the tree. */
  childFor(key: Buffer): number {
    return Math.max(0, this.countUpTo(key) - 1)
  }

  /** The child in whose subtree the last key below the given one is; the first when there is none. */
  childBefore(key: Buffer): number {
    return Math.max(0, this.countBelow(key) - 1)
  }

  /** Binary search for the number of entries whose comparison with the key is below the limit. */
  #countWhere(key: Buffer, limit: 0 | 1): number {
    let low = 0
    let high = this.count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.compareKey(middle, key) < limit) low = middle + 1
      else high = middle
    }
    return low
  }
}

// Buffer's own readers check their arguments each time, which costs a third of a lookup. Here the
// offsets are known to lie inside, once the count is checked against the length.

function u16At(bytes: Buffer, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8)
}

function u32At(bytes: Buffer, at: number): number {
  return (u16At(bytes, at) | (u16At(bytes, at + 2) << 16)) >>> 0
}

/**
 * A node from stored bytes. Everything is checked here, once, so that no later access can leave the
 * buffer or search in vain.
 * @throws NEXUS_CORRUPT for bytes that are no node, NEXUS_TOO_NEW for a later version of the format
 */
export function decodeNode(address: Address, bytes: Buffer): Node {
  const damage = damageOfHeader(bytes)
  if (damage !== undefined) throw corruptNode(address, damage)
  const version = bytes[2] as number
  if (version > nodeVersion) {
    throw new NexusError('NEXUS_TOO_NEW', `tree node ${toHex(address)} has format version ${version}: use a newer nexusd`)
  }
  const node = new Node(address, bytes)
  const entryDamage = damageOfEntries(node)
  if (entryDamage !== undefined) throw corruptNode(address, entryDamage)
  return node
}

/** The error for a node that is not what was written. */
export function corruptNode(address: Address, damage: string): NexusError {
  return new NexusError('NEXUS_CORRUPT', `tree node ${toHex(address)} is damaged: ${damage}`)
}

function damageOfHeader(bytes: Buffer): string | undefined {
  if (bytes.length < headerBytes) return 'shorter than its header'
  if (bytes.readUInt16LE(0) !== nodeMagic) return 'not a tree node'
  if (bytes[2] === 0) return 'version 0'
  return undefined
}

function damageOfEntries(node: Node): string | undefined {
  if (node.count === 0) return 'no entries'
  const tableEnd = headerBytes + slotBytes * node.count
  if (tableEnd > node.bytes.length) return 'offset table beyond the end'
  if (node.end(node.count - 1) !== node.bytes.length) return 'wrong length'
  for (let i = 0; i < node.count; i++) {
    const damage = damageOfEntry(node, i)
    if (damage !== undefined) return `${damage} in entry ${i}`
  }
  return undefined
}

/** Expects that the entries before are sound. */
function damageOfEntry(node: Node, index: number): string | undefined {
  const start = node.start(index)
  const end = node.end(index)
  if (end > node.bytes.length || start + keyHeaderBytes > end) return 'offset out of order'
  const keyEnd = node.keyEnd(start)
  if (keyEnd > end) return 'key too long'
  if (node.level > 0 && end - keyEnd !== ADDRESS_BYTES) return 'address of wrong length'
  if (index === 0) return undefined
  const before = node.start(index - 1)
  const order = compareRanges(
    node.bytes,
    before + keyHeaderBytes,
    node.keyEnd(before),
    node.bytes,
    start + keyHeaderBytes,
    keyEnd,
  )
  return order < 0 ? undefined : 'keys out of order'
}
