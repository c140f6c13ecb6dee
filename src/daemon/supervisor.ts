/**
 * What keeps a mount alive: it holds the kernel's descriptor, and the memory that a serving process leaves to the next
 * (handover.ts), and starts another when the one that serves dies. It does nothing else, so that nothing else can end it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { nexusMounts } from '../control/mounts.ts'
import { NexusError } from '../errors.ts'
import { sendDescriptor, socketPair } from '../fuse/binding.ts'
import type { Logger } from '../logger.ts'
import { Handover } from './handover.ts'
import { HEAP_ENVIRONMENT, HEAP_FLAGS } from './memory.ts'
import { abort, mountFilesystem, unmount } from './mountpoint.ts'
import type { Asked, ServeOptions, Told } from './serve.ts'

/** Who dies sooner after he began to serve did not really serve. */
const QUICK_DEATH_MS = 200
/** So many of those in a row are enough; the mount is given up. */
const QUICK_DEATHS_MAX = 5
const RESTART_PAUSE_MS = 50
/** One that serves and says nothing for so long hangs, and is killed. */
const SILENCE_MS_MAX = 60_000
/** One that is dead and does not go has a thread that waits in the kernel for an answer which only the next could give. */
const DEAD_MS_MAX = 5000
const WATCH_MS = 1000
/** A process that was asked to end, or to hand over, and has not. */
const STOP_MS_MAX = 60_000

export interface Supervised {
  /** resolves when the mount answers; rejects with NexusError, and then nothing is mounted and nothing was changed */
  started: Promise<void>
  /** resolves when it is unmounted and everything stored; rejects with NexusError when the mount had to be given up */
  ended: Promise<void>
  stop(): void
  /** Starts the program that is installed now in place of the one that serves. */
  upgrade(): void
}

/** How a serving process ended. */
interface Death {
  /** the last that it said */
  told: Told | undefined
  signal: NodeJS.Signals | null
  status: number | null
  /** how long it had served; undefined when it never did */
  servedMs: number | undefined
}

/**
 * Starts a serving process and mounts.
 * @param script the program that has the command `serve`
 */
export function supervise(options: ServeOptions & { script: string; logger: Logger }): Supervised {
  const supervisor = new Supervisor(options)
  const started = supervisor.start()
  const ended = started.then(() => supervisor.ended())
  // Who waits for the start hears of its failure there.
  ended.catch(() => undefined)
  return {
    started,
    ended,
    stop: () => supervisor.ask({ ask: 'stop' }),
    upgrade: () => supervisor.ask({ ask: 'hand over' }),
  }
}

class Supervisor {
  readonly #options: ServeOptions & { script: string; logger: Logger }
  readonly #memory = Handover.make()
  #mount: { fd: number; device: string | undefined } | undefined
  /** why there is no mount */
  #failure: unknown
  #child: ChildProcess | undefined
  #death: Promise<Death> = new Promise(() => undefined)
  #canBeReplaced = false
  #isStopping = false
  #timer: NodeJS.Timeout | undefined
  #watching: NodeJS.Timeout | undefined
  #lastWord = 0

  constructor(options: ServeOptions & { script: string; logger: Logger }) {
    this.#options = options
  }

  async start(): Promise<void> {
    const served = this.#spawn(this.#options.rebuildIndex)
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

  /** Starts processes until one of them ends as it should. */
  async ended(): Promise<void> {
    let quickDeaths = 0
    for (;;) {
      const death = await this.#death
      clearTimeout(this.#timer)
      if (death.told?.told === 'unmounted' || (this.#isStopping && death.told?.told === 'handed over')) return this.#release()
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
      void this.#spawn(false)
    }
  }

  ask(asked: Asked): void {
    if (this.#isStopping) return
    this.#isStopping = asked.ask === 'stop'
    this.#send(asked)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#options.logger.error({ asked: asked.ask }, `the serving process did not end within ${STOP_MS_MAX / 1000} s: killed`)
      this.#child?.kill('SIGKILL')
    }, STOP_MS_MAX).unref()
  }

  #send(asked: Asked): void {
    // One that is not there any more is seen by its end.
    if (this.#child?.connected === true) this.#child.send(asked, () => undefined)
  }

  /** Starts a process. @returns when it serves */
  #spawn(rebuildIndex: boolean): Promise<undefined> {
    const [ours, theirs] = socketPair()
    const child = spawn(process.execPath, [...HEAP_FLAGS, ...process.execArgv, ...this.#words(rebuildIndex)], {
      cwd: '/',
      env: { ...HEAP_ENVIRONMENT, ...process.env },
      stdio: ['ignore', 'inherit', 'inherit', theirs, this.#memory, 'ipc'],
    })
    closeSync(theirs)
    this.#child = child
    let told: Told | undefined
    let servesSince: number | undefined
    const served = new Promise<undefined>((resolve) => {
      child.on('message', (message: Told) => {
        this.#lastWord = performance.now()
        if (message.told === 'alive') return
        told = message
        if (told.told === 'opened') this.#giveMount(child, ours)
        if (told.told !== 'serving') return
        servesSince = performance.now()
        this.#watch(child)
        this.#canBeReplaced = told.canBeReplaced
        resolve(undefined)
      })
    })
    this.#death = deathOf(child).then(({ status, signal }) => {
      clearInterval(this.#watching)
      closeSync(ours)
      return { told, status, signal, servedMs: servesSince === undefined ? undefined : performance.now() - servesSince }
    })
    return served
  }

  /** What hangs is killed, and what cannot end is let go with the mount: nobody waits for ever. */
  #watch(child: ChildProcess): void {
    const { logger } = this.#options
    let deadSince: number | undefined
    this.#watching = setInterval(() => {
      const now = performance.now()
      if (isZombie(child.pid)) deadSince ??= now
      if (deadSince !== undefined && now - deadSince > DEAD_MS_MAX && this.#mount?.device !== undefined) {
        logger.error({}, 'the serving process is dead and does not end: the mount is aborted')
        abort(this.#options.mountpoint, this.#mount.device)
        this.#isStopping = true
        clearInterval(this.#watching)
      } else if (now - this.#lastWord > SILENCE_MS_MAX) {
        logger.error({}, `the serving process has not moved for ${SILENCE_MS_MAX / 1000} s: killed`)
        this.#lastWord = now
        child.kill('SIGKILL')
      }
    }, WATCH_MS).unref()
  }

  #words(rebuildIndex: boolean): string[] {
    const { script, mountpoint, data, singleUser, memory, metrics } = this.#options
    const flags = [...(singleUser ? ['--single-user'] : []), ...(rebuildIndex ? ['--rebuild-index'] : [])]
    if (metrics !== undefined) flags.push('--metrics', metrics)
    return [script, 'serve', mountpoint, '--data', data, '--memory', String(memory), ...flags]
  }

  /** Mounts, unless it is mounted, and lets a process serve it. */
  #giveMount(child: ChildProcess, socket: number): void {
    try {
      this.#mount ??= this.#makeMount()
      sendDescriptor(socket, this.#mount.fd)
      this.#send({ ask: 'take the mount' })
      if (this.#isStopping) this.#send({ ask: 'stop' })
    } catch (error) {
      this.#failure = error
      child.kill('SIGKILL')
    }
  }

  #makeMount(): { fd: number; device: string | undefined } {
    const { mountpoint, data, singleUser } = this.#options
    const fd = mountFilesystem(mountpoint, { data, singleUser })
    return { fd, device: nexusMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device }
  }

  /** Frees the mountpoint, should it still be ours. */
  async #release(): Promise<void> {
    const { mountpoint, logger } = this.#options
    if (this.#mount !== undefined) {
      const { fd, device } = this.#mount
      const isOurs = nexusMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device === device
      if (isOurs)
        await unmount(mountpoint, true).catch((error: unknown) => logger.warn({ err: error }, `umount -l ${mountpoint}`))
      // The last one: whoever still waits for an answer gets an error.
      closeSync(fd)
    }
    closeSync(this.#memory)
  }
}

/** Dead, and not gone: a thread of it goes on (proc_pid_stat(5)). */
function isZombie(pid: number | undefined): boolean {
  try {
    return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** When a process is gone and all that it said has come. */
async function deathOf(child: ChildProcess): Promise<{ status: number | null; signal: NodeJS.Signals | null }> {
  const silent = new Promise<void>((resolve) => child.once('disconnect', resolve))
  const end = await new Promise<{ status: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('exit', (status, signal) => resolve({ status, signal }))
    child.once('error', (error) =>
      reject(new NexusError('NEXUS_UNSUPPORTED', `cannot start ${process.execPath}: ${error.message}`, { cause: error })),
    )
  })
  await silent
  return end
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

function endOf({ status, signal }: Death): string {
  return signal === null ? `ended with ${status}` : `was ended by ${signal}`
}
