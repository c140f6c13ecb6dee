import type { Time } from '../vfs/filesystem.ts'

/**
 * Time, as a filesystem should take it: all that one request does happens at the moment when the
 * request was read. The channel writes that moment into `stamp`, so that asking costs no system call.
 * Between requests (a fork, a restore) it is the wall clock.
 */
export class RequestClock {
  /** seconds and nanoseconds at which the last request was read */
  readonly stamp = new Float64Array(2)
  #inRequest = false

  /** Bound, so that it can be handed out as a function. */
  readonly now = (): Time => {
    const [s, ns] = this.stamp as unknown as [number, number]
    if (this.#inRequest) return { s, ns }
    const wall = Date.now()
    const second = Math.floor(wall / 1000)
    // Milliseconds are coarser than the stamp: don't go back behind a request just served.
    if (second === s) return { s, ns: Math.max(ns, (wall - second * 1000) * 1_000_000) }
    return { s: second, ns: (wall - second * 1000) * 1_000_000 }
  }

  /** For the dispatcher: a request is being served from now on. */
  begin(): void {
    this.#inRequest = true
  }

  /** For the dispatcher: it has been. */
  end(): void {
    this.#inRequest = false
  }

  /** Microseconds, for differences between stamps. */
  get micros(): number {
    const [s, ns] = this.stamp as unknown as [number, number]
    return s * 1e6 + ns / 1e3
  }
}
