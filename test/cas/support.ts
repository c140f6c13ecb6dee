/** An index in memory, and bytes that look random and are the same every time. */
import type { Index, IndexEntry } from '../../src/cas/index.ts'
import type { ContentStore } from '../../src/cas/store.ts'
import { LOG_START, readLog, segmentSizes } from '../../src/journal/replay.ts'
import { type MemoryDisk, STORE } from '../journal/support.ts'

export class MemoryIndex implements Index {
  readonly values = new Map<string, Buffer>()
  /** may throw instead of a write */
  fault: (() => void) | undefined
  writes = 0

  get(key: Buffer): Buffer | undefined {
    return this.values.get(key.toString('latin1'))
  }

  async *entries(prefix: Buffer): AsyncIterable<[Buffer, Buffer]> {
    const start = prefix.toString('latin1')
    // As of now, whatever is written meanwhile: LevelDB's iterators read a snapshot.
    const found = [...this.values].filter(([key]) => key.startsWith(start)).sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [key, value] of found) yield [Buffer.from(key, 'latin1'), value]
  }

  async write(entries: readonly IndexEntry[]): Promise<void> {
    this.writes++
    this.fault?.()
    for (const { key, value } of entries) {
      if (value === null) this.values.delete(key.toString('latin1'))
      else this.values.set(key.toString('latin1'), Buffer.from(value))
    }
  }

  async close(): Promise<void> {}

  clone(): MemoryIndex {
    const copy = new MemoryIndex()
    for (const [key, value] of this.values) copy.values.set(key, value)
    return copy
  }
}

/** Bytes from a small generator (xorshift32): not compressible, the same for the same seed. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) | 1
  for (let i = 0; i < length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state >>> 24
  }
  return bytes
}

/** Hands every record of the log to a store, as a start does. */
export function adoptAll(store: ContentStore, disk: MemoryDisk): void {
  const segments = segmentSizes(disk)
  for (const record of readLog(disk, STORE, LOG_START, 0)) store.adopt(record, segments)
}
