/**
 * Which uids relations may give something on an inode, so that its ACL names them: by what is given on it, on what contains
 * it, and on what lies in it, which needs a way through. More than do: each is asked for its rights.
 *
 * Subjects are gathered by directory, not by workspace: however many are granted something on one directory, nothing
 * changes for an inode beside it.
 */
import { NAMED_MAX } from '../vfs/guard.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { isDirectory } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Identities } from './identities.ts'
import type { ReachTree } from './reach.ts'
import { inodeOfObject, namedBy, type TupleStore } from './tuples.ts'

/** Subjects that are looked at for one inode: with more it is taken for one that has too many uids. */
const SUBJECTS_MAX = 4 * NAMED_MAX
/** Directories of which it is remembered. */
const REMEMBERED_MAX = 200_000
/** Directories from one that is asked for up to the root. */
const WAY_MAX = 16_384

/** `undefined`: more than anybody could name. */
type Subjects = ReadonlySet<string> | undefined
type Uids = readonly number[] | undefined

export interface NamedUidsOptions {
  tuples: TupleStore
  identities: Identities
  tree: ReachTree
  /** whether the model can take away from a subject what it gives to all: then everybody who has a name counts */
  narrows(): boolean
}

const nobody: ReadonlySet<string> = new Set()

export class NamedUids {
  readonly #options: NamedUidsOptions
  /** subjects with something on a directory or on what contains it, by node */
  #above = new Map<number, Subjects>()
  /** by workspace, the directories on the way to what lies in them, and who may have something there */
  #below = new Map<number, Map<number, Subjects>>()
  #uids = new Map<number, Uids>()
  /** by sets that many directories share */
  #ofSubjects = new WeakMap<ReadonlySet<string>, { uids: Uids }>()

  constructor(options: NamedUidsOptions) {
    this.#options = options
  }

  /** In ascending order; undefined when there are more than an ACL has room for. Uid 0 is not among them. */
  on({ volume, ino, attr }: Place): Uids {
    const { tuples, tree } = this.#options
    const live = tree.liveOf(volume.number)
    const isOwn = isDirectory(attr) || ino === ROOT_INO || attr.parent === 0 || tuples.has(live, ino)
    // A file without tuples has what its directory has, but for who only passes through that.
    if (!isOwn) return this.#uidsOf(this.#subjectsAbove(volume.number, attr.parent))
    const node = nodeOf(volume.number, ino)
    if (this.#uids.has(node)) return this.#uids.get(node)
    const uids = this.#uidsOf(merged(this.#subjectsAbove(volume.number, ino), this.#subjectsBelow(volume.number, ino)))
    if (this.#uids.size >= REMEMBERED_MAX) this.#uids.clear()
    this.#uids.set(node, uids)
    return uids
  }

  forget(): void {
    this.#above = new Map()
    this.#below = new Map()
    this.#uids = new Map()
    this.#ofSubjects = new WeakMap()
  }

  /** Subjects of tuples on an inode and on whatever contains it. */
  #subjectsAbove(volume: number, ino: number): Subjects {
    const { tuples, tree } = this.#options
    const way: { volume: number; ino: number }[] = []
    let subjects: Subjects = nobody
    for (let at: { volume: number; ino: number } | undefined = { volume, ino }; at !== undefined; ) {
      const node = nodeOf(at.volume, at.ino)
      if (this.#above.has(node)) {
        subjects = this.#above.get(node)
        break
      }
      way.push(at)
      // Directories that lie in themselves, in a damaged tree, lead nowhere.
      if (way.length > WAY_MAX) return undefined
      at = tree.parentOf(at.volume, at.ino)
    }
    for (const at of way.reverse()) {
      const live = tree.liveOf(at.volume)
      if (tuples.has(live, at.ino)) {
        subjects = merged(subjects, new Set([...tuples.on(`${live}/${at.ino}`)].map(({ subject }) => subject)))
      }
      if (this.#above.size >= REMEMBERED_MAX) this.#above.clear()
      this.#above.set(nodeOf(at.volume, at.ino), subjects)
    }
    return subjects
  }

  /** Subjects of tuples on what lies in a directory. */
  #subjectsBelow(volume: number, ino: number): Subjects {
    const ways = this.#waysIn(volume)
    return ways.has(ino) ? ways.get(ino) : nobody
  }

  /** The directories of a volume that lead to an inode with tuples of its own, or to a workspace inside. */
  #waysIn(volume: number): Map<number, Subjects> {
    const found = this.#below.get(volume)
    if (found !== undefined) return found
    const ways = new Map<number, Set<string> | undefined>()
    this.#below.set(volume, ways)
    const { tuples, tree } = this.#options
    const live = tree.liveOf(volume)
    for (const ino of tuples.inodesIn(live)) {
      if (ino === ROOT_INO || !tree.isNamed(volume, ino)) continue
      this.#addWay(ways, volume, tree.parentOf(volume, ino), new Set([...tuples.on(`${live}/${ino}`)].map((one) => one.subject)))
    }
    for (const { number, parent_ino } of tree.nestedIn(volume)) {
      const own = new Set([...tuples.on(`${number}/${ROOT_INO}`)].map(({ subject }) => subject))
      this.#addWay(ways, volume, { volume, ino: parent_ino }, merged(own, this.#subjectsBelow(number, ROOT_INO)))
    }
    return ways
  }

  #addWay(
    ways: Map<number, Set<string> | undefined>,
    volume: number,
    from: { volume: number; ino: number } | undefined,
    subjects: Subjects,
  ): void {
    const seen = new Set<number>()
    for (let at = from; at?.volume === volume && !seen.has(at.ino); at = this.#options.tree.parentOf(volume, at.ino)) {
      seen.add(at.ino)
      const known = ways.get(at.ino)
      if (ways.has(at.ino) && known === undefined) continue
      const all = known ?? new Set<string>()
      for (const subject of subjects ?? []) all.add(subject)
      ways.set(at.ino, subjects === undefined || all.size > SUBJECTS_MAX ? undefined : all)
    }
  }

  #uidsOf(subjects: Subjects): Uids {
    if (subjects === undefined) return undefined
    const found = this.#ofSubjects.get(subjects) ?? { uids: this.#expanded(subjects) }
    this.#ofSubjects.set(subjects, found)
    return found.uids
  }

  #expanded(subjects: ReadonlySet<string>): Uids {
    const { identities, tuples, narrows } = this.#options
    const uids = new Set(narrows() ? identities.uids() : [])
    const all = new Set(subjects)
    // A set grows while it is walked: members of members are reached as well.
    for (const subject of all) {
      for (const uid of identities.uidsOf(subject)) uids.add(uid)
      if (subject.endsWith(':*')) for (const uid of this.#uidsOfOthers()) uids.add(uid)
      const named = namedBy(subject)
      const inode = named === undefined ? undefined : inodeOfObject(named.object)
      if (inode !== undefined) {
        // Whoever is something of what contains an object may be that of the object.
        const above = this.#subjectsAbove(inode.volume, inode.ino)
        if (above === undefined) return undefined
        for (const one of above) all.add(one)
      } else if (named !== undefined) for (const tuple of tuples.on(named.object)) all.add(tuple.subject)
      if (uids.size > NAMED_MAX + 1 || all.size > SUBJECTS_MAX) return undefined
    }
    uids.delete(0)
    return uids.size > NAMED_MAX ? undefined : [...uids].sort((a, b) => a - b)
  }

  /** Uids that are no users: what everybody else has, which is `user:*`, they have not. */
  #uidsOfOthers(): number[] {
    const { identities } = this.#options
    return [...identities.uids()].filter((uid) => !identities.subjectOf(uid).startsWith('user:'))
  }
}

/** All of both; one of them as it is when the other has nothing. */
function merged(first: Subjects, second: Subjects): Subjects {
  if (first === undefined || second === undefined) return undefined
  if (second.size === 0) return first
  if (first.size === 0) return second
  const all = new Set([...first, ...second])
  return all.size > SUBJECTS_MAX ? undefined : all
}
