/** The loop that serves one mount: one thread, the ordinary event loop, and no waiting while work is coming. */
import { randomUUID } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { NexusError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { noteServed } from '../pace.ts'
import type { Filesystem } from '../vfs/filesystem.ts'
import { RequestClock } from './clock.ts'
import { Dispatcher } from './dispatcher.ts'
import { canDropNames, type Negotiated } from './init.ts'
import type { RequestMetrics } from './meter.ts'
import type { DirectFiles, RequestMark } from './operation.ts'
import type { PrivateListings } from './private-listings.ts'
import { InitFlag2, KERNEL_MAJOR, REQUEST_BYTES_MAX } from './protocol.ts'
import { WriteBacks } from './write-back.ts'

/** What the session needs of `Channel` in binding.ts. */
export interface RequestChannel {
  /** bytes read; 0 when nothing waits; a negative errno. `stamp` becomes the time of it. */
  read(buffer: Uint8Array, stamp: Float64Array): number
  /** the same, trying again for up to `spinMicros` */
  poll(buffer: Uint8Array, stamp: Float64Array, spinMicros: number): number
  /** microseconds since a request was read last, or a negative errno */
  reply(buffer: Uint8Array, length: number): number
  watch(callback: () => void): void
  unwatch(): void
}

export interface SessionOptions {
  channel: RequestChannel
  fs: Filesystem
  logger: Logger
  /** give its `now` to the filesystem */
  clock?: RequestClock
  /** how long to keep the thread after the last request, waiting for the next; 0 sleeps at once */
  spinMicros?: number
  /** while this gives a promise, which must end, no request is read: what they would need is not there at the moment */
  hold?: (() => Promise<void> | undefined) | undefined
  /** how long a signal may be ignored by an operation that waits for the disk */
  interruptGraceMs?: number
  /** how long a request may wait for its answer before it gets EIO */
  requestLimitMs?: number
  /** the `negotiated` of the process that this one takes the mount over from: INIT is not sent again */
  takeover?: Negotiated | undefined
  /** where requests are noted for the process that takes the mount over from this one */
  mark?: RequestMark
  /** if given, and the kernel allows it: files that are made for writing are written past the page cache */
  direct?: DirectFiles
  /** requests were served; again and again while they come */
  onServed?: (() => void) | undefined
  /** INIT was answered */
  onAccept?: (terms: Negotiated) => void
  /** listings that the kernel must not cache */
  privateListings?: PrivateListings | undefined
  /** the mount is gone: by umount(2), by an abort, or because its descriptor is broken */
  onUnmounted?: (how: MountEnd) => void
}

/**
 * How a mount ended under a session, by what read(2) of /dev/fuse says afterwards (fs/fuse/dev.c):
 * - `unmounted` (ENODEV): nothing uses it any more, by umount(2) of whoever
 * - `aborted` (ECONNABORTED, if ABORT_ERROR was agreed on): by a forced unmount, or by `abort` of fusectl
 * - `broken`: the descriptor gave other errors again and again
 */
export type MountEnd = 'unmounted' | 'aborted' | 'broken'

/** Who waits on the only processor keeps from it whom he waits for. */
const SPIN_MICROS = availableParallelism() > 1 ? 100 : 0
/** So long an answer that another thread brings, as of an fsync, is waited for without a sleep: waking up takes as long as a fast disk. */
const ANSWER_SPIN_MS = 1
const INTERRUPT_GRACE_MS = 1000
/** Longer than disks are slow; what Linux takes for a hang (kernel.hung_task_timeout_secs). */
export const REQUEST_LIMIT_S = 120
/** A turn of the event loop serves at most so many requests, or so long, then lets other events run. */
const TURN_REQUESTS = 64
const TURN_MICROS = 1000
/** Unexplained read errors in a row after which the descriptor counts as broken. */
const READ_FAILURES_MAX = 100
/** What a WRITE may use behind its data (see `Filesystem.write`), rounded up to a page. */
const SLACK_BYTES = 4096

/** asm-generic/errno-base.h and errno.h */
const ENODEV = -19
const ECONNABORTED = -103
const MOUNT_ENDS: ReadonlyMap<number, MountEnd> = new Map([
  [ENODEV, 'unmounted'],
  [ECONNABORTED, 'aborted'],
])

export class FuseSession {
  /** Resolves when INIT is answered; rejects with a NexusError if this kernel cannot be served. */
  readonly ready: Promise<void>
  readonly clock: RequestClock
  readonly #channel: RequestChannel
  readonly #logger: Logger
  readonly #spinMicros: number
  readonly #onUnmounted: (how: MountEnd) => void
  readonly #hold: () => Promise<void> | undefined
  readonly #onServed: () => void
  #isHeld = false
  readonly #dispatcher: Dispatcher
  /** What may be read into: the slack behind it belongs to the same memory. */
  readonly #inbox: Buffer
  #settleReady: { resolve: () => void; reject: (error: Error) => void } | undefined
  #state: 'new' | 'serving' | 'stopped' = 'new'
  #turn: NodeJS.Immediate | undefined
  /** a turn that only looks whether there is anything */
  #look: NodeJS.Immediate | undefined
  #readFailures = 0
  #servedAt = 0
  readonly #writeBacks = new WriteBacks(() => this.#continue())

  constructor(options: SessionOptions) {
    this.clock = options.clock ?? new RequestClock()
    this.#channel = options.channel
    this.#logger = options.logger
    this.#spinMicros = options.spinMicros ?? SPIN_MICROS
    this.#onUnmounted = options.onUnmounted ?? (() => undefined)
    this.#hold = options.hold ?? (() => undefined)
    this.#onServed = options.onServed ?? (() => undefined)
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = { resolve, reject }
    })
    this.ready.catch(() => undefined) // who does not wait for it must not die of it
    const memory = Buffer.allocUnsafeSlow(REQUEST_BYTES_MAX + SLACK_BYTES)
    this.#inbox = memory.subarray(0, REQUEST_BYTES_MAX)
    this.#dispatcher = new Dispatcher({
      fs: options.fs,
      inbox: memory,
      send: (buffer, length) => this.#channel.reply(buffer, length),
      clock: this.clock,
      logger: options.logger,
      terms: options.takeover,
      privateListings: options.privateListings,
      interruptGraceMs: options.interruptGraceMs ?? INTERRUPT_GRACE_MS,
      requestLimitMs: options.requestLimitMs ?? REQUEST_LIMIT_S * 1000,
      mark: options.mark,
      direct: options.direct,
      onAccept: (terms) => {
        options.onAccept?.(terms)
        this.#settleReady?.resolve()
      },
      onRefuse: (error) => this.#settleReady?.reject(error),
      onLateAnswer: () => this.#continue(),
      writeBacks: this.#writeBacks,
    })
    if (options.takeover) this.#settleReady?.resolve()
  }

  /** What INIT agreed on; keep it where the next process finds it. */
  get negotiated(): Negotiated | undefined {
    return this.#dispatcher.negotiated
  }

  /** Such as "7.45"; empty before INIT. */
  get protocol(): string {
    const { negotiated } = this
    return negotiated ? `${KERNEL_MAJOR}.${negotiated.minor}` : ''
  }

  /** Whether the kernel can let a name expire and keep what lies below it. Since 6.2. */
  get expiresNames(): boolean {
    return ((this.negotiated?.flags2 ?? 0) & InitFlag2.HAS_EXPIRE_ONLY) !== 0
  }

  /** Whether the kernel can be told to look up all names again. */
  get dropsNames(): boolean {
    return this.negotiated !== undefined && canDropNames(this.negotiated)
  }

  /** Requests so far, by the name of their opcode. */
  get counts(): Record<string, number> {
    return this.#dispatcher.counts
  }

  /** What requests have come to so far. */
  get metrics(): RequestMetrics {
    return this.#dispatcher.metrics
  }

  /** Begins to serve. Once. */
  start(): void {
    if (this.#state !== 'new') throw new TypeError('a session starts once')
    this.#state = 'serving'
    this.#channel.watch(() => this.#wake())
  }

  /**
   * Lets the kernel hear what OPEN is answered, before anybody else opens a file: until it has, each file that is made
   * costs a RELEASE.
   * @param open opens a file of that name in the root directory, off this thread
   */
  async endOpens(open: (name: string) => Promise<void>): Promise<void> {
    const name = randomUUID()
    this.#dispatcher.probe = { name, uid: process.getuid?.() ?? 0 }
    try {
      await open(name)
    } finally {
      this.#dispatcher.probe = undefined
    }
  }

  /** Serves no more; the channel stays open. Quiet when repeated. */
  stop(): void {
    if (this.#state === 'stopped') return
    this.#state = 'stopped'
    this.#channel.unwatch()
    clearImmediate(this.#turn)
    clearImmediate(this.#look)
    this.#turn = undefined
    this.#settleReady?.reject(
      new NexusError('NEXUS_NOT_RUNNING', 'the mount ended before the kernel had asked for anything: mount again'),
    )
    this.#writeBacks.end()
  }

  /**
   * Resolves when what mappings of some nodes dirtied is stored (write-back.ts). syncfs(2) alone does not wait for that
   * (seen on 6.18: it came back after a quarter of the pages).
   * @param sync syncfs(2) of the mount
   * @param flush sync_file_range(2) of each of the nodes
   */
  async writeBack(concerns: (node: number) => boolean, sync: () => Promise<void>, flush: () => Promise<void>): Promise<void> {
    if (this.#state === 'serving') await this.#writeBacks.wait(concerns, sync, flush)
  }

  /** The descriptor is readable. A turn that is due anyway will see it. */
  #wake(): void {
    clearImmediate(this.#look)
    this.#look = undefined
    if (this.#turn === undefined) this.#serve()
  }

  /** What holds requests up comes and goes between turns. @returns whether there is nothing to be done until then */
  #waits(): boolean {
    if (this.#isHeld) return true
    const held = this.#hold()
    if (held === undefined) return false
    this.#isHeld = true
    // The watch would call again and again.
    this.#channel.unwatch()
    const goOn = (): void => {
      this.#isHeld = false
      if (this.#state !== 'serving') return
      this.#channel.watch(() => this.#wake())
      this.#continue()
    }
    // How it ended is not the session's: what is still not there is an error of who asks for it.
    held.then(goOn, goOn)
    return true
  }

  /** Goes on after other events had their turn. */
  #continue(): void {
    if (this.#state !== 'serving' || this.#turn !== undefined) return
    this.#turn = setImmediate(() => {
      this.#turn = undefined
      this.#serve()
    })
  }

  /**
   * One turn: requests until there are none for a while, or the turn is used up. Returning while
   * a request arrives loses nothing, since the watch is level-triggered.
   */
  #serve(): void {
    if (this.#state !== 'serving' || this.#waits()) return
    let began = 0
    for (let served = 0; served < TURN_REQUESTS; served++) {
      if (this.#state !== 'serving') return
      const bytes = this.#next()
      if (bytes === 0) {
        this.#writeBacks.idle()
        if (served > 0) this.#noteServed()
        this.#lookAgain(served > 0)
        return
      }
      if (bytes < 0) {
        this.#readFailed(bytes)
        return
      }
      this.#readFailures = 0
      this.#dispatcher.dispatch(bytes)
      if (this.#writeBacks.isAwaited) this.#writeBacks.served()
      const at = this.clock.micros
      if (served === 0) began = at
      else if (at - began > TURN_MICROS || at < began) break
    }
    this.#noteServed()
    this.#continue()
  }

  #noteServed(): void {
    noteServed(performance.now())
    this.#onServed()
  }

  /** Keeps the event loop from sleeping while an answer is near. @param isNews something was served since the last time */
  #lookAgain(isNews: boolean): void {
    if (this.#spinMicros === 0 || this.#dispatcher.waiting === 0) return
    const now = performance.now()
    if (isNews) this.#servedAt = now
    if (now - this.#servedAt < ANSWER_SPIN_MS) this.#look ??= setImmediate(() => this.#wake())
  }

  /** Waits for the next one, unless an answer is due that only the event loop can bring. */
  #next(): number {
    const { stamp } = this.clock
    if (this.#spinMicros === 0 || this.#dispatcher.waiting > 0 || this.#writeBacks.isAwaited) {
      return this.#channel.read(this.#inbox, stamp)
    }
    return this.#channel.poll(this.#inbox, stamp, this.#spinMicros)
  }

  #readFailed(errno: number): void {
    const end = MOUNT_ENDS.get(errno)
    if (end === undefined) {
      this.#logger.error({ errno }, 'fuse: cannot read requests')
      if (++this.#readFailures < READ_FAILURES_MAX) {
        this.#continue()
        return
      }
    }
    this.stop()
    this.#onUnmounted(end ?? 'broken')
  }
}
