/** The example in docs/format.md is decoded from nothing but its bytes. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { packageRoot } from '../../src/control/version.ts'
import { directoryDisk } from '../../src/journal/disk.ts'
import { LOG_START, readLog } from '../../src/journal/replay.ts'
import { readChange } from '../../src/volume/change.ts'
import { slotOf } from '../../src/volume/dirent.ts'

const text = readFileSync(path.join(packageRoot(), 'docs', 'format.md'), 'utf8')
const example = /```\n(0000 [\s\S]+?)```/.exec(text)?.[1] ?? ''
const bytes = Buffer.from(example.replace(/^[0-9a-f]{4} /gm, '').replace(/\s/g, ''), 'hex')

t.test('the documented log holds the documented record', async (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'nexus-format-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  writeFileSync(path.join(directory, '0000000001.log'), bytes)
  const records = [...readLog(directoryDisk(directory), 0x0102030405060708n, LOG_START, 0)]
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
