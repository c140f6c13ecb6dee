/**
 * Writes the valid inputs that the fuzz tests start from: node dist/test/fuzz/make-seeds.js
 *
 * A file that is there keeps the lines behind `# found`: inputs that once did harm.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ByteWriter } from '../../src/bytes.ts'
import { type Address, addressOf } from '../../src/cas/address.ts'
import { encodeLocation, writeCountedLocation } from '../../src/cas/location.ts'
import { packageRoot } from '../../src/host/version.ts'
import { encodeAcl, OPEN_ACL, Tag } from '../../src/vfs/acl.ts'
import { type Attr, encodeAttr, S_IFDIR, S_IFREG } from '../../src/volume/attr.ts'
import { type Change, writeChange } from '../../src/volume/change.ts'
import { encodeBucket } from '../../src/volume/dirent.ts'
import { encodeWindow } from '../../src/volume/piece.ts'
import { encodeState } from '../../src/volume/state.ts'
import { encodeSuper } from '../../src/volume/volume.ts'
import { attrOf } from '../volume/support.ts'
import { aNode, aSegment, aSnapshot, aTuple, aWorkspace } from './examples.ts'

const FOUND = '# found'
const address = addressOf(Buffer.from('nexus'))
const location = {
  length: 12,
  xxh: 0x0102030405060708n,
  parts: [
    { segment: 1, offset: 120, length: 5 },
    { segment: 2, offset: 64, length: 7 },
  ],
}

/** Three blocks and a bit of one. */
const withSums = {
  length: 12_300,
  xxh: 0x0102030405060708n,
  parts: [
    { segment: 1, offset: 120, length: 5000 },
    { segment: 300, offset: 64, length: 7300 },
  ],
  sums: Buffer.from('0123456789abcdef'),
}

function changes(...list: Change[]): Buffer {
  const out = new ByteWriter()
  for (const change of list) writeChange(out, change)
  return out.copy()
}

const attr: Attr = attrOf(S_IFREG | 0o644, 5, { atime: { s: -7, ns: 999_999_999 } })
const at = { volume: 1, ino: 3 }
const entry = { index: 1, name: 'caf\xe9', type: S_IFDIR, ino: 9, volume: 0 }
const allChanges: Change[] = [
  { kind: 'attr', ...at, attr },
  { kind: 'drop', ...at },
  { kind: 'orphan', ...at, present: true },
  { kind: 'entry', ...at, slot: 0x26c7827d889f, entry },
  { kind: 'unentry', ...at, slot: 0x26c7827d889f, index: 3 },
  { kind: 'xattr', ...at, name: 'user.a', value: Buffer.from('v') },
  { kind: 'xattr', ...at, name: 'user.a', value: null },
  { kind: 'link', ...at, target: Buffer.from('../to') },
  { kind: 'write', ...at, offset: 0, length: 2, from: 0 },
  { kind: 'refer', ...at, offset: 4096, length: 100, source: { kind: 'chunk', address, offset: 3 } },
  { kind: 'clear', ...at, offset: 1, length: 9, allocate: true },
  { kind: 'clear', ...at, offset: 1, length: 2 ** 53 - 2, allocate: false },
  { kind: 'copy', ...at, offset: 8, length: 2, fromVolume: 1, fromIno: 3, fromOffset: 0 },
  { kind: 'root', volume: 1, root: null, domain: 1, inoNext: 3 },
  { kind: 'root', volume: 2, root: address, domain: 1, inoNext: 99 },
  { kind: 'unvolume', volume: 1 },
  { kind: 'catalog', key: 'w/7', value: '{}' },
  { kind: 'catalog', key: 'w/7', value: null },
]

const counted = new ByteWriter()
counted.varint(7).fixed(address)
writeCountedLocation(counted, location)
const countedSums = new ByteWriter()
countedSums.varint(7).fixed(address)
writeCountedLocation(countedSums, withSums)
writeCountedLocation(countedSums.fixed(address), location)

const state = {
  checkpoint: { segment: 1, offset: 64, sequence: 0, durable: 0 },
  catalog: { 'w/0': '{}', 'i/1000': 'user:alice' },
  volumes: { '0': { root: null, domain: 0, ino_next: 5 }, '2': { root: 'ab'.repeat(32), domain: 2, ino_next: 77 } },
}

/** A request to the control socket. */
const post = (call: string, body: string): Buffer =>
  Buffer.from(`POST /v1/${call} HTTP/1.1\r\ncontent-length: ${body.length}\r\n\r\n${body}`)

const seeds: Record<string, readonly Buffer[]> = {
  attr: [encodeAttr(attr), encodeAttr(attrOf(S_IFDIR | 0o755, 0, { name: '' }))],
  super: [encodeSuper({ inoNext: 7, files: 2, directories: 1, bytes: 2 ** 40, allocated: 4096, inodes: 3, xattrBytes: 77 })],
  bucket: [encodeBucket([entry]), encodeBucket([{ ...entry, index: 0, name: 'b', volume: 7, ino: 1 }, entry])],
  window: [
    encodeWindow([{ kind: 'zero', start: 0, length: 9 }]),
    encodeWindow([
      { kind: 'chunk', start: 0, length: 4096, address, offset: 0 },
      { kind: 'damaged', start: 4096, length: 1 },
      { kind: 'chunk', start: 8192, length: 1024 * 1024 - 8192, address: 'x'.repeat(32) as Address, offset: 70_000 },
    ]),
  ],
  location: [
    encodeLocation(location),
    encodeLocation({ ...location, length: 5, parts: location.parts.slice(0, 1) }),
    encodeLocation(withSums),
  ],
  sealed: [counted.copy(), countedSums.copy()],
  changes: [...allChanges.map((change) => changes(change)), changes(...allChanges)],
  node: [aNode(0), aNode(1), aNode(5)],
  state: [encodeState(state)],
  checkpoint: [Buffer.from(JSON.stringify(state.checkpoint))],
  catalog: [aWorkspace, aSnapshot, aTuple].map((record) => Buffer.from(JSON.stringify(record))),
  acl: [
    encodeAcl([]),
    encodeAcl(OPEN_ACL),
    encodeAcl([
      { tag: Tag.userObj, perm: 7, id: 0 },
      { tag: Tag.user, perm: 5, id: 1000 },
      { tag: Tag.groupObj, perm: 4, id: 0 },
      { tag: Tag.mask, perm: 5, id: 0 },
      { tag: Tag.other, perm: 0, id: 0 },
    ]),
  ],
  segment: [aSegment(), aSegment(1)],
  control: [
    post('status', ''),
    post('workspaceCreate', '{"path":"/workspace/a","metadata":{"team":"web"},"owner":"user:alice","quotaBytes":5}'),
    post('snapshotDiff', '{"path":"/workspace/a","from":"before","to":null,"limit":10}'),
    post('restore', '{"path":"/workspace/a","snapshot":"before","dryRun":true}'),
    post('grant', '{"subject":"group:eng","relation":"editor","path":"/workspace/a","expires":"2999-01-01T00:00Z"}'),
    Buffer.from(
      'POST /v1/whatCan HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n13\r\n{"subject":"alice"}\r\n0\r\n\r\n',
    ),
    Buffer.from('GET /v1/status HTTP/1.0\r\nconnection: keep-alive\r\nexpect: 100-continue\r\n\r\n'),
  ],
}

for (const [name, inputs] of Object.entries(seeds)) {
  const file = join(packageRoot(), 'test', 'fuzz', 'seeds', `${name}.hex`)
  const before = existsSync(file) ? readFileSync(file, 'utf8') : ''
  const found = before.includes(FOUND) ? before.slice(before.indexOf(FOUND)) : `${FOUND}\n`
  writeFileSync(file, `# valid (make-seeds.ts)\n${inputs.map((bytes) => `${bytes.toString('hex')}\n`).join('')}${found}`)
}
