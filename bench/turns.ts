/** Who is measured when: in each round every place has its turn. A peer cannot hold up the others for longer than it may. */
import { medianAt, type Result, say } from './report.ts'
import type { Runner } from './runner.ts'
import { HungError, SlowError } from './shell.ts'
import { BenchError, type Place, type Workload } from './workload.ts'

/** A peer gets no longer than this, or that many times what the local disk took. */
const PEER_MS_MAX = 60_000
const PEER_TIMES_MAX = 30
/** all of them together, in a whole run: what is left then is measured without them */
const PEERS_MS_MAX = 25 * 60_000

export interface Chosen {
  kind: string
  workload: Workload
}

export interface Rounds {
  all: number
  /** at most */
  peers: number
  /** by performance.now(); what has not begun until then is left out */
  endMs: number
  /** whether somebody wants it to end */
  isStopped(): boolean
}

export class Turns {
  readonly #runner: Runner
  readonly #rounds: Rounds
  /** the local disk first; without the peers that do not answer any more */
  #places: Place[]
  #peersMs = 0

  constructor(runner: Runner, places: readonly Place[], rounds: Rounds) {
    this.#runner = runner
    this.#rounds = rounds
    this.#places = [...places]
  }

  async measure(chosen: readonly Chosen[]): Promise<Result[]> {
    const results: Result[] = []
    for (const { kind, workload } of chosen) {
      const begun = performance.now()
      if (begun > this.#rounds.endMs) {
        say(`*** LEFT OUT, because the time is over: ${workload.name} ***`)
        continue
      }
      const result: Result = { kind, workload, size: this.#runner.sizeOf(workload), samples: new Map(), instead: new Map() }
      await this.#row(result)
      results.push(result)
      say(`${((performance.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${workload.name}`)
    }
    return results
  }

  /** Who is first changes from round to round. */
  async #row(result: Result): Promise<void> {
    const { workload } = result
    const places = this.#places.filter((place) => workload.onlyStore !== true || place.name === 'nexus')
    // What is stored does not depend on the load: one round tells it.
    const rounds = workload.onlyStore === true && workload.measure !== 'ms' ? 1 : this.#rounds.all
    for (let round = 0; round < rounds; round++)
      for (let turn = 0; turn < places.length; turn++) {
        if (this.#rounds.isStopped()) throw new BenchError('stopped')
        const place = places[(turn + round) % places.length] as Place
        if (place.kind === 'peer' && (round >= this.#rounds.peers || result.instead.has(place.name))) continue
        if (place.kind === 'peer' && this.#peersMs > PEERS_MS_MAX) {
          result.instead.set(place.name, 'no time')
          continue
        }
        const begun = performance.now()
        await this.#attempt(result, place, () => this.#measureAt(result, place, round))
        if (place.kind === 'peer') this.#peersMs += performance.now() - begun
      }
    for (const place of places)
      if (this.#places.includes(place)) await this.#attempt(result, place, () => this.#runner.clean(place))
  }

  async #measureAt(result: Result, place: Place, round: number): Promise<void> {
    const local = result.samples.get((this.#places[0] as Place).name)?.[0]
    const msMax = place.kind === 'peer' ? Math.max(PEER_MS_MAX, PEER_TIMES_MAX * (local?.elapsedMs ?? 0)) : Infinity
    const sample = await this.#runner.measure(result.workload, place, round, msMax)
    result.samples.set(place.name, [...(result.samples.get(place.name) ?? []), sample])
  }

  /** A peer that fails, is too slow or hangs has that in its place, and the run goes on; nobody else may fail. */
  async #attempt(result: Result, place: Place, action: () => Promise<void>): Promise<void> {
    try {
      await action()
    } catch (error) {
      if (place.kind !== 'peer' || !(error instanceof BenchError)) throw error
      const isHung = error instanceof HungError || (error instanceof SlowError && !(await isAnswering(place)))
      const cell = isHung ? 'hung' : insteadOf(error, result, (this.#places[0] as Place).name)
      if (isHung || !result.samples.has(place.name)) result.instead.set(place.name, cell)
      say(`*** ${place.name}: ${cell}: ${result.workload.name}: ${error.message.trim().split('\n').slice(-2).join(' ')} ***`)
      if (!isHung) return
      this.#places = this.#places.filter((one) => one !== place)
      await place.giveUp?.()
    }
  }
}

/** A command of which nobody knows why it took so long was killed: that says nothing of who should have answered it. */
async function isAnswering(place: Place): Promise<boolean> {
  try {
    await place.probe?.()
    return true
  } catch (error) {
    if (!(error instanceof HungError)) throw error
    return false
  }
}

/** How much longer than the local disk it took at least, where that is what is measured. */
function insteadOf(error: BenchError, result: Result, localName: string): string {
  if (!(error instanceof SlowError)) return 'failed'
  const local = medianAt(result, localName)
  if (!error.isMeasured || result.workload.measure !== 'time' || local === undefined) return 'slow'
  return `> ${Math.floor(error.msMax / 1000 / local)}`
}
