/** What the disk is told to begin with, and when it is not. */
import t from 'tap'
import { NodesAhead, StreamAhead } from '../../src/cas/readahead.ts'

const KIB = 1024
const MIB = 1024 * KIB
const STRETCH = 512 * KIB

type Advised = [segment: number, offset: number, length: number][]

function streams(): { reading: (offset: number, length: number, segment?: number) => Advised } {
  const advised: Advised = []
  const ahead = new StreamAhead((...one) => void advised.push(one))
  return {
    reading(offset, length, segment = 1) {
      ahead.reading({ segment, offset, length })
      return advised.splice(0)
    },
  }
}

t.test('with the second read in a row it begins, and goes further each time', (t) => {
  const { reading } = streams()
  t.same(reading(0, MIB), [], 'nobody knows yet whether it goes on')
  t.same(reading(MIB, MIB), [[1, MIB, 2 * MIB]], 'what is about to be read, and a MiB behind')
  t.same(reading(2 * MIB, MIB), [[1, 3 * MIB, 2 * MIB]], 'only what was not told before')
  t.same(reading(3 * MIB, MIB), [[1, 5 * MIB, 3 * MIB]])
  t.same(reading(4 * MIB, MIB), [], 'enough is under way')
  t.same(reading(5 * MIB, MIB), [], 'enough is under way')
  t.same(reading(6 * MIB, MIB), [[1, 8 * MIB, 3 * MIB]], 'never more than 4 MiB ahead')
  t.end()
})

t.test('headers of records between what is read do not matter, and a leap does', (t) => {
  const { reading } = streams()
  reading(0, MIB)
  t.same(reading(MIB + 128 * KIB, MIB), [[1, MIB + 128 * KIB, 2 * MIB]])
  t.same(reading(10 * MIB, MIB), [], 'a new one')
  t.same(reading(9 * MIB, MIB), [], 'backwards')
  t.end()
})

t.test('small steps cost one call for many reads', (t) => {
  const { reading } = streams()
  let calls = 0
  for (let at = 0; at < 64 * MIB; at += 128 * KIB) calls += reading(at, 128 * KIB).length
  t.ok(calls <= 40, `${calls} calls for 512 reads`)
  t.end()
})

t.test('large blocks here and there are not read around', (t) => {
  const { reading } = streams()
  for (let i = 0; i < 200; i++) t.same(reading(((i * 37) % 200) * 2 * MIB, MIB), [])
  t.end()
})

t.test('it goes on at the beginning of the next segment', (t) => {
  const { reading } = streams()
  reading(62 * MIB, MIB)
  reading(63 * MIB, MIB)
  t.same(reading(100, MIB, 2), [[2, 100, 3 * MIB]])
  t.same(reading(100, MIB, 7), [])
  t.end()
})

t.test('several are followed at a time, and the one that rests longest is given up', (t) => {
  const { reading } = streams()
  for (let one = 1; one <= 16; one++) reading(0, MIB, one * 10)
  for (let one = 1; one <= 16; one++) t.equal(reading(MIB, MIB, one * 10).length, 1)
  reading(0, MIB, 1000)
  t.same(reading(2 * MIB, MIB, 10), [])
  t.equal(reading(2 * MIB, MIB, 160).length, 1)
  t.end()
})

function nodes(): { reading: (offset: number) => Advised } {
  const advised: Advised = []
  const ahead = new NodesAhead((...one) => void advised.push(one))
  return {
    reading(offset) {
      ahead.reading({ segment: 3, offset, length: 7000 })
      return advised.splice(0)
    },
  }
}

t.test('who reads nodes near each other has all around the next read, once', (t) => {
  const { reading } = nodes()
  for (let i = 0; i < 4; i++) t.same(reading(i * 9000), [], 'not from the first ones on')
  t.same(reading(4 * 9000), [[3, 0, STRETCH]])
  t.same(reading(5 * 9000), [])
  t.same(reading(6 * 9000), [])
  t.same(reading(4 * STRETCH + 8000), [[3, 4 * STRETCH, STRETCH]], 'elsewhere: from the first one on')
  t.same(reading(4 * STRETCH + 1000), [])
  t.end()
})

t.test('nodes here and there are read alone', (t) => {
  const { reading } = nodes()
  for (let i = 0; i < 8; i++) reading(i * 9000)
  let advised = 0
  for (let i = 1; i < 2000; i++) advised += reading(((i * 7919) % 100_000) * STRETCH).length
  t.ok(advised <= 16, `${advised} of 2,000`)
  t.end()
})
