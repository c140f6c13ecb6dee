/** Long work in slices between the requests that are being served. */
import { setImmediate as nextTurn } from 'node:timers/promises'

/** A request waits this long at most. */
export const SLICE_MS = 2
/** While requests keep coming, so long is left to them after each slice: four fifths of the time. */
const GIVE_WAY_MS = 8
/** Who is served and asks again has done so by then. */
const IDLE_MS = 0.5

let servedAt = Number.NEGATIVE_INFINITY

/** A request was served, at `performance.now`: long work gives way to the next ones. */
export function noteServed(now: number): void {
  servedAt = now
}

/** Resolves when others had their turn; while requests are served one after the other, when they had most of the time. */
export async function giveWay(): Promise<void> {
  const until = performance.now() + GIVE_WAY_MS
  do await nextTurn()
  while (performance.now() - servedAt < IDLE_MS && performance.now() < until)
}

export class Pace {
  readonly #sliceMs: number
  readonly #turn: () => Promise<void>
  #start = performance.now()

  /** @param turn between slices; `nextTurn` for what must not be late, such as telling the kernel of a revocation */
  constructor(sliceMs = SLICE_MS, turn: () => Promise<void> = giveWay) {
    this.#sliceMs = sliceMs
    this.#turn = turn
  }

  /** Resolves at once (undefined) until the slice is used up. */
  pause(): Promise<void> | undefined {
    if (performance.now() - this.#start < this.#sliceMs) return undefined
    return this.#turn().then(() => {
      this.#start = performance.now()
    })
  }

  /** Runs what yields between slices. Of ten thousand short works in a row each may end before it has yielded at all. */
  async run<T>(work: Generator<void, T>): Promise<T> {
    for (;;) {
      const step = work.next()
      const wait = this.pause()
      if (wait !== undefined) await wait
      if (step.done === true) return step.value
    }
  }
}
