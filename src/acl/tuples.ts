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
    this.#size--
  }

  #forgetObject(object: string): void {
    this.#objects.delete(object)
    const inode = inodeOfObject(object)
    const inside = inode === undefined ? undefined : this.#byVolume.get(inode.volume)
    if (inode === undefined || inside === undefined) return
    inside.delete(inode.ino)
    if (inside.size === 0) this.#byVolume.delete(inode.volume)
  }
}

/** The inode that `7/123` means; undefined for a group. */
function inodeOfObject(object: string): { volume: number; ino: number } | undefined {
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
