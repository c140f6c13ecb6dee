/**
 * A process that waits to serve when the one that serves dies: it has loaded the program, which takes longer than all the
 * rest of a start, and holds nothing of the store. It is started when serving has been quiet for a while, and again, less and
 * less often, when it dies itself.
 */
import type { Logger } from '../logger.ts'
import { type Child, endOf } from './child.ts'

export interface StandbyOptions {
  /** starts a process that does nothing before it is told to serve */
  start(): Child
  logger: Logger
  /** false: one is started by `renew` alone */
  isWanted: boolean
  /** milliseconds from `keep` until there is one */
  pauseMs?: number
}

/** Who was waited for has much to do first, and would share the processor with what starts. */
const PAUSE_MS = 1000
const PAUSE_MS_MAX = 60_000
/** Who waited so long did not die of a program that cannot start. */
const WELL_MS = 60_000

export class Standby {
  readonly #options: StandbyOptions
  #child: Child | undefined
  #timer: NodeJS.Timeout | undefined
  /** of those that died in a row while they waited */
  #deaths = 0

  constructor(options: StandbyOptions) {
    this.#options = options
  }

  /** Has one soon, unless there is one; call it when somebody serves. */
  keep(): void {
    if (!this.#options.isWanted || this.#child !== undefined || this.#timer !== undefined) return
    const pauseMs = this.#options.pauseMs ?? PAUSE_MS
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        this.#startOrLater()
      },
      Math.min(PAUSE_MS_MAX, pauseMs * 2 ** this.#deaths),
    ).unref()
  }

  /** The one that waits, or is still starting; from now on it is the caller's. */
  take(): Child | undefined {
    const child = this.#child
    this.#drop()
    return child
  }

  /** Starts one at once, of the program that is installed now. @throws a system error */
  renew(): Child {
    this.close()
    return this.#start()
  }

  isKept(child: Child): boolean {
    return child === this.#child
  }

  /** Ends it, and starts no other. */
  close(): void {
    this.#child?.kill()
    this.#drop()
  }

  #drop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#child = undefined
  }

  #startOrLater(): void {
    try {
      this.#start()
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'no process could be started that waits to take over: it is tried again')
      this.#deaths++
      this.keep()
    }
  }

  #start(): Child {
    const since = performance.now()
    const child = this.#options.start()
    this.#child = child
    const { logger } = this.#options
    void child.prepared.then((isReady) => {
      if (isReady && this.isKept(child)) logger.info({ standby: child.pid }, 'a process waits to take over')
    })
    void child.death.then((death) => {
      if (!this.isKept(child)) return
      this.#deaths = performance.now() - since > WELL_MS ? 0 : this.#deaths + 1
      logger.warn({ standby: child.pid }, `the process that waited to take over ${endOf(death)}`)
      this.#drop()
      this.keep()
    })
    return child
  }
}
