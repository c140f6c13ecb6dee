import { FS } from '../errors.ts'
import type { Failures } from './failures.ts'
import type { Encode, Late, WaitsFor } from './operation.ts'
import type { OpcodeName } from './protocol.ts'

/** A request whose answer has to wait: for the disk, or for a notify. */
export interface Waiting {
  readonly name: OpcodeName
  readonly node: number
  readonly uniqueLow: number
  readonly uniqueHigh: number
  readonly waitsFor: WaitsFor
  /** when it began, as of `performance.now` */
  readonly since: number
}

/** A limit that is noticed so much too late was missed by a process that stood still, which has as long to see what is done. */
const LATE_MS = 500

export interface PendingOptions {
  /** sends an answer without payload: 0 or a negative errno */
  answer: (waiting: Waiting, error: number) => void
  /** sends an answer with a payload; it may throw */
  answerWith: (waiting: Waiting, encode: Encode) => void
  failures: Failures
  /** see `interrupt` */
  interruptGraceMs: number
  /** the longest wait: then it is EIO */
  limitMs: number
  /** a request has waited that long, and is about to be answered */
  onLimit: (waiting: Waiting) => void
}

/** Requests that are answered later. Each is answered once: by its promise, by an interrupt, or when it has waited too long. */
export class Pending {
  readonly #waiting = new Map<string, Waiting>()
  readonly #limits = new Map<Waiting, NodeJS.Timeout>()
  readonly #options: PendingOptions

  constructor(options: PendingOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#waiting.size
  }

  add(waiting: Waiting, answer: Late['answer']): void {
    this.#waiting.set(keyOf(waiting.uniqueLow, waiting.uniqueHigh), waiting)
    this.#setLimit(waiting, this.#options.limitMs)
    answer.then(
      (encode) => (encode === undefined ? this.#finish(waiting, 0) : this.#finishWith(waiting, encode)),
      (error: unknown) => this.#fail(waiting, error),
    )
  }

  /**
   * The kernel passes on *any* signal, a mere SIGALRM too, and programs don't expect EINTR from
   * fsync(2), which no local filesystem gives (SQLite takes it for a broken disk). A healthy disk answers
   * within the grace; who waits longer (a disk that hangs, a killed program) gets EINTR.
   */
  interrupt(uniqueLow: number, uniqueHigh: number): void {
    const waiting = this.#waiting.get(keyOf(uniqueLow, uniqueHigh))
    if (waiting === undefined) return
    const { interruptGraceMs } = this.#options
    if (interruptGraceMs === 0) this.#finish(waiting, -FS.EINTR.errno)
    else setTimeout(() => this.#finish(waiting, -FS.EINTR.errno), interruptGraceMs).unref()
  }

  #setLimit(waiting: Waiting, ms: number, isMissed = false): void {
    const due = performance.now() + ms
    const atLimit = (): void => {
      const stoodStill = performance.now() - due > LATE_MS
      if (stoodStill && !isMissed) this.#setLimit(waiting, LATE_MS, true)
      else this.#expire(waiting)
    }
    this.#limits.set(waiting, setTimeout(atLimit, ms).unref())
  }

  /** What the request waits for goes on, and nobody hears of its end. */
  #expire(waiting: Waiting): void {
    this.#options.onLimit(waiting)
    this.#finish(waiting, -FS.EIO.errno)
  }

  #fail(waiting: Waiting, error: unknown): void {
    const fsError = this.#options.failures.report(() => ({ op: waiting.name, node: waiting.node }), error)
    this.#finish(waiting, -fsError.errno)
  }

  #finish(waiting: Waiting, error: number): void {
    if (this.#take(waiting)) this.#options.answer(waiting, error)
  }

  #finishWith(waiting: Waiting, encode: Encode): void {
    if (!this.#take(waiting)) return
    try {
      this.#options.answerWith(waiting, encode)
    } catch (error) {
      const fsError = this.#options.failures.report(() => ({ op: waiting.name, node: waiting.node }), error)
      this.#options.answer(waiting, -fsError.errno)
    }
  }

  /** False when it was answered before. */
  #take(waiting: Waiting): boolean {
    const key = keyOf(waiting.uniqueLow, waiting.uniqueHigh)
    if (this.#waiting.get(key) !== waiting) return false
    clearTimeout(this.#limits.get(waiting))
    this.#limits.delete(waiting)
    return this.#waiting.delete(key)
  }
}

/** Text, because bit 63 of a resent request's id is beyond what a number tells apart. */
export function keyOf(uniqueLow: number, uniqueHigh: number): string {
  return `${uniqueHigh}:${uniqueLow}`
}
