/**
 * Who may: identities, tuples and the model of a store, and the answers that the filesystem asks for on every call. What
 * was computed is remembered until a tuple, an identity, the model or the tree's shape changes. Whatever cannot be
 * answered is a refusal.
 */
import { NexusError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { ANYBODY, ENTER, type Guard, type Move, READ, WRITE } from '../vfs/guard.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { isDirectory } from '../volume/attr.ts'
import type { Catalog } from '../volume/catalog.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { Evaluator } from './evaluator.ts'
import { Graph, inodeOf } from './graph.ts'
import { IDENTITY_KIND, Identities, parseIdentity, storeIdentity } from './identities.ts'
import { allowsTuple, builtinModel, checkFilesystemModel, type Model, parseModel } from './model.ts'
import { NamedUids } from './named.ts'
import { objectsReached, type ReachTree } from './reach.ts'
import { hides, inheritsAll, narrows } from './shape.ts'
import {
  inodeOfObject,
  parseTuple,
  removeTuple,
  type StoredTuple,
  storeTuple,
  TUPLE_KIND,
  TupleStore,
  workspacesOf,
} from './tuples.ts'

const ALL = READ | WRITE | ENTER
const MODEL_KEY = 'm/model'
export const OWNER = 'owner'
/** Answers remembered at most, for all uids together. */
const REMEMBERED_MAX = 500_000
/** A workspace of which anything is remembered takes as much memory as so many answers. */
const ANSWERS_PER_MAP = 4
/** Directories from one that is asked for up to one whose rights are known: a walk takes tens of milliseconds at most. */
const WAY_MAX = 16_384
/** Each directory on the way up is one step; a path of the kernel's has at most 2048 names (PATH_MAX / 2). */
const DEPTH_MAX = 2100
/** Inodes with grants, and workspaces, that are looked at when a directory is moved. */
const LOOKED_AT_MAX = 1000
/** Removed grants that a line of the log names. */
const LISTED_MAX = 20

export interface AccessOptions {
  catalog: Catalog
  tree: AccessTree
  commit(changes: readonly Change[]): void
  logger: Logger
  /** one user has the mount for himself: he may do everything */
  singleUser: boolean
  /** milliseconds since the epoch */
  now?: () => number
  /** goes by the same clock; one that counts the time between when not given, and takes no notice when the clock is set */
  alarm?: (ring: () => void) => Alarm
}

/** Rings when a clock has come to a time, and when that clock is set. */
export interface Alarm {
  /** @param at milliseconds since the epoch; undefined: never */
  set(at: number | undefined): void
  close(): void
}

export interface AccessTree extends ReachTree {
  /** whether a workspace is there, or would be after a restore */
  isPresent(volume: number): boolean
}

/** What is remembered of one uid. */
interface Remembered {
  /** of inodes with tuples of their own, by node */
  own: Map<number, number>
  /** of directories and files without, by workspace, then by the directory that contains them */
  directories: Map<number, Map<number, number>>
  files: Map<number, Map<number, number>>
  /** by workspace, the directories on the way to something that the uid may see */
  ways: Map<number, Set<number>>
}

export class Access implements Guard {
  readonly tuples = new TupleStore()
  readonly identities = new Identities()
  readonly graph: Graph
  readonly #options: AccessOptions
  readonly #now: () => number
  #model: Model
  #evaluator: Evaluator
  /** whether less may be seen inside of a directory than the directory itself */
  #narrows = false
  /** whether what has no tuples has the rights of its directory */
  #inherits: boolean | undefined
  /** whether somebody may not see all that lies in what he may read; looked at when it is asked for */
  #hides: boolean | undefined
  #remembered = new Map<number, Remembered>()
  #rememberedCount = 0
  readonly #mixed = new Map<number, Set<number>>()
  readonly #named: NamedUids
  #nextExpiry = Number.POSITIVE_INFINITY
  readonly #alarm: Alarm
  /** tuples that have ended and that the log could not yet take the end of */
  #owed: readonly StoredTuple[] = []
  /** called when rights in these workspaces have become others, by no command that would tell the kernel itself */
  onChanged: (volumes: ReadonlySet<number>, revoked: boolean) => void = () => undefined

  constructor(options: AccessOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#alarm = options.alarm?.(() => this.#expire()) ?? new TimerAlarm(() => this.#expire(), this.#now)
    this.graph = new Graph(this.tuples, options.tree, this.#now)
    const { tuples, identities } = this
    this.#named = new NamedUids({ tuples, identities, tree: options.tree, narrows: () => this.#narrows })
    const text = options.catalog.get(MODEL_KEY)
    this.#model = text === undefined ? builtinModel() : storedModel(text)
    this.#evaluator = this.#evaluatorOf(this.#model)
    this.#load(options.catalog)
  }

  // What the filesystem asks.

  guards(volume: number): boolean {
    return volume !== 0 && !this.#options.singleUser
  }

  rwx(uid: number, place: Place): number {
    if (uid === 0 || !this.guards(place.volume.number)) return ALL
    if (this.#nextExpiry < Number.POSITIVE_INFINITY && this.#now() >= this.#nextExpiry) this.forget()
    const bits = this.#rights(uid, place)
    if (bits !== 0 || !isDirectory(place.attr)) return bits
    return this.#ways(uid, place.volume.number).has(place.ino) ? ENTER : 0
  }

  uidsOn(place: Place): readonly number[] | undefined {
    return this.#named.on(place)
  }

  isMixed({ volume, ino }: Place): boolean {
    if (!this.guards(volume.number)) return false
    if (this.#narrows) return true
    const found = this.#mixed.get(volume.number) ?? this.#findMixed(volume.number)
    this.#mixed.set(volume.number, found)
    return found.has(ino)
  }

  moved(volume: number, move?: Move): void {
    if (volume === 0) this.forget()
    // With grants on nothing but the workspace, a place in it is as good as another.
    else if (this.#isVaried(volume) && !(move !== undefined && this.#isAlike(volume, move))) {
      this.forget()
      this.onChanged(this.reached([`${volume}/${ROOT_INO}`]), true)
    }
  }

  /** Whether a move changes nobody's rights: both directories have theirs from the same one, and nothing given moves along. */
  #isAlike(volume: number, { ino, from, to }: Move): boolean {
    if (!this.#inheritsAll || this.#source(volume, from) !== this.#source(volume, to)) return false
    return !this.#holdsGiven(volume, ino)
  }

  /** The directory with tuples of its own that decides in another. */
  #source(volume: number, directory: number): number {
    let at = directory
    for (let depth = 0; depth < DEPTH_MAX && at !== ROOT_INO && !this.tuples.has(volume, at); depth++) {
      at = this.#options.tree.parentOf(volume, at)?.ino ?? ROOT_INO
    }
    return at
  }

  /** Whether something with tuples of its own, or a workspace, lies in an inode; true where that would take long to say. */
  #holdsGiven(volume: number, ino: number): boolean {
    const { tree } = this.#options
    if (this.tuples.has(volume, ino) || this.tuples.isNamed(volume, ino)) return true
    if (tree.typeOf(volume, ino) === 'file') return false
    const inside = [...this.tuples.inodesOf(volume), ...[...tree.nestedIn(volume)].map((nested) => nested.parent_ino)]
    if (inside.length > LOOKED_AT_MAX) return true
    return inside.some((one) => {
      let at = one
      for (let depth = 0; depth < DEPTH_MAX && at !== ROOT_INO; depth++) {
        if (at === ino) return true
        at = tree.parentOf(volume, at)?.ino ?? ROOT_INO
      }
      return at !== ROOT_INO
    })
  }

  relocated(volume: number): void {
    // What is a tenant here is a workspace there, and lies in something else.
    this.forget()
    this.onChanged(this.reached([`${volume}/${ROOT_INO}`]), true)
  }

  removed(volume: number, ino: number): void {
    if (!this.tuples.has(volume, ino) && !this.tuples.isNamed(volume, ino)) return
    if (this.#isVaried(volume)) {
      this.forget()
      this.onChanged(this.reached([`${volume}/${ROOT_INO}`]), false)
    }
    if (this.tuples.isNamed(volume, ino)) this.onChanged(this.reached([`${volume}/${ino}`]), true)
  }

  gone(volumes: readonly number[]): void {
    const reached = this.ended(volumes)
    if (reached.size > 0) this.onChanged(reached, true)
  }

  /**
   * Workspaces were deleted. Of those that nothing can bring back all tuples go, those on them and those that name them: the
   * next workspace that is given the number must not inherit.
   * @returns the workspaces in which rights are others now
   */
  ended(volumes: readonly number[]): Set<number> {
    const { tree } = this.#options
    // A restore may bring some of them back; until then they are no tenants that anybody is a member of.
    const gone = [...new Set(volumes)].filter((volume) => tree.typeOf(volume, ROOT_INO) === undefined)
    const reached = this.reached(gone.map((volume) => `${volume}/${ROOT_INO}`))
    const stale = gone.filter((volume) => !tree.isPresent(volume)).flatMap((volume) => this.tuples.about(volume))
    this.forget()
    if (stale.length === 0) return reached
    try {
      this.write([], [...new Set(stale)])
    } catch (error) {
      // They give nothing, because what they name is not there. A start removes what is left of them.
      this.#options.logger.warn({ err: error }, 'grants of a workspace that is gone could not be removed from the log')
    }
    return reached
  }

  /**
   * Volumes were replaced by a restore. The caller tells the kernel.
   * @returns the workspaces in which rights may be others now
   */
  restored(volumes: readonly number[]): Set<number> {
    this.forget()
    const isNamed = (volume: number): boolean => [...this.tuples.inodesNamedIn(volume)].length > 0
    // With a workspace inside, that may have come or gone, and with it the way there.
    const isAny = volumes.length > 1
    const changed = volumes.filter((volume) => volume !== 0 && (isAny || this.#isVaried(volume) || isNamed(volume)))
    return this.reached(changed.map((volume) => `${volume}/${ROOT_INO}`))
  }

  /** The workspaces in which rights may be others when something changes for these objects (keys of tuples). */
  reached(objects: Iterable<string>): Set<number> {
    return new Set([...this.objectsReached(objects)].flatMap((object) => inodeOfObject(object)?.volume ?? []))
  }

  /** The same as the objects themselves. */
  objectsReached(objects: Iterable<string>): Set<string> {
    return objectsReached(this.tuples, this.#options.tree, objects)
  }

  /** The same when somebody becomes one of these subjects, or is one no more. */
  reachedBy(subjects: readonly string[]): Set<number> {
    return this.reached(this.objectsGivenTo(subjects))
  }

  /** The objects on which these very subjects were given something. */
  objectsGivenTo(subjects: readonly string[]): string[] {
    return subjects.flatMap((subject) => [...this.tuples.to(subject)].map(({ object }) => object))
  }

  /** Whether rights can differ from place to place in a workspace. */
  #isVaried(volume: number): boolean {
    const hasNested = [...this.#options.tree.nestedIn(volume)].length > 0
    return hasNested || this.tuples.inodesIn(volume).some((ino) => ino !== ROOT_INO)
  }

  /** Whether an inode has a name; one that is only open still has not. */
  isNamed(volume: number, ino: number): boolean {
    return this.#options.tree.isNamed(volume, ino)
  }

  chargedSubject(uid: number): string | undefined {
    return uid === 0 || this.#options.singleUser ? undefined : this.identities.subjectOf(uid)
  }

  owned(volume: number, uid: number): Change[] {
    const subject = this.chargedSubject(uid)
    if (subject === undefined) return []
    const tuple = this.newTuple(subject, OWNER, `${volume}/${ROOT_INO}`)
    // The number is new: until the workspace is made, this gives nobody anything.
    this.#add(tuple)
    return [storeTuple(tuple)]
  }

  // What commands ask.

  get model(): Model {
    return this.#model
  }

  /** Whether somebody who may read a directory may be refused some of what lies in it. */
  get hides(): boolean {
    this.#hides ??= hides(this.#model)
    return this.#hides
  }

  /** Tried out when it is asked for the first time: a mount for a single user never does. */
  get #inheritsAll(): boolean {
    this.#inherits ??= inheritsAll(this.#model, ['read', 'write'])
    return this.#inherits
  }

  get isBuiltinModel(): boolean {
    return this.#options.catalog.get(MODEL_KEY) === undefined
  }

  /** @param object `dir:7/123` or `group:eng` */
  check(subject: string, relation: string, object: string): boolean {
    return this.#evaluator.check(subject, relation, object)
  }

  explain(subject: string, relation: string, object: string): { allowed: boolean; steps: string[] } {
    return this.#evaluator.explain(subject, relation, object)
  }

  /** An object as the evaluator knows it: the key of a tuple with its type. */
  typed(key: string): string {
    if (key.startsWith('group:')) return key
    const { volume, ino } = inodeOf(key)
    // What is not there now may come back with a restore, as what it was: a directory will do.
    return this.graph.objectOf(volume, ino) ?? `dir:${key}`
  }

  newTuple(subject: string, relation: string, object: string, expires_at: string | null = null): StoredTuple {
    return { subject, relation, object, created_at: new Date(this.#now()).toISOString(), expires_at }
  }

  /** Stores tuples and removes others, at one instant. */
  write(added: readonly StoredTuple[], removed: readonly StoredTuple[] = []): void {
    this.#options.commit([...this.#owed.map(removeTuple), ...removed.map(removeTuple), ...added.map(storeTuple)])
    this.#owed = []
    this.written(added, removed)
  }

  /** The same for tuples whose changes the caller committed with others. */
  written(added: readonly StoredTuple[], removed: readonly StoredTuple[] = []): void {
    for (const tuple of removed) this.tuples.remove(tuple)
    for (const tuple of added) this.#add(tuple)
    this.forget()
  }

  setIdentity(uid: number, subject: string | null): void {
    this.#options.commit([storeIdentity(uid, subject)])
    if (subject === null) this.identities.remove(uid)
    else this.identities.set(uid, subject)
    this.forget()
  }

  /** @throws NexusError NEXUS_USAGE when it is no model, or none for a filesystem */
  setModel(text: string): void {
    const model = parseModel(text)
    checkFilesystemModel(model)
    for (const tuple of this.tuples.all()) {
      const reason = allowsTuple(model, { ...tuple, object: this.typed(tuple.object) })
      if (reason !== undefined)
        throw new NexusError('NEXUS_USAGE', `a grant there is does not fit the model: ${reason}; revoke it first`)
    }
    this.#options.commit([{ kind: 'catalog', key: MODEL_KEY, value: text }])
    this.#model = model
    this.#evaluator = this.#evaluatorOf(model)
    this.forget()
  }

  /** Everything that was computed is computed anew. */
  forget(): void {
    this.#remembered = new Map()
    this.#rememberedCount = 0
    this.#mixed.clear()
    this.#named.forget()
    this.#watchExpiry()
  }

  stop(): void {
    this.#alarm.close()
  }

  #load(catalog: Catalog): void {
    for (const [key, subject] of catalog.list(IDENTITY_KIND)) this.identities.set(...parseIdentity(key, subject))
    const stale: StoredTuple[] = []
    const present = new Map<number, boolean>()
    const isPresent = (volume: number): boolean => {
      const known = present.get(volume) ?? this.#options.tree.isPresent(volume)
      present.set(volume, known)
      return known
    }
    for (const [key, text] of catalog.list(TUPLE_KIND)) {
      const tuple = parseTuple(key, text)
      if (workspacesOf(tuple).every(isPresent)) this.#add(tuple)
      else stale.push(tuple)
    }
    // A number may be given again: the next workspace that has it must not inherit.
    if (stale.length > 0) {
      this.#options.commit(stale.map(removeTuple))
      const first = stale.slice(0, LISTED_MAX).map(({ subject, relation, object }) => `${subject} ${relation} ${object}`)
      this.#options.logger.warn({ grants: stale.length, first }, 'grants that name a workspace which is gone were removed')
    }
    this.#watchExpiry()
  }

  #add(tuple: StoredTuple): void {
    this.tuples.add(tuple)
    if (tuple.expires_at !== null) this.#nextExpiry = Math.min(this.#nextExpiry, Date.parse(tuple.expires_at))
  }

  #evaluatorOf(model: Model): Evaluator {
    this.#narrows = narrows(model)
    this.#hides = undefined
    this.#inherits = undefined
    return new Evaluator(model, this.graph, {
      depthMax: DEPTH_MAX,
      onRefusal: (why) => this.#options.logger.warn({ why }, 'access was refused because it could not be computed'),
    })
  }

  #rights(uid: number, place: Place): number {
    const asked = this.#rememberedOf(uid, place)
    const known = asked.map.get(asked.key)
    if (known !== undefined) return known
    // Directories may lie deep in each other, and in a damaged tree in themselves.
    const ways = new Map([[place.ino, asked]])
    let bits: number | undefined
    for (let at = place; bits === undefined; ) {
      const parent = at.attr.parent
      const above = ways.get(at.ino)?.isOwn === true || !this.#inheritsAll ? undefined : at.volume.attr(parent)
      if (above === undefined) bits = this.#compute(uid, at.volume.number, at.ino)
      else if (ways.has(parent) || ways.size === WAY_MAX) bits = this.#refuseWay(at.volume.number, parent)
      else {
        at = { volume: at.volume, ino: parent, attr: above }
        const around = this.#rememberedOf(uid, at)
        bits = around.map.get(around.key)
        ways.set(parent, around)
      }
    }
    for (const { map, key } of ways.values()) {
      if (this.#rememberedCount++ > REMEMBERED_MAX) this.forget()
      map.set(key, bits)
    }
    return bits
  }

  /** Where the rights on an inode are remembered. What contains it, its type and its tuples decide: siblings without tuples have the same. */
  #rememberedOf(uid: number, { volume, ino, attr }: Place): { map: Map<number, number>; key: number; isOwn: boolean } {
    const { own, directories, files } = this.#ofUid(uid)
    const live = this.#options.tree.liveOf(volume.number)
    const isOwn = ino === ROOT_INO || attr.parent === 0 || this.tuples.has(live, ino)
    if (isOwn) return { map: own, key: nodeOf(volume.number, ino), isOwn }
    return { map: this.#siblingsIn(isDirectory(attr) ? directories : files, volume.number), key: attr.parent, isOwn }
  }

  #refuseWay(volume: number, ino: number): number {
    const why = `directories lie more than ${WAY_MAX} deep in each other, or, in a damaged tree, in themselves ("nexusctl fsck" tells)`
    this.#options.logger.warn({ volume, ino }, `access was refused: ${why}`)
    return 0
  }

  #compute(uid: number, volume: number, ino: number): number {
    const object = this.graph.objectOf(volume, ino)
    if (object === undefined) return 0
    const subject = uid === ANYBODY ? 'user:*' : this.identities.subjectOf(uid)
    const mayRead = this.#evaluator.check(subject, 'read', object)
    const mayWrite = this.#evaluator.check(subject, 'write', object)
    return (mayRead ? READ | ENTER : 0) | (mayWrite ? WRITE | ENTER : 0)
  }

  #siblingsIn(workspaces: Map<number, Map<number, number>>, volume: number): Map<number, number> {
    const found = workspaces.get(volume)
    if (found !== undefined) return found
    const made = new Map<number, number>()
    this.#rememberedCount += ANSWERS_PER_MAP
    workspaces.set(volume, made)
    return made
  }

  #ofUid(uid: number): Remembered {
    const found = this.#remembered.get(uid)
    if (found !== undefined) return found
    const made = { own: new Map(), directories: new Map(), files: new Map(), ways: new Map() }
    this.#remembered.set(uid, made)
    return made
  }

  /** Directories of a volume that lead to what a uid may see, which the way itself does not show. */
  #ways(uid: number, volume: number): Set<number> {
    const { ways } = this.#ofUid(uid)
    const found = ways.get(volume)
    if (found !== undefined) return found
    const made = new Set<number>()
    ways.set(volume, made)
    for (const ino of this.tuples.inodesIn(this.#options.tree.liveOf(volume))) {
      if (ino !== ROOT_INO && this.isNamed(volume, ino) && this.#compute(uid, volume, ino) !== 0) this.#addWay(made, volume, ino)
    }
    for (const { number, parent_ino } of this.#options.tree.nestedIn(volume)) {
      const isSeen = this.#compute(uid, number, ROOT_INO) !== 0 || this.#ways(uid, number).has(ROOT_INO)
      if (isSeen) this.#addWay(made, volume, parent_ino).add(parent_ino)
    }
    return made
  }

  /** Adds the directories of a volume that contain an inode. */
  #addWay(ways: Set<number>, volume: number, ino: number): Set<number> {
    for (let at = this.#options.tree.parentOf(volume, ino); at?.volume === volume; ) {
      if (ways.has(at.ino)) break
      ways.add(at.ino)
      at = this.#options.tree.parentOf(volume, at.ino)
    }
    return ways
  }

  /** Directories that somebody may enter for what lies deep in them. Those who may read the whole workspace do not count. */
  #findMixed(volume: number): Set<number> {
    const mixed = new Set<number>()
    const { tree } = this.#options
    const root = this.graph.objectOf(volume, ROOT_INO)
    const seesAll = (subject: string): boolean => root !== undefined && this.#evaluator.check(subject, 'read', root)
    const live = tree.liveOf(volume)
    for (const ino of this.tuples.inodesIn(live)) {
      if (ino === ROOT_INO || !this.isNamed(volume, ino)) continue
      const isNarrow = [...this.tuples.on(`${live}/${ino}`)].some(({ subject }) => !seesAll(subject))
      if (isNarrow) this.#addWay(mixed, volume, ino)
    }
    for (const { number, parent_ino } of tree.nestedIn(volume)) {
      const isNarrow = this.#subjectsIn(number).some((subject) => !seesAll(subject))
      if (isNarrow) this.#addWay(mixed, volume, parent_ino).add(parent_ino)
    }
    return mixed
  }

  /** Subjects of the tuples in a workspace and in those that lie in it. */
  #subjectsIn(volume: number): string[] {
    const volumes = new Set([volume])
    // What is added while a set is walked is walked as well.
    for (const outer of volumes) for (const { number } of this.#options.tree.nestedIn(outer)) volumes.add(number)
    return [...volumes].flatMap((one) => this.#tuplesOn(one).map(({ subject }) => subject))
  }

  #tuplesOn(volume: number): StoredTuple[] {
    return this.tuples.inodesIn(volume).flatMap((ino) => [...this.tuples.on(`${volume}/${ino}`)])
  }

  #watchExpiry(): void {
    this.#alarm.set(this.#nextExpiry === Number.POSITIVE_INFINITY ? undefined : this.#nextExpiry)
  }

  /**
   * What has ended is removed, from memory also when the log cannot take it: a clock that is set back afterwards must not
   * bring it back.
   */
  #expire(): void {
    const ended = [...this.tuples.ending()].filter((tuple) => !this.graph.isValid(tuple))
    for (const tuple of ended) this.tuples.remove(tuple)
    const ends = [...this.tuples.ending()].map(({ expires_at }) => Date.parse(expires_at ?? ''))
    this.#nextExpiry = ends.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
    if (ended.length === 0) {
      this.#watchExpiry()
      return
    }
    this.#owed = [...this.#owed, ...ended]
    try {
      this.write([])
    } catch (error) {
      // The next change of grants takes their end along, or a start does.
      this.#options.logger.warn({ err: error }, 'grants that have ended could not be removed from the log')
      this.forget()
    }
    this.onChanged(this.reached(ended.map(({ object }) => object)), true)
  }
}

/** setTimeout(3) takes 31 bits of milliseconds. */
const TIMER_MS_MAX = 2 ** 31 - 1

/** By the timers of the event loop. */
class TimerAlarm implements Alarm {
  readonly #ring: () => void
  readonly #now: () => number
  #timer: NodeJS.Timeout | undefined

  constructor(ring: () => void, now: () => number) {
    this.#ring = ring
    this.#now = now
  }

  set(at: number | undefined): void {
    clearTimeout(this.#timer)
    if (at === undefined) return
    this.#timer = setTimeout(this.#ring, Math.min(Math.max(0, at - this.#now()), TIMER_MS_MAX)).unref()
  }

  close(): void {
    clearTimeout(this.#timer)
  }
}

/** A model that was applied once. @throws NexusError NEXUS_CORRUPT when it is none: no other may be taken for it */
function storedModel(text: string): Model {
  try {
    return parseModel(text)
  } catch (cause) {
    const message = `the catalog's entry ${MODEL_KEY} is damaged: mount again with --rebuild-index`
    throw new NexusError('NEXUS_CORRUPT', message, { cause })
  }
}
