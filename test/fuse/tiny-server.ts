/**
 * The smallest FUSE server, run as a child process of channel.test.ts: an empty root directory, and a LOOKUP of the
 * name "held" that is not answered before the test says so (the kernel holds the directory's lock for as long).
 *
 *     tiny-server.js MOUNTPOINT watch|poll direct|helper
 */
import { Channel, mount, mountWithHelper, Notifier } from '../../src/fuse/binding.ts'

/** What the test asks for over the IPC channel. */
export type Command = { type: 'notify'; message: string } | { type: 'release' } | { type: 'stop' }

/** What the server tells the test. */
export type Report =
  | { type: 'mounted' }
  | { type: 'held' }
  | { type: 'results'; results: number[] }
  | { type: 'stamp'; seconds: number; nanos: number }
  | { type: 'ended'; errno: number }

// include/uapi/linux/fuse.h
const LOOKUP = 1
const FORGET = 2
const GETATTR = 3
const INIT = 26
const BATCH_FORGET = 42
const IN_HEADER_BYTES = 40
const OUT_HEADER_BYTES = 16
const INIT_OUT_BYTES = 64
const ATTR_OUT_BYTES = 104
const ENOSYS = 38
const ENOENT = 2
const DIRECTORY_MODE = 0o40755

const POLL_MICROS = 500

const [, , mountpoint = '', wake, way] = process.argv
const fd =
  way === 'helper'
    ? mountWithHelper(mountpoint, 'fsname=nexus,subtype=nexus')
    : mount(mountpoint, 'rootmode=40000,user_id=0,group_id=0')
const channel = new Channel(fd)
const notifier = new Notifier(channel)
const request = Buffer.alloc(1024 * 1024 + 4096)
const stamp = new Float64Array(2)
let held: bigint | undefined

/** A test that has ended listens no more. */
function report(message: Report): void {
  if (process.connected) process.send?.(message)
}

function reply(unique: bigint, errno: number, body: Buffer = Buffer.alloc(0)): void {
  const message = Buffer.alloc(OUT_HEADER_BYTES + body.length)
  message.writeUInt32LE(message.length, 0)
  message.writeInt32LE(-errno, 4)
  message.writeBigUInt64LE(unique, 8)
  body.copy(message, OUT_HEADER_BYTES)
  channel.reply(message, message.length)
}

/** struct fuse_init_out: protocol 7.31, which every kernel here understands, and 4 KiB writes. */
function initOut(): Buffer {
  const out = Buffer.alloc(INIT_OUT_BYTES)
  out.writeUInt32LE(7, 0)
  out.writeUInt32LE(31, 4)
  out.writeUInt32LE(4096, 20)
  return out
}

/** struct fuse_attr_out with a validity of 0: the kernel asks again for every stat. */
function attrOut(): Buffer {
  const out = Buffer.alloc(ATTR_OUT_BYTES)
  const attr = 16
  out.writeBigUInt64LE(1n, attr)
  out.writeUInt32LE(DIRECTORY_MODE, attr + 60)
  out.writeUInt32LE(2, attr + 64)
  return out
}

function answerLookup(unique: bigint, name: string): void {
  if (name === 'held') {
    held = unique
    report({ type: 'held' })
  } else {
    reply(unique, ENOENT)
  }
}

function answerGetattr(unique: bigint): void {
  report({ type: 'stamp', seconds: stamp[0] ?? 0, nanos: stamp[1] ?? 0 })
  reply(unique, 0, attrOut())
}

function answer(length: number): void {
  const opcode = request.readUInt32LE(4)
  const unique = request.readBigUInt64LE(8)
  if (opcode === INIT) reply(unique, 0, initOut())
  else if (opcode === LOOKUP) answerLookup(unique, request.toString('utf8', IN_HEADER_BYTES, length - 1))
  else if (opcode === GETATTR) answerGetattr(unique)
  else if (opcode !== FORGET && opcode !== BATCH_FORGET) reply(unique, ENOSYS)
}

/** The filesystem is gone: nothing may keep the process alive now. */
function end(errno: number): void {
  report({ type: 'ended', errno })
  notifier.stop()
  channel.close()
  process.disconnect()
}

function serve(): void {
  const next = () => (wake === 'poll' ? channel.poll(request, stamp, POLL_MICROS) : channel.read(request, stamp))
  let length = next()
  for (; length > 0; length = next()) answer(length)
  if (length < 0) end(-length)
}

async function notify(message: Buffer): Promise<void> {
  report({ type: 'results', results: await notifier.send([message]) })
}

process.on('message', (command: Command) => {
  if (command.type === 'notify') void notify(Buffer.from(command.message, 'base64'))
  if (command.type === 'release' && held !== undefined) reply(held, ENOENT)
  if (command.type === 'stop') notifier.stop()
})
channel.watch(serve)
report({ type: 'mounted' })
