/**
 * What the daemon does by itself beside serving: it flushes the log every second, takes checkpoints,
 * collects garbage, and watches the disk. A disk that is full or broken makes each of these fail
 * again and again: they are tried less and less often, and the log has one line for each turn of events.
 */
import type { Space } from '../journal/space.ts'
import type { Logger } from '../logger.ts'
import type { Collected } from '../volume/collect.ts'
import type { Volumes } from '../volume/volumes.ts'
import { isGarbageWorthIt } from './garbage.ts'

export interface UpkeepOptions {
  volumes: Volumes
  space: Space
  logger: Logger
  /** @param mayCopy false: on a nearly full disk, only what nothing has to be copied for */
  collect(mayCopy: boolean): Promise<Collected>
}

/** How the store is. */
export interface StoreState {
  /** full: nothing can be added; read-only: nothing can be changed */
  state: 'ok' | 'full' | 'read-only'
  /** why, and what to do; also of what fails while the store is served all the same */
  reason: string | null
}

/** How often the log is flushed and a checkpoint considered. */
const TICK_MS = 200
const FLUSH_MS = 1000
/** Changes that have lain this long only in the log are checkpointed. */
const CHECKPOINT_AGE_MS = 30_000
/** What this start had to replay, the next would replay again: that waits no longer than until what had piled up is done. */
const REPLAYED_AGE_MS = 1000
/** So much would keep the next start for a tenth of a second: 8192 changes (BYTES_PER_CHANGE of Volumes), or bytes in the log … */
const LONG_REPLAY = { checkpointBytes: 1024 * 1024, dirtyBytes: 32 * 1024 * 1024 }
/** … and lies no longer than this, or than checkpoints take at most this part of the time. In a large directory they take long. */
const LONG_AGE_MS = 5000
const CHECKPOINT_SHARE = 1 / 50
/** What fails is tried again after this long, then after twice as long, up to the other. */
const RETRY_MS_MIN = 1000
const RETRY_MS_MAX = 60_000
/** How often it is looked whether to collect garbage. */
const LOOK_MS = 15_000
/** A collection rests so many times as long as it took: what it finds may all be in snapshots. */
const COLLECT_REST = 10
/** On a disk that is nearly full: what part of the reserve may wait for a checkpoint, or be overwritten until a collection … */
const TIGHT_CHECKPOINT_SHARE = 1 / 8
const TIGHT_GROWTH_SHARE = 1 / 8
/** … or be used up by removals while they go on. When none has come for a while, what is left may be copied. */
const TIGHT_REMOVAL_SHARE = 1 / 8
const QUIET_MS = 500
/** There, a collection that got back less than this part of it is not worth another at once … */
const TIGHT_GAIN_SHARE = 1 / 16
/** … but only after as long as it took, up to this. */
const PAUSE_MS_MAX = 10_000

/** When something that failed may be tried again. */
class Retry {
  #notBefore = 0
  #ms = RETRY_MS_MIN

  isDue(now: number): boolean {
    return now >= this.#notBefore
  }

  failed(now: number): void {
    this.#notBefore = now + this.#ms
    this.#ms = Math.min(RETRY_MS_MAX, this.#ms * 2)
  }

  /** It went well: not again before so many milliseconds have passed. */
  succeeded(now: number, pauseMs = 0): void {
    this.#notBefore = now + pauseMs
    this.#ms = RETRY_MS_MIN
  }
}

export class Upkeep {
  readonly #options: UpkeepOptions
  readonly #checkpoints = new Retry()
  readonly #collections = new Retry()
  #timer: NodeJS.Timeout | undefined
  #lastFlush = 0
  #dirtySince = 0
  /** how long the last one took */
  #checkpointMs = 0
  #lastLook = 0
  #lastCollection = performance.now()
  /** by `performance.now`; a disk that is nearly full does not wait for it */
  #restUntil = 0
  #told: StoreState['state'] = 'ok'
  /** why the last checkpoint or collection failed */
  #failures = new Map<string, string>()
  #collecting = false
  #looking = false
  /** size of the log at the last collection under pressure */
  #collectedBytes: number
  /** what the last collection on a nearly full disk knew; undefined when it was not */
  #pressed: { removals: number; isFull: boolean; free: number } | undefined
  #removals = 0
  #lastRemoval = 0

  constructor(options: UpkeepOptions) {
    this.#options = options
    this.#collectedBytes = options.volumes.logBytes
  }

  start(): void {
    // Counted from before the process began to wait to take over, it would be long over.
    this.#dirtySince = performance.now() - CHECKPOINT_AGE_MS + REPLAYED_AGE_MS
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** A collection has ended, whoever asked for it. */
  collected(): void {
    this.#collectedBytes = this.#options.volumes.logBytes
  }

  get state(): StoreState {
    const { volumes, space } = this.#options
    if (volumes.log.failure !== undefined) return { state: 'read-only', reason: volumes.log.failure.message }
    if (space.isFull) return { state: 'full', reason: space.refusal.message }
    return { state: 'ok', reason: [...this.#failures.values()][0] ?? null }
  }

  #tick(): void {
    this.#guarded(() => {
      const { volumes } = this.#options
      if (volumes.log.failure !== undefined) this.#tell(performance.now())
      else this.#flush(performance.now())
    })
    if (!this.#looking) void this.#look()
  }

  /** What depends on how full the disk is. One that hangs is asked once, and this thread does not wait for it. */
  async #look(): Promise<void> {
    const { volumes, space } = this.#options
    this.#looking = true
    await space.refresh()
    this.#looking = false
    if (this.#timer !== undefined && volumes.log.failure === undefined) this.#guarded(() => this.#tend(performance.now()))
  }

  /** A disk that cannot even be looked at is no reason to end. */
  #guarded(run: () => void): void {
    try {
      run()
      this.#succeeded('a look at the log')
    } catch (error) {
      this.#failed('a look at the log', error)
    }
  }

  #tend(now: number): void {
    this.#tell(now)
    const { volumes, space } = this.#options
    if (volumes.dirtyBytes === 0) this.#dirtySince = now
    const isTight = space.isTight
    const isLong = isTight && volumes.checkpointBytes > space.reserve * TIGHT_CHECKPOINT_SHARE
    const isDue = volumes.checkpointDue || isLong || now - this.#dirtySince > this.#ageMsMax
    if (isDue && this.#checkpoints.isDue(now)) {
      this.#dirtySince = now
      this.#run('a checkpoint', this.#checkpoints, async () => {
        await volumes.checkpoint()
        this.#checkpointMs = performance.now() - now
        return 0
      })
    }
    if (isTight) this.#collectUnderPressure(now)
    else {
      this.#pressed = undefined
      this.#collectWhenGrown(now)
    }
  }

  /** How long changes may lie only in the log. */
  get #ageMsMax(): number {
    const { checkpointBytes, dirtyBytes } = this.#options.volumes
    if (checkpointBytes < LONG_REPLAY.checkpointBytes && dirtyBytes < LONG_REPLAY.dirtyBytes) return CHECKPOINT_AGE_MS
    return Math.min(CHECKPOINT_AGE_MS, Math.max(LONG_AGE_MS, this.#checkpointMs / CHECKPOINT_SHARE))
  }

  /** One line for each change of state. */
  #tell(now: number): void {
    const { logger } = this.#options
    const { state, reason } = this.state
    if (state === this.#told) return
    this.#told = state
    if (state === 'read-only') logger.error({}, reason ?? '')
    else if (state === 'full') logger.warn({}, reason ?? '')
    else logger.warn({}, 'there is room on the disk again: files can be written')
    if (state === 'ok') this.#checkpoints.succeeded(now)
  }

  #flush(now: number): void {
    const { volumes } = this.#options
    if (volumes.log.durable === volumes.log.sequence || now - this.#lastFlush < FLUSH_MS) return
    this.#lastFlush = now
    // A failure makes the store read-only, which is told as that.
    volumes.sync().catch(() => undefined)
  }

  #collectWhenGrown(now: number): void {
    if (now - this.#lastLook < LOOK_MS) return
    this.#lastLook = now
    if (now < this.#restUntil || !this.#collections.isDue(now)) return
    if (isGarbageWorthIt(this.#options.volumes, now - this.#lastCollection)) this.#collect(now, true)
  }

  /** Only when there may be something to get: a disk can stay nearly full for years. */
  #collectUnderPressure(now: number): void {
    const { space, volumes } = this.#options
    const { removals, isFull, free } = space
    if (removals !== this.#removals) this.#lastRemoval = now
    this.#removals = removals
    if (this.#collecting || !this.#collections.isDue(now)) return
    const seen = this.#pressed
    const grown = volumes.logBytes - this.#collectedBytes > space.reserve * TIGHT_GROWTH_SHARE
    if (seen !== undefined && seen.removals === removals && seen.isFull === isFull && !grown) return
    const isQuiet = now - this.#lastRemoval >= QUIET_MS
    if (!isQuiet && seen !== undefined && seen.free - free < space.reserve * TIGHT_REMOVAL_SHARE) return
    // What is removed while it is copied would have been copied for nothing: that waits.
    this.#pressed = { removals: isQuiet ? removals : -1, isFull, free }
    this.#collectedBytes = volumes.logBytes
    this.#collect(now, isQuiet)
  }

  #collect(now: number, mayCopy: boolean): void {
    if (this.#collecting) return
    this.#collecting = true
    this.#lastCollection = now
    this.#run('a garbage collection', this.#collections, async () => {
      try {
        const { freedBytes, copiedBytes } = await this.#options.collect(mayCopy)
        // What it had no room to copy may have room now. A little is what a collection itself writes: it would never end.
        const isWorthwhile = freedBytes - copiedBytes > this.#options.space.reserve * TIGHT_GAIN_SHARE
        if (isWorthwhile) this.#pressed = undefined
        return isWorthwhile ? 0 : Math.min(PAUSE_MS_MAX, Math.max(RETRY_MS_MIN, performance.now() - now))
      } finally {
        this.#collecting = false
        this.#restUntil = performance.now() + COLLECT_REST * (performance.now() - now)
        if (this.#pressed !== undefined) this.#pressed.free = this.#options.space.free
      }
    })
  }

  /** @param work resolves with how many milliseconds to wait before the next */
  #run(what: string, retry: Retry, work: () => Promise<number>): void {
    work().then(
      (pauseMs) => {
        retry.succeeded(performance.now(), pauseMs)
        this.#succeeded(what)
      },
      (error: unknown) => {
        retry.failed(performance.now())
        this.#failed(what, error)
      },
    )
  }

  #succeeded(what: string): void {
    if (this.#failures.delete(what)) this.#options.logger.warn({}, `${what} has gone through again`)
  }

  #failed(what: string, error: unknown): void {
    const { logger, volumes } = this.#options
    if (volumes.log.failure !== undefined || volumes.isClosed || this.#failures.has(what)) return
    const reason = error instanceof Error ? error.message : String(error)
    this.#failures.set(what, `${what} failed (${reason}); nothing is lost, and it is tried again`)
    logger.error({ err: error }, `${what} failed; nothing is lost, and it is tried again`)
  }
}
