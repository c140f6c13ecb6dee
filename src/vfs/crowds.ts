/**
 * Inodes on which more users have something than an ACL has room for. Such an inode is shown with nothing for others, and
 * with an ACL that names some: those that came by last. Whom it does not name is refused by the kernel, which before it
 * says so asks for the attributes in that user's name, and forgets the ACL (fuse_permission, fuse_perm_getattr in
 * fs/fuse/dir.c). Then the user is put among those that are named, and has exactly what relations give.
 *
 * - Nobody's grants take away another's rights, and no cap opens anything: others have nothing, whatever is given to user:*.
 * - It costs a GETATTR and a GETXATTR when a user comes by who is not named, on these inodes and on no others.
 * - An ACL that was read before must not refuse the user: the kernel drops it once more before the attributes are answered.
 * - Nobody is put out again before the system call that they came by with had its time: newcomers wait instead.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../logger.ts'
import { atMost } from './atmost.ts'
import type { KernelCaches } from './filesystem.ts'
import { type Guard, NAMED_MAX } from './guard.ts'
import type { Place } from './place.ts'

/** From its answer to the check that it was asked for, a thread may have to wait for a processor. */
const STAY_MS = 200
/** A notify may wait behind one that waits for a lock of the very thread that waits for us. */
const WAIT_MS_MAX = 1000

export type CrowdKernel = Pick<KernelCaches, 'invalidateAttributes'>

/** uids with the time at which they came by, the longest ago first. */
type Crowd = Map<number, number>

/** Who is named in an ACL. */
export interface Names {
  uids: readonly number[]
  /** there are more: nothing may be shown for others */
  isCrowded: boolean
}

export class Crowds {
  readonly #guard: Guard
  readonly #now: () => number
  /** by node */
  readonly #crowds = new Map<number, Crowd>()
  #serving: { kernel: CrowdKernel; logger: Logger; isNext: boolean } | undefined

  /** @param now milliseconds that only grow */
  constructor(guard: Guard, now: () => number = () => performance.now()) {
    this.#guard = guard
    this.#now = now
  }

  /** From now on the kernel takes notifies. @param isNext a process before this one has shown ACLs */
  serve(kernel: CrowdKernel, logger: Logger, isNext: boolean): void {
    this.#serving = { kernel, logger, isNext }
  }

  /** Whom the ACL of an inode names, to whoever asks for it. @param node what is asked about, with the rights of `place` */
  names(asker: number, node: number, place: Place): Names {
    const uids = this.#guard.uidsOn(place)
    if (uids !== undefined) {
      this.#crowds.delete(node)
      return { uids, isCrowded: false }
    }
    const crowd = this.#crowdOf(node)
    const named = [...crowd.keys()]
    if (!this.#counts(asker, place) || crowd.has(asker)) return { uids: named.sort(ascending), isCrowded: true }
    if (this.#makeRoom(crowd) === undefined) crowd.set(asker, this.#now())
    else named.pop()
    return { uids: [...named, asker].sort(ascending), isCrowded: true }
  }

  /**
   * What has to happen before a user is told the attributes of an inode: that its ACL names them.
   * @returns undefined when there is nothing to wait for
   */
  arrival(uid: number, node: number, placeOf: () => Place): Promise<void> | undefined {
    if (uid === 0 || this.#serving === undefined) return undefined
    const { isNext } = this.#serving
    if (!this.#crowds.has(node) && !isNext) return undefined
    const place = placeOf()
    if (this.#guard.uidsOn(place) !== undefined || !this.#counts(uid, place)) return undefined
    const crowd = this.#crowdOf(node)
    if (crowd.delete(uid)) {
      // Of those that are named, the last to come by stay longest.
      crowd.set(uid, this.#now())
      return undefined
    }
    return this.#bounded(this.#join(crowd, uid, node), uid, node)
  }

  /** The kernel does not hold the inode any more. */
  forget(node: number): void {
    this.#crowds.delete(node)
  }

  async #join(crowd: Crowd, uid: number, node: number): Promise<void> {
    for (let wait = this.#makeRoom(crowd); wait !== undefined; wait = this.#makeRoom(crowd)) await sleep(wait)
    crowd.set(uid, this.#now())
    await this.#serving?.kernel.invalidateAttributes(node)
  }

  /** Takes whoever came by longest ago out where there is no room. @returns how long to wait until somebody may go */
  #makeRoom(crowd: Crowd): number | undefined {
    const oldest = crowd.entries().next().value
    if (oldest === undefined || crowd.size < NAMED_MAX) return undefined
    const [uid, since] = oldest
    const left = since + STAY_MS - this.#now()
    if (left > 0) return left
    crowd.delete(uid)
    return undefined
  }

  /** Whether somebody has to be named: whoever has nothing would only take another's place. */
  #counts(uid: number, place: Place): boolean {
    return uid !== 0 && uid !== place.attr.uid && this.#guard.rwx(uid, place) !== 0
  }

  #crowdOf(node: number): Crowd {
    const found = this.#crowds.get(node)
    if (found !== undefined) return found
    const made: Crowd = new Map()
    this.#crowds.set(node, made)
    return made
  }

  #bounded(promise: Promise<void>, uid: number, node: number): Promise<void> {
    const failed = (error: unknown): void =>
      this.#serving?.logger.error({ err: error }, 'the kernel was not told to drop an ACL; it refuses some who may')
    const late = 'a user was answered before the kernel had dropped an ACL without them'
    return atMost(promise.catch(failed), WAIT_MS_MAX, () => this.#serving?.logger.warn({ uid, node }, late))
  }
}

function ascending(a: number, b: number): number {
  return a - b
}
