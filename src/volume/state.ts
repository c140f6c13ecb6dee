/**
 * The state of a store as of a checkpoint: what the index holds besides places, and what a `state`
 * record in the log repeats before older records are given back.
 */
import { NexusError } from '../errors.ts'
import type { Disk } from '../journal/disk.ts'
import type { Position } from '../journal/log.ts'
import { RecordType } from '../journal/record.ts'
import { type LogRecord, readOneSegment } from '../journal/replay.ts'

/** What a start replays from. */
export interface Checkpoint extends Position {
  /** of the last record before it */
  sequence: number
  /** of the last record that was safely stored when this was: places in the index point at what lies before */
  durable: number
}

/** A volume as the index has it. */
export interface VolumeState {
  /** hex, null for an empty tree */
  root: string | null
  domain: number
  ino_next: number
}

/** What is known of garbage, for an estimate: a store without it has never been collected. */
export interface CollectedState {
  /** bytes of the log when the last collection had ended */
  log_bytes: number
  /** bytes that became garbage since, at most */
  released: number
}

export interface SavedState {
  checkpoint: Checkpoint
  /** by key */
  catalog: Record<string, string>
  /** by number */
  volumes: Record<string, VolumeState>
}

export function encodeState(state: SavedState): Buffer {
  return Buffer.from(JSON.stringify(state))
}

/** @throws NexusError NEXUS_CORRUPT for what is not a checkpoint */
export function parseCheckpoint(value: Buffer): Checkpoint {
  let document: unknown
  try {
    document = JSON.parse(value.toString())
  } catch {
    // Said below.
  }
  const fields = ['segment', 'offset', 'sequence', 'durable'] as const
  const values = typeof document === 'object' && document !== null ? (document as Partial<Record<string, unknown>>) : {}
  if (fields.every((field) => Number.isSafeInteger(values[field]))) return values as unknown as Checkpoint
  throw new NexusError(
    'NEXUS_CORRUPT',
    'the index holds a damaged checkpoint: mount again with --rebuild-index to make it anew from the log',
  )
}

/**
 * Reads all segments for an index that was lost: hands out every record that says where content
 * lies, and returns the last state that the log repeats, if older records were given back.
 */
export function scanLog(
  disk: Disk,
  store: bigint,
  segments: Iterable<number>,
  adopt: (record: LogRecord) => void,
): SavedState | undefined {
  let last: SavedState | undefined
  for (const segment of segments) {
    for (const record of readOneSegment(disk, store, segment)) {
      // The checksums have proved that these are bytes that encodeState made.
      if (record.type === RecordType.state) last = JSON.parse(record.meta.toString()) as SavedState
      else if (record.type !== RecordType.changes) adopt(record)
    }
  }
  return last
}
