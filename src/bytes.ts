/** Writing and reading small binary records. Numbers are little endian; varints are LEB128, up to 2^53. */
import { NexusError } from './errors.ts'

const TWO_31 = 0x8000_0000
const TWO_32 = 0x1_0000_0000
/** of 2^53 - 1 */
const VARINT_BYTES_MAX = 8

/** A buffer as its integers are read and written: for a DataView that is one instruction, for a Buffer a call or two. */
export function integersOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
}

/** A buffer that grows. `reset` reuses it, so `view` holds only until then. */
export class ByteWriter {
  #buffer: Buffer
  #length = 0

  constructor(bytes = 1024) {
    this.#buffer = Buffer.allocUnsafe(bytes)
  }

  reset(): void {
    this.#length = 0
  }

  get length(): number {
    return this.#length
  }

  /** What was written, without a copy. */
  view(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  /** What was written, as a buffer of its own. */
  copy(): Buffer {
    return Buffer.from(this.view())
  }

  u8(value: number): this {
    const at = this.#grow(1)
    this.#buffer[at] = value
    return this
  }

  u32(value: number): this {
    const at = this.#grow(4)
    this.#buffer.writeUInt32LE(value, at)
    return this
  }

  /** @param value an integer from 0 to 2^53 - 1 */
  u64(value: number): this {
    const at = this.#grow(8)
    this.#buffer.writeUInt32LE(value % TWO_32, at)
    this.#buffer.writeUInt32LE(Math.floor(value / TWO_32), at + 4)
    return this
  }

  /** @param value an integer from -2^53 to 2^53 */
  i64(value: number): this {
    const at = this.#grow(8)
    const high = Math.floor(value / TWO_32)
    this.#buffer.writeUInt32LE(value - high * TWO_32, at)
    this.#buffer.writeInt32LE(high, at + 4)
    return this
  }

  bigU64(value: bigint): this {
    const at = this.#grow(8)
    this.#buffer.writeBigUInt64LE(value, at)
    return this
  }

  varint(value: number): this {
    let at = this.#grow(VARINT_BYTES_MAX)
    const buffer = this.#buffer
    let rest = value
    for (; rest >= TWO_31; rest = Math.floor(rest / 0x80)) buffer[at++] = (rest % 0x80) | 0x80
    for (; rest >= 0x80; rest >>>= 7) buffer[at++] = (rest & 0x7f) | 0x80
    buffer[at++] = rest
    this.#length = at
    return this
  }

  raw(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length)
    this.#buffer.set(bytes, at)
    return this
  }

  /** Its length as a varint, then the bytes. */
  bytes(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes)
  }

  /** A latin1 string: its length as a varint, then one byte a character. */
  string(text: string): this {
    this.varint(text.length)
    return this.fixed(text)
  }

  /** The bytes of a latin1 string whose length the reader knows. */
  fixed(text: string): this {
    const at = this.#grow(text.length)
    this.#buffer.write(text, at, text.length, 'latin1')
    return this
  }

  /** Makes room, which may replace `#buffer`: ask for it before that is looked at. */
  #grow(bytes: number): number {
    const at = this.#length
    this.#length = at + bytes
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length))
      this.#buffer.copy(larger, 0, 0, at)
      this.#buffer = larger
    }
    return at
  }
}

/** Reads what a ByteWriter wrote; every step is checked against the end. */
export class ByteReader {
  readonly #buffer: Buffer
  #at: number

  constructor(buffer: Buffer, at = 0) {
    this.#buffer = buffer
    this.#at = at
  }

  get done(): boolean {
    return this.#at >= this.#buffer.length
  }

  u8(): number {
    return this.#buffer.readUInt8(this.#take(1))
  }

  u32(): number {
    return this.#buffer.readUInt32LE(this.#take(4))
  }

  u64(): number {
    const at = this.#take(8)
    return exact(this.#buffer.readUInt32LE(at) + this.#buffer.readUInt32LE(at + 4) * TWO_32)
  }

  i64(): number {
    const at = this.#take(8)
    return exact(this.#buffer.readUInt32LE(at) + this.#buffer.readInt32LE(at + 4) * TWO_32)
  }

  bigU64(): bigint {
    return this.#buffer.readBigUInt64LE(this.#take(8))
  }

  /** @param max the largest number that makes sense there */
  varint(max = Number.MAX_SAFE_INTEGER): number {
    let value = 0
    for (let unit = 1; unit <= 2 ** 49; unit *= 0x80) {
      const byte = this.u8()
      value += (byte & 0x7f) * unit
      if (byte < 0x80 && value <= max) return value
    }
    throw tooLarge()
  }

  /** A view of the next `length` bytes. */
  raw(length: number): Buffer {
    const at = this.#take(length)
    return this.#buffer.subarray(at, at + length)
  }

  bytes(): Buffer {
    return this.raw(this.varint())
  }

  /** @param charactersMax the longest that makes sense there */
  string(charactersMax?: number): string {
    return this.fixed(this.varint(charactersMax))
  }

  fixed(length: number): string {
    const at = this.#take(length)
    return this.#buffer.toString('latin1', at, at + length)
  }

  #take(bytes: number): number {
    const at = this.#at
    if (at + bytes > this.#buffer.length) throw new NexusError('NEXUS_CORRUPT', 'a stored record ends early')
    this.#at = at + bytes
    return at
  }
}

function exact(value: number): number {
  if (!Number.isSafeInteger(value)) throw tooLarge()
  return value
}

function tooLarge(): NexusError {
  return new NexusError('NEXUS_CORRUPT', 'a number in a stored record is too large')
}
