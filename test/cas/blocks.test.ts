/** A small part of a chunk is read and checked as the blocks that hold it, and is the same as ever; damage is found where it lies. */
import fc from 'fast-check'
import t from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { addressOf } from '../../src/cas/address.ts'
import { areIntact, BLOCK_BYTES, blocksAround, sumsOf } from '../../src/cas/blocks.ts'
import { CHUNK_BYTES_MAX } from '../../src/cas/chunker.ts'
import {
  addSpans,
  decodeLocation,
  encodeLocation,
  type Location,
  type PlacedSpan,
  readCountedLocation,
} from '../../src/cas/location.ts'
import type { WantedChunk } from '../../src/cas/reader.ts'
import { ContentStore, type SealedChunk } from '../../src/cas/store.ts'
import { xxh64 } from '../../src/journal/checksum.ts'
import type { Log, Span } from '../../src/journal/log.ts'
import { FORMAT_VERSION, RecordType, segmentName } from '../../src/journal/record.ts'
import { metasIn } from '../../src/journal/replay.ts'
import { formatsOf, MemoryDisk, newLog, reopen, STORE, setFormat, systemError } from '../journal/support.ts'
import { adoptAll, MemoryIndex, noise } from './support.ts'

const KIB = 1024
/** Not a multiple of a block. */
const LENGTH = 40_000
const BLOCKS = Math.ceil(LENGTH / BLOCK_BYTES)

class Made {
  readonly disk: MemoryDisk
  readonly index: MemoryIndex
  readonly log: Log
  readonly store: ContentStore

  /** @param chunkCacheBytesMax unless told, nothing is kept: every read shows what it reads */
  constructor(disk = new MemoryDisk(), index = new MemoryIndex(), chunkCacheBytesMax = 0) {
    this.disk = disk
    this.index = index
    this.log = newLog(disk, { segmentBytesMax: 64 * KIB })
    this.store = new ContentStore(this.log, index, { store: STORE, chunkCacheBytesMax })
  }

  /** Stores a chunk that lies in so many records. */
  add(content: Buffer, parts = 1): SealedChunk {
    const step = Math.ceil(content.length / parts)
    const spans: Span[] = []
    for (let at = 0; at < content.length; at += step) {
      spans.push(this.log.append(RecordType.changes, content.subarray(at, at + step), Buffer.from('meta')))
    }
    const chunk = sealed(content, spans)
    this.store.addChunks(0, [chunk])
    return chunk
  }

  read({ address }: SealedChunk, offset: number, length: number): Buffer {
    const into = Buffer.alloc(length + 2, '.')
    this.store.readChunks(0, [{ address, offset, length, at: 1 }], into)
    if (into[0] !== 46 || into[length + 1] !== 46) throw new Error('more was filled than was wanted')
    return into.subarray(1, length + 1)
  }

  /** Bytes that a read takes from the disk. */
  cost(read: () => unknown): number {
    const { disk } = this
    let bytes = 0
    const readNow = disk.read.bind(disk)
    disk.read = (fd, buffer, start, length, position) => {
      bytes += length
      return readNow(fd, buffer, start, length, position)
    }
    try {
      read()
      return bytes
    } finally {
      disk.read = readNow
    }
  }

  /** Turns a bit of a byte of something stored. */
  flip({ parts }: Location, at: number): void {
    let left = at
    for (const { segment, offset, length } of parts) {
      if (left < length) {
        const file = this.disk.bytesOf(segmentName(segment))
        file[offset + left] = (file[offset + left] as number) ^ 0x20
        return
      }
      left -= length
    }
    throw new Error('behind the end')
  }
}

function sealed(content: Buffer, parts: readonly Span[]): SealedChunk {
  const location = { length: content.length, xxh: xxh64(content, STORE), parts, sums: sumsOf(content, STORE) }
  return { address: addressOf(content), location }
}

/** What format 1 says of it. */
function withoutSums({ address, location: { sums: _, ...location } }: SealedChunk): SealedChunk {
  return { address, location }
}

t.test('each block has the low half of its XXH64, and short content has none', (t) => {
  const content = noise(2 * BLOCK_BYTES + 1, 1)
  const sums = sumsOf(content, STORE) as Uint8Array
  t.equal(sums.length, 3 * 4)
  t.equal(sums.buffer.byteLength, sums.length, 'to hand it to another thread copies nothing else')
  for (let i = 0; i < 3; i++) {
    const whole = Buffer.alloc(8)
    whole.writeBigUInt64LE(xxh64(content.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES), STORE))
    t.ok(whole.subarray(0, 4).equals(sums.subarray(4 * i, 4 * i + 4)))
  }
  t.equal(sumsOf(content.subarray(0, 2 * BLOCK_BYTES), STORE), undefined)
  t.ok(areIntact(content, 0, sums, STORE))
  t.ok(areIntact(content.subarray(2 * BLOCK_BYTES), 2 * BLOCK_BYTES, sums, STORE))
  t.notOk(areIntact(content.subarray(0, BLOCK_BYTES), BLOCK_BYTES, sums, STORE), 'a block of another place')
  t.notOk(areIntact(content, 0, sums, STORE + 1n), 'a block of another store')
  t.end()
})

t.test('a small part costs the blocks that hold it, a large one the chunk', (t) => {
  const made = new Made()
  for (const parts of [1, 3]) {
    const content = noise(LENGTH, parts)
    const chunk = made.add(content, parts)
    for (let block = 0; block < BLOCKS; block++) {
      for (const offset of [-1, 0, 1, 100].map((by) => block * BLOCK_BYTES + by)) {
        for (const length of [1, 2, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, LENGTH / 4]) {
          if (offset < 0 || offset + length > LENGTH) continue
          const { from, to } = blocksAround({ offset, length }, LENGTH)
          let found: Buffer = Buffer.alloc(0)
          const cost = made.cost(() => {
            found = made.read(chunk, offset, length)
          })
          if (!found.equals(content.subarray(offset, offset + length))) t.fail(`${length} bytes at ${offset} are others`)
          if (cost !== to - from || cost > length + 2 * (BLOCK_BYTES - 1)) t.fail(`${length} bytes at ${offset} cost ${cost}`)
        }
      }
    }
    t.equal(
      made.cost(() => made.read(chunk, 5, LENGTH / 4 + 1)),
      LENGTH,
    )
    t.equal(
      made.cost(() => made.read(chunk, 0, LENGTH)),
      LENGTH,
    )
  }
  t.end()
})

t.test('who asks for much at once reads whole chunks, of which the next read wants the rest', (t) => {
  const made = new Made(undefined, undefined, 4 * CHUNK_BYTES_MAX)
  const chunks = [1, 2, 3].map((seed) => made.add(noise(LENGTH, seed)))
  const [first, second, third] = chunks as [SealedChunk, SealedChunk, SealedChunk]
  const wanted: WantedChunk[] = [
    { address: first.address, offset: LENGTH - 100, length: 100, at: 0 },
    { address: second.address, offset: 0, length: LENGTH, at: 100 },
    { address: third.address, offset: 0, length: 100, at: LENGTH + 100 },
  ]
  const into = Buffer.alloc(LENGTH + 200)
  t.equal(
    made.cost(() => made.store.readChunks(0, wanted, into)),
    3 * LENGTH,
  )
  t.equal(
    made.cost(() => made.read(third, 100, LENGTH - 100)),
    0,
  )
  t.end()
})

t.test('the end of a chunk and the beginning of the next are read at once where they lie behind one another', (t) => {
  const contents = [noise(10 * BLOCK_BYTES, 40), noise(10 * BLOCK_BYTES, 41), noise(10 * BLOCK_BYTES, 42)] as const
  const half = 1000
  const last = 10 * BLOCK_BYTES
  const make = () => {
    const made = new Made()
    const span = made.log.append(RecordType.changes, Buffer.concat(contents.slice(0, 2)), Buffer.alloc(0))
    const chunks = contents
      .slice(0, 2)
      .map((content, i) => sealed(content, [{ ...span, offset: span.offset + i * last, length: last }]))
    made.store.addChunks(0, chunks)
    const apart = made.add(contents[2])
    let preads = 0
    const readNow = made.disk.read.bind(made.disk)
    made.disk.read = (...words) => {
      preads++
      return readNow(...words)
    }
    const read = (first: SealedChunk, second: SealedChunk): Buffer => {
      const into = Buffer.alloc(2 * half)
      const wanted = [
        { address: first.address, offset: last - half, length: half, at: 0 },
        { address: second.address, offset: 0, length: half, at: half },
      ]
      preads = 0
      made.store.readChunks(0, wanted, into)
      return into
    }
    return { made, chunks: [...chunks, apart] as [SealedChunk, SealedChunk, SealedChunk], read, preads: () => preads }
  }
  const expected = (a: Buffer, b: Buffer): Buffer => Buffer.concat([a.subarray(last - half), b.subarray(0, half)])
  {
    const { chunks, read, preads } = make()
    t.ok(read(chunks[0], chunks[1]).equals(expected(contents[0], contents[1])))
    t.equal(preads(), 1)
  }
  {
    const { chunks, read, preads } = make()
    t.ok(read(chunks[1], chunks[2]).equals(expected(contents[1], contents[2])), 'a record begins between them')
    t.equal(preads(), 2)
  }
  for (const rotten of [0, 1] as const) {
    const { made, chunks, read } = make()
    made.flip(chunks[rotten].location, rotten === 0 ? last - 1 : 1)
    t.throws(() => read(chunks[0], chunks[1]), { code: 'NEXUS_CORRUPT' })
    const sound = chunks[1 - rotten] as SealedChunk
    t.equal(made.store.inspect(0, sound.address), last)
    const { sequence } = made.log
    made.store.addChunks(0, [sound])
    t.equal(made.log.sequence, sequence, 'of the other one nobody thinks ill')
    made.store.addChunks(0, [chunks[rotten]])
    t.equal(made.log.sequence, sequence + 1)
  }
  t.end()
})

t.test('who comes back to a chunk has it read whole, once', (t) => {
  const made = new Made(undefined, undefined, 4 * CHUNK_BYTES_MAX)
  const chunks = Array.from({ length: 6 }, (_, seed) => made.add(noise(LENGTH, seed)))
  const costs = (...reads: [chunk: number, offset: number][]): number[] =>
    reads.map(([chunk, offset]) => made.cost(() => made.read(chunks[chunk] as SealedChunk, offset, 1000)))
  t.same(costs([0, 0], [1, 0], [0, 1000], [0, 30_000], [1, 20_000], [1, 0]), [4096, 4096, LENGTH, 0, LENGTH, 0])
  t.same(made.store.chunkCacheUse, { hits: 2, misses: 4 })
  // Of more chunks than could be kept nobody knows who comes back.
  t.same(costs([2, 0], [3, 0], [4, 0], [5, 0]), [4096, 4096, 4096, 4096])
  const others = Array.from({ length: 4 }, (_, seed) => made.add(noise(LENGTH, 100 + seed)))
  for (const chunk of others) made.read(chunk, 0, 1000)
  t.same(costs([2, 9000], [5, 9000]), [4096, 4096])
  t.end()
})

t.test('who reads on in small steps has each chunk read whole, and once', (t) => {
  const made = new Made(undefined, undefined, 4 * CHUNK_BYTES_MAX)
  const chunks = [1, 2, 3].map((seed) => made.add(noise(LENGTH, seed)))
  const step = 3000
  const cost = made.cost(() => {
    for (let start = 0; start < 3 * LENGTH; start += step) {
      const wanted = chunks.flatMap(({ address }, i): WantedChunk[] => {
        const [from, to] = [Math.max(start, i * LENGTH), Math.min(start + step, (i + 1) * LENGTH)]
        return from < to ? [{ address, offset: from - i * LENGTH, length: to - from, at: from - start }] : []
      })
      made.store.readChunks(0, wanted, Buffer.alloc(step))
    }
  })
  t.equal(cost, BLOCK_BYTES + 3 * LENGTH, 'but for the first step, when nobody knew')
  t.end()
})

t.test('a flipped bit is found when its block is read; other blocks are read on, the whole is refused', (t) => {
  for (const parts of [1, 3]) {
    const content = noise(LENGTH, 10 + parts)
    for (let block = 0; block < BLOCKS; block++) {
      const end = Math.min((block + 1) * BLOCK_BYTES, LENGTH)
      for (const at of [block * BLOCK_BYTES, block * BLOCK_BYTES + 1777, end - 1]) {
        const made = new Made()
        const chunk = made.add(content, parts)
        made.flip(chunk.location, at)
        for (let other = 0; other < BLOCKS; other++) {
          const offset = other * BLOCK_BYTES
          const length = Math.min(BLOCK_BYTES, LENGTH - offset)
          const code = codeOf(() => {
            if (!made.read(chunk, offset, length).equals(content.subarray(offset, offset + length))) throw new Error('others')
          })
          if (code !== (other === block ? 'NEXUS_CORRUPT' : undefined)) t.fail(`byte ${at}: ${String(code)} of block ${other}`)
        }
        if (codeOf(() => made.read(chunk, 0, LENGTH)) !== 'NEXUS_CORRUPT') t.fail(`byte ${at}: the whole is read`)
      }
    }
  }
  t.pass()
  t.end()
})

t.test('what a block tells of damage is what the whole tells: the same words, and it heals', (t) => {
  const content = noise(LENGTH, 20)
  const made = new Made()
  const chunk = made.add(content)
  made.flip(chunk.location, 20_000)
  const message = messageOf(() => made.read(chunk, 0, LENGTH))
  t.match(message, /^chunk [0-9a-f]{64} at segment 1 byte \d+ is not what was stored/)

  const other = new Made()
  const found = other.add(content)
  other.flip(found.location, 20_000)
  other.add(content)
  t.equal(
    messageOf(() => other.read(found, 19_999, 2)),
    message,
    'nobody knew it until then',
  )
  other.add(content)
  t.ok(other.read(found, 19_999, 2).equals(content.subarray(19_999, 20_001)), 'who stores it again stores it anew')
  t.end()
})

t.test('a disk that cannot read is damage, and one that cannot read now is not', (t) => {
  const made = new Made()
  const content = noise(LENGTH, 21)
  const chunk = made.add(content)
  for (const [failure, code] of [
    ['EIO', 'NEXUS_CORRUPT'],
    ['EMFILE', 'EMFILE'],
  ] as const) {
    made.disk.readFault = () => {
      throw systemError(failure)
    }
    t.throws(() => made.read(chunk, 9000, 100), { code })
  }
  made.disk.readFault = undefined
  t.ok(made.read(chunk, 9000, 100).equals(content.subarray(9000, 9100)))
  const file = made.disk.files.get(segmentName(1))
  t.ok(file)
  if (file !== undefined) file.length = (chunk.location.parts[0] as Span).offset + 20_000
  t.throws(() => made.read(chunk, 20_000, 1), { code: 'NEXUS_CORRUPT', message: /ends \d+ bytes early/ })
  t.ok(made.read(chunk, 9000, 100).equals(content.subarray(9000, 9100)))
  t.end()
})

t.test('no more is read than a chunk has', (t) => {
  const made = new Made()
  const chunk = made.add(noise(LENGTH, 22))
  t.throws(() => made.read(chunk, LENGTH - 1, 2), { code: 'NEXUS_CORRUPT' })
  t.throws(() => made.read(chunk, LENGTH, 1), { code: 'NEXUS_CORRUPT' })
  t.ok(made.read(chunk, LENGTH - 1, 1).equals(noise(LENGTH, 22).subarray(LENGTH - 1)))
  t.end()
})

t.test('a chunk without sums is read whole, and has them when it is moved', async (t) => {
  const made = new Made()
  const content = noise(LENGTH, 23)
  const chunk = withoutSums(sealed(content, [made.log.append(RecordType.changes, content, Buffer.alloc(0))]))
  made.store.addChunks(0, [chunk])
  const read = () => t.ok(made.read(chunk, 5000, 10).equals(content.subarray(5000, 5010)))
  t.equal(made.cost(read), LENGTH)
  made.flip(chunk.location, 30_000)
  t.throws(() => made.read(chunk, 5000, 10), { code: 'NEXUS_CORRUPT' }, 'no part of it can be told from the rest')
  made.flip(chunk.location, 30_000)
  await made.store.flush()
  for await (const each of made.store.contents()) made.store.move(each)
  t.equal(made.cost(read), BLOCK_BYTES)
  t.same(made.store.locate(0, chunk.address)?.sums, sumsOf(content, STORE))
})

t.test('sums outlast the index, a collection and a crash', async (t) => {
  const made = new Made()
  const contents = [9000, LENGTH, CHUNK_BYTES_MAX, 500].map((length) => noise(length, length))
  const [sealedAway, inParts, gathered, small] = contents as [Buffer, Buffer, Buffer, Buffer]
  made.add(sealedAway)
  made.add(inParts, 5)
  made.store.putChunk(0, addressOf(gathered), gathered)
  made.add(small)
  const node = made.store.put(noise(3 * BLOCK_BYTES, 1))
  const check = (store: ContentStore, what: string): void => {
    for (const content of contents) {
      const sums = store.locate(0, addressOf(content))?.sums
      t.same(sums === undefined ? undefined : Buffer.from(sums), sumsOf(content, STORE), `${what}: ${content.length} bytes`)
    }
    t.equal(store.locate(undefined, node)?.sums, undefined)
  }
  check(made.store, 'pending')
  await made.store.flush()
  check(made.store, 'in the index')
  const replayed = new Made(made.disk.afterKill())
  adoptAll(replayed.store, replayed.disk)
  check(replayed.store, 'from the log')
  for (const meta of metasIn(made.disk, STORE, 1, RecordType.sealed))
    if (meta !== undefined) made.store.sealAgain(meta, new Set())
  const again = new Made(made.disk.afterKill())
  adoptAll(again.store, again.disk)
  check(again.store, 'sealed again')
  for await (const each of made.store.contents()) made.store.move(each)
  check(made.store, 'moved')
  await made.store.flush()
  check(new Made(made.disk, made.index).store, 'moved, in the index')
})

t.test('a scrub holds content against the sums too: a wrong one would refuse what is whole', (t) => {
  const made = new Made()
  const content = noise(LENGTH, 24)
  const { address, location } = sealed(content, [made.log.append(RecordType.changes, content, Buffer.alloc(0))])
  const sums = Uint8Array.from(location.sums as Uint8Array)
  sums[9] = (sums[9] as number) ^ 1
  made.store.addChunks(0, [{ address, location: { ...location, sums } }])
  t.equal(made.store.inspect(0, address), 0)
  made.store.addChunks(0, [{ address, location }])
  t.equal(made.store.inspect(0, address), LENGTH, 'and it heals')
  t.end()
})

t.test('an older program refuses the log before the index holds sums', async (t) => {
  const older = new Made()
  const content = noise(LENGTH, 25)
  // Of a chunk that was gathered the sums are made when its record is read.
  older.store.putChunk(0, addressOf(content), content)
  await older.log.close()
  const { disk } = older
  setFormat(disk, 1, 1)
  const { log } = await reopen(disk)
  const index = new MemoryIndex()
  const store = new ContentStore(log, index, { store: STORE, chunkCacheBytesMax: 0 })
  adoptAll(store, disk)
  index.fault = () => t.same(formatsOf(disk.afterPowerLoss(() => false)), [1, FORMAT_VERSION])
  await store.flush()
  t.equal(index.writes, 1)
  t.same(store.locate(0, addressOf(content))?.sums, sumsOf(content, STORE))
})

t.test('any parts of any chunks are what was stored, wherever they lie, or are refused', async (t) => {
  const chunk = fc.record({
    length: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 8 * KIB - 2, max: 60 * KIB })),
    parts: fc.integer({ min: 1, max: 9 }),
    isOld: fc.boolean(),
  })
  const read = fc.array(fc.record({ chunk: fc.nat(), offset: fc.nat(), length: fc.oneof(fc.nat(5000), fc.nat(40_000)) }), {
    minLength: 1,
    maxLength: 4,
  })
  const flip = fc.record({ chunk: fc.nat(), at: fc.nat() })
  const cases = fc.record({
    chunks: fc.array(chunk, { minLength: 1, maxLength: 5 }),
    steps: fc.array(fc.oneof({ arbitrary: read, weight: 8 }, { arbitrary: flip, weight: 1 }), { maxLength: 30 }),
    kept: fc.constantFrom(0, 1, 3),
  })
  const runs = fc.property(cases, ({ chunks, steps, kept }) => {
    const made = new Made(undefined, undefined, kept * CHUNK_BYTES_MAX)
    const contents = chunks.map(({ length }, i) => noise(length, i + 1))
    const stored = contents.map((content, i) => {
      const { parts = 1, isOld = false } = chunks[i] ?? {}
      if (!isOld) return made.add(content, parts)
      const old = withoutSums(sealed(content, [made.log.append(RecordType.changes, content, Buffer.alloc(0))]))
      made.store.addChunks(0, [old])
      return old
    })
    const isDamaged = new Set<number>()
    for (const step of steps) {
      if (!Array.isArray(step)) {
        const index = step.chunk % stored.length
        made.flip((stored[index] as SealedChunk).location, step.at % (contents[index] as Buffer).length)
        isDamaged.add(index)
        continue
      }
      const wanted: WantedChunk[] = []
      const expected: Buffer[] = []
      let at = 0
      for (const part of step) {
        const index = part.chunk % stored.length
        const content = contents[index] as Buffer
        const offset = part.offset % content.length
        const length = Math.min(part.length, content.length - offset)
        wanted.push({ address: (stored[index] as SealedChunk).address, offset, length, at })
        expected.push(content.subarray(offset, offset + length))
        at += length
      }
      const into = Buffer.alloc(at)
      const code = codeOf(() => made.store.readChunks(0, wanted, into))
      const mayFail = step.some((part) => isDamaged.has(part.chunk % stored.length))
      if (code === undefined ? !into.equals(Buffer.concat(expected)) : code !== 'NEXUS_CORRUPT' || !mayFail) {
        throw new Error(`${code ?? 'others'}: ${JSON.stringify(wanted.map(({ offset, length }) => [offset, length]))}`)
      }
    }
  })
  fc.assert(runs, { numRuns: 150 })
  t.pass()
})

t.test('a stored place whose sums are too few, or not the last of it, is refused', (t) => {
  const { location } = sealed(noise(LENGTH, 27), [{ segment: 1, offset: 120, length: LENGTH }])
  const bytes = encodeLocation(location)
  t.strictSame({ ...decodeLocation(bytes), sums: undefined }, { ...location, sums: undefined })
  for (const wrong of [
    bytes.subarray(0, -1),
    Buffer.concat([bytes, Buffer.alloc(1)]),
    Buffer.concat([bytes, bytes.subarray(8)]),
  ]) {
    t.throws(() => decodeLocation(wrong), { code: 'NEXUS_CORRUPT' })
  }
  const counted = (parts: number): ByteReader => new ByteReader(Buffer.concat([Buffer.of(parts), bytes]))
  t.ok(Buffer.from(location.sums as Uint8Array).equals(readCountedLocation(counted(2)).sums as Buffer))
  t.throws(() => readCountedLocation(counted(3)), { code: 'NEXUS_CORRUPT' })
  t.end()
})

t.test('any range of content is read out of its parts', (t) => {
  const made = new Made()
  const content = noise(1000, 26)
  const { location } = made.add(content, 7)
  const runs = fc.property(fc.nat(1000), fc.nat(1000), (a, b) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)]
    const into = Buffer.alloc(1002, '.')
    const spans: PlacedSpan[] = []
    addSpans(spans, location, 1, { from, to })
    for (const span of spans) made.log.read(span.segment, span.offset, span.length, into, span.to)
    if (!into.subarray(1, 1 + to - from).equals(content.subarray(from, to))) throw new Error('others')
    if (into[0] !== 46 || into.subarray(1 + to - from).some((byte) => byte !== 46)) throw new Error('too much was filled')
  })
  fc.assert(runs, { numRuns: 300 })
  t.pass()
  t.end()
})

function codeOf(work: () => unknown): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

function messageOf(work: () => unknown): string {
  try {
    work()
    return ''
  } catch (error) {
    return (error as Error).message
  }
}
