/** Valid things of the store that take more than a line to make. */
import { ADDRESS_BYTES } from '../../src/cas/address.ts'
import { xxh64 } from '../../src/journal/checksum.ts'
import {
  encodeSegmentHeader,
  FORMAT_VERSION,
  RECORD_HEADER_BYTES,
  type RecordHeader,
  RecordType,
  writeRecordHeader,
} from '../../src/journal/record.ts'
import type { SnapshotRecord, WorkspaceRecord } from '../../src/workspaces/records.ts'
import { STORE } from '../journal/support.ts'

/** A node of three entries, by the table of src/tree/node.ts. */
export function aNode(level: number): Buffer {
  const entries = ['a', 'bb', 'ccc'].map((key) => {
    const value = level === 0 ? Buffer.from(`value of ${key}`) : Buffer.alloc(ADDRESS_BYTES, key)
    const head = Buffer.alloc(2)
    head.writeUInt16LE(key.length)
    return Buffer.concat([head, Buffer.from(key), value])
  })
  const head = Buffer.alloc(8 + 4 * entries.length)
  head.write('nt', 0, 'latin1')
  head[2] = 1
  head[3] = level
  head.writeUInt32LE(entries.length, 4)
  let end = head.length
  for (const [i, entry] of entries.entries()) {
    end += entry.length
    head.writeUInt32LE(end, 8 + 4 * i)
  }
  return Buffer.concat([head, ...entries])
}

/** A record of the log with checksums that fit, whatever its header claims besides. */
export function aRecord(sequence: number, data: Buffer, meta: Buffer, more: Partial<RecordHeader> = {}): Buffer {
  const head = Buffer.alloc(RECORD_HEADER_BYTES)
  const header: RecordHeader = {
    type: RecordType.changes,
    dataBytes: data.length,
    metaBytes: meta.length,
    sequence,
    durable: 0,
    dataXxh: xxh64(data, STORE),
    metaXxh: xxh64(meta, STORE),
    ...more,
  }
  writeRecordHeader(head, 0, header, STORE)
  return Buffer.concat([head, data, meta])
}

/** Segment 1 with three records. */
export function aSegment(version = FORMAT_VERSION): Buffer {
  return Buffer.concat([
    encodeSegmentHeader({ version, number: 1, store: STORE, firstSequence: 1, durable: 0 }),
    aRecord(1, Buffer.from('data'), Buffer.from('meta')),
    aRecord(2, Buffer.alloc(0), Buffer.from('only meta'), { durable: 1 }),
    aRecord(3, Buffer.alloc(100, 'x'), Buffer.alloc(0), { type: RecordType.node }),
  ])
}

export const aWorkspace: WorkspaceRecord = {
  number: 7,
  parent_volume: 0,
  parent_ino: 4,
  name: 'acme',
  domain: 7,
  created_at: '2026-01-31T12:34:56.789Z',
  metadata: { team: 'web' },
  parent: null,
}

export const aSnapshot: SnapshotRecord = {
  id: 'snap_01KG9Z0000000000000000000A',
  name: 'before',
  workspace: 7,
  ino: 1,
  path: '/workspace/acme',
  created_at: '2026-01-31T12:35:00.000Z',
  root: 'ab'.repeat(32),
  domain: 7,
  ino_next: 12,
  view: 9,
  files: 1,
  bytes: 100,
  metadata: {},
  parent: null,
  automatic: false,
  nested: [{ record: { ...aWorkspace, number: 8 }, root: null, ino_next: 3, view: 10 }],
}

export const aTuple = { created_at: '2026-01-31T12:36:00.000Z', expires_at: '2999-01-31T12:36:00.000Z' }
