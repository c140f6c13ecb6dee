/** What chmod(2), chown(2) and setfacl(1) mean where the kernel is shown something else than is stored. */
import { FS } from '../errors.ts'
import { groupBits, MODE_BITS, S_IFMT, withMask } from '../volume/attr.ts'
import { type AclEntry, encodeAcl, isOpenAcl, Tag } from './acl.ts'
import { isNote, type Note, readNote } from './aclnote.ts'
import { type Guard, NOBODY_UID, shownAcl, shownMode, shownOwner } from './guard.ts'
import type { Place } from './place.ts'

/** The mode to store after chmod(2): the mask is what the group has now. Outside of workspaces there is none. */
export function givenMode(guard: Guard, place: Place, asked: number): number {
  const type = place.attr.mode & S_IFMT
  if (place.volume.number === 0) return type | (asked & 0o7777)
  const bits = asked & 0o7777 & ~onlyShown(guard, place, asked)
  return withMask(type | bits, groupBits(bits))
}

/** Bits for the group that are shown and not stored, if they were left as they are shown. */
function onlyShown(guard: Guard, place: Place, asked: number): number {
  if (!guard.guards(place.volume.number)) return 0
  const shown = shownMode(guard, place, shownOwner(guard, place)) & 0o070
  const isStored = (place.attr.mode & 0o070) === shown
  return isStored || (asked & 0o070) !== shown ? 0 : shown
}

/** The owner to store after chown(2): whoever copies the owner that is shown in place of another leaves it as it is. */
export function givenOwner(guard: Guard, place: Place, asked: number): number {
  return asked === NOBODY_UID && shownOwner(guard, place) === NOBODY_UID ? place.attr.uid : asked
}

/**
 * The mode to store after an ACL was set. Relations say who is named, so an ACL that names the users whom it was shown with (on this
 * inode or on another) says no more than a mode and a mask. Any other that names someone cannot be kept.
 * @throws EOPNOTSUPP
 */
export function givenAclMode(guard: Guard, place: Place, entries: readonly AclEntry[]): number {
  const owner = permOf(entries, Tag.userObj) ?? 0
  const { group, other, mask } = meant(guard, place, entries)
  return withMask((place.attr.mode & MODE_BITS & ~0o777) | (owner << 6) | (group << 3) | other, mask)
}

function meant(guard: Guard, place: Place, entries: readonly AclEntry[]): Pick<Note, 'group' | 'other' | 'mask'> {
  const note = noteFor(guard, place, entries)
  if (note === undefined) return plainBits(entries)
  // What is as it was shown stands for what the note says.
  const named = entries.filter(({ tag }) => tag === Tag.user)
  const limit = permOf(entries, Tag.mask) ?? 0
  const others = permOf(entries, Tag.other) ?? 0
  const groups = permOf(entries, Tag.groupObj) ?? 0
  const isMaskShown = limit === named.reduce((bits, { perm }) => bits | perm, note.mask)
  const mask = isMaskShown ? note.mask : limit
  const group = isMaskShown ? note.group : limit
  return {
    mask,
    group: groups === (note.anybody & note.group) ? group : groups & mask,
    other: others === (note.anybody & note.other) ? note.other : others,
  }
}

/** What was left out when the ACL was shown; undefined for one that was not. */
function noteFor(guard: Guard, place: Place, entries: readonly AclEntry[]): Note | undefined {
  const named = entries.filter(({ tag }) => tag === Tag.user)
  const groups = entries.filter(({ tag }) => tag === Tag.group)
  const [note] = groups
  if (groups.length > 1 || (note !== undefined && !isNote(note))) throw FS.EOPNOTSUPP
  const copied = note === undefined ? undefined : readNote(note, named)
  if (copied !== undefined || (note === undefined && named.length === 0)) return copied
  // Something was changed in it. It may still name the same as here.
  const shown = shownAcl(guard, place)
  const here = shown.filter(({ tag }) => tag === Tag.user)
  const own = shown.find(isNote)
  if (own === undefined || !encodeAcl(named).equals(encodeAcl(here))) throw FS.EOPNOTSUPP
  return readNote(own, here)
}

/** An ACL that names no one: the group's bits are its mask, and can be no fewer. */
function plainBits(entries: readonly AclEntry[]): Pick<Note, 'group' | 'other' | 'mask'> {
  const groups = permOf(entries, Tag.groupObj) ?? 0
  const mask = permOf(entries, Tag.mask) ?? groups
  if ((groups & mask) !== mask) throw FS.EOPNOTSUPP
  return { group: mask, other: permOf(entries, Tag.other) ?? 0, mask }
}

/** A default ACL as it is stored where relations decide. @throws EOPNOTSUPP when it names someone */
export function givenDefaultAcl(entries: readonly AclEntry[]): Uint8Array {
  if (entries.some(({ tag }) => tag === Tag.user || tag === Tag.group)) throw FS.EOPNOTSUPP
  plainBits(entries)
  const value = encodeAcl(entries)
  return isOpenAcl(value) ? encodeAcl(withMaskEntry(entries)) : value
}

/** It says the same, and is not what every workspace had in stores of before. */
function withMaskEntry(entries: readonly AclEntry[]): AclEntry[] {
  return entries.flatMap((entry) => (entry.tag === Tag.other ? [{ tag: Tag.mask, perm: 7, id: 0 }, entry] : [entry]))
}

function permOf(entries: readonly AclEntry[], tag: number): number | undefined {
  return entries.find((entry) => entry.tag === tag)?.perm
}
