/** What system calls do to content: truncate, fallocate, holes, copies, sizes at the limit, mappings and locks. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { type Check, posixTests, python, type Row, table, USER } from './posix.ts'

/** linux/falloc.h */
const KEEP_SIZE = 0x01
const PUNCH_HOLE = 0x02
const COLLAPSE_RANGE = 0x08
const ZERO_RANGE = 0x10
const INSERT_RANGE = 0x20

const KIB = 1024
/** ext4 counts in blocks: extents of this size are seen alike everywhere. */
const EXTENT = 64 * KIB
const MIB = KIB * KIB
const FILE_BYTES_MAX = 2n ** 53n - 1n

const zeros = (length: number): string => '\0'.repeat(length)

const truncate: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'f', 'some text']],
    [['truncate', 'f', 4]],
    [['content', 'f'], 'some'],
    [['truncate', 'f', 8]],
    [['content', 'f'], `some${zeros(4)}`],
    // What was cut off never comes back, within a page neither.
    [['create', 'g', 'x'.repeat(10_000)]],
    [['truncate', 'g', 5000]],
    [['truncate', 'g', 10_000]],
    [['content', 'g'], 'x'.repeat(5000) + zeros(5000)],
    [['truncate', 'g', 0]],
    [
      ['stat', 'g', 'size', 'blocks'],
      [0, 0],
    ],
    [['truncate', 'f', -1], 'EINVAL'],
    [['truncate', 'none', 0], 'ENOENT'],
    [['truncate', 'f/x', 0], 'ENOTDIR'],
    [['mkdir', 'd']],
    [['truncate', 'd', 0], 'EISDIR'],
    [['mkfifo', 'p']],
    [['truncate', 'p', 0], 'EINVAL'],
    [['open', 'r', 'f', 'O_RDONLY']],
    [['ftruncate', 'r', 0], 'EINVAL'],
    [['open', 'w', 'f', 'O_RDWR']],
    [['ftruncate', 'w', 2]],
    [['pread', 'r', 100, 0], 'so'],
    [['ftruncate', 'w', -1], 'EINVAL'],
    [['become', USER]],
    [['truncate', 'f', 0], 'EACCES'],
    // Who has it open for writing needs no permission any more.
    [['ftruncate', 'w', 1]],
    [['fstat', 'w', 'size'], 1],
  ])

const sparse: Check = (t, { directory }) =>
  table(t, directory, [
    [['open', 'fd', 'f', 'O_RDWR O_CREAT']],
    [['pwrite', 'fd', 'd'.repeat(EXTENT), EXTENT], EXTENT],
    [['pwrite', 'fd', 'd'.repeat(EXTENT), 4 * EXTENT], EXTENT],
    [['ftruncate', 'fd', 8 * EXTENT]],
    [['fsync', 'fd']],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [8 * EXTENT, (2 * EXTENT) / 512],
    ],
    ...(
      [
        ['SEEK_DATA', 0, EXTENT],
        ['SEEK_HOLE', 0, 0],
        ['SEEK_DATA', EXTENT + 5, EXTENT + 5],
        ['SEEK_HOLE', EXTENT + 5, 2 * EXTENT],
        ['SEEK_DATA', 2 * EXTENT, 4 * EXTENT],
        ['SEEK_HOLE', 4 * EXTENT, 5 * EXTENT],
        ['SEEK_DATA', 5 * EXTENT, 'ENXIO'],
        ['SEEK_HOLE', 5 * EXTENT, 5 * EXTENT],
        ['SEEK_HOLE', 8 * EXTENT, 'ENXIO'],
        ['SEEK_DATA', 8 * EXTENT, 'ENXIO'],
        ['SEEK_DATA', -1, 'ENXIO'],
        ['SEEK_END', -1, 8 * EXTENT - 1],
        ['SEEK_SET', -1, 'EINVAL'],
      ] as const
    ).map(([whence, from, to]): Row => [['lseek', 'fd', from, whence], to]),
    [['pread', 'fd', 4, EXTENT - 2], '\0\0dd'],
    [['pread', 'fd', 4, 2 * EXTENT - 2], 'dd\0\0'],
    // A file that is all data has its hole at the end.
    [['create', 'g', 'text']],
    [['open', 'fd', 'g', 'O_RDONLY']],
    [['lseek', 'fd', 0, 'SEEK_HOLE'], 4],
    [['create', 'empty']],
    [['open', 'fd', 'empty', 'O_RDONLY']],
    [['lseek', 'fd', 0, 'SEEK_DATA'], 'ENXIO'],
  ])

const fallocate: Check = (t, { directory, onMount }) => {
  const filled = 'd'.repeat(4 * EXTENT)
  table(t, directory, [
    [['open', 'fd', 'f', 'O_RDWR O_CREAT']],
    [['fallocate', 'fd', 0, 0, 4 * EXTENT]],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [4 * EXTENT, (4 * EXTENT) / 512],
    ],
    [['lseek', 'fd', 0, 'SEEK_DATA'], 'ENXIO'],
    [['pread', 'fd', 4, 2 * EXTENT], zeros(4)],
    [['pwrite', 'fd', filled, 0], 4 * EXTENT],
    [['fstat', 'fd', 'blocks'], (4 * EXTENT) / 512],
    // Allocating what is there changes nothing in it.
    [['fallocate', 'fd', 0, EXTENT, EXTENT]],
    [['content', 'f'], filled],
    [['fallocate', 'fd', KEEP_SIZE, 4 * EXTENT, 4 * EXTENT]],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [4 * EXTENT, (8 * EXTENT) / 512],
    ],
    [['ftruncate', 'fd', 4 * EXTENT]],
    [['fstat', 'fd', 'blocks'], (4 * EXTENT) / 512],
    [['fallocate', 'fd', PUNCH_HOLE | KEEP_SIZE, EXTENT, EXTENT]],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [4 * EXTENT, (3 * EXTENT) / 512],
    ],
    [['content', 'f'], 'd'.repeat(EXTENT) + zeros(EXTENT) + 'd'.repeat(2 * EXTENT)],
    [['lseek', 'fd', 0, 'SEEK_HOLE'], EXTENT],
    [['lseek', 'fd', EXTENT, 'SEEK_DATA'], 2 * EXTENT],
    [['fallocate', 'fd', PUNCH_HOLE, 0, EXTENT], 'ENOTSUP'],
    // Within a block it zeroes.
    [['fallocate', 'fd', PUNCH_HOLE | KEEP_SIZE, 10, 5]],
    [['pread', 'fd', 7, 9], `d${zeros(5)}d`],
    [['fallocate', 'fd', PUNCH_HOLE | KEEP_SIZE, 3 * EXTENT, 100 * EXTENT]],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [4 * EXTENT, (2 * EXTENT) / 512],
    ],
    [['pwrite', 'fd', filled, 0], 4 * EXTENT],
    [['fallocate', 'fd', ZERO_RANGE, EXTENT, EXTENT]],
    [
      ['fstat', 'fd', 'size', 'blocks'],
      [4 * EXTENT, (4 * EXTENT) / 512],
    ],
    [['content', 'f'], 'd'.repeat(EXTENT) + zeros(EXTENT) + 'd'.repeat(2 * EXTENT)],
    [['fallocate', 'fd', ZERO_RANGE | KEEP_SIZE, 3 * EXTENT, 2 * EXTENT]],
    [['fstat', 'fd', 'size'], 4 * EXTENT],
    [['fallocate', 'fd', ZERO_RANGE, 3 * EXTENT, 2 * EXTENT]],
    [['fstat', 'fd', 'size'], 5 * EXTENT],
    [['pread', 'fd', 2 * EXTENT + 1, 3 * EXTENT - 1], `d${zeros(2 * EXTENT)}`],
    [['fallocate', 'fd', 0, 0, 0], 'EINVAL'],
    [['fallocate', 'fd', 0, -1, 1], 'EINVAL'],
    [['fallocate', 'fd', 0, 0, String(2n ** 62n)], (result: string) => result === 'EFBIG' || result === 'ENOSPC'],
    // ext4 moves extents; the FUSE protocol has no words for it.
    [['fallocate', 'fd', COLLAPSE_RANGE, 0, EXTENT], onMount ? 'ENOTSUP' : null],
    [['fallocate', 'fd', INSERT_RANGE, 0, EXTENT], onMount ? 'ENOTSUP' : null],
    [['open', 'r', 'f', 'O_RDONLY']],
    [['fallocate', 'r', 0, 0, EXTENT], 'EBADF'],
    [['posix_fallocate', 'fd', 0, 6 * EXTENT]],
    [['fstat', 'fd', 'size'], 6 * EXTENT],
    [['posix_fallocate', 'r', 0, EXTENT], 'EBADF'],
    [['posix_fallocate', 'fd', 0, 0], 'EINVAL'],
    [['open', 'd', '.', 'O_RDONLY']],
    [['fallocate', 'd', 0, 0, 1], 'EBADF'],
  ])
}

/** Positions up to 2^53 - 1, and a clean refusal above. On the local disk: up to where ext4 ends. */
const enormous: Check = (t, { directory, onMount }) => {
  const last = onMount ? FILE_BYTES_MAX : 2n ** 44n - 4096n
  const at = String(last - 4n)
  table(t, directory, [
    [['open', 'fd', 'f', 'O_RDWR O_CREAT']],
    [['pwrite', 'fd', 'text', at], 4],
    [['fstat', 'fd', 'size'], Number(last)],
    [['fstat', 'fd', 'blocks'], (blocks: number) => blocks <= 64],
    [['pread', 'fd', 100, at], 'text'],
    [['pread', 'fd', 4, 1_000_000], zeros(4)],
    [['pread', 'fd', 4, String(last)], ''],
    [['lseek', 'fd', 0, 'SEEK_DATA'], (found: number) => found <= Number(at) && found > Number(at) - 4096],
    [['pwrite', 'fd', 'in the middle', 5 * 2 ** 40], 13],
    [['lseek', 'fd', 0, 'SEEK_DATA'], 5 * 2 ** 40],
    [['pwrite', 'fd', 'x'.repeat(8192), String(last)], 'EFBIG'],
    [['ftruncate', 'fd', String(last + 8192n)], 'EFBIG'],
    [['ftruncate', 'fd', String(2n ** 63n - 1n)], 'EFBIG'],
    [['fstat', 'fd', 'size'], Number(last)],
    [['fallocate', 'fd', KEEP_SIZE | PUNCH_HOLE, 0, at]],
    [['pread', 'fd', 4, 5 * 2 ** 40], zeros(4)],
    [['pread', 'fd', 100, at], 'text'],
    [['ftruncate', 'fd', 10]],
    [['ftruncate', 'fd', String(last)]],
    [['pread', 'fd', 4, at], zeros(4)],
    [['fsync', 'fd']],
    [['fstat', 'fd', 'blocks'], 0],
  ])
}

const copies: Check = (t, { directory }) =>
  table(t, directory, [
    [['create', 'a', `${'1'.repeat(EXTENT)}${'2'.repeat(EXTENT)}tail`]],
    [['open', 'a', 'a', 'O_RDWR']],
    [['open', 'b', 'b', 'O_RDWR O_CREAT']],
    [['copy_file_range', 'a', 'b', 2 * EXTENT + 4, 0, 0], 2 * EXTENT + 4],
    [['content', 'b'], `${'1'.repeat(EXTENT)}${'2'.repeat(EXTENT)}tail`],
    // They share nothing that a write to one could change in the other.
    [['pwrite', 'a', 'new', 0], 3],
    [['pread', 'b', 3, 0], '111'],
    [['pwrite', 'b', 'old', 1], 3],
    [['pread', 'a', 4, 0], 'new1'],
    // From the middle to the middle, not on any boundary.
    [['copy_file_range', 'a', 'b', 10, EXTENT - 5, 7], 10],
    [['pread', 'b', 14, 5], '11111112222211'],
    [['copy_file_range', 'a', 'b', 1000, 2 * EXTENT, 3 * EXTENT], 4],
    [['fstat', 'b', 'size'], 3 * EXTENT + 4],
    [['pread', 'b', 8, 3 * EXTENT - 4], `${zeros(4)}tail`],
    [['copy_file_range', 'a', 'b', 10, 2 * EXTENT + 4, 0], 0],
    [['copy_file_range', 'a', 'b', 10, 10 * EXTENT, 0], 0],
    // Within one file, where the ranges do not meet.
    [['copy_file_range', 'a', 'a', 10, 2 * EXTENT - 6, 100], 10],
    [['pread', 'a', 12, 99], '1222222tail1'],
    [['copy_file_range', 'a', 'a', 100, 0, 50], 'EINVAL'],
    // A hole overwrites data with zeros.
    [['open', 'h', 'hole', 'O_RDWR O_CREAT']],
    [['ftruncate', 'h', EXTENT]],
    [['copy_file_range', 'h', 'b', 100, 0, 0], 100],
    [['pread', 'b', 102, 0], `${zeros(100)}11`],
    [['open', 'r', 'b', 'O_RDONLY']],
    [['copy_file_range', 'a', 'r', 1, 0, 0], 'EBADF'],
    [['open', 'append', 'b', 'O_WRONLY O_APPEND']],
    [['copy_file_range', 'a', 'append', 1, 0, 0], 'EBADF'],
    [['open', 'd', '.', 'O_RDONLY']],
    [['copy_file_range', 'd', 'b', 1, 0, 0], 'EISDIR'],
    [['mmap', 'a', EXTENT]],
    [['map_write', 'a', 20, 'mapped']],
    [['copy_file_range', 'a', 'b', 6, 20, 0], 6],
    [['pread', 'b', 6, 0], 'mapped'],
  ])

/** Writes of all sizes in any order leave what the same writes leave in memory. */
const scattered: Check = (t, { directory }) => {
  const file = path.join(directory, 'f')
  const model = Buffer.alloc(4 * MIB)
  const fd = fs.openSync(file, 'w+')
  let seed = 1
  const random = (below: number): number => {
    seed = (seed * 48271) % 0x7fffffff
    return seed % below
  }
  for (let i = 0; i < 300; i++) {
    const at = random(model.length)
    const length = Math.min(1 + random(i % 10 === 0 ? MIB : 5000), model.length - at)
    const data = Buffer.alloc(length, 1 + random(255))
    data.copy(model, at)
    fs.writeSync(fd, data, 0, length, at)
  }
  fs.ftruncateSync(fd, model.length)
  const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex')
  const read = Buffer.alloc(model.length)
  fs.readSync(fd, read, 0, read.length, 0)
  t.equal(digest(read), digest(model), 'read while open')
  fs.closeSync(fd)
  t.equal(digest(fs.readFileSync(file)), digest(model), 'read again')
  const direct = execFileSync('dd', [`if=${file}`, 'bs=1M', 'iflag=direct', 'status=none'], { maxBuffer: 2 * model.length })
  t.equal(digest(direct), digest(model), 'past the page cache')
}

const synchronous: Check = (t, { directory }) =>
  table(t, directory, [
    [['open', 'fd', 'f', 'O_RDWR O_CREAT O_SYNC']],
    [['write', 'fd', 'text'], 4],
    [['fsync', 'fd']],
    [['fdatasync', 'fd']],
    [['open', 'd', '.', 'O_RDONLY']],
    [['fsync', 'd']],
    [['content', 'f'], 'text'],
  ])

/** Between processes; what each story should say stands beside it. */
const processes: Check = (t, { directory }) => {
  const seen = python<Record<string, unknown>>('processes.py', directory, null)
  const expected = {
    flock_story: {
      'shared beside shared': 'locked',
      'exclusive beside shared': 'EAGAIN',
      'shared beside exclusive': 'EAGAIN',
      'after unlock': 'locked',
      'after close': 'locked',
    },
    lockf_story: {
      overlapping: 'EAGAIN',
      'beside it': 'locked',
      holder: [0, 100, 'me'],
      shared: 'locked',
      'after a close of any descriptor': 'nobody',
    },
    death_story: { flock: ['EAGAIN', 'locked'], lockf: ['EAGAIN', 'locked'] },
    waiting_story: { 'a signal': 'EINTR', before: 'waits', after: 'has it' },
    mmap_story: {
      'map to map': 'mapped',
      'map to read': 'mapped',
      'write to map': 'called',
      'private to read': zeros(7),
      'after msync': 'last',
      truncated: `map${zeros(3)}`,
      'behind the end': 'SIGBUS',
      'grown again': `map${zeros(3)}`,
    },
    unmapped_story: 64,
    append_story: { lines: 2000, 'all there': true },
    names_story: 50,
  }
  for (const [story, answer] of Object.entries(expected)) t.same(seen[story], answer, story)
}

posixTests({
  truncate,
  'holes: SEEK_DATA and SEEK_HOLE': sparse,
  'fallocate in its modes': fallocate,
  'files of nearly 8 PiB': enormous,
  copy_file_range: copies,
  'scattered writes': scattered,
  'fsync and O_SYNC': synchronous,
  'locks, mappings and appends between processes': processes,
})
