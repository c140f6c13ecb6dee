/**
 * The buffer that answers are encoded in: `fuse_out_header`, then a payload. It is used again for every
 * answer, so an encoder writes each byte of its struct, padding too. Positions count from the payload.
 */
import { integersOf } from '../bytes.ts'
import { FS } from '../errors.ts'
import type { Stat, StatFs, Time } from '../vfs/filesystem.ts'
import {
  ATTR_BYTES,
  ATTR_OUT_BYTES,
  type DIRECT_HANDLE,
  ENTRY_OUT_BYTES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  STATX_MASK,
  TRANSFER_BYTES_MAX,
} from './protocol.ts'
import { writeU64 } from './wire.ts'

/** How long the kernel may believe what it is told: until we notify it (it caps this by itself). */
const FOREVER_S = 0x7fffffff
const BLOCK_BYTES = 4096
/** st_blocks counts in these, whatever st_blksize is. */
const SECTOR_BYTES = 512
const STATX_OUT_BYTES = 288
const STATFS_OUT_BYTES = 80

export class Reply {
  readonly buffer: Buffer = Buffer.alloc(OUT_HEADER_BYTES + TRANSFER_BYTES_MAX)
  readonly #integers = integersOf(this.buffer)

  /** Most bytes that fit in a payload. */
  get capacity(): number {
    return this.buffer.length - OUT_HEADER_BYTES
  }

  /** @throws RangeError for what no struct can hold */
  u32(at: number, value: number): void {
    if (value >>> 0 !== value) throw new RangeError(`${value} is not a number of 32 bits`)
    this.#integers.setUint32(OUT_HEADER_BYTES + at, value, true)
  }

  u64(at: number, value: number): void {
    writeU64(this.#integers, OUT_HEADER_BYTES + at, value)
  }

  zero(at: number, length: number): void {
    this.buffer.fill(0, OUT_HEADER_BYTES + at, OUT_HEADER_BYTES + at + length)
  }

  /** A payload that is these bytes. */
  raw(bytes: Uint8Array): number {
    if (bytes.length > this.capacity) throw FS.ERANGE
    this.buffer.set(bytes, OUT_HEADER_BYTES)
    return bytes.length
  }

  /** What goes in front of a payload; see `writeOutHeader`. */
  header(bytes: number, uniqueLow: number, uniqueHigh: number): void {
    writeOutHeader(this.#integers, bytes, 0, uniqueLow, uniqueHigh)
  }

  /** Latin1 text, one byte a character. */
  text(at: number, text: string): void {
    this.buffer.write(text, OUT_HEADER_BYTES + at, 'latin1')
  }

  /** fuse_attr */
  attributes(at: number, stat: Stat): void {
    this.u64(at, stat.node)
    this.u64(at + 8, stat.size)
    this.u64(at + 16, Math.ceil(stat.allocated / SECTOR_BYTES))
    this.u64(at + 24, stat.atime.s)
    this.u64(at + 32, stat.mtime.s)
    this.u64(at + 40, stat.ctime.s)
    this.u32(at + 48, stat.atime.ns)
    this.u32(at + 52, stat.mtime.ns)
    this.u32(at + 56, stat.ctime.ns)
    this.u32(at + 60, stat.mode)
    this.u32(at + 64, stat.nlink)
    this.u32(at + 68, stat.uid)
    this.u32(at + 72, stat.gid)
    this.u32(at + 76, stat.rdev)
    this.u32(at + 80, BLOCK_BYTES)
    this.u32(at + 84, 0)
  }

  /** fuse_entry_out: the kernel takes a reference to the node, until its FORGET. */
  entry(at: number, stat: Stat): number {
    const nameSeconds = stat.isPrivate === true ? 0 : FOREVER_S
    this.#entryHead(at, stat.node, stat.generation ?? 0, nameSeconds, attributeSeconds(stat))
    this.attributes(at + 40, stat)
    return ENTRY_OUT_BYTES
  }

  /** fuse_entry_out of node 0: "no such name" to LOOKUP, "nothing to tell" in READDIRPLUS. */
  noEntry(at: number): number {
    this.#entryHead(at, 0, 0, FOREVER_S, FOREVER_S)
    this.zero(at + 40, ATTR_BYTES)
    return ENTRY_OUT_BYTES
  }

  #entryHead(at: number, node: number, generation: number, nameSeconds: number, attrSeconds: number): void {
    this.u64(at, node)
    this.u64(at + 8, generation)
    this.u64(at + 16, nameSeconds)
    this.u64(at + 24, attrSeconds)
    this.u32(at + 32, 0)
    this.u32(at + 36, 0)
  }

  /** fuse_attr_out */
  attr(stat: Stat): number {
    this.u64(0, attributeSeconds(stat))
    this.u64(8, 0)
    this.attributes(16, stat)
    return ATTR_OUT_BYTES
  }

  /** fuse_open_out. What is open is named by its node; the handle says only in what way. */
  opened(at: number, flags: number, handle: 0 | typeof DIRECT_HANDLE = 0): number {
    this.u64(at, handle)
    this.u32(at + 8, flags)
    this.u32(at + 12, 0)
    return OPEN_OUT_BYTES
  }

  /** fuse_write_out and fuse_getxattr_out: how many bytes it was, or would be. */
  size(bytes: number): number {
    this.u32(0, bytes)
    this.u32(4, 0)
    return 8
  }

  /** fuse_lseek_out and fuse_copy_file_range_out */
  position(offset: number): number {
    this.u64(0, offset)
    return 8
  }

  /** fuse_statx_out */
  statx(stat: Stat): number {
    this.zero(0, STATX_OUT_BYTES)
    this.u64(0, attributeSeconds(stat))
    const at = 32
    this.u32(at, STATX_MASK)
    this.u32(at + 4, BLOCK_BYTES)
    this.u32(at + 16, stat.nlink)
    this.u32(at + 20, stat.uid)
    this.u32(at + 24, stat.gid)
    this.u32(at + 28, stat.mode)
    this.u64(at + 32, stat.node)
    this.u64(at + 40, stat.size)
    this.u64(at + 48, Math.ceil(stat.allocated / SECTOR_BYTES))
    this.#time(at + 64, stat.atime)
    this.#time(at + 80, stat.btime)
    this.#time(at + 96, stat.ctime)
    this.#time(at + 112, stat.mtime)
    // MAJOR and MINOR of the kernel's new_decode_dev (include/linux/kdev_t.h)
    this.u32(at + 128, (stat.rdev >>> 8) & 0xfff)
    this.u32(at + 132, (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00))
    return STATX_OUT_BYTES
  }

  /** fuse_sx_time */
  #time(at: number, time: Time): void {
    this.u64(at, time.s)
    this.u32(at + 8, time.ns)
    this.u32(at + 12, 0)
  }

  /** fuse_statfs_out */
  statfs(stat: StatFs): number {
    this.zero(0, STATFS_OUT_BYTES)
    this.u64(0, stat.blocks)
    this.u64(8, stat.blocksFree)
    this.u64(16, stat.blocksAvailable)
    this.u64(24, stat.files)
    this.u64(32, stat.filesFree)
    this.u32(40, stat.blockBytes)
    this.u32(44, stat.nameBytesMax)
    this.u32(48, stat.blockBytes)
    return STATFS_OUT_BYTES
  }
}

function attributeSeconds(stat: Stat): number {
  return stat.isFleeting === true ? 0 : FOREVER_S
}

/** fuse_out_header: the length of all, 0 or a negative errno, and the request's own `unique`. */
export function writeOutHeader(to: DataView, bytes: number, error: number, uniqueLow: number, uniqueHigh: number): void {
  to.setUint32(0, bytes, true)
  to.setInt32(4, error, true)
  to.setUint32(8, uniqueLow, true)
  to.setUint32(12, uniqueHigh, true)
}
