/**
 * The lane of notifies that wait for a directory (notices.ts). Any user can hold a directory for ever, so:
 *
 * - Each directory has a queue of its own, and at most one of its notifies waits in the kernel. Its listing has another
 *   queue: that waits for pages, not for the directory's lock.
 * - One thread sends for all directories. When a notify takes longer than SLOW_MS, the thread is left to it, and what it was
 *   given besides goes to another, up to THREADS_MAX.
 * - Each notify has a deadline, DEADLINE_MS. Past it, the notify goes on by itself and its caller goes on too: once
 *   FUSE_NOTIFY_INC_EPOCH is through, the kernel looks up every name again before it uses it (fuse_dentry_revalidate), so
 *   no name that was to be dropped is used. That costs everybody a LOOKUP a name, and detaches mounts that lie inside
 *   (d_invalidate), so it is the last resort. What waits for a stuck directory is covered by the same epoch.
 * - A listing needs no epoch: pages in front of the one that is held are gone, so that who lists from the start asks us,
 *   or waits for that very page.
 * - Before Linux 6.16 there is no epoch: the caller waits, and the log says so.
 */
import type { Logger } from '../logger.ts'
import { ECANCELED, type NotifySender } from './lane.ts'
import type { NameNotice } from './notices.ts'

export interface NamesLaneOptions {
  /** a thread that sends; it may throw when there is no room for one */
  newSender(): NotifySender
  /** Has the kernel look up all names again. @returns false when this kernel cannot */
  dropAllNames(): Promise<boolean>
  logger: Logger
  /** for tests */
  deadlineMs?: number
}

/** Longer than a lock is held by those who work in a directory. */
const SLOW_MS = 25
const DEADLINE_MS = 250
const LOOK_MS = 10
/** A look that comes so much too late was missed by a process that stood still: nothing is late yet. */
const LATE_MS = 40
/** Each stuck directory has one. */
const THREADS_MAX = 64
const IN_FLIGHT_MAX = 256

interface Item {
  readonly notice: NameNotice
  /** when its turn came first, as of `performance.now`; other directories may have used up the thread's time since */
  since: number | undefined
  /** of how often it was given to a thread: earlier results are none */
  attempt: number
  /** its deadline has passed */
  isLate: boolean
  settle: (errno: number) => void
  fail: (error: unknown) => void
}

interface Queue {
  readonly key: string
  readonly waiting: Item[]
  /** who has some of them: as long as there is one, the queue is kept, because they may come back to it */
  thread: Thread | undefined
  /** the one in the kernel is past its deadline */
  isStuck: boolean
}

interface Thread {
  readonly sender: NotifySender
  readonly sent: { item: Item; queue: Queue }[]
  headSince: number
}

export class NamesLane {
  readonly #options: NamesLaneOptions
  readonly #deadlineMs: number
  readonly #queues = new Map<string, Queue>()
  readonly #threads = new Set<Thread>()
  /** takes what comes; all others are stuck */
  #active: Thread | undefined
  #isDue = false
  #timer: NodeJS.Timeout | undefined
  #lookedAt = 0
  #isStopped = false

  constructor(options: NamesLaneOptions) {
    this.#options = options
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS
  }

  /** @returns 0 or a negative errno; 0 also when the deadline has passed and no name is used any more */
  send(notice: NameNotice): Promise<number> {
    return new Promise((resolve, reject) => {
      const queue = this.#queueOf(notice)
      queue.waiting.push({ notice, since: undefined, attempt: 0, isLate: false, settle: resolve, fail: reject })
      if (this.#isDue) return
      this.#isDue = true
      setImmediate(() => {
        this.#isDue = false
        this.#pump()
      })
    })
  }

  /** Ends the threads, without waiting for what is stuck. */
  stop(): void {
    this.#isStopped = true
    clearInterval(this.#timer)
    for (const { sender } of this.#threads) sender.stop()
    for (const { waiting } of this.#queues.values()) for (const { settle } of waiting.splice(0)) settle(ECANCELED)
  }

  #queueOf({ directory, isListing }: NameNotice): Queue {
    const key = `${isListing ? 'listing' : 'names'} ${directory}`
    let queue = this.#queues.get(key)
    if (queue === undefined) {
      queue = { key, waiting: [], thread: undefined, isStuck: false }
      this.#queues.set(key, queue)
    }
    return queue
  }

  /** Gives the thread what can be given. */
  #pump(): void {
    if (this.#isStopped) return
    for (const queue of this.#queues.values()) {
      if (queue.waiting.length === 0) continue
      if (queue.isStuck) this.#giveUp(queue)
      else this.#give(queue)
    }
    this.#watch()
  }

  #give(queue: Queue): void {
    const thread = this.#threadFor(queue)
    const since = performance.now()
    // Those who can have no thread have had their turn.
    if (thread === undefined) {
      if (queue.thread === undefined) for (const item of queue.waiting) item.since ??= since
      return
    }
    while (queue.waiting.length > 0 && thread.sent.length < IN_FLIGHT_MAX) {
      const item = queue.waiting.shift() as Item
      item.since ??= since
      if (thread.sent.length === 0) thread.headSince = since
      thread.sent.push({ item, queue })
      queue.thread = thread
      this.#sendNow(thread, item)
    }
  }

  /** @returns undefined while a directory has to wait for its own, or all threads are stuck */
  #threadFor(queue: Queue): Thread | undefined {
    if (this.#active === undefined && queue.thread === undefined && this.#threads.size < THREADS_MAX) this.#active = this.#start()
    return queue.thread === undefined || queue.thread === this.#active ? this.#active : undefined
  }

  #start(): Thread | undefined {
    try {
      const thread: Thread = { sender: this.#options.newSender(), sent: [], headSince: 0 }
      this.#threads.add(thread)
      return thread
    } catch (error) {
      this.#options.logger.warn({ err: error }, 'fuse: there is no thread for a notify: it waits for another')
      return undefined
    }
  }

  #sendNow(thread: Thread, item: Item): void {
    const attempt = ++item.attempt
    thread.sender.send([item.notice.bytes]).then(
      ([errno = ECANCELED]) => item.attempt === attempt && this.#ended(thread, () => item.settle(errno)),
      (error: unknown) => item.attempt === attempt && this.#ended(thread, () => item.fail(error)),
    )
  }

  /** A thread does one after the other, so this was its first. */
  #ended(thread: Thread, settle: () => void): void {
    const ended = thread.sent.shift()
    thread.headSince = performance.now()
    settle()
    if (ended === undefined) return
    const { queue } = ended
    const hasMore = thread.sent.some((other) => other.queue === queue)
    if (!hasMore) queue.thread = undefined
    queue.isStuck = false
    const wasStuck = thread !== this.#active
    if (wasStuck && thread.sent.length === 0) this.#release(thread)
    if (!hasMore && queue.waiting.length === 0) this.#queues.delete(queue.key)
    if (wasStuck || thread.sent.length === 0) this.#pump()
  }

  /** One that is not stuck any more. */
  #release(thread: Thread): void {
    if (this.#active === undefined) {
      this.#active = thread
    } else {
      thread.sender.stop()
      this.#threads.delete(thread)
    }
  }

  #watch(): void {
    if (this.#timer !== undefined || this.#queues.size === 0) return
    this.#lookedAt = performance.now()
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref()
  }

  #look(): void {
    const now = performance.now()
    const lateMs = now - this.#lookedAt - LOOK_MS
    this.#lookedAt = now
    if (lateMs > LATE_MS) this.#forgive(lateMs)
    for (const thread of this.#threads) this.#lookAt(thread, now)
    for (const queue of this.#queues.values()) {
      const since = queue.waiting[0]?.since
      if (since !== undefined && now - since > this.#deadlineMs) this.#giveUp(queue)
      else if (queue.waiting.length === 0 && queue.thread === undefined) this.#queues.delete(queue.key)
    }
    this.#pump()
    if (this.#queues.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** What the threads did while this process stood still is not heard of yet. */
  #forgive(lateMs: number): void {
    for (const thread of this.#threads) thread.headSince += lateMs
    for (const { waiting } of this.#queues.values())
      for (const item of waiting) if (item.since !== undefined) item.since += lateMs
  }

  #lookAt(thread: Thread, now: number): void {
    const head = thread.sent[0]
    if (head === undefined) return
    const ms = now - thread.headSince
    if (ms > SLOW_MS && thread === this.#active && this.#threads.size < THREADS_MAX) this.#leaveTo(thread)
    if (ms <= this.#deadlineMs || head.queue.isStuck) return
    this.#leaveTo(thread)
    head.queue.isStuck = true
    this.#giveUp(head.queue, head.item)
  }

  /** Leaves a thread to its first notify; the others go back to their queues. */
  #leaveTo(thread: Thread): void {
    if (thread === this.#active) this.#active = undefined
    const back = thread.sent.splice(thread.sent.length - thread.sender.takeBack())
    for (const { item, queue } of back.toReversed()) {
      item.attempt++
      queue.waiting.unshift(item)
      // The thread's first notify may be done, and its result not heard of yet: then the one in the kernel is another directory's.
      queue.thread = thread.sent.some((sent) => sent.queue === queue) ? thread : undefined
    }
  }

  /** Past the deadline. @param sent the one that waits in the kernel */
  #giveUp(queue: Queue, sent?: Item): void {
    const items = [...(sent === undefined ? [] : [sent]), ...queue.waiting].filter(({ isLate }) => !isLate)
    const [first] = items
    if (first === undefined) return
    for (const item of items) item.isLate = true
    const { directory, isListing } = first.notice
    const fields = { node: directory, waiting: items.length }
    if (isListing) {
      this.#options.logger.warn(fields, 'fuse: a process holds the listing of a directory: the others do not wait for it')
      // Once more when it is free: what the kernel reads until then may be of before.
      queue.waiting.splice(0, queue.waiting.length - 1)
      for (const { settle } of items) settle(0)
      return
    }
    this.#options.dropAllNames().then(
      (isDropped) => this.#covered(queue, items, fields, isDropped),
      (error: unknown) => items.forEach(({ fail }) => void fail(error)),
    )
  }

  /** @param isDropped whether the kernel now looks up all names again */
  #covered(queue: Queue, items: readonly Item[], fields: object, isDropped: boolean): void {
    const { logger } = this.#options
    if (!isDropped) {
      logger.error(fields, 'fuse: a process holds a directory, and this kernel cannot drop names without it (Linux 6.16 can)')
      return
    }
    logger.warn(fields, 'fuse: a process holds a directory: all names are looked up again')
    const left = queue.waiting.filter((item) => !items.includes(item))
    queue.waiting.splice(0, queue.waiting.length, ...left)
    for (const { settle } of items) settle(0)
  }
}
