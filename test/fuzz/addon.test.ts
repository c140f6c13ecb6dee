/** The addon's own functions, called with what they are not made for: TypeErrors or errnos, and the process lives. */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants as os } from 'node:os'
import t from 'tap'
import { addonFile } from '../../src/fuse/binding.ts'

type Native = Record<string, (...args: unknown[]) => unknown>
const addon = createRequire(import.meta.url)(addonFile()) as Native

const strange: unknown[] = [
  undefined,
  null,
  true,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 32,
  -(2 ** 31) - 1,
  1.5,
  1n,
  'text',
  Symbol('s'),
  {},
  [],
  () => {},
]
const buffer = Buffer.alloc(64)
const stamp = new Float64Array(2)

function call(name: string, ...args: unknown[]): unknown {
  return (addon[name] as (...args: unknown[]) => unknown)(...args)
}

t.test('arguments of other types', async (t) => {
  /** Arguments that are good but for descriptors, which are closed. */
  const good: Record<string, unknown[]> = {
    read: [-1, buffer, stamp],
    poll: [-1, buffer, stamp, 0],
    reply: [-1, buffer, 16],
    watch: [-1, () => {}, false],
    startNotifier: [-1],
    notifierFd: [{}],
    notify: [{}, buffer, new Uint32Array(1)],
    syncFilesystem: [{}, '/nowhere/at/all'],
    flushFiles: [{}, '/nowhere/at/all', buffer],
    takeResults: [{}],
    stopNotifier: [{}],
    takeBack: [{}],
    unwatch: [{}],
    peerCredentials: [-1],
    sendDescriptor: [-1, -1],
    receiveDescriptor: [-1],
    mapShared: [-1],
    sharesDescriptors: [-1, -1],
    mount: ['/nowhere/at/all', '', 0, 'fuse.nexus', 'nexus'],
    umount: ['/nowhere/at/all', 0],
  }
  for (const [name, args] of Object.entries(good)) {
    t.throws(() => call(name), TypeError, `${name} of nothing`)
    for (const index of args.keys()) {
      for (const value of strange) {
        const isFit =
          typeof value === typeof args[index] &&
          (typeof value === 'function' || typeof value === 'boolean' || typeof value === 'string')
        if (!isFit)
          t.throws(() => call(name, ...args.with(index, value)), TypeError, `${name}, argument ${index}: ${String(value)}`)
      }
    }
  }
  t.throws(() => call('mount', 'a\0b', '', 0, '', ''), TypeError)
})

t.test('buffers that are too short or lie askew', async (t) => {
  const askew = Buffer.alloc(33).subarray(1, 17)
  t.throws(() => call('read', -1, buffer, new Float64Array(1)), TypeError)
  t.throws(() => call('read', -1, buffer, askew), TypeError)
  t.throws(() => call('read', -1, buffer, new Float32Array(8)), TypeError)
  t.equal(call('read', -1, Buffer.alloc(0), stamp), -os.errno.EBADF)
  for (const length of [65, 0x7fff_ffff, -1]) t.equal(call('reply', -1, buffer, length), -os.errno.EINVAL)
  t.equal(call('reply', -1, buffer, 64), -os.errno.EBADF)
})

t.test('handles', async (t) => {
  const path = `${t.testdir()}/fifo`
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  const watch = call('watch', fd, () => {}, false)
  const notifier = call('startNotifier', fd)
  t.throws(() => call('unwatch', notifier), TypeError, 'a notifier is no watch')
  for (const name of ['notifierFd', 'takeResults', 'takeBack', 'stopNotifier'])
    t.throws(() => call(name, watch), TypeError, `a watch is none for ${name}`)
  const lengths: number[][] = [[1], [65], [0xffff_ffff, 65], [32, 31], []]
  for (const each of lengths)
    t.throws(() => call('notify', notifier, buffer, Uint32Array.from(each)), { code: 'EINVAL' }, `${each}`)
  t.throws(() => call('notify', notifier, buffer, Buffer.alloc(33).subarray(1, 9)), TypeError)
  call('notify', notifier, Buffer.alloc(0), new Uint32Array(0))
  call('notify', notifier, Buffer.alloc(0), new Uint32Array(4))
  for (const directory of [7, 'a\0b']) t.throws(() => call('syncFilesystem', notifier, directory), TypeError)
  call('unwatch', watch)
  call('unwatch', watch)
  call('stopNotifier', notifier)
  call('stopNotifier', notifier)
  t.equal(call('notifierFd', notifier), -1)
  t.ok(Array.isArray(call('takeResults', notifier)), 'what is stopped still tells what it has')
  await new Promise((resolve) => setImmediate(resolve))
  call('unwatch', watch)
  closeSync(fd)
})

t.test('sizes of memory', async (t) => {
  for (const bytes of [-1, Number.NaN, 1e300, Number.POSITIVE_INFINITY]) t.throws(() => call('memoryFile', bytes), TypeError)
  const empty = call('memoryFile', 0) as number
  t.throws(() => call('mapShared', empty), { code: 'EINVAL' })
  closeSync(empty)
})
