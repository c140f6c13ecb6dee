import t from 'tap'
import {
  checkDirectories,
  checkGroup,
  checkModelText,
  checkPermission,
  checkPerson,
  checkRelation,
  checkSubject,
  checkTenant,
  checkTime,
  checkUid,
  MODEL_BYTES_MAX,
} from '../../src/api/parameters-access.ts'
import { checkRows, type Row } from './check-rows.ts'

const long = 'n'.repeat(128)
const strangers: Row[] = [
  { in: undefined, want: /value is missing/ },
  { in: 7, want: /value must be a string/ },
  { in: null, want: /value must be a string/ },
  { in: ['alice'], want: /value must be a string/ },
  { in: '', want: /value is empty: give/ },
]

const persons: Row[] = [
  ...strangers,
  { in: 'alice', want: 'user:alice' },
  { in: 'user:alice', want: 'user:alice' },
  { in: 'agent:coder-7', want: 'agent:coder-7' },
  { in: 'a.b_c@d+e-9', want: 'user:a.b_c@d+e-9' },
  { in: '__proto__', want: 'user:__proto__' },
  { in: 'agent', want: 'user:agent' },
  { in: long, want: `user:${long}` },
  { in: `${long}n`, want: /not a usable name: it must be 1 to 128 of the characters/ },
  { in: 'user:', want: /"user:" has not a usable name/ },
  { in: 'user:a b', want: /"user:a b" has not a usable name/ },
  { in: 'user:alice\n', want: /"user:alice\\n" has not a usable name/ },
  { in: 'user:a:b', want: /not a usable name/ },
  { in: 'user:alice#member', want: /not a usable name/ },
  { in: 'user:**', want: /not a usable name/ },
  { in: 'ünï', want: /not a usable name/ },
  { in: 'a/b', want: /not a usable name/ },
  { in: '*', want: /"\*" has no kind: write user:\* or agent:\*/ },
]

const subjects: Row[] = [
  ...persons,
  { in: 'user:*', want: 'user:*' },
  { in: 'agent:*', want: 'agent:*' },
  { in: 'group:eng', want: 'group:eng#member' },
  { in: 'group:eng#member', want: 'group:eng#member' },
  { in: 'tenant:acme', want: 'tenant:acme#member' },
  { in: 'tenant:acme#member', want: 'tenant:acme#member' },
  { in: `group:${long}#member`, want: `group:${long}#member` },
  { in: 'group:', want: /"group:" has not a usable name/ },
  { in: 'group:#member', want: /not a usable name/ },
  { in: 'group:*', want: /not a usable name/ },
  { in: 'group:eng#owner', want: /not a usable name/ },
  { in: 'group:eng#member#member', want: /not a usable name/ },
  { in: 'User:alice', want: /unknown kind "User": use user, agent, group or tenant/ },
  { in: ':alice', want: /unknown kind ""/ },
  { in: 'dir:/workspace', want: /unknown kind "dir"/ },
  { in: 'evil\u001b[2J:x', want: /unknown kind "evil\\u001b\[2J"/ },
]

const single: Row[] = [
  ...persons,
  { in: 'user:*', want: /"user:\*" is not one user or agent: give user:NAME or agent:NAME/ },
  { in: 'group:eng', want: /not one user or agent/ },
  { in: 'tenant:acme#member', want: /not one user or agent/ },
  { in: 'root:alice', want: /not one user or agent/ },
]

const words: Row[] = [
  ...strangers,
  { in: 'editor', want: 'editor' },
  { in: 'can_read2', want: 'can_read2' },
  { in: 'w'.repeat(50), want: 'w'.repeat(50) },
  { in: 'w'.repeat(51), want: /at most 50/ },
  { in: 'Editor', want: /"Editor" is no such word/ },
  { in: '2nd', want: /no such word/ },
  { in: '_x', want: /no such word/ },
  { in: 'read,write', want: /no such word/ },
  { in: 'read\n', want: /no such word/ },
]

const uids: Row[] = [
  { in: 1, want: 1 },
  { in: 65_534, want: 65_534 },
  { in: 4_294_967_294, want: 4_294_967_294 },
  { in: 0, want: /value 0 is the administrator and needs no name/ },
  { in: -0, want: /the administrator/ },
  { in: 4_294_967_295, want: /whole number from 1 to 4294967294/ },
  { in: -1, want: /whole number/ },
  { in: 1000.5, want: /whole number/ },
  { in: Number.NaN, want: /whole number/ },
  { in: '1000', want: /whole number/ },
  { in: undefined, want: /whole number/ },
]

const times: Row[] = [
  { in: '2999-12-31T23:59Z', want: '2999-12-31T23:59:00.000Z' },
  { in: '2999-12-31T23:59:58Z', want: '2999-12-31T23:59:58.000Z' },
  { in: '2999-12-31T23:59:58.1234567Z', want: '2999-12-31T23:59:58.123Z' },
  { in: '2999-12-31T18:00+02:00', want: '2999-12-31T16:00:00.000Z' },
  { in: '2999-12-31T18:00-07:30', want: '3000-01-01T01:30:00.000Z' },
  { in: '2960-02-29T00:00Z', want: '2960-02-29T00:00:00.000Z' },
  { in: '2961-02-29T00:00Z', want: /"2961-02-29T00:00Z" is not a time: write it as/ },
  { in: '2999-04-31T00:00Z', want: /not a time/ },
  { in: '2999-13-01T00:00Z', want: /not a time/ },
  { in: '2999-00-01T00:00Z', want: /not a time/ },
  { in: '2999-12-31T25:00Z', want: /not a time/ },
  { in: '2999-12-31T23:60Z', want: /not a time/ },
  { in: '2999-12-31T18:00+99:00', want: /not a time/ },
  { in: '9999-12-31T23:00-05:00', want: /not a time/ },
  { in: '+012999-12-31T18:00Z', want: /not a time/ },
  { in: '2999-12-31T18:00', want: /not a time/ },
  { in: '2999-12-31', want: /not a time/ },
  { in: '2999-12-31 18:00Z', want: /not a time/ },
  { in: '2999-12-31T18:00Z\n', want: /not a time/ },
  { in: '12h', want: /not a time/ },
  { in: 'tomorrow', want: /not a time/ },
  { in: '', want: /not a time/ },
  { in: '2020-01-01T00:00Z', want: /is over already: give a time in the future/ },
  { in: '0000-01-01T00:00Z', want: /over already/ },
  { in: 32_503_680_000_000, want: /must be a string/ },
]

const groups: Row[] = [
  ...strangers,
  { in: 'eng', want: 'eng' },
  { in: 'group:eng', want: 'eng' },
  { in: long, want: long },
  { in: `${long}n`, want: /1 to 128/ },
  { in: 'group:', want: /"group:" has not a usable name/ },
  { in: 'group:group:eng', want: /not a usable name/ },
  { in: 'group:eng#member', want: /not a usable name/ },
  { in: 'tenant:eng', want: /not a usable name/ },
  { in: '*', want: /not a usable name/ },
]

const tenants: Row[] = [
  ...strangers,
  { in: 'acme', want: 'acme' },
  { in: '...', want: '...' },
  { in: 'a.b@c', want: 'a.b@c' },
  { in: '.', want: /cannot be "\."/ },
  { in: '..', want: /cannot be "\.\."/ },
  { in: 'a/b', want: /not a usable name/ },
  { in: 'tenant:acme', want: /not a usable name/ },
  { in: 'a\0', want: /"a\\u0000" has not a usable name/ },
]

const models: Row[] = [
  { in: 'model\r\n\tschema 1.1 # ünï\n', want: 'model\r\n\tschema 1.1 # ünï\n' },
  { in: 'm'.repeat(MODEL_BYTES_MAX), want: 'm'.repeat(MODEL_BYTES_MAX) },
  { in: 'm'.repeat(MODEL_BYTES_MAX + 1), want: /at most 262144 bytes/ },
  { in: 'ü'.repeat(MODEL_BYTES_MAX / 2 + 1), want: /at most 262144 bytes/ },
  { in: '', want: /value is empty/ },
  { in: 'model\0', want: /not plain text/ },
  { in: '\u007fELF', want: /not plain text/ },
  { in: {}, want: /must be a string/ },
  { in: undefined, want: /missing/ },
]

const many = (names: number) => Array.from({ length: names }, (_, i) => `d${i}`)
const directories: Row[] = [
  { in: [], want: [] },
  { in: ['data', '.hidden', 'with space', 'ünï', '__proto__'], want: ['data', '.hidden', 'with space', 'ünï', '__proto__'] },
  { in: many(64), want: many(64) },
  { in: many(65), want: /at most 64/ },
  { in: ['n'.repeat(255)], want: ['n'.repeat(255)] },
  { in: ['ü'.repeat(128)], want: /too long, at most 255 bytes/ },
  { in: ['data', ''], want: /an empty name/ },
  { in: ['.'], want: /has "\." in it/ },
  { in: ['data', '..'], want: /has "\.\." in it/ },
  { in: ['a/b'], want: /has "a\/b" in it: give single names, without "\/"/ },
  { in: ['/data'], want: /without "\/"/ },
  { in: ['a\nb'], want: /has "a\\nb" in it, with a control character/ },
  { in: ['data', 'x', 'data'], want: /has "data" twice/ },
  { in: [7], want: /a name in value must be a string/ },
  { in: 'data', want: /must be a list of names/ },
  { in: { 0: 'data' }, want: /must be a list of names/ },
  { in: null, want: /must be a list of names/ },
]

checkRows([
  ['subjects', checkSubject, subjects],
  ['persons', checkPerson, single],
  ['relations', checkRelation, words],
  ['permissions', checkPermission, words],
  ['uids', checkUid, uids],
  ['times', checkTime, times],
  ['groups', checkGroup, groups],
  ['tenants', checkTenant, tenants],
  ['models', checkModelText, models],
  ['directories', checkDirectories, directories],
])

t.test('the future begins after now', async (t) => {
  t.throws(() => checkTime(new Date().toISOString(), 'value'), { message: /over already/ })
  const soon = new Date(Date.now() + 60_000).toISOString()
  t.equal(checkTime(soon, 'value'), soon)
})
