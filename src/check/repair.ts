/**
 * Mending what a check has found in a live volume. All fixes of a volume become one new tree and one commit, as a restore
 * does it: a crash leaves all of them or none. Nobody else may write meanwhile.
 */
import { assert } from '../errors.ts'
import { type Attr, altered, isDirectory, S_IFDIR, S_IFMT, type Time } from '../volume/attr.ts'
import { type Dirent, freeIndex, slotOf } from '../volume/dirent.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { editsOf } from '../volume/merge.ts'
import type { Super, Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import type { Fix } from './finding.ts'

/** Where what nothing leads to gets a name: in the root of its workspace. */
export const LOST_AND_FOUND = 'lost+found'
/** Nobody's but the administrator's: what is found may have lain in a closed directory. */
const CLOSED = 0o700

/** In this order: an inode has attributes before it gets a name. */
const ORDER: readonly Fix['kind'][] = ['make', 'attr', 'drop', 'unentry', 'entry', 'unorphan', 'adopt', 'recount']

/** @param counted the volume's counters as they should be before the fixes */
export function repairVolume(volumes: Volumes, number: number, fixes: readonly Fix[], counted: Super, now: Time): void {
  const volume = volumes.get(number)
  assert(volume?.active.empty === true, 'a volume is repaired when nobody writes')
  const { root, domain } = volume
  const draft = volumes.view(number, domain, root)
  draft.super = { ...counted }
  const repair = new Repair(draft, now)
  for (const kind of ORDER) for (const fix of fixes) if (fix.kind === kind) repair.apply(fix)
  const mended = volumes.tree.editNow(root, editsOf(draft, root, draft.freeze(), new Map()))
  volumes.commit([{ kind: 'root', volume: number, root: mended, domain, inoNext: draft.super.inoNext }])
}

class Repair {
  readonly #volume: Volume
  readonly #now: Time
  #lostAndFound: number | undefined

  constructor(volume: Volume, now: Time) {
    this.#volume = volume
    this.#now = now
  }

  apply(fix: Fix): void {
    const volume = this.#volume
    switch (fix.kind) {
      case 'make':
        volume.setAttr(fix.ino, { ...this.#fresh(), ...fix.attr })
        break
      case 'attr':
        this.#patch(fix.ino, fix.patch)
        break
      case 'drop':
        volume.drop(fix.ino)
        break
      case 'unentry':
        volume.removeEntry(fix.directory, fix.slot, fix.index)
        break
      case 'entry':
        this.#entry(fix.directory, fix.slot, fix.entry)
        break
      case 'unorphan':
        volume.setOrphan(fix.ino, false)
        break
      case 'adopt':
        this.#adopt(fix.ino)
        break
      case 'recount':
        break
    }
  }

  #entry(directory: number, slot: number, entry: Dirent): void {
    const attr = this.#volume.attr(directory)
    // Link counts that this makes wrong are the next check's.
    if (attr !== undefined && isDirectory(attr)) {
      const bucket = this.#volume.bucket(directory, slot)
      const known = bucket?.find((each) => each.name === entry.name)
      this.#volume.setEntry(directory, slot, { ...entry, index: known?.index ?? freeIndex(bucket) })
    }
  }

  #patch(ino: number, patch: Partial<Attr>): void {
    const attr = this.#volume.attr(ino)
    if (attr !== undefined) this.#volume.setAttr(ino, altered(attr, patch))
  }

  #adopt(ino: number): void {
    const attr = this.#volume.attr(ino)
    if (attr === undefined) return
    const parent = this.#place()
    const name = this.#freeName(parent, `#${ino}`)
    this.#name(parent, name, ino, attr.mode & S_IFMT)
    const nlink = isDirectory(attr) ? Math.max(2, attr.nlink) : 1
    this.#patch(ino, { nlink, parent, name })
    if (isDirectory(attr)) this.#patch(parent, { nlink: (this.#volume.attr(parent)?.nlink ?? 2) + 1 })
  }

  /** The directory lost+found, made when there is none. */
  #place(): number {
    if (this.#lostAndFound !== undefined) return this.#lostAndFound
    const known = this.#volume.entry(ROOT_INO, LOST_AND_FOUND)
    const attr = known?.volume === 0 ? this.#volume.attr(known.ino) : undefined
    this.#lostAndFound = known !== undefined && attr !== undefined && isDirectory(attr) ? known.ino : this.#makePlace()
    return this.#lostAndFound
  }

  #makePlace(): number {
    const ino = this.#volume.super.inoNext
    const name = this.#freeName(ROOT_INO, LOST_AND_FOUND)
    this.#volume.setAttr(ino, { ...this.#fresh(), mode: S_IFDIR | CLOSED, nlink: 2, parent: ROOT_INO, name })
    this.#name(ROOT_INO, name, ino, S_IFDIR)
    this.#patch(ROOT_INO, { nlink: (this.#volume.attr(ROOT_INO)?.nlink ?? 2) + 1 })
    return ino
  }

  #name(directory: number, name: string, ino: number, type: number): void {
    const slot = slotOf(name)
    const index = freeIndex(this.#volume.bucket(directory, slot))
    this.#volume.setEntry(directory, slot, { index, name, type, ino, volume: 0 })
  }

  #freeName(directory: number, wanted: string): string {
    let name = wanted
    for (let i = 1; this.#volume.entry(directory, name) !== undefined; i++) name = `${wanted}-${i}`
    return name
  }

  #fresh(): Attr {
    const times = { atime: this.#now, mtime: this.#now, ctime: this.#now, btime: this.#now }
    const nothing = { nlink: 1, uid: 0, gid: 0, rdev: 0, size: 0, allocated: 0, xattrs: 0, parent: 0, name: '' }
    return { ...times, ...nothing, mode: CLOSED }
  }
}
