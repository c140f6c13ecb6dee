/** Every kind of wrong is found, where it is, and nothing else. */
import t from 'tap'
import { toHex } from '../../src/cas/address.ts'
import type { Edit } from '../../src/tree/tree.ts'
import { type Attr, encodeAttr } from '../../src/volume/attr.ts'
import { encodeBucket } from '../../src/volume/dirent.ts'
import { Kind, numberKey, orphanKey, plainKey, ROOT_INO, stringKey } from '../../src/volume/keys.ts'
import { encodeWindow } from '../../src/volume/piece.ts'
import { encodeSuper } from '../../src/volume/volume.ts'
import { type Sample, sampleFor } from './support.ts'

interface Row {
  name: string
  make(sample: Sample): Edit[]
  /** kind and path */
  want: [string, string | null][]
  /** repair does not make it right */
  stays?: boolean
}

const fresh: Attr = {
  mode: 0o100644,
  nlink: 1,
  uid: 0,
  gid: 0,
  rdev: 0,
  size: 0,
  allocated: 0,
  atime: { s: 1, ns: 0 },
  mtime: { s: 1, ns: 0 },
  ctime: { s: 1, ns: 0 },
  btime: { s: 1, ns: 0 },
  xattrs: 0,
  parent: 0,
  name: '',
}

const counters = (sample: Sample, files: number, directories = 0): Edit => {
  const { super: now } = sample.volume
  return {
    key: plainKey(0, Kind.super),
    value: encodeSuper({ ...now, inoNext: 5000, files: now.files + files, directories: now.directories + directories }),
  }
}

export const rows: Row[] = [
  {
    name: 'a link count of a file',
    make: (sample) => [sample.attrEdit('f', { nlink: 3 })],
    want: [['links', '/workspace/a/d/g']],
  },
  {
    name: 'a link count of a directory',
    make: (sample) => [sample.attrEdit('d', { nlink: 9 })],
    want: [['links', '/workspace/a/d']],
  },
  {
    name: 'an entry of nothing',
    make: (sample) => [sample.entryEdit('d', 'ghost', {})],
    want: [['entry', '/workspace/a/d/ghost']],
  },
  {
    name: 'an entry of another type',
    make: (sample) => [sample.entryEdit('d', 'big', { type: 0o120000 })],
    want: [['entry', '/workspace/a/d/big']],
  },
  {
    name: 'a name in the wrong slot',
    make: (sample) => [
      {
        key: numberKey(sample.ino('d'), Kind.dirent, 77),
        value: encodeBucket([{ index: 0, name: 'odd', type: 0o100000, ino: sample.ino('f'), volume: 0 }]),
      },
      sample.attrEdit('f', { nlink: 3 }),
    ],
    want: [['entry', '/workspace/a/d/odd']],
    stays: true,
  },
  {
    name: 'a second name of a directory',
    make: (sample) => [
      sample.entryEdit('.', 'again', { type: 0o040000, ino: sample.ino('d/e') }),
      sample.attrEdit('.', { nlink: 4 }),
    ],
    want: [['entry', '/workspace/a/again']],
  },
  {
    name: 'an inode that nothing leads to',
    make: (sample) => [{ key: plainKey(4000, Kind.attr), value: encodeAttr(fresh) }, counters(sample, 1)],
    want: [['unreachable', null]],
  },
  {
    name: 'a directory with all in it that nothing leads to',
    make: (sample) => [sample.entryEdit('d', 'e', null), sample.attrEdit('d', { nlink: 2 })],
    want: [['unreachable', '/workspace/a/d/e']],
  },
  {
    name: 'directories that lie in each other',
    make: (sample) => [
      sample.entryEdit('d', 'e', null),
      sample.attrEdit('d', { nlink: 2 }),
      sample.entryEdit('d/e/deep', 'e', { type: 0o040000, ino: sample.ino('d/e') }),
      sample.attrEdit('d/e/deep', { nlink: 3 }),
      sample.attrEdit('d/e', { parent: sample.ino('d/e/deep') }),
    ],
    want: [['unreachable', null]],
  },
  {
    name: 'one without a name that has names',
    make: (sample) => [{ key: orphanKey(sample.ino('f')), value: Buffer.alloc(0) }],
    want: [['orphan', '/workspace/a/d/g']],
  },
  {
    name: 'one without a name that is not there',
    make: () => [{ key: orphanKey(3999), value: Buffer.alloc(0) }],
    want: [['orphan', null]],
  },
  {
    name: 'another place than recorded',
    make: (sample) => [sample.attrEdit('d/e', { name: 'elsewhere' })],
    want: [['place', '/workspace/a/d/e']],
  },
  {
    name: 'another place than recorded of a file',
    make: (sample) => [sample.attrEdit('d/big', { parent: 1 })],
    want: [['place', '/workspace/a/d/big']],
  },
  {
    name: 'allocated bytes',
    make: (sample) => [sample.attrEdit('sparse', { allocated: 7 })],
    want: [['size', '/workspace/a/sparse']],
  },
  {
    name: 'content behind the end',
    make: (sample) => [sample.attrEdit('f', { size: 4 }), { key: plainKey(0, Kind.super), value: superWith(sample, -5) }],
    want: [['size', '/workspace/a/d/g']],
  },
  {
    name: 'the size of a symlink',
    make: (sample) => [sample.attrEdit('s', { size: 4 })],
    want: [['size', '/workspace/a/s']],
  },
  {
    name: 'a symlink without a target',
    make: (sample) => [{ key: plainKey(sample.ino('s'), Kind.link), value: null }],
    want: [['attributes', '/workspace/a/s']],
    stays: true,
  },
  {
    name: 'the number of extended attributes',
    make: (sample) => [sample.attrEdit('f', { xattrs: 0 })],
    want: [['attributes', '/workspace/a/d/g']],
  },
  {
    name: 'a mode that is none',
    make: (sample) => [
      sample.attrEdit('reserved', { mode: 0o644 }),
      sample.entryEdit('.', 'reserved', { type: 0 }),
      { key: plainKey(0, Kind.super), value: superWith(sample, -1) },
    ],
    want: [['attributes', '/workspace/a/reserved']],
    stays: true,
  },
  {
    name: 'content without attributes',
    make: (sample) => [
      { key: plainKey(sample.ino('d/big'), Kind.attr), value: null },
      { key: plainKey(0, Kind.super), value: superWith(sample, -300_000, -1) },
    ],
    want: [['attributes', null]],
  },
  {
    name: 'extended attributes of nothing',
    make: () => [{ key: stringKey(3000, Kind.xattr, 'user.x'), value: Buffer.from('1') }],
    want: [['attributes', null]],
  },
  {
    name: 'pieces that overlap',
    make: (sample) => [
      {
        key: numberKey(sample.ino('reserved'), Kind.window, 0),
        value: overlapping(),
      },
    ],
    want: [['pieces', '/workspace/a/reserved']],
    stays: true,
  },
  {
    name: 'bytes that were lost before',
    make: (sample) => [
      {
        key: numberKey(sample.ino('f'), Kind.window, 0),
        value: encodeWindow([{ kind: 'damaged', start: 0, length: 9 }]),
      },
    ],
    want: [['content', '/workspace/a/d/g']],
    stays: true,
  },
  {
    name: 'a chunk that is nowhere',
    make: (sample) => [
      {
        key: numberKey(sample.ino('f'), Kind.window, 0),
        value: encodeWindow([{ kind: 'chunk', address: 'x'.repeat(32) as never, offset: 0, start: 0, length: 9 }]),
      },
    ],
    want: [['content', '/workspace/a/d/g']],
    stays: true,
  },
  {
    name: 'more of a chunk than there is',
    make: (sample) => {
      const [piece] = sample.volume.window(sample.ino('f'), 0)
      if (piece?.kind !== 'chunk') throw new Error('not sealed')
      const long = { ...piece, offset: 3 }
      return [{ key: numberKey(sample.ino('f'), Kind.window, 0), value: encodeWindow([long]) }]
    },
    want: [['content', '/workspace/a/d/g']],
    stays: true,
  },
  {
    name: 'counters',
    make: (sample) => [counters(sample, 3)],
    want: [['counters', null]],
  },
  {
    name: 'an inode number that is used and said to be free',
    make: (sample) => [{ key: plainKey(0, Kind.super), value: encodeSuper({ ...sample.volume.super, inoNext: 4 }) }],
    want: [['counters', null]],
  },
  {
    name: 'an entry that cannot be read',
    make: (sample) => [{ key: plainKey(sample.ino('f'), Kind.attr), value: Buffer.from('no') }],
    want: [['value', null]],
    stays: true,
  },
  {
    name: 'a key of no kind',
    make: (sample) => [{ key: plainKey(sample.ino('f'), 200), value: Buffer.from('no') }],
    want: [['value', '/workspace/a/d/g']],
    stays: true,
  },
  {
    name: 'no root directory',
    make: (sample) => [{ key: plainKey(ROOT_INO, Kind.attr), value: null }, counters(sample, 0, -1)],
    want: [['attributes', '/workspace/a']],
  },
  {
    name: 'an entry of a workspace that is not there',
    make: (sample) => [
      sample.entryEdit('.', 'w', { type: 0o040000, ino: ROOT_INO, volume: 700 }),
      sample.attrEdit('.', { nlink: 4 }),
    ],
    want: [['entry', null]],
  },
]

function superWith(sample: Sample, bytes: number, files = 0): Buffer {
  const { super: now } = sample.volume
  return encodeSuper({ ...now, bytes: now.bytes + bytes, files: now.files + files })
}

function overlapping(): Buffer {
  return Buffer.concat([
    encodeWindow([{ kind: 'zero', start: 0, length: 4000 }]),
    encodeWindow([{ kind: 'zero', start: 3999, length: 1 }]),
  ])
}

t.test('a store with a bit of everything is clean', async (t) => {
  const sample = await sampleFor(t)
  const checked = await sample.engine.check()
  t.strictSame(checked.findings, [])
  t.ok(checked.inodes >= 12)
  t.ok(checked.chunks >= 4)
})

for (const { name, make, want } of rows) {
  t.test(name, async (t) => {
    const sample = await sampleFor(t)
    await sample.engine.volumes.checkpoint()
    await sample.wrong(...make(sample))
    const found = await sample.findings()
    t.strictSame(
      found.map(({ kind, path }) => [kind, path]),
      want,
      JSON.stringify(found),
    )
    for (const { live, workspace } of found) t.ok(live && workspace === '/workspace/a')
  })
}

t.test('a root that is held by a snapshot too is said so', async (t) => {
  const sample = await sampleFor(t)
  await sample.engine.volumes.checkpoint()
  await sample.wrong(sample.attrEdit('f', { nlink: 3 }))
  const { snapshot_id } = await sample.test.service.snapshotCreate('/workspace/a', {})
  const [found] = await sample.findings()
  t.match(found, { kind: 'links', live: true, snapshots: [snapshot_id] })
  await sample.wrong(sample.attrEdit('f', { nlink: 2 }))
  const [later] = await sample.findings()
  t.match(later, { kind: 'links', live: false, snapshots: [snapshot_id] })
})

t.test('nodes that are not as their content makes them', async (t) => {
  const sample = await sampleFor(t)
  const { volumes } = sample.engine
  await volumes.checkpoint()
  const entries = [...volumes.tree.scan(sample.volume.root, Buffer.alloc(0))]
  const halves = [entries.slice(0, 9), entries.slice(9)].map((half) =>
    nodeOf(
      0,
      half.map(([key, value]) => [key, value]),
    ),
  )
  const addresses = halves.map((bytes) => volumes.content.put(bytes))
  const firsts = [entries[0], entries[9]].map((entry) => (entry as [Buffer, Buffer])[0])
  const root = volumes.content.put(
    nodeOf(
      1,
      firsts.map((key, i) => [key, Buffer.from(addresses[i] as string, 'latin1')]),
    ),
  )
  sample.setRoot(root)
  const found = await sample.findings()
  t.strictSame(
    found.map(({ kind, severity }) => [kind, severity]),
    [['tree', 'error']],
  )
  t.match(found[0]?.text, toHex(addresses[0] as never))
})

/** A node of these entries, whatever its size should be. */
function nodeOf(level: number, entries: [Buffer, Buffer][]): Buffer {
  const bodies = entries.map(([key, value]) => {
    const head = Buffer.alloc(2)
    head.writeUInt16LE(key.length)
    return Buffer.concat([head, key, value])
  })
  const head = Buffer.alloc(8 + 4 * entries.length)
  head.write('nt')
  head[2] = 1
  head[3] = level
  head.writeUInt32LE(entries.length, 4)
  let end = head.length
  bodies.forEach((body, i) => {
    end += body.length
    head.writeUInt32LE(end, 8 + 4 * i)
  })
  return Buffer.concat([head, ...bodies])
}

t.test('the catalog against the trees', async (t) => {
  const sample = await sampleFor(t)
  const { engine, test } = sample
  const { volumes, registry } = engine
  const kinds = async (): Promise<string[]> => (await sample.findings()).map(({ kind, text }) => `${kind} ${text}`).sort()
  const record = registry.workspace(sample.volume.number)
  if (record === undefined) throw new Error('no record')

  volumes.commit([registry.storeWorkspace({ ...record, name: 'moved' })])
  t.match(await kinds(), [/^entry .*recorded to lie elsewhere/, /^workspace .*no entry/])
  volumes.commit([registry.storeWorkspace({ ...record, parent: 'snap_gone' })])
  t.match(await kinds(), [/^workspace .*descends from snapshot snap_gone/])
  volumes.commit([registry.storeWorkspace({ ...record, domain: 12 })])
  t.match(await kinds(), [/^workspace .*is of domain 12/])
  volumes.commit([registry.storeWorkspace({ ...record, number: 800, name: 'nowhere' })])
  volumes.commit([registry.storeWorkspace(record)])
  t.match(await kinds(), [/^workspace workspace 800 has no entry/, /^workspace workspace 800 has no volume/])
  volumes.commit([{ kind: 'catalog', key: 'w/800', value: null }])
  volumes.commit([{ kind: 'root', volume: 801, root: null, domain: 0, inoNext: 0 }])
  t.match(await kinds(), [/^attributes there is no root/, /^workspace volume 801 belongs to no workspace/])
  volumes.commit([{ kind: 'unvolume', volume: 801 }])
  const grant = 't/900/1 editor user:alice'
  volumes.commit([{ kind: 'catalog', key: grant, value: '{"created_at":"2026-01-01T00:00:00.000Z","expires_at":null}' }])
  t.match(await kinds(), [/^grant .*workspace 900/])
  volumes.commit([{ kind: 'catalog', key: grant, value: null }])
  t.strictSame(await kinds(), [])

  await test.service.snapshotCreate('/workspace/a', { name: 'one' })
  const [taken] = registry.snapshotsOf(sample.volume.number)
  if (taken === undefined) throw new Error('no snapshot')
  const wrongs: [object, RegExp][] = [
    [{ ino: 4000 }, /^snapshot .*is of directory 4000/],
    [{ view: sample.volume.number }, /^snapshot .*seen under the number/],
    [{ parent: 'snap_gone' }, /^snapshot .*descends from/],
    [{ root: 'ab'.repeat(32) }, /^node tree node abab/],
  ]
  for (const [patch, want] of wrongs) {
    volumes.commit([registry.storeSnapshot({ ...taken, ...patch })])
    t.match(await kinds(), [want])
  }
  volumes.commit([{ kind: 'catalog', key: `s/${taken.id}`, value: 'not JSON' }])
  t.match(await kinds(), [/^snapshot .*damaged/, /^workspace .*descends/])
  volumes.commit([registry.storeSnapshot(taken)])
  t.strictSame(await kinds(), [])
})
