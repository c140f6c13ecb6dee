/**
 * The tuples `subject relation object` of a store, in memory and by object and by subject. Objects of the filesystem are
 * inodes, written `7/123` (workspace number and inode), so that a grant follows a rename; groups are `group:NAME`.
 * Each tuple is an entry of the catalog under `t/`, and so travels through the log like everything else.
 */
import { NexusError } from '../errors.ts'
import type { Change } from '../volume/change.ts'

export interface StoredTuple {
  subject: string
  relation: string
  /** `7/123` or `group:NAME` */
  object: string
  /** ISO-8601 */
  created_at: string
  /** ISO-8601; null: never */
  expires_at: string | null
}

export const TUPLE_KIND = 't/'

/** What each relation of one object is given to. */
type ByRelation = Map<string, Map<string, StoredTuple>>

export class TupleStore {
  readonly #objects = new Map<string, ByRelation>()
  readonly #bySubject = new Map<string, Set<StoredTuple>>()
  /** inodes with tuples, by workspace number */
  readonly #byVolume = new Map<number, Set<number>>()
  /** tuples whose subject names an object, such as `tenant:7/1#member`, by that object */
  readonly #byNamed = new Map<string, Set<StoredTuple>>()
  /** inodes that subjects name, by workspace number */
  readonly #namedByVolume = new Map<number, Set<number>>()
  /** tuples that end by themselves */
  readonly #ending = new Set<StoredTuple>()
  #size = 0

  get size(): number {
    return this.#size
  }

  get(object: string, relation: string, subject: string): StoredTuple | undefined {
    return this.#objects.get(object)?.get(relation)?.get(subject)
  }

  /** Whether there is any tuple on an inode. Asked with each request: no text is made for it. */
  has(volume: number, ino: number): boolean {
    return this.#byVolume.get(volume)?.has(ino) === true
  }

  /** To whom a relation of an object is given. */
  of(object: string, relation: string): ReadonlyMap<string, StoredTuple> | undefined {
    return this.#objects.get(object)?.get(relation)
  }

  /** All tuples on an object. */
  *on(object: string): Generator<StoredTuple> {
    for (const tuples of this.#objects.get(object)?.values() ?? []) yield* tuples.values()
  }

  /** All tuples that give this very subject something. */
  to(subject: string): Iterable<StoredTuple> {
    return this.#bySubject.get(subject) ?? []
  }

  /** All tuples whose subject names this object: what they give depends on what is given on the object. */
  naming(object: string): Iterable<StoredTuple> {
    return this.#byNamed.get(object) ?? []
  }

  /** Inodes of a workspace that subjects name. */
  inodesNamedIn(volume: number): Iterable<number> {
    return this.#namedByVolume.get(volume) ?? []
  }

  isNamed(volume: number, ino: number): boolean {
    return this.#namedByVolume.get(volume)?.has(ino) === true
  }

  /** All tuples that a workspace occurs in: those on its inodes, and those whose subject names one of them. */
  about(volume: number): StoredTuple[] {
    const on = this.inodesIn(volume).flatMap((ino) => [...this.on(`${volume}/${ino}`)])
    const naming = [...this.inodesNamedIn(volume)].flatMap((ino) => [...this.naming(`${volume}/${ino}`)])
    return [...new Set([...on, ...naming])]
  }

  /** Workspaces that occur in any tuple, as what something is given on or as what a subject names. */
  numbers(): Set<number> {
    return new Set([...this.#byVolume.keys(), ...this.#namedByVolume.keys()])
  }

  /** The inode numbers of a workspace that occur in any tuple. */
  inodesOf(volume: number): number[] {
    return [...this.inodesIn(volume), ...this.inodesNamedIn(volume)]
  }

  /** Tuples that end by themselves. */
  ending(): Iterable<StoredTuple> {
    return this.#ending
  }

  subjects(): Iterable<string> {
    return this.#bySubject.keys()
  }

  /** Objects that are no inodes. */
  *groups(): Generator<string> {
    for (const object of this.#objects.keys()) if (object.startsWith('group:')) yield object
  }

  /** Inodes of a workspace that have tuples. */
  inodesIn(volume: number): number[] {
    return [...(this.#byVolume.get(volume) ?? [])]
  }

  volumes(): Iterable<number> {
    return this.#byVolume.keys()
  }

  *all(): Generator<StoredTuple> {
    for (const object of this.#objects.keys()) yield* this.on(object)
  }

  add(tuple: StoredTuple): void {
    this.remove(tuple)
    const relations = entryOf(this.#objects, tuple.object, () => new Map() as ByRelation)
    entryOf(relations, tuple.relation, () => new Map<string, StoredTuple>()).set(tuple.subject, tuple)
    entryOf(this.#bySubject, tuple.subject, () => new Set<StoredTuple>()).add(tuple)
    const inode = inodeOfObject(tuple.object)
    if (inode !== undefined) entryOf(this.#byVolume, inode.volume, () => new Set<number>()).add(inode.ino)
    this.#addNamed(tuple)
    if (tuple.expires_at !== null) this.#ending.add(tuple)
    this.#size++
  }

  remove({ object, relation, subject }: Pick<StoredTuple, 'object' | 'relation' | 'subject'>): void {
    const relations = this.#objects.get(object)
    const given = relations?.get(relation)
    const tuple = given?.get(subject)
    if (relations === undefined || given === undefined || tuple === undefined) return
    given.delete(subject)
    if (given.size === 0) relations.delete(relation)
    if (relations.size === 0) this.#forgetObject(object)
    const same = this.#bySubject.get(subject)
    same?.delete(tuple)
    if (same?.size === 0) this.#bySubject.delete(subject)
    this.#removeNamed(tuple)
    this.#ending.delete(tuple)
    this.#size--
  }

  #forgetObject(object: string): void {
    this.#objects.delete(object)
    removeInode(this.#byVolume, object)
  }

  #addNamed(tuple: StoredTuple): void {
    const named = namedBy(tuple.subject)
    if (named === undefined) return
    entryOf(this.#byNamed, named.object, () => new Set<StoredTuple>()).add(tuple)
    const inode = inodeOfObject(named.object)
    if (inode !== undefined) entryOf(this.#namedByVolume, inode.volume, () => new Set<number>()).add(inode.ino)
  }

  #removeNamed(tuple: StoredTuple): void {
    const named = namedBy(tuple.subject)
    const same = named === undefined ? undefined : this.#byNamed.get(named.object)
    if (named === undefined || same === undefined) return
    same.delete(tuple)
    if (same.size > 0) return
    this.#byNamed.delete(named.object)
    removeInode(this.#namedByVolume, named.object)
  }
}

function removeInode(byVolume: Map<number, Set<number>>, object: string): void {
  const inode = inodeOfObject(object)
  const inside = inode === undefined ? undefined : byVolume.get(inode.volume)
  if (inode === undefined || inside === undefined) return
  inside.delete(inode.ino)
  if (inside.size === 0) byVolume.delete(inode.volume)
}

const namesObject = /^(?:(group):[^#]+|(dir|file|workspace|tenant):(\d{1,7}\/\d{1,10}))(?:#.*)?$/

/** The object that a subject names, and as what; undefined for a person, and for all of a type. */
export function namedBy(subject: string): { type: string; object: string } | undefined {
  const parts = namesObject.exec(subject)
  if (parts === null) return undefined
  if (parts[1] !== undefined) return { type: 'group', object: subject.split('#', 1)[0] ?? subject }
  return { type: parts[2] ?? '', object: parts[3] ?? '' }
}

/** The numbers of the workspaces that a tuple is about. */
export function workspacesOf({ object, subject }: Pick<StoredTuple, 'object' | 'subject'>): number[] {
  const named = namedBy(subject)
  const objects = named === undefined ? [object] : [object, named.object]
  return objects.flatMap((one) => inodeOfObject(one)?.volume ?? [])
}

/** The inode that `7/123` means; undefined for a group. */
export function inodeOfObject(object: string): { volume: number; ino: number } | undefined {
  const volume = Number.parseInt(object, 10)
  return Number.isNaN(volume) ? undefined : { volume, ino: Number(object.slice(object.indexOf('/') + 1)) }
}

function entryOf<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = make()
  map.set(key, made)
  return made
}

/** A key is unique to its tuple: neither objects nor relations have a space in them. */
function tupleKey({ object, relation, subject }: Pick<StoredTuple, 'object' | 'relation' | 'subject'>): string {
  return `${TUPLE_KIND}${object} ${relation} ${subject}`
}

export function storeTuple(tuple: StoredTuple): Change {
  const { created_at, expires_at } = tuple
  return { kind: 'catalog', key: tupleKey(tuple), value: JSON.stringify({ created_at, expires_at }) }
}

export function removeTuple(tuple: Pick<StoredTuple, 'object' | 'relation' | 'subject'>): Change {
  return { kind: 'catalog', key: tupleKey(tuple), value: null }
}

const isStoredObject = /^(\d{1,7}\/\d{1,10}|group:.+)$/

/** What is no time would never be over. */
function isTime(value: unknown): value is string {
  return typeof value === 'string' && !Number.isNaN(Date.parse(value))
}

/**
 * The tuple that an entry of the catalog is.
 * @throws NexusError NEXUS_CORRUPT: a tuple that cannot be read must not be taken for none, nor for one without an end
 */
export function parseTuple(key: string, text: string): StoredTuple {
  const [object = '', relation, subject, ...rest] = key.slice(TUPLE_KIND.length).split(' ')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  const { created_at, expires_at } = (value ?? {}) as { created_at?: unknown; expires_at?: unknown }
  const isWhole = typeof created_at === 'string' && (expires_at === null || isTime(expires_at))
  if (!isStoredObject.test(object) || !relation || !subject || rest.length > 0 || !isWhole) {
    throw new NexusError('NEXUS_CORRUPT', `the catalog's entry ${key} is damaged: mount again with --rebuild-index`)
  }
  return { object, relation, subject, created_at, expires_at }
}
