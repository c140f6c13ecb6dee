/** Every kind of change is stored and read back as it was; what is cut or unknown is refused. */
import fc from 'fast-check'
import t from 'tap'
import { ByteReader, ByteWriter } from '../../src/bytes.ts'
import { type Address, addressOf } from '../../src/cas/address.ts'
import { type Change, readChange, type StoredSource, writeChange } from '../../src/volume/change.ts'
import { isName } from '../../src/volume/dirent.ts'
import { same } from './support.ts'

const u32 = fc.nat(0xffff_ffff)
const large = fc.oneof(fc.nat(300), fc.maxSafeNat())
const latin1 = (maxLength: number, minLength = 0) =>
  fc.uint8Array({ minLength, maxLength }).map((bytes) => Buffer.from(bytes).toString('latin1'))
const bytes = fc.uint8Array({ maxLength: 300 }).map((each): Uint8Array => Buffer.from(each))
const time = fc.record({ s: fc.oneof(fc.maxSafeInteger(), fc.integer()), ns: fc.nat(999_999_999) })
const address = fc.uint8Array({ minLength: 1, maxLength: 8 }).map((content) => addressOf(content))
const attr = fc.record({
  mode: fc.nat(0o177777),
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  size: large,
  allocated: large,
  atime: time,
  mtime: time,
  ctime: time,
  btime: time,
  xattrs: fc.nat(1000),
  parent: u32,
  name: latin1(255),
})
const entry = fc.record({
  index: fc.nat(15),
  name: latin1(255, 1).filter(isName),
  type: fc.integer({ min: 1, max: 15 }).map((type) => type << 12),
  ino: fc.integer({ min: 1, max: 0xffff_ffff }),
  volume: fc.nat(2 ** 21 - 1),
})
const source: fc.Arbitrary<StoredSource> = fc.oneof(
  fc.record({ kind: fc.constant('chunk' as const), offset: large, address }),
  fc.constant<StoredSource>({ kind: 'zero' }),
  fc.constant<StoredSource>({ kind: 'damaged' }),
)
const base = { volume: fc.nat(2 ** 21 - 1), ino: u32 }
// A range ends below 2^53.
const half = large.map((n) => Math.floor(n / 2))
const range = { offset: half, length: half }
const slot = fc.nat(2 ** 30 - 1).map((n) => n * 2 ** 18 + 1)
const text = fc.string({ unit: 'binary', maxLength: 100 }).map((each) => Buffer.from(each).toString())
const of = <K extends Change['kind']>(kind: K) => ({ kind: fc.constant(kind) })

const kinds: { [K in Change['kind']]: fc.Arbitrary<Extract<Change, { kind: K }>> } = {
  attr: fc.record({ ...of('attr'), ...base, attr }),
  drop: fc.record({ ...of('drop'), ...base }),
  orphan: fc.record({ ...of('orphan'), ...base, present: fc.boolean() }),
  entry: fc.record({ ...of('entry'), ...base, slot, entry }),
  unentry: fc.record({ ...of('unentry'), ...base, slot, index: fc.nat(15) }),
  xattr: fc.record({ ...of('xattr'), ...base, name: latin1(255, 1), value: fc.option(bytes) }),
  link: fc.record({ ...of('link'), ...base, target: bytes }),
  write: fc.record({ ...of('write'), ...base, ...range, from: large }),
  refer: fc.record({ ...of('refer'), ...base, ...range, source }),
  clear: fc.record({ ...of('clear'), ...base, ...range, allocate: fc.boolean() }),
  copy: fc.record({ ...of('copy'), ...base, ...range, fromVolume: base.volume, fromIno: u32, fromOffset: large }),
  root: fc.record({ ...of('root'), volume: base.volume, root: fc.option(address), domain: u32, inoNext: large }),
  unvolume: fc.record({ ...of('unvolume'), volume: base.volume }),
  catalog: fc.record({ ...of('catalog'), key: text, value: fc.option(text) }),
}

const FIXED_BYTES = `0803ac02f0a20405010603ac0206757365722e610101760b03${'72'.repeat(32)}010905030180808080802002`
const FIXED_ATTR =
  '010001a481000001000000e80300006400000000000000c80180010000f15365000000000500000000f15365000000000500' +
  '0000ffffffffffffffffffc99a3b00f15365000000000500000001026ee9'

function encode(changes: readonly Change[]): Buffer {
  const out = new ByteWriter(16)
  for (const change of changes) writeChange(out, change)
  return out.copy()
}

function decode(stored: Buffer): Change[] {
  const input = new ByteReader(stored)
  const changes: Change[] = []
  while (!input.done) changes.push(readChange(input))
  return changes
}

for (const [kind, arbitrary] of Object.entries(kinds) as [string, fc.Arbitrary<Change>][]) {
  t.test(`${kind} comes back as it was`, (t) => {
    fc.assert(
      fc.property(arbitrary, (change) => same(decode(encode([change])), [change])),
      { numRuns: 150 },
    )
    t.pass()
    t.end()
  })
}

t.test('changes of one operation come back in order', (t) => {
  const any = fc.oneof(...(Object.values(kinds) as fc.Arbitrary<Change>[]))
  fc.assert(
    fc.property(fc.array(any, { maxLength: 12 }), (changes) => same(decode(encode(changes)), changes)),
    { numRuns: 150 },
  )
  t.pass()
  t.end()
})

t.test('a change that is cut short is refused, wherever the cut is', (t) => {
  const any = fc.oneof(...(Object.values(kinds) as fc.Arbitrary<Change>[]))
  const property = fc.property(any, (change) => {
    const stored = encode([change])
    for (let cut = 1; cut < stored.length; cut++) {
      try {
        decode(stored.subarray(0, cut))
      } catch (error) {
        if ((error as { code?: string }).code === 'NEXUS_CORRUPT') continue
        throw error
      }
      throw new Error(`the first ${cut} of ${stored.length} bytes were taken`)
    }
  })
  fc.assert(property, { numRuns: 60 })
  t.pass()
  t.end()
})

t.test('a kind that nobody knows is refused', (t) => {
  for (const tag of [0, 15, 255]) t.throws(() => decode(Buffer.from([tag, 1, 1])), { code: 'NEXUS_CORRUPT', message: /kind/ })
  t.end()
})

t.test('the bytes of a change are what they have always been', (t) => {
  const now = { s: 1_700_000_000, ns: 5 }
  const changes: Change[] = [
    { kind: 'write', volume: 3, ino: 300, offset: 70_000, length: 5, from: 1 },
    { kind: 'xattr', volume: 3, ino: 300, name: 'user.a', value: Buffer.from('v') },
    { kind: 'root', volume: 3, root: 'r'.repeat(32) as Address, domain: 1, inoNext: 9 },
    { kind: 'unentry', volume: 3, ino: 1, slot: 2 ** 40, index: 2 },
  ]
  t.equal(encode(changes).toString('hex'), FIXED_BYTES)
  t.equal(encode([{ kind: 'attr', volume: 0, ino: 1, attr: { ...fixedAttr(now) } }]).toString('hex'), FIXED_ATTR)
  t.end()
})

function fixedAttr(now: { s: number; ns: number }) {
  const times = { atime: now, mtime: now, ctime: { s: -1, ns: 999_999_999 }, btime: now }
  return {
    mode: 0o100644,
    nlink: 1,
    uid: 1000,
    gid: 100,
    rdev: 0,
    size: 200,
    allocated: 128,
    xattrs: 0,
    parent: 1,
    name: 'n\xe9',
    ...times,
  }
}
