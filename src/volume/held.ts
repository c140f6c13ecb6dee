/**
 * Windows as they are held: as pieces, or in the form in which a tree stores them. Who copies a file passes most of its windows
 * on, and to decode one makes an object and a string for each piece: three times the memory, and nearly all of the time.
 */
import { ByteReader } from '../bytes.ts'
import type { EntryPlace } from '../tree/tree.ts'
import { numberPart } from './keys.ts'
import { countEncoded, decodeWindow, encodeWindow, piecesIn, type Window } from './piece.ts'

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

  get pieces(): Window {
    return decodeWindow(new ByteReader(this.bytes))
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
 * @param layers what changed, the newest first; null hides what lies below
 * @param stored entries of the tree below, in the same range
 */
export function* heldIn(
  layers: readonly ReadonlyMap<number, HeldWindow | null>[],
  stored: Iterable<EntryPlace>,
  first: number,
  last: number,
): Generator<NumberedWindow> {
  const changed = new Map<number, HeldWindow | null>()
  for (const windows of layers) {
    for (const [index, window] of windows) if (index >= first && index < last && !changed.has(index)) changed.set(index, window)
  }
  const present = [...changed].filter((each): each is NumberedWindow => each[1] !== null).sort(([a], [b]) => a - b)
  let next = 0
  for (const { bytes, key, value, end } of stored) {
    const index = numberPart(bytes, key)
    for (; (present[next]?.[0] ?? index) < index; next++) yield present[next] as NumberedWindow
    if (!changed.has(index)) yield [index, new StoredWindow(bytes, value, end)]
  }
  yield* present.slice(next)
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
