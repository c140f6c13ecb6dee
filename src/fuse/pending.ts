import { FS } from '../errors.ts'
import type { Failures } from './failures.ts'
import type { Encode } from './operation.ts'
import type { OpcodeName } from './protocol.ts'

/** A request whose answer has to wait: for the disk, or for a notify. */
export interface Waiting {
  readonly name: OpcodeName
  readonly node: number
  readonly uniqueLow: number
  readonly uniqueHigh: number
  /** when it began, as of `performance.now` */
  readonly since: number
}

export interface PendingOptions {
  /** sends an answer without payload: 0 or a negative errno */
  answer: (waiting: Waiting, error: number) => void
  /** sends an answer with a payload; it may throw */
  answerWith: (waiting: Waiting, encode: Encode) => void
  failures: Failures
  /** see `interrupt` */
  interruptGraceMs: number
}

/** Requests that are answered later. Each is answered once: by its promise, or by an interrupt. */
export class Pending {
  readonly #waiting = new Map<string, Waiting>()
  readonly #answer: PendingOptions['answer']
  readonly #answerWith: PendingOptions['answerWith']
  readonly #failures: Failures
  readonly #interruptGraceMs: number

  constructor({ answer, answerWith, failures, interruptGraceMs }: PendingOptions) {
    this.#answer = answer
    this.#answerWith = answerWith
    this.#failures = failures
    this.#interruptGraceMs = interruptGraceMs
  }

  get size(): number {
    return this.#waiting.size
  }

  add(waiting: Waiting, promise: Promise<void> | Promise<Encode>): void {
    this.#waiting.set(keyOf(waiting.uniqueLow, waiting.uniqueHigh), waiting)
    promise.then(
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
    if (this.#interruptGraceMs === 0) this.#finish(waiting, -FS.EINTR.errno)
    else setTimeout(() => this.#finish(waiting, -FS.EINTR.errno), this.#interruptGraceMs).unref()
  }

  #fail(waiting: Waiting, error: unknown): void {
    const fsError = this.#failures.report(() => ({ op: waiting.name, node: waiting.node }), error)
    this.#finish(waiting, -fsError.errno)
  }

  #finish(waiting: Waiting, error: number): void {
    if (this.#take(waiting)) this.#answer(waiting, error)
  }

  #finishWith(waiting: Waiting, encode: Encode): void {
    if (!this.#take(waiting)) return
    try {
      this.#answerWith(waiting, encode)
    } catch (error) {
      const fsError = this.#failures.report(() => ({ op: waiting.name, node: waiting.node }), error)
      this.#answer(waiting, -fsError.errno)
    }
  }

  /** False when it was answered before. */
  #take(waiting: Waiting): boolean {
    const key = keyOf(waiting.uniqueLow, waiting.uniqueHigh)
    return this.#waiting.get(key) === waiting && this.#waiting.delete(key)
  }
}

/** Text, because bit 63 of a resent request's id is beyond what a number tells apart. */
export function keyOf(uniqueLow: number, uniqueHigh: number): string {
  return `${uniqueHigh}:${uniqueLow}`
}
