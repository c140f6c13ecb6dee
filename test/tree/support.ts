/** What the tests of src/tree share: a store that counts, a model, and small nodes for tall trees. */
import { type Address, addressOf, toHex } from '../../src/cas/address.ts'
import { NexusError } from '../../src/errors.ts'
import type { Shape } from '../../src/tree/chunker.ts'
import type { NodeStore } from '../../src/tree/node.ts'
import { type Edit, Tree } from '../../src/tree/tree.ts'

/** Nodes of a handful of entries. */
export const smallShape: Shape = { bytesMin: 64, bytesSpread: 128, bytesMax: 320 }

export class MemoryStore implements NodeStore {
  readonly nodes = new Map<Address, Buffer>()
  reads = 0
  puts = 0

  get(address: Address): Buffer {
    this.reads++
    const bytes = this.nodes.get(address)
    if (bytes === undefined) throw new NexusError('NEXUS_CORRUPT', `no node ${toHex(address)}`)
    return bytes
  }

  put(bytes: Buffer): Address {
    this.puts++
    const address = addressOf(bytes)
    this.nodes.set(address, bytes)
    return address
  }

  resetCounts(): void {
    this.reads = 0
    this.puts = 0
  }
}

/** A map kept in the obvious way: key in latin1 (whose order is that of the bytes) to value. */
export type Model = ReadonlyMap<string, string>

export function applyToModel(model: Model, edits: Edit[]): Model {
  const next = new Map(model)
  for (const { key, value } of edits) {
    if (value === null) next.delete(key.toString('latin1'))
    else next.set(key.toString('latin1'), value.toString('latin1'))
  }
  return next
}

export function entriesOf(model: Model): [string, string][] {
  return [...model].sort(([a], [b]) => (a < b ? -1 : 1))
}

export function scanToStrings(tree: Tree, root: Address | null, from = '', to?: string): [string, string][] {
  const entries = tree.scan(root, bytesOf(from), to === undefined ? undefined : bytesOf(to))
  return Array.from(entries, ([key, value]) => [key.toString('latin1'), value.toString('latin1')])
}

/** The root that a build in an empty store comes to. */
export function rootFromScratch(model: Model, shape: Shape): Address | null {
  const tree = new Tree(new MemoryStore(), { cacheBytesMax: 1 << 20, shape })
  return tree.editNow(
    null,
    entriesOf(model).map(([key, value]) => edit(key, value)),
  )
}

export function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

export function edit(key: string, value: string | null): Edit {
  return { key: bytesOf(key), value: value === null ? null : bytesOf(value) }
}

/** Sorted, the last edit of a key winning. */
export function sortEdits(edits: Edit[]): Edit[] {
  const byKey = new Map(edits.map((each) => [each.key.toString('latin1'), each]))
  return [...byKey.values()].sort((a, b) => Buffer.compare(a.key, b.key))
}

/** 11 bytes as of a directory entry: 8 of them equal for 16 neighbours. */
export function numberedKey(n: number): Buffer {
  const key = Buffer.alloc(11)
  key.writeUInt32BE(Math.floor(n / 16), 4)
  key[8] = n % 16
  key.writeUInt16BE(Math.imul(n, 40503) & 0xffff, 9)
  return key
}

/** 80 bytes that depend on both numbers. */
export function numberedValue(n: number, generation = 0): Buffer {
  const value = Buffer.alloc(80, n & 0xff)
  value.writeUInt32LE(n, 0)
  value.writeUInt32LE(generation, 4)
  return value
}

export function* numberedEdits(count: number): Iterable<Edit> {
  for (let n = 0; n < count; n++) yield { key: numberedKey(n), value: numberedValue(n) }
}
