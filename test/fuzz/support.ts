/**
 * Bad bytes: inputs made from valid ones by the ways in which bytes go wrong, and the promises that hold for any of them.
 *
 * Every test tries the kept seeds first (seeds/NAME.hex), then mutations of them. `NEXUS_SEED` chooses which (always the
 * same unless told), `NEXUS_RUNS` how many, without a limit of time.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import type { Test } from 'tap'
import { FsError, NexusError } from '../../src/errors.ts'
import { packageRoot } from '../../src/host/version.ts'
import { SLACK } from '../machine.ts'

const SEED = Number(process.env['NEXUS_SEED'] ?? 20260131)
const RUNS = process.env['NEXUS_RUNS']
const RUNS_DEFAULT = 3000
/** Where nobody asked for a number of runs, a slow machine ends sooner. */
const TIME_MS_DEFAULT = 4000 * SLACK
/** An input that takes longer than this is called a hang; the slowest honest one takes milliseconds. */
const HANG_MS = 10_000

/** Numbers that lengths, counts and offsets break at. */
const EXTREMES = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0xffffn,
  0x7fff_ffffn,
  0xffff_ffffn,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
]

type Mutation =
  | { kind: 'flip'; at: number; bit: number }
  | { kind: 'set'; at: number; byte: number }
  | { kind: 'cut'; at: number }
  | { kind: 'remove'; at: number; count: number }
  | { kind: 'repeat'; at: number; count: number }
  | { kind: 'insert'; at: number; bytes: Uint8Array }
  | { kind: 'splice'; at: number; other: number; from: number }
  | { kind: 'extreme'; at: number; value: bigint; width: number }
  | { kind: 'varint'; at: number; value: bigint }

const place = fc.nat({ max: 0xffff })

/** Mutations of some bytes; `at` counts around their end. */
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at: place, bit: fc.nat({ max: 7 }) }),
  fc.record({ kind: fc.constant('set' as const), at: place, byte: fc.nat({ max: 255 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: place }),
  fc.record({ kind: fc.constant('remove' as const), at: place, count: fc.integer({ min: 1, max: 16 }) }),
  fc.record({ kind: fc.constant('repeat' as const), at: place, count: fc.integer({ min: 1, max: 64 }) }),
  fc.record({ kind: fc.constant('insert' as const), at: place, bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }) }),
  fc.record({ kind: fc.constant('splice' as const), at: place, other: fc.nat({ max: 1000 }), from: place }),
  fc.record({
    kind: fc.constant('extreme' as const),
    at: place,
    value: fc.constantFrom(...EXTREMES),
    width: fc.constantFrom(1, 2, 4, 8),
  }),
  fc.record({ kind: fc.constant('varint' as const), at: place, value: fc.constantFrom(...EXTREMES) }),
)

function littleEndian(value: bigint, width: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value))
  return bytes.subarray(0, width)
}

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  return Buffer.from([...bytes, Number(rest)])
}

function over(bytes: Buffer, at: number, part: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at + part.length)])
}

function mutate(bytes: Buffer, change: Mutation, seeds: readonly Buffer[]): Buffer {
  const at = bytes.length === 0 ? 0 : change.at % bytes.length
  const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at)]
  switch (change.kind) {
    case 'flip':
      return over(bytes, at, Buffer.of((bytes[at] ?? 0) ^ (1 << change.bit)))
    case 'set':
      return over(bytes, at, Buffer.of(change.byte))
    case 'cut':
      return head
    case 'remove':
      return Buffer.concat([head, tail.subarray(change.count)])
    case 'repeat':
      return Buffer.concat([head, tail.subarray(0, change.count), tail])
    case 'insert':
      return Buffer.concat([head, change.bytes, tail])
    case 'splice': {
      const other = seeds[change.other % seeds.length] ?? bytes
      return Buffer.concat([head, other.subarray(other.length === 0 ? 0 : change.from % other.length)])
    }
    case 'extreme':
      return over(bytes, at, littleEndian(change.value, change.width))
    case 'varint':
      return Buffer.concat([head, varint(change.value), tail.subarray(1)])
  }
}

/** Bytes that were one of the seeds before something happened to them; sometimes bytes that never were anything. */
export function badBytes(seeds: readonly Buffer[]): fc.Arbitrary<Buffer> {
  const mutated = fc
    .tuple(fc.nat({ max: seeds.length - 1 }), fc.array(mutation, { minLength: 1, maxLength: 5 }))
    .map(([seed, mutations]) => mutations.reduce((bytes, each) => mutate(bytes, each, seeds), seeds[seed] as Buffer))
  const noise = fc.uint8Array({ maxLength: 256 }).map((bytes) => Buffer.from(bytes))
  return fc.oneof({ arbitrary: mutated, weight: 19 }, { arbitrary: noise, weight: 1 })
}

/** The same of what an arbitrary makes; mostly nothing happens to it. */
export function damaged(inputs: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const mutations = fc.oneof(
    { arbitrary: fc.constant([]), weight: 4 },
    { arbitrary: fc.array(mutation, { minLength: 1, maxLength: 3 }), weight: 1 },
  )
  return fc.tuple(inputs, mutations).map(([bytes, list]) => list.reduce((all, each) => mutate(all, each, [bytes]), bytes))
}

/** The kept inputs of seeds/NAME.hex: one a line, in hexadecimal; what follows `#` says what it once did. */
export function seedsOf(name: string): Buffer[] {
  return readFileSync(join(packageRoot(), 'test', 'fuzz', 'seeds', `${name}.hex`), 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .map((line) => Buffer.from(line, 'hex'))
}

/** Tries the seeds, then what the arbitrary makes; one assertion, which names the smallest input that fails. */
export async function tryAll<T>(
  t: Test,
  {
    seeds,
    inputs,
    check,
    runs,
  }: { seeds: readonly T[]; inputs: fc.Arbitrary<T>; check: (input: T) => void | Promise<void>; runs?: number },
): Promise<void> {
  let tried = 0
  const property = fc.asyncProperty(inputs, async (input) => {
    tried++
    const begun = performance.now()
    await check(input)
    if (performance.now() - begun > HANG_MS) throw new Error('it took too long')
  })
  const limit = RUNS === undefined ? { interruptAfterTimeLimit: TIME_MS_DEFAULT } : {}
  const result = await fc.check(property, {
    seed: SEED,
    numRuns: RUNS === undefined ? (runs ?? RUNS_DEFAULT) : Number(RUNS),
    examples: seeds.map((seed): [T] => [seed]),
    ...limit,
  })
  const smallest = result.counterexample?.[0]
  const shown = Buffer.isBuffer(smallest) ? smallest.toString('hex') : fc.stringify(smallest)
  const why = result.errorInstance instanceof Error ? result.errorInstance.stack : String(result.errorInstance)
  t.notOk(result.failed, `${tried} inputs`, { input: shown, why, seed: SEED })
  t.comment(`tried ${tried} inputs`)
}

/** Runs what may refuse its input as damaged or too new, and in no other way. @returns undefined when it did */
export function refusing<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch (error) {
    if (error instanceof NexusError && (error.code === 'NEXUS_CORRUPT' || error.code === 'NEXUS_TOO_NEW')) return undefined
    throw error
  }
}

/** The same for what the kernel hands over: only an errno of ours is a refusal. */
export function answering<T>(run: () => T): T | undefined {
  try {
    return run()
  } catch (error) {
    if (error instanceof FsError) return undefined
    throw error
  }
}

/** What was accepted must be a value that can be written and read again: the same value, and not another time different. */
export function sameAgain<T>(value: T, encode: (value: T) => Buffer, decode: (bytes: Buffer) => T): void {
  const again = decode(encode(value))
  const [a, b] = [fc.stringify(value), fc.stringify(again)]
  if (a !== b) throw new Error(`accepted as ${a}, but written and read again it is ${b}`)
}

type Allocator = 'alloc' | 'allocUnsafe' | 'allocUnsafeSlow'
const allocators: readonly Allocator[] = ['alloc', 'allocUnsafe', 'allocUnsafeSlow']

/** Runs something during which no single buffer may be larger than so many bytes, whatever its input claims. */
export function allocatingAtMost<T>(bytesMax: number, run: () => T): T {
  const originals = allocators.map((name) => Buffer[name])
  for (const name of allocators) {
    const original = Buffer[name] as (size: number, ...rest: unknown[]) => Buffer
    Object.assign(Buffer, {
      [name]: (size: number, ...rest: unknown[]) => {
        if (size > bytesMax) throw new Error(`a buffer of ${size} bytes was asked for`)
        return original(size, ...rest)
      },
    })
  }
  try {
    return run()
  } finally {
    for (const [index, name] of allocators.entries()) Object.assign(Buffer, { [name]: originals[index] })
  }
}
