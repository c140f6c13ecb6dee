/**
 * How long things took: counts in buckets whose width grows with the time, four to each power of two, so that every
 * quantile is right to a fifth. Cheap enough for each request: an index from the number's leading zeros, and no memory made.
 */

/** A quarter of a microsecond: the first buckets are one wide. */
const UNITS_PER_MICRO = 4
/** 2^29 quarters of a millisecond are nine minutes: the last bucket has all that is longer. */
const UNITS_MAX = 2 ** 31 - 1
const BUCKETS = 120

/** A histogram as plain data: what many processes can add up, and two readings be told apart by. */
export interface Distribution {
  count: number
  /** microseconds */
  sum_us: number
  max_us: number
  /** those that are not empty, ascending: the time in microseconds that nothing in it has reached, and how many */
  buckets: [below_us: number, count: number][]
}

/** Behind the buckets, in the same memory: a number in an object would be made anew with each change. */
const SUM = BUCKETS
const MAX = BUCKETS + 1

export class Histogram {
  readonly #numbers = new Float64Array(BUCKETS + 2)

  /** @param micros not negative */
  add(micros: number): void {
    const units = micros < UNITS_MAX / UNITS_PER_MICRO ? (micros * UNITS_PER_MICRO) | 0 : UNITS_MAX
    const power = 31 - Math.clz32(units)
    const index = units < 4 ? units : (power - 1) * 4 + ((units >>> (power - 2)) & 3)
    const numbers = this.#numbers
    numbers[index] = (numbers[index] as number) + 1
    numbers[SUM] = (numbers[SUM] as number) + micros
    if (micros > (numbers[MAX] as number)) numbers[MAX] = micros
  }

  /** Adds what it took from a reading of `performance.now` until now. */
  addSince(startMs: number): void {
    this.add(Math.max(0, (performance.now() - startMs) * 1000))
  }

  get distribution(): Distribution {
    const buckets: [number, number][] = []
    let count = 0
    const [sum_us = 0, max_us = 0] = this.#numbers.subarray(SUM)
    for (const [index, inBucket] of this.#numbers.subarray(0, BUCKETS).entries()) {
      if (inBucket === 0) continue
      count += inBucket
      buckets.push([belowMicros(index), inBucket])
    }
    return { count, sum_us, max_us, buckets }
  }
}

function belowMicros(index: number): number {
  if (index < 4) return (index + 1) / UNITS_PER_MICRO
  const power = (index >> 2) + 1
  return (((index & 3) + 5) * 2 ** (power - 2)) / UNITS_PER_MICRO
}

export const NOTHING_MEASURED: Distribution = { count: 0, sum_us: 0, max_us: 0, buckets: [] }

/**
 * What was added between two readings of one histogram. Its longest is known to the bucket only, and is at most the
 * longest of all.
 */
export function since(before: Distribution, after: Distribution): Distribution {
  const earlier = new Map(before.buckets)
  const buckets = after.buckets
    .map(([below, count]): [number, number] => [below, count - (earlier.get(below) ?? 0)])
    .filter(([, count]) => count > 0)
  const longest = buckets.at(-1)?.[0] ?? 0
  const max = after.max_us > before.max_us ? after.max_us : Math.min(longest, after.max_us)
  return { count: after.count - before.count, sum_us: after.sum_us - before.sum_us, max_us: max, buckets }
}

/** The time that a share of all stayed below: 0.5 is the median. 0 when there were none. */
export function quantile({ count, max_us, buckets }: Distribution, share: number): number {
  let rest = count * share
  for (const [below, inBucket] of buckets) {
    rest -= inBucket
    if (rest <= 0) return Math.min(below, max_us)
  }
  return max_us
}
