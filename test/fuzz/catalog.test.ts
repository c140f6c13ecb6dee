/** What is kept as text: the state of a checkpoint, records of workspaces and snapshots, grants, identities, the model. */
import fc from 'fast-check'
import t from 'tap'
import { IDENTITY_KIND, parseIdentity, storeIdentity } from '../../src/acl/identities.ts'
import { builtinModel, parseModel } from '../../src/acl/model.ts'
import { parseTuple, storeTuple } from '../../src/acl/tuples.ts'
import { NexusError } from '../../src/errors.ts'
import { parseCheckpoint, parseCollected, parseState, parseVolume } from '../../src/volume/state.ts'
import { parseSnapshot, parseWorkspace } from '../../src/workspaces/records.ts'
import { aSnapshot, aTuple, aWorkspace } from './examples.ts'
import { badBytes, refusing, seedsOf, tryAll } from './support.ts'

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

const strange: Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  2 ** 53,
  '',
  'x',
  '\u0000',
  [],
  [[]],
  {},
  { ['__proto__']: 1 },
  '9'.repeat(400),
]

/** A document of which some field, at any depth, is missing or something else. */
function badDocument(document: Json): fc.Arbitrary<string> {
  const paths = [...pathsOf(document)]
  return fc
    .tuple(fc.constantFrom(...paths), fc.option(fc.oneof(fc.constantFrom(...strange), fc.jsonValue() as fc.Arbitrary<Json>)))
    .map(([path, value]) => JSON.stringify(path.length === 0 ? value : replaced(document, path, value)))
}

function* pathsOf(value: Json, path: string[] = []): Generator<string[]> {
  yield path
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) yield* pathsOf(inner, [...path, key])
}

/** @param value null takes the field away */
function replaced(document: Json, [key = '', ...rest]: string[], value: Json): Json {
  const copy = structuredClone(document) as { [key: string]: Json }
  if (rest.length > 0) copy[key] = replaced(copy[key] as Json, rest, value)
  else if (value === null) delete copy[key]
  else copy[key] = value
  return copy
}

const checkpoint = { segment: 1, offset: 64, sequence: 0, durable: 0 }
const volume = { root: 'ab'.repeat(32), domain: 2, ino_next: 77 }
const state = { checkpoint, catalog: { 'w/0': '{}' }, volumes: { '0': volume } }
const tupleKey = 't/7/123 editor user:alice'

/** A parser of stored JSON, something it accepts, and what a value it accepts must be good for. */
const parsers: { name: string; good: Json; seeds?: string; parse(text: string): unknown }[] = [
  { name: 'checkpoint', good: checkpoint, seeds: 'checkpoint', parse: (text) => parseCheckpoint(Buffer.from(text)) },
  { name: 'collected', good: { log_bytes: 9, released: 3 }, parse: (text) => parseCollected(Buffer.from(text)) },
  { name: 'volume', good: volume, parse: (text) => parseVolume('7', Buffer.from(text)) },
  { name: 'state', good: state, seeds: 'state', parse: (text) => parseState(Buffer.from(text)) },
  {
    name: 'workspace',
    good: structuredClone(aWorkspace) as unknown as Json,
    seeds: 'catalog',
    parse: (text) => parseWorkspace('w/7', text),
  },
  {
    name: 'snapshot',
    good: structuredClone(aSnapshot) as unknown as Json,
    seeds: 'catalog',
    parse: (text) => parseSnapshot('s/1', text),
  },
  { name: 'tuple', good: aTuple, seeds: 'catalog', parse: (text) => parseTuple(tupleKey, text) },
]

/** Numbers where there were numbers, and so on: what reads the fields relies on no more. */
function sameShape(good: Json, found: unknown): void {
  const isThere = good === null || typeof good === typeof found || found === null
  if (!isThere || Array.isArray(good) !== Array.isArray(found)) throw new Error(`accepted ${JSON.stringify(found)}`)
  if (typeof found === 'number' && (!Number.isSafeInteger(found) || found < 0)) throw new Error(`accepted ${found}`)
}

for (const { name, good, seeds, parse } of parsers) {
  t.test(name, async (t) => {
    const check = (text: string): void => {
      const value = refusing(() => parse(text)) as Record<string, unknown> | undefined
      if (value === undefined || Array.isArray(value)) return
      for (const [key, field] of Object.entries(good as object)) sameShape(field as Json, value[key])
    }
    t.doesNotThrow(() => parse(JSON.stringify(good)), 'what is valid is accepted')
    await tryAll(t, { seeds: strange.map((value) => JSON.stringify(value)), inputs: badDocument(good), check })
    if (seeds === undefined) return
    const bytes = seedsOf(seeds)
    const inputs = badBytes(bytes).map((each) => each.toString())
    await tryAll(t, { seeds: bytes.map((each) => each.toString()), inputs, check })
  })
}

t.test('keys of the catalog', async (t) => {
  const check = (key: string): void => {
    const tuple = refusing(() => parseTuple(`t/${key}`, JSON.stringify(aTuple)))
    if (tuple !== undefined && (storeTuple(tuple) as { key: string }).key !== `t/${key}`) throw new Error('it is another')
    const identity = refusing(() => parseIdentity(IDENTITY_KIND + key, 'user:alice'))
    if (identity !== undefined && Number((storeIdentity(...identity) as { key: string }).key.slice(2)) !== Number(key)) {
      throw new Error('it is another')
    }
    refusing(() => parseVolume(key, Buffer.from(JSON.stringify(volume))))
  }
  const seeds = [
    '7/123 editor user:alice',
    'group:eng member user:bob',
    '1000',
    '4294967295',
    '-1',
    '',
    ' ',
    '1e9',
    '7/1 a b c',
    'NaN',
  ]
  const inputs = badBytes(seeds.map((seed) => Buffer.from(seed))).map((bytes) => bytes.toString())
  await tryAll(t, { seeds, inputs, check })
  t.throws(
    () => parseTuple(tupleKey, JSON.stringify({ ...aTuple, expires_at: 'soon' })),
    { code: 'NEXUS_CORRUPT' },
    'no end is none',
  )
  t.throws(() => parseIdentity('i/1', 'user:a b'), { code: 'NEXUS_CORRUPT' })
})

t.test('text of a model', async (t) => {
  const deep = `define a: (${'('.repeat(20_000)}b${')'.repeat(20_000)}`
  const seeds = [
    builtinModel().text,
    '',
    'model\n  schema 1.1\ntype user\n',
    `model\n  schema 1.1\ntype user\n  relations\n    ${deep}\n`,
  ]
  const small = seeds.slice(0, 3).map((text) => Buffer.from(text))
  const check = (text: string): void => {
    try {
      parseModel(text)
    } catch (error) {
      if (!(error instanceof NexusError) || error.code !== 'NEXUS_USAGE') throw error
    }
  }
  await tryAll(t, { seeds, inputs: badBytes(small).map((bytes) => bytes.toString()), check, runs: 60 })
})
