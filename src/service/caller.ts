/**
 * A user who asks for something by command: what he may, by relations and by the permissions of plain directories. He is
 * led to a path as the kernel would lead him, so that a refusal tells no more than stat(2) at the mount.
 */
import { FsError, NexusError } from '../errors.ts'
import type { Sees } from '../snapshots/changes.ts'
import { ACCESS_ACL, decodeAcl, Tag } from '../vfs/acl.ts'
import { allowed, ENTER, isNamed, READ, WRITE } from '../vfs/guard.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { ancestors } from '../volume/ancestors.ts'
import { type Attr, groupBits, isDirectory, maskOf } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import { type Context, nestedIn } from '../workspaces/context.ts'
import { namesIfKnown, namesOf } from '../workspaces/paths.ts'

const OWNERS = 'ask one of its owners, or root'
const ROOT = 'ask root'

export class UserCaller {
  readonly uid: number
  readonly #context: Context

  constructor(context: Context, uid: number) {
    this.#context = context
    this.uid = uid
  }

  get subject(): string {
    return this.#context.access.identities.subjectOf(this.uid)
  }

  /** What only root may. @param what as in `may not …` */
  refuse(what: string): never {
    throw this.#denied(what, ROOT)
  }

  /**
   * What is at a path, if relations give the caller a permission on it.
   * @throws NexusError NEXUS_DENIED, NEXUS_NOT_FOUND
   */
  demand(permission: string, path: string): Place {
    const place = this.lookUp(path)
    this.demandOn(permission, place, path)
    return place
  }

  /** The same for a place that is known. @param path what to call it */
  demandOn(permission: string, place: Place, path: string): void {
    if (!this.has(permission, place)) throw this.#denied(`${permission} ${path}`, whomFor(place))
  }

  /** The same for a directory with all the workspaces that lie in it. */
  demandAll(permission: string, place: Place, path: string): void {
    this.demandOn(permission, place, path)
    for (const { number } of nestedIn(this.#context, place)) {
      if (this.#hasRelation(permission, number, ROOT_INO)) continue
      throw this.#denied(`${permission} a workspace in ${path}`, OWNERS)
    }
  }

  /** Outside of workspaces there are no relations, and everything there is root's. */
  has(permission: string, place: Place): boolean {
    // Who may not list a directory himself is not told by others' means what is in it.
    if (permission === 'read' && !this.#mayUse(place, READ)) return false
    return this.#hasRelation(permission, place.volume.number, place.ino)
  }

  /** Whether a workspace is named to the caller: who may read it, and could stat(2) it. */
  mayList(number: number): boolean {
    return this.#hasRelation('read', number, ROOT_INO) && this.#reaches(number)
  }

  /** Whether each directory on the way to a workspace may be entered. */
  #reaches(number: number): boolean {
    const { core, registry } = this.#context
    const seen = new Set<number>()
    try {
      for (let record = registry.workspace(number); record !== undefined && record.number !== 0; ) {
        // Records that lie in each other, which only damage makes, lead nowhere.
        if (seen.has(record.number)) return false
        seen.add(record.number)
        const { volume } = core.place(nodeOf(record.parent_volume, ROOT_INO))
        for (const ino of ancestors(volume, record.parent_ino)) {
          if (!this.#mayUse(core.place(nodeOf(volume.number, ino)), ENTER)) return false
        }
        record = registry.workspace(record.parent_volume)
      }
      return true
    } catch (error) {
      if (error instanceof FsError || error instanceof NexusError) return false
      throw error
    }
  }

  /**
   * Whatever is at a path; a symlink is itself.
   * @throws NexusError NEXUS_DENIED where the caller may not enter a directory on the way, NEXUS_NOT_FOUND when there is nothing
   */
  lookUp(path: string): Place {
    return this.#walk(namesOf(path), path)
  }

  /** The same, or the nearest directory around it when there is nothing. */
  nearest(path: string): Place {
    const names = namesOf(path)
    for (;;) {
      try {
        return this.#walk(names, path)
      } catch (error) {
        const isMissing = error instanceof NexusError && error.code === 'NEXUS_NOT_FOUND'
        if (!isMissing || names.pop() === undefined) throw error
      }
    }
  }

  /** What mkdir(2) at a path would say. @throws NexusError NEXUS_DENIED, NEXUS_NOT_FOUND */
  demandMaking(path: string): void {
    const parent = this.#walk(namesOf(path).slice(0, -1), path)
    if (this.#context.registry.isTenantsDirectory(parent.volume.number, parent.ino)) this.refuse(`make the tenant ${path}`)
    this.#demandChange(parent, `make ${path}`)
  }

  /** What rename(2) and rmdir(2) ask of the directory that holds a path; in a sticky one, owning the entry is asked elsewhere. */
  demandTaking(path: string): void {
    this.#demandChange(this.#walk(namesOf(path).slice(0, -1), path), `take ${path} out of its directory`)
  }

  /**
   * Which directories of a state the caller could list by their permission bits then, if relations let him read all of it.
   * It goes by the state alone: what is remembered of rights is of the present.
   */
  sees(): Sees {
    const ways = new WeakMap<Volume, Map<number, boolean>>()
    const named = new Map<number, boolean>()
    const isNamedIn = (volume: Volume): boolean => {
      const attr = volume.attr(ROOT_INO)
      const root = attr && { volume, ino: ROOT_INO, attr }
      const found = named.get(volume.number) ?? (root !== undefined && isNamed(this.#context.core.guard, root, this.uid))
      named.set(volume.number, found)
      return found
    }
    const may = (volume: Volume, attr: Attr, bit: number): boolean => {
      if (attr.uid === this.uid) return ((attr.mode >> 6) & bit) !== 0
      return ((isNamedIn(volume) ? maskOf(attr.mode) : groupBits(attr.mode) & attr.mode) & bit) !== 0
    }
    const enters = (volume: Volume, ino: number): boolean => {
      const known = ways.get(volume) ?? new Map<number, boolean>()
      ways.set(volume, known)
      const found = known.get(ino)
      if (found !== undefined) return found
      const names = namesIfKnown(volume, ino)
      let answer = names !== undefined
      // From the root down: directories may lie deep in each other. What has no way from there leads nowhere.
      for (const at of names === undefined ? [ino] : [...ancestors(volume, ino)].reverse()) {
        const attr = volume.attr(at)
        answer = answer && attr !== undefined && may(volume, attr, ENTER)
        known.set(at, answer)
      }
      return answer
    }
    return (volume, ino) => {
      const attr = volume.attr(ino)
      return attr !== undefined && may(volume, attr, READ) && enters(volume, ino)
    }
  }

  #demandChange(directory: Place, what: string): void {
    const isPlain = directory.volume.number === 0
    const may = this.#mayUse(directory, WRITE | ENTER) && (isPlain || this.has('write', directory))
    if (!may || !isDirectory(directory.attr)) throw this.#denied(what, whomFor(directory))
  }

  #walk(names: readonly string[], path: string): Place {
    const { core } = this.#context
    let place = core.place(nodeOf(0, ROOT_INO))
    for (const name of names) {
      if (!isDirectory(place.attr)) throw notFound(path)
      if (!this.#mayUse(place, ENTER)) throw this.#denied(`enter what ${path} lies in`, whomFor(place))
      const entry = place.volume.entry(place.ino, name)
      if (entry === undefined) throw notFound(path)
      place = core.target(place.volume, entry)
    }
    return place
  }

  #hasRelation(permission: string, volume: number, ino: number): boolean {
    const { access } = this.#context
    if (volume === 0) return false
    const object = access.graph.objectOf(volume, ino)
    return object !== undefined && access.check(this.subject, permission, object)
  }

  /** What the kernel would allow, but that it knows the caller's groups: they are never what lets him in here. */
  #mayUse(place: Place, bits: number): boolean {
    return (this.#bits(place) & bits) === bits
  }

  #bits(place: Place): number {
    const { guard } = this.#context.core
    const { volume, attr } = place
    if (guard.guards(volume.number)) return allowed(guard, place, this.uid)
    return attr.uid === this.uid ? (attr.mode >> 6) & 7 : this.#bitsOfOthers(place)
  }

  /** Of a plain directory; he may be in any group, so what a group has not, he has not. */
  #bitsOfOthers({ volume, ino, attr }: Place): number {
    const value = attr.xattrs === 0 ? undefined : volume.xattr(ino, ACCESS_ACL)
    if (value === undefined) return attr.mode & (attr.mode >> 3) & 7
    const entries = decodeAcl(value)
    const mask = entries.find(({ tag }) => tag === Tag.mask)?.perm ?? 7
    const own = entries.find(({ tag, id }) => tag === Tag.user && id === this.uid)
    if (own !== undefined) return own.perm & mask
    const groups = entries.filter(({ tag }) => tag === Tag.groupObj || tag === Tag.group)
    return groups.reduce((bits, { perm }) => bits & perm & mask, attr.mode & 7)
  }

  #denied(what: string, whom: string): NexusError {
    return new NexusError('NEXUS_DENIED', `${this.subject} may not ${what}: ${whom}`)
  }
}

function whomFor({ volume }: Place): string {
  return volume.number === 0 ? ROOT : OWNERS
}

function notFound(path: string): NexusError {
  return new NexusError('NEXUS_NOT_FOUND', `there is no ${path}: see "nexusctl workspace list"`)
}
