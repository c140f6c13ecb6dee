import t from 'tap'
import { addressOf } from '../../src/cas/address.ts'
import { AddressMarks } from '../../src/cas/addressmarks.ts'

const MARKS = 200_000
const OTHERS = 200_000
/** One in a million is promised of ten million marks; here a hundredth of them. */
const MISTAKEN_MAX = 1

t.test('what is marked is known as marked, in its domain, and next to nothing else is', async (t) => {
  const marks = new AddressMarks()
  const nth = (i: number): ReturnType<typeof addressOf> => addressOf(Buffer.from(`${i}`))
  for (let i = 0; i < MARKS; i++) marks.add(nth(i), i % 3)
  t.ok(marks.size > MARKS - 2 && marks.size <= MARKS, 'counted once', { size: marks.size })
  for (let i = 0; i < 1000; i++) marks.add(nth(i), i % 3)
  t.ok(marks.size <= MARKS, 'also when marked again')
  let [missing, mistaken] = [0, 0]
  for (let i = 0; i < MARKS; i++) {
    if (!marks.has(nth(i), i % 3)) missing++
    if (marks.has(nth(i), (i + 1) % 3)) mistaken++
  }
  for (let i = MARKS; i < MARKS + OTHERS; i++) if (marks.has(nth(i), 0)) mistaken++
  t.equal(missing, 0)
  t.ok(mistaken <= MISTAKEN_MAX, 'taken for others', { mistaken })
})
