/**
 * All volumes of a data directory, the catalog, and the one way to change them: `commit` appends to
 * the log and then applies. Opening replays what the log holds since the last checkpoint.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { ByteReader, ByteWriter } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { fromHex, toHex } from '../cas/address.ts'
import type { Index, IndexEntry } from '../cas/index.ts'
import { Sealer } from '../cas/sealer.ts'
import { ContentStore } from '../cas/store.ts'
import { type LogReader, VerifiedRecords } from '../cas/verified.ts'
import { assert, isNoSpace, NexusError } from '../errors.ts'
import { Histogram } from '../histogram.ts'
import type { ZerosLimits } from '../journal/ahead.ts'
import type { Disk } from '../journal/disk.ts'
import { Log, type Position, type Span } from '../journal/log.ts'
import { RECORD_HEADER_BYTES, RecordType } from '../journal/record.ts'
import { LOG_START, type LogEnd, type LogRecord, readLog, segmentSizes, settle } from '../journal/replay.ts'
import type { Purpose, Space } from '../journal/space.ts'
import type { Logger } from '../logger.ts'
import { giveWay } from '../pace.ts'
import { Tree } from '../tree/tree.ts'
import { applyChange } from './apply.ts'
import { Catalog } from './catalog.ts'
import { type Change, readChange, writeChange } from './change.ts'
import { type Collected, type CollectOptions, Collector, type CollectProgress, type CollectTools } from './collect.ts'
import { type Live, Pin, type Root } from './live.ts'
import { type MergeTools, mergeFrozen, type Pause } from './merge.ts'
import type { RawSource } from './piece.ts'
import { purposeOf } from './purpose.ts'
import {
  type Checkpoint,
  type CollectedState,
  parseCheckpoint,
  parseCollected,
  parseVolume,
  type SavedState,
  scanLog,
  type VolumeState,
} from './state.ts'
import { measureUsage, type Usage } from './usage.ts'
import { type Super, Volume } from './volume.ts'

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

/** A volume as it was when it was merged. */
export interface MergedState {
  root: Address | null
  domain: number
  super: Super
}

const MIB = 1024 * 1024
const NO_BYTES = Buffer.alloc(0)
/** A merge returns to the event loop after this long; longer when changes come faster than merges. */
const SLICE_MS = 2
const SLICE_MS_OVERLOADED = 25

/** What a change in a layer costs when it is merged: its share of nodes, places and the index (measured: 10,000 new files). */
const BYTES_PER_CHANGE = 128

const CHECKPOINT_KEY = Buffer.from('m/checkpoint')
const COLLECTED_KEY = Buffer.from('m/collected')
const CATALOG_PREFIX = 'k/'
const VOLUME_PREFIX = 'v/'

export class Volumes {
  readonly catalog = new Catalog()
  readonly #options: VolumesOptions
  readonly #volumes = new Map<number, Volume>()
  readonly #meta = new ByteWriter(4096)
  #log: Log
  #content: ContentStore
  #tree: Tree
  #sealer: Sealer
  readonly #raw: VerifiedRecords
  readonly #read: LogReader = (segment, offset, length, into, at) => this.#log.read(segment, offset, length, into, at)
  /** volumes removed since the last checkpoint */
  #removed = new Set<number>()
  /** volumes of which the index may not have the state: a checkpoint looks at these and no others */
  #unsaved = new Set<number>()
  /** of all active layers */
  #weight = 0
  /** merges and checkpoints, one after the other */
  #turn: Promise<unknown> = Promise.resolve()
  /** of those that wait for their turn or have it */
  #turns = 0
  /** collections, one after the other */
  #collecting: Promise<unknown> = Promise.resolve()
  readonly #progress: CollectProgress = { phase: 'idle', done: 0, total: 0 }
  readonly #pins = new Set<Pin>()
  /** told of references that are made while a collection marks */
  #live: Live | undefined
  readonly #lastState: CollectTools['lastState'] = { span: undefined }
  /** bytes that became garbage since the last collection, by estimate */
  #released = 0
  /** of the log when the last collection had ended */
  #collectedBytes = 0
  /** sum of what changes allocated and freed since the start */
  #allocated = 0
  #checkpointed: Position
  #checkpointedSequence: number
  #checkpointing: Promise<void> | undefined
  #sliceStart = 0
  /** the log's segments as replay found them */
  #segments: ReadonlyMap<number, number> = new Map()
  #closed = false
  /** how long they took that ended well, and how many did not */
  readonly checkpointTimes = new Histogram()
  readonly mergeTimes = new Histogram()
  readonly collectTimes = new Histogram()
  #failed = { checkpoints: 0, collections: 0 }
  #freedBytes = 0
  #visited = 0

  /** Opens the store and brings it to the state of the last record in the log. */
  static async open(options: VolumesOptions): Promise<Volumes> {
    const saved = options.index.get(CHECKPOINT_KEY)
    const checkpoint = saved === undefined ? undefined : parseCheckpoint(saved)
    const volumes = new Volumes(options, checkpoint ?? NO_CHECKPOINT)
    const start = checkpoint ?? volumes.#rebuild()
    if (checkpoint !== undefined) await volumes.#load()
    const end = volumes.#replay(start)
    await settle(options.disk, start, end)
    if (end.torn > 0) options.logger.info({ bytes: end.torn }, 'cut off an unfinished record at the end of the log')
    volumes.#openLog(end)
    return volumes
  }

  private constructor(options: VolumesOptions, start: Checkpoint) {
    this.#options = options
    this.#checkpointed = { segment: start.segment, offset: start.offset }
    this.#checkpointedSequence = start.sequence
    this.#log = this.#makeLog(start, start.sequence)
    this.#content = this.#makeContent()
    this.#tree = this.#makeTree()
    this.#sealer = this.#makeSealer()
    this.#raw = new VerifiedRecords(this.#read, options.store)
  }

  get(number: number): Volume | undefined {
    return this.#volumes.get(number)
  }

  numbers(): number[] {
    return [...this.#volumes.keys()]
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
    this.#applyAll(changes, span)
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
      for (const ino of [...(this.#volumes.get(number)?.orphanInos ?? [])]) if (!isHeld(ino)) this.dropOrphan(number, ino)
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
    return this.#weight * BYTES_PER_CHANGE
  }

  /** True when a checkpoint should be taken soon. */
  get checkpointDue(): boolean {
    if (this.dirtyBytes > (this.#options.checkpointBytes ?? 128 * MIB)) return true
    return this.#weight > (this.#options.checkpointWeight ?? 100_000)
  }

  /**
   * Merges volumes, all as they are at one instant, and calls `then` with what they were; nothing
   * else of the kind runs meanwhile, but commits go on.
   * @param numbers asked for at that instant
   */
  merged<T>(numbers: () => readonly number[], then: (states: Map<number, MergedState>) => T | Promise<T>): Promise<T> {
    return this.#inTurn(async () => then(await this.#mergeNow(numbers())))
  }

  /**
   * The same for who is inside `merged` already.
   * @param atOnce without ever returning to the event loop: when the caller goes on, nothing else has happened
   */
  mergeAgain(numbers: readonly number[], atOnce: boolean): Promise<Map<number, MergedState>> {
    return this.#mergeNow(numbers, atOnce)
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
      const [released, start] = [this.#released, performance.now()]
      try {
        if (options.pressed !== undefined) await this.#inTurn(() => this.#leaveSegment(this.#segmentBytes / 16))
        const result = await new Collector(
          this.#collectTools(kept, options.pause, options.pressed !== undefined),
          this.#progress,
        ).run(options)
        this.#released -= released
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
        const volumes = [...this.#volumes.values()].map(rootOf)
        const snapshots = [...kept()]
        pin.add([...volumes, ...snapshots])
        return { volumes, snapshots, layers: this.#alive(() => []).layers }
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
    return this.#released
  }

  /** Bytes of the log when the last collection had ended, as far as anybody knows. */
  get collectedBytes(): number {
    return this.#collectedBytes
  }

  /** Something was removed that kept so many bytes, maybe not alone. */
  addReleased(bytes: number): void {
    this.#released += bytes
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

  #makeSealer(workers = this.#options.sealWorkers): Sealer {
    const { logDirectory: directory, store } = this.#options
    return new Sealer({ directory, store, workers }, this.#read)
  }

  async #load(): Promise<void> {
    const collected = this.#options.index.get(COLLECTED_KEY)
    if (collected !== undefined) {
      const { log_bytes, released } = parseCollected(collected)
      this.#collectedBytes = log_bytes
      this.#released = released
    }
    for await (const [key, value] of this.#options.index.entries(Buffer.from(CATALOG_PREFIX))) {
      this.catalog.load(key.toString().slice(CATALOG_PREFIX.length), value.toString())
    }
    for await (const [key, value] of this.#options.index.entries(Buffer.from(VOLUME_PREFIX))) {
      this.#restoreVolume(...parseVolume(key.toString().slice(VOLUME_PREFIX.length), value))
    }
  }

  /** Without an index, all that is known is in the log. @returns where to replay from */
  #rebuild(): Checkpoint {
    const { disk, store } = this.#options
    const segments = segmentSizes(disk)
    const state = scanLog(disk, store, segments.keys(), (record) => this.#content.adopt(record, segments))
    if (state === undefined) {
      if (segments.size === 0 || segments.has(1)) return NO_CHECKPOINT
      throw new NexusError(
        'NEXUS_CORRUPT',
        'the index is lost and the log does not start at its beginning: restore the data directory from a backup',
      )
    }
    for (const [key, value] of Object.entries(state.catalog)) this.catalog.apply(key, value)
    for (const [number, volume] of Object.entries(state.volumes)) {
      this.#restoreVolume(Number(number), volume)
      this.#unsaved.add(Number(number))
    }
    return state.checkpoint
  }

  #restoreVolume(number: number, { root, domain, ino_next }: VolumeState): void {
    this.#reset(number, root === null ? null : fromHex(root), domain, ino_next)
  }

  #replay(from: Checkpoint): LogEnd {
    this.#segments = segmentSizes(this.#options.disk)
    const records = readLog(this.#options.disk, this.#options.store, from, from.sequence, from.durable)
    for (;;) {
      const step = records.next()
      if (step.done === true) return step.value
      this.#replayRecord(step.value)
    }
  }

  #replayRecord(record: LogRecord): void {
    if (record.type !== RecordType.changes) {
      if (record.type !== RecordType.state) this.#content.adopt(record, this.#segments)
      return
    }
    const input = new ByteReader(record.meta)
    const span = { segment: record.segment, offset: record.offset, length: record.data.length }
    const changes: Change[] = []
    while (!input.done) changes.push(readChange(input))
    this.#applyAll(changes, span)
  }

  /** The log that replay read is complete: from here on it is written. */
  #openLog(end: LogEnd): void {
    this.#log.continueAt(end.position, end.sequence)
  }

  #applyAll(changes: readonly Change[], span: Span): void {
    const before = this.#allocated
    for (const change of changes) this.#apply(change, span)
    // What was written and is not allocated more than before took the place of something, or something went.
    this.#released += Math.max(0, span.length - (this.#allocated - before))
  }

  #apply(change: Change, span: Span): void {
    if (change.kind === 'catalog') {
      this.catalog.apply(change.key, change.value)
      return
    }
    if (change.kind === 'root') {
      this.#removed.delete(change.volume)
      this.#unsaved.add(change.volume)
      this.#reset(change.volume, change.root, change.domain, change.inoNext)
      return
    }
    if (change.kind === 'unvolume') {
      const gone = this.#volumes.get(change.volume)
      this.#released += gone?.super.bytes ?? 0
      this.#weight -= gone?.active.weight ?? 0
      this.#volumes.delete(change.volume)
      this.#unsaved.delete(change.volume)
      this.#removed.add(change.volume)
      return
    }
    const volume = this.#volumeOf(change.volume)
    const { allocated, active } = volume
    const { weight } = active
    // A change that fails half-way has changed something all the same.
    this.#unsaved.add(change.volume)
    try {
      applyChange(change, span, (number) => this.#volumeOf(number))
    } finally {
      this.#weight += active.weight - weight
      this.#allocated += volume.allocated - allocated
    }
    if (this.#live !== undefined && (change.kind === 'copy' || change.kind === 'refer')) this.#markCopied(change, this.#live)
  }

  #volumeOf(number: number): Volume {
    const volume = this.#volumes.get(number)
    assert(volume !== undefined, `a change names volume ${number}, which is not there`)
    return volume
  }

  /** Where pieces were copied from they may be overwritten before the mark comes there. */
  #markCopied(change: Extract<Change, { kind: 'copy' | 'refer' }>, live: Live): void {
    const volume = this.#volumeOf(change.volume)
    for (const [, piece] of volume.pieces(change.ino, change.offset, change.length)) {
      if (piece.kind === 'chunk') live.add(piece.address, volume.domain)
    }
  }

  #reset(number: number, root: Address | null, domain: number, inoNext: number): void {
    let volume = this.#volumes.get(number)
    this.#weight -= volume?.active.weight ?? 0
    if (volume === undefined || volume.domain !== domain) {
      volume = new Volume(number, domain, this.#tree, null)
      this.#volumes.set(number, volume)
    }
    volume.reset(root, inoNext, (error) =>
      this.#options.logger.error({ volume: number }, `a workspace cannot be read, the others can: ${error.message}`),
    )
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#turns++
    const result = this.#turn.then(work, work).finally(() => this.#turns--)
    this.#turn = result.catch(() => undefined)
    return result
  }

  /** Freezes at once, merges one after the other; a volume that was reset meanwhile has no state. */
  async #mergeNow(numbers: readonly number[], atOnce = false): Promise<Map<number, MergedState>> {
    const states = new Map<number, MergedState>()
    const frozen: { volume: Volume; epoch: number }[] = []
    for (const number of numbers) {
      const volume = this.#volumes.get(number)
      if (volume === undefined) continue
      if (volume.active.empty) {
        states.set(number, stateOf(volume))
      } else {
        this.#weight -= volume.freeze().weight
        frozen.push({ volume, epoch: volume.epoch })
      }
    }
    const start = performance.now()
    this.#sliceStart = start
    try {
      for (const { volume, epoch } of frozen) {
        const layer = volume.frozen
        // Reset in the meantime: what was frozen is nobody's any more.
        if (layer === null || volume.epoch !== epoch) continue
        const counters = volume.frozenSuper
        const root = await mergeFrozen(volume, layer, this.#tools(atOnce))
        if (volume.epoch !== epoch) continue
        volume.thaw(root)
        states.set(volume.number, { root, domain: volume.domain, super: counters })
        // Of ten thousand workspaces that changed a little, none has a slice's worth of work.
        const wait = atOnce ? undefined : this.#pause()
        if (wait !== undefined) await wait
      }
      if (frozen.length > 0) this.mergeTimes.addSince(start)
    } finally {
      for (const { volume, epoch } of frozen) {
        if (volume.epoch !== epoch || volume.frozen === null) continue
        // A volume that was removed counts no more.
        if (this.#volumes.get(volume.number) === volume) this.#weight += volume.frozen.weight
        volume.unfreeze()
      }
    }
    return states
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
    const catalog = this.catalog.takeDirty()
    const removed = this.#removed
    this.#removed = new Set()
    const unsaved = [...this.#unsaved]
    this.#unsaved = new Set()
    // Of the others the roots of now are those of `position`.
    const saved = new Map(force ? [...this.#volumes].map(([number, volume]) => [number, stateOf(volume)]) : [])
    try {
      const states = await this.#mergeNow(unsaved)
      this.#visited = states.size
      // A volume that was reset while it waited has no root as of `position`: start again, from now.
      if (states.size < unsaved.length) {
        this.#giveBack(catalog, removed, unsaved)
        return await this.#checkpointNow(force)
      }
      const checkpoint: Checkpoint = { ...position, sequence, durable: sequence }
      const volumes = describe(states)
      await this.#content.flush(() => {
        checkpoint.durable = this.#log.durable
        return [...indexEntries(checkpoint, catalog, volumes, removed), this.#collectedEntry()]
      })
      this.#checkpointed = position
      this.#checkpointedSequence = sequence
      this.checkpointTimes.addSince(start)
      return force ? { checkpoint, catalog: whole, volumes: { ...describe(saved), ...volumes } } : undefined
    } catch (error) {
      this.#failed.checkpoints++
      this.#giveBack(catalog, removed, unsaved)
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
        this.#live = live
        this.#content.watch(live === undefined ? undefined : (address, domain) => live.add(address, domain))
      },
      checkpoint: (force) => this.#checkpointNow(force),
      firstNeeded: () => {
        const layers = [...this.#volumes.values()].map((volume) => volume.active.firstRaw)
        return Math.min(this.#checkpointed.segment, ...layers)
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
    const volumes = [...this.#volumes.values()]
    const pinned = [...this.#pins].flatMap((pin) => pin.roots)
    return {
      roots: [...kept(), ...pinned, ...[...volumes, ...volumes.flatMap((volume) => volume.ghosts)].map(rootOf)],
      layers: volumes.map(({ active, domain }) => ({ layer: active, domain })),
    }
  }

  /** For long work: gives way to requests after each slice, and to whoever waits for his turn. */
  #pauseBeside(): Pause {
    let start = performance.now()
    return () => {
      if (performance.now() - start < SLICE_MS) return undefined
      return giveWay().then(async () => {
        if (this.#turns > 0) await this.#turn
        if (this.#closed) throw new NexusError('NEXUS_BUSY', 'the daemon ends')
        start = performance.now()
      })
    }
  }

  /** So that a daemon that is started often collects too. */
  #collectedEntry(): IndexEntry {
    const collected: CollectedState = { log_bytes: this.#collectedBytes, released: this.#released }
    return { key: COLLECTED_KEY, value: Buffer.from(JSON.stringify(collected)) }
  }

  #giveBack(catalog: ReadonlyMap<string, string | null>, removed: ReadonlySet<number>, unsaved: readonly number[]): void {
    this.catalog.giveBack(catalog)
    for (const number of removed) this.#removed.add(number)
    for (const number of unsaved) if (this.#volumes.has(number)) this.#unsaved.add(number)
  }

  #tools(atOnce: boolean): MergeTools {
    return {
      store: this.#content,
      sealer: atOnce ? this.#makeSealer(0) : this.#sealer,
      pause: () => (atOnce ? undefined : this.#pause()),
      onDamage: (volume, ino, damage) =>
        this.#options.logger.error(
          { volume, ino, ...damage },
          `segment ${damage.segment} is damaged at byte ${damage.offset}: ${damage.length} bytes of a file are lost, reading them fails with EIO`,
        ),
    }
  }

  #pause(): Promise<void> | undefined {
    const overloaded = this.#weight > (this.#options.checkpointWeight ?? 100_000)
    if (performance.now() - this.#sliceStart < (overloaded ? SLICE_MS_OVERLOADED : SLICE_MS)) return undefined
    return (overloaded ? nextTurn() : giveWay()).then(() => {
      this.#sliceStart = performance.now()
    })
  }
}

/** A copy: a volume's root moves on. */
function rootOf({ root, domain }: Root): Root {
  return { root, domain }
}

const NO_CHECKPOINT: Checkpoint = { ...LOG_START, sequence: 0, durable: 0 }

/** Of one whose layers are empty. */
function stateOf({ root, domain, super: counters }: Volume): MergedState {
  return { root, domain, super: { ...counters } }
}

function describe(states: ReadonlyMap<number, MergedState>): Record<string, VolumeState> {
  return Object.fromEntries([...states].map(([number, state]) => [number, volumeState(state)]))
}

function volumeState({ root, domain, super: counters }: MergedState): VolumeState {
  return { root: root === null ? null : toHex(root), domain, ino_next: counters.inoNext }
}

/** What a checkpoint stores in the index besides places. */
function indexEntries(
  checkpoint: Checkpoint,
  catalog: ReadonlyMap<string, string | null>,
  volumes: Record<string, VolumeState>,
  removed: ReadonlySet<number>,
): IndexEntry[] {
  const entries: IndexEntry[] = []
  const put = (key: string, value: string | null): void => {
    entries.push({ key: Buffer.from(key), value: value === null ? null : Buffer.from(value) })
  }
  for (const [key, value] of catalog) put(CATALOG_PREFIX + key, value)
  for (const number of removed) if (volumes[number] === undefined) put(VOLUME_PREFIX + number, null)
  for (const [number, state] of Object.entries(volumes)) put(VOLUME_PREFIX + number, JSON.stringify(state))
  entries.push({ key: CHECKPOINT_KEY, value: Buffer.from(JSON.stringify(checkpoint)) })
  return entries
}
