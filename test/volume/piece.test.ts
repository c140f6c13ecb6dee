/** Windows of pieces against an array with one cell for each byte. */
import fc from 'fast-check'
import t from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { addressOf } from '../../src/cas/address.ts'
import { decodeWindow, encodeWindow, type Piece, piecesIn, type Source, splice, type Window } from '../../src/volume/piece.ts'

const SIZE = 64
const address = addressOf(Buffer.from('content'))

/** A cell names the source and how far into it the byte lies: what reading it would give. */
type Cell = string | undefined

const source: fc.Arbitrary<Source> = fc.oneof(
  fc.record({
    kind: fc.constant('raw' as const),
    segment: fc.nat(3),
    base: fc.constant(100),
    offset: fc.integer({ min: 100, max: 5000 }),
  }),
  fc.record({ kind: fc.constant('chunk' as const), address: fc.constant(address), offset: fc.nat(5000) }),
  fc.constant<Source>({ kind: 'zero' }),
  fc.constant<Source>({ kind: 'damaged' }),
)
/** A range, and up to three pieces that fill some of it; none: a hole. */
const change = fc
  .tuple(fc.nat(SIZE), fc.nat(SIZE), fc.array(fc.tuple(fc.nat(8), fc.integer({ min: 1, max: 12 }), source), { maxLength: 3 }))
  .map(([a, b, wanted]) => {
    const [start, end] = [Math.min(a, b), Math.max(a, b)]
    const pieces: Piece[] = []
    let at = start
    for (const [gap, length, one] of wanted) {
      const count = Math.min(length, end - at - gap)
      if (count <= 0) break
      pieces.push({ ...one, start: at + gap, length: count })
      at += gap + count
    }
    return { start, end, pieces }
  })

function cellOf(one: Source, skip: number): string {
  if (one.kind === 'raw') return `raw ${one.segment} ${one.base} ${one.offset + skip}`
  return one.kind === 'chunk' ? `chunk ${one.offset + skip}` : one.kind
}

function cellsOf(window: Window): Cell[] {
  const cells: Cell[] = new Array(SIZE).fill(undefined)
  let end = 0
  for (const piece of window) {
    if (piece.start < end || piece.length <= 0) throw new Error('pieces overlap, are empty or out of order')
    end = piece.start + piece.length
    for (let i = 0; i < piece.length; i++) cells[piece.start + i] = cellOf(piece, i)
  }
  return cells
}

const run = fc.array(change, { minLength: 1, maxLength: 25 })

t.test('splicing a window is replacing cells of an array', (t) => {
  const property = fc.property(run, (changes) => {
    let window: Window = []
    const cells: Cell[] = new Array(SIZE).fill(undefined)
    for (const { start, end, pieces } of changes) {
      const before = JSON.stringify(window)
      const next = splice(window, start, end, pieces)
      same(JSON.stringify(window), before)
      cells.fill(undefined, start, end)
      for (const piece of pieces) for (let i = 0; i < piece.length; i++) cells[piece.start + i] = cellOf(piece, i)
      same(cellsOf(next), cells)
      window = next
    }
  })
  fc.assert(property, { numRuns: 500 })
  t.pass()
  t.end()
})

t.test('any part of a window is that part of the array', (t) => {
  const property = fc.property(run, fc.nat(SIZE), fc.nat(SIZE), (changes, a, b) => {
    const window = changes.reduce<Window>((all, { start, end, pieces }) => splice(all, start, end, pieces), [])
    const [start, end] = [Math.min(a, b), Math.max(a, b)]
    const cells = cellsOf(window)
    same(
      cellsOf(piecesIn(window, start, end)),
      cells.map((cell, i) => (i >= start && i < end ? cell : undefined)),
    )
  })
  fc.assert(property, { numRuns: 500 })
  t.pass()
  t.end()
})

t.test('a window is stored and read back', (t) => {
  const property = fc.property(run, (changes) => {
    const window = changes
      .reduce<Window>((all, { start, end, pieces }) => splice(all, start, end, pieces), [])
      .filter(({ kind }) => kind !== 'raw')
    same(cellsOf(decodeWindow(new ByteReader(encodeWindow(window)))), cellsOf(window))
  })
  fc.assert(property, { numRuns: 200 })
  t.throws(() => encodeWindow([{ kind: 'raw', segment: 1, base: 1, offset: 1, start: 0, length: 1 }]), { code: 'NEXUS_INTERNAL' })
  t.throws(() => decodeWindow(new ByteReader(Buffer.from([0, 1, 9]))), { code: 'NEXUS_CORRUPT' })
  t.end()
})

/** fast-check needs an exception where tap would only note a failure. */
function same(found: unknown, wanted: unknown): void {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`found ${a?.slice(0, 500)}, wanted ${b?.slice(0, 500)}`)
}
