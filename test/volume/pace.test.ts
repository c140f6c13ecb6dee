/** Long work beside requests: it gives way to them while they keep coming, unless it must not be late. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { noteServed, Pace } from '../../src/pace.ts'

const SLICES = 5
/** of the clock below, for each turn of the event loop */
const TURN_MS = 0.1

/** Runs with a clock that stands still between turns: a busy machine would let requests seem to come seldom. */
async function withClock<T>(work: (tick: () => number) => Promise<T>): Promise<T> {
  const { now } = performance
  let ms = now.call(performance)
  performance.now = () => ms
  try {
    return await work(() => {
      ms += TURN_MS
      return ms
    })
  } finally {
    performance.now = now
  }
}

/** Milliseconds that slices of no length take, while requests are served all the time or not at all. */
function taken(makePace: () => Pace, isBusy: boolean): Promise<number> {
  return withClock(async (tick) => {
    let isOver = false
    const turn = (): void => {
      const now = tick()
      if (isBusy) noteServed(now)
      if (!isOver) setImmediate(turn)
    }
    noteServed(Number.NEGATIVE_INFINITY)
    turn()
    const pace = makePace()
    const start = performance.now()
    for (let i = 0; i < SLICES; i++) await pace.pause()
    isOver = true
    const ms = performance.now() - start
    // Its last turn shall not be another's.
    for (let i = 0; i < 3; i++) await nextTurn()
    return ms
  })
}

t.test('long work leaves 8 ms after each slice to requests that keep coming', async (t) => {
  const ms = await taken(() => new Pace(0), true)
  t.ok(ms >= SLICES * 8, `${ms} ms`)
})

t.test('it goes on at once when nobody asks for anything, and when it must not be late', async (t) => {
  const idle = await taken(() => new Pace(0), false)
  t.ok(idle < SLICES, `${idle} ms`)
  const urgent = await taken(() => new Pace(0, nextTurn), true)
  t.ok(urgent < SLICES, `${urgent} ms`)
})
