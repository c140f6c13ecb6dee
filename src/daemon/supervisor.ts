/**
 * What keeps a mount alive: it holds the kernel's descriptor, and the memory that a serving process leaves to the next
 * (handover.ts), and starts another when the one that serves dies. It does nothing else, so that nothing else can end it.
 */
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { HEAP_FLAGS } from '../engine/memory.ts'
import { NexusError } from '../errors.ts'
import { nexusMounts } from '../host/mounts.ts'
import type { Logger } from '../logger.ts'
import { Child, type Death, endOf } from './child.ts'
import type { Why } from './daemon.ts'
import { Handover } from './handover.ts'
import { abort, mountFilesystem, unmount } from './mountpoint.ts'
import { usePriority } from './priority.ts'
import type { Asked, ServeOptions } from './serve.ts'
import { Standby } from './standby.ts'

/** Who dies sooner after he began to serve did not really serve. */
const QUICK_DEATH_MS = 200
/** So many of those in a row are enough; the mount is given up. */
const QUICK_DEATHS_MAX = 5
const RESTART_PAUSE_MS = 50
/** One that serves and says nothing for so long hangs, and is killed. */
const SILENCE_MS_MAX = 60_000
/**
 * One that is dead and does not close its descriptors has a thread that waits for the disk, which may be slow, or for an
 * answer which only the next could give, and never will, because those hold locks of the store.
 */
const DEAD_MS_MAX = 60_000
/** By then the log says so. */
const DEAD_MS_TOLD = 5000
const WATCH_MS = 1000
/** The disk may hang for a while, and a long log takes a while to read: but then something is done. */
export const ABORT_AFTER_S = 300
/** Of an end that nobody but the serving process knows about. */
const WHY_IN_WORDS: Record<Exclude<Why, 'signal'>, string> = {
  command: 'nexusd unmount asked for it',
  unmounted: 'umount or fusermount3 unmounted it',
  aborted: 'its connection was aborted',
  broken: 'the descriptor of the mount is broken',
  replaced: 'another process goes on',
}
/** A process that was asked to end, or to hand over, and has not. */
const STOP_MS_MAX = 60_000

export interface Supervised {
  /** resolves when the mount answers; rejects with NexusError, and then nothing is mounted and nothing was changed */
  started: Promise<void>
  /**
   * Resolves when it is unmounted and everything stored, with why in words; rejects with NexusError when the mount had to be
   * given up.
   */
  ended: Promise<string>
  /** @param signal that asked for it */
  stop(signal: NodeJS.Signals): void
  /** Starts the program that is installed now in place of the one that serves. */
  upgrade(): void
}

export interface SuperviseOptions extends ServeOptions {
  /** the program that has the command `serve` */
  script: string
  /** whether a process shall wait to take over, which costs its memory */
  standby: boolean
  /** the mount is aborted when nobody has served for so long, and who is to serve has used no processor time */
  abortAfterMs: number
  logger: Logger
}

/** Starts a serving process and mounts. */
export function supervise(options: SuperviseOptions): Supervised {
  const supervisor = new Supervisor(options)
  const started = supervisor.start()
  const ended = started.then(() => supervisor.ended())
  // Who waits for the start hears of its failure there.
  ended.catch(() => undefined)
  return {
    started,
    ended,
    stop: (signal) => supervisor.stop(signal),
    upgrade: () => supervisor.upgrade(),
  }
}

class Supervisor {
  readonly #options: SuperviseOptions
  readonly #memory = Handover.make()
  #mount: { fd: number; device: string | undefined } | undefined
  /** why there is no mount */
  #failure: unknown
  readonly #standby: Standby
  #child: Child | undefined
  #death: Promise<Death> = new Promise(() => undefined)
  /** those that were dead before they were gone */
  readonly #stuck: Child[] = []
  #canBeReplaced = false
  #isStopping = false
  #signal: NodeJS.Signals | undefined
  /** called once the mount is aborted: nobody waits for a process any more that may never end */
  #onAborted: () => void = () => undefined
  readonly #aborted = new Promise<void>((resolve) => {
    this.#onAborted = resolve
  })
  #timer: NodeJS.Timeout | undefined

  constructor(options: SuperviseOptions) {
    this.#options = options
    const { logger, standby: isWanted } = options
    this.#standby = new Standby({ start: () => this.#startWaiting(), logger, isWanted })
  }

  async start(): Promise<void> {
    const served = this.#letServe(this.#start(this.#options.rebuildIndex))
    const death = await Promise.race([served, this.#death])
    if (death === undefined) {
      if (!this.#canBeReplaced) {
        this.#options.logger.warn({}, 'this kernel cannot send requests again (Linux 6.9 can): if nexusd dies, the mount ends')
      }
      return
    }
    await this.#release()
    throw this.#failure ?? failureOf(death)
  }

  /** Starts processes until one of them ends as it should. @returns why, in words */
  async ended(): Promise<string> {
    let quickDeaths = 0
    for (;;) {
      const death = await Promise.race([this.#death, this.#aborted])
      clearTimeout(this.#timer)
      if (death === undefined) {
        if (this.#child !== undefined) this.#stuck.push(this.#child)
        // A child that is only stopped (SIGSTOP) would keep this process alive until it is overdue.
        this.#child?.kill()
        await this.#release()
        throw new NexusError('NEXUS_INTERNAL', 'the mount was aborted: no process could serve it; nothing acknowledged is lost')
      }
      if (this.#child?.isGone === false) this.#stuck.push(this.#child)
      if (death.told?.told === 'unmounted' || (this.#isStopping && death.told?.told === 'handed over')) {
        await this.#release()
        return this.#inWords(death.told.told === 'unmounted' ? death.told.why : 'signal')
      }
      const isHandedOver = death.told?.told === 'handed over'
      quickDeaths = isHandedOver || (death.servedMs ?? 0) >= QUICK_DEATH_MS ? 0 : quickDeaths + 1
      if (this.#isStopping || !this.#canBeReplaced || quickDeaths >= QUICK_DEATHS_MAX) {
        await this.#release()
        throw givenUp(death, quickDeaths)
      }
      if (!isHandedOver) {
        this.#options.logger.error({ served_ms: death.servedMs }, `the serving process ${endOf(death)}: another takes over`)
      }
      if (quickDeaths > 0) await sleep(RESTART_PAUSE_MS * 2 ** quickDeaths)
      void this.#letServe(this.#standby.take() ?? this.#start(false))
    }
  }

  #inWords(why: Why): string {
    return why === 'signal' ? `it was sent ${this.#signal ?? 'a signal'}` : WHY_IN_WORDS[why]
  }

  stop(signal: NodeJS.Signals): void {
    this.#signal ??= signal
    this.ask({ ask: 'stop' })
  }

  ask(asked: Asked): void {
    if (this.#isStopping) return
    this.#isStopping = asked.ask === 'stop'
    if (this.#isStopping) this.#standby.close()
    this.#child?.ask(asked)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#options.logger.error({ asked: asked.ask }, `the serving process did not end within ${STOP_MS_MAX / 1000} s: killed`)
      this.#child?.kill()
    }, STOP_MS_MAX).unref()
  }

  /** The one that serves ends when the next one is ready: a program that cannot start changes nothing. */
  upgrade(): void {
    if (this.#isStopping) return
    const { logger } = this.#options
    if (!this.#canBeReplaced) {
      logger.error({}, 'this kernel cannot send requests again (Linux 6.9 can): unmount, and mount again, to change the program')
      return
    }
    try {
      const next = this.#standby.renew()
      void next.prepared.then((isReady) => {
        // Another took its place, or it serves already, because the one before it died.
        if (!this.#standby.isKept(next)) return
        if (isReady) this.ask({ ask: 'hand over' })
        else logger.error({}, 'the program that is installed now cannot start: the one that serves goes on')
      })
    } catch (error) {
      logger.error({ err: error }, 'the program that is installed now cannot be started: the one that serves goes on')
    }
  }

  #start(rebuildIndex: boolean): Child {
    return new Child([...HEAP_FLAGS, ...process.execArgv, ...this.#words(rebuildIndex)], this.#memory)
  }

  #startWaiting(): Child {
    const child = this.#start(false)
    this.#setPriority(child, 'low')
    return child
  }

  #setPriority(child: Child, priority: 'low' | 'normal'): void {
    try {
      usePriority(child.pid, priority)
    } catch (error) {
      this.#options.logger.warn(
        { err: error, priority },
        'the priority of a process could not be set: it goes on with what it has',
      )
    }
  }

  /** @returns when it serves */
  #letServe(child: Child): Promise<undefined> {
    this.#child = child
    this.#death = child.death
    const slow = this.#tellWhileStarting()
    void child.death.then(() => clearInterval(slow))
    this.#watch(child)
    return new Promise((resolve) => {
      child.serve((told) => {
        if (told.told === 'opened') this.#giveMount(child)
        if (told.told !== 'serving') return
        clearInterval(slow)
        this.#canBeReplaced = told.canBeReplaced
        if (told.canBeReplaced && !this.#isStopping) this.#standby.keep()
        resolve(undefined)
      })
      this.#setPriority(child, 'normal')
    })
  }

  /** While a process opens the store to take the mount over, everybody waits: a log may be long, and a disk may hang. */
  #tellWhileStarting(): NodeJS.Timeout | undefined {
    if (this.#mount === undefined) return undefined
    const begun = performance.now()
    return setInterval(() => {
      const waited_s = Math.round((performance.now() - begun) / 1000)
      this.#options.logger.error({ waited_s }, 'the next process still opens the store, and all requests wait: look at its disk')
    }, SILENCE_MS_MAX).unref()
  }

  /**
   * What cannot end is let go with the mount, also when it never got to serve, what serves and hangs is killed, and when
   * neither it nor the next does anything, the mount is aborted: nobody waits for ever.
   */
  #watch(child: Child): void {
    const { logger, abortAfterMs } = this.#options
    let deadSince: number | undefined
    let isTold = false
    let lastTicks = -1
    let idleSince = performance.now()
    const watching = setInterval(() => {
      const now = performance.now()
      if (child.isZombie) deadSince ??= now
      const deadMs = deadSince === undefined ? 0 : now - deadSince
      if (deadMs > DEAD_MS_TOLD && !isTold) {
        isTold = true
        logger.error({}, 'the serving process is dead and not gone yet, and all requests wait: look at its disk')
      }
      const { ticks } = child
      if (ticks !== lastTicks || (child.isServing && now - child.lastWord < SILENCE_MS_MAX)) idleSince = now
      lastTicks = ticks
      if (deadMs > DEAD_MS_MAX) {
        clearInterval(watching)
        this.#abort('the serving process is dead and does not end: the mount is aborted')
      } else if (now - idleSince > abortAfterMs && this.#mount !== undefined) {
        clearInterval(watching)
        const s = Math.round(abortAfterMs / 1000)
        this.#abort(`no process serves, and the one that is to serve has done nothing for ${s} s: the mount is aborted`)
        this.#onAborted()
      } else if (child.isServing && now - child.lastWord > SILENCE_MS_MAX) {
        logger.error({}, `the serving process has not moved for ${SILENCE_MS_MAX / 1000} s: killed`)
        child.lastWord = now
        child.kill()
      }
    }, WATCH_MS).unref()
    void child.death.then(() => clearInterval(watching))
  }

  /** Whoever waits for an answer gets ECONNABORTED. */
  #abort(why: string): void {
    if (this.#mount?.device === undefined) return
    this.#options.logger.error({}, why)
    abort(this.#options.mountpoint, this.#mount.device)
    this.#isStopping = true
  }

  #words(rebuildIndex: boolean): string[] {
    const { script, mountpoint, data, singleUser, memory, metrics, requestTimeout, haltPoll, suid, dev, subjectLimits } =
      this.#options
    const flags = [...(singleUser ? ['--single-user'] : []), ...(rebuildIndex ? ['--rebuild-index'] : [])]
    if (!haltPoll) flags.push('--no-halt-poll')
    if (suid) flags.push('--suid')
    if (dev) flags.push('--dev')
    if (metrics !== undefined) flags.push('--metrics', metrics)
    for (const [what, limit] of Object.entries(subjectLimits ?? {})) {
      flags.push(`--max-${what}`, Number.isFinite(limit) ? String(limit) : 'none')
    }
    if (requestTimeout !== undefined) flags.push('--request-timeout', String(requestTimeout))
    return [script, 'serve', mountpoint, '--data', data, '--memory', String(memory), ...flags]
  }

  /** Mounts, unless it is mounted, and lets a process serve it. */
  #giveMount(child: Child): void {
    try {
      this.#mount ??= this.#makeMount()
      child.give(this.#mount.fd)
      if (this.#isStopping) child.ask({ ask: 'stop' })
    } catch (error) {
      this.#failure = error
      child.kill()
    }
  }

  #makeMount(): { fd: number; device: string | undefined } {
    const { mountpoint, data, singleUser, suid, dev } = this.#options
    const fd = mountFilesystem(mountpoint, { data, singleUser, suid, dev })
    return { fd, device: nexusMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device }
  }

  /** Frees the mountpoint, should it still be ours. */
  async #release(): Promise<void> {
    this.#isStopping = true
    this.#standby.close()
    const { mountpoint, logger } = this.#options
    if (this.#mount !== undefined) {
      const { fd, device } = this.#mount
      // What waits in there for an answer has the mount's descriptor too, so that closing ours would not end it.
      if (device !== undefined && this.#stuck.some((child) => !child.isGone)) abort(mountpoint, device)
      const isOurs = nexusMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device === device
      if (isOurs)
        await unmount(mountpoint, true).catch((error: unknown) => logger.warn({ err: error }, `umount -l ${mountpoint}`))
      // The last one: whoever still waits for an answer gets an error.
      closeSync(fd)
    }
    closeSync(this.#memory)
  }
}

function failureOf(death: Death): NexusError {
  if (death.told?.told === 'failed') return new NexusError(death.told.code, death.told.message)
  return new NexusError('NEXUS_INTERNAL', `the serving process ${endOf(death)} before it served`)
}

function givenUp(death: Death, quickDeaths: number): NexusError {
  const why = death.told?.told === 'failed' ? death.told.message : `the serving process ${endOf(death)}`
  const again = quickDeaths > 1 ? `, ${quickDeaths} times in a row` : ''
  return new NexusError('NEXUS_INTERNAL', `the mount was given up: ${why}${again}; nothing acknowledged is lost, mount again`)
}
