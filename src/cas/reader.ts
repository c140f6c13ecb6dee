/** Reading chunks, and parts of them, out of the log: nothing leaves here that was not checked. */
import { NexusError } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import type { Log, Span } from '../journal/log.ts'
import type { Address } from './address.ts'
import { areIntact, BLOCK_BYTES, blocksAround } from './blocks.ts'
import { chunkKey, type Key } from './keys.ts'
import { damaged, type Location, missing, readContent } from './location.ts'
import { RecentChunks } from './recent.ts'

/** A part of a chunk, and where it goes. */
export interface WantedChunk {
  address: Address
  /** within the chunk */
  offset: number
  length: number
  /** in the buffer that is filled */
  at: number
}

interface FoundChunk extends WantedChunk {
  key: Key
  location: Location
}

export interface ChunkReaderOptions {
  /** seeds the checksums */
  store: bigint
  /** memory for chunks of which only a part was read */
  chunkCacheBytesMax: number
  locate(key: Key): Location | undefined
  /** told of a chunk that is not what was stored, or cannot be read */
  onDamage(key: Key): void
}

/** Who reads so much at once goes on behind it: the disk may begin. */
const READ_AHEAD_BYTES = 1024 * 1024
const READ_AHEAD_FROM_BYTES = 256 * 1024
/** Who asks for more at once reads on, and soon wants the rest of the chunks that he began with and ended with. */
const SMALL_BYTES_MAX = 32 * 1024
/** A part is small when it is at most this share of its chunk: of half of one, the blocks around it would be most. */
const SMALL_SHARE = 1 / 4

export class ChunkReader {
  readonly #log: Log
  readonly #options: ChunkReaderOptions
  readonly #recent: RecentChunks
  /** for blocks, of which only a part goes to who asked */
  readonly #blocks = Buffer.allocUnsafeSlow(SMALL_BYTES_MAX + 2 * BLOCK_BYTES)
  #hits = 0
  #misses = 0

  constructor(log: Log, options: ChunkReaderOptions) {
    this.#log = log
    this.#options = options
    this.#recent = new RecentChunks(options.chunkCacheBytesMax)
  }

  /** How often a chunk was in memory when a part of it was read, and how often the log was read for it. */
  get use(): { hits: number; misses: number } {
    return { hits: this.#hits, misses: this.#misses }
  }

  /** What was read of a chunk is not to hide what became of it. */
  forget(key: Key): void {
    this.#recent.delete(key)
  }

  /**
   * Fills `into` with chunks, and parts of some; each chunk is verified as a whole, but of one of which little is wanted the
   * blocks that hold it. Chunks that lie behind one another are read at once.
   * @throws NexusError NEXUS_CORRUPT when one is missing or not what was stored
   */
  read(domain: number, wanted: readonly WantedChunk[], into: Buffer): void {
    const whole: FoundChunk[] = []
    let isSmall = wanted.reduce((sum, { length }) => sum + length, 0) <= SMALL_BYTES_MAX
    for (const part of wanted) {
      const key = chunkKey(domain, part.address)
      const kept = this.#recent.get(key)
      if (kept !== undefined) {
        this.#hits++
        copyPart(kept, part, into)
        // Who comes from a chunk of which he read much goes on in the next.
        isSmall = false
        continue
      }
      this.#misses++
      const chunk = this.#find(key, part)
      if (part.length === chunk.location.length) whole.push(chunk)
      else if (isSmall && isSmallPart(chunk) && !this.#recent.isWanted(key)) this.#readBlocks(chunk, into)
      else this.#readPart(chunk, into)
    }
    if (whole.length > 1 && this.#readTogether(whole, into)) return
    for (const chunk of whole) this.#readVerified(chunk, into, chunk.at)
  }

  #find(key: Key, part: WantedChunk): FoundChunk {
    const location = this.#options.locate(key)
    if (location === undefined) throw missing('chunk', part.address)
    if (part.offset + part.length > location.length) throw damaged('chunk', part.address, location)
    return { ...part, key, location }
  }

  #readPart(chunk: FoundChunk, into: Buffer): void {
    const { key, location } = chunk
    copyPart(
      this.#recent.read(key, location.length, (slot) => this.#readVerified(chunk, slot, 0)),
      chunk,
      into,
    )
  }

  #readBlocks({ key, address, location, ...part }: FoundChunk, into: Buffer): void {
    const range = blocksAround(part, location.length)
    this.#noting(key, () => {
      const blocks = readContent(this.#log, location, this.#blocks, 0, range)
      const isIntact = location.sums !== undefined && areIntact(blocks, range.from, location.sums, this.#options.store)
      if (!isIntact) throw damaged('chunk', address, location)
      blocks.copy(into, part.at, part.offset - range.from, part.offset - range.from + part.length)
    })
  }

  /** @returns whether all of them could be read and are what was stored; if not, nobody knows which */
  #readTogether(chunks: readonly FoundChunk[], into: Buffer): boolean {
    const spans: Placed[] = []
    for (const { location, at } of chunks) {
      let to = at
      for (const part of location.parts) {
        const last = spans.at(-1)
        if (last !== undefined && isNext(last, part, to)) last.length += part.length
        else spans.push({ ...part, to })
        to += part.length
      }
    }
    try {
      for (const { segment, offset, length, to } of spans) this.#log.read(segment, offset, length, into, to)
      const last = spans.at(-1)
      if (last !== undefined && last.length >= READ_AHEAD_FROM_BYTES) {
        this.#log.willNeed(last.segment, last.offset + last.length, READ_AHEAD_BYTES)
      }
    } catch (error) {
      if (error instanceof NexusError) return false
      throw error
    }
    return chunks.every(({ at, length, location }) => xxh64(into.subarray(at, at + length), this.#options.store) === location.xxh)
  }

  #readVerified({ key, address, location }: FoundChunk, into: Buffer, at: number): void {
    this.#noting(key, () => {
      const bytes = readContent(this.#log, location, into, at)
      if (xxh64(bytes, this.#options.store) !== location.xxh) throw damaged('chunk', address, location)
    })
  }

  #noting(key: Key, read: () => void): void {
    try {
      read()
    } catch (error) {
      this.#options.onDamage(key)
      throw error
    }
  }
}

function isSmallPart({ length, location }: FoundChunk): boolean {
  return location.sums !== undefined && length <= location.length * SMALL_SHARE
}

/** What is kept was checked when it was read, but a piece may claim more than there is. */
function copyPart(chunk: Buffer, { address, offset, length, at }: WantedChunk, into: Buffer): void {
  if (chunk.copy(into, at, Math.min(offset, chunk.length), offset + length) < length) throw missing('part of chunk', address)
}

/** Bytes of the log, and where they go. */
interface Placed extends Span {
  to: number
}

function isNext(last: Placed, part: Span, to: number): boolean {
  return last.segment === part.segment && last.offset + last.length === part.offset && last.to + last.length === to
}
