/**
 * How far a change of tuples reaches. A tuple gives something on its object, on all that lies in that, and on every object
 * that names one of these in a subject: members of a tenant may be viewers of another's workspace, and so on from there.
 *
 * Everything that drops what was derived from rights asks here, so that no way from a right to what depends on it is
 * walked in one direction only. What is looked up are indexes by what subjects name; nothing goes through all tuples.
 */
import { ROOT_INO } from '../volume/keys.ts'
import type { Containment } from './graph.ts'
import { inodeOfObject, type TupleStore } from './tuples.ts'

export interface ReachTree extends Containment {
  /** workspaces that lie directly in one, and where */
  nestedIn(volume: number): Iterable<{ number: number; parent_ino: number }>
}

/**
 * The objects on which rights may be others, now that they are on these.
 * @param objects keys of tuples, such as `7/123` and `group:eng`
 * @returns without what lies in an inode, which has its rights as well
 */
export function objectsReached(tuples: TupleStore, tree: ReachTree, objects: Iterable<string>): Set<string> {
  const reached = new Set(objects)
  // A set grows while it is walked.
  for (const object of reached) {
    const inode = inodeOfObject(object)
    for (const named of inode === undefined ? [object] : namedWithin(tuples, tree, inode)) {
      for (const tuple of tuples.naming(named)) reached.add(tuple.object)
    }
  }
  return reached
}

/** An inode, and whatever lies in it, as far as subjects name it. */
function* namedWithin(tuples: TupleStore, tree: ReachTree, top: { volume: number; ino: number }): Generator<string> {
  const volumes = new Set([top.volume])
  // A set grows while it is walked; workspaces that lie in each other, which only damage makes, end it as well.
  for (const volume of volumes) {
    for (const { number } of tree.nestedIn(volume)) volumes.add(number)
    for (const ino of tuples.inodesNamedIn(volume)) if (isWithin(tree, { volume, ino }, top)) yield `${volume}/${ino}`
  }
}

function isWithin(tree: ReachTree, inner: { volume: number; ino: number }, top: { volume: number; ino: number }): boolean {
  const seen = new Set<string>()
  for (let at: typeof inner | undefined = inner; at !== undefined; at = tree.parentOf(at.volume, at.ino)) {
    if (at.volume === top.volume && at.ino === top.ino) return true
    const key = `${at.volume}/${at.ino}`
    // Directories that lie in themselves are damaged: what depends on them is dropped rather than kept.
    if (seen.has(key)) return true
    seen.add(key)
  }
  // What has lost its place is the root's.
  return top.ino === ROOT_INO
}
