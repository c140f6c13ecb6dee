/**
 * How much memory the serving process may have, and what of it is for what. Nothing in it is asked to give way later: what
 * grows has a share from the start, and the rest does not grow with files, or only by the few bytes that `KnownNodes` needs.
 */
import { setFlagsFromString } from 'node:v8'
import type { IndexMemory } from '../cas/index.ts'

const MIB = 1024 * 1024

export const MEMORY_BYTES = 512 * MIB
export const MEMORY_BYTES_MIN = 256 * MIB
/** The program itself, its threads, and the buffers of requests (measured: 80 MiB when nothing was asked yet). */
const PROGRAM_BYTES = 128 * MIB
/** What a change takes until a checkpoint has stored it, in this layer and the one being merged, with the garbage of both (measured). */
const CHANGE_BYTES = 1000
const CHANGES_MAX = 400_000
/** LevelDB keeps at least so many tables open, and each of them is mapped whole. */
const TABLES_MIN = 64
const TABLE_BYTES_MAX = 2 * MIB

export interface MemoryShares {
  /** these three as in VolumesOptions */
  nodeCacheBytesMax: number
  chunkCacheBytesMax: number
  checkpointWeight: number
  index: IndexMemory
}

/** @param bytes at least MEMORY_BYTES_MIN */
export function memoryShares(bytes: number): MemoryShares {
  const rest = bytes - PROGRAM_BYTES
  const mapped = rest / 3
  const tableBytes = Math.floor(Math.min(TABLE_BYTES_MAX, mapped / TABLES_MIN))
  return {
    nodeCacheBytesMax: Math.floor(rest / 6),
    chunkCacheBytesMax: Math.floor(rest / 12),
    checkpointWeight: Math.min(CHANGES_MAX, Math.floor(rest / 4 / CHANGE_BYTES)),
    index: { cacheBytes: Math.floor(rest / 24), tableBytes, tablesOpen: Math.floor(mapped / tableBytes) },
  }
}

/**
 * V8's own rule lets the heap grow to several times what is alive before it looks, and collects young objects in pieces that
 * hold up requests for as long as they are large. With these a mount that is filled takes half the memory (174 instead of 306
 * MiB after 150,000 files). Pauses should be shorter too; on a busy machine, where a pause waits for a processor, that was
 * seen in some runs and not in others.
 */
export const HEAP_FLAGS: readonly string[] = ['--max-semi-space-size=4']

/** The other half of it. Node knows no such option; a V8 that does not know it says so on stderr, and goes on. */
export function keepHeapSmall(): void {
  setFlagsFromString('--heap-growing-percent=50')
}

/** Each thread that allocates would get a pool of its own from the C library, and keep what is free in it. */
export const HEAP_ENVIRONMENT: Readonly<Record<string, string>> = { MALLOC_ARENA_MAX: '2' }
