/**
 * Finds the processes that hold files of the mount for writing (vfs/holders.ts).
 *
 * Invariants:
 * - The thread that serves the mount never reads /proc for this. A look at the memory of a process waits in the kernel
 *   for as long as another filesystem of that process' user likes, so a child process looks, and is killed when it is
 *   silent for too long; another child goes on with the processes that are left.
 * - A user whose process cannot be looked into in time delays a look once a minute, whatever number of processes they have.
 *
 * Most of a first look is the start of the child, so it stays for a while and is asked again.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Logger } from '../logger.ts'
import type { Holders, Process } from '../vfs/holders.ts'
import type { Watches } from '../vfs/watches.ts'
import type { ScanResult } from './procscan.ts'

/** What the child is asked, a line each: for holders, and what not to look into; or for what is watched (procscan-child.ts). */
export type ScanQuestion = { skip: string[] } | 'watches'

/** What it says, a line each; `done` is the last of an answer, `watches` the only one. */
export type ScanLine = { look: Process } | { found: ScanResult } | { done: { seesAll: boolean } } | { watches: FoundWatches }

interface FoundWatches {
  nodes: number[]
  leased: number[]
  isComplete: boolean
}

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
/** The child may have to start before it says anything. */
const START_MS = 20_000
/** A search ends, incomplete, when so many looks had to be killed. */
const STUCK_MAX = 8
/** Processes that could not be looked into are not tried again before. */
const STUCK_MS = 60_000

/** A child that is not asked again ends after this. */
const KEEP_MS = 10_000

const CHILD = fileURLToPath(new URL('./procscan-child.js', import.meta.url))

/** How a child ended: it looked at all, it was stuck at a process, or it could not look. */
type End = 'done' | 'failed' | Process

export class HolderSearch {
  readonly #options: HolderSearchOptions
  #running: Promise<Holders> | undefined
  #next: Promise<Holders> | undefined
  /** the child is asked one thing after the other */
  #turn: Promise<unknown> = Promise.resolve()
  #stuck: { process: Process; until: number }[] = []
  #child: Child | undefined
  #isStopped = false

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

  /** @returns undefined when something may be watched that cannot be seen */
  watches(): Promise<Watches | undefined> {
    return this.#inTurn(async () => {
      if (this.#isStopped) return undefined
      const found = await this.#usableChild().watches()
      if (found?.isComplete !== true) return undefined
      return { nodes: new Set(found.nodes), leased: new Set(found.leased) }
    })
  }

  /** Ends the child; a search that runs ends incomplete. */
  stop(): void {
    this.#isStopped = true
    this.#child?.end()
  }

  #begin(): Promise<Holders> {
    const running = this.#inTurn(() => this.#search()).finally(() => {
      if (this.#running === running) this.#running = undefined
    })
    this.#running = running
    return running
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(run, run)
    this.#turn = turn
    return turn
  }

  #usableChild(): Child {
    if (this.#child?.isUsable !== true) this.#child = new Child(this.#options)
    return this.#child
  }

  async #search(): Promise<Holders> {
    const now = performance.now()
    this.#stuck = this.#stuck.filter(({ until }) => until > now)
    for (let looks = 0; looks < STUCK_MAX && !this.#isStopped; looks++) {
      const look = await this.#usableChild().look(this.#skipped())
      if (look.end === 'done') return this.#answer(look, look.seesAll)
      if (look.end === 'failed') return this.#answer(look, false)
      this.#options.logger.warn(
        { pid: look.end.pid, uid: look.end.uid },
        'a process cannot be looked into: it counts as one that has files open for writing',
      )
      this.#stuck.push({ process: look.end, until: performance.now() + STUCK_MS })
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

/** What one look of a child has found. */
interface Look {
  holders: Holders['holders']
  unreadable: Process[]
  end: End
  seesAll: boolean
}

/** A process that looks, as often as it is asked, one look after the other. */
class Child {
  readonly #options: HolderSearchOptions
  readonly #process: ChildProcess
  #look: (Look & { looked?: Process; resolve: (look: Look) => void }) | undefined
  #watching: ((found: FoundWatches | undefined) => void) | undefined
  /** of the silence while it looks, and of the pause after that */
  #timer: NodeJS.Timeout | undefined
  #hasEnded = false
  #said = ''

  constructor(options: HolderSearchOptions) {
    this.#options = options
    const { device, child: program = CHILD } = options
    const child = spawn(process.execPath, [program, device], { cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] })
    this.#process = child
    createInterface({ input: child.stdout }).on('line', (text) => this.#hear(JSON.parse(text) as ScanLine))
    child.stderr.on('data', (text: Buffer) => {
      this.#said += text.toString()
    })
    // One that has ended cannot be asked; that is told by its end.
    child.stdin.on('error', () => undefined)
    child.once('error', (error) => {
      this.#said += error.message
      this.#ended()
    })
    child.once('close', () => this.#ended())
  }

  /** Whether it can be asked. */
  get isUsable(): boolean {
    return !this.#hasEnded && this.#look === undefined && this.#watching === undefined
  }

  /** Never rejects. */
  look(skip: string[]): Promise<Look> {
    return new Promise((resolve) => {
      this.#look = { holders: [], unreadable: [], end: 'failed', seesAll: false, resolve }
      this.#ask({ skip })
    })
  }

  /** Never rejects. @returns undefined when it could not be found out */
  watches(): Promise<FoundWatches | undefined> {
    return new Promise((resolve) => {
      this.#watching = resolve
      this.#ask('watches')
    })
  }

  #ask(question: ScanQuestion): void {
    this.#keepsRunning(true)
    this.#wait(START_MS)
    this.#process.stdin?.write(`${JSON.stringify(question)}\n`)
  }

  /** It may wait in the kernel for long; nothing waits for it. */
  end(): void {
    this.#process.kill('SIGKILL')
    this.#process.stdout?.destroy()
    this.#process.stderr?.destroy()
    this.#keepsRunning(false)
    this.#answer('failed')
    this.#ended()
  }

  #hear(line: ScanLine): void {
    if ('watches' in line) {
      this.#watched(line.watches)
      this.#rest()
      return
    }
    const look = this.#look
    if (look === undefined) return
    this.#wait(this.#options.silenceMs ?? SILENCE_MS)
    if ('look' in line) {
      look.looked = line.look
    } else if ('found' in line) {
      const { process: looked, holders, isReadable } = line.found
      if (isReadable) look.holders.push(...holders)
      else look.unreadable.push(looked)
    } else {
      look.seesAll = line.done.seesAll
      this.#answer('done')
      this.#rest()
    }
  }

  /** It has answered, and may be asked again. */
  #rest(): void {
    this.#keepsRunning(false)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.end(), KEEP_MS).unref()
  }

  #watched(found: FoundWatches | undefined): void {
    const resolve = this.#watching
    this.#watching = undefined
    resolve?.(found)
  }

  /** Gives up when nothing is heard for so long. */
  #wait(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      const looked = this.#look?.looked
      if (looked === undefined) this.#ended()
      else this.#answer(looked)
      this.end()
    }, ms)
  }

  #ended(): void {
    this.#hasEnded = true
    clearTimeout(this.#timer)
    this.#watched(undefined)
    if (this.#look === undefined) return
    const said = this.#said.slice(0, 500)
    this.#options.logger.error({ said }, 'the processes that have files open for writing cannot be looked for')
    this.#answer('failed')
  }

  #answer(end: End): void {
    clearTimeout(this.#timer)
    const look = this.#look
    this.#look = undefined
    look?.resolve({ ...look, end })
  }

  /** Whether this process goes on for the child's sake. */
  #keepsRunning(does: boolean): void {
    const { stdin, stdout, stderr } = this.#process
    const handles = [this.#process, ...[stdin, stdout, stderr].filter((stream) => stream instanceof Socket)]
    for (const handle of handles) does ? handle.ref() : handle.unref()
  }
}
