/**
 * The same core behind fuse-native: libfuse's high-level interface, by path, through its thread and a callback into
 * JavaScript for each request. What differs from nexus in a measurement is the way from the kernel to the core.
 *
 *   node fuse-native.js MODULES DATA MOUNTPOINT
 *
 * MODULES is a directory where fuse-native was installed. It hands on no caller's uid, so everybody is root here. SIGTERM ends it.
 */
import { createRequire } from 'node:module'
import path from 'node:path'
import { pino } from 'pino'
import { Engine } from '../../src/engine/engine.ts'
import { FS, toFsError } from '../../src/errors.ts'
import type { Caller, Filesystem, SetStat, Stat } from '../../src/vfs/filesystem.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'

/** Its callbacks: 0 or a negative errno, then what is answered. */
type Answer = (error: number, ...results: unknown[]) => void
type Operations = Record<string, (...args: never[]) => void>
type FuseNative = new (
  mountpoint: string,
  operations: Operations,
  options: object,
) => { mount(done: (error?: Error | null) => void): void }

const caller: Caller = { uid: 0, gid: 0, pid: process.pid }
const UMASK = 0o022
/** What `write` of the core may overwrite before and behind the bytes. */
const [BEFORE, BEHIND] = [80, 1024]
const READ_BYTES_MAX = 1 << 20

const [modules, data, mountpoint] = process.argv.slice(2) as [string, string, string]
const engine = await Engine.open({ data, logger: pino({ level: 'warn' }, pino.destination(2)) })
const core: Filesystem = engine.fs
const [volumes, workspace] = ['workspace', 'bench']
const top = core.mkdir(caller, stepTo(nodeOf(0, ROOT_INO), volumes), workspace, 0o755, 0).node
const open = new Map<number, number>()
let scratch = Buffer.alloc(BEFORE + READ_BYTES_MAX + BEHIND)
let lastFd = 0
engine.start()

/** A reference to the child, which the caller of this gives back. */
function stepTo(parent: number, name: string): number {
  const stat = core.lookup(caller, parent, name)
  if (stat === undefined) throw FS.ENOENT
  return stat.node
}

/** Hands the node of a path to an action, with references as a kernel would have them. */
function at<T>(file: string, action: (node: number) => T): T {
  let node = top
  try {
    for (const name of latin(file).split('/')) {
      if (name === '') continue
      const next = stepTo(node, name)
      release(node)
      node = next
    }
    return action(node)
  } finally {
    release(node)
  }
}

function inParent<T>(file: string, action: (parent: number, name: string) => T): T {
  return at(path.posix.dirname(file), (parent) => action(parent, latin(path.posix.basename(file))))
}

function release(node: number): void {
  if (node !== top) core.forget(node, 1)
}

/** Names of the core have a character for each byte. */
function latin(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

function utf8(text: string): string {
  return Buffer.from(text, 'latin1').toString('utf8')
}

function statOf(stat: Stat): Record<string, unknown> {
  const { mode, uid, gid, size, nlink, node, rdev, allocated } = stat
  const date = ({ s, ns }: Stat['mtime']): Date => new Date(s * 1000 + ns / 1e6)
  const times = { mtime: date(stat.mtime), atime: date(stat.atime), ctime: date(stat.ctime) }
  return { ...times, mode, uid, gid, size, nlink, ino: node, rdev, dev: 0, blksize: 4096, blocks: Math.ceil(allocated / 512) }
}

/** What an action throws is answered as an errno; what it returns as results. */
function answering(answer: Answer, action: () => unknown[]): void {
  let results: unknown[]
  try {
    results = action()
  } catch (error) {
    answer(-toFsError(error).fsError.errno)
    return
  }
  answer(0, ...results)
}

function opened({ node }: { node: number }): number {
  open.set(++lastFd, node)
  return lastFd
}

function set(file: string, change: SetStat, answer: Answer): void {
  answering(answer, () => {
    at(file, (node) => core.setattr(caller, node, change))
    return []
  })
}

function time(ms: number): Stat['mtime'] {
  return { s: Math.floor(ms / 1000), ns: Math.floor(ms % 1000) * 1_000_000 }
}

function make(file: string, answer: Answer, action: (parent: number, name: string) => Stat): void {
  answering(answer, () => {
    release(inParent(file, action).node)
    return []
  })
}

function removing(file: string, answer: Answer, action: (parent: number, name: string) => void): void {
  answering(answer, () => {
    inParent(file, action)
    return []
  })
}

const nodeOfFd = (fd: number): number => open.get(fd) ?? 0

const operations: Operations = {
  getattr: (file: string, answer: Answer) => answering(answer, () => [statOf(at(file, (node) => core.getattr(caller, node)))]),
  readdir: (file: string, answer: Answer) =>
    answering(answer, () => {
      const names: string[] = []
      at(file, (node) => core.readdir(caller, node, 0, false, (name) => names.push(utf8(name)) > 0))
      return [names]
    }),
  readlink: (file: string, answer: Answer) =>
    answering(answer, () => [Buffer.from(at(file, (node) => core.readlink(caller, node))).toString()]),
  statfs: (_file: string, answer: Answer) =>
    answering(answer, () => {
      const { blockBytes, blocks, blocksFree, blocksAvailable, files, filesFree, nameBytesMax } = core.statfs(caller, top)
      const space = { bsize: blockBytes, frsize: blockBytes, blocks, bfree: blocksFree, bavail: blocksAvailable }
      return [{ ...space, files, ffree: filesFree, favail: filesFree, fsid: 0, flag: 0, namemax: nameBytesMax }]
    }),
  open: (file: string, _flags: number, answer: Answer) =>
    answering(answer, () => [
      at(file, (node) => {
        engine.known.add(Math.floor(node / 2 ** 32), node % 2 ** 32)
        return opened({ node })
      }),
    ]),
  create: (file: string, mode: number, answer: Answer) =>
    answering(answer, () => [opened(inParent(file, (parent, name) => core.create(caller, parent, name, mode, UMASK, 0)))]),
  release: (_file: string, fd: number, answer: Answer) =>
    answering(answer, () => {
      release(nodeOfFd(fd))
      open.delete(fd)
      return []
    }),
  read: (_file: string, fd: number, into: Buffer, length: number, offset: number, answer: (bytes: number) => void) => {
    try {
      answer(core.read(caller, nodeOfFd(fd), offset, length, into, 0))
    } catch (error) {
      answer(-toFsError(error).fsError.errno)
    }
  },
  write: (_file: string, fd: number, from: Buffer, length: number, offset: number, answer: (bytes: number) => void) => {
    try {
      if (scratch.length < BEFORE + length + BEHIND) scratch = Buffer.alloc(BEFORE + length + BEHIND)
      from.copy(scratch, BEFORE, 0, length)
      answer(core.write(caller, nodeOfFd(fd), offset, scratch, BEFORE, length, false))
    } catch (error) {
      answer(-toFsError(error).fsError.errno)
    }
  },
  truncate: (file: string, size: number, answer: Answer) => set(file, { size }, answer),
  ftruncate: (file: string, _fd: number, size: number, answer: Answer) => set(file, { size }, answer),
  chmod: (file: string, mode: number, answer: Answer) => set(file, { mode: mode & 0o7777 }, answer),
  chown: (file: string, uid: number, gid: number, answer: Answer) =>
    set(file, { ...(uid < 0xffffffff ? { uid } : {}), ...(gid < 0xffffffff ? { gid } : {}) }, answer),
  utimens: (file: string, atime: number, mtime: number, answer: Answer) =>
    set(file, { atime: time(atime), mtime: time(mtime) }, answer),
  fsync: (_file: string, isData: boolean, fd: number, answer: Answer) =>
    void core.fsync(caller, nodeOfFd(fd), isData).then(
      () => answer(0),
      (error: unknown) => answer(-toFsError(error).fsError.errno),
    ),
  mkdir: (file: string, mode: number, answer: Answer) =>
    make(file, answer, (parent, name) => core.mkdir(caller, parent, name, mode, UMASK)),
  mknod: (file: string, mode: number, rdev: number, answer: Answer) =>
    make(file, answer, (parent, name) => core.mknod(caller, parent, name, mode, rdev, UMASK)),
  symlink: (target: string, file: string, answer: Answer) =>
    make(file, answer, (parent, name) => core.symlink(caller, parent, name, Buffer.from(target))),
  link: (from: string, file: string, answer: Answer) =>
    make(file, answer, (parent, name) => at(from, (node) => core.link(caller, node, parent, name))),
  unlink: (file: string, answer: Answer) => removing(file, answer, (parent, name) => core.unlink(caller, parent, name)),
  rmdir: (file: string, answer: Answer) => removing(file, answer, (parent, name) => core.rmdir(caller, parent, name)),
  rename: (from: string, to: string, answer: Answer) =>
    removing(from, answer, (parent, name) =>
      inParent(to, (newParent, newName) => core.rename(caller, parent, name, newParent, newName, 0)),
    ),
}

const Fuse = createRequire(path.join(path.resolve(modules), 'x.js'))('fuse-native') as FuseNative
// kernelCache: as the other peers, it may keep what nobody else can change. For use_ino, without which the names of a hard link
// have different inode numbers, it has no name: it goes behind an option that it hands on as it is.
const options = { allowOther: true, kernelCache: true, timeout: false, fsname: 'nexus,use_ino' }
new Fuse(mountpoint, operations, options).mount((error) => {
  if (error === null || error === undefined) return
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
})
process.once('SIGTERM', () => {
  void engine.close().finally(() => process.exit())
})
