/** Halt polling: on while requests come, and then as it was before. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import t from 'tap'
import { HaltPolling } from '../../src/daemon/haltpoll.ts'
import { mountFor, noMount } from './harness.ts'

const PARAMETER = '/sys/module/haltpoll/parameters/guest_halt_poll_ns'
const POLL_NS = 200_000
const WAIT_MS_MAX = 10_000
const logger = pino({ level: 'silent' })

/** A file in place of the kernel's, which is the same for all mounts that are tested meanwhile. */
class Parameter {
  readonly directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-halt-'))
  readonly file = path.join(this.directory, 'guest_halt_poll_ns')
  readonly before = path.join(this.directory, 'run', 'before')

  constructor(ns: number) {
    this.ns = ns
  }

  get ns(): number {
    return Number.parseInt(fs.readFileSync(this.file, 'latin1'), 10)
  }

  set ns(ns: number) {
    fs.writeFileSync(this.file, `${ns}\n`)
  }

  open(): HaltPolling {
    const polling = HaltPolling.open(logger, { parameter: this.file, before: this.before })
    if (polling === undefined) throw new Error('no such file')
    return polling
  }

  async becomes(ns: number): Promise<boolean> {
    for (const end = Date.now() + WAIT_MS_MAX; this.ns !== ns && Date.now() < end; ) await sleep(20)
    return this.ns === ns
  }

  remove(): void {
    fs.rmSync(this.directory, { recursive: true })
  }
}

t.test('it is on from the first request until none have come for a while', async (t) => {
  for (const before of [0, 50_000]) {
    const parameter = new Parameter(before)
    t.teardown(() => parameter.remove())
    const polling = parameter.open()
    t.equal(parameter.ns, before, 'nothing before the first request')
    polling.note()
    t.equal(parameter.ns, POLL_NS)
    const busy = setInterval(() => polling.note(), 50)
    await sleep(2500)
    t.equal(parameter.ns, POLL_NS, 'still, while they come')
    clearInterval(busy)
    t.ok(await parameter.becomes(before), 'put back')
    polling.note()
    t.equal(parameter.ns, POLL_NS, 'and on again')
    polling.close()
    t.equal(parameter.ns, before, 'put back at the end')
  }
})

t.test('what somebody else has set stays', async (t) => {
  const parameter = new Parameter(2 * POLL_NS)
  t.teardown(() => parameter.remove())
  const polling = parameter.open()
  polling.note()
  t.equal(parameter.ns, 2 * POLL_NS, 'more than it would set')
  parameter.ns = 10_000
  const busy = setInterval(() => polling.note(), 50)
  t.ok(await parameter.becomes(POLL_NS), 'another mount has put it back')
  clearInterval(busy)
  parameter.ns = 70_000
  polling.close()
  t.equal(parameter.ns, 70_000, 'set meanwhile')
})

t.test('who comes after a process that died puts back what that one would have', async (t) => {
  const parameter = new Parameter(30_000)
  t.teardown(() => parameter.remove())
  parameter.open().note()
  const next = parameter.open()
  t.equal(parameter.ns, POLL_NS)
  next.note()
  next.close()
  t.equal(parameter.ns, 30_000)
  t.notOk(fs.existsSync(parameter.before), 'and nothing is left')
})

t.test('what was so long before any mount stays', async (t) => {
  const parameter = new Parameter(POLL_NS)
  t.teardown(() => parameter.remove())
  const polling = parameter.open()
  polling.note()
  polling.close()
  t.equal(parameter.ns, POLL_NS)
})

t.test('a machine without it, and one that does not let it be set', async (t) => {
  const { directory, before } = new Parameter(0)
  t.teardown(() => fs.rmSync(directory, { recursive: true }))
  t.equal(HaltPolling.open(logger, { parameter: '/sys/module/no-such', before }), undefined)
  const lines: string[] = []
  const telling = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) })
  const polling = HaltPolling.open(telling, { parameter: '/dev/full', before })
  polling?.note()
  polling?.note()
  polling?.close()
  t.equal(lines.length, 1, 'said once')
  t.match(lines[0], /halt polling could not be set/)
})

const skip = noMount ?? (fs.existsSync(PARAMETER) ? false : 'no halt polling on this machine: it is tested with a file')

t.test('a mount turns it on', { skip }, async (t) => {
  const mount = await mountFor(t)
  const ns = (): number => Number.parseInt(fs.readFileSync(PARAMETER, 'latin1'), 10)
  for (const end = Date.now() + WAIT_MS_MAX; ns() < POLL_NS && Date.now() < end; )
    fs.writeFileSync(mount.at('/workspace/file'), '')
  t.ok(ns() >= POLL_NS)
})
