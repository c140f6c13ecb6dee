/**
 * The log: an endless sequence of records in segment files, appended before anything is
 * acknowledged. File data, tree nodes and changes all travel in it, so one `fdatasync` makes
 * everything before it durable and order on disk is order in time.
 *
 * A record that `append` returned from has reached the kernel's page cache: it survives the death
 * of this process. It survives loss of power once a `sync` that began later has resolved.
 */
import { NexusError, systemCode } from '../errors.ts'
import { Histogram } from '../histogram.ts'
import { ZEROS_LIMITS, ZerosAhead, type ZerosLimits } from './ahead.ts'
import { xxh64 } from './checksum.ts'
import { type Disk, PASSING } from './disk.ts'
import { OpenFiles } from './openfiles.ts'
import {
  encodeSegmentHeader,
  FORMAT_VERSION,
  RECORD_HEADER_BYTES,
  type RecordHeader,
  SEGMENT_HEADER_BYTES,
  segmentName,
  writeRecordHeader,
} from './record.ts'

/** A place between two records. */
export interface Position {
  segment: number
  /** bytes from the start of the segment's file */
  offset: number
}

/** Bytes in the log. */
export interface Span extends Position {
  length: number
}

export interface LogOptions {
  /** random, made with the store; seeds every checksum */
  store: bigint
  /** a segment is closed when it would grow past this many bytes */
  segmentBytesMax: number
  /** when zeros are written ahead of the end, and how many */
  zeros?: ZerosLimits | undefined
}

const NOTHING = Buffer.alloc(0)
const COPY_BYTES_MAX = 256 * 1024

export class Log {
  readonly #disk: Disk
  readonly #options: LogOptions
  readonly #files: OpenFiles
  #scratch: Buffer = Buffer.allocUnsafe(64 * 1024)
  #position: Position
  #sequence: number
  #durable: number
  /** segments written to since the last sync began, the newest last */
  #unsynced = new Set<number>()
  #namesUnsynced = false
  #running: Promise<void> | undefined
  #waiting: Promise<void> | undefined
  #failure: NexusError | undefined
  #appendedBytes = 0
  /** how long it took to make what was appended durable */
  readonly syncTimes = new Histogram()
  #closed = false
  /** bytes of a write that failed half-way may lie behind the end */
  #tailIsTorn = false
  /** the last segment is of a format in which what this program writes cannot be said */
  #isOlder = false
  readonly #zeros: ZerosAhead

  /**
   * @param position where reading starts; `continueAt` says where writing does
   * @param sequence of the last record before it
   */
  constructor(disk: Disk, options: LogOptions, position: Position, sequence: number) {
    this.#disk = disk
    this.#options = options
    this.#files = new OpenFiles(disk)
    this.#zeros = new ZerosAhead(options.zeros ?? ZEROS_LIMITS)
    this.#position = position
    this.#sequence = sequence
    this.#durable = sequence
  }

  /**
   * Goes on behind the last record that recovery found; all before it is durable.
   * @param version format of the segment that holds it
   */
  continueAt(position: Position, sequence: number, version: number): void {
    this.#position = { ...position }
    this.#sequence = sequence
    this.#durable = sequence
    this.#isOlder = version < FORMAT_VERSION
  }

  /** Where the next record will be. */
  get end(): Position {
    return { ...this.#position }
  }

  /** Number of the last record appended. */
  get sequence(): number {
    return this.#sequence
  }

  /** Number of the last record known to be on stable storage. */
  get durable(): number {
    return this.#durable
  }

  /** Bytes of the records that this process appended. */
  get appendedBytes(): number {
    return this.#appendedBytes
  }

  /** Why the log takes no more records, if it does not. */
  get failure(): NexusError | undefined {
    return this.#failure
  }

  /**
   * Appends one record and returns where its data lies.
   * @throws NexusError NEXUS_READ_ONLY when the disk has failed before; a system error when it fails
   *   now, or has no room (ENOSPC, EDQUOT): then nothing was appended
   */
  append(type: number, data: Uint8Array, meta: Uint8Array): Span {
    const bytes = RECORD_HEADER_BYTES + data.length + meta.length
    if (bytes > this.#scratch.length) this.#scratch = Buffer.allocUnsafe(bytes)
    const buffer = this.#scratch
    buffer.set(data, RECORD_HEADER_BYTES)
    const span = this.appendInPlace(type, buffer, RECORD_HEADER_BYTES, data.length, meta)
    if (this.#scratch.length > COPY_BYTES_MAX) this.#scratch = Buffer.allocUnsafe(COPY_BYTES_MAX)
    return span
  }

  /**
   * Like `append`, for data that lies in `buffer` with room for the record's header in front and
   * its meta behind: both are overwritten.
   */
  appendInPlace(type: number, buffer: Buffer, start: number, length: number, meta: Uint8Array): Span {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#closed) throw new NexusError('NEXUS_NOT_RUNNING', 'the store is closed')
    const seed = this.#options.store
    const bytes = RECORD_HEADER_BYTES + length + meta.length
    if (this.#tailIsTorn) this.#cutTail()
    this.#makeRoom(bytes)
    const data = length === 0 ? NOTHING : buffer.subarray(start, start + length)
    const header: RecordHeader = {
      type,
      dataBytes: length,
      metaBytes: meta.length,
      sequence: this.#sequence + 1,
      durable: this.#durable,
      dataXxh: xxh64(data, seed),
      metaXxh: xxh64(meta, seed),
    }
    writeRecordHeader(buffer, start - RECORD_HEADER_BYTES, header, seed)
    buffer.set(meta, start + length)
    const { segment, offset } = this.#position
    this.#write(this.#files.get(segment), buffer, start - RECORD_HEADER_BYTES, bytes, offset)
    this.#unsynced.add(segment)
    this.#position.offset = offset + bytes
    this.#appendedBytes += bytes
    this.#sequence += 1
    return { segment, offset: offset + RECORD_HEADER_BYTES, length }
  }

  /** Begins a new segment, if the current one holds more than `bytes`: then it can be collected. */
  beginSegment(bytes: number): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#position.offset <= bytes) return
    if (this.#tailIsTorn) this.#cutTail()
    this.#makeRoom(this.#options.segmentBytesMax)
  }

  /**
   * From here on a program that knows older formats alone refuses the log, also when nothing is appended: the index may be
   * given what such a program cannot read.
   */
  beginFormat(): void {
    if (this.#failure !== undefined) throw this.#failure
    if (this.#isOlder) this.#makeRoom(0)
  }

  /**
   * Fills `into` from `at` on with `length` bytes of the log.
   * @throws NexusError NEXUS_CORRUPT when the segment is missing or too short, or the disk cannot read it
   */
  read(segment: number, offset: number, length: number, into: Uint8Array, at: number): void {
    const count = this.#readNow(segment, offset, length, into, at)
    if (count !== length) {
      throw new NexusError(
        'NEXUS_CORRUPT',
        `segment ${segmentName(segment)} ends ${length - count} bytes early at ${offset + count}; restore that file from a backup`,
      )
    }
  }

  /** Whoever reads will soon want these bytes, and what would lie behind the segment's end in the next: the disk may begin. */
  willNeed(segment: number, offset: number, length: number): void {
    const { segmentBytesMax } = this.#options
    const within = Math.min(length, segmentBytesMax - offset)
    try {
      if (within > 0) this.#disk.willNeed?.(this.#files.get(segment), offset, within)
      const isInNext = within < length && segment < this.#position.segment
      if (isInNext)
        this.#disk.willNeed?.(this.#files.get(segment + 1), Math.max(0, offset - segmentBytesMax), length - Math.max(0, within))
    } catch {
      // A segment that is missing, or cannot be opened, is an error for who reads it.
    }
  }

  #readNow(segment: number, offset: number, length: number, into: Uint8Array, at: number): number {
    try {
      return this.#disk.read(this.#files.get(segment), into, at, length, offset)
    } catch (cause) {
      if (systemCode(cause) !== 'EIO') throw cause
      throw new NexusError(
        'NEXUS_CORRUPT',
        `the disk cannot read segment ${segmentName(segment)} at byte ${offset} (EIO): replace the disk, and restore that file from a backup`,
        { cause },
      )
    }
  }

  /**
   * Resolves when every record appended before this call is on stable storage. Callers that come
   * while one sync runs share the next.
   */
  sync(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    if (this.#isDurable && this.#running === undefined) return Promise.resolve()
    if (this.#running === undefined) {
      this.#running = this.#syncNow()
      return this.#running
    }
    this.#waiting ??= this.#running.then(() => {
      this.#waiting = undefined
      return this.sync()
    })
    return this.#waiting
  }

  /** Removes a segment that nothing refers to any more and recovery does not read. */
  removeSegment(segment: number): void {
    this.#files.close(segment)
    this.#disk.remove(segmentName(segment))
  }

  /** Syncs and closes every file. The last one ends with its last record then. */
  async close(): Promise<void> {
    try {
      this.#zeros.stop()
      if (this.#failure === undefined) {
        this.#cutZeros()
        await this.sync()
      }
      if (this.#failure === undefined) await this.#waiting
    } finally {
      this.#files.closeAll()
      // Another may write to it from now on.
      this.#closed = true
    }
  }

  /** Also a segment that was begun and has no record yet: a checkpoint may say that recovery starts there. */
  get #isDurable(): boolean {
    return this.#durable === this.#sequence && this.#unsynced.size === 0 && !this.#namesUnsynced
  }

  async #syncNow(): Promise<void> {
    const start = performance.now()
    const sequence = this.#sequence
    const segments = [...this.#unsynced]
    this.#unsynced.clear()
    const names = this.#namesUnsynced
    this.#namesUnsynced = false
    try {
      this.#zeros.countSync(this.#appendedBytes)
      if (segments.includes(this.#position.segment)) this.#writeZeros()
      for (const segment of segments) await this.#files.whilePinned(segment, (fd) => this.#disk.sync(fd))
      if (names) await this.#disk.syncNames()
      this.#durable = sequence
      this.syncTimes.addSince(start)
    } catch (cause) {
      // After a failed fsync the kernel may have dropped the pages: a retry that succeeds proves nothing.
      throw this.#giveUp(cause)
    } finally {
      this.#running = undefined
    }
  }

  /** Right before an fdatasync, which stores them: the syncs behind it find a file that has this length already. */
  #writeZeros(): void {
    const { segment, offset } = this.#position
    const stretch = this.#zeros.take(offset, this.#options.segmentBytesMax)
    if (stretch === undefined) return
    try {
      this.#writeNow(this.#files.get(segment), this.#zeros.bytes, 0, stretch.length, stretch.offset)
    } catch (error) {
      // Nothing needs them. What there is of them lies behind the end, and is cut like the others.
      if (!PASSING.has(systemCode(error) ?? '')) throw error
    }
  }

  #cutZeros(): void {
    if (!this.#zeros.areBehind(this.#position.offset)) return
    try {
      this.#cutTail()
    } catch {
      // They stay: whoever reads the log next takes them for its end, and cuts them.
    }
  }

  /** A disk that is full is whole; one that failed to write is not to be written to again. */
  #writeNow(fd: number, buffer: Uint8Array, start: number, length: number, position: number): void {
    try {
      this.#disk.write(fd, buffer, start, length, position)
    } catch (error) {
      if (!PASSING.has(systemCode(error) ?? '')) this.#giveUp(error)
      throw error
    }
  }

  #giveUp(cause: unknown): NexusError {
    const reason = systemCode(cause) ?? String(cause)
    this.#failure ??= new NexusError(
      'NEXUS_READ_ONLY',
      `the disk failed to store the log (${reason}): the filesystem is read-only; look at the disk (dmesg), then unmount and mount again`,
      { cause },
    )
    return this.#failure
  }

  #makeRoom(bytes: number): void {
    const { segment, offset } = this.#position
    const used = offset + bytes
    const fits = used <= this.#options.segmentBytesMax || offset === SEGMENT_HEADER_BYTES
    if (segment > 0 && fits && !this.#isOlder) return
    // A segment that is not the last ends with its last record.
    if (this.#zeros.areBehind(offset)) this.#cutTail()
    const next = segment + 1
    const fd = this.#beginSegment(next)
    const header = encodeSegmentHeader({
      version: FORMAT_VERSION,
      number: next,
      store: this.#options.store,
      firstSequence: this.#sequence + 1,
      durable: this.#durable,
    })
    try {
      this.#writeNow(fd, header, 0, header.length, 0)
    } catch (error) {
      this.#dropSegment(next)
      throw error
    }
    this.#unsynced.add(next)
    this.#namesUnsynced = true
    this.#position = { segment: next, offset: SEGMENT_HEADER_BYTES }
    this.#isOlder = false
  }

  #beginSegment(segment: number): number {
    try {
      return this.#files.create(segment, segmentName(segment))
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error
      // Nothing lies behind the end of the log but what an attempt like this one could not take back.
      const fd = this.#files.get(segment)
      this.#disk.truncate(fd, 0)
      return fd
    }
  }

  #dropSegment(segment: number): void {
    this.#files.close(segment)
    try {
      this.#disk.remove(segmentName(segment))
    } catch {
      // It stays empty or torn: the next attempt takes it over, a start removes it.
    }
  }

  /**
   * A write that fails may have written a part. Where the next record goes over it, it does no harm;
   * but if that one opens a new segment, recovery would take the part for the end of the log.
   */
  #write(fd: number, buffer: Buffer, start: number, length: number, position: number): void {
    try {
      this.#writeNow(fd, buffer, start, length, position)
    } catch (error) {
      this.#tailIsTorn = true
      try {
        this.#cutTail()
      } catch {
        // Tried again before the next record.
      }
      throw error
    }
  }

  #cutTail(): void {
    const { segment, offset } = this.#position
    this.#disk.truncate(this.#files.get(segment), offset)
    this.#tailIsTorn = false
    this.#zeros.cut()
    // The next sync has to store the cut too: what it makes safe may lie in a segment behind this one.
    this.#unsynced.add(segment)
  }
}
