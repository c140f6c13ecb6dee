/** The examples in docs/format.md are decoded from nothing but their bytes, and a store that an older program wrote is as it was. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { sumsOf } from '../../src/cas/blocks.ts'
import { decodeLocation, encodeLocation } from '../../src/cas/location.ts'
import { Engine, type EngineOptions } from '../../src/engine/engine.ts'
import { packageRoot } from '../../src/host/version.ts'
import { xxh64 } from '../../src/journal/checksum.ts'
import { directoryDisk } from '../../src/journal/disk.ts'
import { decodeSegmentHeader } from '../../src/journal/record.ts'
import { LOG_START, readLog } from '../../src/journal/replay.ts'
import { silentLogger } from '../../src/logger.ts'
import { readChange } from '../../src/volume/change.ts'
import { slotOf } from '../../src/volume/dirent.ts'
import { caller, TestEngine } from '../snapshots/support.ts'

const text = readFileSync(path.join(packageRoot(), 'docs', 'format.md'), 'utf8')
const example = /```\n(0000 [\s\S]+?)```/.exec(text)?.[1] ?? ''
const STORE = 0x0102030405060708n
const bytes = Buffer.from(example.replace(/^[0-9a-f]{4} /gm, '').replace(/\s/g, ''), 'hex')

t.test('the documented log holds the documented record', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'nexus-format-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  writeFileSync(path.join(directory, '0000000001.log'), bytes)
  const records = [...readLog(directoryDisk(directory), STORE, LOG_START, 0)]
  t.equal(records.length, 1)
  const [record] = records
  t.match(record, { type: 1, sequence: 1, segment: 1, offset: 0x78, end: { segment: 1, offset: bytes.length } })
  t.equal(record?.data.toString(), 'hi')
  const input = new ByteReader(record?.meta ?? Buffer.alloc(0))
  const entry = { index: 0, name: 'hello', type: 0o100000, ino: 3, volume: 0 }
  t.equal(slotOf('hello'), 0x26c7827d889f)
  t.same(readChange(input), { kind: 'entry', volume: 1, ino: 1, slot: 0x26c7827d889f, entry })
  t.same(readChange(input), { kind: 'write', volume: 1, ino: 3, offset: 0, length: 2, from: 0 })
  t.ok(input.done)
})

t.test('the documented location is that of the documented chunk', (t) => {
  const place = /The chunk of 10,000 letters `x`[\s\S]+?\n {4}([0-9a-f ]+)\n/.exec(text)?.[1] ?? ''
  const bytes = Buffer.from(place.replace(/ /g, ''), 'hex')
  const content = Buffer.alloc(10_000, 'x')
  const location = decodeLocation(bytes)
  const parts = [{ segment: 1, offset: 0x78, length: 10_000 }]
  t.match(location, { length: 10_000, xxh: xxh64(content, STORE), parts })
  t.same(location.sums, sumsOf(content, STORE))
  t.ok(encodeLocation(location).equals(bytes))
  t.end()
})

/** Every file of a store that the last program of format 1 wrote, and was killed: names and bytes (latin1). */
const older = gunzipSync(readFileSync(path.join(packageRoot(), 'test', 'volume', 'format-1.json.gz')))
/** What it wrote: in one record, in fifty of 400 bytes, and, after the last checkpoint, in one. */
const files: readonly [name: string, content: string][] = [
  ['/workspace/a/whole', lines(40_000, 1)],
  ['/workspace/a/parts', lines(20_000, 5000)],
  ['/workspace/a/raw', lines(10_000, 9000)],
]

function lines(length: number, first: number): string {
  let text = ''
  for (let i = first; text.length < length; i++) text += `line ${i} of what an older program wrote\n`
  return text.slice(0, length)
}

class OlderStore {
  readonly data = mkdtempSync(path.join(tmpdir(), 'nexus-format-'))
  test: TestEngine | undefined

  constructor(t: Test) {
    t.teardown(async () => {
      await this.test?.engine.close()
      rmSync(this.data, { recursive: true })
    })
    for (const [name, content] of Object.entries(JSON.parse(older.toString()) as Record<string, string>)) {
      mkdirSync(path.dirname(path.join(this.data, name)), { recursive: true, mode: 0o700 })
      writeFileSync(path.join(this.data, name), Buffer.from(content, 'latin1'))
    }
  }

  async open(options: Partial<EngineOptions> = {}): Promise<TestEngine> {
    await this.test?.engine.close()
    this.test = undefined
    this.test = new TestEngine(await Engine.open({ data: this.data, logger: silentLogger, ...options }))
    return this.test
  }

  get formats(): (number | undefined)[] {
    const log = path.join(this.data, 'log')
    return readdirSync(log)
      .sort()
      .map((name) => decodeSegmentHeader(readFileSync(path.join(log, name)))?.version)
  }

  get segment(): Buffer {
    return readFileSync(path.join(this.data, 'log', '0000000001.log'))
  }
}

/** For each chunk of the index that is long enough for them, whether it has sums; those must be right. */
async function sumsIn({ volumes }: Engine): Promise<boolean[]> {
  const found: boolean[] = []
  for await (const { domain, address, location } of volumes.content.contents()) {
    if (domain === undefined || location.length <= 8192) continue
    if (volumes.content.inspect(domain, address) !== location.length) throw new Error('the sums are wrong')
    found.push(location.sums !== undefined)
  }
  return found
}

/** Reads files as a whole, and each byte of them in small parts. */
function check(t: Test, test: TestEngine, wanted = files): void {
  for (const [name, content] of wanted) {
    t.ok(test.read(name) === content, name)
    const { node } = test.stat(name)
    const into = Buffer.alloc(1000)
    for (let at = 0; at < content.length; at += 777) {
      const length = test.engine.fs.read(caller, node, at, into.length, into, 0)
      if (into.toString('latin1', 0, length) !== content.slice(at, at + into.length)) t.fail(`${name} at ${at}`)
    }
  }
}

t.test('a store of an older program is read, goes on in segments of this format, and its index is made anew', async (t) => {
  const store = new OlderStore(t)
  const before = store.segment
  let test = await store.open()
  check(t, test)
  t.same(store.formats, [1], 'nothing was written')
  // So much is sealed by another thread.
  const more: [string, string][] = [...files, ['/workspace/a/more', lines(400_000, 20_000)]]
  test.write('/workspace/a/more', lines(400_000, 20_000))
  t.same(store.formats, [1, 2])
  await test.engine.volumes.checkpoint()
  check(t, test, more)
  const sums = await sumsIn(test.engine)
  t.ok(sums.includes(false) && sums.filter(Boolean).length > 3, 'what is stored now has sums')
  test = await store.open()
  check(t, test, more)
  t.same((await test.engine.check()).findings, [])
  test = await store.open({ rebuildIndex: true })
  check(t, test, more)
  t.same((await test.engine.check()).findings, [])
  t.same(store.formats, [1, 2])
  t.ok(store.segment.equals(before), 'what was there is as it was')
  t.match(readFileSync(path.join(store.data, 'nexus.json'), 'utf8'), /"format":1,/)
})

t.test('a collection gives what an older program stored its sums', async (t) => {
  const store = new OlderStore(t)
  const test = await store.open()
  const { volumes } = test.engine
  await volumes.checkpoint()
  const had = await sumsIn(test.engine)
  t.ok(had.includes(false))
  for await (const content of volumes.content.contents()) volumes.content.move(content)
  await volumes.content.flush()
  const has = await sumsIn(test.engine)
  t.ok(has.length === had.length && has.every(Boolean))
  check(t, await store.open())
})
