/** The lane of notifies that wait for a directory, with threads whose ends the test decides. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { NotifySender } from '../../src/fuse/lane.ts'
import { NamesLane } from '../../src/fuse/names-lane.ts'
import { deletionNotice, entryNotice, listingNotice, type NameNotice } from '../../src/fuse/notices.ts'
import { silentLogger } from '../../src/logger.ts'

// The lane does not keep a process alive.
const alive = setInterval(() => undefined, 1000)
t.teardown(() => clearInterval(alive))

/** Far above what a busy machine delays a timer by, so that what is past it was let pass. */
const DEADLINE_MS = 400
const HELD = 7
/** where a name begins, by the notify's code: INVAL_ENTRY, DELETE */
const NAME_AT = new Map([
  [3, 32],
  [6, 40],
])

interface Sent {
  node: number
  name: string
  settle(errno: number): void
  isOver: boolean
}

/** One thread after the other; each is stuck at what goes to a held directory until that is let go. */
class Kernel {
  readonly held = new Set<number | string>()
  /** what is done is not heard of yet, as by a process that is busy */
  isUnheard = false
  readonly threads: Thread[] = []
  /** what was done, in order */
  done: string[] = []
  epochs = 0
  hasEpoch = true

  /** @param what a directory, or one notify to it as it is in `done` */
  letGo(what: number | string): void {
    this.held.delete(what)
    for (const thread of this.threads) thread.run()
  }

  laneFor(t: Test): NamesLane {
    const lane = new NamesLane({
      newSender: () => {
        const thread = new Thread(this)
        this.threads.push(thread)
        return thread
      },
      dropAllNames: async () => {
        if (this.hasEpoch) this.epochs++
        return this.hasEpoch
      },
      logger: { ...silentLogger, warn: (fields) => void this.said.push(fields), error: (fields) => void this.said.push(fields) },
      deadlineMs: DEADLINE_MS,
    })
    t.teardown(() => lane.stop())
    return lane
  }

  readonly said: object[] = []
}

class Thread implements NotifySender {
  readonly #kernel: Kernel
  readonly #given: Sent[] = []
  readonly #unheard: Sent[] = []
  isStopped = false

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  send(buffers: readonly Uint8Array[]): Promise<number[]> {
    const [bytes] = buffers
    if (bytes === undefined || buffers.length !== 1) throw new Error('one at a time')
    const buffer = Buffer.from(bytes)
    return new Promise((resolve) => {
      const nameAt = NAME_AT.get(buffer.readInt32LE(4)) ?? buffer.length + 1
      const name = buffer.toString('latin1', nameAt, buffer.length - 1)
      this.#given.push({ node: Number(buffer.readBigUInt64LE(16)), name, settle: (errno) => resolve([errno]), isOver: false })
      setImmediate(() => this.run())
    })
  }

  /** All but the first, which is in the kernel. */
  takeBack(): number {
    return this.#given.splice(1).length
  }

  stop(): void {
    this.isStopped = true
  }

  run(): void {
    for (let next = this.#given[0]; next !== undefined && !this.#isHeld(next); next = this.#given[0]) {
      this.#given.shift()
      this.#kernel.done.push(`${next.node}/${next.name}`)
      this.#unheard.push(next)
    }
    if (!this.#kernel.isUnheard) for (const { settle } of this.#unheard.splice(0)) settle(0)
  }

  #isHeld({ node, name }: Sent): boolean {
    return this.#kernel.held.has(node) || this.#kernel.held.has(`${node}/${name}`)
  }
}

const dropped = (node: number, name: string): NameNotice => entryNotice(node, name, 'drop')

async function until(isSo: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !isSo(); await sleep(2))
    if (Date.now() > deadline) throw new Error('it does not come')
}

t.test('what is sent to one directory is done in order, by one thread while none is stuck', async (t) => {
  const kernel = new Kernel()
  const lane = kernel.laneFor(t)
  const names = Array.from({ length: 1000 }, (_, i) => `n${i}`)
  const results = await Promise.all(names.flatMap((name) => [lane.send(dropped(1, name)), lane.send(deletionNotice(2, 9, name))]))
  t.ok(results.every((errno) => errno === 0))
  t.same(
    kernel.done.filter((one) => one.startsWith('1/')),
    names.map((name) => `1/${name}`),
  )
  t.equal(kernel.done.length, 2000)
  t.equal(kernel.threads.length, 1)
  t.equal(kernel.epochs, 0)
})

t.test('a held directory delays its own, until the deadline, and nothing else', async (t) => {
  const kernel = new Kernel()
  const lane = kernel.laneFor(t)
  kernel.held.add(HELD)
  const begun = performance.now()
  let isSettled = false
  const held = Promise.all([lane.send(dropped(HELD, 'a')), lane.send(dropped(HELD, 'b'))]).then((errnos) => {
    isSettled = true
    return errnos
  })
  const others = Array.from({ length: 600 }, (_, i) => lane.send(dropped(100 + i, 'x')))
  await Promise.all(others)
  t.equal(isSettled, false, 'others were done before the deadline')
  t.equal(kernel.epochs, 0)
  t.same(await held, [0, 0])
  t.ok(performance.now() - begun >= DEADLINE_MS)
  t.equal(kernel.epochs, 1, 'all names are looked up again, once for both')
  t.same(kernel.said, [{ node: HELD, waiting: 2 }])

  t.equal(await lane.send(dropped(HELD, 'c')), 0, 'what comes later does not wait for the deadline again')
  t.equal(kernel.epochs, 2, 'but for an epoch of its own')
  t.equal(await lane.send(listingNotice(101)), 0)
  kernel.letGo(HELD)
  await until(() => kernel.done.includes(`${HELD}/a`))
  t.notOk(kernel.done.includes(`${HELD}/b`), 'the epoch did what it was for')
  t.equal(await lane.send(dropped(HELD, 'd')), 0)
  t.ok(kernel.done.includes(`${HELD}/d`), 'and it is as before')
  t.equal(kernel.epochs, 2)
})

t.test('a held listing needs no epoch, and is dropped once more when it is free', async (t) => {
  const kernel = new Kernel()
  const lane = kernel.laneFor(t)
  kernel.held.add(HELD)
  t.same(await Promise.all([1, 2, 3].map(() => lane.send(listingNotice(HELD)))), [0, 0, 0])
  t.equal(kernel.epochs, 0)
  kernel.letGo(HELD)
  await until(() => kernel.done.length === 2)
  await sleep(50)
  t.same(kernel.done, [`${HELD}/`, `${HELD}/`])
})

t.test('more held directories than threads: everything has its deadline all the same', async (t) => {
  const kernel = new Kernel()
  const lane = kernel.laneFor(t)
  const nodes = Array.from({ length: 100 }, (_, i) => 1000 + i)
  for (const node of nodes) kernel.held.add(node)
  t.ok((await Promise.all(nodes.map((node) => lane.send(dropped(node, 'x'))))).every((errno) => errno === 0))
  t.ok(kernel.threads.length <= 64, `${kernel.threads.length} threads`)
  t.equal(await lane.send(dropped(1, 'free')), 0, 'no thread is free, and it has its deadline')
  for (const node of nodes) kernel.letGo(node)
  t.equal(await lane.send(dropped(1, 'later')), 0)
  await until(() => kernel.done.includes('1/later'))
  t.equal(kernel.threads.filter(({ isStopped }) => !isStopped).length, 1, 'the others ended')
})

t.test('a kernel without epochs is waited for, and it is said', async (t) => {
  const kernel = new Kernel()
  kernel.hasEpoch = false
  const lane = kernel.laneFor(t)
  kernel.held.add(HELD)
  let settled = 0
  const all = ['a', 'b'].map((name) => lane.send(dropped(HELD, name)).then(() => settled++))
  await until(() => kernel.said.length > 0)
  await sleep(DEADLINE_MS)
  t.equal(settled, 0)
  t.equal(kernel.said.length, 1, 'once')
  kernel.letGo(HELD)
  await Promise.all(all)
  t.same(kernel.done, [`${HELD}/a`, `${HELD}/b`])
})

t.test('a directory whose turn came while nobody listened loses none, and has one thread', async (t) => {
  const kernel = new Kernel()
  const lane = kernel.laneFor(t)
  kernel.isUnheard = true
  const [first, second, third] = [`${HELD}/first`, `${HELD}/second`, `${HELD}/third`]
  kernel.held.add(first).add(second)
  const settled: string[] = []
  const send = (node: number, name: string): void =>
    void lane.send(dropped(node, name)).then(() => settled.push(`${node}/${name}`))
  send(1, 'other')
  for (const name of ['first', 'second', 'third']) send(HELD, name)
  await until(() => kernel.done.length === 1)
  // So slow that the thread is left to what it has: of both directories, as far as the lane knows.
  await sleep(100)
  kernel.isUnheard = false
  kernel.letGo(first)
  await until(() => settled.includes(first))
  await sleep(100)
  kernel.letGo(second)
  await until(() => settled.length === 4)
  t.same(kernel.done, ['1/other', first, second, third])
  t.same(settled, ['1/other', first, second, third])
})
