/**
 * Windows as they are held: as pieces, or in the form in which a tree stores them. Who copies a file passes most of its windows
 * on, and to decode one makes an object and a string for each piece: three times the memory, and nearly all of the time.
 */
import { ByteReader } from '../bytes.ts'
import type { EntryPlace } from '../tree/tree.ts'
import { numberPart } from './keys.ts'
import { countEncoded, decodeWindow, encodeWindow, piecesIn, type Window } from './piece.ts'
import type { SortedSlots } from './sortedslots.ts'

/** The window that was decoded last. */
let decoded: { memory: Buffer | undefined; start: number; end: number; pieces: Window } = {
  memory: undefined,
  start: 0,
  end: 0,
  pieces: [],
}

/** A window in its stored form. It never changes, so that layers may share it. */
export class StoredWindow {
  /** with other things around it, which stay in memory as long */
  readonly memory: Buffer
  readonly #start: number
  readonly #end: number

  constructor(memory: Buffer, start: number, end: number) {
    this.memory = memory
    this.#start = start
    this.#end = end
  }

  get length(): number {
    return this.#end - this.#start
  }

  get bytes(): Buffer {
    return this.memory.subarray(this.#start, this.#end)
  }

  /** Nobody may change them: who looks into a window often looks again at once, as lseek(2) does for each extent. */
  get pieces(): Window {
    const { memory } = this
    if (decoded.memory !== memory || decoded.start !== this.#start || decoded.end !== this.#end) {
      const pieces = decodeWindow(new ByteReader(this.bytes))
      decoded = { memory, start: this.#start, end: this.#end, pieces }
    }
    return decoded.pieces
  }

  /** Bytes of [start, end) that are allocated. */
  allocatedIn(start: number, end: number): number {
    return countEncoded(this.memory, this.#start, this.#end, start, end) ?? sumOf(piecesIn(this.pieces, start, end))
  }
}

export type HeldWindow = Window | StoredWindow

/** @throws NEXUS_CORRUPT when what is stored is no window */
export function windowOf(held: HeldWindow): Window {
  return held instanceof StoredWindow ? held.pieces : held
}

/** Its stored form; pieces must be sealed. */
export function encodedOf(held: HeldWindow): Buffer {
  return held instanceof StoredWindow ? held.bytes : encodeWindow(held)
}

/**
 * Bytes of [start, end) of the window that are allocated.
 * @throws NEXUS_CORRUPT when what is stored is no window
 */
export function allocatedOf(held: HeldWindow, start: number, end: number): number {
  return held instanceof StoredWindow ? held.allocatedIn(start, end) : sumOf(piecesIn(held, start, end))
}

function sumOf(pieces: Window): number {
  return pieces.reduce((sum, { length }) => sum + length, 0)
}

/** A window and its number. */
export type NumberedWindow = [index: number, window: HeldWindow]

/**
 * The windows of a file from `first` to before `last` that hold anything, ascending.
 * Costs for what is read of it: who looks for the next data of a file reads a window or two. The layers must not change meanwhile.
 * @param layers what changed, the newest first; null hides what lies below
 * @param stored entries of the tree below, in the same range
 */
export function* heldIn(
  layers: readonly HeldLayer[],
  stored: Iterable<EntryPlace>,
  first: number,
  last: number,
): Generator<NumberedWindow> {
  const below = stored[Symbol.iterator]()
  const orders = layers.map(({ windowOrder }) => windowOrder.from(first))
  const heads = orders.map(nextOf)
  for (let entry = below.next(); ; ) {
    const at = entry.done === true ? undefined : numberPart(entry.value.bytes, entry.value.key)
    const index = Math.min(at ?? Number.POSITIVE_INFINITY, ...heads)
    if (index >= last) return
    const newest = heads.indexOf(index)
    if (newest === -1 && entry.done !== true)
      yield [index, new StoredWindow(entry.value.bytes, entry.value.value, entry.value.end)]
    const changed = newest === -1 ? undefined : layers[newest]?.windows.get(index)
    if (changed !== undefined && changed !== null) yield [index, changed]
    for (const [i, order] of orders.entries()) if (heads[i] === index) heads[i] = nextOf(order)
    if (at === index) entry = below.next()
  }
}

function nextOf(order: Iterator<number>): number {
  const step = order.next()
  return step.done === true ? Number.POSITIVE_INFINITY : step.value
}

/** What changed of the windows of a file. */
interface HeldLayer {
  readonly windows: ReadonlyMap<number, HeldWindow | null>
  readonly windowOrder: SortedSlots
}

/**
 * The same windows, copied out of memory that would stay for their sake and holds more of other things. The nodes of a large
 * file hold little else than its windows: those stay where they are.
 * @param windows ascending
 */
export function movedOut(windows: readonly NumberedWindow[]): NumberedWindow[] {
  const moved: NumberedWindow[] = []
  for (let first = 0, next = 0; first < windows.length; first = next) {
    const memory = storedAt(windows, first)?.memory
    let bytes = 0
    for (; next < windows.length && storedAt(windows, next)?.memory === memory; next++) {
      bytes += storedAt(windows, next)?.length ?? 0
    }
    const together = windows.slice(first, next)
    const isWaste = memory !== undefined && 2 * bytes < memory.length
    for (const window of isWaste ? copied(together, bytes) : together) moved.push(window)
  }
  return moved
}

function storedAt(windows: readonly NumberedWindow[], at: number): StoredWindow | undefined {
  const window = windows[at]?.[1]
  return window instanceof StoredWindow ? window : undefined
}

function copied(windows: readonly NumberedWindow[], bytes: number): NumberedWindow[] {
  const memory = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  return windows.map(([index, window]) => {
    const start = at
    at += encodedOf(window).copy(memory, start)
    return [index, new StoredWindow(memory, start, at)]
  })
}
