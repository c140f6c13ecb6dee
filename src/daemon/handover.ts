/**
 * What a serving process leaves to the next one that serves the same mount: memory that the supervisor keeps. All else
 * is in the log. It is written as things happen, because nobody is asked before he is killed.
 */
import { randomInt } from 'node:crypto'
import { NexusError } from '../errors.ts'
import { mapShared, memoryFile } from '../fuse/binding.ts'
import type { Negotiated } from '../fuse/init.ts'
import type { RequestMark } from '../fuse/operation.ts'
import { SLAB_BYTES, type Slabs } from '../vfs/known.ts'

/** Sparse: what the kernel does not hold costs nothing. */
const BYTES = 1 << 30
/** 'nxh', and the version of the layout and of what the kernel goes by: a program that has another cannot take over. */
const MAGIC = 0x6e786804
/** A program from before `Word.generation` leaves this. Its mount goes on as it was made, so that program can take it back. */
const MAGIC_BEFORE = 0x6e786803
/** Below 2^31, so that what `KnownNodes` adds stays within 32 bits. */
const GENERATION_MAX = 2 ** 31 - 1

/** Positions of words in the first slab; the others are those of `KnownNodes`. */
const Word = {
  magic: 0,
  /** `Negotiated`: 0, or 1 when the four behind it are filled */
  negotiated: 1,
  /** how many changes are at work that the kernel is not told of yet */
  telling: 6,
  /** what generations begin at: a number of this mount, or 0 in one that was made before there was any */
  generation: 7,
  /** a request is noted */
  noted: 8,
  uniqueLow: 9,
  uniqueHigh: 10,
  /** lower half of the log's sequence before it */
  sequence: 11,
  /** the request that was being served when a process died: its two halves, and how many processes in a row it was */
  suspect: 12,
  /** requests that were served but for the answer: pairs of low and high, 0 0 where there is none */
  done: 16,
  /** how often a process took over, and the times of the last (seconds since 1970), by that number */
  takeovers: 48,
  takeoverTimes: 49,
} as const
const DONE_MAX = 16
const TAKEOVER_TIMES_MAX = 8
/** Processes that one request may take with it; fewer than the supervisor's QUICK_DEATHS_MAX. */
const DEATHS_MAX = 3

export class Handover implements RequestMark {
  readonly slabs: Slabs
  readonly #words: Uint32Array
  #sequence: () => number = () => 0

  /** What to give to `Handover` in the process that serves. @throws a system error */
  static make(): number {
    return memoryFile(BYTES)
  }

  /**
   * @param fd what `make` returned, inherited
   * @throws NexusError NEXUS_TOO_NEW when another version of this program wrote it
   */
  constructor(fd: number) {
    const memory = mapShared(fd)
    this.#words = new Uint32Array(memory, 0, Math.min(SLAB_BYTES, memory.byteLength) >>> 2)
    const magic = this.#words[Word.magic]
    if (memory.byteLength < SLAB_BYTES || (magic !== 0 && magic !== MAGIC && magic !== MAGIC_BEFORE)) {
      throw new NexusError('NEXUS_TOO_NEW', 'this nexusd cannot take over from the one that serves: unmount, and mount again')
    }
    if (magic === 0) {
      this.#words[Word.generation] = randomInt(1, GENERATION_MAX)
      this.#words[Word.magic] = MAGIC
    }
    const slabs = Math.floor(memory.byteLength / SLAB_BYTES) - 1
    this.slabs = { slab: (index) => (index < slabs ? new Uint8Array(memory, (index + 1) * SLAB_BYTES, SLAB_BYTES) : undefined) }
  }

  /** What generations of inodes begin at, for `KnownNodes`. */
  get generation(): number {
    return this.#words[Word.generation] as number
  }

  /** What INIT agreed on with a process before this one; undefined when there was none. */
  get negotiated(): Negotiated | undefined {
    const [filled, minor = 0, flags = 0, flags2 = 0, readaheadBytesMax = 0] = this.#words.subarray(Word.negotiated)
    return filled === 1 ? { minor, flags: flags | 0, flags2: flags2 | 0, readaheadBytesMax } : undefined
  }

  accept({ minor, flags, flags2, readaheadBytesMax }: Negotiated): void {
    this.#words.set([1, minor, flags, flags2, readaheadBytesMax], Word.negotiated)
  }

  /** Another process goes on with the mount from now on. */
  noteTakeover(): void {
    const count = this.#words[Word.takeovers] as number
    this.#words[Word.takeoverTimes + (count % TAKEOVER_TIMES_MAX)] = Math.floor(Date.now() / 1000)
    this.#words[Word.takeovers] = count + 1
  }

  /** How often that was since the mount, and when the last times were, the newest last. */
  get takeovers(): { count: number; last: Date[] } {
    const count = this.#words[Word.takeovers] as number
    const last = Array.from({ length: Math.min(count, TAKEOVER_TIMES_MAX) }, (_, i) => {
      const number = count - Math.min(count, TAKEOVER_TIMES_MAX) + i
      return new Date((this.#words[Word.takeoverTimes + (number % TAKEOVER_TIMES_MAX)] as number) * 1000)
    })
    return { count, last }
  }

  /** Whether a process before this one died while the kernel held what was no longer true. */
  get isKernelStale(): boolean {
    return this.#words[Word.telling] !== 0
  }

  /** The kernel has dropped everything. */
  kernelIsFresh(): void {
    this.#words[Word.telling] = 0
  }

  /** Runs what changes something behind the kernel's back and then tells it. */
  async telling<T>(run: () => Promise<T>): Promise<T> {
    this.#tell(1)
    try {
      return await run()
    } finally {
      this.#tell(-1)
    }
  }

  #tell(more: number): void {
    this.#words[Word.telling] = (this.#words[Word.telling] as number) + more
  }

  /**
   * Call when the log is read and nothing has been added to it yet.
   * @param recovered sequence of its last record
   * @param sequence of its last record at any time
   */
  logIsRead(recovered: number, sequence: () => number): void {
    this.#sequence = sequence
    const words = this.#words
    if (words[Word.noted] !== 1) return
    const [uniqueLow = 0, uniqueHigh = 0, sequenceBefore] = words.subarray(Word.uniqueLow, Word.sequence + 1)
    if (sequenceBefore === lowerHalf(recovered)) this.#suspect(uniqueLow, uniqueHigh)
    else this.#noteDone(uniqueLow, uniqueHigh)
    words[Word.noted] = 0
  }

  #suspect(uniqueLow: number, uniqueHigh: number): void {
    const [low, high, deaths = 0] = this.#words.subarray(Word.suspect, Word.suspect + 3)
    const isSame = low === uniqueLow && high === uniqueHigh
    this.#words.set([uniqueLow, uniqueHigh, isSame ? deaths + 1 : 1], Word.suspect)
  }

  begin(uniqueLow: number, uniqueHigh: number): void {
    const words = this.#words
    // Killed between any two of these, the half-written note does not count. Atomics, so that none is moved or left out.
    Atomics.store(words, Word.noted, 0)
    words[Word.uniqueLow] = uniqueLow
    words[Word.uniqueHigh] = uniqueHigh
    words[Word.sequence] = lowerHalf(this.#sequence())
    Atomics.store(words, Word.noted, 1)
  }

  isDone(uniqueLow: number, uniqueHigh: number): boolean {
    for (let at: number = Word.done; at < Word.done + DONE_MAX * 2; at += 2) {
      if (this.#words[at] === uniqueLow && this.#words[at + 1] === uniqueHigh) return true
    }
    return false
  }

  isDeadly(uniqueLow: number, uniqueHigh: number): boolean {
    const [low, high, deaths = 0] = this.#words.subarray(Word.suspect, Word.suspect + 3)
    return low === uniqueLow && high === uniqueHigh && deaths >= DEATHS_MAX
  }

  /**
   * Each process that takes over adds at most one. None is taken out, because the next process may die before it answers;
   * the kernel gives no number twice.
   */
  #noteDone(uniqueLow: number, uniqueHigh: number): void {
    const words = this.#words
    words.copyWithin(Word.done + 2, Word.done, Word.done + (DONE_MAX - 1) * 2)
    words[Word.done] = uniqueLow
    words[Word.done + 1] = uniqueHigh
  }
}

function lowerHalf(sequence: number): number {
  return sequence >>> 0
}
