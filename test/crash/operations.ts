/** Random operations, as plain data that fast-check can shrink: nodes and names are picked by number. */
import fc from 'fast-check'

export const S_IFDIR = 0o040000
export const S_IFREG = 0o100000
export const S_IFLNK = 0o120000
export const S_IFIFO = 0o010000

export const OPERATION_KINDS = [
  'create',
  'mkdir',
  'symlink',
  'mkfifo',
  'tmpfile',
  'link',
  'unlink',
  'rmdir',
  'rename',
  'write',
  'append',
  'truncate',
  'setattr',
  'setxattr',
  'removexattr',
  'fallocate',
  'copy',
  'forget',
] as const

export interface Operation {
  kind: (typeof OPERATION_KINDS)[number]
  /** pick nodes: the n-th of those that fit, modulo their number */
  a: number
  b: number
  /** pick names */
  name: number
  other: number
  offset: number
  length: number
  seed: number
}

export const NAMES = ['a', 'b', 'c', 'name', 'caf\xe9', '\x01\xff', 'x'.repeat(255)]
export const XATTRS = ['user.a', 'user.b', 'trusted.t']

const WINDOW = 1024 * 1024
const offset = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0, 0, 1, 100, 300) },
  { weight: 2, arbitrary: fc.constantFrom(WINDOW - 40, WINDOW, 3 * WINDOW + 5) },
)

/** A mix in which things get made more often than removed. */
const kind = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...(['create', 'create', 'mkdir', 'symlink', 'link'] as const)) },
  { weight: 6, arbitrary: fc.constantFrom(...(['write', 'write', 'append', 'truncate', 'copy', 'fallocate'] as const)) },
  { weight: 6, arbitrary: fc.constantFrom(...OPERATION_KINDS) },
)

export const operation: fc.Arbitrary<Operation> = fc.record(
  {
    kind,
    a: fc.nat(50),
    b: fc.nat(50),
    name: fc.nat(NAMES.length - 1),
    other: fc.nat(NAMES.length - 1),
    offset,
    length: fc.oneof({ weight: 9, arbitrary: fc.nat(200) }, { weight: 1, arbitrary: fc.nat(3000) }),
    seed: fc.nat(255),
  },
  { noNullPrototype: true },
)
