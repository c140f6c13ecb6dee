/** Reading chunks, and parts of them, out of the log: nothing leaves here that was not checked. */
import { NexusError } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import type { Log } from '../journal/log.ts'
import type { Address } from './address.ts'
import { areIntact, BLOCK_BYTES, blocksAround } from './blocks.ts'
import { chunkKey, type Key } from './keys.ts'
import { addSpans, damaged, type Location, missing, type PlacedSpan, readContent } from './location.ts'
import { GAP_BYTES_MAX, StreamAhead } from './readahead.ts'
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

/** Who reads so much at once may be going through a file. */
const STREAM_BYTES_MIN = 64 * 1024
/** Who asks for more at once reads on, and soon wants the rest of the chunks that he began with and ended with. */
const SMALL_BYTES_MAX = 32 * 1024
/** A part is small when it is at most this share of its chunk: of half of one, the blocks around it would be most. */
const SMALL_SHARE = 1 / 4

export class ChunkReader {
  readonly #log: Log
  readonly #options: ChunkReaderOptions
  readonly #recent: RecentChunks
  readonly #ahead: StreamAhead
  /** for blocks, of which only a part goes to who asked */
  readonly #blocks = Buffer.allocUnsafeSlow(SMALL_BYTES_MAX + 2 * BLOCK_BYTES)
  #hits = 0
  #misses = 0

  constructor(log: Log, options: ChunkReaderOptions) {
    this.#log = log
    this.#options = options
    this.#recent = new RecentChunks(options.chunkCacheBytesMax)
    this.#ahead = new StreamAhead((segment, offset, length) => log.willNeed(segment, offset, length))
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
   * blocks that hold it. What lies behind one another is read at once.
   * @throws NexusError NEXUS_CORRUPT when one is missing or not what was stored
   */
  read(domain: number, wanted: readonly WantedChunk[], into: Buffer): void {
    const whole: FoundChunk[] = []
    const parts: FoundChunk[] = []
    const small: FoundChunk[] = []
    const bytes = wanted.reduce((sum, { length }) => sum + length, 0)
    let isSmall = bytes <= SMALL_BYTES_MAX
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
      else if (isSmall && isSmallPart(chunk) && !this.#recent.isWanted(key)) small.push(chunk)
      else parts.push(chunk)
    }
    if (bytes >= STREAM_BYTES_MIN) this.#tellAhead([...parts, ...whole])
    for (const chunk of parts) this.#readPart(chunk, into)
    this.#readSmall(small, into)
    if (whole.length > 1 && this.#readTogether(whole, into)) return
    for (const chunk of whole) this.#readVerified(chunk, into, chunk.at)
  }

  #find(key: Key, part: WantedChunk): FoundChunk {
    const location = this.#options.locate(key)
    if (location === undefined) throw missing('chunk', part.address)
    if (part.offset + part.length > location.length) throw damaged('chunk', part.address, location)
    return { ...part, key, location }
  }

  /** Where all of it lies together: content that lies here and there is no stream. */
  #tellAhead(chunks: readonly FoundChunk[]): void {
    const [first, ...others] = chunks.flatMap(({ location }) => location.parts)
    if (first === undefined) return
    let [from, to, bytes] = [first.offset, first.offset + first.length, first.length]
    for (const { segment, offset, length } of others) {
      if (segment !== first.segment) return
      from = Math.min(from, offset)
      to = Math.max(to, offset + length)
      bytes += length
    }
    if (to - from <= bytes + GAP_BYTES_MAX) this.#ahead.reading({ segment: first.segment, offset: from, length: to - from })
  }

  #readPart(chunk: FoundChunk, into: Buffer): void {
    const { key, location } = chunk
    const kept = this.#recent.get(key) ?? this.#recent.read(key, location.length, (slot) => this.#readVerified(chunk, slot, 0))
    copyPart(kept, chunk, into)
  }

  /** Most lie in one chunk. The end of one and the beginning of the next often lie behind one another, too. */
  #readSmall(chunks: readonly FoundChunk[], into: Buffer): void {
    const [first, second] = chunks
    const isPair = chunks.length === 2 && first !== undefined && second !== undefined && this.#readPair(first, second, into)
    if (!isPair) for (const chunk of chunks) this.#readBlocks(chunk, into)
  }

  #readBlocks(chunk: FoundChunk, into: Buffer): void {
    const { key, address, location } = chunk
    this.#noting(key, () => {
      const range = blocksAround(chunk, location.length)
      const spans: PlacedSpan[] = []
      addSpans(spans, location, 0, range)
      this.#readSpans(spans, this.#blocks)
      if (!this.#takeBlocks(chunk, range, 0, into)) throw damaged('chunk', address, location)
    })
  }

  /** @returns whether they lie behind one another and are what was stored; if not, each is to be read by itself */
  #readPair(first: FoundChunk, second: FoundChunk, into: Buffer): boolean {
    const range = blocksAround(first, first.location.length)
    const next = blocksAround(second, second.location.length)
    const at = range.to - range.from
    const spans: PlacedSpan[] = []
    addSpans(spans, first.location, 0, range)
    addSpans(spans, second.location, at, next)
    const [span] = spans
    if (spans.length !== 1 || span === undefined || span.length > this.#blocks.length) return false
    if (!this.#tryRead(spans, this.#blocks)) return false
    return this.#takeBlocks(first, range, 0, into) && this.#takeBlocks(second, next, at, into)
  }

  /** @param at where its blocks were read to @returns whether they are what was stored; else nothing is taken of them */
  #takeBlocks({ location, ...part }: FoundChunk, range: { from: number; to: number }, at: number, into: Buffer): boolean {
    const blocks = this.#blocks.subarray(at, at + range.to - range.from)
    if (location.sums === undefined || !areIntact(blocks, range.from, location.sums, this.#options.store)) return false
    blocks.copy(into, part.at, part.offset - range.from, part.offset - range.from + part.length)
    return true
  }

  /** @returns whether all of them could be read and are what was stored; if not, nobody knows which */
  #readTogether(chunks: readonly FoundChunk[], into: Buffer): boolean {
    const spans: PlacedSpan[] = []
    for (const { location, at } of chunks) addSpans(spans, location, at)
    if (!this.#tryRead(spans, into)) return false
    return chunks.every(({ at, length, location }) => xxh64(into.subarray(at, at + length), this.#options.store) === location.xxh)
  }

  #readSpans(spans: readonly PlacedSpan[], into: Buffer): void {
    for (const { segment, offset, length, to } of spans) this.#log.read(segment, offset, length, into, to)
  }

  /** Reads them; false when the log has not all of them. */
  #tryRead(spans: readonly PlacedSpan[], into: Buffer): boolean {
    try {
      this.#readSpans(spans, into)
    } catch (error) {
      if (error instanceof NexusError) return false
      throw error
    }
    return true
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
