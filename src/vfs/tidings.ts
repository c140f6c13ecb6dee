/**
 * Names that came or went with a restore, while a thread of ours has the kernel tell of them (FileToucher). Only system calls
 * make IN_CREATE and IN_DELETE, so that thread makes or removes the name once more, and is answered as if that had not been done.
 *
 * - A request of that thread changes nothing and leaves no record. Any other request is answered as always. When the process
 *   ends before it has answered, the kernel sends the request to the next one, which knows it by its group and refuses it.
 * - An answer is given only while it is true: a name that came is there, a name that went is not. Otherwise the thread gets
 *   an error, upon which the kernel tells of nothing.
 * - No other process sees what the thread is answered. The kernel holds the directory's lock from its LOOKUP until the answer to
 *   the change (fs/namei.c, filename_create, do_unlinkat), and keeps neither answer to that LOOKUP: another process that finds
 *   such a name in the cache asks again (fs/fuse/dir.c, fuse_dentry_revalidate).
 */
import { FS } from '../errors.ts'
import { S_IFDIR } from '../volume/attr.ts'
import type { Core } from './core.ts'
import type { Stat } from './filesystem.ts'

export interface Tiding {
  kind: 'came' | 'went'
  /** the node of its directory */
  directory: number
  name: string
  /** S_IFMT bits */
  type: number
}

/** The group of such a request of root's, also where the thread is not known: of a process that ended (src/fuse/native/touch.c). */
export const ERRAND_GID = 0xffff_fffd

/** The kernel is told nodes from there on downwards for names that are gone; one of its own is above them (PROBE_NODE). */
const PHANTOM_MAX = Number.MAX_SAFE_INTEGER - 1
const PHANTOMS = 2 ** 20

export class Tidings {
  readonly #core: Core
  readonly #tidings = new Map<string, Tiding>()
  #phantoms = 0

  constructor(core: Core) {
    this.#core = core
  }

  /** A thread of ours will make or remove that name. */
  add(tiding: Tiding): void {
    this.#tidings.set(keyOf(tiding.directory, tiding.name), tiding)
  }

  /** No thread will. Quiet when another tiding of the same name has taken its place. */
  delete(tiding: Tiding): void {
    const key = keyOf(tiding.directory, tiding.name)
    if (this.#tidings.get(key) === tiding) this.#tidings.delete(key)
  }

  /** @returns undefined when this is no name to tell of: then the answer is that of any LOOKUP */
  lookup(directory: number, name: string): Stat | undefined {
    const tiding = this.#tidings.get(keyOf(directory, name))
    if (tiding === undefined) return undefined
    this.#demandTrue(tiding)
    // The kernel remembers a name as absent only when it is told so by an answer without an error.
    if (tiding.kind === 'came') throw FS.ENOENT
    return this.#phantom(directory, tiding.type)
  }

  /** Our thread makes or removes a name. @throws ECANCELED, or ENOENT, when this is nothing to tell of */
  demand(kind: Tiding['kind'], directory: number, name: string): void {
    const tiding = this.#tidings.get(keyOf(directory, name))
    if (tiding?.kind !== kind) throw FS.ECANCELED
    this.#demandTrue(tiding)
  }

  #demandTrue({ kind, directory, name }: Tiding): void {
    const { volume, ino } = this.#core.directory(directory)
    if ((volume.entry(ino, name) !== undefined) !== (kind === 'came')) throw FS.ECANCELED
  }

  /** An inode for the kernel to remove: it lasts until that is answered. */
  #phantom(directory: number, type: number): Stat {
    this.#phantoms = (this.#phantoms + 1) % PHANTOMS
    const node = PHANTOM_MAX - this.#phantoms
    const { mode: _, ...stat } = this.#core.stat(this.#core.directory(directory))
    const nlink = type === S_IFDIR ? 2 : 1
    return { ...stat, node, generation: 0, mode: type | 0o600, nlink, size: 0, allocated: 0, isPrivate: true, isFleeting: true }
  }
}

function keyOf(directory: number, name: string): string {
  return `${directory}/${name}`
}
