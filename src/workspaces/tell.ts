/** Notifies to the kernel by the thousand, beside the requests that are served. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Pace } from '../pace.ts'

const SLICE_MS = 5
const IN_FLIGHT_MAX = 4096

/**
 * Promises that are gathered, to be awaited together later. One that is rejected before that, or after the gathering has
 * failed, is no rejection that nobody heard of: that would end the process.
 */
export function heard(promises: readonly Promise<void>[]): readonly Promise<void>[] {
  for (const promise of promises) promise.catch(() => undefined)
  return promises
}

/**
 * Resolves when the kernel has taken all of them; rejects with what the first was refused for.
 * @param batches makes them one after the other: no more are made while so many are on their way
 */
export async function tellAll(batches: Iterable<readonly Promise<void>[]>): Promise<void> {
  // A revocation is among them: nobody's requests may put that off.
  const pace = new Pace(SLICE_MS, nextTurn)
  let pending: Promise<void>[] = []
  for (const batch of batches) {
    pending.push(...heard(batch))
    if (pending.length > IN_FLIGHT_MAX) {
      await Promise.all(pending)
      pending = []
    }
    const wait = pace.pause()
    if (wait !== undefined) await wait
  }
  await Promise.all(pending)
}
