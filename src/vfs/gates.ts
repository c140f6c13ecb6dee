/**
 * The directories that everybody may enter and where not everybody may see everything: /tenants and /workspace. To stat a
 * name takes no more than x on its directory, so the kernel may keep a name there only if all who may enter may see it.
 *
 * So it is shown an ACL in which nobody has x but the uids that were *admitted*. Whoever was not makes the kernel ask for
 * the attributes of the directory in his name (fuse_permission, fs/fuse/dir.c). He is admitted then: names that are not
 * for him expire first, and from now on such names are handed out for once only; then he is put into the ACL, and
 * answered. A name lasts when all who were admitted may see it. Uid 0 passes by its capabilities and is never admitted.
 *
 * This takes a directory of root's whose permission bits treat group and others alike and that has no ACL of its own; any
 * other is shown as it is, and its names last for nobody.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { FsError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { Pace } from '../pace.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { AclEntry } from './acl.ts'
import { atMost } from './atmost.ts'
import type { Core } from './core.ts'
import type { KernelCaches, Stat } from './filesystem.ts'
import { gateAcl, gateMode, isAlike, withoutShown } from './gateshape.ts'
import { LastingNames } from './lasting.ts'
import { nodeOf, type Place, volumeOf } from './place.ts'

/** The kernel reads an ACL into one page, 511 entries. */
const ADMITTED_MAX = 400
/**
 * Before Linux 6.16 an admission may wait for a lock of the very thread that waits for it (utimensat(2) of the directory
 * itself has its lock); since then the notifies have a deadline of their own. It is longer than names take to settle
 * (lasting.ts). Who is answered without having been admitted is in no ACL, so the kernel refuses them the way.
 */
const WAIT_MS_MAX = 5000
const SLICE_MS = 3
/** Shown as the group of the root of the mount, where groups mean nothing: nobody is in it. */
const NOBODY_GID = 0xffff_fffe

export type GateKernel = Pick<KernelCaches, 'expireEntry' | 'invalidateAttributes'>

interface Gate {
  readonly ino: number
  /**
   * - plain: shown as it is; its names are not kept
   * - opening, closing: shown with the ACL, but no name is kept any more; until the kernel has dropped what it had
   * - open: shown with the ACL, names are kept
   */
  state: 'plain' | 'opening' | 'open' | 'closing'
  /** resolves when it is neither opening nor closing */
  turning: Promise<void>
  readonly admitted: Set<number>
  /** uids whose admission is under way: names are judged with them already */
  readonly arriving: Map<number, Promise<void>>
  /** by workspace, somebody who may not see it: asked first when a name is judged */
  readonly blockers: Map<number, number>
  /** until the mount ends: there were too many uids, or the kernel did not take a notify */
  isOff: boolean
}

export class Gates {
  readonly #core: Core
  readonly #gates = new Map<number, Gate>()
  /** directories whose names the kernel may keep by leave of a process before this one */
  readonly #inherited = new Set<number>()
  #takenOver: Promise<void> = Promise.resolve()
  #isNext = false
  #serving: { kernel: GateKernel; names: LastingNames; logger: Logger } | undefined

  constructor(core: Core) {
    this.#core = core
  }

  /** From now on names may be kept: the kernel takes notifies, and knows FUSE_EXPIRE_ONLY (7.38). */
  async serve(kernel: GateKernel, logger: Logger): Promise<void> {
    const names = new LastingNames(kernel, (volume) => this.#core.registry.gateNameOf(volume))
    this.#serving = { kernel, names, logger }
    // The gates are shown as what they are when somebody comes by; the root may have been looked at.
    await kernel.invalidateAttributes(nodeOf(0, ROOT_INO))
  }

  /**
   * The same where a process before this one has let names be kept and uids into ACLs. Call it before any request is
   * served; until the kernel has dropped them, no name is kept, and who is new waits.
   */
  takeOver(kernel: GateKernel, logger: Logger): void {
    this.#isNext = true
    const served = this.serve(kernel, logger)
    const directories = [...this.#directories()]
    for (const { ino } of directories) this.#inherited.add(ino)
    // Whatever is a gate begins to open.
    for (const place of directories) this.#shown(place)
    const turns = directories.map(({ ino }) => this.#gates.get(ino)?.turning)
    this.#takenOver = Promise.all([served, ...turns]).then(
      () => undefined,
      (error: unknown) => this.#failed(error),
    )
  }

  /** Resolves when nothing is left of what a process before this one let be kept. */
  get takenOver(): Promise<void> {
    return this.#takenOver
  }

  /**
   * Whether the kernel may keep the name of a workspace.
   * @param thread that takes the answer without a lock, as LOOKUP has it
   */
  keeps(directory: Place, place: Place, thread?: number): boolean {
    const gate = this.#shown(directory)
    if (gate?.state !== 'open') return false
    const volume = place.volume.number
    if (!this.#names.has(volume, gate.ino) && !this.#isForAll(gate, place)) return false
    this.#names.keep(volume, gate.ino, thread)
    return true
  }

  /** Whether the kernel keeps it already: a listing does not judge a thousand names. */
  isKept(directory: Place, place: Place): boolean {
    return this.#shown(directory)?.state === 'open' && this.#names.has(place.volume.number, directory.ino)
  }

  /** A thread asks for something. */
  heard(thread: number): void {
    this.#serving?.names.heard(thread)
  }

  /**
   * Rights in these workspaces are others than before: who may see the name of the one that contains them depends on
   * what may be seen inside. Resolves when the kernel asks for it again; it is judged anew from now on.
   */
  async expire(volumes: Iterable<number>): Promise<void> {
    await this.#takenOver
    await this.#serving?.names.expire(new Set([...volumes].map((volume) => this.#outermost(volume))))
  }

  /** The same where nobody can wait, because the kernel holds the directories of a rename or rmdir. */
  expireSoon(volumes: Iterable<number>): void {
    this.expire(volumes).catch((error: unknown) => this.#failed(error))
  }

  /**
   * What has to happen before a uid may be told the attributes of a directory: that it is admitted, or that the
   * directory has turned into what the administrator made of it.
   * @returns undefined when there is nothing to wait for
   */
  arrival(uid: number, place: Place): Promise<void> | undefined {
    const gate = this.#shown(place)
    if (gate === undefined || gate.admitted.has(uid)) return undefined
    if (uid !== 0) return this.#bounded(this.#admission(gate, uid), uid)
    return gate.state === 'open' ? undefined : this.#bounded(gate.turning, uid)
  }

  /**
   * Whether a look at the ACL waits for the arrival too: the administrator's own, for what he has just changed; and, as the
   * kernel's may be under a lock, else only where the process before this one may have admitted whom the kernel now looks for.
   */
  awaitsAcl(uid: number): boolean {
    return uid === 0 || this.#isNext
  }

  // What the kernel is shown of the directories.

  /** What is told of a directory other than it is stored: permission bits with the mask in place of the group's. */
  shownAs(place: Place): Pick<Partial<Stat>, 'mode' | 'gid' | 'isFleeting'> {
    const { mode } = place.attr
    if (this.#isRoot(place)) return { mode: mode & ~0o070, gid: NOBODY_GID }
    const gate = this.#shown(place)
    if (gate === undefined) return {}
    const shown = { mode: gateMode(mode) }
    return gate.state === 'opening' || gate.state === 'closing' ? { ...shown, isFleeting: true } : shown
  }

  /**
   * Of the root of the mount the kernel never keeps the ACL, and would ask for it on each walk: it made that inode before
   * it knew of ACLs. Without bits for the group it does not look for one.
   */
  #isRoot(place: Place): boolean {
    return place.ino === ROOT_INO && this.#serving !== undefined && isAlike(place)
  }

  /** The ACL that stands for the permission bits; undefined where they say it themselves. */
  acl(place: Place): AclEntry[] | undefined {
    const gate = this.#shown(place)
    if (gate !== undefined) return gateAcl(place.attr.mode, gate.admitted, 0)
    // Who waits for this turn has the bits of before, whatever he is answered: a notify went out after he asked.
    const isOff = place.volume.number === 0 && this.#gates.get(place.ino)?.isOff === true
    return isOff && this.#isWanted(place) ? gateAcl(place.attr.mode, [], place.attr.mode & 7) : undefined
  }

  /** What chmod(2) means: bits that are as they were shown stay what they are. */
  storedMode(place: Place, mode: number): number {
    const shown = this.shownAs(place).mode
    return shown === undefined || (shown & 0o777) !== (mode & 0o777) ? mode : (mode & ~0o777) | (place.attr.mode & 0o777)
  }

  /** The same for an ACL: what was only shown is not stored, so that nobody is shut out by a tool that copies ACLs. */
  storedAcl(place: Place, entries: readonly AclEntry[]): readonly AclEntry[] {
    const gate = this.#shown(place)
    if (gate === undefined || gate.state === 'closing') return entries
    return withoutShown(entries, place.attr.mode & 7, gate.admitted)
  }

  /** Every directory that may be a gate. */
  *#directories(): Generator<Place> {
    const { volume } = this.#core.place(nodeOf(0, ROOT_INO))
    for (const [, entry] of volume.entries(ROOT_INO, 0)) {
      if (entry.volume === 0 && this.#core.registry.makesWorkspace(0, entry.ino)) yield this.#core.place(nodeOf(0, entry.ino))
    }
  }

  /** Names of all workspaces in a directory that the kernel may hold. */
  async #expireAll({ volume, ino }: Place): Promise<void> {
    const held = [...volume.entries(ino, 0)].filter(
      ([, entry]) => entry.volume !== 0 && this.#core.known.has(entry.volume, ROOT_INO),
    )
    await Promise.all(held.map(([, entry]) => this.#serving?.kernel.expireEntry(nodeOf(0, ino), entry.name)))
  }

  #outermost(volume: number): number {
    // A workspace that is recorded to lie in itself, which only damage makes, ends the way as well.
    const seen = new Set([volume])
    for (const inner of seen) {
      const parent = this.#core.registry.parentOf(inner)
      const outer = parent === undefined ? 0 : volumeOf(parent)
      if (outer === 0 || seen.has(outer)) return inner
      seen.add(outer)
    }
    return volume
  }

  get #names(): LastingNames {
    if (this.#serving === undefined) throw new TypeError('no name is kept before the kernel can be told')
    return this.#serving.names
  }

  /** The gate, if the kernel is shown the ACL. Whatever made it one, or makes it none any more, is noticed here. */
  #shown(place: Place): Gate | undefined {
    if (place.volume.number !== 0 || this.#serving === undefined || place.ino === ROOT_INO) return undefined
    const isWanted = this.#isWanted(place)
    const gate = this.#gates.get(place.ino) ?? (isWanted ? this.#make(place.ino) : undefined)
    if (gate === undefined) return undefined
    if (gate.state === 'plain' && isWanted && !gate.isOff) this.#turn(gate, 'opening')
    if (gate.state === 'open' && (!isWanted || gate.isOff)) this.#turn(gate, 'closing')
    return gate.state === 'plain' ? undefined : gate
  }

  #isWanted(place: Place): boolean {
    return place.attr.uid === 0 && isAlike(place) && this.#core.registry.makesWorkspace(0, place.ino)
  }

  #make(ino: number): Gate {
    const gate: Gate = {
      ...{ ino, state: 'plain', turning: Promise.resolve(), isOff: false },
      ...{ admitted: new Set(), arriving: new Map(), blockers: new Map() },
    }
    this.#gates.set(ino, gate)
    return gate
  }

  /** What the kernel holds of the directory was shown by the rules of before: no name is kept until it is dropped. */
  #turn(gate: Gate, state: 'opening' | 'closing'): void {
    gate.state = state
    gate.turning = (state === 'opening' ? this.#open(gate) : this.#close(gate)).catch((error: unknown) => {
      gate.isOff = true
      // No name was kept yet. Those of a gate that could not close may be: it stays shut to whoever is new.
      if (gate.state === 'opening') gate.state = 'plain'
      this.#failed(error)
    })
  }

  async #open(gate: Gate): Promise<void> {
    if (this.#inherited.delete(gate.ino)) await this.#expireAll(this.#core.place(nodeOf(0, gate.ino)))
    await this.#dropAttributes(gate)
    gate.state = 'open'
  }

  async #close(gate: Gate): Promise<void> {
    await Promise.all([this.#names.expired(), this.#names.expire(this.#names.in(gate.ino))])
    gate.state = 'plain'
    await this.#dropAttributes(gate)
  }

  async #dropAttributes(gate: Gate): Promise<void> {
    await this.#serving?.kernel.invalidateAttributes(nodeOf(0, gate.ino))
  }

  #admission(gate: Gate, uid: number): Promise<void> {
    const under = gate.arriving.get(uid)
    if (under !== undefined) return under
    const admission = nextTurn()
      .then(() => this.#admit(gate, uid))
      .catch((error: unknown) => this.#failed(error))
      .finally(() => gate.arriving.delete(uid))
    gate.arriving.set(uid, admission)
    return admission
  }

  async #admit(gate: Gate, uid: number): Promise<void> {
    await gate.turning
    if (gate.admitted.size + gate.arriving.size > ADMITTED_MAX) {
      this.#giveUp(gate)
      await gate.turning
    }
    if (gate.state !== 'open') return
    // Also what others wait for: those names are not listed as kept any more, and may still be.
    const expired = this.#names.expired()
    await Promise.all([expired, this.#names.expire(await this.#hiddenFrom(gate, uid))])
    gate.admitted.add(uid)
    // Whoever read the ACL before must not put it into the kernel's cache for him to be refused by.
    await this.#dropAttributes(gate)
  }

  #giveUp(gate: Gate): void {
    if (gate.isOff) return
    gate.isOff = true
    const fields = { directory: gate.ino, room: ADMITTED_MAX }
    this.#serving?.logger.warn(fields, 'more users come by than an ACL can name: names of workspaces are asked for from now on')
    if (gate.state === 'open') this.#turn(gate, 'closing')
  }

  /** Workspaces whose names the kernel keeps, and which a uid may not see. */
  async #hiddenFrom(gate: Gate, uid: number): Promise<number[]> {
    const hidden: number[] = []
    const pace = new Pace(SLICE_MS, nextTurn)
    for (const volume of this.#names.in(gate.ino)) {
      if (!this.#sees(uid, volume)) hidden.push(volume)
      const wait = pace.pause()
      if (wait !== undefined) await wait
    }
    return hidden
  }

  #isForAll(gate: Gate, { volume: { number } }: Place): boolean {
    const blocker = gate.blockers.get(number)
    if (blocker !== undefined && !this.#sees(blocker, number)) return false
    for (const uid of [...gate.admitted, ...gate.arriving.keys()]) {
      if (this.#sees(uid, number)) continue
      gate.blockers.set(number, uid)
      return false
    }
    gate.blockers.delete(number)
    return true
  }

  #sees(uid: number, volume: number): boolean {
    try {
      return this.#core.guard.rwx(uid, this.#core.place(nodeOf(volume, ROOT_INO))) !== 0
    } catch (error) {
      if (error instanceof FsError) return false
      throw error
    }
  }

  #bounded(promise: Promise<void>, uid: number): Promise<void> {
    const late = 'a new user is refused until the kernel has dropped the names that are not for them'
    return atMost(promise, WAIT_MS_MAX, () => this.#serving?.logger.warn({ uid }, late))
  }

  #failed(error: unknown): void {
    this.#serving?.logger.error({ err: error }, 'the kernel was not told that names of workspaces are to expire')
  }
}
