/**
 * Keys of a volume's map: inode (u32), kind (u8), and what tells the entries of one kind apart.
 * Big endian, so that byte order is (inode, kind, part) order and all of an inode lies together.
 */

export const ROOT_INO = 1
/** reserved in every volume for the hidden `.snapshots` directory; never in a tree */
export const SNAPSHOTS_INO = 2
export const FIRST_FREE_INO = 3
export const INO_MAX = 0xffff_ffff
/** of a name in a directory, and of an xattr's */
export const NAME_CHARS_MAX = 255
/** slots have 48 bits */
export const SLOT_MAX = 0xffff_ffff_ffff

/** Part of the format: never renumber. */
export const Kind = {
  /** inode 0 only: counters of the volume */
  super: 0,
  attr: 1,
  /** part: slot, 6 bytes */
  dirent: 2,
  /** part: number of the window, 6 bytes */
  window: 3,
  /** part: the xattr's name */
  xattr: 4,
  /** target of a symlink */
  link: 5,
  /** inode 0 only; part: an inode (u32) without a name that must go at the next mount */
  orphan: 6,
} as const

const PART_BYTES = 6
const TWO_32 = 0x1_0000_0000

/** A key with no part, or the first key of a kind. */
export function plainKey(ino: number, kind: number): Buffer {
  const key = Buffer.allocUnsafe(5)
  key.writeUInt32BE(ino, 0)
  key[4] = kind
  return key
}

/** A key whose part is a number below 2^48. */
export function numberKey(ino: number, kind: number, part: number): Buffer {
  const key = Buffer.allocUnsafe(5 + PART_BYTES)
  key.writeUInt32BE(ino, 0)
  key[4] = kind
  key.writeUInt16BE(Math.floor(part / TWO_32), 5)
  key.writeUInt32BE(part % TWO_32, 7)
  return key
}

/** A key whose part is a latin1 string. */
export function stringKey(ino: number, kind: number, part: string): Buffer {
  const key = Buffer.allocUnsafe(5 + part.length)
  key.writeUInt32BE(ino, 0)
  key[4] = kind
  key.write(part, 5, 'latin1')
  return key
}

export function orphanKey(ino: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.writeUInt32BE(0, 0)
  key[4] = Kind.orphan
  key.writeUInt32BE(ino, 5)
  return key
}

/** The number in a key made by `numberKey`, which starts at `at`. */
export function numberPart(key: Buffer, at = 0): number {
  return key.readUInt16BE(at + 5) * TWO_32 + key.readUInt32BE(at + 7)
}

export function stringPart(key: Buffer): string {
  return key.toString('latin1', 5)
}

export function inoOf(key: Buffer): number {
  return key.readUInt32BE(0)
}

export function kindOf(key: Buffer): number {
  return key.readUInt8(4)
}
