/** Wrong states of the sample, one each, and what a check says of them. */

import type { Edit } from '../../src/tree/tree.ts'
import { type Attr, encodeAttr } from '../../src/volume/attr.ts'
import { encodeBucket } from '../../src/volume/dirent.ts'
import { Kind, numberKey, orphanKey, plainKey, ROOT_INO, stringKey } from '../../src/volume/keys.ts'
import { encodeWindow } from '../../src/volume/piece.ts'
import { encodeSuper } from '../../src/volume/volume.ts'
import type { Sample } from './support.ts'

export interface Row {
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
    value: encodeSuper({
      ...now,
      inoNext: 5000,
      files: now.files + files,
      directories: now.directories + directories,
      inodes: now.inodes + files + directories,
    }),
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
    name: 'a directory that is recorded to lie in one that lies in it',
    make: (sample) => [sample.attrEdit('d', { parent: sample.ino('d/e'), name: 'd' })],
    want: [['place', '/workspace/a/d']],
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
    make: (sample) => [sample.attrEdit('sparse', { allocated: 7 }), allocatedEdit(sample, -1)],
    want: [['size', '/workspace/a/sparse']],
  },
  {
    name: 'the sum of allocated bytes',
    make: (sample) => [allocatedEdit(sample, 1)],
    want: [['counters', null]],
  },
  {
    name: 'the number of inodes',
    make: (sample) => {
      const { super: now } = sample.volume
      return [{ key: plainKey(0, Kind.super), value: encodeSuper({ ...now, inodes: now.inodes + 1 }) }]
    },
    want: [['counters', null]],
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
      { key: plainKey(0, Kind.super), value: superWith(sample, -300_000, -1, -300_000) },
    ],
    want: [['attributes', null]],
  },
  {
    name: 'the sum of extended attributes',
    make: ({ volume: { super: now } }) => [
      { key: plainKey(0, Kind.super), value: encodeSuper({ ...now, xattrBytes: now.xattrBytes + 1 }) },
    ],
    want: [['counters', null]],
  },
  {
    name: 'extended attributes of nothing',
    make: ({ volume: { super: now } }) => [
      { key: stringKey(3000, Kind.xattr, 'user.x'), value: Buffer.from('1') },
      { key: plainKey(0, Kind.super), value: encodeSuper({ ...now, xattrBytes: now.xattrBytes + 23 }) },
    ],
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

function superWith(sample: Sample, bytes: number, files = 0, allocated = 0): Buffer {
  const { super: now } = sample.volume
  const inodes = now.inodes + (allocated === 0 ? 0 : files)
  return encodeSuper({ ...now, bytes: now.bytes + bytes, files: now.files + files, allocated: now.allocated + allocated, inodes })
}

function allocatedEdit(sample: Sample, more: number): Edit {
  const { super: now } = sample.volume
  return { key: plainKey(0, Kind.super), value: encodeSuper({ ...now, allocated: now.allocated + more }) }
}

function overlapping(): Buffer {
  return Buffer.concat([
    encodeWindow([{ kind: 'zero', start: 0, length: 4000 }]),
    encodeWindow([{ kind: 'zero', start: 3999, length: 1 }]),
  ])
}
