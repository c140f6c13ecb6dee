/**
 * The ACL that the kernel is shown of an inode where relations decide does not say what its mode and its mask are: bits that
 * relations do not give are left out of it. But programs that copy permissions set it on another inode, and nothing else. So it
 * carries a note: an entry for a group that nobody is in, whose number says what was left out, and who was named.
 *
 * From bit 0: a checksum of the named users, 16 bits; then what is given to anybody, the mode's bits for the group and for
 * others, and the mask, three bits each; then 15, four bits. The entry's own bits are the mask, because setfacl(1) makes the mask
 * anew of all entries that it limits.
 */
import { type AclEntry, Tag } from './acl.ts'

export interface Note {
  /** what relations give to anybody */
  anybody: number
  /** bits of the mode */
  group: number
  other: number
  mask: number
}

const FIRST_GID = 0xf000_0000
const CHECK_SPAN = 0x1_0000
/** the largest prime below: so no number is 0xffffffff, which is no gid */
const CHECK_MODULUS = 65521

export function noteOf({ anybody, group, other, mask }: Note, named: readonly AclEntry[]): AclEntry {
  const bits = (anybody << 9) | (group << 6) | (other << 3) | mask
  return { tag: Tag.group, perm: mask, id: FIRST_GID + bits * CHECK_SPAN + checksum(named) }
}

export function isNote({ tag, id }: AclEntry): boolean {
  return tag === Tag.group && id >= FIRST_GID
}

/** What a note says; undefined when other users were named in the ACL that it was made for. */
export function readNote({ id }: AclEntry, named: readonly AclEntry[]): Note | undefined {
  const bits = Math.floor((id - FIRST_GID) / CHECK_SPAN)
  if (id % CHECK_SPAN !== checksum(named)) return undefined
  return { anybody: (bits >> 9) & 7, group: (bits >> 6) & 7, other: (bits >> 3) & 7, mask: bits & 7 }
}

function checksum(named: readonly AclEntry[]): number {
  let sum = 1
  const sorted = [...named].sort((a, b) => a.id - b.id)
  // Each step stays below 2^53: 65521 * 2^35.
  for (const { id, perm } of sorted) sum = (sum * 31 + (id * 8 + perm)) % CHECK_MODULUS
  return sum
}
