/**
 * Names of workspaces that the kernel keeps until it is told otherwise, and how it is told: it shows them to everybody who
 * may enter their directory, without asking.
 *
 * Telling it once is not enough. A thread that walks through a name it knows already asks for that name without any lock,
 * and sets the lifetime that it was answered when it is scheduled again: it may do so after a later notify, and undo it.
 * So each such answer is remembered until its thread is heard again. It will be soon, since the answer makes it ask for
 * the attributes. When a name is to end before that, the kernel is told twice.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { nodeOf } from './place.ts'

export interface NameExpiry {
  /** the kernel asks for the name again when somebody comes by; nothing below it is dropped */
  expireEntry(parent: number, name: string): Promise<void>
}

export interface GateName {
  /** inode of its directory, in volume 0 */
  directory: number
  name: string
}

/** Longest wait for a thread that runs, or wants to: on a busy machine it may be a while before it has the answer. */
const SETTLE_MS = 2000
const POLL_MS = 2
const ANSWERS_MAX = 64

/** An answer that its thread may not have taken yet. */
interface Answered {
  volume: number
  thread: number
  at: number
  isTaken: boolean
}

export class LastingNames {
  readonly #kernel: NameExpiry
  readonly #nameOf: (volume: number) => GateName | undefined
  readonly #isRunnable: (thread: number) => boolean
  /** by workspace, the directory where its name is kept */
  readonly #kept = new Map<number, number>()
  readonly #ending = new Set<Promise<void>>()
  #answers: Answered[] = []

  constructor(kernel: NameExpiry, nameOf: (volume: number) => GateName | undefined, runnable = isRunnable) {
    this.#kernel = kernel
    this.#nameOf = nameOf
    this.#isRunnable = runnable
  }

  has(volume: number, directory: number): boolean {
    return this.#kept.get(volume) === directory
  }

  /** The kernel is told that it may keep a name. @param thread that takes the answer without a lock */
  keep(volume: number, directory: number, thread?: number): void {
    this.#kept.set(volume, directory)
    if (thread === undefined) return
    if (this.#answers.length >= ANSWERS_MAX) this.#answers = this.#answers.filter(isOpen)
    this.#answers.push({ volume, thread, at: performance.now(), isTaken: false })
  }

  /** A thread asks for something, so it has taken what it was answered before. */
  heard(thread: number): void {
    if (this.#answers.length === 0 || thread === 0) return
    for (const answer of this.#answers) if (answer.thread === thread) answer.isTaken = true
    this.#answers = this.#answers.filter(isOpen)
  }

  in(directory: number): number[] {
    return [...this.#kept].filter(([, at]) => at === directory).map(([volume]) => volume)
  }

  /** Resolves when the kernel keeps the names of these workspaces no longer. From now on `has` is false. */
  expire(volumes: Iterable<number>): Promise<void> {
    // Also those that are not kept as far as we know: it costs little, and nobody sees a name for long that should be gone.
    const told = [...volumes]
    for (const volume of told) this.#kept.delete(volume)
    if (told.length === 0) return Promise.resolve()
    const ending = this.#tell(told).finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
    return ending
  }

  /** Resolves when all that is about to expire now has. */
  async expired(): Promise<void> {
    await Promise.all(this.#ending)
  }

  async #tell(volumes: readonly number[]): Promise<void> {
    const answers = this.#answers.filter((answer) => isOpen(answer) && volumes.includes(answer.volume))
    await this.#tellOnce(volumes)
    // One that was taken meanwhile may have been taken after the kernel was told.
    if (answers.length === 0) return
    for (;;) {
      // The answer woke it: if it sleeps now, it has been running since.
      for (const answer of answers) if (isOpen(answer) && !this.#isRunnable(answer.thread)) answer.isTaken = true
      if (!answers.some(isOpen)) break
      await delay(POLL_MS)
    }
    await this.#tellOnce([...new Set(answers.map(({ volume }) => volume))])
  }

  /** A rename may overtake the notify: then it named nothing. */
  async #tellOnce(volumes: readonly number[]): Promise<void> {
    for (let left = volumes; left.length > 0; ) {
      const told = left.map((volume) => ({ volume, at: this.#nameOf(volume) }))
      await Promise.all(told.map(({ at }) => at && this.#kernel.expireEntry(nodeOf(0, at.directory), at.name)))
      left = told.filter(({ volume, at }) => !isSame(at, this.#nameOf(volume))).map(({ volume }) => volume)
    }
  }
}

function isOpen({ isTaken, at }: Answered): boolean {
  return !isTaken && performance.now() - at < SETTLE_MS
}

function isSame(a: GateName | undefined, b: GateName | undefined): boolean {
  return a?.directory === b?.directory && a?.name === b?.name
}

/** False when a thread sleeps or is gone. Threads of other pid namespaces have no number here: nobody knows. */
function isRunnable(thread: number): boolean {
  if (thread === 0) return true
  try {
    const stat = readFileSync(`/proc/${thread}/stat`, 'latin1')
    return stat.charAt(stat.lastIndexOf(')') + 2) === 'R'
  } catch {
    return false
  }
}
