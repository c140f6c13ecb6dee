/**
 * The smallest filesystem: an empty root directory, and a LOOKUP of the name "held" that is answered by `release` alone (the
 * kernel holds the directory's lock for as long).
 */
import { Channel, Notifier } from '../../src/fuse/binding.ts'

export interface TinyOptions {
  wake: 'watch' | 'poll'
  /** told when "held" is looked up */
  onHeld(): void
  /** told when the attributes of the root are asked for, with the clock's seconds and nanoseconds */
  onGetattr?(stamp: Float64Array): void
  /** told when the mount is gone, by the errno that said so */
  onEnd(errno: number): void
}

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

/** Serves as soon as it is made. */
export class TinyFilesystem {
  readonly notifier: Notifier
  readonly channel: Channel
  readonly #options: TinyOptions
  readonly #request = Buffer.alloc(1024 * 1024 + 4096)
  readonly #stamp = new Float64Array(2)
  #held: bigint | undefined

  constructor(fd: number, options: TinyOptions) {
    this.channel = new Channel(fd)
    this.#options = options
    this.notifier = new Notifier(this.channel)
    this.channel.watch(() => this.#serve())
  }

  /** There is no such name. */
  release(): void {
    if (this.#held !== undefined) this.#reply(this.#held, ENOENT)
    this.#held = undefined
  }

  close(): void {
    this.notifier.stop()
    this.channel.close()
  }

  #serve(): void {
    let length = this.#next()
    for (; length > 0; length = this.#next()) this.#answer(length)
    if (length < 0) this.#options.onEnd(-length)
  }

  #next(): number {
    if (this.#options.wake === 'poll') return this.channel.poll(this.#request, this.#stamp, POLL_MICROS)
    return this.channel.read(this.#request, this.#stamp)
  }

  #answer(length: number): void {
    const opcode = this.#request.readUInt32LE(4)
    const unique = this.#request.readBigUInt64LE(8)
    if (opcode === INIT) this.#reply(unique, 0, initOut())
    else if (opcode === LOOKUP) this.#answerLookup(unique, this.#request.toString('utf8', IN_HEADER_BYTES, length - 1))
    else if (opcode === GETATTR) this.#answerGetattr(unique)
    else if (opcode !== FORGET && opcode !== BATCH_FORGET) this.#reply(unique, ENOSYS)
  }

  #answerLookup(unique: bigint, name: string): void {
    if (name === 'held') {
      this.#held = unique
      this.#options.onHeld()
    } else {
      this.#reply(unique, ENOENT)
    }
  }

  #answerGetattr(unique: bigint): void {
    this.#options.onGetattr?.(this.#stamp)
    this.#reply(unique, 0, attrOut())
  }

  #reply(unique: bigint, errno: number, body: Buffer = Buffer.alloc(0)): void {
    const message = Buffer.alloc(OUT_HEADER_BYTES + body.length)
    message.writeUInt32LE(message.length, 0)
    message.writeInt32LE(-errno, 4)
    message.writeBigUInt64LE(unique, 8)
    body.copy(message, OUT_HEADER_BYTES)
    this.channel.reply(message, message.length)
  }
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
