/** The chunks that were read last. */
import { CHUNK_BYTES_MAX } from './chunker.ts'
import type { Key } from './keys.ts'

interface Recent {
  /** the chunk, at the beginning of its slot */
  chunk: Buffer
  slot: Buffer
}

/**
 * Chunks of which only parts were read, for who goes on in them. All of its memory is taken at once: a buffer for each would
 * be garbage with the next, and V8 would look for it all the time (a third of a processor, and pauses of 10 ms and more).
 */
export class RecentChunks {
  /** what holds nothing */
  readonly #free: Buffer[] = []
  /** by key, the one that was not used for longest first */
  readonly #chunks = new Map<Key, Recent>()
  /** of chunks that are not kept, those that `isWanted` was asked of last; as many as could be kept */
  readonly #asked = new Set<Key>()
  readonly #count: number

  /** @param bytes of all of them; below CHUNK_BYTES_MAX nothing is kept */
  constructor(bytes: number) {
    const count = Math.floor(bytes / CHUNK_BYTES_MAX)
    this.#count = count
    const memory = Buffer.allocUnsafeSlow(count * CHUNK_BYTES_MAX)
    for (let i = 0; i < count; i++) this.#free.push(memory.subarray(i * CHUNK_BYTES_MAX, (i + 1) * CHUNK_BYTES_MAX))
  }

  /** A chunk that is kept. Good until `read` is called. */
  get(key: Key): Buffer | undefined {
    const recent = this.#chunks.get(key)
    if (recent === undefined) return undefined
    this.#chunks.delete(key)
    this.#chunks.set(key, recent)
    return recent.chunk
  }

  /** Whether it is asked of this chunk again: who comes back is likely to come once more, and a chunk that is kept serves all. */
  isWanted(key: Key): boolean {
    if (this.#asked.delete(key)) return true
    this.#asked.add(key)
    if (this.#asked.size > this.#count) {
      const [oldest] = this.#asked
      this.#asked.delete(oldest as Key)
    }
    return false
  }

  /**
   * Reads a chunk, and keeps it if there is room for so large a one.
   * @param fill throws when it cannot: then nothing is kept
   */
  read(key: Key, length: number, fill: (into: Buffer) => void): Buffer {
    const slot = length <= CHUNK_BYTES_MAX ? this.#take() : undefined
    const chunk = slot?.subarray(0, length) ?? Buffer.allocUnsafeSlow(length)
    try {
      fill(chunk)
    } catch (error) {
      if (slot !== undefined) this.#free.push(slot)
      throw error
    }
    if (slot !== undefined) this.#chunks.set(key, { chunk, slot })
    return chunk
  }

  delete(key: Key): void {
    const recent = this.#chunks.get(key)
    if (recent === undefined) return
    this.#chunks.delete(key)
    this.#free.push(recent.slot)
  }

  #take(): Buffer | undefined {
    const free = this.#free.pop()
    if (free !== undefined) return free
    const oldest = this.#chunks.entries().next()
    if (oldest.done === true) return undefined
    const [key, { slot }] = oldest.value
    this.#chunks.delete(key)
    return slot
  }
}
