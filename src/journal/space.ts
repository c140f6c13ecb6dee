/**
 * Room on the disk that holds the log. A part of it, the reserve, is not for data: with the disk
 * full, files can still be removed, and what was removed can be collected, which writes first.
 */
import { NexusError } from '../errors.ts'

/** What something is written for, and with that how far into the reserve it may go. */
export type Purpose =
  | 'data' // adds something: not at all
  | 'overwrite' // puts other bytes in the place of some, which can be collected: a quarter of it
  | 'attributes' // changes what is there, in a few bytes: half of it
  | 'removal' // ends something: all of it

/** Blocks of the disk, as statfs(2) reports them. */
export interface Blocks {
  blockBytes: number
  blocks: number
  blocksFree: number
  /** of those, what this process may use */
  blocksAvailable: number
}

const MIB = 1024 * 1024
/** The reserve holds a checkpoint, and a copy of what is alive in the segment that is given back first. */
const RESERVE_BYTES_MIN = 16 * MIB
const RESERVE_BYTES_MAX = 96 * MIB
const RESERVE_SHARE = 0.05
/** What part of the reserve these leave. */
const KEPT = { overwrite: 3 / 4, attributes: 1 / 2 }
/** Small disks have small segments: the reserve has to hold one. */
const SEGMENT_BYTES_MIN = 2 * MIB
const SEGMENT_BYTES_MAX = 64 * MIB
const SEGMENT_SHARE = 1 / 64
/** Others write to the disk as well: after this long, or a sixteenth of the reserve, it is looked at again. */
const LOOK_MS = 50
const LOOKS_PER_RESERVE = 16
/** Before something is refused: whoever tries again and again on a full disk shall not ask it each time. */
const REFUSAL_LOOK_MS = 1
/** A full disk counts as full until so much more than the reserve is free, lest it come and go. */
const RELIEF = 9 / 8
/** Below this many reserves the disk is tight: it is time to check point and collect. */
const TIGHT = 2
/** What a collection that has little room leaves for its own checkpoint. */
const CHECKPOINT_BYTES = 10 * MIB

export class Space {
  readonly reserve: number
  /** how large a segment of the log may be on this disk */
  readonly segmentBytesMax: number
  readonly #look: () => Blocks
  readonly #lookAside: () => Promise<Blocks>
  readonly #now: () => number
  readonly #refusal: NexusError
  #blocks: Blocks
  #lookedAt: number
  /** bytes taken since then */
  #taken = 0
  #isShort = false
  /** bytes that a checkpoint will write for what was taken before */
  #owed = 0
  /** how many bytes the next checkpoint may need, as of now */
  estimate: () => number = () => 0
  /** the disk itself has refused the last write, whatever it says is free */
  #isRefused = false
  #removals = 0

  /**
   * @param directory for words only
   * @param look asks the disk; may throw
   * @param lookAside the same without holding the thread
   */
  constructor(directory: string, look: () => Blocks, now = () => performance.now(), lookAside = async () => look()) {
    this.#look = look
    this.#lookAside = lookAside
    this.#now = now
    this.#blocks = look()
    this.#lookedAt = now()
    const bytes = this.#blocks.blockBytes * this.#blocks.blocks
    this.reserve = Math.min(RESERVE_BYTES_MAX, Math.max(RESERVE_BYTES_MIN, bytes * RESERVE_SHARE))
    this.segmentBytesMax = Math.min(SEGMENT_BYTES_MAX, Math.max(SEGMENT_BYTES_MIN, Math.floor(bytes * SEGMENT_SHARE)))
    this.#refusal = new NexusError(
      'NEXUS_NO_SPACE',
      `the disk that holds ${directory} is full: delete files or snapshots, whose space is free again some seconds later, or make room on the disk`,
    )
    this.#judge()
  }

  /** Asks the disk now, for what is looked at right after; a disk that hangs keeps nobody waiting but the caller. */
  async refresh(): Promise<void> {
    const [lookedAt, taken] = [this.#lookedAt, this.#taken]
    const blocks = await this.#lookAside().catch(() => undefined)
    // Who could not wait has seen it later.
    if (this.#lookedAt !== lookedAt) return
    this.#lookedAt = this.#now()
    if (blocks !== undefined) this.#saw(blocks, this.#taken - taken)
    this.#judge()
  }

  /** True while nothing can be added. */
  get isFull(): boolean {
    this.#lookAgain(LOOK_MS)
    return this.#isShort || this.#isRefused
  }

  /** What whoever wants to add something is told while it is full. */
  get refusal(): NexusError {
    return this.#refusal
  }

  /** True when it is full, or will soon be. */
  get isTight(): boolean {
    return this.isFull || this.#room < TIGHT * this.reserve
  }

  /** Bytes that are free, the reserve among them. */
  get free(): number {
    this.#lookAgain(LOOK_MS)
    return this.#free
  }

  /** Goes up with everything that ends something, whose space may be got back. */
  get removals(): number {
    return this.#removals
  }

  /** How many bytes a collection may copy before it gives any back. */
  get copyBytesMax(): number {
    this.#lookAgain(0)
    if (this.#isShort) return Math.max(0, this.#room - this.#leftByCopies)
    // Others go on filling the disk meanwhile: the reserve is for what they remove then.
    return Math.max(0, (this.#room - this.reserve) / 2)
  }

  /**
   * Whether a collection may go on copying, whatever it was told when it began: others write meanwhile.
   * @param isPressed it is to make room on a nearly full disk, for which the reserve is
   */
  mayCopy(isPressed: boolean): boolean {
    this.#lookAgain(LOOK_MS)
    return this.#free > (isPressed ? this.#leftByCopies : this.reserve)
  }

  get #leftByCopies(): number {
    return Math.max(this.reserve / 3, CHECKPOINT_BYTES)
  }

  /** The disk as those see it who write here: what is available is what can be filled. */
  blocks(): Blocks {
    this.#lookAgain(LOOK_MS)
    const usable = this.#isShort ? 0 : Math.max(0, this.#room - this.reserve)
    return { ...this.#blocks, blocksAvailable: Math.floor(usable / this.#blocks.blockBytes) }
  }

  /**
   * Lets something be written, or not.
   * @throws NexusError NEXUS_NO_SPACE
   */
  admit(purpose: Purpose, bytes: number): void {
    if (this.#taken + bytes > this.reserve / LOOKS_PER_RESERVE) this.#lookAgain(0)
    else this.#lookAgain(LOOK_MS)
    if (purpose === 'removal') this.#removals++
    else if (!this.#fits(purpose, bytes)) {
      // Somebody may have made room a moment ago.
      this.#lookAgain(REFUSAL_LOOK_MS)
      if (!this.#fits(purpose, bytes)) throw this.#refusal
    }
  }

  #fits(purpose: Exclude<Purpose, 'removal'>, bytes: number): boolean {
    if (purpose !== 'data') return this.#free - bytes >= this.reserve * KEPT[purpose]
    if (this.#room - bytes < this.reserve) this.#isShort = true
    return !this.#isShort
  }

  /** What was admitted is written. */
  written(bytes: number): void {
    this.#taken += bytes
    this.#isRefused = false
  }

  /** The disk had no room for what was admitted: a quota, inodes, or somebody who was faster. */
  refused(): void {
    this.#isRefused = true
  }

  get #free(): number {
    return this.#blocks.blocksAvailable * this.#blocks.blockBytes - this.#taken
  }

  /** What is free and not spoken for. */
  get #room(): number {
    return this.#free - this.#owed
  }

  #lookAgain(ageMs: number): void {
    const now = this.#now()
    if (now - this.#lookedAt < ageMs) return
    this.#lookedAt = now
    try {
      this.#saw(this.#look(), 0)
    } catch {
      // A disk that cannot say has as much room as it had: the write itself will tell.
    }
    this.#judge()
  }

  /** @param taken bytes that were written since the disk was asked, or may have been */
  #saw(blocks: Blocks, taken: number): void {
    this.#blocks = blocks
    this.#taken = taken
    this.#owed = this.estimate()
  }

  #judge(): void {
    if (this.#room < this.reserve) this.#isShort = true
    else if (this.#room >= this.reserve * RELIEF) this.#isShort = false
  }
}
