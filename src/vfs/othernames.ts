/**
 * Other names of inodes that have several. An inode records the one that was made last, and its rights come from the
 * directory of that; when that name goes, another takes its place. What was linked before the mount is looked for beside
 * the name that goes.
 */
import { cookieOf, slotOf } from '../volume/dirent.ts'
import type { Volume } from '../volume/volume.ts'
import { nodeOf } from './place.ts'

export interface Name {
  parent: number
  name: string
}

/** Inodes remembered at most; the oldest are forgotten first. */
const INODES_MAX = 100_000
const NAMES_MAX = 16
/** Entries looked through in the directory of a name that goes … */
const SEARCHED_MAX = 1000
/** … and where others were looked for in vain: whole trees of second names are removed as well. */
const GLANCED_MAX = 32
/** After so many searches in vain, one after the other, only one name in 2^so many is looked for among so many entries. */
const MISSES_MAX = 10
const DIRECTORIES_MAX = 1000

export class OtherNames {
  readonly #names = new Map<number, Name[]>()
  /** by directory, how often in a row nothing was found there, and how many names go before it is looked for again */
  readonly #misses = new Map<number, { count: number; rest: number }>()

  /** An inode had this name recorded and will have another. */
  remember(volume: number, ino: number, { parent, name }: Name): void {
    if (parent === 0) return
    const node = nodeOf(volume, ino)
    const names = this.#names.get(node) ?? []
    this.#names.delete(node)
    this.#names.set(node, [...names, { parent, name }].slice(-NAMES_MAX))
    if (this.#names.size > INODES_MAX) for (const oldest of this.#names.keys()) return void this.#names.delete(oldest)
  }

  /** A name that an inode still has once `gone` is removed; parent 0 when none is known. */
  besides(volume: Volume, ino: number, gone: Name): Name {
    const isLeft = ({ parent, name }: Name): boolean => {
      if (parent === gone.parent && name === gone.name) return false
      const entry = volume.entry(parent, name)
      return entry !== undefined && entry.volume === 0 && entry.ino === ino
    }
    const known = this.#names.get(nodeOf(volume.number, ino))?.findLast(isLeft)
    return known ?? this.#beside(volume, ino, gone) ?? { parent: 0, name: '' }
  }

  #beside(volume: Volume, ino: number, gone: Name): Name | undefined {
    const directory = nodeOf(volume.number, gone.parent)
    const misses = this.#misses.get(directory)
    const isGlance = misses !== undefined && misses.rest-- > 0
    const found = search(volume, ino, gone, isGlance ? GLANCED_MAX : SEARCHED_MAX)
    if (found !== undefined) this.#misses.delete(directory)
    else if (!isGlance) {
      const count = Math.min(MISSES_MAX, (misses?.count ?? 0) + 1)
      if (this.#misses.size >= DIRECTORIES_MAX) this.#misses.clear()
      this.#misses.set(directory, { count, rest: 2 ** count - 1 })
    }
    return found
  }
}

/** Behind the name that goes, then from the beginning: a tree is removed in that order, and before the name nothing is left of it. */
function search(volume: Volume, ino: number, gone: Name, max: number): Name | undefined {
  for (const cookie of [cookieOf(slotOf(gone.name), 0), 0]) {
    for (const [, { volume: workspace, ino: other, name }] of volume.entries(gone.parent, cookie, max)) {
      if (other === ino && workspace === 0 && name !== gone.name) return { parent: gone.parent, name }
    }
  }
  return undefined
}
