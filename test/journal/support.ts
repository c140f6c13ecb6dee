/**
 * A disk in memory that knows what power loss would leave: what was synced, what was only written,
 * and which names are safe. Any call can be made to fail.
 */
import type { ZerosLimits } from '../../src/journal/ahead.ts'
import type { Disk } from '../../src/journal/disk.ts'
import { Log, type LogOptions, type Position } from '../../src/journal/log.ts'
import { decodeSegmentHeader, encodeSegmentHeader, type SegmentHeader, segmentName } from '../../src/journal/record.ts'
import { LOG_START, type LogEnd, type LogRecord, readLog, settle } from '../../src/journal/replay.ts'

export const STORE = 0x0123_4567_89ab_cdefn

export type DiskCall = 'open' | 'write' | 'truncate' | 'remove' | 'sync' | 'syncNames'

type Unsynced = { position: number; bytes: Buffer } | { truncate: number }

/** A file, and what happened to it since it was last synced. */
class MemoryFile {
  content = Buffer.alloc(0)
  length = 0
  durable = Buffer.alloc(0)
  unsynced: Unsynced[] = []

  get bytes(): Buffer {
    return this.content.subarray(0, this.length)
  }

  apply(change: Unsynced): void {
    if ('truncate' in change) {
      this.content.fill(0, change.truncate)
      this.length = change.truncate
      return
    }
    const end = change.position + change.bytes.length
    if (end > this.content.length) this.content = Buffer.concat([this.content], Math.max(end, this.content.length * 2))
    change.bytes.copy(this.content, change.position)
    this.length = Math.max(this.length, end)
  }

  static of(bytes: Buffer): MemoryFile {
    const file = new MemoryFile()
    file.content = Buffer.from(bytes)
    file.length = bytes.length
    file.durable = Buffer.from(bytes)
    return file
  }
}

/** What power loss does to changes that were not synced: which of them reached the disk. */
export type Survives = (change: { name: string; index: number; of: number }) => boolean | number

export class MemoryDisk implements Disk {
  readonly files = new Map<string, MemoryFile>()
  /** names as of the last syncNames */
  #safeNames = new Map<string, MemoryFile>()
  readonly #open = new Map<number, { name: string; file: MemoryFile }>()
  #nextFd = 3
  /** may throw instead of the call; `bytes` of a failing write may be written before (see `ShortWrite`) */
  fault: ((call: DiskCall, name: string) => void) | undefined
  /** may throw instead of a read */
  readFault: ((name: string) => void) | undefined
  /** a sync resolves behind this */
  gate: (() => Promise<void>) | undefined
  readonly calls: string[] = []

  list(): string[] {
    return [...this.files.keys()]
  }

  open(name: string, create: boolean): number {
    this.#enter('open', name)
    let file = this.files.get(name)
    if (create && file !== undefined) throw systemError('EEXIST')
    if (!create && file === undefined) throw systemError('ENOENT')
    if (file === undefined) {
      file = new MemoryFile()
      this.files.set(name, file)
    }
    this.#open.set(this.#nextFd, { name, file })
    return this.#nextFd++
  }

  close(fd: number): void {
    if (!this.#open.delete(fd)) throw systemError('EBADF')
  }

  get openCount(): number {
    return this.#open.size
  }

  size(fd: number): number {
    return this.#file(fd).file.length
  }

  write(fd: number, buffer: Uint8Array, start: number, length: number, position: number): void {
    const { name, file } = this.#file(fd)
    let failure: ShortWrite | undefined
    try {
      this.#enter('write', name)
    } catch (error) {
      if (!(error instanceof ShortWrite)) throw error
      failure = error
    }
    const count = failure === undefined ? length : Math.min(length, failure.bytes)
    const change = { position, bytes: Buffer.from(buffer.subarray(start, start + count)) }
    file.apply(change)
    file.unsynced.push(change)
    if (failure !== undefined) throw failure
  }

  read(fd: number, buffer: Uint8Array, start: number, length: number, position: number): number {
    const { name, file } = this.#file(fd)
    this.readFault?.(name)
    const { bytes } = file
    return position >= bytes.length ? 0 : bytes.copy(buffer, start, position, position + length)
  }

  truncate(fd: number, length: number): void {
    const { name, file } = this.#file(fd)
    this.#enter('truncate', name)
    const change = { truncate: length }
    file.apply(change)
    file.unsynced.push(change)
  }

  remove(name: string): void {
    this.#enter('remove', name)
    if (!this.files.delete(name)) throw systemError('ENOENT')
  }

  async sync(fd: number): Promise<void> {
    const { name, file } = this.#file(fd)
    // What is written while the sync runs may or may not be part of it: here it never is.
    const content = Buffer.from(file.bytes)
    const count = file.unsynced.length
    this.#enter('sync', name)
    await this.gate?.()
    if (!this.#open.has(fd)) throw new Error(`the descriptor of ${name} was closed during its sync`)
    file.durable = content
    file.unsynced.splice(0, count)
    this.calls.push(`synced ${name}`)
  }

  async syncNames(): Promise<void> {
    const names = new Map(this.files)
    this.#enter('syncNames', '')
    await this.gate?.()
    this.#safeNames = names
  }

  /** What the death of the process leaves: everything. */
  afterKill(): MemoryDisk {
    const copy = new MemoryDisk()
    for (const [name, file] of this.files) copy.files.set(name, MemoryFile.of(file.bytes))
    copy.#safeNames = new Map(copy.files)
    return copy
  }

  /** What a cut of power leaves: what was synced, and of the rest what `survives` (a number: so many bytes of it). */
  afterPowerLoss(survives: Survives): MemoryDisk {
    const copy = new MemoryDisk()
    const names = new Map(
      [...this.#safeNames].filter(([name]) => this.files.has(name) || survives({ name, index: -1, of: 0 }) === false),
    )
    for (const [name, file] of this.files) if (survives({ name, index: -1, of: 0 }) !== false) names.set(name, file)
    for (const [name, file] of names) copy.files.set(name, this.#lossy(name, file, survives))
    copy.#safeNames = new Map(copy.files)
    return copy
  }

  #lossy(name: string, file: MemoryFile, survives: Survives): MemoryFile {
    const left = MemoryFile.of(file.durable)
    file.unsynced.forEach((change, index) => {
      const kept = survives({ name, index, of: file.unsynced.length })
      if (kept === false) return
      if (kept === true || 'truncate' in change) left.apply(change)
      else left.apply({ position: change.position, bytes: change.bytes.subarray(0, kept) })
    })
    return MemoryFile.of(left.bytes)
  }

  /** A file's bytes, to be looked at or replaced. */
  bytesOf(name: string): Buffer {
    const file = this.files.get(name)
    if (file === undefined) throw systemError('ENOENT')
    return file.bytes
  }

  setBytes(name: string, bytes: Buffer): void {
    this.files.set(name, MemoryFile.of(bytes))
  }

  #file(fd: number): { name: string; file: MemoryFile } {
    const found = this.#open.get(fd)
    if (found === undefined) throw systemError('EBADF')
    return found
  }

  #enter(call: DiskCall, name: string): void {
    this.calls.push(name === '' ? call : `${call} ${name}`)
    this.fault?.(call, name)
  }
}

/** Thrown by a fault: the write fails after so many bytes. */
export class ShortWrite extends Error {
  readonly code = 'ENOSPC'
  readonly bytes: number

  constructor(bytes: number) {
    super('ENOSPC: no space left on device')
    this.bytes = bytes
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: made by the test`), { code })
}

export interface Found {
  records: { type: number; sequence: number; data: string; meta: string; segment: number; offset: number }[]
  end: LogEnd
}

/** Everything that replay finds, as plain values. */
export function replay(disk: Disk, store = STORE, from: Position = LOG_START, sequence = 0, durable = sequence): Found {
  const records: Found['records'] = []
  const reading = readLog(disk, store, from, sequence, durable)
  for (;;) {
    const step = reading.next()
    if (step.done === true) return { records, end: step.value }
    records.push(plain(step.value))
  }
}

function plain({ type, sequence, segment, offset, data, meta }: LogRecord): Found['records'][number] {
  return { type, sequence, segment, offset, data: data.toString('latin1'), meta: meta.toString('latin1') }
}

/** A few at every sync, however seldom: what the small logs of tests come to. */
export const ALWAYS_ZEROS: ZerosLimits = {
  bytes: 300,
  restBytes: 150,
  betweenBytes: Number.POSITIVE_INFINITY,
  betweenMs: Number.POSITIVE_INFINITY,
  syncs: 0,
}

export function newLog(disk: Disk, options: Partial<LogOptions> = {}): Log {
  return new Log(disk, { store: STORE, segmentBytesMax: 1 << 20, zeros: ALWAYS_ZEROS, ...options }, LOG_START, 0)
}

/** The formats of the segments, in order. */
export function formatsOf(disk: MemoryDisk): number[] {
  const headers = disk
    .list()
    .sort()
    .map((name) => decodeSegmentHeader(disk.bytesOf(name)))
  return headers.map((header) => header?.version ?? -1)
}

/** Has a segment say that it is of some format. */
export function setFormat(disk: MemoryDisk, segment: number, version: number): void {
  const bytes = disk.bytesOf(segmentName(segment))
  encodeSegmentHeader({ ...(decodeSegmentHeader(bytes) as SegmentHeader), version }).copy(bytes)
}

/** What a start does: reads the log, makes its end clean and goes on behind it. */
export async function reopen(disk: Disk, options: Partial<LogOptions> = {}): Promise<{ log: Log; found: Found }> {
  const found = replay(disk)
  await settle(disk, LOG_START, found.end)
  const log = newLog(disk, options)
  log.continueAt(found.end.position, found.end.sequence, found.end.version)
  return { log, found }
}
