/** Where chunks are cut: by content alone, within limits, and for ever in the same places. */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MEAN, CHUNK_BYTES_MIN, chunkLength } from '../../src/cas/chunker.ts'
import { noise } from './support.ts'

const MIB = 1024 * 1024

/** The ends of all chunks. */
function boundaries(bytes: Uint8Array): number[] {
  const ends: number[] = []
  for (let at = 0; at < bytes.length; ) {
    at += chunkLength(bytes, at, bytes.length)
    ends.push(at)
  }
  return ends
}

function lengths(ends: readonly number[]): number[] {
  return ends.map((end, i) => end - (ends[i - 1] ?? 0))
}

const FIRST_ENDS = [38933, 52175, 122097, 160428]
const ENDS_HASH = 'ca824907f4c076bea8f630139c5e4b1fa53ba58d91e99cf738badd54bbe159dc'

t.test('boundaries of known bytes are what they have always been', (t) => {
  const ends = boundaries(noise(4 * MIB, 1))
  // Other numbers here mean that nothing stored before is found again: that is a new format version.
  t.same(ends.slice(0, 4), FIRST_ENDS)
  t.equal(createHash('sha256').update(ends.join(',')).digest('hex'), ENDS_HASH)
  t.end()
})

t.test('chunks have the lengths they should', (t) => {
  const all = lengths(boundaries(noise(32 * MIB, 2))).slice(0, -1)
  t.ok(Math.min(...all) > CHUNK_BYTES_MIN)
  t.ok(Math.max(...all) <= CHUNK_BYTES_MAX)
  const mean = all.reduce((sum, length) => sum + length, 0) / all.length
  t.ok(mean > CHUNK_BYTES_MEAN * 0.8 && mean < CHUNK_BYTES_MEAN * 1.4, `the mean is ${Math.round(mean)}`)
  t.end()
})

t.test('bytes without any feature are cut at the maximum', (t) => {
  const ends = boundaries(Buffer.alloc(MIB))
  t.same(new Set(lengths(ends)), new Set([CHUNK_BYTES_MAX]))
  t.end()
})

t.test('what is short is one chunk, and nothing is none', (t) => {
  t.same(boundaries(Buffer.alloc(0)), [])
  for (const length of [1, CHUNK_BYTES_MIN - 1, CHUNK_BYTES_MIN]) t.same(boundaries(noise(length, 3)), [length])
  t.end()
})

t.test('an insertion moves the boundaries behind it along', (t) => {
  const bytes = noise(8 * MIB, 4)
  const before = boundaries(bytes)
  for (const [at, length] of [
    [0, 1],
    [100_000, 7],
    [MIB, 5000],
    [4 * MIB, 300_000],
  ] as const) {
    const inserted = Buffer.concat([bytes.subarray(0, at), noise(length, 5), bytes.subarray(at)])
    const after = new Set(boundaries(inserted))
    const untouched = before.filter((end) => end <= at)
    t.ok(
      untouched.slice(0, -1).every((end) => after.has(end)),
      'before it nothing changes',
    )
    const shifted = before.filter((end) => end > at)
    const kept = shifted.filter((end) => after.has(end + length))
    t.ok(kept.length >= shifted.length - 8, `${kept.length} of ${shifted.length} behind it are the same`)
  }
  t.end()
})

t.test('a chunk depends on its own bytes only', async (t) => {
  const bytes = noise(MIB, 6)
  const runs = fc.property(fc.nat(MIB - 1), fc.nat(MIB), (start, behind) => {
    const end = Math.min(MIB, start + behind)
    const length = chunkLength(bytes, start, end)
    const alone = bytes.subarray(start, end)
    if (chunkLength(alone, 0, alone.length) !== length) throw new Error('what lies before counts')
    const cut = bytes.subarray(start, start + length)
    if (chunkLength(cut, 0, cut.length) !== length) throw new Error('what lies behind counts')
  })
  fc.assert(runs, { numRuns: 300 })
  t.pass()
})
