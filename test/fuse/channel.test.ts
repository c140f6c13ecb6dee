/**
 * The native addon against the real kernel. Whatever is mounted is served by a child process: a process that touches
 * its own mount waits for itself.
 */
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, readSync, rmdirSync, rmSync, statSync, writeSync } from 'node:fs'
import { mkdir, stat } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { constants as os, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import {
  Channel,
  MNT_DETACH,
  MNT_FORCE,
  mount,
  mountWithHelper,
  Notifier,
  peerCredentials,
  umount,
} from '../../src/fuse/binding.ts'
import type { Command, Report } from './tiny-server.ts'

const SERVER = fileURLToPath(new URL('./tiny-server.js', import.meta.url))
const BINDING = new URL('../../src/fuse/binding.js', import.meta.url).href
const OPTIONS = 'rootmode=40000,user_id=0,group_id=0'
const FUSE_NOTIFY_INVAL_INODE = 2
const FUSE_NOTIFY_INVAL_ENTRY = 3

/** Mounting directly wants root and a /dev/fuse. */
const NO_MOUNT = process.env['NEXUS_NO_FUSE'] || process.getuid?.() !== 0 ? 'needs root and /dev/fuse' : false

/** A mounted tiny server: what it reports is kept until somebody waits for it. */
class Server {
  readonly mountpoint: string
  readonly process: ChildProcess
  readonly #reports: Report[] = []
  #wake: () => void = () => {}

  constructor(mountpoint: string, args: string[]) {
    this.mountpoint = mountpoint
    this.process = fork(SERVER, [mountpoint, ...args])
    this.process.on('message', (report: Report) => {
      this.#reports.push(report)
      this.#wake()
    })
  }

  send(command: Command): void {
    this.process.send(command)
  }

  /** Removes and returns the oldest report of this type. */
  async report<Type extends Report['type']>(type: Type): Promise<Report & { type: Type }> {
    for (;;) {
      const index = this.#reports.findIndex((report) => report.type === type)
      if (index >= 0) return this.#reports.splice(index, 1)[0] as Report & { type: Type }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** MNT_FORCE aborts the connection, so that nobody is left waiting for a server that is gone. */
  async end(): Promise<void> {
    const exited = this.process.exitCode === null && this.process.signalCode === null ? once(this.process, 'exit') : undefined
    try {
      umount(this.mountpoint, MNT_FORCE | MNT_DETACH)
    } catch {
      // The test has unmounted it already.
    }
    this.process.kill('SIGKILL')
    await exited
    rmdirSync(this.mountpoint)
  }
}

/** A tiny server on a directory of its own (tap would clear its fixtures through the mount), unmounted however the test ends. */
async function serve(t: Test, wake: 'watch' | 'poll' = 'watch', way: 'direct' | 'helper' = 'direct'): Promise<Server> {
  const server = new Server(mkdtempSync(join(tmpdir(), 'nexus-test-')), [wake, way])
  t.teardown(() => server.end())
  await server.report('mounted')
  return server
}

/** A fifo stands in for /dev/fuse where only the moving of bytes is in question. */
function openFifo(t: Test): number {
  const path = `${t.testdir()}/fifo`
  execFileSync('mkfifo', [path])
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
}

function header(length: number, code: number): Buffer {
  const message = Buffer.alloc(length)
  message.writeUInt32LE(length, 0)
  message.writeInt32LE(code, 4)
  return message
}

/** struct fuse_notify_inval_inode_out: all of the inode. */
function invalInode(ino: bigint): Buffer {
  const message = header(40, FUSE_NOTIFY_INVAL_INODE)
  message.writeBigUInt64LE(ino, 16)
  return message
}

/** struct fuse_notify_inval_entry_out and the name. */
function invalEntry(parent: bigint, name: string): Buffer {
  const message = header(32 + name.length + 1, FUSE_NOTIFY_INVAL_ENTRY)
  message.writeBigUInt64LE(parent, 16)
  message.writeUInt32LE(name.length, 24)
  message.write(name, 32)
  return message
}

t.test('read and poll return 0 when nothing waits, and the bytes and the time when something does', async (t) => {
  const fd = openFifo(t)
  const channel = new Channel(fd)
  t.teardown(() => channel.close())
  const buffer = Buffer.alloc(16)
  const stamp = new Float64Array(2)
  t.equal(channel.read(buffer, stamp), 0)
  const begun = performance.now()
  t.equal(channel.poll(buffer, stamp, 20_000), 0)
  t.ok(performance.now() - begun >= 20, 'poll spins as long as it is told to')
  t.same([...stamp], [0, 0])

  writeSync(fd, 'abc')
  t.equal(channel.poll(buffer, stamp, 0), 3)
  t.equal(buffer.toString('utf8', 0, 3), 'abc')
  const [seconds = 0, nanos = 0] = stamp
  t.ok(Math.abs(seconds * 1000 + nanos / 1e6 - Date.now()) < 5000, 'the stamp is the wall clock')
})

t.test('reply writes the first bytes of its buffer', async (t) => {
  const fd = openFifo(t)
  const channel = new Channel(fd)
  t.teardown(() => channel.close())
  t.ok(channel.reply(Buffer.from('abcdef'), 4) >= 0)
  const buffer = Buffer.alloc(16)
  t.equal(readSync(fd, buffer), 4)
  t.equal(channel.reply(buffer, 17), -os.errno.EINVAL, 'longer than the buffer')
  t.equal(channel.reply(buffer, -1), -os.errno.EINVAL)
})

t.test('failures of the request path are negative errnos', async (t) => {
  const closed = new Channel(openFifo(t))
  closed.close()
  closed.close()
  const buffer = Buffer.alloc(16)
  const stamp = new Float64Array(2)
  t.equal(closed.read(buffer, stamp), -os.errno.EBADF)
  t.equal(closed.poll(buffer, stamp, 1000), -os.errno.EBADF)
  t.equal(closed.reply(buffer, 16), -os.errno.EBADF)
  t.throws(() => closed.watch(() => {}), { code: 'EBADF', syscall: 'uv_poll_init' })
  t.throws(() => closed.read(buffer, new Float64Array(1)), TypeError)
  t.throws(() => new Notifier(closed), { code: 'EBADF' })
})

t.test('watch calls back for what waits, and no more after unwatch', async (t) => {
  const fd = openFifo(t)
  const channel = new Channel(fd)
  t.teardown(() => channel.close())
  const buffer = Buffer.alloc(16)
  const seen: number[] = []
  const woken = new Promise<void>((resolve) => {
    channel.watch(() => {
      seen.push(channel.read(buffer, new Float64Array(2)))
      // Microtasks run after the callback: this one would wait for ever otherwise.
      void Promise.resolve().then(resolve)
    })
  })
  writeSync(fd, 'abc')
  await woken
  t.same(seen, [3])
  channel.unwatch()
  channel.unwatch()
  writeSync(fd, 'def')
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.same(seen, [3])
})

t.test('an exception of a watch callback is an uncaught exception', async (t) => {
  const code = `
    import { Channel } from ${JSON.stringify(BINDING)}
    const channel = new Channel(0)
    channel.watch(() => { throw new Error('boom') })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['pipe', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  child.stdin.write('x')
  const [status] = await once(child, 'close')
  t.equal(status, 1)
  t.match(stderr, /boom/)
})

t.test('a notifier writes batches in order and tells what became of each message', async (t) => {
  const fd = openFifo(t)
  const channel = new Channel(fd)
  const notifier = new Notifier(channel)
  t.teardown(() => channel.close())
  const sent = [notifier.send([Buffer.from('a'), Buffer.from('bc')]), notifier.send([]), notifier.send([Buffer.from('def')])]
  // The watch does not keep the process alive, and tap waits with nothing else: a timer does.
  const alive = setInterval(() => {}, 1000)
  t.same(await Promise.all(sent), [[0, 0], [], [0]])
  clearInterval(alive)
  const buffer = Buffer.alloc(16)
  t.equal(buffer.toString('utf8', 0, readSync(fd, buffer)), 'abcdef')
  notifier.stop()
  notifier.stop()
  t.same(await notifier.send([Buffer.from('x')]), [-os.errno.ECANCELED])
})

t.test('a notifier that is stopped with work left cancels it', async (t) => {
  const channel = new Channel(openFifo(t))
  const notifier = new Notifier(channel)
  t.teardown(() => channel.close())
  const sent = notifier.send(new Array<Buffer>(100).fill(Buffer.alloc(4096)))
  notifier.stop()
  const results = await sent
  t.equal(results.length, 100)
  t.equal(results.at(-1), -os.errno.ECANCELED, 'the fifo takes 64 KiB: it cannot have been written')
})

t.test('an environment may end with a watch and a notifier in use', async (t) => {
  const fd = openFifo(t)
  t.teardown(() => closeSync(fd))
  const code = `
    const { workerData, parentPort } = require('node:worker_threads')
    import(workerData.binding).then(({ Channel, Notifier }) => {
      const channel = new Channel(workerData.fd)
      channel.watch(() => {})
      const notifier = new Notifier(channel)
      setInterval(() => notifier.send([Buffer.from('abc')]), 0)
      setTimeout(() => parentPort.postMessage('busy'), 20)
    })`
  for (let round = 0; round < 5; round++) {
    const worker = new Worker(code, { eval: true, workerData: { binding: BINDING, fd } })
    await once(worker, 'message')
    t.equal(await worker.terminate(), 1)
  }
})

t.test('mounting fails with the reason of the kernel', { skip: NO_MOUNT }, async (t) => {
  const directory = t.testdir({ file: '' })
  t.throws(() => mount(`${directory}/file`, OPTIONS), { code: 'ENOTDIR', syscall: 'mount', errno: -os.errno.ENOTDIR })
  t.throws(() => mount(`${directory}/none`, OPTIONS), { code: 'ENOENT', syscall: 'mount' })
  t.throws(() => mount(directory, 'nonsense'), { code: 'EINVAL', syscall: 'mount' })
  t.throws(() => mount('a\0b', OPTIONS), TypeError)
  t.throws(() => umount(directory), { code: 'EINVAL', syscall: 'umount2' })
})

t.test('the helper fails with what it said', { skip: NO_MOUNT }, async (t) => {
  const directory = t.testdir()
  t.throws(() => mountWithHelper(`${directory}/none`, 'fsname=nexus'), { code: 'EIO', syscall: 'fusermount3', message: /none/ })
  const { PATH } = process.env
  t.teardown(() => {
    process.env['PATH'] = PATH
  })
  process.env['PATH'] = directory
  t.throws(() => mountWithHelper(directory, 'fsname=nexus'), { code: 'ENOENT', syscall: 'fusermount3' })
})

for (const wake of ['watch', 'poll'] as const) {
  for (const way of ['direct', 'helper'] as const) {
    t.test(`a mount is served and ends: ${wake}, ${way}`, { skip: NO_MOUNT }, async (t) => {
      const server = await serve(t, wake, way)
      t.equal((await stat(server.mountpoint)).mode, 0o40755)
      const { seconds, nanos } = await server.report('stamp')
      t.ok(Math.abs(seconds * 1000 + nanos / 1e6 - Date.now()) < 5000)
      for (let i = 0; i < 100; i++) statSync(server.mountpoint)

      const exited = once(server.process, 'exit')
      umount(server.mountpoint)
      t.equal((await server.report('ended')).errno, os.errno.ENODEV)
      t.same(await exited, [0, null], 'nothing keeps the server alive')
    })
  }
}

t.test('a mount in use is not unmounted, except lazily', { skip: NO_MOUNT }, async (t) => {
  const server = await serve(t)
  const user = spawn('sleep', ['60'], { cwd: server.mountpoint })
  await once(user, 'spawn')
  t.throws(() => umount(server.mountpoint), { code: 'EBUSY', syscall: 'umount2' })
  umount(server.mountpoint, MNT_DETACH)
  user.kill()
  t.equal((await server.report('ended')).errno, os.errno.ENODEV)
})

t.test('a notify about an unknown node is answered with ENOENT', { skip: NO_MOUNT }, async (t) => {
  const server = await serve(t)
  await stat(server.mountpoint)
  server.send({ type: 'notify', message: invalInode(4711n).toString('base64') })
  t.same((await server.report('results')).results, [-os.errno.ENOENT])
  server.send({ type: 'notify', message: invalInode(1n).toString('base64') })
  t.same((await server.report('results')).results, [0])
})

/** Lets a mkdir hold the root's lock while its LOOKUP is not answered, and a notify wait for that lock. */
async function makeStuck(server: Server): Promise<{ made: Promise<unknown> }> {
  await stat(server.mountpoint)
  const made = mkdir(`${server.mountpoint}/held`).catch((error: unknown) => error)
  await server.report('held')
  server.send({ type: 'notify', message: invalEntry(1n, 'held').toString('base64') })
  return { made }
}

t.test('a notify that waits in the kernel leaves the server free to serve', { skip: NO_MOUNT }, async (t) => {
  const server = await serve(t)
  const { made } = await makeStuck(server)
  t.equal((await stat(server.mountpoint)).mode, 0o40755, 'stat is answered meanwhile')
  server.send({ type: 'release' })
  t.match(await made, { code: 'ENOSYS' })
  t.equal((await server.report('results')).results.length, 1)
})

t.test('stopping does not wait for a notify that is stuck', { skip: NO_MOUNT }, async (t) => {
  const server = await serve(t)
  const { made } = await makeStuck(server)
  await stat(server.mountpoint)
  server.send({ type: 'stop' })
  t.same((await server.report('results')).results, [-os.errno.ECANCELED])
  umount(server.mountpoint, MNT_FORCE | MNT_DETACH)
  t.match(await made, { code: 'ECONNABORTED' })
})

t.test('the death of a server with a stuck notify is seen on its descriptors at once', { skip: NO_MOUNT }, async (t) => {
  const server = await serve(t)
  const { made } = await makeStuck(server)
  await stat(server.mountpoint)
  const disconnected = once(server.process, 'disconnect')
  server.process.kill('SIGKILL')
  await disconnected
  t.equal(server.process.signalCode, null, 'the process itself stays until the lock is free')
  umount(server.mountpoint, MNT_FORCE | MNT_DETACH)
  t.match(await made, { code: 'ECONNABORTED' })
})

t.test('a notifier writes a filesystem out, and rejects with the errno', async (t) => {
  const channel = new Channel(openFifo(t))
  const notifier = new Notifier(channel)
  t.teardown(() => channel.close())
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  const directory = t.testdir({ file: '' })
  await t.resolves(notifier.syncFilesystem(directory))
  await t.rejects(notifier.syncFilesystem(`${directory}/none`), { code: 'ENOENT', errno: -os.errno.ENOENT, syscall: 'syncfs' })
  await t.rejects(notifier.syncFilesystem(`${directory}/file`), { code: 'ENOTDIR', syscall: 'syncfs' })
  notifier.stop()
  await t.rejects(notifier.syncFilesystem(directory), { code: 'ECANCELED' })
})

t.test('peerCredentials names the process at the other end', async (t) => {
  // Not in the checkout: sun_path has room for 107 bytes (unix(7)), and Node cuts off the rest.
  const directory = mkdtempSync(join(tmpdir(), 'nexus-peer-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'socket')
  const server = createServer().listen(path)
  t.teardown(() => server.close())
  await once(server, 'listening')
  const client = createConnection(path)
  t.teardown(() => client.destroy())
  await once(client, 'connect')
  const { fd } = (client as unknown as { _handle: { fd: number } })._handle
  t.same(peerCredentials(fd), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  t.throws(() => peerCredentials(-1), { code: 'EBADF', syscall: 'getsockopt' })
})
