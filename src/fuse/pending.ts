import { FS } from '../errors.ts'
import type { Failures } from './failures.ts'
import type { OpcodeName } from './protocol.ts'

/** A request whose answer has to wait for the disk. */
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
  failures: Failures
  /** see `interrupt` */
  interruptGraceMs: number
}

/** Requests that are answered later. Each is answered once: by its promise, or by an interrupt. */
export class Pending {
  readonly #waiting = new Map<string, Waiting>()
  readonly #answer: PendingOptions['answer']
  readonly #failures: Failures
  readonly #interruptGraceMs: number

  constructor({ answer, failures, interruptGraceMs }: PendingOptions) {
    this.#answer = answer
    this.#failures = failures
    this.#interruptGraceMs = interruptGraceMs
  }

  get size(): number {
    return this.#waiting.size
  }

  add(waiting: Waiting, promise: Promise<void>): void {
    this.#waiting.set(keyOf(waiting.uniqueLow, waiting.uniqueHigh), waiting)
    promise.then(
      () => this.#finish(waiting, 0),
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
    const key = keyOf(waiting.uniqueLow, waiting.uniqueHigh)
    if (this.#waiting.get(key) !== waiting) return // answered before
    this.#waiting.delete(key)
    this.#answer(waiting, error)
  }
}

/** Text, because bit 63 of a resent request's id is beyond what a number tells apart. */
export function keyOf(uniqueLow: number, uniqueHigh: number): string {
  return `${uniqueHigh}:${uniqueLow}`
}
