/** A scrub finds every chunk that went bad and the files that it touches, goes on where it was, and what is stored again heals. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { ScrubInfo } from '../../src/api/store.ts'
import { toHex } from '../../src/cas/address.ts'
import type { Location } from '../../src/cas/location.ts'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { noise } from '../cas/support.ts'
import { TestEngine } from '../snapshots/support.ts'
import { bigContent, fill, Sample } from './support.ts'

class Store {
  readonly data: string
  sample: Sample

  constructor(data: string, sample: Sample) {
    this.data = data
    this.sample = sample
  }

  static async make(t: Test): Promise<Store> {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-scrub-'))
    const store = new Store(data, await open(data))
    t.teardown(async () => {
      await store.sample.engine.close()
      fs.rmSync(data, { recursive: true, force: true })
    })
    store.sample.test.mkdir('/workspace/a')
    fill(store.sample.test)
    await store.sample.engine.volumes.checkpoint()
    return store
  }

  async reopen(): Promise<void> {
    await this.sample.engine.close()
    this.sample = await open(this.data)
  }

  /** Turns one bit of a byte of something stored. */
  flip({ parts }: Location, at: number): void {
    let left = at
    for (const { segment, offset, length } of parts) {
      if (left < length) {
        const fd = fs.openSync(path.join(this.data, 'log', `${String(segment).padStart(10, '0')}.log`), 'r+')
        const byte = Buffer.alloc(1)
        fs.readSync(fd, byte, 0, 1, offset + left)
        byte[0] = (byte[0] as number) ^ 0x10
        fs.writeSync(fd, byte, 0, 1, offset + left)
        fs.closeSync(fd)
        return
      }
      left -= length
    }
    throw new Error('behind the end')
  }

  async scrub(): Promise<ScrubInfo> {
    this.sample.engine.scrub.begin(null)
    return this.end()
  }

  async end(): Promise<ScrubInfo> {
    while (this.sample.engine.scrub.info.state === 'running') await sleep(5)
    return this.sample.engine.scrub.info
  }
}

async function open(data: string): Promise<Sample> {
  return new Sample(new TestEngine(await Engine.open({ data, logger: silentLogger })))
}

t.test('what is sound is read to its end', async (t) => {
  const store = await Store.make(t)
  const info = await store.scrub()
  t.match(info, { state: 'done', bad: [], rate: null })
  t.ok(info.total_bytes > bigContent.length)
  t.equal(info.done_bytes, info.total_bytes)
  await store.reopen()
  t.match(store.sample.engine.scrub.info, info, 'and a daemon later it is still known')
})

t.test('a bit that turned in any chunk is found, with the files of all states that have it', async (t) => {
  const store = await Store.make(t)
  const { test, engine } = store.sample
  const { snapshot_id } = await test.service.snapshotCreate('/workspace/a', { name: 'one' })
  // From here on the old start of the file is the snapshot's alone.
  test.write('/workspace/a/d/big', noise(9000, 8))
  await engine.volumes.checkpoint()
  const users = new Map<string, { path: string; live: boolean; snapshots: string[] }[]>()
  const view = engine.registry.view(engine.registry.snapshot(snapshot_id)?.view ?? -1)
  for (const [volume, live] of [
    [store.sample.volume, true],
    [view, false],
  ] as const) {
    for (const [name, shown] of [
      ['f', 'd/g'],
      ['d/big', 'd/big'],
      ['d/e/deep/x', 'd/e/deep/x'],
      ['sparse', 'sparse'],
      ['reserved', 'reserved'],
    ] as const) {
      for (const [, piece] of volume?.pieces(store.sample.ino(name), 0, 2 ** 40) ?? []) {
        if (piece.kind !== 'chunk') continue
        const all = users.get(piece.address) ?? []
        users.set(piece.address, all)
        const line = { path: `/workspace/a/${shown}`, live, snapshots: live ? [] : [snapshot_id] }
        if (!all.some((one) => JSON.stringify(one) === JSON.stringify(line))) all.push(line)
      }
    }
  }
  t.ok(users.size > 8)
  const shared = [...users.values()].filter((all) => all.length === 2)
  t.ok(shared.length > 3 && shared.length < users.size)
  let turn = 0
  for (const [address, wanted] of users) {
    const location = engine.volumes.content.locate(0, address as never) as Location
    const at = (turn++ * 7919) % location.length
    store.flip(location, at)
    const info = await store.scrub()
    t.equal(info.state, 'done')
    t.strictSame(
      info.bad.map(({ kind, address: hex }) => [kind, hex]),
      [['chunk', toHex(address as never)]],
    )
    const byPath = (a: { live: boolean }, b: { live: boolean }): number => Number(b.live) - Number(a.live)
    t.strictSame([...(info.bad[0]?.files ?? [])].sort(byPath), [...wanted].sort(byPath))
    store.flip(location, at)
  }
  t.match(await store.scrub(), { state: 'done', bad: [] }, 'and nothing when all is as it was')
})

t.test('a node that went bad is found, though it is still in memory', async (t) => {
  const store = await Store.make(t)
  const { volumes } = store.sample.engine
  const root = store.sample.volume.root as never
  store.flip(volumes.content.locate(undefined, root) as Location, 30)
  t.match(await store.scrub(), { state: 'done', bad: [{ kind: 'node', address: toHex(root) }] })
})

t.test('one that was stopped, or whose daemon ended, goes on where it was', async (t) => {
  const store = await Store.make(t)
  for (let i = 0; i < 20; i++) store.sample.test.write(`/workspace/a/n${i}`, noise(50_000, i + 50))
  await store.sample.engine.volumes.checkpoint()
  const { engine } = store.sample
  engine.scrub.begin(400_000)
  const some = async (than: number): Promise<void> => {
    while (store.sample.engine.scrub.info.done_bytes <= than) await sleep(5)
  }
  await some(100_000)
  const stopped = await engine.scrub.stop()
  t.equal(stopped.state, 'stopped')
  t.ok(stopped.done_bytes < stopped.total_bytes)
  engine.scrub.begin(400_000)
  await some(stopped.done_bytes + 50_000)
  await store.reopen()
  const before = store.sample.engine.scrub.info
  t.equal(before.state, 'running', 'as the daemon left it')
  t.ok(before.done_bytes > stopped.done_bytes)
  let read = 0
  const { content } = store.sample.engine.volumes
  const inspect = content.inspect.bind(content)
  content.inspect = (domain, address) => {
    const bytes = inspect(domain, address)
    read += bytes ?? 0
    return bytes
  }
  store.sample.engine.start()
  store.sample.engine.scrub.begin(null)
  const info = await store.end()
  t.match(info, { state: 'done', bad: [], started_at: stopped.started_at ?? '' })
  t.equal(info.done_bytes, info.total_bytes)
  t.ok(read > 0 && read <= info.total_bytes - before.done_bytes + 200_000, `${read} of ${info.total_bytes} bytes read again`)
})

t.test('the rate is kept', async (t) => {
  const store = await Store.make(t)
  const start = performance.now()
  store.sample.engine.scrub.begin(200_000)
  const info = await store.end()
  const seconds = (performance.now() - start) / 1000
  t.ok(seconds > (info.total_bytes / 200_000) * 0.7, `${info.total_bytes} bytes in ${seconds.toFixed(2)} s`)
})

for (const how of ['by a scrub', 'by a read', 'by a scrub of an earlier daemon'] as const) {
  t.test(`what was found bad ${how} heals when it is stored again`, async (t) => {
    const store = await Store.make(t)
    const { test } = store.sample
    await test.service.snapshotCreate('/workspace/a', { name: 'one' })
    const piece = [...store.sample.volume.pieces(store.sample.ino('d/big'), 0, 1)][0]?.[1]
    if (piece?.kind !== 'chunk') throw new Error('no chunk')
    const location = store.sample.engine.volumes.content.locate(0, piece.address) as Location
    store.flip(location, 77)
    if (how === 'by a read') t.throws(() => test.read('/workspace/a/d/big'), { code: 'NEXUS_CORRUPT' })
    else t.equal((await store.scrub()).bad.length, 1)
    if (how === 'by a scrub of an earlier daemon') await store.reopen()
    const again = store.sample
    again.test.write('/workspace/a/new', bigContent)
    await again.engine.volumes.checkpoint()
    t.not(again.engine.volumes.content.locate(0, piece.address)?.parts[0]?.offset, location.parts[0]?.offset)
    t.equal(again.test.read('/workspace/a/d/big'), bigContent.toString(), 'the old file reads')
    t.match(await store.scrub(), { state: 'done', bad: [] })
    await store.reopen()
    t.match(await store.scrub(), { state: 'done', bad: [] }, 'and so it stays')
    t.strictSame(await store.sample.findings(), [])
  })
}
