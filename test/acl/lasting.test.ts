/** How names that the kernel keeps expire, against a kernel that is a list: who was answered late may not undo it. */
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { type GateName, LastingNames } from '../../src/vfs/lasting.ts'

const WORKSPACES = 5
const TENANTS = 6
const [ONE, TWO] = [11, 12]
const THREAD = 77

function setUp() {
  const told: string[] = []
  const places = new Map<number, GateName>([
    [ONE, { directory: WORKSPACES, name: 'one' }],
    [TWO, { directory: WORKSPACES, name: 'two' }],
  ])
  let onTold = (): void => undefined
  const kernel = {
    async expireEntry(parent: number, name: string): Promise<void> {
      told.push(`${parent}/${name}`)
      onTold()
    },
  }
  const sleeping = new Set<number>()
  const names = new LastingNames(
    kernel,
    (volume) => places.get(volume),
    (thread) => !sleeping.has(thread),
  )
  const onTelling = (call: () => void): void => {
    onTold = call
  }
  return { told, places, names, onTelling, sleeping }
}

t.test('a name is kept where it lies, until it expires', async (t) => {
  const { told, names } = setUp()
  names.keep(ONE, WORKSPACES)
  t.same([names.has(ONE, WORKSPACES), names.has(ONE, TENANTS), names.has(TWO, WORKSPACES)], [true, false, false])
  t.same(names.in(WORKSPACES), [ONE])
  const expiry = names.expire([ONE])
  t.equal(names.has(ONE, WORKSPACES), false, 'at once')
  await expiry
  t.same(told, ['5/one'])
})

t.test('who was answered without a lock is waited for, and the kernel told again', async (t) => {
  const { told, names } = setUp()
  names.keep(ONE, WORKSPACES, THREAD)
  names.keep(TWO, WORKSPACES, THREAD + 1)
  names.heard(THREAD + 1)
  let isThrough = false
  const expiry = names.expire([ONE, TWO]).then(() => {
    isThrough = true
  })
  const all = names.expired()
  await delay(50)
  t.same([isThrough, told], [false, ['5/one', '5/two']])
  names.heard(0)
  names.heard(THREAD + 2)
  await delay(20)
  t.equal(isThrough, false, 'others do not count, nor do threads without a number')
  names.heard(THREAD)
  await Promise.all([expiry, all])
  t.same(told, ['5/one', '5/two', '5/one'], 'the one that was waited for')
})

t.test('a thread that is never heard of again is waited for no longer than it can take', async (t) => {
  const { told, names } = setUp()
  names.keep(ONE, WORKSPACES, THREAD)
  const start = performance.now()
  await names.expire([ONE])
  t.ok(performance.now() - start >= 1900)
  t.same(told, ['5/one', '5/one'])
  names.keep(ONE, WORKSPACES, THREAD)
  await delay(2100)
  await names.expire([ONE])
  t.same(told.length, 3, 'long ago')
})

t.test('a thread that sleeps has taken its answer', async (t) => {
  const { told, names, sleeping } = setUp()
  names.keep(ONE, WORKSPACES, THREAD)
  const start = performance.now()
  const expiry = names.expire([ONE])
  await delay(20)
  sleeping.add(THREAD)
  await expiry
  t.ok(performance.now() - start < 1000)
  t.same(told, ['5/one', '5/one'])
})

t.test('an expired name whose answer is still on its way expires for the next who asks, too', async (t) => {
  const { told, names } = setUp()
  names.keep(ONE, WORKSPACES, THREAD)
  const first = names.expire([ONE])
  const second = names.expire([ONE])
  await delay(20)
  names.heard(THREAD)
  await Promise.all([first, second])
  t.equal(told.length, 4)
})

t.test('a rename overtakes the notify', async (t) => {
  const { told, places, names, onTelling } = setUp()
  names.keep(ONE, WORKSPACES)
  onTelling(() => void places.set(ONE, { directory: WORKSPACES, name: 'moved' }))
  await names.expire([ONE])
  t.same(told, ['5/one', '5/moved'])
  names.keep(TWO, WORKSPACES)
  places.delete(TWO)
  await names.expire([TWO])
  t.equal(told.length, 2, 'what is gone has no name')
})

t.test('a thread that is heard while the kernel is told may have taken its answer after that', async (t) => {
  const { told, names, onTelling } = setUp()
  names.keep(ONE, WORKSPACES, THREAD)
  onTelling(() => names.heard(THREAD))
  await names.expire([ONE])
  t.same(told, ['5/one', '5/one'])
})
