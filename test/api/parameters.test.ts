import t from 'tap'
import {
  checkDirectoryName,
  checkLimit,
  checkMetadata,
  checkPath,
  checkSnapshotName,
  checkSnapshotReference,
} from '../../src/api/parameters.ts'
import { NexusError } from '../../src/errors.ts'
import { checkRows, type Row } from './check-rows.ts'

const many = (pairs: number) => Object.fromEntries(Array.from({ length: pairs }, (_, i) => [`k${i}`, '']))
const deep = (bytes: number) => `/${'a/'.repeat(bytes)}`.slice(0, bytes)

const directoryNames: Row[] = [
  { in: '.snapshots', want: '.snapshots' },
  { in: '~history ü', want: '~history ü' },
  { in: '...', want: '...' },
  { in: 'n'.repeat(255), want: 'n'.repeat(255) },
  { in: 'ü'.repeat(128), want: /too long: at most 255 bytes/ },
  { in: '', want: /empty/ },
  { in: '.', want: /cannot be "\."/ },
  { in: '..', want: /cannot be "\.\."/ },
  { in: 'a/b', want: /has a "\/" in it/ },
  { in: 'a\0', want: /control character/ },
  { in: 'a\n', want: /control character/ },
  { in: 'a\ud800', want: /no valid text/ },
  { in: 1, want: /must be a string/ },
  { in: undefined, want: /missing/ },
]

const paths: Row[] = [
  { in: '/', want: '/' },
  { in: '/workspace/acme', want: '/workspace/acme' },
  { in: '/workspace/acme/', want: '/workspace/acme' },
  { in: '/with space/ünï/...', want: '/with space/ünï/...' },
  { in: '/-x', want: '/-x' },
  { in: `/${'n'.repeat(255)}`, want: `/${'n'.repeat(255)}` },
  { in: `/${'n'.repeat(256)}`, want: /too long, at most 255 bytes/ },
  { in: `/${'ü'.repeat(128)}`, want: /too long, at most 255 bytes/ },
  { in: `${deep(4095)}b`, want: `${deep(4095)}b` },
  { in: `${deep(4095)}bc`, want: /at most 4096 bytes/ },
  { in: '', want: /empty/ },
  { in: 'workspace/acme', want: /"workspace\/acme" is not absolute/ },
  { in: '//', want: /empty name/ },
  { in: '/a//b', want: /empty name/ },
  { in: '/a//', want: /empty name/ },
  { in: '/.', want: /has "\." in it/ },
  { in: '/a/./b', want: /has "\." in it/ },
  { in: '/a/..', want: /has "\.\." in it/ },
  { in: '/../etc/passwd', want: /has "\.\." in it/ },
  { in: '/a\0b', want: /"\/a\\u0000b" has a control character/ },
  { in: '/a\nb', want: /"\/a\\nb" has a control character/ },
  { in: '/a\u007fb', want: /"\/a\\u007fb" has a control character/ },
  { in: '/a\u009bb', want: /"\/a\\u009bb" has a control character/ },
  { in: undefined, want: /value is missing/ },
  { in: 7, want: /value must be a string/ },
  { in: ['/a'], want: /value must be a string/ },
  { in: null, want: /value must be a string/ },
]

const references: Row[] = [
  { in: 'before-upgrade', want: 'before-upgrade' },
  { in: 'with space', want: 'with space' },
  { in: '...', want: '...' },
  { in: '.hidden', want: '.hidden' },
  { in: '__proto__', want: '__proto__' },
  { in: 'n'.repeat(128), want: 'n'.repeat(128) },
  { in: 'n'.repeat(129), want: /at most 128 characters/ },
  { in: '', want: /empty/ },
  { in: '.', want: /cannot be "\."/ },
  { in: '..', want: /cannot be "\.\."/ },
  { in: 'a/b', want: /has a "\/" in it/ },
  { in: 'a\0', want: /control character/ },
  { in: 'a\u001b[2J', want: /control character/ },
  { in: '-n', want: /starts with "-"/ },
  { in: 1, want: /must be a string/ },
  { in: undefined, want: /missing/ },
]

const names: Row[] = [
  ...references,
  { in: 'snap', want: 'snap' },
  { in: 'snap_', want: /starts with "snap_", which means an id/ },
  { in: 'snap_01KG9Z', want: /starts with "snap_"/ },
  { in: '😀'.repeat(63), want: '😀'.repeat(63) },
  { in: '😀'.repeat(64), want: /at most 255 bytes/ },
]

const metadata: Row[] = [
  { in: {}, want: {} },
  { in: { 'a.b_c-9': '' }, want: { 'a.b_c-9': '' } },
  { in: JSON.parse('{"__proto__":"x"}'), want: JSON.parse('{"__proto__":"x"}') },
  { in: many(64), want: many(64) },
  { in: many(65), want: /at most 64/ },
  { in: { ['k'.repeat(64)]: 'v' }, want: { ['k'.repeat(64)]: 'v' } },
  { in: { ['k'.repeat(65)]: 'v' }, want: /1 to 64 of the characters/ },
  { in: { '': 'v' }, want: /1 to 64 of the characters/ },
  { in: { 'a b': 'v' }, want: /the key "a b"/ },
  { in: { 'a\n': 'v' }, want: /the key "a\\n"/ },
  { in: { a: '😀'.repeat(1024) }, want: { a: '😀'.repeat(1024) } },
  { in: { a: 'v'.repeat(1025) }, want: /at most 1024 characters/ },
  { in: { a: 1 }, want: /value a must be a string/ },
  { in: { a: null }, want: /value a must be a string/ },
  { in: ['a'], want: /must be a JSON object/ },
  { in: null, want: /must be a JSON object/ },
  { in: 'a=b', want: /must be a JSON object/ },
]

const limits: Row[] = [
  { in: 0, want: 0 },
  { in: 100_000, want: 100_000 },
  { in: 100_001, want: /whole number from 0 to 100000/ },
  { in: -1, want: /whole number/ },
  { in: 1.5, want: /whole number/ },
  { in: Number.NaN, want: /whole number/ },
  { in: '5', want: /whole number/ },
]

checkRows([
  ['paths', checkPath, paths],
  ['snapshot references', checkSnapshotReference, references],
  ['snapshot names', checkSnapshotName, names],
  ['names of directories', checkDirectoryName, directoryNames],
  ['metadata', checkMetadata, metadata],
  ['limits', checkLimit, limits],
])

t.test('a long value is cut in the message, which stays one line', async (t) => {
  try {
    checkPath(`x\n${'y'.repeat(5000)}`, 'path')
    t.fail('was accepted')
  } catch (error) {
    t.ok(error instanceof NexusError)
    t.ok(String(error).length < 200)
    t.notMatch(String(error), /\n/)
  }
})
