/**
 * The content store: tree nodes and chunks by their SHA-256, each stored once.
 *
 * Bytes are in the log; this keeps where. New places are held in memory (`pending`) until a
 * checkpoint hands them to LevelDB; after a crash, the replay of the log finds them again.
 */
import { ByteReader, ByteWriter } from '../bytes.ts'
import { NexusError, systemCode } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import type { Log, Span } from '../journal/log.ts'
import { RecordType } from '../journal/record.ts'
import type { LogRecord } from '../journal/replay.ts'
import { ADDRESS_BYTES, type Address, addressAt, addressOf, writeAddress } from './address.ts'
import { areIntact, sumsOf } from './blocks.ts'
import type { Index, IndexEntry } from './index.ts'
import { chunkKey, DOMAIN_MAX, type Key, nodeKey } from './keys.ts'
import {
  damaged,
  decodeLocation,
  encodeLocation,
  type Location,
  missing,
  readContent,
  readCountedLocation,
  writeCountedLocation,
} from './location.ts'
import { NodesAhead } from './readahead.ts'
import { ChunkReader, type WantedChunk } from './reader.ts'

export interface StoreOptions {
  /** seeds the checksums */
  store: bigint
  /** memory for chunks of which only a part was read */
  chunkCacheBytesMax: number
}

/** A chunk that was cut from data in the log. */
export interface SealedChunk {
  address: Address
  location: Location
}

/** Something in the store, as the collector sees it. */
export interface StoredContent {
  key: Buffer
  /** undefined for a tree node */
  domain: number | undefined
  address: Address
  location: Location
}

/** Told of every node (no domain) and chunk that is stored, or was there when it was to be stored. */
export type Witness = (address: Address, domain: number | undefined) => void

const BATCH_ENTRIES_MAX = 1000
const NODE_PREFIX = 'n'.charCodeAt(0)

export class ContentStore {
  readonly #log: Log
  readonly #index: Index
  readonly #options: StoreOptions
  readonly #chunks: ChunkReader
  readonly #nodes: NodesAhead
  #pending = new Map<Key, Buffer>()
  #flushing: Map<Key, Buffer> | undefined
  /** what the collector found dead: as good as gone, until `writeForgotten` or a flush takes it out of the index */
  #forgotten = new Set<Key>()
  #witness: Witness | undefined
  /** known to be damaged: who stores the same again stores it anew, and so heals whoever refers to it */
  readonly #rotten = new Set<Key>()

  constructor(log: Log, index: Index, options: StoreOptions) {
    this.#log = log
    this.#index = index
    this.#options = options
    this.#nodes = new NodesAhead((segment, offset, length) => log.willNeed(segment, offset, length))
    this.#chunks = new ChunkReader(log, {
      ...options,
      locate: (key) => this.#locate(key),
      onDamage: (key) => void this.#rotten.add(key),
    })
  }

  /**
   * The tree node with this address.
   * @throws NexusError NEXUS_CORRUPT when it is missing or not what was stored
   */
  get(address: Address): Buffer {
    const key = nodeKey(address)
    const location = this.#locate(key)
    if (location === undefined) throw missing('tree node', address)
    const [part] = location.parts
    if (part !== undefined) this.#nodes.reading(part)
    return this.#noting(key, () => {
      const bytes = this.#read(location)
      if (addressOf(bytes) !== address) throw damaged('tree node', address, location)
      return bytes
    })
  }

  /** From now on `witness` hears of what somebody refers to anew; one at a time, undefined for none. */
  watch(witness: Witness | undefined): void {
    this.#witness = witness
  }

  /** Stores a tree node, unless it is there already. */
  put(bytes: Buffer): Address {
    const address = addressOf(bytes)
    this.#witness?.(address, undefined)
    const key = nodeKey(address)
    if (this.#isStored(key)) return address
    const meta = Buffer.allocUnsafe(ADDRESS_BYTES)
    writeAddress(meta, address, 0)
    const span = this.#log.append(RecordType.node, bytes, meta)
    this.#place(key, this.#nodeAt(span, bytes))
    return address
  }

  hasChunk(domain: number, address: Address): boolean {
    return this.#locate(chunkKey(domain, address)) !== undefined
  }

  /** Stores a chunk whose bytes do not lie in the log in few enough parts. */
  putChunk(domain: number, address: Address, bytes: Buffer): void {
    this.#witness?.(address, domain)
    const key = chunkKey(domain, address)
    if (this.#isStored(key)) return
    const span = this.#log.append(RecordType.chunk, bytes, new ByteWriter(40).varint(domain).fixed(address).view())
    this.#place(key, this.#chunkAt(span, bytes))
  }

  /** Records where chunks lie in data that is in the log already; those that are known are skipped. */
  addChunks(domain: number, chunks: readonly SealedChunk[]): void {
    for (const { address } of chunks) this.#witness?.(address, domain)
    const fresh = chunks.filter((chunk) => !this.#isStored(chunkKey(domain, chunk.address)))
    if (fresh.length === 0) return
    const meta = new ByteWriter(16 + fresh.length * 96).varint(domain)
    for (const { address, location } of fresh) writeCountedLocation(meta.fixed(address), location)
    // First the log: a place that only memory knows would be taken for stored, and be lost in a crash.
    this.#log.append(RecordType.sealed, Buffer.alloc(0), meta.view())
    for (const { address, location } of fresh) this.#place(chunkKey(domain, address), location)
  }

  /**
   * Fills `into` with chunks, and parts of some, all of them checked.
   * @throws NexusError NEXUS_CORRUPT when one is missing or not what was stored
   */
  readChunks(domain: number, wanted: readonly WantedChunk[], into: Buffer): void {
    this.#chunks.read(domain, wanted, into)
  }

  /**
   * Reads a chunk, or a tree node (without a domain), from the disk and checks it against its address and its checksum.
   * @returns its bytes when it is what was stored, 0 when it is not; undefined when it is not known any more
   */
  inspect(domain: number | undefined, address: Address): number | undefined {
    const key = domain === undefined ? nodeKey(address) : chunkKey(domain, address)
    const location = this.#locate(key)
    if (location === undefined) return undefined
    try {
      const bytes = this.#read(location)
      if (this.#isIntact(bytes, location) && addressOf(bytes) === address) return bytes.length
    } catch (error) {
      const isRot = error instanceof NexusError ? error.code === 'NEXUS_CORRUPT' : systemCode(error) === 'EIO'
      if (!isRot) throw error
    }
    this.#rotten.add(key)
    // What was read before it went bad is not to hide it.
    this.#chunks.forget(key)
    return 0
  }

  /** How often a chunk was in memory when a part of it was read, and how often the log was read for it. */
  get chunkCacheUse(): { hits: number; misses: number } {
    return this.#chunks.use
  }

  /** Everything that the index knows at this moment: not what is pending, nor what is stored later. */
  async *contents(): AsyncGenerator<StoredContent> {
    for (const prefix of ['n', 'c']) {
      for await (const [key, value] of this.#index.entries(Buffer.from(prefix))) yield contentOf(key, value)
    }
  }

  /** The same at any time; what is being written to the index may come twice. */
  async *everything(): AsyncGenerator<StoredContent> {
    for (const places of [this.#pending, this.#flushing ?? new Map<Key, Buffer>()]) {
      for (const [key, value] of places) yield contentOf(Buffer.from(key, 'latin1'), value)
    }
    yield* this.contents()
  }

  /** Where a chunk lies, or a tree node (without a domain); undefined when nobody knows. */
  locate(domain: number | undefined, address: Address): Location | undefined {
    return this.#locate(domain === undefined ? nodeKey(address) : chunkKey(domain, address))
  }

  /**
   * From now on it is not there: who stores the same stores it again. No checkpoint may lead to what needs it.
   * `writeForgotten` takes it out of the index.
   */
  forget({ key }: StoredContent): void {
    const name = key.toString('latin1')
    this.#forgotten.add(name)
    this.#chunks.forget(name)
  }

  /** Number of those that are still in the index. */
  get forgottenCount(): number {
    return this.#forgotten.size
  }

  /** Copies it to the end of the log; the next flush makes that its place. @returns bytes copied */
  move({ key, domain, address, location }: StoredContent): number {
    const bytes = this.#read(location)
    if (xxh64(bytes, this.#options.store) !== location.xxh) throw damaged('content', address, location)
    const meta = new ByteWriter(40)
    if (domain !== undefined) meta.varint(domain)
    const span = this.#log.append(domain === undefined ? RecordType.node : RecordType.chunk, bytes, meta.fixed(address).view())
    // What was stored before there were sums of blocks has them from now on.
    const sums = location.sums ?? (domain === undefined ? undefined : sumsOf(bytes, this.#options.store))
    this.#place(key.toString('latin1'), { ...location, parts: [span], sums })
    return bytes.length
  }

  /**
   * Says again where the chunks of a `sealed` record lie, for a rebuild of the index: the record
   * goes with its segment, though chunks that it names stay.
   * @param sealed meta of the record
   * @param gone segments that go
   */
  sealAgain(sealed: Buffer, gone: ReadonlySet<number>): void {
    const input = new ByteReader(sealed)
    const domain = input.varint()
    const meta = new ByteWriter().varint(domain)
    const empty = meta.length
    while (!input.done) {
      const address = input.fixed(ADDRESS_BYTES) as Address
      readCountedLocation(input)
      const location = this.#locate(chunkKey(domain, address))
      if (location === undefined || location.parts.some((part) => gone.has(part.segment))) continue
      writeCountedLocation(meta.fixed(address), location)
    }
    if (meta.length > empty) this.#log.append(RecordType.sealed, Buffer.alloc(0), meta.view())
  }

  /**
   * Takes in a record of the log during recovery.
   * @param segments that are there: places elsewhere are of chunks that were dead or have moved
   */
  adopt(record: LogRecord, segments: { has(segment: number): boolean }): void {
    const input = new ByteReader(record.meta)
    const readDomain = (): number => input.varint(DOMAIN_MAX)
    const span = { segment: record.segment, offset: record.offset, length: record.data.length }
    if (record.type === RecordType.node) {
      this.#pending.set(nodeKey(input.fixed(ADDRESS_BYTES) as Address), encodeLocation(this.#nodeAt(span, record.data)))
    } else if (record.type === RecordType.chunk) {
      const key = chunkKey(readDomain(), input.fixed(ADDRESS_BYTES) as Address)
      this.#pending.set(key, encodeLocation(this.#chunkAt(span, record.data)))
    } else if (record.type === RecordType.sealed) {
      const domain = readDomain()
      while (!input.done) {
        const address = input.fixed(ADDRESS_BYTES) as Address
        const location = readCountedLocation(input)
        if (location.parts.every((part) => segments.has(part.segment))) this.#place(chunkKey(domain, address), location)
      }
    }
  }

  /**
   * Stores the log safely, hands what is pending to the index, and then `more`, all or none of it. What becomes pending
   * meanwhile lies behind what was stored: the index must not lead to it before the next time.
   * @param more asked for when the log is stored
   */
  async flush(more: () => readonly IndexEntry[] = () => []): Promise<void> {
    this.#flushing = this.#pending
    this.#pending = new Map()
    try {
      this.#log.beginFormat()
      await this.#log.sync()
      let batch: IndexEntry[] = []
      for (const [key, value] of this.#flushing) {
        batch.push({ key: Buffer.from(key, 'latin1'), value })
        if (batch.length < BATCH_ENTRIES_MAX) continue
        await this.#index.write(batch)
        batch = []
      }
      if (batch.length > 0) await this.#index.write(batch)
      const last = more()
      if (last.length > 0) await this.#index.write(last)
      await this.writeForgotten()
    } catch (error) {
      for (const [key, value] of this.#pending) this.#flushing.set(key, value)
      this.#pending = this.#flushing
      throw error
    } finally {
      this.#flushing = undefined
    }
  }

  /** Takes what was forgotten out of the index; in the turn of merges and checkpoints, as every write to it. */
  async writeForgotten(): Promise<void> {
    const keys = [...this.#forgotten]
    for (let at = 0; at < keys.length; at += BATCH_ENTRIES_MAX) {
      const batch = keys.slice(at, at + BATCH_ENTRIES_MAX)
      await this.#index.write(batch.map((key) => ({ key: Buffer.from(key, 'latin1'), value: null })))
      for (const key of batch) this.#forgotten.delete(key)
    }
  }

  /** Number of places not yet handed to the index. */
  get pendingCount(): number {
    return this.#pending.size
  }

  #locate(key: Key): Location | undefined {
    const value = this.#pending.get(key) ?? this.#flushing?.get(key) ?? this.#indexed(key)
    return value === undefined ? undefined : decodeLocation(value)
  }

  #indexed(key: Key): Buffer | undefined {
    return this.#forgotten.has(key) ? undefined : this.#index.get(Buffer.from(key, 'latin1'))
  }

  #isStored(key: Key): boolean {
    return !this.#rotten.has(key) && this.#locate(key) !== undefined
  }

  /** A read that fails tells that what is stored there is damaged. */
  #noting(key: Key, read: () => Buffer): Buffer {
    try {
      return read()
    } catch (error) {
      this.#rotten.add(key)
      throw error
    }
  }

  /** Where something lies from now on. */
  #place(key: Key, location: Location): void {
    this.#rotten.delete(key)
    this.#pending.set(key, encodeLocation(location))
    this.#forgotten.delete(key)
  }

  #nodeAt(span: Span, bytes: Buffer): Location {
    return { length: bytes.length, xxh: xxh64(bytes, this.#options.store), parts: [span] }
  }

  #chunkAt(span: Span, bytes: Buffer): Location {
    return { ...this.#nodeAt(span, bytes), sums: sumsOf(bytes, this.#options.store) }
  }

  #isIntact(bytes: Buffer, { xxh, sums }: Location): boolean {
    const { store } = this.#options
    return xxh64(bytes, store) === xxh && (sums === undefined || areIntact(bytes, 0, sums, store))
  }

  #read(location: Location): Buffer {
    return readContent(this.#log, location, Buffer.allocUnsafeSlow(location.length), 0)
  }
}

function contentOf(key: Buffer, value: Buffer): StoredContent {
  const domain = key[0] === NODE_PREFIX ? undefined : key.readUInt32BE(1)
  return { key, domain, address: addressAt(key, key.length - ADDRESS_BYTES), location: decodeLocation(value) }
}
