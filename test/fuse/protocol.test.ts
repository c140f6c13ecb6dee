/** The protocol as byte arrays: a channel that is a list of buffers, and a filesystem that records its calls. */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { FS, type FsError, NexusError } from '../../src/errors.ts'
import { negotiate } from '../../src/fuse/init.ts'
import { KernelNotifier, type NotifySender } from '../../src/fuse/notify.ts'
import type { DirectFiles } from '../../src/fuse/operation.ts'
import { InitFlag, InitFlag2, Opcode, type OpcodeName } from '../../src/fuse/protocol.ts'
import { operations } from '../../src/fuse/requests.ts'
import { FuseSession, type RequestChannel, type SessionOptions } from '../../src/fuse/session.ts'
import type { Filesystem, Stat } from '../../src/vfs/filesystem.ts'

type Call = [method: string, ...values: unknown[]]
type Field = number | bigint | string | Uint8Array

/** A number is a u32, a bigint a u64 (or i64), text latin1 with its NUL. */
function pack(...fields: Field[]): Buffer {
  return Buffer.concat(
    fields.map((field) => {
      if (typeof field === 'number') return Buffer.from(Uint32Array.of(field).buffer)
      if (typeof field === 'bigint') return Buffer.from(BigUint64Array.of(BigInt.asUintN(64, field)).buffer)
      return typeof field === 'string' ? Buffer.from(`${field}\0`, 'latin1') : Buffer.from(field)
    }),
  )
}

const UNIQUE = 0x8000_0000_0000_1236n
const NODE = 0x10_0000_0007n // above 32 bits
const CALLER = { uid: 1000, gid: 1001, pid: 77 }

function message(opcode: number, body: Buffer, unique = UNIQUE, node = NODE): Buffer {
  return Buffer.concat([pack(40 + body.length, opcode, unique, node, 1000, 1001, 77, 0), body])
}

function reply(body: Buffer, error = 0, unique = UNIQUE): Buffer {
  return Buffer.concat([pack(16 + body.length, error >>> 0, unique), body])
}

const STAT: Stat = {
  node: 0x20_0000_0009,
  mode: 0o100644,
  nlink: 2,
  uid: 5,
  gid: 6,
  rdev: 0x12345678,
  size: 0x1_0000_0001,
  allocated: 513,
  atime: { s: -1, ns: 1 },
  mtime: { s: 0x1_0000_0002, ns: 2 },
  ctime: { s: 3, ns: 3 },
  btime: { s: 4, ns: 4 },
}
const FOREVER = 0x7fffffffn
const ATTR = pack(0x20_0000_0009n, 0x1_0000_0001n, 2n, -1n, 0x1_0000_0002n, 3n, 1, 2, 3, 0o100644, 2, 5, 6, 0x12345678, 4096, 0)
const ENTRY = pack(0x20_0000_0009n, 0n, FOREVER, FOREVER, 0n, ATTR)
const NO_ENTRY = pack(0n, 0n, FOREVER, FOREVER, 0n, Buffer.alloc(88))
const ATTR_OUT = pack(FOREVER, 0n, ATTR)
const STATX_TIMES = [pack(-1n, 1, 0), pack(4n, 4, 0), pack(3n, 3, 0), pack(0x1_0000_0002n, 2, 0)]
const STATX_OUT = pack(
  ...[FOREVER, 0n, 0n, 0n, 0xfff, 4096, 0n, 2, 5, 6, 0o100644, 0x20_0000_0009n, 0x1_0000_0001n, 2n, 0n],
  ...STATX_TIMES,
  ...[0x456, 0x12378, 0, 0, Buffer.alloc(14 * 8)],
)

/** Answers everything, and writes down what it was asked. */
class RecordingFilesystem implements Filesystem {
  readonly calls: Call[] = []
  /** thrown by every method if set */
  failure: unknown
  /** settles what fsync waits for */
  synced: { resolve: () => void; reject: (error: unknown) => void }[] = []
  /** what attributes wait for */
  arrival = (): Promise<void> | undefined => undefined
  aclArrival = (): Promise<void> | undefined => undefined
  entries: [name: string, stat: Stat | undefined][] = [
    ['.', undefined],
    ['..', undefined],
    ['caf\xe9', STAT],
  ]

  #record<Result>(result: Result, ...call: Call): Result {
    this.calls.push(call)
    if (this.failure !== undefined) throw this.failure
    return result
  }
  lookup = (...a: unknown[]) => this.#record(a[2] === 'none' ? undefined : STAT, 'lookup', ...a)
  lookupNode = (...a: unknown[]) => this.#record(STAT, 'lookupNode', ...a)
  forget = (...a: unknown[]) => this.#record(undefined, 'forget', ...a)
  getattr = (...a: unknown[]) => this.#record(STAT, 'getattr', ...a)
  setattr = (...a: unknown[]) => this.#record(STAT, 'setattr', ...a)
  readlink = (...a: unknown[]) => this.#record(Buffer.from('to'), 'readlink', ...a)
  symlink = (...a: unknown[]) =>
    this.#record(STAT, 'symlink', ...a.slice(0, 3), Buffer.from(a[3] as Uint8Array).toString('latin1'))
  mknod = (...a: unknown[]) => this.#record(STAT, 'mknod', ...a)
  mkdir = (...a: unknown[]) => this.#record(STAT, 'mkdir', ...a)
  unlink = (...a: unknown[]) => this.#record(undefined, 'unlink', ...a)
  rmdir = (...a: unknown[]) => this.#record(undefined, 'rmdir', ...a)
  rename = (...a: unknown[]) => this.#record(undefined, 'rename', ...a)
  link = (...a: unknown[]) => this.#record(STAT, 'link', ...a)
  create = (...a: unknown[]) => this.#record(STAT, 'create', ...a)
  tmpfile = (...a: unknown[]) => this.#record(STAT, 'tmpfile', ...a)
  read(...[caller, node, offset, size, into, at]: Parameters<Filesystem['read']>): number {
    into.write('data', at, 'latin1')
    return this.#record(4, 'read', caller, node, offset, size)
  }
  write(...[caller, node, offset, buffer, start, length, kill]: Parameters<Filesystem['write']>): number {
    const data = buffer.toString('latin1', start, start + length)
    buffer.fill(0xff, start - 80, start)
    buffer.fill(0xff, start + length, start + length + 1024)
    return this.#record(length, 'write', caller, node, offset, data, kill)
  }
  fallocate = (...a: unknown[]) => this.#record(undefined, 'fallocate', ...a)
  lseek = (...a: unknown[]) => this.#record(0x1_0000_0003, 'lseek', ...a)
  copyFileRange = (...a: unknown[]) => this.#record(12, 'copyFileRange', ...a)
  fsync(...a: unknown[]): Promise<void> {
    this.#record(undefined, 'fsync', ...a)
    return new Promise((resolve, reject) => this.synced.push({ resolve, reject }))
  }
  readdir(...[caller, node, cookie, withStats, sink]: Parameters<Filesystem['readdir']>): void {
    this.#record(undefined, 'readdir', caller, node, cookie, withStats)
    for (const [index, [name, stat]] of this.entries.entries()) {
      if (index >= cookie && !sink(name, stat?.node ?? 1, stat?.mode ?? 0o40755, index + 1, stat)) return
    }
  }
  statfs = (...a: unknown[]) =>
    this.#record(
      { blockBytes: 4096, blocks: 10, blocksFree: 9, blocksAvailable: 8, files: 7, filesFree: 6, nameBytesMax: 255 },
      'statfs',
      ...a,
    )
  setxattr = (...a: unknown[]) =>
    this.#record(undefined, 'setxattr', ...a.slice(0, 3), Buffer.from(a[3] as Uint8Array).toString('latin1'), ...a.slice(4))
  getxattr = (...a: unknown[]) => this.#record(Buffer.from('value'), 'getxattr', ...a)
  listxattr = (...a: unknown[]) => this.#record(['user.a', 'user.\xff'], 'listxattr', ...a)
  removexattr = (...a: unknown[]) => this.#record(undefined, 'removexattr', ...a)
}

class FakeChannel implements RequestChannel {
  readonly inbox: (Buffer | number)[] = []
  readonly replies: Buffer[] = []
  spins = 0
  /** what `reply` returns */
  result = 0
  wake: (() => void) | undefined

  read(buffer: Uint8Array, stamp: Float64Array): number {
    const next = this.inbox.shift() ?? 0
    if (typeof next === 'number') return next
    buffer.set(next)
    stamp.set([1_700_000_000, 123_456_789])
    return next.length
  }
  poll(buffer: Uint8Array, stamp: Float64Array): number {
    if (this.inbox.length === 0) this.spins++
    return this.read(buffer, stamp)
  }
  reply(buffer: Uint8Array, length: number): number {
    this.replies.push(Buffer.from(buffer.subarray(0, length)))
    return this.result
  }
  watch(callback: () => void): void {
    this.wake = callback
  }
  unwatch(): void {
    this.wake = undefined
  }
}

const ALL = { minor: 45, flags: 0x7fffffff, flags2: 0xff, readaheadBytesMax: 131072 }

const fail = (details: object, message: string) => void t.fail(message, details)
/** For sessions that have nothing to tell. */
const silent = { error: fail, warn: fail, info: fail, debug: fail }

/** A served channel; `ask` sends requests and gives the replies that came at once. */
function serve(options: Partial<SessionOptions> = {}) {
  const channel = new FakeChannel()
  const fs = new RecordingFilesystem()
  const logged: [details: Record<string, unknown>, message: string][] = []
  const log = (details: object, message: string) => void logged.push([{ ...details }, message])
  const logger = { error: log, warn: log, info: log, debug: log }
  const session = new FuseSession({ channel, fs, logger, takeover: ALL, interruptGraceMs: 0, ...options })
  session.start()
  const ask = (...requests: (Buffer | number)[]): Buffer[] => {
    channel.inbox.push(...requests)
    channel.wake?.()
    return channel.replies.splice(0)
  }
  return { channel, fs, logged, session, ask }
}

t.test('while something holds requests up none is read, and then all are', async (t) => {
  let release: (() => void) | undefined
  let held: Promise<void> | undefined
  const { channel, ask, session } = serve({ hold: () => held })
  const request = () => message(Opcode.GETATTR, pack(0, 0, 0n))
  t.equal(ask(request()).length, 1)
  held = new Promise((resolve) => {
    release = resolve
  })
  t.equal(ask(request(), request()).length, 0)
  t.equal(channel.inbox.length, 2, 'they stay with the kernel')
  t.equal(channel.wake, undefined, 'and the watch does not call again and again')
  held = undefined
  release?.()
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.equal(channel.replies.splice(0).length, 2)
  t.equal(ask(request()).length, 1, 'as before')
  held = new Promise((resolve) => {
    release = resolve
  })
  ask(request())
  session.stop()
  release?.()
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.equal(channel.replies.length, 0, 'a session that ended meanwhile serves no more')
  t.equal(channel.wake, undefined)
})

interface Row {
  op: OpcodeName
  body: Buffer
  call?: Call
  answer?: Buffer
  error?: number
}

const HANDLE = 0n
const big = 2n ** 53n
const [ENOSYS, ENOTTY, EFBIG, EINVAL, ERANGE, ESTALE, EIO] = [-38, -25, -27, -22, -34, -116, -5]
const setattrBody = (valid: number) => pack(valid, 0, HANDLE, 99n, 0n, -5n, 6n, 7n, 51, 61, 71, 0o104755, 0, 8, 9, 0)
const OPENED = pack(0n, 2, 0)
const EMPTY = Buffer.alloc(0)
const dirent = (node: bigint, cookie: bigint, type: number, name: string) =>
  pack(node, cookie, name.length, type, Buffer.from(name, 'latin1'), Buffer.alloc((8 - (name.length % 8)) % 8))
const readIn = (offset: bigint, size: number) => pack(HANDLE, offset, size, 0, 0n, 0, 0)
const writeIn = (offset: bigint, data: string, flags = 0) => pack(HANDLE, offset, data.length, flags, 0n, 0, 0, Buffer.from(data))
const copyIn = (from: bigint, to: bigint, length: bigint, flags = 0n) => pack(HANDLE, from, 0x55n, HANDLE, to, length, flags)
const who = [CALLER, Number(NODE)] as const

const rows: Row[] = [
  { op: 'LOOKUP', body: pack('caf\xe9'), call: ['lookup', ...who, 'caf\xe9'], answer: ENTRY },
  { op: 'LOOKUP', body: pack('none'), call: ['lookup', ...who, 'none'], answer: NO_ENTRY },
  { op: 'LOOKUP', body: pack('.'), call: ['lookupNode', ...who], answer: ENTRY },
  { op: 'LOOKUP', body: pack('..'), call: ['lookup', ...who, '..'], answer: ENTRY },
  { op: 'LOOKUP', body: Buffer.from('endless'), error: EINVAL },
  { op: 'LOOKUP', body: pack('', ''), error: EINVAL },
  { op: 'GETATTR', body: pack(0, 0, HANDLE), call: ['getattr', ...who], answer: ATTR_OUT },
  { op: 'STATX', body: pack(0, 0, HANDLE, 0, 0xfff), call: ['getattr', ...who], answer: STATX_OUT },
  { op: 'SETATTR', body: setattrBody(0), call: ['setattr', ...who, {}], answer: ATTR_OUT },
  {
    op: 'SETATTR',
    body: setattrBody(0b1100_0011_1111),
    call: [
      'setattr',
      ...who,
      {
        ...{ mode: 0o4755, uid: 8, gid: 9, size: 99, killSuidGid: true },
        ...{ atime: { s: -5, ns: 51 }, mtime: { s: 6, ns: 61 }, ctime: { s: 7, ns: 71 } },
      },
    ],
    answer: ATTR_OUT,
  },
  {
    op: 'SETATTR',
    body: setattrBody(0b1_1011_0000),
    call: ['setattr', ...who, { atime: 'now', mtime: 'now' }],
    answer: ATTR_OUT,
  },
  { op: 'SETATTR', body: pack(8, 0, HANDLE, big, Buffer.alloc(64)), error: EFBIG },
  { op: 'READLINK', body: EMPTY, call: ['readlink', ...who], answer: Buffer.from('to') },
  { op: 'SYMLINK', body: pack('name', '../t\xff'), call: ['symlink', ...who, 'name', '../t\xff'], answer: ENTRY },
  {
    op: 'MKNOD',
    body: pack(0o20600, 259, 0o22, 0, 'n'),
    call: ['mknod', ...who, 'n', 0o20600, 259, 0o22],
    answer: ENTRY,
  },
  { op: 'MKDIR', body: pack(0o777, 0o22, 'd'), call: ['mkdir', ...who, 'd', 0o777, 0o22], answer: ENTRY },
  { op: 'UNLINK', body: pack('n'), call: ['unlink', ...who, 'n'], answer: EMPTY },
  { op: 'RMDIR', body: pack('n'), call: ['rmdir', ...who, 'n'], answer: EMPTY },
  { op: 'RENAME', body: pack(0x55n, 'a', 'bc'), call: ['rename', ...who, 'a', 0x55, 'bc', 0], answer: EMPTY },
  { op: 'RENAME', body: pack(0x55n, 'abc'), error: EINVAL },
  { op: 'RENAME2', body: pack(0x55n, 2, 0, 'a', 'bc'), call: ['rename', ...who, 'a', 0x55, 'bc', 2], answer: EMPTY },
  { op: 'LINK', body: pack(0x55n, 'l'), call: ['link', CALLER, 0x55, Number(NODE), 'l'], answer: ENTRY },
  { op: 'LINK', body: pack(big, 'l'), error: ESTALE },
  { op: 'OPEN', body: pack(0, 0), error: ENOSYS },
  {
    op: 'READ',
    body: readIn(0x1_0000_0000n, 100),
    call: ['read', ...who, 0x1_0000_0000, 100],
    answer: Buffer.from('data'),
  },
  {
    op: 'READ',
    body: readIn(2n ** 63n - 1n, 1),
    call: ['read', ...who, Number.MAX_SAFE_INTEGER, 1],
    answer: Buffer.from('data'),
  },
  { op: 'READ', body: readIn(0n, (1 << 20) + 1), error: EINVAL },
  { op: 'WRITE', body: writeIn(5n, 'hello', 4), call: ['write', ...who, 5, 'hello', true], answer: pack(5, 0) },
  {
    op: 'WRITE',
    body: writeIn(5n, 'hi', 1),
    call: ['write', { uid: 0, gid: 0, pid: 0 }, Number(NODE), 5, 'hi', false],
    answer: pack(2, 0),
  },
  { op: 'WRITE', body: writeIn(big, 'x'), error: EFBIG },
  { op: 'WRITE', body: writeIn(big - 1n, 'x'), error: EFBIG },
  { op: 'WRITE', body: pack(HANDLE, 0n, 9, 0, 0n, 0, 0, Buffer.from('short')), error: EINVAL },
  {
    op: 'STATFS',
    body: EMPTY,
    call: ['statfs', ...who],
    answer: pack(10n, 9n, 8n, 7n, 6n, 4096, 255, 4096, 0, Buffer.alloc(24)),
  },
  { op: 'RELEASE', body: pack(HANDLE, 0, 0, 0n), answer: EMPTY },
  {
    op: 'SETXATTR',
    body: pack(3, 1, 1, 0, 'user.a', Buffer.from('v\0w')),
    call: ['setxattr', ...who, 'user.a', 'v\0w', 1, true],
    answer: EMPTY,
  },
  { op: 'SETXATTR', body: pack(4, 1, 1, 0, 'user.a', Buffer.from('v\0w')), error: EINVAL },
  { op: 'GETXATTR', body: pack(0, 0, 'user.a'), call: ['getxattr', ...who, 'user.a'], answer: pack(5, 0) },
  { op: 'GETXATTR', body: pack(5, 0, 'user.a'), call: ['getxattr', ...who, 'user.a'], answer: Buffer.from('value') },
  { op: 'GETXATTR', body: pack(4, 0, 'user.a'), call: ['getxattr', ...who, 'user.a'], error: ERANGE },
  { op: 'LISTXATTR', body: pack(0, 0), call: ['listxattr', ...who], answer: pack(14, 0) },
  { op: 'LISTXATTR', body: pack(14, 0), call: ['listxattr', ...who], answer: pack('user.a', 'user.\xff') },
  { op: 'LISTXATTR', body: pack(13, 0), call: ['listxattr', ...who], error: ERANGE },
  { op: 'REMOVEXATTR', body: pack('user.a'), call: ['removexattr', ...who, 'user.a'], answer: EMPTY },
  { op: 'FLUSH', body: pack(HANDLE, 0, 0, 0n), error: ENOSYS },
  { op: 'OPENDIR', body: pack(0, 0), error: ENOSYS },
  {
    op: 'READDIR',
    body: readIn(0n, 4096),
    call: ['readdir', ...who, 0, false],
    answer: pack(dirent(1n, 1n, 4, '.'), dirent(1n, 2n, 4, '..'), dirent(0x20_0000_0009n, 3n, 8, 'caf\xe9')),
  },
  { op: 'READDIR', body: readIn(3n, 4096), call: ['readdir', ...who, 3, false], answer: EMPTY },
  { op: 'READDIR', body: readIn(0n, 31), call: ['readdir', ...who, 0, false], error: EINVAL },
  {
    op: 'READDIRPLUS',
    body: readIn(1n, 4096),
    call: ['readdir', ...who, 1, true],
    answer: pack(NO_ENTRY, dirent(1n, 2n, 4, '..'), ENTRY, dirent(0x20_0000_0009n, 3n, 8, 'caf\xe9')),
  },
  { op: 'RELEASEDIR', body: pack(HANDLE, 0, 0, 0n), answer: EMPTY },
  { op: 'GETLK', body: Buffer.alloc(48), error: ENOSYS },
  { op: 'SETLK', body: Buffer.alloc(48), error: ENOSYS },
  { op: 'SETLKW', body: Buffer.alloc(48), error: ENOSYS },
  { op: 'ACCESS', body: pack(4, 0), error: ENOSYS },
  {
    op: 'CREATE',
    body: pack(0o1101, 0o100666, 0o22, 0, 'n'),
    call: ['create', ...who, 'n', 0o100666, 0o22, 0o1101],
    answer: pack(ENTRY, OPENED),
  },
  { op: 'BMAP', body: pack(0n, 512, 0), error: ENOSYS },
  { op: 'DESTROY', body: EMPTY, answer: EMPTY },
  { op: 'IOCTL', body: Buffer.alloc(32), error: ENOTTY },
  { op: 'POLL', body: Buffer.alloc(24), error: ENOSYS },
  { op: 'FALLOCATE', body: pack(HANDLE, 1n, 2n, 3, 0), call: ['fallocate', ...who, 3, 1, 2], answer: EMPTY },
  { op: 'FALLOCATE', body: pack(HANDLE, big - 2n, 2n, 0, 0), error: EFBIG },
  { op: 'LSEEK', body: pack(HANDLE, 7n, 3, 0), call: ['lseek', ...who, 7, 3], answer: pack(0x1_0000_0003n) },
  {
    op: 'COPY_FILE_RANGE',
    body: copyIn(1n, 2n, 3n),
    call: ['copyFileRange', ...who, 1, 0x55, 2, 3],
    answer: pack(12, 0),
  },
  {
    op: 'COPY_FILE_RANGE',
    body: copyIn(0n, 0n, 2n ** 62n),
    call: ['copyFileRange', ...who, 0, 0x55, 0, 0xfffff000],
    answer: pack(12, 0),
  },
  { op: 'COPY_FILE_RANGE', body: copyIn(1n, 2n, 3n, 1n), error: EINVAL },
  { op: 'COPY_FILE_RANGE', body: copyIn(1n, big, 3n), error: EFBIG },
  {
    op: 'COPY_FILE_RANGE_64',
    body: copyIn(1n, 2n, 2n ** 62n),
    call: ['copyFileRange', ...who, 1, 0x55, 2, Number.MAX_SAFE_INTEGER - 2],
    answer: pack(12n),
  },
  { op: 'SETUPMAPPING', body: Buffer.alloc(40), error: ENOSYS },
  { op: 'REMOVEMAPPING', body: Buffer.alloc(4), error: ENOSYS },
  {
    op: 'TMPFILE',
    body: pack(2, 0o100600, 0o22, 0, '/'),
    call: ['tmpfile', ...who, 0o100600, 0o22],
    answer: pack(ENTRY, OPENED),
  },
  { op: 'CUSE_INIT', body: Buffer.alloc(16), error: ENOSYS },
]

t.test('each opcode makes the right call and gives the right answer', async (t) => {
  for (const { op, body, call, answer, error } of rows) {
    const { fs, ask, session, logged } = serve()
    t.same(ask(message(Opcode[op], body)), [reply(answer ?? EMPTY, error)], `${op} answers`)
    t.same(fs.calls, call ? [call] : [], `${op} calls`)
    t.same(session.counts, { [op]: 1 })
    t.same(logged, [])
  }
})

t.test('sizes of the answers are those of the header', async (t) => {
  t.equal(ENTRY.length, 128, 'fuse_entry_out')
  t.equal(ATTR_OUT.length, 104, 'fuse_attr_out')
  t.equal(STATX_OUT.length, 288, 'fuse_statx_out')
  t.equal(OPENED.length, 16, 'fuse_open_out')
})

t.test('every opcode is tested: here, or below', async (t) => {
  const below = ['FORGET', 'BATCH_FORGET', 'INIT', 'INTERRUPT', 'NOTIFY_REPLY', 'FSYNC', 'FSYNCDIR', 'SYNCFS']
  const seen = new Set<string>([...rows.map(({ op }) => op), ...below])
  t.same([...seen].sort(), Object.keys(Opcode).sort())
})

t.test('old kernels: OPEN and OPENDIR are answered, SETXATTR is short', async (t) => {
  const { fs, ask } = serve({ takeover: { ...ALL, flags: 0 } })
  t.same(ask(message(Opcode.OPEN, pack(0, 0))), [reply(OPENED)])
  t.same(ask(message(Opcode.OPENDIR, pack(0, 0))), [reply(pack(0n, 2 | 8, 0))])
  t.same(ask(message(Opcode.SETXATTR, pack(1, 2, 'user.a', Buffer.from('v')))), [reply(EMPTY)])
  t.same(fs.calls, [['setxattr', ...who, 'user.a', 'v', 2, false]])
})

t.test('a listing that differs by caller begins alone, and goes on when the kernel has dropped its pages', async (t) => {
  const dropped: number[] = []
  let settle: { resolve: () => void; reject: (error: unknown) => void } | undefined
  const drop = (node: number): Promise<void> => {
    dropped.push(node)
    return new Promise((resolve, reject) => {
      settle = { resolve, reject }
    })
  }
  const { ask, channel, fs, logged } = serve({ privateListings: { has: (node) => node === Number(NODE), drop } })
  t.same(ask(message(Opcode.OPENDIR, pack(0, 0))), [reply(EMPTY, ENOSYS)])
  const begin = (op: 'READDIR' | 'READDIRPLUS', lead = 0): bigint => {
    const [answer = EMPTY] = ask(message(Opcode[op], readIn(0n, 4096)))
    const cookie = answer.readBigUInt64LE(16 + lead + 8)
    t.same(answer, reply(pack(lead === 0 ? EMPTY : NO_ENTRY, dirent(1n, cookie, 4, '.'))), 'nothing but .')
    t.ok(cookie > 2n ** 52n && cookie < 2n ** 53n, `${cookie}`)
    return cookie
  }
  const cookies = [begin('READDIR'), begin('READDIR'), begin('READDIRPLUS', 128)]
  t.equal(new Set(cookies).size, 3, 'each listing has a cookie of its own behind it')
  t.same(dropped, [])
  const parent = dirent(1n, 2n, 4, '..')
  const rest = dirent(0x20_0000_0009n, 3n, 8, 'caf\xe9')
  for (const [cookie, op, answer] of [
    [cookies[0] as bigint, 'READDIR', pack(parent, rest)],
    [cookies[2] as bigint, 'READDIR', pack(parent, rest)],
    [cookies[1] as bigint, 'READDIRPLUS', pack(NO_ENTRY, parent, ENTRY, rest)],
    [2n, 'READDIR', rest],
    [3n, 'READDIR', EMPTY],
  ] as const) {
    fs.calls.length = 0
    t.same(ask(message(Opcode[op], readIn(cookie, 4096))), [], 'waits')
    t.same([dropped.splice(0), fs.calls], [[Number(NODE)], []])
    // Another request takes its place.
    ask(message(Opcode.GETATTR, pack(0, 0, 0n), 8n, 1n))
    settle?.resolve()
    await turn()
    t.same(channel.replies.splice(0), [reply(answer)], `${op} ${cookie}`)
    await turn()
  }
  t.same(ask(message(Opcode.READDIR, readIn(0n, 31))), [reply(EMPTY, EINVAL)], 'no room for .')
  t.equal(ask(message(Opcode.READDIR, readIn(0n, 4096), UNIQUE, 1n))[0]?.length, 16 + 96, 'others are as they were')
  ask(message(Opcode.READDIR, readIn(2n, 4096)))
  settle?.reject(new NexusError('NEXUS_INTERNAL', 'the kernel did not drop it'))
  await turn()
  t.same(channel.replies.splice(0), [reply(EMPTY, EIO)], 'never without')
  t.equal(logged.length, 1)
})

t.test('readdir fills its buffer with whole entries and goes on where it stopped', async (t) => {
  for (const op of ['READDIR', 'READDIRPLUS'] as const) {
    for (let size = 200; size < 1000; size += 7) {
      const { fs, ask } = serve()
      fs.entries = Array.from({ length: 40 }, (_, index) => ['n'.repeat((index % 20) + 1) + index, STAT])
      const names: string[] = []
      let cookie = 0n
      for (;;) {
        const [answer] = ask(message(Opcode[op], readIn(cookie, size)))
        const payload = (answer ?? EMPTY).subarray(16)
        if (payload.length === 0) break
        if (payload.length > size || payload.length % 8 !== 0) t.fail(`${payload.length} of ${size}`)
        for (let at = 0; at < payload.length; ) {
          const start = op === 'READDIRPLUS' ? at + 128 : at
          const length = payload.readUInt32LE(start + 16)
          cookie = payload.readBigUInt64LE(start + 8)
          names.push(payload.toString('latin1', start + 24, start + 24 + length))
          at = (start + 24 + length + 7) & ~7
        }
      }
      if (names.join() !== fs.entries.map(([name]) => name).join()) t.fail(`${op} ${size}`)
    }
  }
})

t.test('attributes that take their time are handed out in several answers', async (t) => {
  const { fs, ask } = serve()
  fs.entries = Array.from({ length: 40 }, (_, index) => [`n${index}`, STAT])
  const readdir = fs.readdir.bind(fs)
  fs.readdir = (caller, node, cookie, withStats, sink) => {
    readdir(caller, node, cookie, withStats, (...entry) => {
      for (const until = performance.now() + 1; performance.now() < until; );
      return sink(...entry)
    })
  }
  const lengths: number[] = []
  for (let cookie = 0n; ; ) {
    const [answer] = ask(message(Opcode.READDIRPLUS, readIn(cookie, 65536)))
    const payload = (answer ?? EMPTY).subarray(16)
    if (payload.length === 0) break
    // Each entry is as long as the others: 128 bytes, 24 bytes, and a name of 2 or 3, padded.
    lengths.push(payload.length / 160)
    cookie = payload.readBigUInt64LE(payload.length - 160 + 128 + 8)
  }
  t.equal(
    lengths.reduce((sum, length) => sum + length, 0),
    40,
    'all of them',
  )
  t.ok(Math.max(...lengths) < 20, 'some at a time', { lengths })
})

t.test('forgetting takes no answer, whatever happens', async (t) => {
  const { fs, ask, logged } = serve()
  t.same(ask(message(Opcode.FORGET, pack(3n))), [])
  t.same(ask(message(Opcode.BATCH_FORGET, pack(2, 0, 5n, 1n, 6n, 9n))), [])
  t.same(fs.calls, [
    ['forget', Number(NODE), 3],
    ['forget', 5, 1],
    ['forget', 6, 9],
  ])
  t.same(ask(message(Opcode.BATCH_FORGET, pack(3, 0, 5n, 1n, 6n, 9n))), [], 'more entries promised than sent')
  t.equal(fs.calls.length, 3)
  t.same(ask(message(Opcode.NOTIFY_REPLY, Buffer.alloc(40))), [])
  t.same(logged, [])
  fs.failure = new Error('bug')
  t.same(ask(message(Opcode.BATCH_FORGET, pack(2, 0, 5n, 1n, 6n, 9n))), [])
  t.equal(fs.calls.length, 5, 'the second is forgotten too')
  t.equal(logged.length, 2)
})

t.test('failures become errnos', async (t) => {
  const request = message(Opcode.GETATTR, pack(0, 0, HANDLE))
  const { fs, ask, logged } = serve()
  fs.failure = FS.ENOTEMPTY
  t.same(ask(request), [reply(EMPTY, -39)])
  fs.failure = new NexusError('NEXUS_NO_SPACE', 'disk full')
  t.same(ask(request), [reply(EMPTY, -28)])
  t.same(logged, [])
  fs.failure = new TypeError('bug')
  t.same(ask(request), [reply(EMPTY, EIO)])
  t.same(logged, [
    [{ op: 'GETATTR', unique: '0x8000000000001236', node: Number(NODE), err: fs.failure }, 'fuse: operation failed'],
  ])
})

t.test('an attribute that no struct can hold is EIO, and the next answer is whole again', async (t) => {
  const { fs, ask } = serve()
  fs.getattr = () => ({ ...STAT, nlink: Number.NaN, uid: -1 })
  t.same(ask(message(Opcode.GETATTR, pack(0, 0, HANDLE))), [reply(EMPTY, EIO)])
  t.same(ask(message(Opcode.LOOKUP, pack('a'))), [reply(ENTRY)])
})

t.test('opcodes that nobody knows are ENOSYS', async (t) => {
  const { ask, session } = serve()
  for (const opcode of [0, 7, 19, 54, 200, 4095, 4097, 436207616, 0xffffffff]) {
    t.same(ask(message(opcode, Buffer.alloc(100))), [reply(EMPTY, ENOSYS)], String(opcode))
  }
  t.same(session.counts, { UNKNOWN: 9 })
})

t.test('an answer that nobody waits for is normal, one that is refused is logged', async (t) => {
  const { channel, ask, logged } = serve()
  channel.result = -2
  ask(message(Opcode.DESTROY, EMPTY))
  t.same(logged, [])
  channel.result = -22
  ask(message(Opcode.DESTROY, EMPTY))
  t.match(logged, [[{ op: 'DESTROY', errno: -22 }, /refused/]])
})

t.test('requests cut off at any byte are refused or dropped', async (t) => {
  const all = [
    ...rows,
    ...(['INIT', 'FSYNC', 'INTERRUPT', 'FORGET', 'BATCH_FORGET'] as const).map((op) => ({
      op,
      body: Buffer.alloc(64, 1),
    })),
  ]
  const { ask, channel } = serve()
  for (const { op, body } of all) {
    const whole = message(Opcode[op], body)
    for (let length = 0; length < whole.length; length++) {
      const cut = Buffer.from(whole.subarray(0, length))
      const [lying] = ask(cut)
      if (lying && ![EIO, ENOSYS].includes(lying.readInt32LE(4))) t.fail(`${op} cut at ${length}`)
      if (length < 40) continue
      cut.writeUInt32LE(length, 0)
      for (const answer of ask(cut)) {
        const error = answer.readInt32LE(4)
        if (error > 0 || (error < 0 && answer.length !== 16) || answer.readUInt32LE(0) !== answer.length)
          t.fail(`${op} at ${length}`)
      }
    }
  }
  t.ok(channel.wake, 'still served')
})

t.test('requests of random bytes never end the loop', async () => {
  const { ask, channel } = serve()
  const opcode = fc.oneof(fc.constantFrom(...Object.values(Opcode)), fc.nat(5000))
  const length = fc.option(fc.nat(300), { freq: 4 })
  await fc.assert(
    fc.asyncProperty(opcode, length, fc.uint8Array({ maxLength: 300 }), fc.boolean(), async (op, lie, bytes, small) => {
      const request = Buffer.concat([pack(lie ?? 40 + bytes.length, op, UNIQUE, small ? 5n : 2n ** 60n, 0, 0, 0, 0), bytes])
      for (const answer of ask(request)) {
        if (answer.readUInt32LE(0) !== answer.length) throw new Error('length')
        if (answer.readInt32LE(4) !== 0 && answer.length !== 16) throw new Error('an error with a payload')
      }
      ask(Buffer.from(bytes))
      if (!channel.wake) throw new Error('no longer served')
    }),
    { numRuns: 3000 },
  )
})

t.test('fsync is answered when it is through', async (t) => {
  for (const op of ['FSYNC', 'FSYNCDIR', 'SYNCFS'] as const) {
    const { fs, ask, channel } = serve()
    t.same(ask(message(Opcode[op], pack(HANDLE, 1, 0))), [])
    t.same(fs.calls, [['fsync', ...who, op !== 'SYNCFS']])
    t.equal(channel.spins, 0, 'nothing spins while the disk works')
    t.same(ask(message(Opcode.DESTROY, EMPTY, 2n)), [reply(EMPTY, 0, 2n)], 'others are served meanwhile')
    fs.synced[0]?.resolve()
    await turn()
    t.same(channel.replies.splice(0), [reply(EMPTY)])
    await turn()
    t.equal(channel.spins, 1, 'its caller will soon be back')

    ask(message(Opcode[op], pack(HANDLE, 0, 0)))
    fs.synced[1]?.reject(new NexusError('NEXUS_READ_ONLY', 'disk'))
    await turn()
    t.same(channel.replies.splice(0), [reply(EMPTY, -30)])
  }
})

t.test('attributes wait for the arrival of whoever asks', async (t) => {
  const rows = [
    { op: 'GETATTR', body: pack(0, 0, HANDLE), answer: ATTR_OUT },
    { op: 'STATX', body: pack(0, 0, HANDLE, 0, 0xfff), answer: STATX_OUT },
  ] as const
  for (const { op, body, answer } of rows) {
    const { fs, ask, channel } = serve()
    let arrive = (): void => undefined
    fs.arrival = () =>
      new Promise((resolve) => {
        arrive = resolve
      })
    t.same(ask(message(Opcode[op], body)), [])
    t.same(fs.calls, [], 'nothing is asked before')
    t.same(ask(message(Opcode.DESTROY, EMPTY, 2n)), [reply(EMPTY, 0, 2n)], 'others are served meanwhile')
    arrive()
    await turn()
    t.same(channel.replies.splice(0), [reply(answer)], op)
    t.same(fs.calls, [['getattr', ...who]], 'for the caller of then')
    await turn()

    ask(message(Opcode[op], body))
    fs.failure = FS.ENOENT
    arrive()
    await turn()
    t.same(channel.replies.splice(0), [reply(EMPTY, -2)], 'a failure then is one')
    fs.failure = undefined
    await turn()

    ask(message(Opcode[op], body))
    t.same(ask(message(Opcode.INTERRUPT, pack(UNIQUE), UNIQUE | 1n)), [reply(EMPTY, -4)])
    arrive()
    await turn()
    t.same(channel.replies.splice(0), [], 'answered once')
  }
  const { fs, ask, channel } = serve()
  fs.arrival = () => Promise.resolve()
  t.same(
    ask(message(Opcode.GETXATTR, pack(0, 0, 'user.a'))),
    [reply(pack(5, 0))],
    'what the kernel asks for itself does not wait',
  )
  fs.aclArrival = () => Promise.resolve()
  t.same(ask(message(Opcode.GETXATTR, pack(0, 0, 'user.a'))), [], 'but where it must not be of before the arrival')
  await turn()
  t.same(channel.replies.splice(0), [reply(pack(5, 0))])
  await turn()
  fs.arrival = () => undefined
  fs.getattr = () => ({ ...STAT, isFleeting: true })
  t.same(ask(message(Opcode.GETATTR, pack(0, 0, HANDLE))), [reply(pack(0n, 0n, ATTR))], 'attributes for once')
})

t.test('an interrupt ends the wait for an fsync once', async (t) => {
  const { fs, ask, channel, logged } = serve()
  const fsync = message(Opcode.FSYNC, pack(HANDLE, 1, 0))
  const interrupt = (unique: bigint) => message(Opcode.INTERRUPT, pack(unique), unique | 1n)
  ask(fsync)
  t.same(ask(interrupt(99n)), [], 'somebody else')
  t.same(ask(interrupt(UNIQUE)), [reply(EMPTY, -4)])
  t.same(ask(interrupt(UNIQUE)), [])
  fs.synced[0]?.reject(FS.EIO)
  await turn()
  t.same(channel.replies, [], 'the late answer is dropped')
  t.same(logged, [])
})

t.test('a signal does not disturb an fsync that is soon through', async (t) => {
  const { fs, ask, channel } = serve({ interruptGraceMs: 30 })
  ask(message(Opcode.FSYNC, pack(HANDLE, 1, 0)))
  t.same(ask(message(Opcode.INTERRUPT, pack(UNIQUE), UNIQUE | 1n)), [])
  fs.synced[0]?.resolve()
  await sleep(60)
  t.same(channel.replies.splice(0), [reply(EMPTY)])
  ask(message(Opcode.FSYNC, pack(HANDLE, 1, 0)))
  ask(message(Opcode.INTERRUPT, pack(UNIQUE), UNIQUE | 1n))
  await sleep(60)
  t.same(channel.replies, [reply(EMPTY, -4)])
})

/** Answers when `drop` is called, for files that are made directly. */
class Direct implements DirectFiles {
  readonly calls: Call[] = []
  drop: (() => void) | undefined
  mustDrop = false

  made(node: number): void {
    this.calls.push(['made', node])
  }
  cached(node: number): void {
    this.calls.push(['cached', node])
  }
  written(...range: [node: number, offset: number, length: number, again: boolean]): Promise<void> | undefined {
    this.calls.push(['written', ...range])
    if (!this.mustDrop) return undefined
    return new Promise((resolve) => {
      this.drop = resolve
    })
  }
}

t.test('what is made for writing only is written directly', async (t) => {
  const direct = new Direct()
  const { ask, fs, channel } = serve({ direct })
  const create = (flags: number) => message(Opcode.CREATE, pack(flags, 0o100666, 0o22, 0, 'n'))
  const directly = pack(ENTRY, 1n, 1, 0)
  const made = [['made', STAT.node]]
  const opens: [flags: number, answer: Buffer, calls: Call[]][] = [
    [0o101, directly, made as Call[]],
    [0o3301, directly, made as Call[]], // with O_EXCL, O_TRUNC, O_APPEND
    [0o102, pack(ENTRY, OPENED), []], // read and mapped by its maker
    [0o100, pack(ENTRY, OPENED), []],
    [0o10101, pack(ENTRY, OPENED), []], // O_DSYNC
    [0o4010101, pack(ENTRY, OPENED), []], // O_SYNC
  ]
  for (const [flags, answer, calls] of opens) {
    t.same(ask(create(flags)), [reply(answer)], `0${flags.toString(8)}`)
    t.same(direct.calls.splice(0), calls)
  }
  t.same(ask(message(Opcode.TMPFILE, pack(0o20200001, 0o100600, 0, 0, '/'))), [reply(directly)])
  t.same(direct.calls.splice(0), made)

  const node = Number(NODE)
  const write = (handle: bigint) => message(Opcode.WRITE, pack(handle, 5n, 4, 0, 0n, 0, 0, Buffer.from('data')))
  t.same(ask(write(1n)), [reply(pack(4, 0))])
  t.same(ask(write(0n)), [reply(pack(4, 0))])
  t.same(ask(message(Opcode.READ, pack(0n, 0n, 4, 0, 0n, 0, 0))), [reply(Buffer.from('data'))])
  t.same(direct.calls.splice(0), [
    ['written', node, 5, 4, false],
    ['cached', node],
    ['cached', node],
  ])
  direct.mustDrop = true
  t.same(ask(write(1n)), [], 'who wrote waits until nobody sees what was there before')
  t.same(fs.calls.at(-1)?.[0], 'write', 'and it is written by then')
  direct.drop?.()
  await turn()
  t.same(channel.replies.splice(0), [reply(pack(4, 0))])
})

t.test('a direct write that another process did is dropped from the page cache all the same', async (t) => {
  const direct = new Direct()
  const mark = { begin() {}, isDone: () => true, isDeadly: () => false }
  const { ask, fs } = serve({ direct, mark })
  const write = message(Opcode.WRITE, pack(1n, 5n, 4, 0, 0n, 0, 0, Buffer.from('data')))
  t.same(ask(write), [reply(pack(4, 0))])
  t.same(fs.calls, [])
  t.same(direct.calls, [['written', Number(NODE), 5, 4, true]])
})

t.test('kernels that do not drop their pages before a direct write get none', async (t) => {
  const { ask } = serve({ direct: new Direct(), takeover: { ...ALL, minor: 39 } })
  t.same(ask(message(Opcode.CREATE, pack(0o101, 0o100666, 0o22, 0, 'n'))), [reply(pack(ENTRY, OPENED))])
})

t.test('a file that does not exist can be opened while the kernel shall hear what OPEN is answered', async (t) => {
  const { ask, session, fs } = serve()
  const lookup = (name: string) => message(Opcode.LOOKUP, pack(name))
  let probe = ''
  await session.endOpens(async (name) => {
    probe = name
    const [answer] = ask(lookup(name))
    t.equal(answer?.length, 16 + ENTRY.length)
    t.equal(answer?.readBigUInt64LE(16), 2n ** 53n - 1n, 'no volume has it')
    t.same(fs.calls, [])
    t.same(ask(message(Opcode.OPEN, pack(0, 0))), [reply(EMPTY, ENOSYS)])
  })
  t.same(ask(lookup(probe)), [reply(ENTRY)], 'then it is a name like others')
  await t.rejects(
    session.endOpens(() => Promise.reject(new Error('no'))),
    { message: 'no' },
  )
})

t.test('what waits too long is answered once, with EIO and a line in the log', async (t) => {
  const { fs, ask, channel, logged, session } = serve({ requestLimitMs: 30, interruptGraceMs: 100 })
  const fsync = (unique: bigint) => message(Opcode.FSYNC, pack(HANDLE, 1, 0), unique)
  ask(fsync(1n), fsync(2n))
  ask(message(Opcode.INTERRUPT, pack(1n), 3n))
  fs.synced[1]?.resolve()
  await sleep(80)
  t.same(channel.replies.splice(0), [reply(EMPTY, 0, 2n), reply(EMPTY, -5, 1n)])
  const [[details, text] = [{}, ''], ...more] = logged
  t.match(details, { op: 'FSYNC', node: Number(NODE) })
  t.match(text, /too long .* EIO/)
  t.same(more, [])
  t.equal(session.metrics.timeouts, 1)
  t.match(session.metrics.operations, [
    { name: 'FSYNC', count: 2, errors: { EIO: 1 }, latency: { count: 2 } },
    { name: 'INTERRUPT' },
  ])
  fs.synced[0]?.resolve()
  await sleep(100)
  t.same(channel.replies, [], 'neither the late end nor the interrupt answers again')
  ask(fsync(4n))
  fs.synced[2]?.resolve()
  await turn()
  t.same(channel.replies, [reply(EMPTY, 0, 4n)], 'the next one is served')
})

t.test('an answer with a payload that comes too late is not written where the next one is', async (t) => {
  const { fs, ask, channel } = serve({ requestLimitMs: 20 })
  let arrive: () => void = () => {}
  fs.arrival = () => new Promise((resolve) => (arrive = resolve))
  ask(message(Opcode.GETATTR, pack(0, 0, 0n)))
  await sleep(60)
  t.same(channel.replies.splice(0), [reply(EMPTY, -5)])
  const asked = fs.calls.length
  arrive()
  await turn()
  t.same(channel.replies, [])
  t.equal(fs.calls.length, asked, 'nobody asks for the attributes any more')
})

t.test('a process that stood still looks at what is done before it takes it for late', async (t) => {
  const { fs, ask, channel, logged } = serve({ requestLimitMs: 50 })
  ask(message(Opcode.FSYNC, pack(HANDLE, 1, 0)))
  // As if stopped by a signal: the fsync ends meanwhile, and the thread hears of it after the timers.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700)
  setImmediate(() => fs.synced[0]?.resolve())
  await sleep(20)
  t.same(channel.replies, [reply(EMPTY)])
  t.same(logged, [])
})

const OFFERED = 0x73fffffb
const WANTED_IN_5_10 =
  InitFlag.ASYNC_READ |
  InitFlag.EXPORT_SUPPORT |
  InitFlag.BIG_WRITES |
  InitFlag.DONT_MASK |
  InitFlag.DO_READDIRPLUS |
  InitFlag.READDIRPLUS_AUTO |
  InitFlag.NO_OPEN_SUPPORT |
  InitFlag.NO_OPENDIR_SUPPORT |
  InitFlag.PARALLEL_DIROPS |
  InitFlag.POSIX_ACL |
  InitFlag.ABORT_ERROR |
  InitFlag.MAX_PAGES |
  InitFlag.CACHE_SYMLINKS |
  InitFlag.EXPLICIT_INVAL_DATA
const WANTED_IN_6_1 = WANTED_IN_5_10 | InitFlag.HANDLE_KILLPRIV_V2 | InitFlag.SETXATTR_EXT | InitFlag.INIT_EXT
const initOut = (minor: number, flags: number, flags2: number) =>
  pack(7, minor, 131072, flags, (48 << 16) | 64, 1 << 20, 1, 256, flags2, Buffer.alloc(28))

t.test('INIT of old and new kernels', async (t) => {
  const offers: [name: string, body: Buffer, answer: Buffer][] = [
    ['5.4 to 5.10', pack(7, 31, 131072, OFFERED & 0x03ffffff), initOut(31, WANTED_IN_5_10, 0)],
    ['6.1', pack(7, 38, 131072, OFFERED, 0xffff, Buffer.alloc(44)), initOut(38, WANTED_IN_6_1, 0x98)],
    ['6.18', pack(7, 45, 131072, OFFERED, 0x7ff, Buffer.alloc(44)), initOut(45, WANTED_IN_6_1, 0x98)],
    ['one yet to come', pack(7, 60, 131072, 0xffffffff, 0xffffffff, Buffer.alloc(44)), initOut(45, WANTED_IN_6_1, 0x98)],
    [
      'flags2 that are not announced',
      pack(7, 45, 131072, OFFERED & ~InitFlag.INIT_EXT, 0x7ff, Buffer.alloc(44)),
      initOut(45, WANTED_IN_6_1 & ~InitFlag.INIT_EXT, 0),
    ],
  ]
  for (const [name, body, answer] of offers) {
    const channel = new FakeChannel()
    const session = new FuseSession({ channel, fs: new RecordingFilesystem(), logger: silent })
    t.equal(session.protocol, '')
    session.start()
    channel.inbox.push(message(Opcode.INIT, body))
    channel.wake?.()
    t.same(channel.replies, [reply(answer)], name)
    await session.ready
    t.equal(session.protocol, `7.${answer.readUInt32LE(4)}`)
    t.equal(session.negotiated?.flags2, answer.readUInt32LE(32))
    session.stop()
  }
  t.equal(initOut(45, 0, 0).length, 64, 'fuse_init_out')
  t.equal(InitFlag2.HAS_EXPIRE_ONLY | InitFlag2.DIRECT_IO_ALLOW_MMAP | InitFlag2.HAS_RESEND, 0x98)
})

t.test('kernels that cannot be served are refused', async (t) => {
  for (const [major, minor, words] of [
    [7, 30, /Linux 5.4 or later/],
    [8, 0, /speaks FUSE 8.0/],
    [6, 45, /speaks FUSE 6.45/],
  ] as const) {
    const channel = new FakeChannel()
    const session = new FuseSession({ channel, fs: new RecordingFilesystem(), logger: silent })
    session.start()
    channel.inbox.push(message(Opcode.INIT, pack(major, minor, 0, 0)))
    channel.wake?.()
    t.same(channel.replies, [reply(EMPTY, -95)])
    await t.rejects(session.ready, { code: 'NEXUS_UNSUPPORTED', message: words })
  }
  t.equal(negotiate({ major: 7, minor: 45, readaheadBytesMax: 8 << 20, flags: 0, flags2: 0 }).readaheadBytesMax, 1 << 20)
})

t.test('one turn serves 64 requests, then lets other events run', async (t) => {
  const { channel, ask } = serve()
  const requests = Array.from({ length: 150 }, (_, index) => message(Opcode.DESTROY, EMPTY, BigInt(index)))
  t.equal(ask(...requests).length, 64)
  channel.wake?.()
  t.equal(channel.replies.length, 0, 'a turn is due anyway')
  await turn()
  await turn()
  await turn()
  t.equal(channel.replies.length, 86)
  t.equal(channel.spins, 1)
})

t.test('the end of the mount', async (t) => {
  for (const errno of [-19, -103]) {
    let unmounted = 0
    const { session, channel, ask, logged } = serve({ onUnmounted: () => unmounted++ })
    ask(message(Opcode.DESTROY, EMPTY), errno)
    t.equal(unmounted, 1)
    t.equal(channel.wake, undefined)
    t.same(logged, [])
    session.stop()
    await session.writeBack(everything, nothing, nothing)
  }
  let broken = 0
  const { channel, ask, logged } = serve({ onUnmounted: () => broken++ })
  ask(...Array.from({ length: 200 }, () => -14))
  for (let index = 0; index < 120; index++) await turn()
  t.equal(broken, 1)
  t.equal(logged.length, 100)
  t.equal(channel.wake, undefined)

  const early = new FuseSession({ channel: new FakeChannel(), fs: new RecordingFilesystem(), logger: silent })
  early.start()
  early.stop()
  await t.rejects(early.ready, { code: 'NEXUS_NOT_RUNNING' })
})

const everything = (): boolean => true
const nothing = (): Promise<void> => Promise.resolve()

t.test('write-back is waited for until the queue was empty', async (t) => {
  const { session, channel } = serve()
  channel.inbox.push(...Array.from({ length: 100 }, () => message(Opcode.DESTROY, EMPTY)))
  await session.writeBack(everything, nothing, nothing)
  t.equal(channel.replies.length, 100)
  t.equal(channel.spins, 0)
})

t.test('a queue that is never empty is not waited for, but its write-back is', async (t) => {
  const { session, channel } = serve()
  const back = message(Opcode.WRITE, writeIn(0n, 'x', 1))
  const other = message(Opcode.DESTROY, EMPTY)
  channel.inbox.push(...Array.from({ length: 1000 }, () => other), back, ...Array.from({ length: 9000 }, () => other))
  await session.writeBack(everything, nothing, nothing)
  t.ok(channel.replies.length >= 1001 + 4096)
  t.ok(channel.replies.length < 6000)
  session.stop()
})

t.test('others who dirty pages without end hold nobody up', async (t) => {
  const { session, channel } = serve()
  const backOf = (node: bigint) => message(Opcode.WRITE, writeIn(0n, 'x', 1), UNIQUE, node)
  channel.inbox.push(...Array.from({ length: 100 }, () => backOf(9n)), backOf(NODE))
  const { read } = channel
  let isOver = false
  let own = 0
  channel.read = (buffer, stamp) => {
    // Always one more of another.
    if (!isOver) channel.inbox.push(backOf(9n))
    const bytes = read.call(channel, buffer, stamp)
    const request = Buffer.from(buffer.buffer, buffer.byteOffset)
    if (bytes > 0 && request.readUInt32LE(4) === Opcode.WRITE && request.readBigUInt64LE(16) === NODE) own++
    return bytes
  }
  const begun = performance.now()
  let flushed = 0
  await session.writeBack(
    (node) => node === Number(NODE),
    nothing,
    async () => void flushed++,
  )
  t.equal(flushed, 1, 'the kernel may have left out what is its own')
  const waitedMs = performance.now() - begun
  isOver = true
  t.equal(own, 1, 'its own was waited for')
  t.ok(waitedMs < 15_000, `${waitedMs} ms`)
  session.stop()
})

t.test('a page that cannot be stored fails who asked for it, and nobody else', async (t) => {
  const rows: [fails: FsError, node: bigint, rejects: string | undefined][] = [
    [FS.EIO, NODE, 'EIO'],
    [FS.ENOSPC, NODE, 'ENOSPC'],
    [FS.EIO, 9n, undefined],
    [FS.EDQUOT, NODE, undefined],
    [FS.EROFS, 9n, undefined],
    [FS.EACCES, NODE, undefined],
  ]
  for (const [failure, node, rejects] of rows) {
    const { session, fs, ask } = serve()
    fs.write = () => {
      throw failure
    }
    const waited = session.writeBack(
      (one) => one === Number(NODE),
      async () => {
        ask(message(Opcode.WRITE, writeIn(0n, 'x', 1), UNIQUE, node))
      },
      nothing,
    )
    const name = `${failure.code} of ${node === NODE ? 'its own' : 'another'}`
    if (rejects === undefined) await t.resolves(waited, name)
    else await t.rejects(waited, { code: rejects }, name)
    session.stop()
  }
  const { session } = serve()
  const gone = Object.assign(new Error('gone'), { code: 'ENOTCONN', errno: -107, syscall: 'syncfs' })
  await t.rejects(
    session.writeBack(everything, () => Promise.reject(gone), nothing),
    { code: 'ENOTCONN' },
    'there is no mount any more',
  )
  session.stop()
})

t.test('all of one request happens at one time', async (t) => {
  const { session, fs, ask } = serve()
  const times: unknown[] = []
  fs.getattr = () => {
    times.push(session.clock.now())
    return STAT
  }
  ask(message(Opcode.GETATTR, pack(0, 0, HANDLE)))
  t.same(times, [{ s: 1_700_000_000, ns: 123_456_789 }])
  t.ok(Math.abs(session.clock.now().s - Date.now() / 1000) < 2, 'outside of requests it is the wall clock')
})

t.test('every request is counted and timed, with its errors, its bytes and what is slow', async (t) => {
  const { session, channel, fs, ask } = serve()
  const measured = (name: string) => {
    const { count = 0, errors, latency } = session.metrics.operations.find((operation) => operation.name === name) ?? {}
    return { count, errors, answered: latency?.count, max: latency?.max_us }
  }
  channel.result = 30
  ask(message(Opcode.GETATTR, pack(0, 0, HANDLE)), message(Opcode.GETATTR, pack(0, 0, HANDLE)))
  t.strictSame(measured('GETATTR'), { count: 2, errors: {}, answered: 2, max: 30 })
  ask(message(Opcode.READ, readIn(0n, 100)), message(Opcode.WRITE, writeIn(0n, 'twelve bytes')), message(Opcode.FORGET, pack(1n)))
  t.match(session.metrics, { readBytes: 4, writtenBytes: 12, stallCount: 0, stalls: [] })
  t.match(measured('FORGET'), { count: 1, answered: 0 }, 'it takes no answer')

  fs.failure = FS.EACCES
  ask(message(Opcode.GETATTR, pack(0, 0, HANDLE)))
  fs.failure = undefined
  ask(message(Opcode.GETATTR, EMPTY))
  t.strictSame(measured('GETATTR'), { count: 4, errors: { EACCES: 1, EINVAL: 1 }, answered: 4, max: 30 })

  channel.result = 60_000
  ask(message(Opcode.READ, readIn(0n, 100)))
  t.match(session.metrics, { stallCount: 1, stalls: [{ operation: 'READ', micros: 60_000, waited: false }] })
  channel.result = -2
  ask(message(Opcode.READ, readIn(0n, 100)))
  t.match(measured('READ'), { count: 3, answered: 2 }, 'nobody waited for the last')

  channel.result = 10
  ask(message(Opcode.FSYNC, pack(HANDLE, 0, 0)))
  t.match(measured('FSYNC'), { count: 1, answered: 0 })
  await new Promise((resolve) => setTimeout(resolve, 70))
  fs.synced.shift()?.reject(FS.EIO)
  await new Promise((resolve) => setImmediate(resolve))
  t.match(measured('FSYNC'), { count: 1, errors: { EIO: 1 }, answered: 1 })
  t.match(session.metrics, { stallCount: 2, stalls: [{ operation: 'FSYNC', waited: true }, { operation: 'READ' }] })
  await new Promise((resolve) => setTimeout(resolve, 1))
  for (let i = 0; i < 20; i++) {
    channel.result = 100_000_000 + i
    ask(message(Opcode.READ, readIn(0n, 100)))
  }
  const { stallCount, stalls } = session.metrics
  t.equal(stallCount, 22)
  t.strictSame(
    stalls.map(({ micros }) => micros),
    [19, 18, 17, 16, 15, 14, 13, 12].map((more) => 100_000_000 + more),
    'the worst are kept, and no more',
  )
  session.stop()
})

t.test('notifies, each in the lane of what it may wait for', async (t) => {
  const sent: Buffer[][] = []
  let results: number[] = []
  const newSender = (): NotifySender => {
    const mine: Buffer[] = []
    sent.push(mine)
    return {
      send(buffers: readonly Uint8Array[]): Promise<number[]> {
        mine.push(...buffers.map((buffer) => Buffer.from(buffer)))
        return Promise.resolve(buffers.map((_, index) => results[index] ?? 0))
      },
      takeBack: () => 0,
      stop: () => undefined,
    }
  }
  const logged: object[] = []
  const logger = { ...silent, error: (details: object) => void logged.push(details) }
  const written: (readonly number[])[] = []
  const caches = new KernelNotifier({
    newSender,
    logger,
    isDirectory: (node) => node === 5,
    canDropNames: () => true,
    writeBack: async (volumes) => void written.push(volumes),
  })
  results = [0, -2, 0, -39]
  await Promise.all([
    caches.invalidateNode(Number(NODE)),
    caches.invalidateNode(5),
    caches.pages.invalidateRange(Number(NODE), 4096, 10),
    caches.privateListings.dropListing(7),
    caches.invalidateEntry(Number(NODE), 'caf\xe9'),
    caches.expireEntry(5, 'late'),
    caches.invalidateAttributes(5),
    caches.deleteEntry(5, 6, 'gone'),
    caches.invalidateNames(),
    caches.resend(),
  ])
  const notice = (code: number, body: Buffer) => reply(body, code, 0n)
  t.same(sent, [
    [notice(2, pack(5n, -1n, 0n)), notice(2, pack(5n, -1n, 0n)), notice(8, EMPTY), notice(7, EMPTY)],
    [notice(2, pack(NODE, 0n, 0n)), notice(2, pack(NODE, 4096n, 10n))],
    [notice(2, pack(7n, 0n, 0n))],
    [
      notice(2, pack(5n, 0n, 0n)),
      notice(3, pack(NODE, 4, 0, 'caf\xe9')),
      notice(3, pack(5n, 4, 1, 'late')),
      notice(6, pack(5n, 6n, 4, 0, 'gone')),
    ],
  ])
  await caches.writeBack([3])
  t.same(written, [[3]])
  results = [-22]
  await t.rejects(caches.invalidateNode(1), { code: 'NEXUS_INTERNAL' })
  await t.rejects(caches.invalidateEntry(1, 'x'), { code: 'NEXUS_INTERNAL' })
  t.same(logged, [
    { code: 2, errno: -22 },
    { code: 3, errno: -22 },
  ])
  caches.stop()
})

t.test('the table has an entry for each opcode', async (t) => {
  t.same(Object.keys(operations).sort(), Object.keys(Opcode).sort())
})
