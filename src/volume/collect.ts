/**
 * Garbage collection, beside everybody who works: marks what some root reaches, forgets the rest, and gives back
 * segments of the log, first those in which nothing is alive, then those in which little is, after copying that.
 *
 * Only short steps are in the turn of merges and checkpoints: its start, each batch that the index writes, and the last
 * checkpoint. Between slices it gives way to whoever waits for that turn.
 */
import type { ContentStore, StoredContent } from '../cas/store.ts'
import { assert, NexusError } from '../errors.ts'
import type { Disk } from '../journal/disk.ts'
import type { Log, Span } from '../journal/log.ts'
import { RecordType } from '../journal/record.ts'
import { metasIn, segmentBytes, segmentsOf } from '../journal/replay.ts'
import type { Logger } from '../logger.ts'
import type { Tree } from '../tree/tree.ts'
import { type DomainLayer, Live, type Root } from './live.ts'
import type { Pause } from './merge.ts'
import { encodeState, type SavedState } from './state.ts'

export interface CollectOptions {
  /** false: only segments in which nothing is alive, which costs no space but that of a checkpoint */
  copy?: boolean
  /** on a nearly full disk, what may be copied as of the moment when that begins; then the last segment can go as well */
  pressed?: (() => CollectLimits) | undefined
  /** for tests: decides what runs between two slices */
  pause?: Pause | undefined
}

export interface CollectLimits {
  /** a segment goes when at most this share of it is alive */
  share: number
  /** one run copies at most so much */
  copyBytes: number
}

/** What a garbage collection did. */
export interface Collected {
  /** chunks and nodes that nothing reached */
  forgotten: number
  /** segments of the log removed */
  segments: number
  /** copied out of them to the end of the log */
  copiedBytes: number
  /** size of the removed segments */
  freedBytes: number
}

/** mark: counts what is alive; sweep: what was looked at; move: bytes; remove: segments. */
export interface CollectProgress {
  phase: 'idle' | 'mark' | 'sweep' | 'move' | 'remove'
  done: number
  /** 0: not known */
  total: number
}

/** What the collector needs of the volumes. */
export interface CollectTools {
  store: ContentStore
  tree: Tree
  log: Log
  disk: Disk
  /** seeds the checksums */
  seed: bigint
  logger: Logger
  pause: Pause
  /** runs while no merge, checkpoint or snapshot does */
  inTurn<T>(work: () => Promise<T>): Promise<T>
  /** what is alive, at this instant, in a turn */
  roots(): { roots: Root[]; layers: DomainLayer[] }
  /** from now on told of references that are made anew; undefined for nobody */
  watch(live: Live | undefined): void
  /** in a turn; writes out everything. @param force also when nothing changed */
  checkpoint(force: boolean): Promise<SavedState | undefined>
  /** in a turn: the first segment that recovery, or a piece that is not sealed yet, may need */
  firstNeeded(): number
  /** in a turn: what the segment that is being written holds shall lie before that, also when nothing was written since */
  leaveSegment(): Promise<void>
  /** bytes; so large may a segment be */
  segmentBytesMax: number
  /** whether the disk has room for more copies */
  mayCopy(): boolean
  /** bytes were copied to the end of the log */
  copied(bytes: number): void
  /** the last `state` record that this process wrote: a rebuild of the index needs it */
  lastState: { span: Span | undefined }
  /** segments are gone: threads let go of them too */
  removed(segments: readonly number[]): void
}

const LIMITS: CollectLimits = { share: 0.6, copyBytes: 1024 * 1024 * 1024 }
/** The segment that is being written is ended early for this part of a whole one, so that there are not many small ones. */
const LEAVE_SHARE = 1 / 64
/** Written to the index in one turn, as one batch of it: so long does a snapshot wait. */
const FORGET_BATCH = 1000
const MOVE_BATCH = 1000

export class Collector {
  readonly #tools: CollectTools
  readonly #progress: CollectProgress
  readonly #result: Collected = { forgotten: 0, segments: 0, copiedBytes: 0, freedBytes: 0 }
  /** bytes of each segment that may go */
  readonly #sizes = new Map<number, number>()
  /** the same of those that recovery still needed, as of the sweep */
  readonly #newest = new Map<number, number>()
  /** bytes in all of them that are alive; in the newest at least so many */
  readonly #liveBytes = new Map<number, number>()

  /** @param progress kept up to date */
  constructor(tools: CollectTools, progress: CollectProgress) {
    this.#tools = tools
    this.#progress = progress
  }

  /** @throws NexusError NEXUS_CORRUPT when a tree cannot be read: then nobody knows what it reaches, and all stays */
  async run({ copy, pressed }: CollectOptions): Promise<Collected> {
    try {
      await this.#sweep(await this.#mark())
    } finally {
      this.#tools.watch(undefined)
    }
    await this.#remove(new Set([...this.#sizes.keys()].filter((segment) => !this.#liveBytes.has(segment))))
    if (copy === false) return this.#result
    if (pressed === undefined) await this.#leaveNewest()
    const limits = pressed?.() ?? LIMITS
    await this.#remove(await this.#empty(victims(this.#sizes, this.#liveBytes, limits)))
    return this.#result
  }

  async #mark(): Promise<Live> {
    const tools = this.#tools
    this.#begin('mark')
    const live = new Live()
    const { roots, layers } = await tools.inTurn(async () => {
      // What was deleted a moment ago is in no tree any more.
      await tools.checkpoint(false)
      tools.watch(live)
      return tools.roots()
    })
    for (const layer of layers) await this.#slices(live.markLayer(layer), () => live.size)
    for (const root of roots) await this.#slices(live.markRoot(tools.tree, root), () => live.size)
    return live
  }

  /** Forgets what is not alive, and counts what is in the segments that may go. */
  async #sweep(live: Live): Promise<void> {
    const { store, disk, log, pause, inTurn } = this.#tools
    // From here on a start finds a state whose every root was marked, and the index knows all that may lie in those segments.
    const first = await inTurn(async () => {
      await this.#tools.checkpoint(false)
      return this.#tools.firstNeeded()
    })
    this.#begin('sweep', live.size)
    for (const segment of segmentsOf(disk)) {
      const sizes = segment < first ? this.#sizes : this.#newest
      sizes.set(segment, segmentBytes(disk, segment, log.end))
      await pause()
    }
    for await (const content of store.contents()) {
      if (live.has(content)) this.#countLive(content)
      else {
        store.forget(content)
        this.#result.forgotten++
        if (store.forgottenCount >= FORGET_BATCH) await inTurn(() => store.writeForgotten())
      }
      this.#progress.done++
      await pause()
    }
    if (store.forgottenCount > 0) await inTurn(() => store.writeForgotten())
  }

  #countLive({ location }: StoredContent): void {
    for (const { segment, length } of location.parts) {
      if (this.#sizes.has(segment) || this.#newest.has(segment))
        this.#liveBytes.set(segment, (this.#liveBytes.get(segment) ?? 0) + length)
    }
  }

  /**
   * Ends the segment that is being written when much of it is dead, so that it can be emptied with the others: a small
   * store has no other. It may hold more that is alive than was counted, but everything in it is moved that the index knows.
   */
  async #leaveNewest(): Promise<void> {
    const { disk, inTurn, lastState, log, segmentBytesMax } = this.#tools
    const state = lastState.span
    const isDead = ([segment, bytes]: [number, number]): boolean => {
      const live = (this.#liveBytes.get(segment) ?? 0) + (state?.segment === segment ? state.length : 0)
      return live <= bytes * LIMITS.share && bytes - live >= segmentBytesMax * LEAVE_SHARE
    }
    const dead = [...this.#newest].filter(isDead).map(([segment]) => segment)
    if (dead.length === 0) return
    const first = await inTurn(async () => {
      // Who writes much has begun another one meanwhile, but it may still be needed.
      if (dead.includes(log.end.segment) || dead.some((segment) => segment >= this.#tools.firstNeeded()))
        await this.#tools.leaveSegment()
      return this.#tools.firstNeeded()
    })
    for (const segment of dead) if (segment < first) this.#sizes.set(segment, segmentBytes(disk, segment, log.end))
  }

  /** Copies what is alive out of some segments to the end of the log. @returns those that hold nothing any more */
  async #empty(chosen: Set<number>): Promise<Set<number>> {
    const { store, log, pause, inTurn } = this.#tools
    if (chosen.size === 0) return chosen
    this.#begin(
      'move',
      [...chosen].reduce((sum, segment) => sum + (this.#liveBytes.get(segment) ?? 0), 0),
    )
    for await (const content of store.contents()) {
      if (content.location.parts.some((part) => chosen.has(part.segment))) {
        if (!this.#tools.mayCopy()) {
          // What was copied is not wasted: so much less is left to be copied another time.
          this.#tools.logger.info(
            { copied_bytes: this.#result.copiedBytes },
            'a collection ended early: the disk filled meanwhile',
          )
          chosen.clear()
          return chosen
        }
        this.#move(content, chosen)
        if (store.pendingCount >= MOVE_BATCH) {
          await log.sync()
          await inTurn(() => store.flush())
        }
      }
      await pause()
    }
    return chosen
  }

  /** What cannot be read may be readable another day, or elsewhere: its segments stay. */
  #move(content: StoredContent, chosen: Set<number>): void {
    try {
      const bytes = this.#tools.store.move(content)
      this.#tools.copied(bytes)
      this.#result.copiedBytes += bytes
      this.#progress.done += bytes
    } catch (error) {
      if (!(error instanceof NexusError) || error.code !== 'NEXUS_CORRUPT') throw error
      this.#keep(
        content.location.parts.map((part) => part.segment),
        chosen,
        error,
      )
    }
  }

  #keep(segments: readonly number[], chosen: Set<number>, error: NexusError): void {
    const kept = segments.filter((segment) => chosen.delete(segment))
    for (const segment of kept) this.#sizes.delete(segment)
    if (kept.length > 0)
      this.#tools.logger.warn({ segments: kept }, `not collected, and nothing is lost by that: ${error.message}`)
  }

  /** Removes segments in which nothing is alive. */
  async #remove(chosen: Set<number>): Promise<void> {
    const { log, pause, inTurn } = this.#tools
    this.#begin('remove', chosen.size)
    await this.#sealAgain(chosen)
    if (chosen.size === 0) return
    await log.sync()
    // From here on nothing leads to what goes: not the index, and no record that a start would replay.
    await inTurn(async () => {
      const state = await this.#tools.checkpoint(true)
      assert(state !== undefined, 'a forced checkpoint stores a state')
      const meta = encodeState(state)
      const { segment, offset } = log.append(RecordType.state, Buffer.alloc(0), meta)
      this.#tools.lastState.span = { segment, offset, length: meta.length }
      await log.sync()
    })
    this.#tools.removed([...chosen])
    for (const segment of chosen) {
      log.removeSegment(segment)
      this.#result.segments++
      this.#result.freedBytes += this.#sizes.get(segment) ?? 0
      this.#sizes.delete(segment)
      this.#progress.done++
      await pause()
    }
  }

  /** Repeats what the segments say about chunks that lie elsewhere. One that is not whole stays. */
  async #sealAgain(chosen: Set<number>): Promise<void> {
    const { store, disk, seed } = this.#tools
    for (const segment of [...chosen]) {
      try {
        for (const meta of metasIn(disk, seed, segment, RecordType.sealed)) {
          if (meta !== undefined) store.sealAgain(meta, chosen)
          await this.#tools.pause()
        }
      } catch (error) {
        if (!(error instanceof NexusError) || error.code !== 'NEXUS_CORRUPT') throw error
        this.#keep([segment], chosen, error)
      }
    }
  }

  async #slices(work: Generator<void, void>, done: () => number): Promise<void> {
    // Also when all is done at once: of 10,000 snapshots each may have a few nodes of its own.
    for (let isDone: boolean | undefined; isDone !== true; await this.#tools.pause()) {
      isDone = work.next().done
      this.#progress.done = done()
    }
  }

  #begin(phase: CollectProgress['phase'], total = 0): void {
    Object.assign(this.#progress, { phase, done: 0, total })
  }
}

/** Segments that are worth giving back: the emptiest first, as long as little has to be copied. */
export function victims(
  sizes: ReadonlyMap<number, number>,
  liveBytes: ReadonlyMap<number, number>,
  limits: CollectLimits,
): Set<number> {
  const candidates = [...sizes]
    .map(([segment, bytes]) => ({ segment, live: liveBytes.get(segment) ?? 0, bytes }))
    .filter(({ live, bytes }) => live <= bytes * limits.share)
    .sort((a, b) => a.live / a.bytes - b.live / b.bytes)
  const chosen = new Set<number>()
  let copied = 0
  for (const { segment, live } of candidates) {
    if (copied + live > limits.copyBytes) break
    copied += live
    chosen.add(segment)
  }
  return chosen
}
