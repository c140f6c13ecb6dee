/**
 * What becomes of requests, in numbers. Everything is counted where a request is served, so an entry here has to cost
 * nanoseconds: no memory is made but for what is slow or fails.
 */
import { getSystemErrorName } from 'node:util'
import { type Distribution, Histogram } from '../histogram.ts'

/** From here on a request counts as a stall: all others waited for it, unless it waited itself. */
const STALL_MICROS = 50_000
/** The worst are kept for this long, and at most so many. */
const STALL_AGE_MS = 10 * 60_000
const STALLS_MAX = 8

/** A request that took long. */
export interface Stall {
  operation: string
  at: Date
  micros: number
  /** true when its answer waited for the disk and others were served meanwhile */
  waited: boolean
}

/** What is measured of one kind of requests. */
export class OperationMeter {
  readonly #latency = new Histogram()
  readonly #errors = new Map<number, number>()
  readonly #name: string
  readonly #stalls: Stalls

  constructor(name: string, stalls: Stalls) {
    this.#name = name
    this.#stalls = stalls
  }

  /**
   * An answer was sent.
   * @param micros since the request was read; negative when the kernel took no answer
   */
  answered(micros: number, waited = false): void {
    if (micros < 0) return
    this.#latency.add(micros)
    if (micros > STALL_MICROS) this.#stalls.add({ operation: this.#name, at: new Date(), micros, waited })
  }

  /** @param errno positive */
  failed(errno: number): void {
    this.#errors.set(errno, (this.#errors.get(errno) ?? 0) + 1)
  }

  get latency(): Distribution {
    return this.#latency.distribution
  }

  /** By the name of the errno. */
  get errors(): Record<string, number> {
    return Object.fromEntries([...this.#errors].map(([errno, count]) => [getSystemErrorName(-errno), count]))
  }
}

export class Stalls {
  #worst: Stall[] = []
  #count = 0

  add(stall: Stall): void {
    this.#count++
    this.#worst = [...this.worst, stall].sort((a, b) => b.micros - a.micros).slice(0, STALLS_MAX)
  }

  get count(): number {
    return this.#count
  }

  /** Of the last minutes, the worst first. */
  get worst(): Stall[] {
    return this.#worst.filter(({ at }) => Date.now() - at.getTime() < STALL_AGE_MS)
  }
}

/** What the requests of this process have come to. */
export interface RequestMetrics {
  operations: { name: string; count: number; errors: Record<string, number>; latency: Distribution }[]
  /** file content handed to the kernel, and taken from it */
  readBytes: number
  writtenBytes: number
  /** requests that had waited too long and got EIO */
  timeouts: number
  stallCount: number
  stalls: Stall[]
}

export const NO_REQUESTS: RequestMetrics = {
  operations: [],
  readBytes: 0,
  writtenBytes: 0,
  timeouts: 0,
  stallCount: 0,
  stalls: [],
}
