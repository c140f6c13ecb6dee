/** What the index holds besides places, and how a start gets from there to the state of the last record in the log. */
import { ByteReader } from '../bytes.ts'
import { toHex } from '../cas/address.ts'
import type { Index, IndexEntry } from '../cas/index.ts'
import type { ContentStore } from '../cas/store.ts'
import { NexusError } from '../errors.ts'
import type { Disk } from '../journal/disk.ts'
import { RecordType } from '../journal/record.ts'
import { LOG_START, type LogEnd, type LogRecord, readLog, segmentSizes, settle } from '../journal/replay.ts'
import type { Logger } from '../logger.ts'
import { type Change, readChange } from './change.ts'
import {
  type Checkpoint,
  type CollectedState,
  parseCheckpoint,
  parseCollected,
  parseVolume,
  scanLog,
  type VolumeState,
} from './state.ts'
import type { MergedState, Unstored, VolumeTable } from './table.ts'

const CHECKPOINT_KEY = Buffer.from('m/checkpoint')
const COLLECTED_KEY = Buffer.from('m/collected')
const CATALOG_PREFIX = 'k/'
const VOLUME_PREFIX = 'v/'

export const NO_CHECKPOINT: Checkpoint = { ...LOG_START, sequence: 0, durable: 0 }
const NEVER_COLLECTED: CollectedState = { log_bytes: 0, released: 0 }

export interface RecoverOptions {
  disk: Disk
  index: Index
  /** seeds every checksum */
  store: bigint
  logger: Logger
  table: VolumeTable
  content: ContentStore
}

export interface Recovered {
  /** the log goes on there */
  end: LogEnd
  collected: CollectedState
}

/** Undefined when the index has none, because it is new or was lost. */
export function checkpointIn(index: Index): Checkpoint | undefined {
  const saved = index.get(CHECKPOINT_KEY)
  return saved === undefined ? undefined : parseCheckpoint(saved)
}

/**
 * Fills the table and the store, which are empty, and makes the log ready to be continued.
 * @param checkpoint of the index
 * @throws NexusError NEXUS_CORRUPT, NEXUS_TOO_NEW
 */
export async function recover(options: RecoverOptions, checkpoint: Checkpoint | undefined): Promise<Recovered> {
  const { disk, logger } = options
  const start = checkpoint ?? rebuild(options)
  const collected = checkpoint === undefined ? NEVER_COLLECTED : await load(options)
  const end = replay(options, start)
  await settle(disk, start, end)
  if (end.torn > 0) logger.info({ bytes: end.torn }, 'cut off an unfinished record at the end of the log')
  return { end, collected }
}

async function load({ index, table }: RecoverOptions): Promise<CollectedState> {
  for await (const [key, value] of index.entries(Buffer.from(CATALOG_PREFIX))) {
    table.catalog.load(key.toString().slice(CATALOG_PREFIX.length), value.toString())
  }
  for await (const [key, value] of index.entries(Buffer.from(VOLUME_PREFIX))) {
    const [number, state] = parseVolume(key.toString().slice(VOLUME_PREFIX.length), value)
    table.restore(number, state, true)
  }
  const collected = index.get(COLLECTED_KEY)
  return collected === undefined ? NEVER_COLLECTED : parseCollected(collected)
}

/** Without an index, all that is known is in the log. @returns where to replay from */
function rebuild({ disk, store, table, content }: RecoverOptions): Checkpoint {
  const segments = segmentSizes(disk)
  const state = scanLog(disk, store, segments.keys(), (record) => content.adopt(record, segments))
  if (state === undefined) {
    if (segments.size === 0 || segments.has(1)) return NO_CHECKPOINT
    throw new NexusError(
      'NEXUS_CORRUPT',
      'the index is lost and the log does not start at its beginning: restore the data directory from a backup',
    )
  }
  for (const [key, value] of Object.entries(state.catalog)) table.catalog.apply(key, value)
  for (const [number, volume] of Object.entries(state.volumes)) table.restore(Number(number), volume, false)
  return state.checkpoint
}

function replay(options: RecoverOptions, from: Checkpoint): LogEnd {
  const { disk, store } = options
  const segments = segmentSizes(disk)
  const records = readLog(disk, store, from, from.sequence, from.durable)
  for (;;) {
    const step = records.next()
    if (step.done === true) return step.value
    replayRecord(options, step.value, segments)
  }
}

function replayRecord({ table, content }: RecoverOptions, record: LogRecord, segments: ReadonlyMap<number, number>): void {
  if (record.type !== RecordType.changes) {
    if (record.type !== RecordType.state) content.adopt(record, segments)
    return
  }
  const input = new ByteReader(record.meta)
  const span = { segment: record.segment, offset: record.offset, length: record.data.length }
  const changes: Change[] = []
  while (!input.done) changes.push(readChange(input))
  table.apply(changes, span)
}

export function describe(states: ReadonlyMap<number, MergedState>): Record<string, VolumeState> {
  return Object.fromEntries([...states].map(([number, state]) => [number, volumeState(state)]))
}

function volumeState({ root, domain, super: counters }: MergedState): VolumeState {
  return { root: root === null ? null : toHex(root), domain, ino_next: counters.inoNext }
}

/** What a checkpoint stores in the index besides places. */
export function indexEntries(
  checkpoint: Checkpoint,
  { catalog, removed }: Unstored,
  volumes: Record<string, VolumeState>,
  collected: CollectedState,
): IndexEntry[] {
  const entries: IndexEntry[] = []
  const put = (key: string | Buffer, value: string | null): void => {
    entries.push({ key: Buffer.from(key), value: value === null ? null : Buffer.from(value) })
  }
  for (const [key, value] of catalog) put(CATALOG_PREFIX + key, value)
  for (const number of removed) if (volumes[number] === undefined) put(VOLUME_PREFIX + number, null)
  for (const [number, state] of Object.entries(volumes)) put(VOLUME_PREFIX + number, JSON.stringify(state))
  put(CHECKPOINT_KEY, JSON.stringify(checkpoint))
  // So that a daemon that is started often collects too.
  put(COLLECTED_KEY, JSON.stringify(collected))
  return entries
}
