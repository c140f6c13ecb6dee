/** What is to be over at a time of the wall clock is over then, whatever becomes of that clock. */
import fs from 'node:fs'
import t, { type Test } from 'tap'
import { Access, type Alarm } from '../../src/acl/access.ts'
import { WallAlarm } from '../../src/fuse/binding.ts'
import { silentLogger } from '../../src/logger.ts'
import { Catalog } from '../../src/volume/catalog.ts'
import type { Change } from '../../src/volume/change.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'

const START = Date.parse('2026-01-01T00:00:00.000Z')
const HOUR_MS = 3_600_000

/** timerfds of this process, as the kernel tells of them. */
function timers(): string[] {
  return fs.readdirSync('/proc/self/fdinfo').flatMap((fd) => {
    try {
      const text = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
      return text.includes('clockid:') ? [text] : []
    } catch {
      // The descriptor of the listing itself.
      return []
    }
  })
}

function alarmFor(t: Test): { alarm: WallAlarm; rung(): Promise<void>; count(): number } {
  let count = 0
  let heard: () => void = () => undefined
  const alarm = new WallAlarm(() => {
    count++
    heard()
  })
  // The alarm itself keeps nothing alive.
  const alive = setInterval(() => undefined, 1000)
  t.teardown(() => {
    alarm.close()
    clearInterval(alive)
  })
  const rung = (): Promise<void> =>
    new Promise((resolve) => {
      heard = resolve
    })
  return { alarm, rung, count: () => count }
}

t.test('it rings at its time, and is armed for the clock to be set', async (t) => {
  const { alarm, rung, count } = alarmFor(t)
  const before = timers().length
  const at = Date.now() + 150
  let ring = rung()
  alarm.set(at)
  const [told] = timers()
  t.equal(before, 1)
  t.match(told, /clockid: 0\n/, 'CLOCK_REALTIME')
  t.match(told, /settime flags: 03\n/, 'TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET')
  await ring
  t.ok(Date.now() >= at, 'not before')
  ring = rung()
  alarm.set(Date.now() - HOUR_MS)
  await ring
  t.pass('at once for what is over')
  ring = rung()
  alarm.set(Date.now() + HOUR_MS)
  alarm.set(Date.now() + 20)
  await ring
  t.pass('the last time counts')
  ring = rung()
  alarm.set(0)
  await ring
  t.equal(count(), 4)
  alarm.set(Date.parse('9999-12-31T23:59:59.999Z'))
  alarm.set(undefined)
  t.match(timers()[0], /it_value: \(0, 0\)/, 'never')
  alarm.close()
  alarm.close()
  alarm.set(Date.now())
  t.equal(timers().length, 0)
})

/** Access with one grant that ends in an hour, and a clock that is set by hand. */
function accessWith(t: Test) {
  const state: { now: number; at: number | undefined; ring: () => void; refuses: boolean } = {
    now: START,
    at: undefined,
    ring: () => undefined,
    refuses: false,
  }
  const changes: Change[] = []
  const catalog = new Catalog()
  const expires_at = new Date(START + HOUR_MS).toISOString()
  catalog.load('t/1/1 viewer user:uid-7', JSON.stringify({ created_at: '2026-01-01T00:00:00.000Z', expires_at }))
  const alarm = (ring: () => void): Alarm => {
    state.ring = ring
    return {
      set: (at) => {
        state.at = at
      },
      close: () => undefined,
    }
  }
  const access = new Access({
    catalog,
    commit: (more) => {
      if (state.refuses) throw new Error('the disk is full')
      changes.push(...more)
    },
    tree: {
      typeOf: (_, ino) => (ino === ROOT_INO ? 'workspace' : 'dir'),
      parentOf: () => undefined,
      liveOf: (volume) => volume,
      nestedIn: () => [],
      isNamed: () => true,
      isPresent: () => true,
    },
    logger: silentLogger,
    singleUser: false,
    now: () => state.now,
    alarm,
  })
  const reached: number[] = []
  access.onChanged = (volumes) => reached.push(...volumes)
  t.teardown(() => access.stop())
  return { access, state, changes, reached, may: () => access.check('user:uid-7', 'read', 'workspace:1/1') }
}

t.test('a step forward of the clock ends what it passes, and the kernel is told when the alarm rings', async (t) => {
  const { state, reached, may, changes } = accessWith(t)
  t.equal(state.at, START + HOUR_MS, 'it waits for the end')
  t.equal(may(), true)
  // A suspend, or NTP: no time has passed for the timers of the event loop.
  state.now += 2 * HOUR_MS
  t.equal(may(), false, 'for the daemon at once')
  state.ring()
  t.same(reached, [1], 'and for the kernel')
  t.match(changes, [{ kind: 'catalog', key: 't/1/1 viewer user:uid-7', value: null }])
  t.equal(state.at, undefined, 'nothing is left to wait for')
})

t.test('a step that passes no end changes nothing', async (t) => {
  const { state, reached, may } = accessWith(t)
  state.now += HOUR_MS / 2
  state.ring()
  t.same(reached, [])
  t.equal(may(), true)
  t.equal(state.at, START + HOUR_MS)
  state.now = START - HOUR_MS
  state.ring()
  t.equal(may(), true, 'a step back makes what has not ended last longer')
})

t.test('what has ended does not come back when the clock is set back', async (t) => {
  for (const refuses of [false, true]) {
    const { access, state, may, changes } = accessWith(t)
    state.refuses = refuses
    state.now += 2 * HOUR_MS
    state.ring()
    state.now = START
    state.ring()
    t.equal(may(), false, refuses ? 'also when the log cannot take it' : 'when it is stored')
    t.same([...access.tuples.all()], [])
    state.refuses = false
    access.write([access.newTuple('user:uid-8', 'viewer', '1/1')])
    const removed = changes.filter((change) => change.kind === 'catalog' && change.value === null)
    t.match(removed, [{ key: 't/1/1 viewer user:uid-7' }], 'the log takes it with the next change at the latest')
    access.write([access.newTuple('user:uid-9', 'viewer', '1/1')])
    t.equal(changes.filter((change) => change.kind === 'catalog' && change.value === null).length, 1, 'once')
  }
})
