/**
 * Where relationship-based access meets POSIX. `src/acl` answers who may; here that becomes the errno of a refused call,
 * and the permission bits and ACL that make the kernel refuse by itself what it answers from its caches.
 *
 * In a guarded workspace the permission bits of an inode mean: the owner's for its owner; those of group and others,
 * taken together, for everybody who has a relation. What the kernel is shown is the lesser of that and of what the
 * relations give. Unix groups play no part: who shares a workspace is said by grants.
 */
import { S_IFLNK, S_IFMT } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type AclEntry, Tag } from './acl.ts'
import type { Place } from './core.ts'
import type { Names } from './crowds.ts'

/** Permission bits, as in a mode. */
export const READ = 4
export const WRITE = 2
export const ENTER = 1

/** In place of a uid: anybody whom no tuple names. */
export const ANYBODY = -1

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

/** The mode that the kernel is shown. */
export function shownMode(guard: Guard, place: Place): number {
  const { mode, uid } = place.attr
  if ((mode & S_IFMT) === S_IFLNK || !guard.guards(place.volume.number)) return mode
  const owner = (mode >> 6) & 7 & guard.rwx(uid, place)
  const shared = sharedBits(mode)
  return (mode & ~0o777) | (owner << 6) | (shared << 3) | othersOf(guard, place, shared)
}

/** Where an ACL has not room for all, whom it does not name is asked about by the kernel, which must not find them among others. */
function othersOf(guard: Guard, place: Place, bits: number): number {
  const others = bits & guard.rwx(ANYBODY, place)
  return others !== 0 && guard.uidsOn(place) === undefined ? 0 : others
}

/** The ACL that the kernel is shown. @param uids everybody who has a relation, or those that it has room for (crowds.ts) */
export function shownAcl(guard: Guard, place: Place, uids: readonly number[]): AclEntry[] {
  const mode = shownMode(guard, place)
  const shared = sharedBits(place.attr.mode)
  const others = mode & 7
  const named = uids
    .filter((uid) => uid !== place.attr.uid)
    .map((uid) => ({ tag: Tag.user, perm: guard.rwx(uid, place) & shared, id: uid }))
    .filter(({ perm }) => perm !== others)
  return [
    { tag: Tag.userObj, perm: (mode >> 6) & 7, id: 0 },
    ...named,
    { tag: Tag.groupObj, perm: others, id: 0 },
    { tag: Tag.mask, perm: shared, id: 0 },
    { tag: Tag.other, perm: others, id: 0 },
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

/** What chmod(2) means where the kernel was shown less: bits that were hidden from the owner stay. */
export function storedMode(guard: Guard, place: Place, mode: number): number {
  if (!guard.guards(place.volume.number)) return mode
  return mode | (place.attr.mode & 0o700 & ~shownMode(guard, place))
}

function sharedBits(mode: number): number {
  return ((mode >> 3) | mode) & 7
}
