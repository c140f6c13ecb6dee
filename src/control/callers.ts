/**
 * Who calls on a socket that every user may connect to: each connection is counted for the user at its other end, as the
 * kernel names him. Nobody can take all the places, and all of them together are few.
 */
import type { Socket } from 'node:net'
import { NexusError } from '../errors.ts'

const perUidMax = 8
const allMax = 64
/** Those above the limits who wait to be told so; more are cut off without a word. */
const refusedMax = 64
const refusalMs = 1000
/** (uid_t) -1 is nobody: what the kernel says where there are no credentials. */
const noUid = 0xffff_ffff

/** What a connection takes up, until it is closed and its call has ended. */
interface Place {
  readonly uid: number
  holds: number
}

export class Callers {
  readonly #uidByDescriptor: (fd: number) => number
  readonly #places = new WeakMap<Socket, Place>()
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
    else if (this.#all >= allMax) this.#refuse(socket, `all users together have ${allMax} calls at work`)
    else if (this.#countOf(uid) >= perUidMax) this.#refuse(socket, `this user has ${perUidMax} calls at work`)
    else this.#admit(socket, uid)
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
    socket.once('close', () => this.#leave(place))
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
