/** The index on disk: what LevelDB's failures become, and that losing it loses no data. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { openIndex } from '../../src/cas/index.ts'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { openDataDirectory } from '../../src/volume/datadir.ts'
import { STORE } from '../journal/support.ts'

const caller = { uid: 0, gid: 0, pid: 1 }
const HINT = /nothing is lost: mount again with --rebuild-index/

function directoryFor(t: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-index-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}

const entries = (count: number, start = 0) =>
  Array.from({ length: count }, (_, i) => ({ key: Buffer.from(`key${start + i}`), value: Buffer.alloc(50, `${i}`) }))

t.test('what was written is there after a reopen, in the order of keys', async (t) => {
  const directory = directoryFor(t)
  const first = await openIndex(directory, STORE)
  await first.write(entries(100))
  await first.write([{ key: Buffer.from('key7'), value: null }])
  await first.close()
  const index = await openIndex(directory, STORE)
  t.equal(index.get(Buffer.from('key7')), undefined)
  t.same(index.get(Buffer.from('key8')), Buffer.alloc(50, '8'))
  const keys: string[] = []
  for await (const [key] of index.entries(Buffer.from('key1'))) keys.push(key.toString())
  t.same(keys, ['key1', ...Array.from({ length: 10 }, (_, i) => `key1${i}`)])
  await index.close()
})

/** Makes writes of this process fail when a file would grow beyond. */
function limitFiles(bytes: number | 'unlimited'): void {
  // Listened to, the signal that comes with it ends nobody.
  process.on('SIGXFSZ', () => undefined)
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:unlimited`])
}

t.test('what is written after a failed write is there after a reopen', async (t) => {
  const directory = directoryFor(t)
  const index = await openIndex(directory, STORE)
  await index.write(entries(1000))
  limitFiles(100_000)
  t.teardown(() => limitFiles('unlimited'))
  await t.rejects(index.write(entries(1000, 1000)), { code: 'NEXUS_CORRUPT', message: /File too large/ })
  t.same(index.get(Buffer.from('key7')), Buffer.alloc(50, '7'), 'reads go on')
  limitFiles('unlimited')
  await index.write(entries(1000, 2000))
  // As SIGKILL would leave it.
  const copy = path.join(directoryFor(t), 'copy')
  fs.cpSync(directory, copy, { recursive: true })
  await index.close()
  const again = await openIndex(copy, STORE)
  t.equal(again.get(Buffer.from('key1999')), undefined, 'all or nothing')
  t.same(again.get(Buffer.from('key2999')), Buffer.alloc(50, '999'))
  await again.close()
})

t.test('while it is opened again it says so, and when it can be asked', async (t) => {
  const directory = directoryFor(t)
  const index = await openIndex(directory, STORE)
  await index.write(entries(1000))
  t.equal(index.opening, undefined)
  limitFiles(100_000)
  t.teardown(() => limitFiles('unlimited'))
  await t.rejects(index.write(entries(1000, 1000)), { code: 'NEXUS_CORRUPT' })
  const held = async (): Promise<number> => {
    const writing = index.write(entries(10, 3000)).catch((error: unknown) => error)
    const key = Buffer.from('key7')
    for (let turns = 0; ; turns++) {
      await new Promise(setImmediate)
      const { opening } = index
      if (opening === undefined) {
        if ((await Promise.race([writing, 'at work'])) !== 'at work') return turns
        continue
      }
      t.throws(() => index.get(key), { code: 'NEXUS_TIMEOUT', message: /opened again.*nothing is lost/ })
      await opening
      t.same(index.get(key), Buffer.alloc(50, '7'), 'whoever waited is answered')
    }
  }
  limitFiles('unlimited')
  t.ok((await held()) > 0)
  t.same(index.get(Buffer.from('key3009')), Buffer.alloc(50, '9'))
  await index.close()
})

t.test('one that cannot be opened again says why, and is tried again', async (t) => {
  const directory = directoryFor(t)
  const index = await openIndex(directory, STORE)
  await index.write(entries(1000))
  limitFiles(100_000)
  t.teardown(() => limitFiles('unlimited'))
  await t.rejects(index.write(entries(1000, 1000)), { code: 'NEXUS_CORRUPT' })
  limitFiles('unlimited')
  fs.renameSync(path.join(directory, 'CURRENT'), path.join(directory, 'AWAY'))
  await t.rejects(index.write(entries(10, 2000)), HINT)
  t.equal(index.opening, undefined, 'nobody waits for it')
  t.throws(() => index.get(Buffer.from('key7')), { code: 'NEXUS_TIMEOUT', message: HINT })
  await t.rejects(index.entries(Buffer.from('key'))[Symbol.asyncIterator]().next(), { code: 'NEXUS_TIMEOUT' })
  fs.renameSync(path.join(directory, 'AWAY'), path.join(directory, 'CURRENT'))
  await new Promise((resolve) => setTimeout(resolve, 600))
  t.throws(() => index.get(Buffer.from('key7')), { code: 'NEXUS_TIMEOUT' })
  t.ok(index.opening, 'who asks has it tried')
  await index.opening
  t.same(index.get(Buffer.from('key7')), Buffer.alloc(50, '7'))
  await index.write(entries(10, 2000))
  t.same(index.get(Buffer.from('key7')), Buffer.alloc(50, '7'))
  await index.close()
})

t.test('an index that another daemon holds is busy, and unharmed', async (t) => {
  const directory = directoryFor(t)
  const holder = await openIndex(directory, STORE)
  await t.rejects(openIndex(directory, STORE), { code: 'NEXUS_BUSY', message: /another nexusd is using .*--data/ })
  await holder.write(entries(1))
  await holder.close()
  await (await openIndex(directory, STORE)).close()
})

t.test('a second engine on the same data is refused, and the first goes on', async (t) => {
  const data = directoryFor(t)
  const first = await Engine.open({ data, logger: silentLogger })
  for (const rebuildIndex of [false, true]) {
    await t.rejects(Engine.open({ data, logger: silentLogger, rebuildIndex }), { code: 'NEXUS_BUSY' })
  }
  first.fs.mkdir(caller, nodeOf(0, 1), 'still', 0o755, 0)
  await first.close()
  await (await Engine.open({ data, logger: silentLogger })).close()
})

/** A store with files from two checkpoints and some that are only in the log; returns how to check it. */
async function fill(data: string): Promise<(engine: Engine) => void> {
  const engine = await Engine.open({ data, logger: silentLogger })
  const root = nodeOf(0, 1)
  const make = (name: string) => {
    const { node } = engine.fs.create(caller, root, name, 0o644, 0, 0)
    const buffer = Buffer.alloc(80 + name.length * 3 + 1024)
    buffer.write(name.repeat(3), 80)
    engine.fs.write(caller, node, 0, buffer, 80, name.length * 3, false)
  }
  for (let i = 0; i < 50; i++) make(`first${i}`)
  await engine.volumes.checkpoint()
  engine.fs.unlink(caller, root, 'first7')
  for (let i = 0; i < 50; i++) make(`second${i}`)
  await engine.close()
  const again = await Engine.open({ data, logger: silentLogger })
  for (let i = 0; i < 5; i++) again.fs.mkdir(caller, again.fs.lookup(caller, root, 'workspace')?.node ?? 0, `ws${i}`, 0o755, 0)
  await again.close()
  return (opened) => {
    for (const prefix of ['first', 'second']) {
      for (let i = 0; i < 50; i++) {
        const name = `${prefix}${i}`
        const found = opened.fs.lookup(caller, root, name)
        const into = Buffer.alloc(100)
        const text =
          found === undefined ? undefined : into.toString('latin1', 0, opened.fs.read(caller, found.node, 0, 100, into, 0))
        if (text !== (name === 'first7' ? undefined : name.repeat(3))) throw new Error(`${name} is ${text}`)
      }
    }
    const workspaces = [...opened.registry.workspaces()].map(({ name }) => name).sort()
    if (workspaces.join() !== ',ws0,ws1,ws2,ws3,ws4') throw new Error(`workspaces: ${workspaces}`)
  }
}

t.test('an index that is gone is made anew', async (t) => {
  const data = directoryFor(t)
  const check = await fill(data)
  fs.rmSync(path.join(data, 'index'), { recursive: true })
  for (let round = 0; round < 2; round++) {
    const engine = await Engine.open({ data, logger: silentLogger })
    check(engine)
    await engine.close()
  }
  t.pass()
})

const damages: [string, (index: string) => void][] = [
  ['CURRENT is garbage', (index) => fs.writeFileSync(path.join(index, 'CURRENT'), 'garbage')],
  ['CURRENT is missing its target', (index) => fs.writeFileSync(path.join(index, 'CURRENT'), 'MANIFEST-999999\n')],
  ['CURRENT is empty', (index) => fs.truncateSync(path.join(index, 'CURRENT'))],
  ['the MANIFEST is empty', (index) => each(index, 'MANIFEST', (file) => fs.truncateSync(file))],
  ['the MANIFEST is garbage', (index) => each(index, 'MANIFEST', (file) => fs.writeFileSync(file, Buffer.alloc(200, 'x')))],
  ['the MANIFEST is missing', (index) => each(index, 'MANIFEST', (file) => fs.rmSync(file))],
  ['a table is missing', (index) => each(index, '.ldb', (file) => fs.rmSync(file))],
]

for (const [name, damage] of damages) {
  t.test(`when ${name}, the start says what to do, and that works`, async (t) => {
    const data = directoryFor(t)
    const check = await fill(data)
    const index = path.join(data, 'index')
    t.ok(
      fs.readdirSync(index).some((file) => file.endsWith('.ldb')),
      'there is a table',
    )
    damage(index)
    await t.rejects(Engine.open({ data, logger: silentLogger }), { code: 'NEXUS_CORRUPT', message: HINT })
    const rebuilt = await Engine.open({ data, logger: silentLogger, rebuildIndex: true })
    check(rebuilt)
    await rebuilt.close()
    const engine = await Engine.open({ data, logger: silentLogger })
    check(engine)
    await engine.close()
  })
}

t.test('a damaged checkpoint in the index is refused with what to do', async (t) => {
  for (const value of ['', 'null', '{"segment":1}', '{"segment":1,"offset":"x","sequence":1,"durable":1}']) {
    const data = directoryFor(t)
    const check = await fill(data)
    const { store, index: directory } = openDataDirectory(data)
    const index = await openIndex(directory, store)
    await index.write([{ key: Buffer.from('m/checkpoint'), value: Buffer.from(value) }])
    await index.close()
    await t.rejects(Engine.open({ data, logger: silentLogger }), { code: 'NEXUS_CORRUPT', message: /--rebuild-index/ })
    const rebuilt = await Engine.open({ data, logger: silentLogger, rebuildIndex: true })
    check(rebuilt)
    await rebuilt.close()
  }
})

t.test('whatever byte of it flips, a start finds the whole store or says that the index is damaged', async (t) => {
  const data = directoryFor(t)
  const check = await fill(data)
  const directory = path.join(data, 'index')
  const files = fs.readdirSync(directory).filter((name) => /ldb|log$|MANIFEST|CURRENT/.test(name))
  const saved = path.join(data, 'saved')
  const counts = { whole: 0, refused: 0 }
  fs.cpSync(directory, saved, { recursive: true })
  for (const name of files) {
    const bytes = fs.readFileSync(path.join(saved, name))
    for (let i = 0; i < 12 && bytes.length > 0; i++) {
      const at = Math.floor(((i + 0.5) * bytes.length) / 12)
      fs.rmSync(directory, { recursive: true })
      fs.cpSync(saved, directory, { recursive: true })
      const flipped = Buffer.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ 0x10
      fs.writeFileSync(path.join(directory, name), flipped)
      counts[(await survives(data, check, `${name} byte ${at}`)) ? 'whole' : 'refused']++
    }
  }
  t.ok(counts.refused > 0, `${counts.whole} starts did not mind, ${counts.refused} refused`)
})

/** True when a start on this data finds everything; false when it, or what reads, says that the index is damaged. */
async function survives(data: string, check: (engine: Engine) => void, what: string): Promise<boolean> {
  let engine: Engine | undefined
  try {
    engine = await Engine.open({ data, logger: silentLogger })
    check(engine)
    return true
  } catch (error) {
    if ((error as { code?: string }).code !== 'NEXUS_CORRUPT') throw new Error(`${what}: ${error}`, { cause: error })
    return false
  } finally {
    await engine?.close().catch(() => undefined)
  }
}

function each(index: string, part: string, act: (file: string) => void): void {
  for (const file of fs.readdirSync(index)) if (file.includes(part)) act(path.join(index, file))
}
