/** Long work in slices between the requests that are being served. */
import { setImmediate as nextTurn } from 'node:timers/promises'

/** A request waits this long at most. */
const SLICE_MS = 2

export class Pace {
  readonly #sliceMs: number
  #start = performance.now()

  constructor(sliceMs = SLICE_MS) {
    this.#sliceMs = sliceMs
  }

  /** Resolves at once (undefined) until the slice is used up. */
  pause(): Promise<void> | undefined {
    if (performance.now() - this.#start < this.#sliceMs) return undefined
    return nextTurn().then(() => {
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
