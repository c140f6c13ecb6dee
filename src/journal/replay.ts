/**
 * Reading a log back after a start.
 *
 * A log may end in the middle of a record: that is where the machine stopped, nobody was told that
 * the record is safe, and the tail is cut off. A record that is damaged although it had reached
 * stable storage is something else: rot. The two are told apart by what later records say was
 * durable when they were written; rot is refused, because cutting there would lose fsynced work.
 */
import { NexusError } from '../errors.ts'
import { xxh64 } from './checksum.ts'
import type { Disk } from './disk.ts'
import type { Position } from './log.ts'
import {
  decodeSegmentHeader,
  FORMAT_VERSION,
  RECORD_HEADER_BYTES,
  readRecordHeader,
  recordIsIntact,
  SEGMENT_HEADER_BYTES,
  segmentName,
  segmentNumber,
} from './record.ts'

/** A record of the log; the buffers are views that hold until the next record is asked for. */
export interface LogRecord {
  type: number
  sequence: number
  segment: number
  /** where the data starts in the segment */
  offset: number
  data: Buffer
  meta: Buffer
  /** the place behind this record */
  end: Position
}

export interface LogEnd {
  position: Position
  /** of the last intact record */
  sequence: number
  /** bytes behind it that were not an intact record, up to the last that is not zero */
  torn: number
  /** format of the segment that holds the last record */
  version: number
  /** segments that end with zeros, and where their last record ends */
  zeros: Map<number, number>
}

/** Where a log starts: before its first segment exists. */
export const LOG_START: Position = { segment: 0, offset: 0 }

/**
 * Every intact record from `from` on, and where they end.
 * @param from where a record (or the log) ends
 * @param sequence of the record before `from`
 * @param durable of the last record that is known to have been safely stored, if that is a later one
 * @throws NexusError NEXUS_CORRUPT for rot, NEXUS_TOO_NEW for a newer format
 */
export function* readLog(
  disk: Disk,
  store: bigint,
  from: Position,
  sequence: number,
  durable = sequence,
): Generator<LogRecord, LogEnd> {
  const segments = segmentsOf(disk)
  const end: LogEnd = { position: { ...from }, sequence, torn: 0, version: FORMAT_VERSION, zeros: new Map() }
  if (from.segment > 0 && !segments.has(from.segment)) {
    throw new NexusError(
      'NEXUS_CORRUPT',
      `segment ${segmentName(from.segment)} is missing: restore that file from a backup, or, if the index is an old copy, mount again with --rebuild-index`,
    )
  }
  for (let number = Math.max(1, from.segment); segments.has(number); number++) {
    // What was read before is passed over: most of a segment, when the last checkpoint was near its end.
    const part = readSegment(disk, number, number === from.segment ? from.offset : 0)
    const opened = openSegment(part, number, store, end.sequence, from)
    if (opened === undefined) {
      end.torn = lengthWithoutZeros(part.bytes)
      break
    }
    end.version = opened.version
    yield* recordsIn(part, number, opened.offset, store, end)
    if (end.torn > 0) break
  }
  refuseRot(disk, store, end, durable)
  return end
}

/** The intact records of one segment, whatever comes before it. */
export function* readOneSegment(disk: Disk, store: bigint, number: number): Generator<LogRecord> {
  const segment = readSegment(disk, number)
  const header = decodeSegmentHeader(segment.header)
  if (header === undefined || header.store !== store || header.version > FORMAT_VERSION) return
  const { version, firstSequence } = header
  const position = { segment: number, offset: 0 }
  const end: LogEnd = { position, sequence: firstSequence - 1, torn: 0, version, zeros: new Map() }
  yield* recordsIn(segment, number, SEGMENT_HEADER_BYTES, store, end)
}

const BLOCK_BYTES = 256 * 1024
/** A segment is read at once. None is larger than this, whatever was appended to its file. */
const SEGMENT_BYTES_MAX = 1 << 30

/**
 * The metas of a segment's records of one type; their data is passed over unread. Yields nothing now and then, so
 * that the caller can pause. Zeros at its end are damage here: a segment that no start reads any more was cut before.
 * @throws NexusError NEXUS_CORRUPT when the segment is not whole: what lies behind the damage cannot be found
 */
export function* metasIn(disk: Disk, store: bigint, number: number, type: number): Generator<Buffer | undefined, void> {
  const fd = disk.open(segmentName(number), false)
  try {
    const size = disk.size(fd)
    let block: Buffer = Buffer.alloc(0)
    let start = 0
    const read = (at: number, length: number): Buffer => {
      if (at < start || at + length > start + block.length) {
        block = Buffer.allocUnsafe(Math.min(Math.max(length, BLOCK_BYTES), Math.max(0, size - at)))
        start = at
        block = block.subarray(0, disk.read(fd, block, 0, block.length, at))
      }
      return block.subarray(at - start, at - start + length)
    }
    let at = SEGMENT_HEADER_BYTES
    while (at < size) {
      const before = start
      const header = readRecordHeader(read(at, RECORD_HEADER_BYTES), 0, store)
      if (header === undefined) throw notWhole(number, at)
      const meta = at + RECORD_HEADER_BYTES + header.dataBytes
      if (header.type === type) {
        const bytes = read(meta, header.metaBytes)
        if (bytes.length < header.metaBytes || xxh64(bytes, store) !== header.metaXxh) throw notWhole(number, at)
        yield bytes
      }
      at = meta + header.metaBytes
      if (start !== before) yield undefined
    }
    if (at > size) throw notWhole(number, size)
  } finally {
    disk.close(fd)
  }
}

function notWhole(segment: number, at: number): NexusError {
  return new NexusError('NEXUS_CORRUPT', `${segmentName(segment)} is damaged at byte ${at}; restore that file from a backup`)
}

/**
 * The records of a segment from `offset` on while they are intact; `end` follows. Zeros behind the last are what the log
 * writes ahead of its end (ahead.ts): a segment that is not the last has them when a loss of power took the cut.
 */
function* recordsIn(part: Part, number: number, offset: number, store: bigint, end: LogEnd): Generator<LogRecord> {
  const { bytes, base } = part
  end.position = { segment: number, offset }
  for (let at = offset - base; at < bytes.length; ) {
    const header = readRecordHeader(bytes, at, store)
    if (header === undefined || header.sequence !== end.sequence + 1 || !recordIsIntact(bytes, at, header, store)) {
      end.torn = lengthWithoutZeros(bytes.subarray(at))
      if (end.torn === 0) end.zeros.set(number, base + at)
      return
    }
    const data = at + RECORD_HEADER_BYTES
    const meta = data + header.dataBytes
    at = meta + header.metaBytes
    end.position = { segment: number, offset: base + at }
    end.sequence = header.sequence
    yield {
      type: header.type,
      sequence: header.sequence,
      segment: number,
      offset: base + data,
      data: bytes.subarray(data, meta),
      meta: bytes.subarray(meta, at),
      end: end.position,
    }
  }
}

/** Bytes up to the last that is not zero. */
function lengthWithoutZeros(bytes: Buffer): number {
  let length = bytes.length
  while (length > 0 && bytes[length - 1] === 0) length--
  return length
}

/**
 * Makes the log ready to be continued: removes what lies behind its end, and zeros behind that of other segments, and
 * stores safely what a daemon that was killed had only handed to the kernel.
 * @param from where reading started; everything before it is durable
 */
export async function settle(disk: Disk, from: Position, end: LogEnd): Promise<void> {
  for (const number of segmentsOf(disk)) {
    if (number > end.position.segment) {
      disk.remove(segmentName(number))
      continue
    }
    if (number < from.segment) continue
    const fd = disk.open(segmentName(number), false)
    try {
      const offset = number === end.position.segment ? end.position.offset : end.zeros.get(number)
      if (offset !== undefined && disk.size(fd) > offset) disk.truncate(fd, offset)
      await disk.sync(fd)
    } finally {
      disk.close(fd)
    }
  }
  await disk.syncNames()
}

/**
 * The log's segments and how large each is, ascending.
 * @param end of the log while it is written: zeros ahead of it belong to nothing that was stored
 */
export function segmentSizes(disk: Disk, end?: Position): Map<number, number> {
  const sizes = new Map<number, number>()
  for (const number of segmentsOf(disk)) sizes.set(number, segmentBytes(disk, number, end))
  return sizes
}

/** Bytes of one segment, see `segmentSizes`. */
export function segmentBytes(disk: Disk, number: number, end?: Position): number {
  if (number === end?.segment) return end.offset
  const fd = disk.open(segmentName(number), false)
  try {
    return disk.size(fd)
  } finally {
    disk.close(fd)
  }
}

/** The numbers of the log's segments, ascending. */
export function segmentsOf(disk: Disk): Set<number> {
  const numbers = disk.list().flatMap((name) => segmentNumber(name) ?? [])
  return new Set(numbers.sort((a, b) => a - b))
}

/** What a segment's file holds from some place on. */
interface Part {
  /** the first bytes of the file */
  header: Buffer
  bytes: Buffer
  /** where in the file `bytes` begin */
  base: number
  /** of the file, in bytes */
  size: number
}

function readSegment(disk: Disk, number: number, base = 0): Part {
  const fd = disk.open(segmentName(number), false)
  try {
    const size = disk.size(fd)
    if (size > SEGMENT_BYTES_MAX) throw notWhole(number, SEGMENT_BYTES_MAX)
    const read = (at: number, length: number): Buffer => {
      const buffer = Buffer.allocUnsafe(length)
      return buffer.subarray(0, disk.read(fd, buffer, 0, length, at))
    }
    const bytes = read(base, Math.max(0, size - base))
    const header = base === 0 ? bytes : read(0, Math.min(size, SEGMENT_HEADER_BYTES))
    return { header, bytes, base, size: bytes.length === 0 ? size : base + bytes.length }
  } finally {
    disk.close(fd)
  }
}

/** Where reading starts in this segment, and its format; undefined when its header never reached the disk. */
function openSegment(
  part: Part,
  number: number,
  store: bigint,
  sequence: number,
  from: Position,
): { offset: number; version: number } | undefined {
  const header = decodeSegmentHeader(part.header)
  if (header === undefined) {
    if (number !== from.segment) return undefined
    // Records of it were read before: what follows would be found no more.
    throw new NexusError('NEXUS_CORRUPT', `the header of ${segmentName(number)} is damaged; restore that file from a backup`)
  }
  if (header.version > FORMAT_VERSION) {
    throw new NexusError(
      'NEXUS_TOO_NEW',
      `${segmentName(number)} has format ${header.version}, this program reads up to ${FORMAT_VERSION}: install a newer nexus`,
    )
  }
  if (header.store !== store || header.number !== number) {
    throw new NexusError('NEXUS_CORRUPT', `${segmentName(number)} belongs to another store; put back the original file`)
  }
  if (number === from.segment && part.size < from.offset) {
    throw new NexusError(
      'NEXUS_CORRUPT',
      `${segmentName(number)} is ${from.offset - part.size} bytes short; restore that file from a backup`,
    )
  }
  const { version } = header
  if (number === from.segment) return { offset: from.offset, version }
  return header.firstSequence === sequence + 1 ? { offset: SEGMENT_HEADER_BYTES, version } : undefined
}

/**
 * Throws when it is known, or a record behind the end proves, that what the end lacks was durable:
 * then the bytes there rotted.
 */
function refuseRot(disk: Disk, store: bigint, end: LogEnd, durable: number): void {
  const lost = end.sequence + 1
  if (durable < lost && !laterSegmentProves(disk, store, end, lost)) return
  throw new NexusError(
    'NEXUS_CORRUPT',
    `the log is damaged at byte ${end.position.offset} of ${segmentName(Math.max(1, end.position.segment))}, before records that were safely stored; restore that file from a backup`,
  )
}

function laterSegmentProves(disk: Disk, store: bigint, end: LogEnd, lost: number): boolean {
  for (const number of segmentsOf(disk)) {
    if (number < end.position.segment) continue
    const start = number === end.position.segment ? end.position.offset : 0
    const part = readSegment(disk, number, start)
    const header = decodeSegmentHeader(part.header)
    if (header !== undefined && start === 0 && header.durable >= lost) return true
    if (laterRecordProves(part.bytes, store, lost)) return true
  }
  return false
}

function laterRecordProves(buffer: Buffer, store: bigint, lost: number): boolean {
  const magic = Buffer.from('NXRC', 'latin1')
  for (let at = buffer.indexOf(magic); at !== -1; at = buffer.indexOf(magic, at + 1)) {
    const header = readRecordHeader(buffer, at, store)
    if (header !== undefined && header.sequence > lost && header.durable >= lost) return true
  }
  return false
}
