/** Repair makes what was found right, keeps all else, and says what it cannot mend. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { fsckOffline } from '../../src/engine/offline.ts'
import { silentLogger } from '../../src/logger.ts'
import { TestEngine } from '../snapshots/support.ts'
import { rows } from './rows.ts'
import { fill, Sample } from './support.ts'

const logger = silentLogger

/** Every path below a directory with what is there; hard links name the same inode. */
function dump(test: TestEngine, directory: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const name of test.list(directory)) {
    const file = `${directory}/${name}`
    const { node, mode, size, nlink, allocated } = test.stat(file)
    const type = mode & 0o170000
    const content = type === 0o100000 ? hash(test.read(file)) : ''
    found.set(file, JSON.stringify({ node, type, size, nlink, allocated, content }))
    if (type === 0o040000) for (const [inner, line] of dump(test, file)) found.set(inner, line)
  }
  return found
}

function hash(text: string): string {
  let sum = text.length
  for (let i = 0; i < text.length; i++) sum = (Math.imul(sum, 31) + text.charCodeAt(i)) | 0
  return String(sum)
}

async function openIn(data: string): Promise<Sample> {
  return new Sample(new TestEngine(await Engine.open({ data, logger })))
}

/** A closed store with the sample. */
async function storeFor(t: { teardown(run: () => void): unknown }): Promise<string> {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-repair-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  const sample = await openIn(data)
  sample.test.mkdir('/workspace/a')
  fill(sample.test)
  await sample.engine.close()
  return data
}

/** Names that a row takes away, or that come with the repair. */
const expected: Record<string, string[]> = {
  'a directory with all in it that nothing leads to': ['/workspace/a/d', '/workspace/a/d/e'],
  'directories that lie in each other': ['/workspace/a/d', '/workspace/a/d/e'],
  'content without attributes': ['/workspace/a/d/big'],
}

for (const row of rows) {
  t.test(row.name, async (t) => {
    const data = await storeFor(t)
    let sample = await openIn(data)
    await sample.engine.volumes.checkpoint()
    const before = dump(sample.test, '/workspace')
    await sample.wrong(...row.make(sample))
    await sample.engine.close()

    const seen = await fsckOffline({ data, logger, repair: false })
    t.strictSame(
      seen.findings.map(({ kind, path }) => [kind, path]),
      row.want,
      'offline sees the same',
    )
    const repaired = await fsckOffline({ data, logger, repair: true })
    if (row.stays === true) {
      t.equal(repaired.clean, false)
      t.strictSame(
        repaired.findings.map(({ kind, path }) => [kind, path]),
        row.want,
        'what cannot be mended stays as it is',
      )
      return
    }
    t.strictSame(repaired.findings, [])
    t.ok(repaired.clean)
    t.equal(repaired.repaired, 1)
    const again = await fsckOffline({ data, logger, repair: true })
    t.match(again, { clean: true, repaired: 0 }, 'nothing is left to do')

    sample = await openIn(data)
    const after = dump(sample.test, '/workspace')
    for (const [file, line] of before) {
      if ((expected[row.name] ?? []).some((gone) => file === gone || file.startsWith(`${gone}/`))) continue
      // lost+found is one more directory in it.
      if (file === '/workspace/a' && after.has(`${file}/lost+found`)) continue
      t.equal(after.get(file), line, file)
    }
    const news = [...after.keys()].filter((file) => !before.has(file) && !file.startsWith('/workspace/a/lost+found'))
    t.strictSame(news, [])
    t.strictSame(await sample.findings(), [])
    await sample.engine.close()
  })
}

t.test('what nothing leads to is in lost+found, with all that lies in it', async (t) => {
  const data = await storeFor(t)
  let sample = await openIn(data)
  const ino = sample.ino('d/e')
  await sample.wrong(sample.entryEdit('d', 'e', null), sample.attrEdit('d', { nlink: 2 }))
  await sample.engine.close()
  t.match(await fsckOffline({ data, logger, repair: true }), { clean: true, repaired: 1 })
  sample = await openIn(data)
  t.equal(sample.test.read(`/workspace/a/lost+found/#${ino}/deep/x`), 'deep down')
  t.equal(sample.test.stat('/workspace/a/lost+found').mode, 0o040700)
  t.equal(sample.test.stat('/workspace/a/lost+found').nlink, 3)
  await sample.engine.close()
})

t.test('many things at once, in several workspaces', async (t) => {
  const data = await storeFor(t)
  let sample = await openIn(data)
  const { engine, test } = sample
  await sample.wrong(
    sample.attrEdit('f', { nlink: 5, xattrs: 4 }),
    sample.entryEdit('d', 'ghost', {}),
    sample.entryEdit('d/e', 'deep', null),
    sample.attrEdit('sparse', { allocated: 1 }),
  )
  const record = engine.registry.workspace(sample.volume.number)
  if (record === undefined) throw new Error('no record')
  // The root of all loses the entry of a workspace.
  const places = test.stat('/workspace').node
  const entry = engine.volumes.get(0)?.entry(places, 'a')
  if (entry === undefined) throw new Error('no entry')
  const { slotOf } = await import('../../src/volume/dirent.ts')
  engine.volumes.commit([{ kind: 'unentry', volume: 0, ino: places, slot: slotOf('a'), index: entry.index }])
  await engine.close()
  const info = await fsckOffline({ data, logger, repair: true })
  t.strictSame(info.findings, [])
  t.ok(info.repaired >= 6)
  sample = await openIn(data)
  t.equal(sample.test.read('/workspace/a/f'), 'something')
  await sample.engine.close()
})

t.test('an index that has lost some keys, or all, or is damaged', async (t) => {
  const data = await storeFor(t)
  const sample = await openIn(data)
  const before = dump(sample.test, '/workspace')
  await sample.engine.close()
  const { Level } = await import('level')
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
  const level = new Level<Buffer, Buffer>(path.join(data, 'index'), options)
  for await (const key of level.keys(options)) if (key[0] === 'c'.charCodeAt(0)) await level.del(key, options)
  await level.close()
  const lost = await fsckOffline({ data, logger, repair: false })
  t.ok(lost.total >= 5)
  for (const { kind, text } of lost.findings) t.match(`${kind} ${text}`, /^content .*not in the index/)
  t.match(await fsckOffline({ data, logger, repair: true }), { clean: true })

  fs.rmSync(path.join(data, 'index'), { recursive: true })
  t.match(await fsckOffline({ data, logger, repair: true }), { clean: true })

  for (const name of fs.readdirSync(path.join(data, 'index')))
    if (/^(MANIFEST|CURRENT)/.test(name)) fs.writeFileSync(path.join(data, 'index', name), 'rot')
  await t.rejects(fsckOffline({ data, logger, repair: false }), { code: 'NEXUS_CORRUPT' })
  t.match(await fsckOffline({ data, logger, repair: true }), { clean: true })
  const after = await openIn(data)
  t.strictSame(dump(after.test, '/workspace'), before)
  await after.engine.close()
})

t.test('a node that is rotten is said and left, and the others are repaired', async (t) => {
  const data = await storeFor(t)
  const sample = await openIn(data)
  const { volumes } = sample.engine
  await volumes.checkpoint()
  const { root } = sample.volume
  const location = root === null ? undefined : volumes.content.locate(undefined, root)
  const part = location?.parts[0]
  await sample.engine.close()
  if (part === undefined) throw new Error('no place')
  const file = path.join(data, 'log', `${String(part.segment).padStart(10, '0')}.log`)
  const fd = fs.openSync(file, 'r+')
  fs.writeSync(fd, Buffer.from([0xa5, 0x5a]), 0, 2, part.offset + 20)
  fs.closeSync(fd)
  const info = await fsckOffline({ data, logger, repair: true })
  t.match(info, { clean: false, repaired: 0, total: 1 })
  t.match(info.findings, [{ kind: 'node', severity: 'damage', workspace: '/workspace/a', live: true }])
})

t.test('where there is no store, or a daemon serves it', async (t) => {
  const data = await storeFor(t)
  await t.rejects(fsckOffline({ data: `${data}/nothing`, logger, repair: true }), { code: 'NEXUS_NOT_FOUND' })
  t.notOk(fs.existsSync(`${data}/nothing`))
  const sample = await openIn(data)
  await t.rejects(fsckOffline({ data, logger, repair: true }), { code: 'NEXUS_BUSY' })
  await sample.engine.close()
})
