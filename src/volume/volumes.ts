/**
 * All volumes of a data directory, the catalog, and the one way to change them: `commit` appends to
 * the log and then applies. Opening replays what the log holds since the last checkpoint.
 */
import { ByteWriter } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import type { Index } from '../cas/index.ts'
import { Sealer } from '../cas/sealer.ts'
import { ContentStore } from '../cas/store.ts'
import { type LogReader, VerifiedRecords } from '../cas/verified.ts'
import { isNoSpace, NexusError } from '../errors.ts'
import { Histogram } from '../histogram.ts'
import type { ZerosLimits } from '../journal/ahead.ts'
import type { Disk } from '../journal/disk.ts'
import { Log, type Position, type Span } from '../journal/log.ts'
import { RECORD_HEADER_BYTES, RecordType } from '../journal/record.ts'
import { segmentSizes } from '../journal/replay.ts'
import type { Purpose, Space } from '../journal/space.ts'
import type { Logger } from '../logger.ts'
import { giveWay, Pace, SLICE_MS } from '../pace.ts'
import { Tree } from '../tree/tree.ts'
import type { Catalog } from './catalog.ts'
import { type Change, writeChange } from './change.ts'
import { type Collected, type CollectOptions, Collector, type CollectProgress, type CollectTools } from './collect.ts'
import { Pin, type Root } from './live.ts'
import type { Pause } from './merge.ts'
import { Merger } from './merger.ts'
import type { RawSource } from './piece.ts'
import { purposeOf } from './purpose.ts'
import { checkpointIn, describe, indexEntries, NO_CHECKPOINT, recover } from './recover.ts'
import type { Checkpoint, SavedState } from './state.ts'
import { type MergedState, VolumeTable } from './table.ts'
import { measureUsage, type Usage } from './usage.ts'
import { Volume } from './volume.ts'

export interface VolumesOptions {
  disk: Disk
  index: Index
  /** seeds every checksum */
  store: bigint
  /** directory of the segments, for the sealing threads; needed when there are any */
  logDirectory: string
  sealWorkers: number
  logger: Logger
  /** lets commits have room on the disk, or not; without it all are let through */
  space?: Space
  segmentBytesMax?: number
  /** when the log writes zeros ahead of its end */
  zeros?: ZerosLimits
  nodeCacheBytesMax?: number
  chunkCacheBytesMax?: number
  /** a checkpoint is due when the log has grown by this many bytes … */
  checkpointBytes?: number
  /** … or layers hold this many changes */
  checkpointWeight?: number
}

/** Data of a `write` change, where the kernel left it (see Log.appendInPlace). */
export interface CommitData {
  buffer: Buffer
  start: number
  length: number
}

const MIB = 1024 * 1024
const NO_BYTES = Buffer.alloc(0)
const CHECKPOINT_WEIGHT = 100_000

/** What a change in a layer costs when it is merged: its share of nodes, places and the index (measured: 10,000 new files). */
const BYTES_PER_CHANGE = 128

export class Volumes {
  readonly #options: VolumesOptions
  readonly #table: VolumeTable
  readonly #meta = new ByteWriter(4096)
  #log: Log
  #content: ContentStore
  #tree: Tree
  readonly #sealer: Sealer
  readonly #merger: Merger
  readonly #raw: VerifiedRecords
  readonly #read: LogReader = (segment, offset, length, into, at) => this.#log.read(segment, offset, length, into, at)
  /** merges and checkpoints, one after the other */
  #turn: Promise<unknown> = Promise.resolve()
  /** of those that wait for their turn or have it */
  #turns = 0
  /** collections, one after the other */
  #collecting: Promise<unknown> = Promise.resolve()
  readonly #progress: CollectProgress = { phase: 'idle', done: 0, total: 0 }
  readonly #pins = new Set<Pin>()
  readonly #lastState: CollectTools['lastState'] = { span: undefined }
  /** of the log when the last collection had ended */
  #collectedBytes = 0
  #checkpointed: Position
  #checkpointedSequence: number
  #checkpointing: Promise<void> | undefined
  #closed = false
  /** how long they took that ended well, and how many did not */
  readonly checkpointTimes = new Histogram()
  readonly collectTimes = new Histogram()
  #failed = { checkpoints: 0, collections: 0 }
  #freedBytes = 0
  #visited = 0

  /** Opens the store and brings it to the state of the last record in the log. */
  static async open(options: VolumesOptions): Promise<Volumes> {
    const checkpoint = checkpointIn(options.index)
    const volumes = new Volumes(options, checkpoint ?? NO_CHECKPOINT)
    const { end, collected } = await recover({ ...options, table: volumes.#table, content: volumes.#content }, checkpoint)
    volumes.#collectedBytes = collected.log_bytes
    volumes.#table.released += collected.released
    // From here on it is written.
    volumes.#log.continueAt(end.position, end.sequence, end.version)
    return volumes
  }

  private constructor(options: VolumesOptions, start: Checkpoint) {
    this.#options = options
    this.#checkpointed = { segment: start.segment, offset: start.offset }
    this.#checkpointedSequence = start.sequence
    this.#log = this.#makeLog(start, start.sequence)
    this.#content = this.#makeContent()
    this.#tree = this.#makeTree()
    this.#table = new VolumeTable(this.#tree, options.logger)
    this.#sealer = this.#makeSealer(options.sealWorkers)
    this.#merger = this.#makeMerger()
    this.#raw = new VerifiedRecords(this.#read, options.store)
  }

  get catalog(): Catalog {
    return this.#table.catalog
  }

  get(number: number): Volume | undefined {
    return this.#table.get(number)
  }

  numbers(): number[] {
    return this.#table.numbers
  }

  /** A read-only look at some root, not one of the volumes. */
  view(number: number, domain: number, root: Address | null): Volume {
    return new Volume(number, domain, this.#tree, root)
  }

  /**
   * Copies a piece that is not sealed yet to `into` at `at`.
   * @throws NexusError NEXUS_CORRUPT when its record is not what was written
   */
  readRaw(piece: RawSource & { length: number }, into: Buffer, at: number): void {
    const data = this.#raw.data(piece)
    if (data === undefined) {
      const place = `segment ${piece.segment} at byte ${piece.base}`
      throw new NexusError('NEXUS_CORRUPT', `${place} is not what was written: restore that file from a backup`)
    }
    data.copy(into, at, piece.offset - piece.base, piece.offset - piece.base + piece.length)
  }

  get content(): ContentStore {
    return this.#content
  }

  get log(): Log {
    return this.#log
  }

  get tree(): Tree {
    return this.#tree
  }

  /** Bytes that the log has grown by since the last checkpoint. */
  get dirtyBytes(): number {
    const { segment, offset } = this.#log.end
    const segments = segment - Math.max(1, this.#checkpointed.segment)
    return Math.max(0, segments * this.#segmentBytes + offset - this.#checkpointed.offset)
  }

  /** Bytes of the log on disk. */
  get logBytes(): number {
    let bytes = 0
    for (const size of this.segmentSizes().values()) bytes += size
    return bytes
  }

  /** The log's segments with their sizes in bytes, as they are now. */
  segmentSizes(): Map<number, number> {
    return segmentSizes(this.#options.disk, this.#log.end)
  }

  /**
   * Makes changes: first in the log, then in memory. When this returns they survive the death of
   * the daemon; `sync` makes them survive loss of power.
   * @param purpose when the changes alone do not say it
   * @throws NexusError NEXUS_NO_SPACE, NEXUS_READ_ONLY, or what else keeps the log from taking them; then nothing has changed
   */
  commit(changes: readonly Change[], data?: CommitData, purpose: Purpose = purposeOf(changes)): void {
    this.#meta.reset()
    for (const change of changes) writeChange(this.#meta, change)
    const meta = this.#meta.view()
    const { space } = this.#options
    const bytes = RECORD_HEADER_BYTES + (data?.length ?? 0) + meta.length
    if (this.#log.failure === undefined) space?.admit(purpose, bytes)
    const span = this.#append(meta, data)
    space?.written(bytes)
    this.#table.apply(changes, span)
  }

  #append(meta: Uint8Array, data: CommitData | undefined): Span {
    try {
      if (data === undefined) return this.#log.append(RecordType.changes, NO_BYTES, meta)
      return this.#log.appendInPlace(RecordType.changes, data.buffer, data.start, data.length, meta)
    } catch (error) {
      if (isNoSpace(error)) this.#options.space?.refused()
      throw error
    }
  }

  /** Ends an inode that has no name any more. */
  dropOrphan(number: number, ino: number): void {
    this.commit([
      { kind: 'drop', volume: number, ino },
      { kind: 'orphan', volume: number, ino, present: false },
    ])
  }

  /**
   * Ends a volume's inodes without a name, but for those that somebody holds. On a disk that cannot take it they
   * stay for the next collection or mount: it is no reason to fail for what has just been done.
   */
  dropOrphans(number: number, isHeld: (ino: number) => boolean = () => false): void {
    try {
      for (const ino of [...(this.get(number)?.orphanInos ?? [])]) if (!isHeld(ino)) this.dropOrphan(number, ino)
    } catch (error) {
      if (!isNoSpace(error) && this.#log.failure === undefined) throw error
    }
  }

  /** Resolves when everything committed before is on stable storage. */
  sync(): Promise<void> {
    return this.#log.sync()
  }

  /** About how many bytes a checkpoint would write now. */
  get checkpointBytes(): number {
    return this.#table.weight * BYTES_PER_CHANGE
  }

  /** True when a checkpoint should be taken soon. */
  get checkpointDue(): boolean {
    if (this.dirtyBytes > (this.#options.checkpointBytes ?? 128 * MIB)) return true
    return this.#table.weight > this.#weightMax
  }

  /**
   * Merges volumes, all as they are at one instant, and calls `then` with what they were; nothing
   * else of the kind runs meanwhile, but commits go on.
   * @param numbers asked for at that instant
   */
  merged<T>(numbers: () => readonly number[], then: (states: Map<number, MergedState>) => T | Promise<T>): Promise<T> {
    return this.#inTurn(async () => then(await this.#merger.merge(numbers())))
  }

  /**
   * The same for who is inside `merged` already.
   * @param atOnce without ever returning to the event loop: when the caller goes on, nothing else has happened
   */
  mergeAgain(numbers: readonly number[], atOnce: boolean): Promise<Map<number, MergedState>> {
    return this.#merger.merge(numbers, atOnce)
  }

  /** Writes out everything, so that the next start has nothing to replay. Callers share a run. */
  checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#inTurn(async () => void (await this.#checkpointNow())).finally(() => {
      this.#checkpointing = undefined
    })
    return this.#checkpointing
  }

  /**
   * Gives back space: forgets what no root reaches, and removes segments in which little is alive. Others go on meanwhile.
   * @param kept the states besides the volumes' own that must stay, as of the moment it is called
   */
  collect(kept: () => Iterable<Root>, options: CollectOptions = {}): Promise<Collected> {
    const run = async (): Promise<Collected> => {
      const [released, start] = [this.#table.released, performance.now()]
      try {
        if (options.pressed !== undefined) await this.#inTurn(() => this.#leaveSegment(this.#segmentBytes / 16))
        const result = await new Collector(
          this.#collectTools(kept, options.pause, options.pressed !== undefined),
          this.#progress,
        ).run(options)
        this.#table.released -= released
        this.#collectedBytes = this.logBytes
        this.collectTimes.addSince(start)
        this.#freedBytes += result.freedBytes
        return result
      } catch (error) {
        this.#failed.collections++
        throw error
      } finally {
        Object.assign(this.#progress, { phase: 'idle', done: 0, total: 0 })
      }
    }
    const result = this.#collecting.then(run, run)
    this.#collecting = result.catch(() => undefined)
    return result
  }

  /**
   * What the last segment holds shall lie before the start of recovery, also when nothing was written since.
   * @param bytes it stays when it holds less
   */
  async #leaveSegment(bytes: number): Promise<void> {
    this.#log.beginSegment(bytes)
    await this.#checkpointNow(true)
  }

  /** What volumes and the given states need, as of about now; others go on meanwhile. */
  async usage(kept: () => Iterable<Root>): Promise<Usage> {
    await this.checkpoint()
    const pin = this.pin()
    try {
      const states = await this.#inTurn(async () => {
        const volumes = this.#table.roots
        const snapshots = [...kept()]
        pin.add([...volumes, ...snapshots])
        return { volumes, snapshots, layers: this.#table.layers }
      })
      return await measureUsage({ store: this.#content, tree: this.#tree, pause: this.#pauseBeside() }, states)
    } finally {
      pin.release()
    }
  }

  /** Whether a checkpoint is being taken, or waits for its turn. */
  get isCheckpointing(): boolean {
    return this.#checkpointing !== undefined
  }

  /** How many volumes the last checkpoint merged or stored: those that had changed, however many there are. */
  get checkpointedVolumes(): number {
    return this.#visited
  }

  /** Checkpoints and collections that failed. */
  get failed(): Readonly<{ checkpoints: number; collections: number }> {
    return this.#failed
  }

  /** What collections have given back, and what the sealer has cut into chunks. */
  get freedBytes(): number {
    return this.#freedBytes
  }

  get mergeTimes(): Histogram {
    return this.#merger.times
  }

  get sealed(): Sealer['sealed'] {
    return this.#sealer.sealed
  }

  /** How far a collection is. */
  get collectProgress(): Readonly<CollectProgress> {
    return this.#progress
  }

  /**
   * Keeps states from being collected that somebody works with across an await and nobody else may keep: a snapshot that is
   * being read, a state that was merged. Release it in a `finally`.
   */
  pin(roots: Iterable<Root> = []): Pin {
    const pin = new Pin(this.#pins)
    pin.add(roots)
    return pin
  }

  /** Bytes that became garbage since the last collection began, at most: some of it may be in snapshots. */
  get releasedBytes(): number {
    return this.#table.released
  }

  /** Bytes of the log when the last collection had ended, as far as anybody knows. */
  get collectedBytes(): number {
    return this.#collectedBytes
  }

  /** Something was removed that kept so many bytes, maybe not alone. */
  addReleased(bytes: number): void {
    this.#table.released += bytes
  }

  /** True from the beginning of `close` on. */
  get isClosed(): boolean {
    return this.#closed
  }

  /** Takes a last checkpoint and closes the log; the index stays open. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    try {
      await this.#collecting
      if (this.#log.failure === undefined) await this.checkpoint()
    } finally {
      await this.#turn.catch(() => undefined)
      await this.#sealer.close()
      await this.#log.close()
    }
  }

  #makeLog(position: Position, sequence: number): Log {
    const { disk, store, zeros } = this.#options
    return new Log(disk, { store, segmentBytesMax: this.#segmentBytes, zeros }, position, sequence)
  }

  get #segmentBytes(): number {
    return this.#options.segmentBytesMax ?? 64 * MIB
  }

  #makeContent(): ContentStore {
    const chunkCacheBytesMax = this.#options.chunkCacheBytesMax ?? 32 * MIB
    return new ContentStore(this.#log, this.#options.index, { store: this.#options.store, chunkCacheBytesMax })
  }

  #makeTree(): Tree {
    return new Tree(this.#content, { cacheBytesMax: this.#options.nodeCacheBytesMax ?? 64 * MIB })
  }

  get #weightMax(): number {
    return this.#options.checkpointWeight ?? CHECKPOINT_WEIGHT
  }

  #makeMerger(): Merger {
    return new Merger({
      table: this.#table,
      store: this.#content,
      sealer: this.#sealer,
      sealerHere: this.#makeSealer(0),
      logger: this.#options.logger,
      weightMax: this.#weightMax,
    })
  }

  #makeSealer(workers: number): Sealer {
    const { logDirectory: directory, store } = this.#options
    return new Sealer({ directory, store, workers }, this.#read)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#turns++
    const result = this.#turn.then(work, work).finally(() => this.#turns--)
    this.#turn = result.catch(() => undefined)
    return result
  }

  /**
   * @param force also when nothing was written since the last one
   * @returns the state that it stored; undefined when there was nothing to do
   */
  async #checkpointNow(force = false): Promise<SavedState | undefined> {
    const start = performance.now()
    const position = this.#log.end
    const sequence = this.#log.sequence
    if (sequence === this.#checkpointedSequence && !force) return undefined
    // Of a million grants this takes long, and only who repeats it in the log wants it.
    const whole = force ? Object.fromEntries(this.catalog.all()) : {}
    const unstored = this.#table.takeUnstored()
    // Of the others the roots of now are those of `position`.
    const saved = force ? this.#table.states : new Map<number, MergedState>()
    try {
      const states = await this.#merger.merge(unstored.volumes)
      this.#visited = states.size
      // A volume that was reset while it waited has no root as of `position`: start again, from now.
      if (states.size < unstored.volumes.length) {
        this.#table.giveBack(unstored)
        return await this.#checkpointNow(force)
      }
      const checkpoint: Checkpoint = { ...position, sequence, durable: sequence }
      const volumes = describe(states)
      await this.#content.flush(() => {
        checkpoint.durable = this.#log.durable
        return indexEntries(checkpoint, unstored, volumes, { log_bytes: this.#collectedBytes, released: this.releasedBytes })
      })
      this.#checkpointed = position
      this.#checkpointedSequence = sequence
      this.checkpointTimes.addSince(start)
      return force ? { checkpoint, catalog: whole, volumes: { ...describe(saved), ...volumes } } : undefined
    } catch (error) {
      this.#failed.checkpoints++
      this.#table.giveBack(unstored)
      throw error
    }
  }

  #collectTools(kept: () => Iterable<Root>, pause = this.#pauseBeside(), isPressed = false): CollectTools {
    return {
      store: this.#content,
      tree: this.#tree,
      log: this.#log,
      disk: this.#options.disk,
      seed: this.#options.store,
      logger: this.#options.logger,
      pause,
      inTurn: (work) => this.#inTurn(work),
      roots: () => this.#alive(kept),
      watch: (live) => {
        this.#table.live = live
        this.#content.watch(live === undefined ? undefined : (address, domain) => live.add(address, domain))
      },
      checkpoint: (force) => this.#checkpointNow(force),
      firstNeeded: () => {
        const firstRaws = this.#table.layers.map(({ layer }) => layer.firstRaw)
        return Math.min(this.#checkpointed.segment, ...firstRaws)
      },
      leaveSegment: () => this.#leaveSegment(0),
      mayCopy: () => this.#options.space?.mayCopy(isPressed) ?? true,
      copied: (bytes) => this.#options.space?.written(bytes),
      segmentBytesMax: this.#segmentBytes,
      lastState: this.#lastState,
      removed: (segments) => this.#sealer.forgetSegments(segments),
    }
  }

  /** Every state that somebody may still ask for. */
  #alive(kept: () => Iterable<Root>): ReturnType<CollectTools['roots']> {
    const pinned = [...this.#pins].flatMap((pin) => pin.roots)
    const { roots, ghosts, layers } = this.#table
    return { roots: [...kept(), ...pinned, ...roots, ...ghosts], layers }
  }

  /** For long work: gives way to requests after each slice, and to whoever waits for his turn. */
  #pauseBeside(): Pause {
    const pace = new Pace(SLICE_MS, async () => {
      await giveWay()
      if (this.#turns > 0) await this.#turn
      if (this.#closed) throw new NexusError('NEXUS_BUSY', 'the daemon ends')
    })
    return () => pace.pause()
  }
}
