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
  const document = objectIn(value)
  if (isCheckpoint(document)) return document
  throw damagedInIndex('checkpoint')
}

/** @throws NexusError NEXUS_CORRUPT for what is not what is known of garbage */
export function parseCollected(value: Buffer): CollectedState {
  const document = objectIn(value)
  const { log_bytes, released } = document
  if (isCount(log_bytes) && isCount(released)) return { log_bytes, released }
  throw damagedInIndex('note of the last collection')
}

/**
 * A volume as the index has it, and its number.
 * @param key what stands behind `v/`
 * @throws NexusError NEXUS_CORRUPT for what is not one
 */
export function parseVolume(key: string, value: Buffer): [number: number, state: VolumeState] {
  const document = objectIn(value)
  if (isVolumeNumber(key) && isVolume(document)) return [Number(key), document]
  throw damagedInIndex('volume')
}

/** @throws NexusError NEXUS_CORRUPT for what `encodeState` did not make */
export function parseState(value: Buffer): SavedState {
  const { checkpoint, catalog, volumes } = objectIn(value)
  const isWhole =
    isObject(checkpoint) &&
    isCheckpoint(checkpoint) &&
    isObject(catalog) &&
    Object.values(catalog).every((text) => typeof text === 'string') &&
    isObject(volumes) &&
    Object.entries(volumes).every(([number, volume]) => isVolumeNumber(number) && isObject(volume) && isVolume(volume))
  if (isWhole) return { checkpoint, catalog, volumes } as SavedState
  throw new NexusError('NEXUS_CORRUPT', 'the log repeats a damaged state: restore the data directory from a backup')
}

type Document = Partial<Record<string, unknown>>

/** What is no object is one without fields. */
function objectIn(json: Buffer): Document {
  try {
    const document: unknown = JSON.parse(json.toString())
    return isObject(document) ? document : {}
  } catch {
    return {}
  }
}

function isObject(value: unknown): value is Document {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isCheckpoint(document: Document): document is Document & Checkpoint {
  const { segment, offset, sequence, durable } = document
  return [segment, offset, sequence, durable].every(isCount)
}

function isVolumeNumber(text: string): boolean {
  return /^\d{1,10}$/.test(text)
}

function isVolume(document: Document): document is Document & VolumeState {
  const { root, domain, ino_next } = document
  return (root === null || (typeof root === 'string' && /^[0-9a-f]{64}$/.test(root))) && isCount(domain) && isCount(ino_next)
}

function damagedInIndex(what: string): NexusError {
  return new NexusError(
    'NEXUS_CORRUPT',
    `the index holds a damaged ${what}: mount again with --rebuild-index to make it anew from the log`,
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
      if (record.type === RecordType.state) last = parseState(record.meta)
      else if (record.type !== RecordType.changes) adopt(record)
    }
  }
  return last
}
