/** A process that waits to serve, serves, or has served, as the supervisor sees it: what it is told, and what it tells. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { HEAP_ENVIRONMENT } from '../engine/memory.ts'
import { sendDescriptor, socketPair } from '../fuse/binding.ts'
import type { Asked, Told } from './serve.ts'

/** How a process ended. */
export interface Death {
  /** the last that it said, but for `alive` */
  told: Told | undefined
  /** both null of one that could not be started, or is not gone yet */
  signal: NodeJS.Signals | null
  status: number | null
  /** how long it had served; undefined when it never did */
  servedMs: number | undefined
  /** it was killed for not having said in time that it is ready, or that it begins */
  isOverdue: boolean
}

/** One that has not loaded its program by then, be the machine as busy as can be, hangs … */
const LOAD_MS_MAX = 60_000
/** … and so does one that was ready and does not begin. It may have to come back from swap. */
const BEGIN_MS_MAX = 5000
/** One that has closed everything, is dead and is not gone … */
const DEAD_POLL_MS = 20
/** … when it is looked so often in a row has a thread that does not go. */
const DEAD_LOOKS = 25

export class Child {
  /**
   * Resolves when all that it said has come, and it is gone, or dead but for a thread that waits in the kernel for an answer
   * which only the next process can give (fuse/native/notifier.c) and has none of its descriptors.
   */
  readonly death: Promise<Death>
  /** when it said something last, by `performance.now` */
  lastWord = performance.now()
  readonly #process: ChildProcess
  readonly #socket: number
  #told: Told | undefined
  #servesSince: number | undefined
  #isReady = false
  #isAsked = false
  #isOverdue = false
  #limit: NodeJS.Timeout | undefined
  #onTold: (told: Told) => void = () => undefined
  /** called once, when the process can begin at once or has ended */
  #onPrepared: () => void = () => undefined
  /** resolves when it can begin at once: true; or when it has ended: false */
  readonly prepared: Promise<boolean>

  /**
   * Starts a process, which does nothing before it is told `serve`.
   * @param words for Node: the program, its command, and flags
   * @param memory descriptor that `Handover.make` returned
   */
  constructor(words: readonly string[], memory: number) {
    const [ours, theirs] = socketPair()
    this.#socket = ours
    this.#process = spawn(process.execPath, words, {
      cwd: '/',
      env: { ...HEAP_ENVIRONMENT, ...process.env },
      stdio: ['ignore', 'inherit', 'inherit', theirs, memory, 'ipc'],
    })
    closeSync(theirs)
    this.prepared = new Promise((resolve) => {
      this.#onPrepared = () => resolve(this.#isReady)
    })
    this.#process.on('message', (told: Told) => this.#hear(told))
    this.#expectWithin(LOAD_MS_MAX)
    this.death = this.#untilDeath()
  }

  /** Dead, and not gone: a thread of it goes on (proc_pid_stat(5)). */
  get isZombie(): boolean {
    try {
      return /^State:\s+Z/m.test(readFileSync(`/proc/${this.pid}/status`, 'utf8'))
    } catch {
      return false
    }
  }

  /** Processor time that it has used, in ticks of the kernel; of all its threads (proc_pid_stat(5), fields 14 and 15). */
  get ticks(): number {
    try {
      const stat = readFileSync(`/proc/${this.pid}/stat`, 'latin1')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return Number(fields[11]) + Number(fields[12])
    } catch {
      return 0
    }
  }

  /** Nothing of it is left, or it never was. */
  get isGone(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null || this.pid === 0
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  /** It has loaded all that it needs. */
  get isReady(): boolean {
    return this.#isReady
  }

  /** Requests are answered. Before that, what a process does may take as long as the store is large. */
  get isServing(): boolean {
    return this.#servesSince !== undefined
  }

  /** Lets this process serve; `onTold` hears what it says from now on. */
  serve(onTold: (told: Told) => void): void {
    this.#onTold = onTold
    this.#isAsked = true
    this.ask({ ask: 'serve' })
    if (this.#isReady) this.#expectWithin(BEGIN_MS_MAX)
  }

  ask(asked: Asked): void {
    // One that is not there any more is seen by its end.
    if (this.#process.connected) this.#process.send(asked, () => undefined)
  }

  /** Lets it have a descriptor, of which it is told by `take the mount`. @throws a system error: EPIPE when it is gone */
  give(descriptor: number): void {
    sendDescriptor(this.#socket, descriptor)
    this.ask({ ask: 'take the mount' })
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }

  #hear(told: Told): void {
    this.lastWord = performance.now()
    if (told.told === 'alive') return
    this.#told = told
    if (told.told === 'ready') {
      this.#isReady = true
      this.#onPrepared()
      clearTimeout(this.#limit)
      if (this.#isAsked) this.#expectWithin(BEGIN_MS_MAX)
    }
    if (told.told === 'begun') clearTimeout(this.#limit)
    if (told.told === 'serving') this.#servesSince = performance.now()
    this.#onTold(told)
  }

  /** Kills it unless the next step is taken by then. */
  #expectWithin(ms: number): void {
    clearTimeout(this.#limit)
    this.#limit = setTimeout(() => {
      this.#isOverdue = true
      this.kill()
    }, ms).unref()
  }

  /** Its descriptors are closed by then: it has disconnected. */
  async #untilStuck(): Promise<void> {
    for (let looks = 0; looks < DEAD_LOOKS && !this.isGone; looks = this.isZombie ? looks + 1 : 0) await sleep(DEAD_POLL_MS)
  }

  async #untilDeath(): Promise<Death> {
    const child = this.#process
    const silent = new Promise<number>((resolve) => child.once('disconnect', () => resolve(performance.now())))
    const end = await new Promise<Pick<Death, 'status' | 'signal'> | Error>((resolve) => {
      child.once('exit', (status, signal) => resolve({ status, signal }))
      child.once('error', (error) => this.pid === 0 && resolve(error))
      void silent.then(() => this.#untilStuck()).then(() => resolve({ status: null, signal: null }))
    })
    const silentSince = end instanceof Error ? performance.now() : await silent
    clearTimeout(this.#limit)
    closeSync(this.#socket)
    child.unref()
    this.#isReady = false
    this.#onPrepared()
    const isOverdue = this.#isOverdue
    if (end instanceof Error) return { told: cannotStart(end), status: null, signal: null, servedMs: undefined, isOverdue }
    const servedMs = this.#servesSince === undefined ? undefined : silentSince - this.#servesSince
    return { told: this.#told, ...end, servedMs, isOverdue }
  }
}

/** No room for another process, or no program. */
function cannotStart(error: Error): Told {
  return { told: 'failed', code: 'NEXUS_UNSUPPORTED', message: `cannot start ${process.execPath}: ${error.message}` }
}

/** In words, such as `was ended by SIGKILL`. */
export function endOf({ told, status, signal, isOverdue }: Death): string {
  if (told?.told === 'failed') return `failed (${told.message})`
  if (isOverdue) return 'did not begin in time and was killed'
  if (signal !== null) return `was ended by ${signal}`
  return status === null ? 'died, and a thread of it still waits in the kernel' : `ended with ${status}`
}
