/**
 * The tuples as the evaluator asks for them. An object of the filesystem is `dir:7/123`: its type, workspace number and
 * inode. What contains it is read from the tree and stored nowhere; the inodes of a snapshot's view have the tuples of
 * the workspace that it was taken of, because grants are not part of a snapshot.
 */
import type { Relationships } from './run.ts'
import { inodeOfObject, namedBy, type StoredTuple, type TupleStore } from './tuples.ts'

/** What is asked about the tree; `src/workspaces` answers from workspaces and volumes. */
export interface Containment {
  /** type of an inode (dir, file, workspace, tenant), or undefined when there is none */
  typeOf(volume: number, ino: number): string | undefined
  /** where the directory is that contains it, or undefined at the root of all */
  parentOf(volume: number, ino: number): { volume: number; ino: number } | undefined
  /** the workspace that a snapshot's view shows; any other number is itself */
  liveOf(volume: number): number
  /** false for what is open and has no name any more, and for what is not there */
  isNamed(volume: number, ino: number): boolean
}

export const CONTAINMENT = 'parent'

export class Graph implements Relationships {
  readonly #tuples: TupleStore
  readonly #tree: Containment
  readonly #now: () => number

  /** @param now milliseconds since the epoch */
  constructor(tuples: TupleStore, tree: Containment, now: () => number) {
    this.#tuples = tuples
    this.#tree = tree
    this.#now = now
  }

  /** `dir:7/123`; undefined when there is no such inode. */
  objectOf(volume: number, ino: number): string | undefined {
    const type = this.#tree.typeOf(volume, ino)
    return type === undefined ? undefined : `${type}:${volume}/${ino}`
  }

  /** The key of an object's tuples. */
  keyOf(object: string): string {
    if (object.startsWith('group:')) return object
    const { volume, ino } = inodeOf(object)
    return `${this.#tree.liveOf(volume)}/${ino}`
  }

  has(object: string, relation: string, subject: string): boolean {
    if (relation === CONTAINMENT) return this.#container(object) === subject
    const tuple = this.#tuples.get(this.keyOf(object), relation, subject)
    return tuple !== undefined && this.isValid(tuple) && this.#isReal(subject)
  }

  *usersets(object: string, relation: string): Generator<string> {
    for (const subject of this.subjects(object, relation)) if (subject.includes('#')) yield subject
  }

  *objects(object: string, relation: string): Generator<string> {
    for (const subject of this.subjects(object, relation)) if (!subject.includes('#') && !subject.endsWith(':*')) yield subject
  }

  *subjects(object: string, relation: string): Generator<string> {
    if (relation === CONTAINMENT) {
      const container = this.#container(object)
      if (container !== undefined) yield container
      return
    }
    for (const tuple of this.#tuples.of(this.keyOf(object), relation)?.values() ?? []) {
      if (this.isValid(tuple) && this.#isReal(tuple.subject)) yield tuple.subject
    }
  }

  /**
   * Whether what a subject names is there now, and is what the subject says: `tenant:7/1` must be a tenant. Workspace 7 may
   * have been moved, or be gone and wait in a snapshot for a restore.
   */
  #isReal(subject: string): boolean {
    const named = namedBy(subject)
    const inode = named === undefined ? undefined : inodeOfObject(named.object)
    if (named === undefined || inode === undefined) return true
    return this.#tree.typeOf(inode.volume, inode.ino) === named.type && this.#tree.isNamed(inode.volume, inode.ino)
  }

  isValid({ expires_at }: StoredTuple): boolean {
    return expires_at === null || Date.parse(expires_at) > this.#now()
  }

  #container(object: string): string | undefined {
    if (object.startsWith('group:')) return undefined
    const { volume, ino } = inodeOf(object)
    const parent = this.#tree.parentOf(volume, ino)
    return parent === undefined ? undefined : this.objectOf(parent.volume, parent.ino)
  }
}

/** The inode that `dir:7/123` or `7/123` means. */
export function inodeOf(object: string): { volume: number; ino: number } {
  const start = object.indexOf(':') + 1
  const slash = object.indexOf('/', start)
  return { volume: Number(object.slice(start, slash)), ino: Number(object.slice(slash + 1)) }
}
