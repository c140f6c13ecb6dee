/**
 * Finds the processes that hold files of the mount for writing (vfs/holders.ts).
 *
 * Invariants:
 * - The thread that serves the mount never reads /proc for this. A look at the memory of a process waits in the kernel
 *   for as long as another filesystem of that process' user likes, so a child process looks, and is killed when it is
 *   silent for too long; another child goes on with the processes that are left.
 * - A user whose process cannot be looked into in time delays a look once a minute, whatever number of processes they have.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Logger } from '../logger.ts'
import type { Holders, Process } from '../vfs/holders.ts'
import type { Found } from './procscan.ts'

/** What the child says, a line each. */
export type ScanLine = { look: Process } | { found: Found } | { done: { seesAll: boolean } }

export interface HolderSearchOptions {
  /** of the filesystem, as `major:minor` in mountinfo */
  device: string
  logger: Logger
  /** how long the child may be silent */
  silenceMs?: number
  /** the program that looks */
  child?: string
}

const SILENCE_MS = 2000
/** The child has to start before it says anything. */
const START_MS = 20_000
/** A search ends, incomplete, when so many looks had to be killed. */
const STUCK_MAX = 8
/** Processes that could not be looked into are not tried again before. */
const STUCK_MS = 60_000

const CHILD = fileURLToPath(new URL('./procscan-child.js', import.meta.url))

/** How a child ended: it looked at all, it was stuck at a process, or it could not look. */
type End = 'done' | 'failed' | Process

export class HolderSearch {
  readonly #options: HolderSearchOptions
  #running: Promise<Holders> | undefined
  #next: Promise<Holders> | undefined
  #stuck: { process: Process; until: number }[] = []

  constructor(options: HolderSearchOptions) {
    this.#options = options
  }

  /** Looks once, at what is so from now on: a search that runs already may have passed what changed since it began. */
  look(): Promise<Holders> {
    if (this.#running === undefined) return this.#begin()
    this.#next ??= this.#running.then(() => {
      this.#next = undefined
      return this.#begin()
    })
    return this.#next
  }

  #begin(): Promise<Holders> {
    const running = this.#search().finally(() => {
      if (this.#running === running) this.#running = undefined
    })
    this.#running = running
    return running
  }

  async #search(): Promise<Holders> {
    const now = performance.now()
    this.#stuck = this.#stuck.filter(({ until }) => until > now)
    for (let looks = 0; looks < STUCK_MAX; looks++) {
      const look = new Look(this.#options, this.#skipped())
      const end = await look.end
      if (end === 'done') return this.#answer(look, look.seesAll)
      if (end === 'failed') return this.#answer(look, false)
      this.#options.logger.warn(
        { pid: end.pid, uid: end.uid },
        'a process cannot be looked into: it counts as one that has files open for writing',
      )
      this.#stuck.push({ process: end, until: performance.now() + STUCK_MS })
    }
    return { holders: [], unreadable: this.#stuckProcesses(), isComplete: false }
  }

  #answer({ holders, unreadable }: Look, isComplete: boolean): Holders {
    return { holders, unreadable: [...unreadable, ...this.#stuckProcesses()], isComplete }
  }

  #stuckProcesses(): Process[] {
    return this.#stuck.map(({ process }) => process)
  }

  /** Words for the child: of root single processes, of other users all that they have. */
  #skipped(): string[] {
    return this.#stuckProcesses().map(({ pid, uid }) => (uid === 0 ? String(pid) : `${pid},${uid}`))
  }
}

/** One child, from its start to its end. */
class Look {
  readonly holders: Holders['holders'] = []
  readonly unreadable: Process[] = []
  readonly end: Promise<End>
  seesAll = false
  #looked: Process | undefined
  #isDone = false
  #said = ''

  constructor({ device, logger, silenceMs = SILENCE_MS, child: program = CHILD }: HolderSearchOptions, skip: readonly string[]) {
    const child = spawn(process.execPath, [program, device, ...skip], { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] })
    this.end = new Promise((resolve) => {
      const finish = (isSilent: boolean): void => {
        clearTimeout(timer)
        if (!this.#isDone && !(isSilent && this.#looked !== undefined)) {
          logger.error({ said: this.#said.slice(0, 500) }, 'the processes that have files open for writing cannot be looked for')
        }
        resolve(this.#isDone ? 'done' : ((isSilent ? this.#looked : undefined) ?? 'failed'))
      }
      const giveUp = (): void => {
        // It may wait in the kernel for long. The search goes on without it.
        child.kill('SIGKILL')
        child.stdout.destroy()
        child.stderr.destroy()
        child.unref()
        finish(true)
      }
      let timer = setTimeout(giveUp, START_MS)
      createInterface({ input: child.stdout }).on('line', (text) => {
        clearTimeout(timer)
        timer = setTimeout(giveUp, silenceMs)
        this.#hear(JSON.parse(text) as ScanLine)
      })
      child.stderr.on('data', (text: Buffer) => {
        this.#said += text.toString()
      })
      child.once('error', (error) => {
        this.#said += error.message
        finish(false)
      })
      child.once('close', () => finish(false))
    })
  }

  #hear(line: ScanLine): void {
    if ('look' in line) {
      this.#looked = line.look
    } else if ('found' in line) {
      const { process: looked, holders, isReadable } = line.found
      if (isReadable) this.holders.push(...holders)
      else this.unreadable.push(looked)
    } else {
      this.#isDone = true
      this.seesAll = line.done.seesAll
    }
  }
}
