/**
 * Waits for what mappings dirtied to arrive as WRITE requests. syncfs(2) of the mount has the kernel queue all dirty pages of
 * the mount; of the errors that it returns, and of what it goes on to wait for, only some concerns who asked. So a wait is
 * for nodes that it names: it ends when no more of their pages come, and fails only when a page of theirs could not be stored.
 *
 * syncfs(2) may leave pages out: newer kernels (SB_I_NO_DATA_INTEGRITY, also in 6.18) only wake the flusher, and that skips a
 * file while CONGESTION_THRESHOLD (init.ts) requests of write-back and readahead are under way (fuse_writepages). So when the
 * mount was busy meanwhile, the nodes' own files are written one by one; that takes a few microseconds for each that the
 * kernel has pages of.
 */
import { type FsError, toFsError } from '../errors.ts'

/**
 * The kernel keeps at most BACKGROUND_MAX (init.ts) requests of its write-back among those that can be read, in
 * the order they came, and refills as we answer. After so many without a single one, there are none.
 */
const DRAINED_REQUESTS = 4096
/** With fewer requests meanwhile there cannot have been CONGESTION_THRESHOLD at a time. */
const BUSY_REQUESTS = 32
/** After so long without a page of theirs while others dirty pages without end, none is queued any more. */
const OTHERS_MS_MAX = 2000
/** Longest wait, should pages of theirs be dirtied faster than they can be written. */
const DRAIN_MS_MAX = 30_000
/**
 * The store failed. Any other refusal (of a quota, of somebody who may not write) is one that the page itself earned: it
 * will never be stored, and what it holds was never acknowledged.
 */
const STORE_FAILURES: readonly string[] = ['EIO', 'ENOSPC']

interface Wait {
  concerns(node: number): boolean
  /** how many requests came meanwhile */
  requests: number
  /** set when the kernel has queued what there is */
  resolve: (() => void) | undefined
  /** when a page of theirs came last, as of `performance.now` */
  lastAt: number
  failure: FsError | undefined
}

export class WriteBacks {
  readonly #waits = new Set<Wait>()
  /** requests since the last one of the kernel's write-back */
  #since = 0
  readonly #onWait: () => void

  /** @param onWait has the next request looked for */
  constructor(onWait: () => void) {
    this.#onWait = onWait
  }

  /** Whether somebody waits. */
  get isAwaited(): boolean {
    return this.#waits.size > 0
  }

  /**
   * Resolves when all pages of these nodes that were dirty are stored.
   * @param sync has the kernel queue them: syncfs(2), off this thread; its errors are nobody's
   * @param flush has the kernel write these nodes alone and waits for it, off this thread
   * @throws FsError EIO, ENOSPC when one of them could not be stored; what `sync` is rejected with
   */
  async wait(concerns: (node: number) => boolean, sync: () => Promise<void>, flush: () => Promise<void>): Promise<void> {
    const wait: Wait = { concerns, requests: 0, resolve: undefined, lastAt: 0, failure: undefined }
    this.#waits.add(wait)
    try {
      await sync()
      await this.#drained(wait)
      if (wait.requests >= BUSY_REQUESTS) await flush()
    } finally {
      this.#waits.delete(wait)
    }
    if (wait.failure !== undefined) throw wait.failure
  }

  /** Nobody will be served any more. */
  end(): void {
    for (const { resolve } of this.#waits) resolve?.()
  }

  /** A request was served. */
  served(): void {
    this.#since++
    const now = performance.now()
    for (const wait of this.#waits) {
      wait.requests++
      const { resolve, lastAt } = wait
      if (this.#since >= DRAINED_REQUESTS || now - lastAt > OTHERS_MS_MAX) resolve?.()
    }
  }

  /** No request waits. */
  idle(): void {
    for (const { resolve } of this.#waits) resolve?.()
  }

  /** A page comes. */
  came(node: number): void {
    this.#since = 0
    if (this.#waits.size === 0) return
    for (const wait of this.#waits) if (wait.concerns(node)) wait.lastAt = performance.now()
  }

  /** It could not be stored. */
  failed(node: number, error: unknown): void {
    const { fsError } = toFsError(error)
    if (!STORE_FAILURES.includes(fsError.code)) return
    for (const wait of this.#waits) if (wait.concerns(node)) wait.failure = fsError
  }

  async #drained(wait: Wait): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve) => {
      this.#since = 0
      wait.lastAt = performance.now()
      wait.resolve = resolve
      timer = setTimeout(resolve, DRAIN_MS_MAX)
      this.#onWait()
    })
    clearTimeout(timer)
  }
}
