/** The content store: each content once, in its domain, checked when it is read, found again after a crash. */
import t from 'tap'
import { type Address, addressOf } from '../../src/cas/address.ts'
import { ContentStore } from '../../src/cas/store.ts'
import { xxh64 } from '../../src/journal/checksum.ts'
import type { Log } from '../../src/journal/log.ts'
import { segmentName } from '../../src/journal/record.ts'
import { MemoryDisk, newLog, replay, ShortWrite, STORE } from '../journal/support.ts'
import { adoptAll, MemoryIndex, noise } from './support.ts'

interface Made {
  disk: MemoryDisk
  index: MemoryIndex
  log: Log
  store: ContentStore
}

function make(disk = new MemoryDisk(), index = new MemoryIndex(), chunkCacheBytesMax = 1 << 20): Made {
  const log = newLog(disk)
  return { disk, index, log, store: new ContentStore(log, index, { store: STORE, chunkCacheBytesMax }) }
}

function readAll(store: ContentStore, domain: number, content: Buffer): Buffer {
  const into = Buffer.alloc(content.length)
  store.readChunks(domain, [{ address: addressOf(content), offset: 0, length: content.length, at: 0 }], into)
  return into
}

/** A chunk of these bytes in `parts` records. */
function sealed(log: Log, content: Buffer, parts = 1) {
  const step = Math.ceil(content.length / parts)
  const spans = Array.from({ length: parts }, (_, i) =>
    log.append(1, content.subarray(i * step, (i + 1) * step), Buffer.alloc(0)),
  )
  return { address: addressOf(content), location: { length: content.length, xxh: xxh64(content, STORE), parts: spans } }
}

t.test('a node is stored once', (t) => {
  const { log, store } = make()
  const node = noise(500, 1)
  const address = store.put(node)
  t.equal(address, addressOf(node))
  const { sequence } = log
  t.equal(store.put(Buffer.from(node)), address)
  t.equal(log.sequence, sequence)
  t.same(store.get(address), node)
  t.end()
})

t.test('a chunk is stored once in a domain, and unknown in every other', (t) => {
  const { log, store } = make()
  const content = noise(1000, 2)
  store.putChunk(1, addressOf(content), content)
  const { sequence } = log
  store.putChunk(1, addressOf(content), content)
  t.equal(log.sequence, sequence)
  t.ok(store.hasChunk(1, addressOf(content)))
  for (const other of [0, 2, 256, 0x0100_0000]) {
    t.notOk(store.hasChunk(other, addressOf(content)))
    t.throws(() => readAll(store, other, content), { code: 'NEXUS_CORRUPT', message: /is not in the index/ })
  }
  store.putChunk(2, addressOf(content), content)
  t.equal(log.sequence, sequence + 1, 'another domain has a copy of its own')
  t.end()
})

t.test('chunks that lie in the log already are only pointed at', (t) => {
  const { log, store } = make()
  const first = noise(3000, 3)
  const second = noise(100, 4)
  const { end } = log
  store.addChunks(7, [sealed(log, first, 5), sealed(log, second)])
  t.ok(log.end.offset - end.offset < 3100 + 6 * 56 + 64 + 56 + 300, 'no byte was written twice')
  t.same(readAll(store, 7, first), first)
  t.same(readAll(store, 7, second), second)
  const { sequence } = log
  store.addChunks(7, [{ address: addressOf(first), location: { length: 3000, xxh: 0n, parts: [] } }])
  t.equal(log.sequence, sequence, 'what is known is left as it is')
  t.same(readAll(store, 7, first), first)
  t.end()
})

t.test('any part of a chunk can be read, and no more than there is', (t) => {
  const { log, store } = make()
  const content = noise(3000, 5)
  store.addChunks(0, [sealed(log, content, 3)])
  const into = Buffer.alloc(3000, '.')
  for (const [offset, length] of [
    [0, 1],
    [2999, 1],
    [999, 2],
    [0, 2999],
    [500, 2000],
  ] as const) {
    into.fill('.')
    const at = 10 % (3001 - length)
    store.readChunks(0, [{ address: addressOf(content), offset, length, at }], into)
    t.ok(into.subarray(at, at + length).equals(content.subarray(offset, offset + length)))
    t.ok(into.subarray(0, at).every((byte) => byte === 46) && into.subarray(at + length).every((byte) => byte === 46))
  }
  const absent = [{ address: addressOf(content), offset: 0, length: 1, at: 0 }]
  t.throws(() => make(new MemoryDisk()).store.readChunks(0, absent, into), { code: 'NEXUS_CORRUPT' })
  t.end()
})

t.test('chunks behind one another are read at once, and others as they lie', (t) => {
  const { disk, log, store } = make()
  const content = noise(4000, 8)
  const span = log.append(1, content, Buffer.alloc(0))
  /** Of what was just written, in so many parts. */
  const chunk = (offset: number, length: number, parts = 1) => {
    const bytes = content.subarray(offset, offset + length)
    const step = length / parts
    const spans = Array.from({ length: parts }, (_, i) => ({ ...span, offset: span.offset + offset + i * step, length: step }))
    return { address: addressOf(bytes), location: { length, xxh: xxh64(bytes, STORE), parts: spans } }
  }
  const chunks = [chunk(0, 1000), chunk(1000, 500, 5), chunk(1500, 1500), chunk(3000, 1000)]
  store.addChunks(3, [...chunks, sealed(log, noise(100, 9))])
  const wanted = (...indexes: number[]) => {
    let at = 7
    return indexes.map((index) => {
      const { address, location } = chunks[index] as (typeof chunks)[number]
      at += location.length
      return { address, offset: 0, length: location.length, at: at - location.length }
    })
  }
  const reads: [indexes: number[], calls: number, content: Buffer][] = [
    [[0, 1, 2, 3], 1, content],
    [[0, 2, 3], 2, Buffer.concat([content.subarray(0, 1000), content.subarray(1500)])],
    [[3, 2], 2, Buffer.concat([content.subarray(3000), content.subarray(1500, 3000)])],
  ]
  for (const [indexes, calls, bytes] of reads) {
    const into = Buffer.alloc(5000, '.')
    let count = 0
    disk.readFault = () => void count++
    store.readChunks(3, wanted(...indexes), into)
    t.equal(count, calls)
    t.ok(into.subarray(7, 7 + bytes.length).equals(bytes), String(indexes))
    t.ok(into.subarray(0, 7).every((byte) => byte === 46) && into.subarray(7 + bytes.length).every((byte) => byte === 46))
  }
  disk.readFault = undefined
  const file = disk.bytesOf(segmentName(1))
  file[span.offset + 1600] = (file[span.offset + 1600] ?? 0) ^ 1
  const damaged = (chunks[2] as (typeof chunks)[number]).address
  t.throws(() => store.readChunks(3, wanted(0, 1, 2, 3), Buffer.alloc(5000)), {
    code: 'NEXUS_CORRUPT',
    message: new RegExp(Buffer.from(damaged, 'latin1').toString('hex')),
  })
  store.readChunks(3, wanted(0, 1, 3), Buffer.alloc(5000))
  const { sequence } = log
  store.addChunks(3, chunks)
  t.equal(log.sequence, sequence + 1, 'only what is rotten is stored again')
  const into = Buffer.alloc(1600)
  disk.readFault = () => {
    throw Object.assign(new Error('EIO'), { code: 'EIO' })
  }
  t.throws(() => store.readChunks(3, wanted(0, 1), into), { code: 'NEXUS_CORRUPT' })
  disk.readFault = () => {
    throw Object.assign(new Error('EMFILE'), { code: 'EMFILE' })
  }
  t.throws(() => store.readChunks(3, wanted(0, 3), into), { code: 'EMFILE' })
  t.end()
})

t.test('who reads on has the disk begin with what comes behind, up to the end of the log, before it reads', (t) => {
  const size = 64 * 1024
  const { disk, log, store } = make()
  const done: (string | number)[][] = []
  const readNow = disk.read.bind(disk)
  Object.assign(disk, {
    willNeed: (_fd: number, position: number, length: number) => done.push(['advise', position, length]),
    read: (fd: number, buffer: Uint8Array, start: number, length: number, position: number) => {
      done.push(['read', position, length])
      return readNow(fd, buffer, start, length, position)
    },
  })
  const runs = [1, 2].map((run) => {
    const halves = [noise(size, 10 * run), noise(size, 10 * run + 1)]
    const span = log.append(1, Buffer.concat(halves), Buffer.alloc(0))
    const parts = halves.map((bytes, i) => ({
      address: addressOf(bytes),
      location: { length: size, xxh: xxh64(bytes, STORE), parts: [{ ...span, offset: span.offset + i * size, length: size }] },
    }))
    store.addChunks(0, parts)
    const wanted = parts.map(({ address }, i) => ({ address, offset: 0, length: size, at: i * size }))
    return { span, wanted, content: Buffer.concat(halves) }
  })
  const [[first, second], into] = [runs as [(typeof runs)[0], (typeof runs)[0]], Buffer.alloc(2 * size)]
  store.readChunks(0, first.wanted, into)
  t.same(done.splice(0), [['read', first.span.offset, 2 * size]], 'the first in a row may be the last')
  store.readChunks(0, second.wanted, into)
  t.ok(into.equals(second.content))
  t.same(done.splice(0), [
    ['advise', second.span.offset, (1 << 20) - second.span.offset],
    ['read', second.span.offset, 2 * size],
  ])
  store.readChunks(0, first.wanted.slice(0, 1), into)
  t.same(done.splice(0), [['read', first.span.offset, size]], 'not in a row')
  t.end()
})

t.test('a walk through nodes that lie together has the disk begin with all around them', (t) => {
  const { disk, store } = make()
  let advised = 0
  Object.assign(disk, { willNeed: () => void advised++ })
  const addresses = Array.from({ length: 40 }, (_, i) => store.put(noise(7000, 100 + i)))
  for (const address of addresses.slice(0, 3)) store.get(address)
  t.equal(advised, 0)
  for (const address of addresses) store.get(address)
  t.equal(advised, 1, 'once')
  t.end()
})

t.test('a flipped bit anywhere in stored bytes is found when they are read', async (t) => {
  const content = noise(200, 6)
  const node = noise(150, 7)
  const reads: [string, (made: Made) => void, (store: ContentStore) => unknown][] = [
    ['sealed chunk', ({ log, store }) => store.addChunks(3, [sealed(log, content, 3)]), (store) => readAll(store, 3, content)],
    [
      'part of it',
      ({ log, store }) => store.addChunks(3, [sealed(log, content)]),
      (store) => store.readChunks(3, [{ address: addressOf(content), offset: 5, length: 10, at: 0 }], Buffer.alloc(10)),
    ],
    ['gathered chunk', ({ store }) => store.putChunk(3, addressOf(content), content), (store) => readAll(store, 3, content)],
    ['node', ({ store }) => store.put(node), (store) => store.get(addressOf(node))],
  ]
  for (const [name, write, read] of reads) {
    const made = make()
    write(made)
    await made.store.flush()
    const file = made.disk.bytesOf(segmentName(1))
    let found = 0
    for (let at = 64; at < file.length; at++) {
      file[at] = (file[at] ?? 0) ^ 1
      const store = new ContentStore(made.log, made.index, { store: STORE, chunkCacheBytesMax: 1 })
      try {
        read(store)
      } catch (error) {
        if (
          (error as { code?: string }).code !== 'NEXUS_CORRUPT' ||
          !/segment 1 byte \d+ is not what was stored/.test(String(error))
        )
          throw error
        found++
      }
      file[at] = (file[at] ?? 0) ^ 1
    }
    t.equal(found, name === 'node' ? node.length : content.length, name)
  }
})

t.test('what was stored is found again after a crash', async (t) => {
  const made = make()
  const contents = Array.from({ length: 20 }, (_, i) => noise(100 + i * 37, 100 + i))
  const node = noise(90, 8)
  for (const [i, content] of contents.entries()) {
    if (i % 2 === 0) made.store.putChunk(i % 3, addressOf(content), content)
    else made.store.addChunks(i % 3, [sealed(made.log, content, 1 + (i % 4))])
  }
  made.store.put(node)
  const check = (store: ContentStore) => {
    for (const [i, content] of contents.entries()) if (!readAll(store, i % 3, content).equals(content)) t.fail(`chunk ${i}`)
    t.same(store.get(addressOf(node)), node)
  }
  const replayed = make(made.disk.afterKill())
  adoptAll(replayed.store, replayed.disk)
  check(replayed.store)
  t.equal(replayed.store.pendingCount, made.store.pendingCount)
  await replayed.store.flush()
  t.equal(replayed.store.pendingCount, 0)
  check(replayed.store)
  check(make(replayed.disk, replayed.index).store)
})

t.test('a flush hands everything over, and what it is given last', async (t) => {
  const { store, index } = make()
  const contents = Array.from({ length: 2500 }, (_, i) => noise(8, i))
  for (const content of contents) store.putChunk(0, addressOf(content), content)
  const order: number[] = []
  const write = index.write.bind(index)
  index.write = async (entries) => {
    order.push(entries.length)
    for (const content of contents.slice(0, 3)) t.ok(store.hasChunk(0, addressOf(content)), 'it is there all the while')
    await write(entries)
  }
  await store.flush(() => [{ key: Buffer.from('m/last'), value: Buffer.from('1') }])
  t.same(order, [1000, 1000, 500, 1])
  t.equal(index.values.size, 2501)
})

t.test('a flush that fails keeps what it could not hand over', async (t) => {
  for (const failing of [1, 2, 3, 4]) {
    const { store, index } = make()
    const contents = Array.from({ length: 2100 }, (_, i) => noise(8, i))
    for (const content of contents) store.putChunk(0, addressOf(content), content)
    const late = noise(8, 99_999)
    index.fault = () => {
      if (index.writes === failing) throw new ShortWrite(0)
      if (index.writes === 1) store.putChunk(0, addressOf(late), late)
    }
    await t.rejects(
      store.flush(() => [{ key: Buffer.from('m/last'), value: Buffer.from('1') }]),
      { code: 'ENOSPC' },
    )
    t.notOk(index.values.has('m/last'))
    t.ok([...contents, ...(failing > 1 ? [late] : [])].every((content) => store.hasChunk(0, addressOf(content))))
    index.fault = undefined
    await store.flush(() => [{ key: Buffer.from('m/last'), value: Buffer.from('1') }])
    t.equal(index.values.size, 2101 + (failing > 1 ? 1 : 0))
  }
})

t.test('what the log did not take is not known', (t) => {
  const { disk, log, store } = make()
  const [chunk, gathered, node] = [noise(100, 10), noise(100, 11), noise(100, 12)]
  const places = sealed(log, chunk)
  disk.fault = (call) => {
    if (call === 'write') throw new ShortWrite(20)
  }
  t.throws(() => store.addChunks(0, [places]), { code: 'ENOSPC' })
  t.throws(() => store.putChunk(0, addressOf(gathered), gathered), { code: 'ENOSPC' })
  t.throws(() => store.put(node), { code: 'ENOSPC' })
  disk.fault = undefined
  // Whoever tries again must write the record: nothing else says where the chunk is after a crash.
  store.addChunks(0, [places])
  store.putChunk(0, addressOf(gathered), gathered)
  store.put(node)
  t.equal(replay(disk).records.length, 4)
  const replayed = make(disk.afterKill())
  adoptAll(replayed.store, replayed.disk)
  t.same(readAll(replayed.store, 0, chunk), chunk)
  t.same(readAll(replayed.store, 0, gathered), gathered)
  t.same(replayed.store.get(addressOf(node)), node)
  t.end()
})

t.test('what is nowhere is said to be missing, and what to do', (t) => {
  const { store } = make()
  const address = 'a'.repeat(32) as Address
  t.throws(() => store.get(address), {
    code: 'NEXUS_CORRUPT',
    message: /tree node 6161.* is not in the index: mount again with --rebuild-index/,
  })
  t.end()
})
