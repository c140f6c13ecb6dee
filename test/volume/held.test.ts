/** Windows in their stored form, against the pieces that they stand for. */
import fc from 'fast-check'
import t from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { addressOf } from '../../src/cas/address.ts'
import type { NexusError } from '../../src/errors.ts'
import {
  allocatedOf,
  encodedOf,
  type HeldWindow,
  heldIn,
  movedOut,
  type NumberedWindow,
  StoredWindow,
  windowOf,
} from '../../src/volume/held.ts'
import { InodeDelta } from '../../src/volume/layer.ts'
import {
  countEncoded,
  decodeWindow,
  encodeWindow,
  type Piece,
  type Source,
  WINDOW_BYTES,
  type Window,
  ZERO_WINDOW,
} from '../../src/volume/piece.ts'
import { same } from './support.ts'

const address = addressOf(Buffer.from('content'))
const source: fc.Arbitrary<Source> = fc.oneof(
  fc.record({
    kind: fc.constant('chunk' as const),
    address: fc.constant(address),
    offset: fc.oneof(fc.nat(0x80), fc.nat(0x1f_ffff), fc.nat(2 ** 40)),
  }),
  fc.constant<Source>({ kind: 'zero' }),
  fc.constant<Source>({ kind: 'damaged' }),
)
/** Short and long numbers, up to a piece that fills the window. */
const length = fc.oneof(fc.integer({ min: 1, max: 0x80 }), fc.integer({ min: 1, max: 70_000 }), fc.constant(WINDOW_BYTES))
const gap = fc.oneof(fc.constant(0), fc.nat(300), fc.nat(40_000))
const sealed: fc.Arbitrary<Window> = fc.array(fc.tuple(gap, length, source), { maxLength: 40 }).map((wanted) => {
  const pieces: Piece[] = []
  let at = 0
  for (const [skip, most, one] of wanted) {
    const start = at + skip
    if (start >= WINDOW_BYTES) break
    at = Math.min(WINDOW_BYTES, start + most)
    pieces.push({ ...one, start, length: at - start })
  }
  return pieces
})
const edge = fc.oneof(fc.nat(WINDOW_BYTES), fc.constantFrom(0, WINDOW_BYTES))

/** What `decodeWindow` says, undefined when it refuses. */
function decoded(bytes: Buffer): Window | undefined {
  try {
    return decodeWindow(new ByteReader(bytes))
  } catch {
    return undefined
  }
}

function codeOf(work: () => void): string | undefined {
  try {
    work()
  } catch (error) {
    return (error as NexusError).code
  }
  return undefined
}

function bytesIn(window: Window, start: number, end: number): number {
  return window.reduce(
    (sum, piece) => sum + Math.max(0, Math.min(end, piece.start + piece.length) - Math.max(start, piece.start)),
    0,
  )
}

/** Somewhere inside of other bytes, as in a node. */
function storedIn(bytes: Buffer, before: number, behind: number): StoredWindow {
  const memory = Buffer.concat([Buffer.alloc(before, 1), bytes, Buffer.alloc(behind, 1)])
  return new StoredWindow(memory, before, before + bytes.length)
}

t.test('a stored window says what its pieces say', (t) => {
  const runs = fc.property(sealed, edge, edge, fc.nat(50), fc.nat(50), (window, start, end, before, behind) => {
    const stored = storedIn(encodeWindow(window), before, behind)
    const pieces = windowOf(stored)
    for (const held of [stored, pieces]) same(allocatedOf(held, start, end), bytesIn(window, start, end), 'allocated')
    same(bytesIn(pieces, 0, WINDOW_BYTES), bytesIn(window, 0, WINDOW_BYTES), 'pieces')
    same(encodedOf(stored).equals(encodeWindow(window)), true, 'stored form')
  })
  fc.assert(runs, { numRuns: 500 })
  t.end()
})

t.test('what is no window is not counted', (t) => {
  const harm = fc.record({ at: fc.nat(), value: fc.nat(255), cut: fc.option(fc.nat()) })
  const harmed = fc.tuple(sealed, fc.array(harm, { minLength: 1, maxLength: 3 })).map(([window, harms]) => {
    let bytes = Buffer.from(encodeWindow(window))
    for (const { at, value, cut } of harms) {
      if (bytes.length > 0) bytes[at % bytes.length] = value
      if (cut !== null) bytes = bytes.subarray(0, cut % (bytes.length + 1))
    }
    return bytes
  })
  const anything = fc.oneof(
    harmed,
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  )
  let [accepted, refused] = [0, 0]
  const runs = fc.property(anything, edge, edge, fc.nat(50), (bytes, start, end, behind) => {
    const window = decoded(bytes)
    const memory = Buffer.concat([bytes, Buffer.alloc(behind, 1)])
    const counted = countEncoded(memory, 0, bytes.length, start, end)
    if (window === undefined) {
      refused++
      same(counted, undefined, 'count')
      same(
        codeOf(() => allocatedOf(new StoredWindow(memory, 0, bytes.length), start, end)),
        'NEXUS_CORRUPT',
        'refusal',
      )
    } else {
      accepted++
      // Numbers that are longer than need be are left to whoever decodes.
      if (counted !== undefined) same(counted, bytesIn(window, start, end), 'count')
      same(allocatedOf(new StoredWindow(memory, 0, bytes.length), start, end), bytesIn(window, start, end), 'allocated')
    }
  })
  fc.assert(runs, { numRuns: 1000 })
  t.ok(accepted > 100 && refused > 100, `${accepted} accepted, ${refused} refused`)
  t.end()
})

t.test('windows take only memory with them that is mostly theirs', (t) => {
  const bytes = encodeWindow(
    Array.from({ length: 20 }, (_, i) => ({ kind: 'chunk', address, offset: 0, start: i * 100, length: 50 })),
  )
  const node = (count: number, others: number): StoredWindow[] => {
    const memory = Buffer.concat([...new Array<Buffer>(count).fill(bytes), Buffer.alloc(others * bytes.length)])
    return Array.from({ length: count }, (_, i) => new StoredWindow(memory, i * bytes.length, (i + 1) * bytes.length))
  }
  const pieces: Window = [{ kind: 'zero', start: 0, length: 9 }]
  const held: HeldWindow[] = [...node(3, 1), ...node(1, 8), pieces, ...node(2, 3), ...node(1, 0)]
  const windows = held.map((window, i): NumberedWindow => [10 * i, window])
  const moved = movedOut(windows)
  t.same(
    moved.map(([index]) => index),
    windows.map(([index]) => index),
  )
  t.same(
    moved.map(([, window], i) => window === held[i]),
    [true, true, true, false, true, false, false, true],
  )
  for (const [, window] of moved) {
    if (!(window instanceof StoredWindow)) continue
    t.ok(window.memory.length <= 4 * bytes.length)
    t.ok(window.bytes.equals(bytes))
  }
  const [alone, first, second] = [3, 5, 6].map((i) => moved[i]?.[1] as StoredWindow)
  t.equal(alone?.memory.buffer.byteLength, bytes.length, 'in memory of its own')
  t.equal(first?.memory, second?.memory, 'those that lay together lie together')
  t.equal(first?.memory.buffer.byteLength, 2 * bytes.length)
  t.end()
})

t.test('who looks for the next window of many pays for one', (t) => {
  const COUNT = 20_000
  const layer = new InodeDelta()
  for (let index = 0; index < COUNT; index++) layer.setWindow((index * 7919) % COUNT, index % 3 === 0 ? null : ZERO_WINDOW)
  let gets = 0
  const counted = {
    windows: {
      get: (index: number) => {
        gets++
        return layer.windows.get(index)
      },
    } as ReadonlyMap<number, HeldWindow | null>,
    windowOrder: layer.windowOrder,
  }
  const found: number[] = []
  for (let at = 0; at < COUNT; ) {
    const step = heldIn([counted], [], at, Number.POSITIVE_INFINITY).next()
    if (step.done === true) break
    found.push(step.value[0])
    at = step.value[0] + 1
  }
  const wanted = [...layer.windows].flatMap(([index, window]) => (window === null ? [] : [index])).sort((a, b) => a - b)
  t.strictSame(found, wanted)
  t.ok(gets <= 2 * COUNT, `${gets} windows looked at`)
  layer.setWindow(COUNT + 5, ZERO_WINDOW)
  t.strictSame([...heldIn([layer], [], COUNT, COUNT + 6)], [[COUNT + 5, ZERO_WINDOW]], 'what is added later is in order as well')
  t.strictSame([...heldIn([layer], [], COUNT, COUNT + 5)], [])
  t.end()
})
