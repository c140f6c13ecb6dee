/** Requests of a kernel that is not well: every opcode, with fields that make sense side by side with fields that do not. */
import fc from 'fast-check'
import { Opcode, type OpcodeName } from '../../src/fuse/protocol.ts'
import { encodeAcl, OPEN_ACL } from '../../src/vfs/acl.ts'
import { badBytes, damaged, seedsOf } from './support.ts'

/** Fields of each body: I a u32, F one of few flags, Q a u64, N a node, s a name with its NUL, b any bytes. */
const layouts: Partial<Record<OpcodeName, string>> = {
  LOOKUP: 's',
  FORGET: 'Q',
  GETATTR: 'IIQ',
  SETATTR: 'IIQQQQQQIIIIIIII',
  SYMLINK: 'ss',
  MKNOD: 'IIIIs',
  MKDIR: 'IIs',
  UNLINK: 's',
  RMDIR: 's',
  RENAME: 'Nss',
  LINK: 'Ns',
  READ: 'QQIIQII',
  WRITE: 'QQIIQIIb',
  FSYNC: 'QII',
  SETXATTR: 'IIIIsb',
  GETXATTR: 'IIs',
  LISTXATTR: 'II',
  REMOVEXATTR: 's',
  INIT: 'IIIII',
  READDIR: 'QQIIQII',
  FSYNCDIR: 'QII',
  CREATE: 'IIIIs',
  INTERRUPT: 'Q',
  BATCH_FORGET: 'IINQNQ',
  FALLOCATE: 'QQQII',
  READDIRPLUS: 'QQIIQII',
  RENAME2: 'NFIss',
  LSEEK: 'QQII',
  COPY_FILE_RANGE: 'QQNQQQQ',
  COPY_FILE_RANGE_64: 'QQNQQQQ',
  SYNCFS: 'Q',
  TMPFILE: 'IIIIs',
  STATX: 'IIQII',
}

const u32s = [0, 1, 2, 3, 4, 0o644, 0o755, 0o100644, 0o40755, 0o120777, 4096, 1 << 20, (1 << 20) + 1, 0x7fff_ffff, 0xffff_ffff]
const u64s = [
  0n,
  1n,
  2n,
  5n,
  4095n,
  4096n,
  1n << 20n,
  (1n << 20n) + 1n,
  1n << 31n,
  1n << 32n,
  2n ** 49n,
  2n ** 53n - 2n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 64n - 1n,
]
const names = [
  'a',
  'b',
  'c',
  'dir',
  '.',
  '..',
  '.snapshots',
  'workspace',
  'tenants',
  '',
  'a/b',
  '/',
  '\xff',
  'x'.repeat(255),
  'x'.repeat(256),
  'user.a',
  'trusted.b',
  'security.capability',
  'system.posix_acl_access',
  'system.posix_acl_default',
]

const u32 = fc.oneof(fc.constantFrom(...u32s), fc.nat({ max: 0xffff_ffff }))
const u64 = fc.oneof(
  { arbitrary: fc.constantFrom(...u64s), weight: 2 },
  { arbitrary: fc.bigInt({ min: 0n, max: 2n ** 21n }), weight: 4 },
  { arbitrary: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), weight: 1 },
)
/** Inodes of the root volume and of workspaces, mostly those that there will be; of their hidden directories, and of nothing. */
export const node = fc.oneof(
  { arbitrary: fc.constantFrom(1n, 4n, 2n ** 32n + 1n, 2n ** 33n + 1n), weight: 5 },
  { arbitrary: fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 16 })).map(([v, i]) => BigInt(v) * 2n ** 32n + BigInt(i)), weight: 4 },
  { arbitrary: u64, weight: 1 },
)
const value = fc.oneof(
  fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
  badBytes([...seedsOf('acl'), encodeAcl(OPEN_ACL)]),
)

function u32Bytes(number: number): Buffer {
  return Buffer.from(Uint32Array.of(number).buffer)
}

function u64Bytes(number: bigint): Buffer {
  return Buffer.from(BigUint64Array.of(number).buffer)
}

const fields: Record<string, fc.Arbitrary<Buffer>> = {
  I: u32.map(u32Bytes),
  F: fc.nat({ max: 4 }).map(u32Bytes),
  Q: u64.map(u64Bytes),
  N: node.map(u64Bytes),
  s: fc
    .oneof(
      { arbitrary: fc.constantFrom('a', 'b', 'c', 'user.a'), weight: 2 },
      { arbitrary: fc.constantFrom(...names), weight: 1 },
    )
    .map((name) => Buffer.from(`${name}\0`, 'latin1')),
  b: value,
}

function body(name: OpcodeName): fc.Arbitrary<Buffer> {
  const layout = layouts[name] ?? 'QQQQQQ'
  return fc.tuple(...[...layout].map((field) => fields[field] as fc.Arbitrary<Buffer>)).map((parts) => {
    const bytes = Buffer.concat(parts)
    // A value is as long as the field says that is to tell its length, where that is to be well.
    const [at, length] = name === 'WRITE' ? [16, parts.at(-1)?.length] : name === 'SETXATTR' ? [0, parts.at(-1)?.length] : []
    if (at !== undefined && length !== undefined && length % 4 !== 0) bytes.writeUInt32LE(length, at)
    return bytes
  })
}

const opcode = fc.oneof(
  { arbitrary: fc.constantFrom(...(Object.keys(Opcode) as OpcodeName[])), weight: 1 },
  { arbitrary: fc.constantFrom(...(Object.keys(layouts) as OpcodeName[])), weight: 6 },
  { arbitrary: fc.constantFrom('MKDIR' as const, 'CREATE' as const, 'LOOKUP' as const), weight: 2 },
)

/** Whole requests, of which the kernel's own would be none too far away. */
export const request: fc.Arbitrary<Buffer> = damaged(
  opcode.chain((name) =>
    fc
      .tuple(body(name), node, fc.constantFrom(0, 0, 0, 1000, 0xffff_ffff), fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }))
      .map(([bytes, on, uid, unique]) =>
        Buffer.concat([
          u32Bytes(40 + bytes.length),
          u32Bytes(Opcode[name]),
          u64Bytes(unique),
          u64Bytes(on),
          ...[uid, uid, 77, 0].map(u32Bytes),
          bytes,
        ]),
      ),
  ),
).chain((bytes) => fc.boolean().map((isFramed) => (isFramed ? framed(bytes) : bytes)))

/** With the length that the frame says, so that what is behind it is looked at. */
function framed(bytes: Buffer): Buffer {
  if (bytes.length < 40) return bytes
  const copy = Buffer.from(bytes)
  copy.writeUInt32LE(copy.length, 0)
  return copy
}
