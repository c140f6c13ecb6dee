/** What the kernel is shown of a directory that everybody may enter, in place of its permission bits, and the way back. */
import { ACCESS_ACL, type AclEntry, Tag } from './acl.ts'
import type { Place } from './place.ts'

/** Whether group and others have the same rights in a directory, and nobody has others. */
export function isAlike({ volume, ino, attr: { mode, xattrs } }: Place): boolean {
  return ((mode >> 3) & 7) === (mode & 7) && (xattrs === 0 || volume.xattr(ino, ACCESS_ACL) === undefined)
}

/** Permission bits that agree with `gateAcl`: the group's are its mask. */
export function gateMode(mode: number): number {
  return (mode & ~0o077) | ((mode & 7) << 3)
}

/** An ACL that gives some what the permission bits give to others, and all the rest something else. */
export function gateAcl(mode: number, uids: Iterable<number>, rest: number): AclEntry[] {
  const sorted = [...uids].sort((a, b) => a - b)
  return [
    { tag: Tag.userObj, perm: (mode >> 6) & 7, id: 0 },
    ...sorted.map((id) => ({ tag: Tag.user, perm: mode & 7, id })),
    { tag: Tag.groupObj, perm: rest, id: 0 },
    { tag: Tag.mask, perm: mode & 7, id: 0 },
    { tag: Tag.other, perm: rest, id: 0 },
  ]
}

/** What an ACL means that somebody made of the shown one: without what was only shown, so that nobody is shut out by it. */
export function withoutShown(entries: readonly AclEntry[], bits: number, admitted: ReadonlySet<number>): readonly AclEntry[] {
  if (entries.find(({ tag }) => tag === Tag.mask)?.perm !== bits) return entries
  const left = entries.filter(({ tag, perm, id }) => tag !== Tag.user || perm !== bits || !admitted.has(id))
  const hasNamed = left.some(({ tag }) => tag === Tag.user || tag === Tag.group)
  const isHidden = ({ tag, perm }: AclEntry): boolean => (tag === Tag.groupObj || tag === Tag.other) && perm === 0
  return left
    .filter(({ tag }) => hasNamed || tag !== Tag.mask)
    .map((entry) => (isHidden(entry) ? { ...entry, perm: bits } : entry))
}
