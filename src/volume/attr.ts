/** An inode's attributes, and how they are stored. */
import { type ByteReader, ByteWriter } from '../bytes.ts'
import { NexusError } from '../errors.ts'
import { INO_MAX, NAME_CHARS_MAX } from './keys.ts'

export const S_IFMT = 0o170000
export const S_IFDIR = 0o040000
export const S_IFREG = 0o100000
export const S_IFLNK = 0o120000
export const S_ISUID = 0o4000
/** The bits of a stored mode that stat(2) knows: type, set-id and sticky, permissions. */
export const MODE_BITS = 0o177777
const NANOS_MAX = 999_999_999

/**
 * The bits above those hold the *mask*: what limits everyone who has a grant, kept apart from the group's bits, which the umask
 * of a program may have taken away. Bits 16 to 18 are the mask, 19 says that there is one, 20 to 22 repeat the group's bits that it
 * was stored beside. Programs that do not know the mask keep these bits, and change the group's: then the mask is void.
 */
const MASK_SHIFT = 16
const HAS_MASK = 1 << 19
const BESIDE_SHIFT = 20

/** Seconds since the epoch (may be negative) and nanoseconds (0 to 999,999,999). */
export interface Time {
  s: number
  ns: number
}

/** Literals name all of it in this order, and changes are made by `altered`: then V8 knows one kind of object, which all requests look at. */
export interface Attr {
  /** file type and permission bits, and the mask in the bits above them */
  mode: number
  nlink: number
  uid: number
  gid: number
  /** as the kernel packs it */
  rdev: number
  /** bytes */
  size: number
  /** bytes that pieces cover, holes left out */
  allocated: number
  /** number of extended attributes, so that the many inodes without any are not searched for them */
  xattrs: number
  atime: Time
  mtime: Time
  ctime: Time
  btime: Time
  /**
   * Inode of the directory that holds it (0 at a volume's root) and its name there. Of a file with
   * several names it is the one made last, and may be gone: a hint, to be checked.
   */
  parent: number
  name: string
}

/**
 * The attributes with some of them changed. Not a spread: V8 gives its result a hidden class of its own, and what is made of
 * that by a spread another (some 400 ns each, and whoever looks at attributes afterwards meets a new class each time).
 */
export function altered(attr: Attr, changes: Partial<Attr>): Attr {
  return Object.assign(copyOf(attr), changes)
}

function copyOf(attr: Attr): Attr {
  return {
    mode: attr.mode,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    rdev: attr.rdev,
    size: attr.size,
    allocated: attr.allocated,
    xattrs: attr.xattrs,
    atime: attr.atime,
    mtime: attr.mtime,
    ctime: attr.ctime,
    btime: attr.btime,
    parent: attr.parent,
    name: attr.name,
  }
}

/** The mode with a mask, in place of the one that it has. */
export function withMask(mode: number, mask: number): number {
  return (mode & MODE_BITS) | HAS_MASK | (mask << MASK_SHIFT) | (groupBits(mode) << BESIDE_SHIFT)
}

/**
 * What a grant gives on an inode at most. Without a bit for the group it is nothing: so a file stays private that was made under
 * umask 077. Inodes that have no mask were stored before there was one: then it was what group and others have together.
 */
export function maskOf(mode: number): number {
  const group = groupBits(mode)
  if (group === 0) return 0
  const isKept = (mode & HAS_MASK) !== 0 && ((mode >> BESIDE_SHIFT) & 7) === group
  return isKept ? (mode >> MASK_SHIFT) & 7 : group | (mode & 7)
}

export function groupBits(mode: number): number {
  return (mode >> 3) & 7
}

export function isDirectory(attr: Attr): boolean {
  return (attr.mode & S_IFMT) === S_IFDIR
}

export function isRegular(attr: Attr): boolean {
  return (attr.mode & S_IFMT) === S_IFREG
}

export function writeAttr(out: ByteWriter, attr: Attr): void {
  out.u32(attr.mode).u32(attr.nlink).u32(attr.uid).u32(attr.gid).u32(attr.rdev)
  out.varint(attr.size).varint(attr.allocated).varint(attr.xattrs)
  for (const time of [attr.atime, attr.mtime, attr.ctime, attr.btime]) out.i64(time.s).u32(time.ns)
  out.varint(attr.parent).string(attr.name)
}

export function readAttr(input: ByteReader): Attr {
  const time = (): Time => {
    const read = { s: input.i64(), ns: input.u32() }
    if (read.ns > NANOS_MAX) throw new NexusError('NEXUS_CORRUPT', 'a stored time has too many nanoseconds')
    return read
  }
  return {
    mode: input.u32(),
    nlink: input.u32(),
    uid: input.u32(),
    gid: input.u32(),
    rdev: input.u32(),
    size: input.varint(),
    allocated: input.varint(),
    xattrs: input.varint(),
    atime: time(),
    mtime: time(),
    ctime: time(),
    btime: time(),
    parent: input.varint(INO_MAX),
    name: input.string(NAME_CHARS_MAX),
  }
}

export function encodeAttr(attr: Attr): Buffer {
  const out = new ByteWriter(128)
  writeAttr(out, attr)
  return out.view()
}

/** The time of day, to the millisecond. */
export function wallClock(): Time {
  const ms = Date.now()
  return { s: Math.floor(ms / 1000), ns: (ms % 1000) * 1_000_000 }
}
