/**
 * What the disk is told to begin with before somebody asks for it. The log is read by the one thread that serves: while it
 * waits for the disk, nobody is answered, and the disk has one thing to do at a time.
 */
import type { Span } from '../journal/log.ts'

/** Lets the disk begin with bytes of the log; costs about a microsecond where they are in memory already. */
export type WillNeed = (segment: number, offset: number, length: number) => void

/** Streams that are followed at a time. */
const STREAMS_MAX = 16
/** Headers of records, tree nodes and changes lie between the pieces of a file that was written in one go. */
export const GAP_BYTES_MAX = 128 * 1024
/** What comes behind is advised in steps of half of this, which doubles as long as the reading goes on. */
const WINDOW_BYTES_MIN = 1024 * 1024
const WINDOW_BYTES_MAX = 4 * 1024 * 1024

interface Stream {
  segment: number
  /** where it goes on if it does, and what of that was advised */
  next: number
  advisedTo: number
  windowBytes: number
}

/**
 * Follows who reads large stretches in the order in which they lie in the log. Only with the second in a row the disk is told
 * what lies behind: who reads large blocks here and there wants nothing of that.
 */
export class StreamAhead {
  readonly #willNeed: WillNeed
  /** the one that went on last is the last */
  readonly #streams: Stream[] = []

  constructor(willNeed: WillNeed) {
    this.#willNeed = willNeed
  }

  /** To be called before it is read. */
  reading({ segment, offset, length }: Span): void {
    const next = offset + length
    const stream = this.#take(segment, offset) ?? { segment, next, advisedTo: next, windowBytes: 0 }
    if (stream.segment !== segment) stream.advisedTo = offset
    Object.assign(stream, { segment, next })
    if (stream.advisedTo - next < stream.windowBytes / 2) {
      const from = Math.max(stream.advisedTo, offset)
      stream.advisedTo = next + stream.windowBytes
      this.#willNeed(segment, from, stream.advisedTo - from)
    }
    this.#streams.push(stream)
    if (this.#streams.length > STREAMS_MAX) this.#streams.shift()
  }

  /** The stream that goes on here, with a larger window. */
  #take(segment: number, offset: number): Stream | undefined {
    const at = this.#streams.findIndex((one) =>
      one.segment === segment
        ? offset >= one.next && offset - one.next <= GAP_BYTES_MAX
        : one.segment + 1 === segment && offset <= WINDOW_BYTES_MIN,
    )
    const [stream] = at < 0 ? [] : this.#streams.splice(at, 1)
    if (stream === undefined) return undefined
    stream.windowBytes = Math.min(WINDOW_BYTES_MAX, Math.max(WINDOW_BYTES_MIN, 2 * stream.windowBytes))
    return stream
  }
}

/** The nodes that a checkpoint wrote lie together: some seventy in such a stretch. */
const STRETCH_BYTES = 512 * 1024
/** Stretches that are remembered: what is asked for again and again is in memory, and is not advised again. */
const STRETCHES_MAX = 256
/** From so many more reads near others than apart on, whoever reads goes through everything there. */
const NEAR_MIN = 4
const NEAR_MAX = 16
/** More than there are: no segment reaches 2 TiB. */
const STRETCHES_A_SEGMENT = 2 ** 22

/**
 * Notices whether the tree nodes that are read lie near each other, as those do that a walk needs one after the other; then the
 * disk reads all around the first of a stretch. A node here and there in a large store is read alone.
 */
export class NodesAhead {
  readonly #willNeed: WillNeed
  /** those where nodes were read, the one that came first first; whether it was advised */
  readonly #stretches = new Map<number, boolean>()
  #near = 0

  constructor(willNeed: WillNeed) {
    this.#willNeed = willNeed
  }

  /** To be called before a node is read. */
  reading({ segment, offset }: Span): void {
    const number = Math.floor(offset / STRETCH_BYTES)
    const name = segment * STRETCHES_A_SEGMENT + number
    const isAdvised = this.#stretches.get(name)
    this.#near = isAdvised === undefined ? Math.max(0, this.#near - 1) : Math.min(NEAR_MAX, this.#near + 1)
    if (isAdvised === true) return
    const advises = this.#near >= NEAR_MIN
    if (advises) this.#willNeed(segment, number * STRETCH_BYTES, STRETCH_BYTES)
    this.#stretches.set(name, advises)
    if (this.#stretches.size > STRETCHES_MAX) this.#stretches.delete(this.#stretches.keys().next().value as number)
  }
}
