/** The text that Prometheus reads, by a small reader of its own. */
import t from 'tap'
import { exposition } from '../../src/api/exposition.ts'
import { metrics } from '../service/fake-service.ts'
import { parseExposition } from './parse.ts'

t.test('every family has one HELP and one TYPE, a fitting name, and samples', async (t) => {
  const families = parseExposition(exposition(metrics))
  t.ok(families.size > 25)
  for (const [name, { type, samples }] of families) {
    t.match(name, /^nexus_[a-z][a-z_]*$/)
    if (type === 'counter') t.match(name, /_total$/)
    if (type === 'histogram') t.match(name, /_seconds$/)
    t.ok(samples.length > 0, name)
    for (const { value } of samples) t.ok(Number.isFinite(value), name)
  }
})

t.test('values are in seconds and bytes', async (t) => {
  const families = parseExposition(exposition(metrics))
  const value = (family: string, labels: Record<string, string> = {}, name = family): number | undefined =>
    families
      .get(`nexus_${family}`)
      ?.samples.find((sample) => sample.name === `nexus_${name}` && JSON.stringify(sample.labels) === JSON.stringify(labels))
      ?.value
  t.equal(value('requests_total', { operation: 'LOOKUP' }), 10)
  t.equal(value('request_errors_total', { operation: 'LOOKUP', errno: 'EACCES' }), 2)
  t.equal(value('written_bytes_total'), 4096)
  t.equal(value('takeovers_total'), 2)
  t.equal(value('start_time_seconds'), Date.parse(metrics.started_at) / 1000)
  t.equal(value('cache_hits_total', { cache: 'tree' }), 30)
  t.equal(value('request_duration_seconds', { operation: 'WRITE' }, 'request_duration_seconds_sum'), 0.06)
  t.equal(value('fsync_duration_seconds', {}, 'fsync_duration_seconds_count'), 1)
})

t.test('buckets of a histogram add up', async (t) => {
  const families = parseExposition(exposition(metrics))
  for (const [name, { type, samples }] of families) {
    if (type !== 'histogram') continue
    const series = new Map<string, typeof samples>()
    for (const sample of samples) {
      const { le: _, ...rest } = sample.labels
      const key = JSON.stringify(rest)
      series.set(key, [...(series.get(key) ?? []), sample])
    }
    for (const [key, one] of series) {
      const buckets = one.filter((sample) => sample.name === `${name}_bucket`)
      const bounds = buckets.map(({ labels }) => (labels['le'] === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels['le'])))
      t.strictSame(
        bounds,
        [...bounds].sort((a, b) => a - b),
        `${name}${key}: bounds ascend`,
      )
      t.equal(bounds.at(-1), Number.POSITIVE_INFINITY)
      const values = buckets.map(({ value }) => value)
      t.strictSame(
        values,
        [...values].sort((a, b) => a - b),
        `${name}${key}: cumulative`,
      )
      t.equal(values.at(-1), one.find((sample) => sample.name === `${name}_count`)?.value)
      t.ok(one.some((sample) => sample.name === `${name}_sum`))
    }
  }
  const writes = families.get('nexus_request_duration_seconds')?.samples.filter(({ labels }) => labels['operation'] === 'WRITE')
  const first = writes?.find(({ name, value }) => name.endsWith('_bucket') && value === 1)
  t.equal(first?.labels['le'], '0.065536', '60 ms are below 65.536 ms and not below 32.768 ms')
})
