/**
 * Halt polling: a virtual processor that has nothing to do looks for work a little longer before it gives itself back to its
 * host (Linux, Documentation/virt/guest-halt-polling.rst). Where that is switched off, each request and each answer wakes a
 * halted processor through the host, which takes longer than the request itself (untar of 15,000 files: 3.1 s, with it 1.6).
 *
 * It is the machine's and not the mount's. So it is used only while requests are coming, and then put back; who has set it to
 * something else keeps that. What to put back lies in a file, for other mounts, and for who comes after a process that died.
 */
import { closeSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import path from 'node:path'
import { NexusError, systemCode } from '../errors.ts'
import { publicDirectory } from '../host/location.ts'
import type { Logger } from '../logger.ts'
import { prepareDirectory } from './everybody.ts'

export interface HaltPollingFiles {
  parameter: string
  /** what the parameter was before; gone when it is that again. Its directory is made. */
  before: string
}

const FILES: HaltPollingFiles = {
  // Only where the kernel has the cpuidle-haltpoll driver, which means in a guest of KVM.
  parameter: '/sys/module/haltpoll/parameters/guest_halt_poll_ns',
  before: path.join(publicDirectory, 'guest_halt_poll_ns'),
}
/** The kernel's own default: no processor polls longer, and each adapts how long it is worth it (drivers/cpuidle/governors/haltpoll.c). */
const POLL_NS = 200_000
/** Without requests for one to two of these it is put back; and so often it is looked whether another mount has. */
const QUIET_MS = 1000
const NUMBER_BYTES_MAX = 32

export class HaltPolling {
  readonly #fd: number
  readonly #before: string
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #isBusy = false

  /** @returns undefined where there is nothing to be set, or this user may not */
  static open(logger: Logger, { parameter, before } = FILES): HaltPolling | undefined {
    let fd: number | undefined
    try {
      fd = openSync(parameter, 'r+')
      prepareDirectory(path.dirname(before))
      return new HaltPolling(fd, before, logger)
    } catch (error) {
      if (fd !== undefined) closeSync(fd)
      if (!(error instanceof NexusError) && systemCode(error) === undefined) throw error
      logger.debug({ err: error }, 'halt polling cannot be set here')
      return undefined
    }
  }

  private constructor(fd: number, before: string, logger: Logger) {
    this.#fd = fd
    this.#before = before
    this.#logger = logger
  }

  /** Requests are being served. Called with each of them, or nearly. */
  note(): void {
    this.#isBusy = true
    if (this.#timer !== undefined) return
    this.#timer = setInterval(() => this.#look(), QUIET_MS).unref()
    this.#trying(() => this.#raise())
  }

  /** Puts back what was there. */
  close(): void {
    if (this.#timer !== undefined) this.#trying(() => this.#lower())
    closeSync(this.#fd)
  }

  /** Another mount, which became quiet, may have put it back. */
  #look(): void {
    this.#trying(() => (this.#isBusy ? this.#raise() : this.#lower()))
    this.#isBusy = false
  }

  /** What is larger was meant. */
  #raise(): void {
    const ns = this.#get()
    if (ns >= POLL_NS) return
    writeFileSync(this.#before, `${ns}\n`)
    this.#set(POLL_NS)
  }

  #lower(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    // Else somebody has set it who is no mount.
    if (this.#get() !== POLL_NS) return
    try {
      const before = Number.parseInt(readFileSync(this.#before, 'latin1'), 10)
      // First: another mount may raise it as soon as it is set, and what it writes down is to stay.
      rmSync(this.#before)
      this.#set(before)
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error
    }
  }

  /** In nanoseconds; 0 for not at all. */
  #get(): number {
    const bytes = Buffer.alloc(NUMBER_BYTES_MAX)
    return Number.parseInt(bytes.toString('latin1', 0, readSync(this.#fd, bytes, 0, bytes.length, 0)), 10)
  }

  #set(ns: number): void {
    writeSync(this.#fd, `${ns}\n`, 0, 'latin1')
  }

  /** It is only faster with it. */
  #trying(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#logger.warn({ err: error }, 'halt polling could not be set')
    }
  }
}
