/**
 * POSIX ACLs as the kernel passes them in xattrs (linux/posix_acl_xattr.h): a u32 version 2, then
 * entries of tag (u16), permission bits (u16) and id (u32).
 */
import { FS } from '../errors.ts'

export const ACCESS_ACL = 'system.posix_acl_access'
export const DEFAULT_ACL = 'system.posix_acl_default'

export interface AclEntry {
  tag: number
  perm: number
  id: number
}

/** Who an entry is about (linux/posix_acl.h). */
export const Tag = { userObj: 0x01, user: 0x02, groupObj: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const

/** Everything to everybody: as a default ACL, what is made has the mode that the program asked for, whatever the umask. */
export const OPEN_ACL: readonly AclEntry[] = [Tag.userObj, Tag.groupObj, Tag.other].map((tag) => ({ tag, perm: 7, id: 0 }))

const VERSION = 2
const UNDEFINED_ID = 0xffff_ffff

/** @throws EINVAL for what is not a valid ACL; EOPNOTSUPP for another version */
export function decodeAcl(value: Uint8Array): AclEntry[] {
  const buffer = Buffer.from(value.buffer, value.byteOffset, value.length)
  if (buffer.length < 4 || (buffer.length - 4) % 8 !== 0) throw FS.EINVAL
  if (buffer.readUInt32LE(0) !== VERSION) throw FS.EOPNOTSUPP
  const entries: AclEntry[] = []
  for (let at = 4; at < buffer.length; at += 8) {
    entries.push({ tag: buffer.readUInt16LE(at), perm: buffer.readUInt16LE(at + 2), id: buffer.readUInt32LE(at + 4) })
  }
  if (!isValid(entries)) throw FS.EINVAL
  return entries
}

export function encodeAcl(entries: readonly AclEntry[]): Buffer {
  const buffer = Buffer.alloc(4 + entries.length * 8)
  buffer.writeUInt32LE(VERSION, 0)
  entries.forEach(({ tag, perm, id }, i) => {
    buffer.writeUInt16LE(tag, 4 + i * 8)
    buffer.writeUInt16LE(perm, 6 + i * 8)
    buffer.writeUInt32LE(tag === Tag.user || tag === Tag.group ? id : UNDEFINED_ID, 8 + i * 8)
  })
  return buffer
}

const OPEN_BYTES = encodeAcl(OPEN_ACL)

/** Whether it is OPEN_ACL, as nearly every default ACL is: what is made below has the mode that was asked for. */
export function isOpenAcl(value: Uint8Array): boolean {
  return OPEN_BYTES.equals(value)
}

/** The rules of posix_acl_valid(): each base entry once, tags in order, a mask when anybody is named. */
function isValid(entries: readonly AclEntry[]): boolean {
  if (entries.length === 0) return true
  const count = (tag: number): number => entries.filter((entry) => entry.tag === tag).length
  const named = count(Tag.user) + count(Tag.group)
  if (count(Tag.userObj) !== 1 || count(Tag.groupObj) !== 1 || count(Tag.other) !== 1 || count(Tag.mask) > 1) return false
  if (named > 0 && count(Tag.mask) === 0) return false
  if (entries.length !== 3 + named + count(Tag.mask)) return false
  if (entries.some((entry) => entry.perm > 7)) return false
  return entries.every((entry, i) => i === 0 || (entries[i - 1] as AclEntry).tag <= entry.tag)
}

/** The permission bits that an ACL amounts to, and whether they say all of it. */
export function aclMode(entries: readonly AclEntry[]): { mode: number; exact: boolean } {
  let mode = 0
  let exact = true
  for (const { tag, perm } of entries) {
    if (tag === Tag.userObj) mode |= perm << 6
    else if (tag === Tag.groupObj) mode |= perm << 3
    else if (tag === Tag.other) mode |= perm
    else exact = false
  }
  const mask = entries.find((entry) => entry.tag === Tag.mask)
  if (mask !== undefined) mode = (mode & ~0o070) | (mask.perm << 3)
  return { mode, exact }
}

/** The ACL after chmod: owner, others, and the mask (without one: the group) take the new bits. */
export function aclAfterChmod(entries: readonly AclEntry[], mode: number): AclEntry[] {
  const hasMask = entries.some((entry) => entry.tag === Tag.mask)
  return entries.map((entry) => {
    if (entry.tag === Tag.userObj) return { ...entry, perm: (mode >> 6) & 7 }
    if (entry.tag === Tag.other) return { ...entry, perm: mode & 7 }
    if (entry.tag === (hasMask ? Tag.mask : Tag.groupObj)) return { ...entry, perm: (mode >> 3) & 7 }
    return entry
  })
}

/**
 * What a new inode gets from its directory's default ACL: permission bits, and an access ACL when
 * the bits cannot say it. The default stands in for the umask (acl(5), "Object creation").
 */
export function inheritAcl(defaults: readonly AclEntry[], mode: number): { mode: number; access: AclEntry[] | undefined } {
  const hasMask = defaults.some((entry) => entry.tag === Tag.mask)
  const access = defaults.map((entry) => {
    if (entry.tag === Tag.userObj) return { ...entry, perm: entry.perm & (mode >> 6) }
    if (entry.tag === Tag.other) return { ...entry, perm: entry.perm & mode }
    if (entry.tag === (hasMask ? Tag.mask : Tag.groupObj)) return { ...entry, perm: entry.perm & (mode >> 3) }
    return entry
  })
  const { mode: bits, exact } = aclMode(access)
  return { mode: (mode & ~0o777) | bits, access: exact ? undefined : access }
}
