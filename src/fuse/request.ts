/**
 * One request of the kernel, in the buffer it was read into: `fuse_in_header`, then a body whose
 * layout depends on the opcode. Positions given to the methods count from the start of the body.
 */
import { integersOf } from '../bytes.ts'
import { FS } from '../errors.ts'
import type { Caller } from '../vfs/filesystem.ts'
import { IN_HEADER_BYTES } from './protocol.ts'
import { readI64, readNode, readOffset, readOffsetCapped } from './wire.ts'

/** The kernel itself, writing back pages that some program dirtied. Which, it does not say: see vfs/tainted.ts. */
export const KERNEL: Readonly<Caller> = Object.freeze({ uid: 0, gid: 0, pid: 0 })

export class Request {
  readonly buffer: Buffer
  readonly #integers: DataView
  opcode = 0
  node = 0
  /** `unique` as its two halves: it is an id to echo (bit 63 marks a resent request), never a number. */
  uniqueLow = 0
  uniqueHigh = 0
  caller: Caller = KERNEL
  /** bytes of the body */
  bodyBytes = 0

  constructor(buffer: Buffer) {
    this.buffer = buffer
    this.#integers = integersOf(buffer)
  }

  /** Takes over what was just read into the buffer; false if not even an answer is possible. */
  begin(bytes: number): boolean {
    if (bytes < IN_HEADER_BYTES) return false
    const integers = this.#integers
    this.opcode = integers.getUint32(4, true)
    this.uniqueLow = integers.getUint32(8, true)
    this.uniqueHigh = integers.getUint32(12, true)
    this.caller = { uid: integers.getUint32(24, true), gid: integers.getUint32(28, true), pid: integers.getUint32(32, true) }
    this.bodyBytes = 0
    this.node = 0
    return true
  }

  /**
   * Checks the frame and makes the body readable. Apart from `begin`, because a failure here can be
   * answered: the kernel then waits for an errno.
   */
  open(bytes: number, bodyBytesMin: number): void {
    const integers = this.#integers
    if (integers.getUint32(0, true) !== bytes) throw FS.EIO
    // Extensions (7.38) follow the body; none is negotiated, and none is read.
    const bodyBytes = bytes - IN_HEADER_BYTES - integers.getUint16(36, true) * 8
    if (bodyBytes < bodyBytesMin) throw FS.EINVAL
    this.bodyBytes = bodyBytes
    this.node = readNode(integers, 16)
  }

  u32(at: number): number {
    return this.#integers.getUint32(IN_HEADER_BYTES + at, true)
  }

  i64(at: number): number {
    return readI64(this.#integers, IN_HEADER_BYTES + at)
  }

  nodeAt(at: number): number {
    return readNode(this.#integers, IN_HEADER_BYTES + at)
  }

  offset(at: number): number {
    return readOffset(this.#integers, IN_HEADER_BYTES + at)
  }

  offsetCapped(at: number): number {
    return readOffsetCapped(this.#integers, IN_HEADER_BYTES + at)
  }

  /** A NUL-terminated name; the next one starts `name.length + 1` further on (one character a byte). */
  name(at: number): string {
    const start = IN_HEADER_BYTES + at
    const end = IN_HEADER_BYTES + this.bodyBytes
    let stop = start
    while (stop < end && this.buffer[stop] !== 0) stop++
    if (stop >= end || stop === start) throw FS.EINVAL
    return this.buffer.toString('latin1', start, stop)
  }

  /** A copy of some bytes of the body: the callee may keep it, while the buffer is used again at once. */
  bytes(at: number, length: number): Uint8Array {
    if (at + length > this.bodyBytes) throw FS.EINVAL
    return new Uint8Array(this.buffer.subarray(IN_HEADER_BYTES + at, IN_HEADER_BYTES + at + length))
  }
}
