/**
 * Data directories that something happened to: refused with one line that says what to do and
 * nothing changed, or mounted with everything there. Never anything between.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { openIndex } from '../../src/cas/index.ts'
import { Engine } from '../../src/engine/engine.ts'
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  RECORD_HEADER_BYTES,
  RecordType,
  readRecordHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
} from '../../src/journal/record.ts'
import { silentLogger } from '../../src/logger.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { openDataDirectory } from '../../src/volume/datadir.ts'
import { noMount } from './harness.ts'
import { isOneLine, mountsBelow, needsRoot, type Scratch, scratchFor } from './nexusd.ts'

const skip = noMount ?? false
const caller = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, pid: 1 }
const SEGMENT_BYTES_MAX = 64 * 1024
const BIG_BYTES = 30_000
const SLACK_BYTES = 4096
const FILES = 60

/** Content that no other file has, and nothing compresses. */
function contentOf(name: string, bytes: number): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i * 32 < bytes; i++) parts.push(createHash('sha256').update(`${name} ${i}`).digest())
  return Buffer.concat(parts).subarray(0, bytes)
}

/** By path from the mountpoint. */
const expected = new Map<string, Buffer>()

function make(engine: Engine, parent: number, directory: string, name: string, bytes: number): void {
  const content = contentOf(name, bytes)
  const { node } = engine.fs.create(caller, parent, name, 0o644, 0, 0)
  const buffer = Buffer.alloc(SLACK_BYTES + bytes + SLACK_BYTES)
  content.copy(buffer, SLACK_BYTES)
  engine.fs.write(caller, node, 0, buffer, SLACK_BYTES, bytes, false)
  expected.set(path.join(directory, name), content)
}

/** What a daemon that was killed leaves in `crashed`, and one that ended in `ended`: many small segments. */
async function makeStores(directory: string): Promise<void> {
  const data = path.join(directory, 'data')
  const limits = { segmentBytesMax: SEGMENT_BYTES_MAX, sealWorkers: 1 }
  const engine = await Engine.open({ data, logger: silentLogger, singleUser: caller.uid !== 0, limits })
  const root = nodeOf(0, 1)
  const workspaces = engine.fs.lookup(caller, root, 'workspace')?.node as number
  const acme = engine.fs.mkdir(caller, workspaces, 'acme', 0o755, 0).node
  for (let i = 0; i < FILES; i++) make(engine, acme, 'workspace/acme', `early${i}`, 500)
  for (let i = 0; i < 6; i++) make(engine, acme, 'workspace/acme', `big${i}`, BIG_BYTES)
  await engine.volumes.checkpoint()
  for (let i = 0; i < FILES; i++) make(engine, root, '', `late${i}`, 500)
  for (let i = 6; i < 12; i++) make(engine, root, '', `big${i}`, BIG_BYTES)
  await engine.volumes.sync()
  make(engine, root, '', 'last', 10)
  await engine.volumes.sync()
  fs.cpSync(data, path.join(directory, 'crashed'), { recursive: true })
  await engine.close()
  fs.renameSync(data, path.join(directory, 'ended'))
}

const stores = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-stores-'))
t.teardown(() => fs.rmSync(stores, { recursive: true, force: true }))
await makeStores(stores)

/** A copy to damage. */
function storeIn(scratch: Scratch, kind: 'crashed' | 'ended'): string {
  const data = scratch.at('data')
  fs.rmSync(data, { recursive: true, force: true })
  fs.cpSync(path.join(stores, kind), data, { recursive: true })
  return data
}

/** What may not change when a mount is refused; LevelDB may put its own files in order. */
function checksums(data: string): Record<string, string> {
  const sums: Record<string, string> = {}
  for (const name of fs.readdirSync(data, { recursive: true, encoding: 'utf8' }).sort()) {
    const file = path.join(data, name)
    if (name === 'index' || name.startsWith('index/') || !fs.statSync(file).isFile()) continue
    sums[name] = createHash('sha256').update(fs.readFileSync(file)).digest('hex')
  }
  return sums
}

/** Paths whose content is not what was written; the code of the error for those that cannot be read. */
function wrongIn(mountpoint: string): Map<string, string> {
  const wrong = new Map<string, string>()
  for (const [file, content] of expected) {
    try {
      if (!fs.readFileSync(path.join(mountpoint, file)).equals(content)) wrong.set(file, 'other content')
    } catch (error) {
      wrong.set(file, (error as NodeJS.ErrnoException).code ?? String(error))
    }
  }
  return wrong
}

/** Mounts and finds everything. */
async function mountsWhole(t: Test, scratch: Scratch, flags: string[] = [], absent: string[] = []): Promise<void> {
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', scratch.at('data'), ...flags])
  t.same([...wrongIn(mountpoint).keys()], absent, 'everything is there')
  fs.writeFileSync(path.join(mountpoint, 'new'), 'new')
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
}

async function isRefused(t: Test, scratch: Scratch, reason: RegExp, flags: string[] = []): Promise<void> {
  const before = checksums(scratch.at('data'))
  const outcome = await scratch.nexusd(['mount', scratch.dir('mnt'), '--data', scratch.at('data'), ...flags])
  // What is damaged may be in the log as well; the last word is one line.
  const last = outcome.stderr.replace(/^\{.*\}\n/gm, '')
  t.match({ ...outcome, stderr: last }, { status: 1, stdout: '', stderr: reason })
  t.ok(isOneLine(last), outcome.stderr)
  t.same(checksums(scratch.at('data')), before, 'nothing is changed')
  t.notOk(mountsBelow(scratch.directory).includes(scratch.at('mnt')))
}

function segmentsOf(data: string): string[] {
  return fs.readdirSync(path.join(data, 'log')).sort()
}

/** The segment that the last checkpoint lies in: reading begins there. */
async function checkpointSegment(data: string): Promise<string> {
  const { index: directory, store } = openDataDirectory(data)
  const index = await openIndex(directory, store)
  const { segment } = JSON.parse((index.get(Buffer.from('m/checkpoint')) as Buffer).toString()) as { segment: number }
  await index.close()
  return segmentName(segment)
}

function flip(file: string, at: number): void {
  const bytes = fs.readFileSync(file)
  bytes[at] = (bytes[at] as number) ^ 0x10
  fs.writeFileSync(file, bytes)
}

function changeHeader(file: string, change: Partial<SegmentHeader>): void {
  const bytes = fs.readFileSync(file)
  encodeSegmentHeader({ ...(decodeSegmentHeader(bytes) as SegmentHeader), ...change }).copy(bytes)
  fs.writeFileSync(file, bytes)
}

const identities: [string, string | undefined, RegExp][] = [
  ['missing', undefined, /nexus\.json is missing although \S+ holds a store: restore that file from a backup/],
  ['empty', '', /nexus\.json is damaged: restore that file from a backup/],
  ['cut short', '{"format":1,"sto', /nexus\.json is damaged/],
  ['no object', 'null', /nexus\.json is damaged/],
  ['without a store', '{"format":1}', /nexus\.json is damaged/],
  ['with a strange store', '{"format":1,"store":"0"}', /nexus\.json is damaged/],
  ['newer', '{"format":99,"store":"0011223344556677"}', /has format 99, this program reads up to \d+: install a newer nexus/],
  ['newer, with other fields', '{"format":99,"volumes":[]}', /has format 99, .*: install a newer nexus/],
  ['of another store', '{"format":1,"store":"0011223344556677"}', /damaged|another store/],
]

t.test('nexus.json', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const data = storeIn(scratch, 'crashed')
  const identity = path.join(data, 'nexus.json')
  const original = fs.readFileSync(identity)
  for (const [name, text, reason] of identities) {
    if (text === undefined) fs.rmSync(identity)
    else fs.writeFileSync(identity, text)
    await t.test(`that is ${name} is refused`, (t) => isRefused(t, scratch, reason))
  }
  fs.writeFileSync(identity, original)
  await mountsWhole(t, scratch)
})

/** Each is given the segment where reading begins, and the ones behind it. */
const logDamages: [string, RegExp, (start: string, behind: string[]) => void][] = [
  [
    'the segment where reading begins is missing',
    /segment \d+\.log is missing: restore that file from a backup, or/,
    (start) => fs.rmSync(start),
  ],
  ['it is cut short', /\d+\.log is \d+ bytes short; restore that file/, (start) => fs.truncateSync(start, SEGMENT_HEADER_BYTES)],
  ['a segment in the middle is missing', /the log is damaged at byte/, (_, [, middle]) => fs.rmSync(middle as string)],
  [
    'a segment in the middle is cut short',
    /the log is damaged at byte \d+ of \d+\.log, before records that were safely stored; restore that file/,
    (_, [middle]) => fs.truncateSync(middle as string, SEGMENT_BYTES_MAX / 2),
  ],
  ['a byte of it has flipped', /the log is damaged at byte/, (_, [middle]) => flip(middle as string, SEGMENT_BYTES_MAX / 2)],
  ['the header of a segment has a flipped byte', /the log is damaged at byte/, (_, [middle]) => flip(middle as string, 9)],
  [
    'a segment has a newer format',
    /\d+\.log has format 99, this program reads up to \d+: install a newer nexus/,
    (_, [middle]) => changeHeader(middle as string, { version: 99 }),
  ],
  [
    'a segment is of another store',
    /\d+\.log belongs to another store; put back the original file/,
    (_, [middle]) => changeHeader(middle as string, { store: 5n }),
  ],
]

t.test('the log', { skip }, async (t) => {
  const scratch = scratchFor(t)
  for (const [name, reason, damage] of logDamages) {
    await t.test(`is refused when ${name}`, async (t) => {
      const data = storeIn(scratch, 'crashed')
      const start = await checkpointSegment(data)
      const files = segmentsOf(data).map((segment) => path.join(data, 'log', segment))
      const at = files.findIndex((file) => file.endsWith(start))
      t.ok(files.length - at > 3, 'there are segments behind the checkpoint')
      damage(files[at] as string, files.slice(at + 1))
      await isRefused(t, scratch, reason)
      // The files that the message speaks of, from a backup.
      fs.cpSync(path.join(stores, 'crashed', 'log'), path.join(data, 'log'), { recursive: true })
      await mountsWhole(t, scratch)
    })
  }
})

t.test('an unfinished record at the end is cut off', { skip }, async (t) => {
  const scratch = scratchFor(t)
  for (const tail of [Buffer.from('NXRC and then nothing'), Buffer.alloc(5000), contentOf('tail', 3000)]) {
    const data = storeIn(scratch, 'crashed')
    const last = path.join(data, 'log', segmentsOf(data).at(-1) as string)
    const { size } = fs.statSync(last)
    fs.appendFileSync(last, tail)
    await mountsWhole(t, scratch)
    t.ok(fs.existsSync(last) && fs.statSync(last).size > size)
  }
  const data = storeIn(scratch, 'crashed')
  const last = path.join(data, 'log', segmentsOf(data).at(-1) as string)
  fs.truncateSync(last, fs.statSync(last).size - 1)
  const mountpoint = scratch.dir('mnt')
  const daemon = await scratch.mount([mountpoint, '--data', data])
  t.same(wrongIn(mountpoint), new Map([['last', 'other content']]), 'what was in it is not there, all else is')
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
})

function filesOf(index: string, part: string): string[] {
  return fs
    .readdirSync(index)
    .filter((name) => name.includes(part))
    .map((name) => path.join(index, name))
}

const HINT = /^nexusd: the index \S+ is damaged .*nothing is lost: mount again with --rebuild-index/

const indexDamages: [string, 'crashed' | 'ended', (index: string) => void, 'whole' | 'refused'][] = [
  ['CURRENT is missing', 'ended', (index) => fs.rmSync(path.join(index, 'CURRENT')), 'whole'],
  ['all of it is missing', 'ended', (index) => fs.rmSync(index, { recursive: true }), 'whole'],
  ['its last log is missing', 'crashed', (index) => fs.rmSync(filesOf(index, '.log').at(-1) as string), 'whole'],
  ['its last log is cut short', 'crashed', (index) => halve(filesOf(index, '.log').at(-1) as string), 'whole'],
  ['its last log is missing', 'ended', (index) => fs.rmSync(filesOf(index, '.log').at(-1) as string), 'whole'],
  [
    'MANIFEST is garbage',
    'ended',
    (index) => fs.writeFileSync(filesOf(index, 'MANIFEST')[0] as string, 'x'.repeat(200)),
    'refused',
  ],
  ['a table is missing', 'ended', (index) => fs.rmSync(withTable(index)), 'refused'],
]

function halve(file: string): void {
  fs.truncateSync(file, fs.statSync(file).size / 2)
}

/** LevelDB makes one at the second start. */
function withTable(index: string): string {
  return filesOf(index, '.ldb')[0] as string
}

t.test('the index', { skip }, async (t) => {
  const scratch = scratchFor(t)
  for (const [name, kind, damage, want] of indexDamages) {
    await t.test(`when ${name} after a daemon that ${kind}`, async (t) => {
      const data = storeIn(scratch, kind)
      const index = path.join(data, 'index')
      await (await openIndex(index, openDataDirectory(data).store)).close()
      damage(index)
      if (want === 'refused') await isRefused(t, scratch, HINT)
      await mountsWhole(t, scratch, want === 'refused' ? ['--rebuild-index'] : [])
      await mountsWhole(t, scratch)
      t.notOk(fs.existsSync(`${index}.old`))
    })
  }
})

t.test('a rebuild of the index from a damaged log leaves the old one in place', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const data = storeIn(scratch, 'ended')
  const first = path.join(data, 'log', segmentsOf(data)[0] as string)
  fs.renameSync(first, scratch.at('kept'))
  await isRefused(t, scratch, /log/, ['--rebuild-index'])
  fs.renameSync(scratch.at('kept'), first)
  await mountsWhole(t, scratch)
  await mountsWhole(t, scratch, ['--rebuild-index'])
})

/** Where the bytes of records of one type lie, in segments that are before the checkpoint. */
function* recordsOf(data: string, type: number): Generator<{ file: string; at: number; bytes: number }> {
  const { store } = openDataDirectory(data)
  for (const segment of segmentsOf(data)) {
    const file = path.join(data, 'log', segment)
    const buffer = fs.readFileSync(file)
    for (let at = SEGMENT_HEADER_BYTES; at < buffer.length; ) {
      const header = readRecordHeader(buffer, at, store)
      if (header === undefined) throw new Error(`no record at ${at} of ${file}`)
      if (header.type === type) yield { file, at: at + RECORD_HEADER_BYTES, bytes: header.dataBytes }
      at += RECORD_HEADER_BYTES + header.dataBytes + header.metaBytes
    }
  }
}

t.test('a flipped byte of a file is EIO for that file and one line in the log', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const data = storeIn(scratch, 'ended')
  const mountpoint = scratch.dir('mnt')
  const needle = (expected.get('big7') as Buffer).subarray(BIG_BYTES / 2, BIG_BYTES / 2 + 64)
  const file = segmentsOf(data)
    .map((segment) => path.join(data, 'log', segment))
    .find((segment) => fs.readFileSync(segment).includes(needle)) as string
  flip(file, fs.readFileSync(file).indexOf(needle))
  const daemon = await scratch.mount([mountpoint, '--data', data])
  t.same(wrongIn(mountpoint), new Map([['big7', 'EIO']]))
  fs.writeFileSync(path.join(mountpoint, 'big7'), 'written anew')
  t.equal(fs.readFileSync(path.join(mountpoint, 'big7'), 'utf8'), 'written anew', 'the file can be replaced')
  const { status, stderr } = await daemon.end('SIGTERM')
  t.equal(status, 0)
  const lines = stderr.trim().split('\n')
  t.equal(lines.length, 1, stderr)
  t.match(lines[0], /chunk [0-9a-f]{64} at segment \d+ byte \d+ is not what was stored/)
})

t.test('a flipped byte of a tree node is never wrong content', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const mountpoint = scratch.dir('mnt')
  const nodes = [...recordsOf(path.join(stores, 'ended'), RecordType.node)]
  let harmed = 0
  for (const node of nodes.filter((_, i) => i % Math.ceil(nodes.length / 5) === 0)) {
    const data = storeIn(scratch, 'ended')
    flip(path.join(data, 'log', path.basename(node.file)), node.at + node.bytes / 2)
    const daemon = scratch.begin([mountpoint, '--data', data])
    const mounted = await daemon.says('mounted').then(
      () => true,
      () => false,
    )
    if (!mounted) {
      t.match(await daemon.ended, { status: 1, stderr: /tree node .* is not what was stored/ })
      harmed++
      continue
    }
    const wrong = [...wrongIn(mountpoint).values()]
    t.same(
      wrong.filter((code) => code !== 'EIO'),
      [],
      `${wrong.length} of ${expected.size} cannot be read`,
    )
    t.ok(fs.statfsSync(mountpoint).blocks > 0, 'the mount is there')
    const { status, stderr } = await daemon.end('SIGTERM')
    t.equal(status, 0)
    if (wrong.length === 0) continue
    harmed++
    t.match(stderr, /tree node [0-9a-f]{64} at segment \d+ byte \d+ is not what was stored/)
    t.notMatch(stderr, /unexpected|at .*\.ts/)
  }
  t.ok(harmed > 0, `${harmed} did harm`)
})

/** A disk of its own. */
async function diskFor(scratch: Scratch, megabytes: number): Promise<string> {
  const disk = scratch.dir('disk')
  await scratch.run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', disk])
  return disk
}

/** Takes all space of a disk. */
function fill(file: string): void {
  const fd = fs.openSync(file, 'w')
  const block = Buffer.alloc(64 * 1024)
  try {
    for (;;) fs.writeSync(fd, block)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
  } finally {
    fs.closeSync(fd)
  }
}

t.test('a full disk', { skip: skip || needsRoot }, async (t) => {
  const scratch = scratchFor(t)
  const disk = await diskFor(scratch, 48)
  const data = path.join(disk, 'data')
  fs.symlinkSync(data, scratch.at('data'))
  fill(path.join(disk, 'ballast'))
  const outcome = await scratch.nexusd(['mount', scratch.dir('mnt'), '--data', data])
  t.match(outcome, { status: 1, stdout: '', stderr: /full.*: free some space/ })
  t.ok(isOneLine(outcome.stderr), outcome.stderr)
  t.same(await scratch.nexusd(['mount', scratch.dir('mnt'), '--data', data, '--background']), outcome)
  fs.rmSync(path.join(disk, 'ballast'))
  fs.rmSync(data, { recursive: true, force: true })
  fs.cpSync(path.join(stores, 'crashed'), data, { recursive: true })
  fill(path.join(disk, 'ballast'))
  await isRefused(t, scratch, /full.*: free some space/)
  fs.rmSync(path.join(disk, 'ballast'))
  await mountsWhole(t, scratch)
})

t.test('a read-only disk', { skip: skip || needsRoot }, async (t) => {
  const scratch = scratchFor(t)
  const disk = await diskFor(scratch, 48)
  fs.cpSync(path.join(stores, 'crashed'), path.join(disk, 'data'), { recursive: true })
  fs.symlinkSync(path.join(disk, 'data'), scratch.at('data'))
  await scratch.run('mount', ['-o', 'remount,ro', disk])
  await isRefused(t, scratch, /is on a read-only disk: remount it writable, or name another directory with --data/)
  const fresh = await scratch.nexusd(['mount', scratch.dir('mnt'), '--data', path.join(disk, 'new'), '--background'])
  t.match(fresh, { status: 1, stdout: '', stderr: /is on a read-only disk/ })
  await scratch.run('mount', ['-o', 'remount,rw', disk])
  await mountsWhole(t, scratch)
})

t.test('a disk that fills up while mounted', { skip: skip || needsRoot }, async (t) => {
  const scratch = scratchFor(t)
  const disk = await diskFor(scratch, 56)
  const data = path.join(disk, 'data')
  const mountpoint = scratch.dir('mnt')
  const ctl = (...words: string[]) => scratch.nexusctl(['--data', data, ...words])
  t.match(await scratch.nexusd(['mount', mountpoint, '--data', data, '--background']), { status: 0 })
  fs.writeFileSync(path.join(mountpoint, 'before'), contentOf('before', 100_000))
  fill(path.join(disk, 'ballast'))

  t.throws(() => fs.writeFileSync(path.join(mountpoint, 'file'), contentOf('file', 300_000)), { code: 'ENOSPC' })
  t.throws(
    () => {
      // The last page of the log has room for a few.
      for (let i = 0; i < 100; i++) fs.mkdirSync(path.join(mountpoint, `directory${i}`))
    },
    { code: 'ENOSPC' },
  )
  t.throws(() => fs.appendFileSync(path.join(mountpoint, 'before'), contentOf('tail', 10_000)), { code: 'ENOSPC' })
  t.ok(fs.readFileSync(path.join(mountpoint, 'before')).equals(contentOf('before', 100_000)), 'reads go on')
  const refused = await ctl('snapshot', '/', '--name', 'full')
  t.match(refused, { status: 1, stderr: /is full: (delete files or snapshots|free some space)/ })
  t.ok(isOneLine(refused.stderr))

  fs.rmSync(path.join(disk, 'ballast'))
  for (let i = 0; i < 200; i++) fs.writeFileSync(path.join(mountpoint, `after${i}`), contentOf(`after${i}`, 1000))
  t.match(await ctl('checkpoint'), { status: 0, stderr: '' }, 'and all is as before')
  t.match(await ctl('workspace', 'create', '/workspace/w'), { status: 0 })
  fill(path.join(disk, 'ballast'))
  t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0, stderr: '' })
  fs.rmSync(path.join(disk, 'ballast'))

  const daemon = await scratch.mount([mountpoint, '--data', data])
  t.ok(fs.readFileSync(path.join(mountpoint, 'before')).equals(contentOf('before', 100_000)))
  for (let i = 0; i < 200; i++) {
    if (!fs.readFileSync(path.join(mountpoint, `after${i}`)).equals(contentOf(`after${i}`, 1000))) t.fail(`after${i}`)
  }
  t.same(fs.readdirSync(path.join(mountpoint, 'workspace')), ['w'])
  t.notOk(fs.existsSync(path.join(mountpoint, 'directory99')))
  t.match(await daemon.end('SIGTERM'), { status: 0, stderr: '' })
})
