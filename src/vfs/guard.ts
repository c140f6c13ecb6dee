/**
 * Where relationship-based access meets POSIX. `src/acl` answers who may; here that becomes the errno of a refused call,
 * and the mode, owner and ACL that make the kernel refuse by itself what it answers from its caches.
 *
 * In a guarded workspace the mode is shown as the program set it. What limits those who have a grant is the *mask*
 * (src/volume/attr.ts), which is kept apart from the group's bits. The kernel (acl_permission_check, fs/namei.c)
 * - lets everyone in by bits that owner, group and others have all of only where an inode has no ACL, and here each has one,
 * - goes by the owner's bits for the owner,
 * - else, if the mode has any bit for the group, by the ACL alone: named users get their entry and the mask of the ACL,
 *   not the group's bits; `other` is not masked,
 * - else by the mode alone.
 */
import { groupBits, MODE_BITS, maskOf, S_IFLNK, S_IFMT, S_IFREG, S_ISUID, withMask } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type AclEntry, Tag } from './acl.ts'
import { noteOf } from './aclnote.ts'
import type { Names } from './crowds.ts'
import type { Place } from './place.ts'

/** Permission bits, as in a mode. */
export const READ = 4
export const WRITE = 2
export const ENTER = 1
const ALL = READ | WRITE | ENTER

/** In place of a uid: anybody whom no tuple names. */
export const ANYBODY = -1

/** Shown as the owner where relations give the owner less than everything. No process has it, and no user namespace maps it. */
export const NOBODY_UID = 0xffff_fffe

/**
 * Users that an ACL names at most. The kernel reads it into one page, 511 entries, and refuses everybody when it is longer
 * (fs/fuse/acl.c); four of them are not names.
 */
export const NAMED_MAX = 500

/** An inode that had its rights from one directory, and now has them from another. */
export interface Move {
  ino: number
  from: number
  to: number
}

/** What the filesystem asks about relations; `src/acl` answers. */
export interface Guard {
  /** whether relations decide in a volume (they do not at the root of all, nor in a single-user mount) */
  guards(volume: number): boolean
  /** READ, WRITE and ENTER that relations give a uid on an inode; all of them where nothing is guarded */
  rwx(uid: number, place: Place): number
  /** uids that relations may give something on an inode, or a way through it; undefined: more than an ACL can name */
  uidsOn(place: Place): readonly number[] | undefined
  /** whether some who may enter a directory may not see all that lies in it: the kernel has to ask for each name */
  isMixed(place: Place): boolean
  /**
   * Something moved, or came or went with all that is in it: what was derived from the tree is so no more.
   * @param move what it was, where that was a single inode
   */
  moved(volume: number, move?: Move): void
  /** a workspace was moved to another directory: what it is, and what its subjects name, may be others */
  relocated(volume: number): void
  /** an inode lost a name */
  removed(volume: number, ino: number): void
  /** workspaces may have gone for good: whoever is given their numbers must not inherit */
  gone(volumes: readonly number[]): void
  /** the subject whose limits count for a uid; undefined for root, and on a mount for a single user: nobody's */
  chargedSubject(uid: number): string | undefined
  /** tuples that make a new workspace its maker's, as changes to commit with it */
  owned(volume: number, uid: number): Change[]
}

/**
 * The owner that the kernel is shown. It lets an owner do everything with an inode, if not at once then from a user namespace
 * (capable_wrt_inode_uidgid, kernel/capability.c), also with what it has cached. So an owner to whom relations do not give
 * everything is not shown as one; what they do give is in the ACL. Symlinks have no permissions.
 */
export function shownOwner(guard: Guard, place: Place): number {
  const { mode, uid } = place.attr
  if (uid === 0 || (mode & S_IFMT) === S_IFLNK || !guard.guards(place.volume.number)) return uid
  return guard.rwx(uid, place) === ALL ? uid : NOBODY_UID
}

/** The mode that the kernel is shown. @param owner what `shownOwner` says */
export function shownMode(guard: Guard, place: Place, owner: number): number {
  const mode = place.attr.mode & MODE_BITS
  if ((mode & S_IFMT) === S_IFLNK || !guard.guards(place.volume.number)) return mode
  return guardedMode(guard, place, mode, owner !== place.attr.uid)
}

function guardedMode(guard: Guard, place: Place, mode: number, isHidden: boolean): number {
  // A program must not run as the owner that is shown in place of another.
  let shown = isHidden ? mode & ~S_ISUID : mode
  // A bit for the group makes the kernel look at the ACL, which has the bits that are left to the owner.
  if (isHidden && groupBits(mode) === 0) shown |= ownersRest(guard, place) << 3
  const hasOnlyOthers = groupBits(shown) === 0 && (shown & 7) !== 0
  // Then everyone but the owner gets the others' bits, strangers too.
  return hasOnlyOthers ? (shown & ~7) | (shown & 7 & givenToAll(guard, place)) : shown
}

/**
 * The ACL that the kernel is shown: it names everybody who has a relation, where the mode leaves them anything.
 * @param names those that it has room for (crowds.ts)
 */
export function shownAcl(guard: Guard, place: Place, names: Names = namesOn(guard, place)): AclEntry[] {
  const { mode, uid } = place.attr
  const mask = maskOf(mode)
  const isPrivate = groupBits(mode) === 0
  const anybody = isPrivate || names.isCrowded ? givenToAll(guard, place) : guard.rwx(ANYBODY, place)
  const group = anybody & groupBits(mode)
  const other = anybody & mode & 7
  const named = (isPrivate ? [] : names.uids)
    .filter((id) => id !== uid)
    .map((id) => ({ tag: Tag.user, perm: guard.rwx(id, place) & mask, id }))
  const isHidden = shownOwner(guard, place) !== uid
  const rest = isHidden ? ownersRest(guard, place) : 0
  if (isHidden) named.push({ tag: Tag.user, perm: rest, id: uid })
  // Everyone else gets as much, whatever groups they are in.
  const told = named.filter(({ perm }) => perm !== other || perm !== group).sort((a, b) => a.id - b.id)
  return [
    { tag: Tag.userObj, perm: (mode >> 6) & 7, id: 0 },
    ...told,
    { tag: Tag.groupObj, perm: group, id: 0 },
    noteOf({ anybody, group: groupBits(mode), other: mode & 7, mask }, told),
    { tag: Tag.mask, perm: mask | rest, id: 0 },
    { tag: Tag.other, perm: other, id: 0 },
  ]
}

/** The ACL of the hidden directory of snapshots: for whoever may read the workspace, given its root. */
export function snapshotsAcl(guard: Guard, root: Place, { uids: known, isCrowded }: Names): AclEntry[] {
  const bits = (uid: number): number => ((guard.rwx(uid, root) & READ) !== 0 ? READ | ENTER : 0)
  const others = isCrowded ? 0 : bits(ANYBODY)
  const uids = [...new Set([root.attr.uid, ...known])].filter((uid) => uid !== 0)
  const named = uids.map((uid) => ({ tag: Tag.user, perm: bits(uid), id: uid })).filter(({ perm }) => perm !== others)
  return [
    { tag: Tag.userObj, perm: READ | ENTER, id: 0 },
    ...named,
    { tag: Tag.groupObj, perm: others, id: 0 },
    { tag: Tag.mask, perm: READ | ENTER, id: 0 },
    { tag: Tag.other, perm: others, id: 0 },
  ]
}

/**
 * An inode as a snapshot shows it. The kernel opens a file without asking us, and what is written to a mapping of it would be
 * in the page cache for everyone, though we refuse to store it: so nobody may open a file in a snapshot for writing.
 */
export function frozenPlace(place: Place): Place {
  const { attr } = place
  return (attr.mode & S_IFMT) === S_IFREG ? { ...place, attr: { ...attr, mode: frozenMode(attr.mode) } } : place
}

function frozenMode(mode: number): number {
  return withMask(mode & ~0o222, maskOf(mode) & ~WRITE)
}

/**
 * What a uid may do with an inode where the caller's groups are not known: no more than the kernel would let them. Whoever is not
 * named in the ACL may be in the group or not.
 */
export function allowed(guard: Guard, place: Place, uid: number): number {
  const { mode } = place.attr
  const rwx = guard.rwx(uid, place)
  if (uid === place.attr.uid) return (mode >> 6) & rwx
  return rwx & (isNamed(guard, place, uid) ? maskOf(mode) : groupBits(mode) & mode)
}

/** Whether the ACL of an inode names a user to whom relations give something; where it has not room for all, it names who comes by. */
export function isNamed(guard: Guard, place: Place, uid: number): boolean {
  return guard.uidsOn(place)?.includes(uid) ?? true
}

function namesOn(guard: Guard, place: Place): Names {
  const uids = guard.uidsOn(place)
  return { uids: uids ?? [], isCrowded: uids === undefined }
}

/** What relations leave of the owner's bits. */
function ownersRest(guard: Guard, place: Place): number {
  return (place.attr.mode >> 6) & guard.rwx(place.attr.uid, place)
}

/**
 * What relations give to each and every uid but one that is the owner for the kernel too. Nothing where they are too many to be
 * asked: a caller that the ACL does not name is asked about by the kernel, which must not find that caller among the others.
 */
function givenToAll(guard: Guard, place: Place): number {
  const { uid } = place.attr
  const named = guard.uidsOn(place)
  if (named === undefined) return 0
  const uids = named.filter((id) => id !== uid)
  if (shownOwner(guard, place) !== uid) uids.push(uid)
  return uids.reduce((bits, uid) => (bits === 0 ? 0 : bits & guard.rwx(uid, place)), guard.rwx(ANYBODY, place))
}
