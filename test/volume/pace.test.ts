/** Long work beside requests: it gives way to them while they keep coming, unless it must not be late. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { noteServed, Pace } from '../../src/pace.ts'

const SLICES = 5

/** Milliseconds that slices of no length take, while requests are served all the time or not at all. */
async function taken(pace: Pace, isBusy: boolean): Promise<number> {
  let serving = isBusy
  const serve = (): void => {
    noteServed(performance.now())
    if (serving) setImmediate(serve)
  }
  if (isBusy) serve()
  else noteServed(Number.NEGATIVE_INFINITY)
  const start = performance.now()
  for (let i = 0; i < SLICES; i++) await pace.pause()
  serving = false

  return performance.now() - start
}

t.test('long work leaves 8 ms after each slice to requests that keep coming', async (t) => {
  const ms = await taken(new Pace(0), true)
  t.ok(ms >= SLICES * 8, `${ms} ms`)
})

t.test('it goes on at once when nobody asks for anything, and when it must not be late', async (t) => {
  const idle = await taken(new Pace(0), false)
  t.ok(idle < SLICES * 8, `${idle} ms`)
  const urgent = await taken(new Pace(0, nextTurn), true)
  t.ok(urgent < SLICES * 8, `${urgent} ms`)
})
