/** Histograms: where a time falls, what a quantile says, and what two readings tell. */
import t from 'tap'
import { Histogram, NOTHING_MEASURED, quantile, since } from '../../src/histogram.ts'

const of = (...times: number[]) => {
  const histogram = new Histogram()
  for (const time of times) histogram.add(time)
  return histogram
}

t.test('every time is in a bucket that is at most a quarter too wide', async (t) => {
  for (let time = 0; time < 4e8; time = time * 1.07 + 0.1) {
    const { buckets, sum_us, max_us, count } = of(time).distribution
    const [[below = 0, inBucket] = []] = buckets
    t.strictSame({ sum_us, max_us, count, inBucket }, { sum_us: time, max_us: time, count: 1, inBucket: 1 })
    if (below <= time || (time >= 1 && below > time * 1.2501) || (time < 1 && below > time + 0.2501)) {
      t.fail(`${time} µs is below ${below} µs`)
    }
  }
  t.strictSame(of(1e12).distribution.count, 1, 'what is beyond all measure is counted')
})

t.test('times on an edge belong to the bucket above it', async (t) => {
  for (const edge of [0.25, 0.75, 1, 1.25, 4, 7, 1024, 1280, 2 ** 28]) {
    const below = of(edge).distribution.buckets[0]?.[0] ?? 0
    t.ok(below > edge, `${edge}`)
    t.ok((of(edge * 0.999).distribution.buckets[0]?.[0] ?? 0) <= edge, `just below ${edge}`)
  }
})

t.test('quantiles are right to a quarter', async (t) => {
  const times = Array.from({ length: 1000 }, (_, i) => i + 1)
  const { distribution } = of(...times)
  for (const share of [0.01, 0.5, 0.9, 0.99, 1]) {
    const answer = quantile(distribution, share)
    t.ok(answer >= share * 1000 && answer <= share * 1250, `${share}: ${answer}`)
  }
  t.equal(quantile(of(7, 7, 7).distribution, 0.5), 7, 'never beyond the longest')
  t.equal(quantile(NOTHING_MEASURED, 0.5), 0)
})

t.test('two readings tell what came in between', async (t) => {
  const histogram = of(1, 5000)
  const before = histogram.distribution
  histogram.add(100)
  histogram.add(100)
  histogram.add(1)
  const change = since(before, histogram.distribution)
  t.strictSame(change, {
    count: 3,
    sum_us: 201,
    max_us: 112,
    buckets: [
      [1.25, 1],
      [112, 2],
    ],
  })
  histogram.add(9000)
  t.equal(since(before, histogram.distribution).max_us, 9000, 'a new longest is known')
  t.strictSame(since(before, before), { count: 0, sum_us: 0, max_us: 0, buckets: [] })
})
