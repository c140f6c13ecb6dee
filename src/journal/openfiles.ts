/** Open descriptors of the log's segments, at most a fixed number of them. */
import { NexusError, systemCode } from '../errors.ts'
import type { Disk } from './disk.ts'
import { segmentName } from './record.ts'

const OPEN_MAX = 512

export class OpenFiles {
  readonly #disk: Disk
  /** insertion order is the order of last use */
  readonly #fds = new Map<number, number>()
  /** segments whose descriptor must keep its meaning, because another thread uses it */
  readonly #pinned = new Set<number>()
  #last = -1
  #lastFd = -1

  constructor(disk: Disk) {
    this.#disk = disk
  }

  /** @throws NexusError NEXUS_CORRUPT when the segment's file is missing */
  get(segment: number): number {
    if (segment === this.#last) return this.#lastFd
    let fd = this.#fds.get(segment)
    if (fd === undefined) fd = this.#open(segment)
    else this.#fds.delete(segment)
    return this.#use(segment, fd)
  }

  create(segment: number, name: string): number {
    return this.#use(segment, this.#disk.open(name, true))
  }

  /** Keeps the segment's descriptor open during asynchronous work: its number could else become another file's. */
  async whilePinned(segment: number, work: (fd: number) => Promise<void>): Promise<void> {
    this.#pinned.add(segment)
    try {
      await work(this.get(segment))
    } finally {
      this.#pinned.delete(segment)
    }
  }

  close(segment: number): void {
    const fd = this.#fds.get(segment)
    if (fd === undefined) return
    this.#fds.delete(segment)
    if (segment === this.#last) this.#last = -1
    this.#disk.close(fd)
  }

  closeAll(): void {
    for (const segment of [...this.#fds.keys()]) this.close(segment)
  }

  #open(segment: number): number {
    try {
      return this.#disk.open(segmentName(segment), false)
    } catch (cause) {
      if (systemCode(cause) !== 'ENOENT') throw cause
      throw new NexusError('NEXUS_CORRUPT', `segment ${segmentName(segment)} is missing; restore that file from a backup`, {
        cause,
      })
    }
  }

  #use(segment: number, fd: number): number {
    this.#fds.set(segment, fd)
    this.#last = segment
    this.#lastFd = fd
    if (this.#fds.size > OPEN_MAX) this.#closeOldest()
    return fd
  }

  #closeOldest(): void {
    for (const segment of this.#fds.keys()) {
      if (this.#pinned.has(segment)) continue
      this.close(segment)
      return
    }
  }
}
