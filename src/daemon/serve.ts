/**
 * The process that serves a mount for the supervisor which keeps it (supervisor.ts): it may die at any time, and the
 * next one goes on.
 */
import { builtinModel } from '../acl/model.ts'
import { keepHeapSmall } from '../engine/memory.ts'
import { type ErrorCode, NexusError } from '../errors.ts'
import { dieWithParent, receiveDescriptor } from '../fuse/binding.ts'
import type { SubjectLimits } from '../workspaces/subjectlimits.ts'
import { type Daemon, makeLogger, startDaemon, type Why } from './daemon.ts'
import { Handover } from './handover.ts'

/** Descriptors that a serving process inherits. */
export const SOCKET_FD = 3
export const MEMORY_FD = 4

/** From the serving process. */
export type Told =
  /** everything is loaded that can be before anybody has to be served: it waits for `serve` */
  | { told: 'ready' }
  /** it was told to serve, and opens the store */
  | { told: 'begun' }
  /** the store is open: send the descriptor of the mount */
  | { told: 'opened' }
  | { told: 'serving'; canBeReplaced: boolean }
  /** again and again while it serves: its event loop turns */
  | { told: 'alive' }
  | { told: 'failed'; code: ErrorCode; message: string }
  /** and it exits now */
  | { told: 'unmounted'; why: Why }
  | { told: 'handed over' }

/** To the serving process. */
export type Asked = { ask: 'serve' | 'take the mount' | 'stop' | 'hand over' }

export interface ServeOptions {
  mountpoint: string
  data: string
  singleUser: boolean
  /** whether the mount lets set-id bits and file capabilities take effect, and device files be used */
  suid: boolean
  dev: boolean
  rebuildIndex: boolean
  /** bytes that the serving process may have */
  memory: number
  /** where to serve GET /metrics (scrape.ts) */
  metrics?: string | undefined
  /** how many seconds a request may wait for its answer before it gets EIO; the session's own limit when not given */
  requestTimeout?: number | undefined
  /** whether virtual processors may be kept from halting while requests come (haltpoll.ts) */
  haltPoll: boolean
  /** how much each subject may have; the usual limits when not given */
  subjectLimits?: SubjectLimits | undefined
}

const ALIVE_MS = 1000

/** What ends the supervisor, which decides: a terminal and systemd send these to all processes of a group. */
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

/**
 * Loads everything, waits until it is needed, and serves until the end.
 * @throws NexusError NEXUS_USAGE when no supervisor has started it
 */
export async function serve(options: ServeOptions): Promise<void> {
  if (process.send === undefined) {
    throw new NexusError('NEXUS_USAGE', 'serve is for nexusd itself: use "nexusd mount"')
  }
  keepHeapSmall()
  endWithSupervisor()
  for (const signal of SIGNALS) process.on(signal, () => undefined)
  const asked = new Asks()
  try {
    // Whatever can fail without the store does so before anybody counts on this process.
    const logger = makeLogger()
    const handover = new Handover(MEMORY_FD)
    builtinModel()
    tell({ told: 'ready' })
    await asked.toServe
    tell({ told: 'begun' })
    const daemon = await startDaemon({
      ...options,
      logger,
      handover,
      supervisor: process.ppid,
      mount: async () => {
        tell({ told: 'opened' })
        await asked.theMount
        return receiveDescriptor(SOCKET_FD)
      },
    })
    tell({ told: 'serving', canBeReplaced: daemon.canBeReplaced })
    asked.ofDaemon(daemon)
    const alive = setInterval(() => tell({ told: 'alive' }), ALIVE_MS)
    const why = await daemon.ended
    clearInterval(alive)
    tell(why === 'replaced' ? { told: 'handed over' } : { told: 'unmounted', why })
  } catch (error) {
    const { code, message } = error instanceof NexusError ? error : unexpected(error)
    tell({ told: 'failed', code, message })
  }
  process.off('disconnect', end)
  // What it had to say must be out.
  process.disconnect()
}

/** By the kernel, and for one that the kernel did not know in time to be its parent, by the end of the channel. */
function endWithSupervisor(): void {
  process.on('disconnect', end)
  dieWithParent(process.ppid)
  if (!process.connected) end()
}

function end(): never {
  process.exit(1)
}

/** What the supervisor asks for, be the daemon ready or not. */
class Asks {
  readonly toServe: Promise<void>
  readonly theMount: Promise<void>
  #onServe: () => void = () => undefined
  #onMount: () => void = () => undefined
  #daemon: Daemon | undefined
  #early: Asked | undefined

  constructor() {
    this.toServe = new Promise((resolve) => {
      this.#onServe = resolve
    })
    this.theMount = new Promise((resolve) => {
      this.#onMount = resolve
    })
    process.on('message', (asked: Asked) => this.#take(asked))
  }

  ofDaemon(daemon: Daemon): void {
    this.#daemon = daemon
    if (this.#early !== undefined) this.#take(this.#early)
  }

  #take(asked: Asked): void {
    if (asked.ask === 'serve') this.#onServe()
    else if (asked.ask === 'take the mount') this.#onMount()
    else if (this.#daemon === undefined) this.#early = asked
    else if (asked.ask === 'stop') this.#daemon.stop()
    else this.#daemon.handOver()
  }
}

function tell(told: Told): void {
  // A supervisor that is gone takes this process with it.
  process.send?.(told, undefined, undefined, () => undefined)
}

function unexpected(error: unknown): NexusError {
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return new NexusError('NEXUS_INTERNAL', `unexpected failure: ${what}`)
}
