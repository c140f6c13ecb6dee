/**
 * When the log writes zeros ahead of its end. An fdatasync of a file that has become longer makes the filesystem below
 * commit its own journal as well; where zeros were written and synced before, it stores the bytes and nothing else. With
 * zeros, twice as much is written: so only while syncs come often with little between them.
 */

export interface ZerosLimits {
  /** they reach so many bytes behind the end */
  bytes: number
  /** and are written when fewer are left */
  restBytes: number
  /** a sync is close to the one before when fewer bytes were appended between the two … */
  betweenBytes: number
  /** … and it begins less than so long after that */
  betweenMs: number
  /** so many in a row must be close: whoever stores a large file safely syncs two or three times */
  syncs: number
}

const KIB = 1024

/** The log is flushed once a second in any case: that alone is not often. */
export const ZEROS_LIMITS: ZerosLimits = {
  bytes: 256 * KIB,
  restBytes: 64 * KIB,
  betweenBytes: 32 * KIB,
  betweenMs: 500,
  syncs: 8,
}

/** Bytes of the segment that is being written. */
export interface Stretch {
  offset: number
  length: number
}

/** What is known of the zeros in the segment that is being written. */
export class ZerosAhead {
  readonly #limits: ZerosLimits
  #zeros: Buffer | undefined
  /** where they end, at most; 0: there are none */
  #end = 0
  /** syncs that were close to the one before */
  #inARow = 0
  #syncedAt = Number.NEGATIVE_INFINITY
  #appendedBytes = 0
  #isOver = false

  constructor(limits: ZerosLimits) {
    this.#limits = limits
  }

  /** As many as are ever written at once. */
  get bytes(): Buffer {
    this.#zeros ??= Buffer.alloc(this.#limits.bytes)
    return this.#zeros
  }

  /** Counts a sync that begins now. @param appendedBytes to the log before it, ever */
  countSync(appendedBytes: number): void {
    const now = performance.now()
    const isClose =
      now - this.#syncedAt < this.#limits.betweenMs && appendedBytes - this.#appendedBytes < this.#limits.betweenBytes
    this.#inARow = isClose ? this.#inARow + 1 : 0
    this.#syncedAt = now
    this.#appendedBytes = appendedBytes
  }

  /**
   * Where to write zeros now, if anywhere. They count as written from then on: what a full disk has no room for is not
   * tried again at each sync.
   * @param offset where the last record ends
   * @param limit where the segment ends, at most
   */
  take(offset: number, limit: number): Stretch | undefined {
    const { bytes, restBytes, syncs } = this.#limits
    if (this.#isOver || this.#inARow < syncs) return undefined
    const start = Math.max(offset, this.#end)
    const end = Math.min(offset + bytes, limit)
    if (start - offset >= restBytes || end <= start) return undefined
    this.#end = end
    return { offset: start, length: end - start }
  }

  /** Whether some may lie behind this place. */
  areBehind(offset: number): boolean {
    return this.#end > offset
  }

  /** The segment was cut to its end. */
  cut(): void {
    this.#end = 0
  }

  /** No more are written. */
  stop(): void {
    this.#isOver = true
  }
}
