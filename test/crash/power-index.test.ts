/**
 * Loss of power, and what the sequences of power.test.ts leave out: LevelDB's own files, and what can be said of the very last
 * record that was safe.
 */
import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { type Index, openIndex } from '../../src/cas/index.ts'
import { Log } from '../../src/journal/log.ts'
import { LOG_START } from '../../src/journal/replay.ts'
import { MemoryIndex } from '../cas/support.ts'
import { ALWAYS_ZEROS, MemoryDisk, replay, STORE } from '../journal/support.ts'
import { dataFor } from './pair.ts'
import { diskOf, type Image, Machine, Recorder, thorough } from './powerdisk.ts'

/** What a LevelDB holds, in one line. */
async function contentsOf(index: Index): Promise<string> {
  const entries: string[] = []
  for await (const [key, value] of index.entries(Buffer.from('k'))) entries.push(`${key}=${value.length}`)
  return entries.join()
}

t.test('LevelDB: the batch that was being written is there whole or not, wherever its log ends', async (t) => {
  const data = dataFor(t)
  const [live, copy] = [path.join(data, 'live'), path.join(data, 'copy')]
  const index = await openIndex(live, STORE)
  const logOf = (): string => path.join(live, fs.readdirSync(live).find((name) => name.endsWith('.log')) as string)
  const states = [await contentsOf(index)]
  const safe = [fs.statSync(logOf()).size]
  for (let batch = 1; batch <= 3; batch++) {
    const value = Buffer.alloc(100, batch)
    await index.write([
      { key: Buffer.from('k/0'), value: value.subarray(batch) },
      { key: Buffer.from(`k/${batch}`), value },
    ])
    states.push(await contentsOf(index))
    safe.push(fs.statSync(logOf()).size)
  }
  const [from = 0, to = 0] = safe.slice(-2)
  t.ok(to - from > 200, `the last batch has ${to - from} bytes`)
  const found = { before: 0, after: 0 }
  for (let at = from; at <= to; at += at === to ? 1 : Math.min(13, to - at)) {
    for (const zeros of [false, true]) {
      fs.rmSync(copy, { recursive: true, force: true })
      fs.cpSync(live, copy, { recursive: true })
      const log = path.join(copy, path.basename(logOf()))
      fs.truncateSync(log, at)
      if (zeros) fs.truncateSync(log, to)
      const left = await openIndex(copy, STORE)
      const contents = await contentsOf(left)
      await left.close()
      const which = states.indexOf(contents)
      if (which !== (at === to ? 3 : 2)) throw new Error(`cut at ${at} of ${from} to ${to}, zeros ${zeros}: found state ${which}`)
      found[which === 3 ? 'after' : 'before']++
    }
  }
  await index.close()
  t.comment(`${found.before} states without it, ${found.after} with it`)
})

/** Records one after the other in small segments, each synced, and each with one that is not. */
async function recordLog(): Promise<{ start: Image; recorder: Recorder }> {
  const start: Image = { files: new Map(), index: new MemoryIndex() }
  const recorder = new Recorder(start)
  const log = new Log(recorder.disk, { store: STORE, segmentBytesMax: 700, zeros: ALWAYS_ZEROS }, LOG_START, 0)
  for (let i = 1; i <= 12; i++) {
    log.append(1, Buffer.alloc(40 * i, i), Buffer.from(`meta ${i}`))
    const racing = i % 3 === 0
    const done = log.sync()
    if (racing) log.append(1, Buffer.from('beside'), Buffer.alloc(0))
    const safe = log.sequence - (racing ? 1 : 0)
    await done
    recorder.notes.push({ kind: 'safe', moment: safe })
  }
  return { start, recorder }
}

t.test('the last record that an fsync had passed is never taken for a torn tail', async (t) => {
  const { start, recorder } = await recordLog()
  const machine = new Machine(start)
  let states = 0
  for (const note of recorder.notes) {
    if (!machine.follow(note)) continue
    for (const { image, words } of machine.images(thorough)) {
      states++
      const { sequence } = replay(diskOf(image)).end
      if (sequence < machine.safe) throw new Error(`${words}: ${machine.safe} was safe, the log ends with ${sequence}`)
    }
  }
  t.ok(states > 500, `${states} states`)
})

t.test('rot in that very record cannot be told from a torn tail without a checkpoint behind it', (t) => {
  const disk = new MemoryDisk()
  const log = new Log(disk, { store: STORE, segmentBytesMax: 1 << 20 }, LOG_START, 0)
  for (const text of ['one', 'two']) log.append(1, Buffer.from(text), Buffer.alloc(0))
  return log.sync().then(() => {
    const [name = ''] = disk.list()
    const rotten = Buffer.from(disk.bytesOf(name))
    rotten[rotten.length - 1] = (rotten[rotten.length - 1] ?? 0) ^ 1
    const left = new MemoryDisk()
    left.setBytes(name, rotten)
    // Nothing that is stored says that it was safe: the disk has to keep what it said it has.
    t.equal(replay(left).end.sequence, 1)
    t.throws(() => replay(left, STORE, LOG_START, 0, 2), { code: 'NEXUS_CORRUPT' })
    log.append(1, Buffer.from('three'), Buffer.alloc(0))
    const later = Buffer.concat([rotten, disk.bytesOf(name).subarray(rotten.length)])
    left.setBytes(name, later)
    t.throws(() => replay(left), { code: 'NEXUS_CORRUPT' })
  })
})
