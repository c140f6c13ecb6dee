/**
 * Callers of the socket that every user may connect to: each connection is counted for the user at its other end, as the
 * kernel names it. There are few places, and they are shared fairly:
 *
 * - A user has at most `callsPerUidMax` places, and all users together `callsMax`.
 * - When all are taken, a user with none, or with two fewer than another, takes one from a connection of the user who has most: the one
 *   that came first of those with no call at work. Such a connection is still sending its request, or slow to take in the answer.
 * - A call that is at work keeps its place. When only such are left, a user who has no place gets one of a few more.
 */
import type { Socket } from 'node:net'
import { NexusError } from '../errors.ts'

export const callsPerUidMax = 8
export const callsMax = 64
/** Places beyond those, one a user, while calls at work hold all others. */
const spareMax = 64
/** Those above the limits who wait to be told so; more are cut off without a word. */
const refusedMax = 64
const refusalMs = 1000
/** (uid_t) -1 is nobody: what the kernel says where there are no credentials. */
const noUid = 0xffff_ffff

/** What a connection takes up, until it is closed and its call has ended. */
interface Place {
  readonly uid: number
  /** its socket, and its call while that is at work; none: the place is free */
  holds: number
}

export class Callers {
  readonly #uidByDescriptor: (fd: number) => number
  /** those with an open socket, in the order in which they came */
  readonly #places = new Map<Socket, Place>()
  readonly #refusals = new WeakMap<Socket, NexusError>()
  readonly #perUid = new Map<number, number>()
  #all = 0
  #refused = 0

  /** @param uidByDescriptor the user at the other end of a connected socket; may throw */
  constructor(uidByDescriptor: (fd: number) => number) {
    this.#uidByDescriptor = uidByDescriptor
  }

  /** Takes in a connection that was just made; one above the limits stays long enough to be told. */
  enter(socket: Socket): void {
    const uid = this.#identify(socket)
    if (uid === undefined) socket.destroy()
    else if (this.#countOf(uid) >= callsPerUidMax) this.#refuse(socket, `this user has ${callsPerUidMax} calls at work`)
    else if (this.#all < callsMax || this.#makeRoomFor(uid)) this.#admit(socket, uid)
    else this.#refuse(socket, `all users together have ${this.#all} calls at work`)
  }

  /** Whether a user may have a place though all are taken; takes it from another if need be. */
  #makeRoomFor(uid: number): boolean {
    const slow = [...this.#places].filter(([, { holds }]) => holds === 1)
    const most = slow.reduce((found, [, place]) => Math.max(found, this.#countOf(place.uid)), 0)
    const taken = slow.find(([, place]) => this.#countOf(place.uid) === most)
    const own = this.#countOf(uid)
    // Who has nearly as many would lose the place again at once.
    const isFairer = own === 0 || own + 2 <= most
    if (taken === undefined || !isFairer) return own === 0 && this.#all < callsMax + spareMax
    const [socket, place] = taken
    this.#places.delete(socket)
    this.#leave(place)
    this.#refuse(socket, 'another user needed the place, and no call was at work in it')
    return true
  }

  /**
   * Runs the call of a connection. It keeps its place to its end, also when the caller does not wait for that.
   * @throws NexusError NEXUS_BUSY for a connection above the limits
   */
  async during<T>(socket: Socket, call: (uid: number) => Promise<T>): Promise<T> {
    const place = this.#places.get(socket)
    if (place === undefined) {
      throw this.#refusals.get(socket) ?? new NexusError('NEXUS_DENIED', 'nexusd does not know who you are: connect again')
    }
    place.holds++
    try {
      return await call(place.uid)
    } finally {
      this.#leave(place)
    }
  }

  #identify(socket: Socket): number | undefined {
    try {
      const uid = this.#uidByDescriptor(descriptorOf(socket))
      return Number.isInteger(uid) && uid >= 0 && uid < noUid ? uid : undefined
    } catch {
      // The connection is gone already, or is none: nobody to be answered.
      return undefined
    }
  }

  #admit(socket: Socket, uid: number): void {
    const place = { uid, holds: 1 }
    this.#places.set(socket, place)
    this.#perUid.set(uid, this.#countOf(uid) + 1)
    this.#all++
    socket.once('close', () => {
      // A place that another user took is not given back twice.
      if (this.#places.delete(socket)) this.#leave(place)
    })
  }

  #leave(place: Place): void {
    place.holds--
    if (place.holds > 0) return
    this.#all--
    const left = this.#countOf(place.uid) - 1
    if (left === 0) this.#perUid.delete(place.uid)
    else this.#perUid.set(place.uid, left)
  }

  #refuse(socket: Socket, why: string): void {
    if (this.#refused >= refusedMax) {
      socket.destroy()
      return
    }
    this.#refused++
    this.#refusals.set(socket, new NexusError('NEXUS_BUSY', `nexusd is busy: ${why}; try again`))
    const timer = setTimeout(() => socket.destroy(), refusalMs)
    socket.once('close', () => {
      clearTimeout(timer)
      this.#refused--
    })
  }

  #countOf(uid: number): number {
    return this.#perUid.get(uid) ?? 0
  }
}

/**
 * The descriptor of a connected socket, which Node keeps to itself.
 * @throws NexusError NEXUS_UNSUPPORTED when there is none
 */
function descriptorOf(socket: Socket): number {
  const fd = (socket as { _handle?: { fd?: unknown } | null })._handle?.fd
  if (typeof fd === 'number' && Number.isInteger(fd) && fd >= 0) return fd
  throw new NexusError('NEXUS_UNSUPPORTED', 'this Node tells no descriptor of a connection: use Node 20')
}
