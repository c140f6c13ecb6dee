/** Whatever the kernel asks is answered, once and well-formed, or not where it takes no answer; and nothing is a bug. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import type { Dispatcher } from '../../src/fuse/dispatcher.ts'
import { Stalls } from '../../src/fuse/meter.ts'
import { REQUEST_BYTES_MAX } from '../../src/fuse/protocol.ts'
import { operationTable } from '../../src/fuse/requests.ts'
import type { Filesystem, Stat } from '../../src/vfs/filesystem.ts'
import { isName } from '../../src/volume/dirent.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import { dispatcherOf } from '../fuse/dispatching.ts'
import { request } from './requests.ts'
import { tryAll } from './support.ts'

const SLACK_BYTES = 4096
const TERMS = { minor: 45, flags: 0x7fff_ffff, flags2: 0xff, readaheadBytesMax: 131_072 }
const table = operationTable(new Stalls())

/** A connection whose answers are checked; what is logged as a failure is one. */
class Kernel {
  readonly #inbox = Buffer.from(new ArrayBuffer(REQUEST_BYTES_MAX + SLACK_BYTES), 0, REQUEST_BYTES_MAX)
  readonly #dispatcher: Dispatcher
  #answers: Buffer[] = []
  #failures: unknown[] = []

  constructor(filesystem: Filesystem) {
    const logger = { error: (...a: unknown[]) => void this.#failures.push(a), warn() {}, info() {}, debug() {} }
    this.#dispatcher = dispatcherOf({
      fs: filesystem,
      inbox: this.#inbox,
      send: (buffer, length) => {
        this.#answers.push(Buffer.from(buffer.subarray(0, length)))
        return 0
      },
      logger: logger as never,
      terms: TERMS,
    })
  }

  async ask(bytes: Buffer): Promise<void> {
    this.#answers = []
    this.#inbox.set(bytes.subarray(0, REQUEST_BYTES_MAX))
    const waited = this.#dispatcher.waiting
    this.#dispatcher.dispatch(bytes.length)
    if (this.#dispatcher.waiting > waited)
      while (this.#dispatcher.waiting > 0) await new Promise((resolve) => setImmediate(resolve))
    const [failure] = this.#failures
    if (failure !== undefined) throw new Error(`logged as a failure: ${fc.stringify(failure)} ${stackOf(failure)}`)
    this.#check(bytes)
  }

  #check(bytes: Buffer): void {
    const isSilent = bytes.length < 40 || table[bytes.readUInt32LE(4)]?.silent === true
    const wanted = isSilent ? 0 : 1
    if (this.#answers.length !== wanted) throw new Error(`${this.#answers.length} answers, not ${wanted}`)
    const [answer] = this.#answers
    if (answer === undefined) return
    const error = answer.readInt32LE(4)
    if (answer.readUInt32LE(0) !== answer.length || answer.length < 16) throw new Error('the length is wrong')
    if (error > 0 || error < -4095 || (error !== 0 && answer.length !== 16)) throw new Error(`the error is ${error}`)
    if (!answer.subarray(8, 16).equals(bytes.subarray(8, 16))) throw new Error('another request is answered')
  }
}

function stackOf(failure: unknown): string {
  const { err } = (Array.isArray(failure) ? failure[0] : failure) as { err?: unknown }
  return err instanceof Error ? String(err.stack) : ''
}

const time = { s: -1, ns: 1 }
const times = { atime: time, mtime: time, ctime: time, btime: time }
const STAT: Stat = { node: 9, mode: 0o100644, nlink: 1, uid: 0, gid: 0, rdev: 0, size: 1, allocated: 1, ...times }

/** Agrees to everything. */
const yes = {
  lookup: () => STAT,
  lookupNode: () => STAT,
  forget: () => {},
  getattr: () => STAT,
  setattr: () => STAT,
  readlink: () => Buffer.from('to'),
  symlink: () => STAT,
  mknod: () => STAT,
  mkdir: () => STAT,
  unlink: () => {},
  rmdir: () => {},
  rename: () => {},
  link: () => STAT,
  create: () => STAT,
  tmpfile: () => STAT,
  read: (_caller, _node, _offset, size, into, at) => into.fill(1, at, at + size) && size,
  write: (_caller, _node, _offset, buffer, start, length) => buffer.fill(0, start - 80, start + length + 1024) && length,
  fallocate: () => {},
  lseek: (_caller, _node, offset) => offset,
  copyFileRange: (_caller, _node, _offset, _toNode, _toOffset, length) => Math.min(length, 0x7fff_f000),
  fsync: async () => {},
  readdir: (_caller, _node, cookie, withStats, sink) => {
    for (let next = cookie + 1; next < cookie + 100_000 && sink('name', 9, 0o100644, next, withStats ? STAT : undefined); next++);
  },
  statfs: () => ({ blockBytes: 1, blocks: 1, blocksFree: 1, blocksAvailable: 1, files: 1, filesFree: 1, nameBytesMax: 255 }),
  setxattr: () => {},
  getxattr: () => Buffer.alloc(65_536),
  listxattr: () => ['user.a', 'user.\xff'],
  removexattr: () => {},
} satisfies Filesystem

t.test('a filesystem that agrees to everything', async (t) => {
  const kernel = new Kernel(yes)
  await tryAll(t, { seeds: [], inputs: request, check: (bytes) => kernel.ask(bytes), runs: 10_000 })
})

/** Every name in every volume, by looking at all that the tree has. */
function* namesIn(engine: Engine): Generator<string> {
  for (const number of engine.volumes.numbers()) {
    const volume = engine.volumes.get(number)
    const pending = [ROOT_INO]
    for (let ino = pending.pop(); ino !== undefined && volume !== undefined; ino = pending.pop()) {
      for (const [, entry] of volume.entries(ino)) {
        yield entry.name
        if (entry.volume === 0 && entry.type === 0o040000) pending.push(entry.ino)
      }
    }
  }
}

t.test('the filesystem itself', async (t) => {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-fuzz-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  const logged: unknown[] = []
  const logger = { error: (...a: unknown[]) => void logged.push(a), warn() {}, info() {}, debug() {} } as never
  const engine = await Engine.open({ data, logger })
  const kernel = new Kernel(engine.fs)
  const inputs = fc.array(request, { minLength: 1, maxLength: 30 })
  const check = async (requests: Buffer[]): Promise<void> => {
    for (const bytes of requests) await kernel.ask(bytes)
    for (const name of namesIn(engine)) if (!isName(name)) throw new Error(`there is a name ${JSON.stringify(name)}`)
  }
  await tryAll(t, { seeds: [], inputs, check, runs: 1000 })
  t.ok(engine.volumes.numbers().length > 1, 'workspaces were made')
  await engine.volumes.checkpoint()
  for (const number of engine.volumes.numbers()) {
    const root = engine.volumes.get(number)?.root ?? null
    if (root !== null) engine.volumes.tree.verify(root)
  }
  await engine.close()
  const again = await Engine.open({ data, logger })
  t.ok(again.volumes.numbers().length > 1, 'what they left can be opened again')
  await again.close()
  t.same(logged, [])
})
