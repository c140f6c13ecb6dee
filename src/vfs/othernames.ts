/**
 * Other names of inodes that have several. An inode records the one that was made last, and its rights come from the
 * directory of that; when that name goes, another takes its place. What was linked before the mount is looked for beside
 * the name that goes.
 */
import type { Volume } from '../volume/volume.ts'
import { nodeOf } from './core.ts'

export interface Name {
  parent: number
  name: string
}

/** Inodes remembered at most; the oldest are forgotten first. */
const INODES_MAX = 100_000
const NAMES_MAX = 16
/** Entries looked through in the directory of a name that goes. */
const SEARCHED_MAX = 1000

export class OtherNames {
  readonly #names = new Map<number, Name[]>()

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
    let searched = 0
    for (const [, entry] of volume.entries(gone.parent, 0)) {
      if (entry.ino === ino && entry.volume === 0 && entry.name !== gone.name) return { parent: gone.parent, name: entry.name }
      if (++searched > SEARCHED_MAX) return undefined
    }
    return undefined
  }
}
