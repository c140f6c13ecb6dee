/** What the API accepts where it is about who may: subjects, relations, times, groups, tenants. See `parameters.ts`. */
import * as v from 'valibot'
import { isPrintable, isShort, string } from './parameters.ts'
import { checkOf, type Input } from './schema.ts'
import { shown } from './text.ts'

const UID_MAX = 2 ** 32 - 2
/** Of an access model. Doubled, as JSON's escapes may do to text, it still fits in the server's largest body. */
export const MODEL_BYTES_MAX = 256 * 1024
const DIRECTORIES_MAX = 64
const NAME_BYTES_MAX = 255

const NAME = /^[A-Za-z0-9._@+-]{1,128}$/
const NAME_RULE = '1 to 128 of the characters A-Z a-z 0-9 . _ @ + -'
const WORD = /^[a-z][a-z0-9_]{0,49}$/
const TIME = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/
const BINARY_CHARACTER = /[^\P{Cc}\t\n\r]/u

/** Subjects that are one process's owner, and those that stand for all their members. */
const PERSONS = ['user', 'agent']
const SETS = ['group', 'tenant']
const MEMBERS = '#member'

/** Gives the value in its one spelling, or what is wrong with it in words that follow its name. */
type Normalise = (text: string) => { value: string } | { problem: string }

function normalised(normalise: Normalise) {
  return v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
    const found = normalise(dataset.value)
    if ('value' in found) return found.value
    addIssue({ message: found.problem })
    return NEVER
  })
}

/** Whom a grant is for: `alice` becomes `user:alice`, `group:eng` becomes `group:eng#member`. */
export const subject = v.pipe(
  string,
  normalised((text) => {
    const { problem, kind, name } = partsOf(text)
    if (problem !== undefined) return { problem }
    if (SETS.includes(kind)) return named(name.endsWith(MEMBERS) ? name.slice(0, -MEMBERS.length) : name, text, kind, MEMBERS)
    if (!PERSONS.includes(kind)) {
      return { problem: `${shown(text)} has the unknown kind ${shown(kind)}: use user, agent, group or tenant` }
    }
    return name === '*' ? { value: `${kind}:*` } : named(name, text, kind)
  }),
  v.metadata({ examples: ['user:alice'] }),
)
export const checkSubject = checkOf(subject)

/** One user or one agent, such as a process can be; the kind may be left out for a user. */
export const person = v.pipe(
  string,
  normalised((text) => {
    const { problem, kind, name } = partsOf(text)
    if (problem !== undefined) return { problem }
    if (PERSONS.includes(kind) && name !== '*') return named(name, text, kind)
    return { problem: `${shown(text)} is not one user or agent: give user:NAME or agent:NAME` }
  }),
  v.metadata({ examples: ['agent:coder-7'] }),
)
export const checkPerson = checkOf(person)

function partsOf(text: string): { problem?: string; kind: string; name: string } {
  if (text === '') return { problem: 'is empty: give one such as user:alice', kind: '', name: '' }
  if (text === '*') return { problem: '"*" has no kind: write user:* or agent:*', kind: '', name: '' }
  const colon = text.indexOf(':')
  return colon < 0 ? { kind: 'user', name: text } : { kind: text.slice(0, colon), name: text.slice(colon + 1) }
}

function named(name: string, text: string, kind?: string, behind = ''): ReturnType<Normalise> {
  if (!NAME.test(name)) return { problem: `${shown(text)} has not a usable name: it must be ${NAME_RULE}` }
  return { value: kind === undefined ? name : `${kind}:${name}${behind}` }
}

function word(such: string) {
  return v.pipe(
    string,
    v.nonEmpty(`is empty: give one such as ${such}`),
    v.regex(
      WORD,
      ({ input }: Input<string>) =>
        `${shown(input)} is no such word: it starts with a-z and has at most 50 of a-z 0-9 _, such as ${such}`,
    ),
  )
}

/** The word for a relation that is granted, such as `editor`. The daemon knows which there are. */
export const relation = word('owner, editor or viewer')
export const checkRelation = checkOf(relation)

/** The word for what is asked for, such as `read`; relations can be asked for too. */
export const permission = word('read or write')
export const checkPermission = checkOf(permission)

/** The number of a user on this system, other than root. */
export const uid = v.pipe(
  v.number(`must be a whole number from 1 to ${UID_MAX}`),
  v.integer(`must be a whole number from 1 to ${UID_MAX}`),
  v.check((given) => given >= 0 && given <= UID_MAX, `must be a whole number from 1 to ${UID_MAX}`),
  v.minValue(1, '0 is the administrator and needs no name'),
  v.metadata({ maximum: UID_MAX }),
)
export const checkUid = checkOf(uid)

/** A moment that is still to come, in ISO-8601 with its offset from UTC. The output is in UTC with milliseconds. */
export const futureTime = v.pipe(
  string,
  normalised((text) => {
    const at = momentOf(text)
    if (at === undefined) {
      return { problem: `${shown(text)} is not a time: write it as 2027-01-31T18:00Z, or with +02:00 instead of Z` }
    }
    if (at.getTime() <= Date.now()) return { problem: `${shown(text)} is over already: give a time in the future` }
    return { value: at.toISOString() }
  }),
  v.metadata({ format: 'date-time' }),
)
export const checkTime = checkOf(futureTime)

function momentOf(text: string): Date | undefined {
  const day = TIME.exec(text)?.[1]
  if (day === undefined || !isInCalendar(day)) return undefined
  const at = new Date(text)
  // An offset can carry the last day of 9999 into a year that ISO-8601 has no four digits for.
  return Number.isNaN(at.getTime()) || at.getUTCFullYear() > 9999 ? undefined : at
}

/** `Date` takes the 30th of February for the 2nd of March. */
function isInCalendar(day: string): boolean {
  const at = new Date(`${day}T00:00Z`)
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(day)
}

/** A group's name; `group:` before it is taken off. */
export const group = v.pipe(
  string,
  v.nonEmpty('is empty: give a name such as eng'),
  normalised((text) => named(text.startsWith('group:') ? text.slice('group:'.length) : text, text)),
)
export const checkGroup = checkOf(group)

/** A tenant's name, which is also that of its directory. */
export const tenant = v.pipe(
  string,
  v.nonEmpty('is empty: give a name such as acme'),
  v.check(
    (text) => text !== '.' && text !== '..',
    ({ input }: Input<string>) => `cannot be "${input}"`,
  ),
  normalised((text) => named(text, text)),
)
export const checkTenant = checkOf(tenant)

/** An access model as written. Whether it says anything is for the daemon to find out. */
export const modelText = v.pipe(
  string,
  v.nonEmpty('is empty: see "nexusctl model show" for one'),
  v.check((text) => Buffer.byteLength(text) <= MODEL_BYTES_MAX, `is too long: at most ${MODEL_BYTES_MAX} bytes`),
  v.check((text) => !BINARY_CHARACTER.test(text), 'is not plain text: it has a control character in it'),
)
export const checkModelText = checkOf(modelText)

/** Names of directories to make beside each other. */
export const directories = v.pipe(
  v.array(v.unknown(), 'must be a list of names'),
  v.maxLength(DIRECTORIES_MAX, `has too many names: at most ${DIRECTORIES_MAX}`),
  v.array(
    v.pipe(
      v.string(({ input }) => `a name in {label} ${input === undefined ? 'is missing' : 'must be a string'}`),
      v.nonEmpty('has an empty name in it'),
      v.check(
        (name) => name !== '.' && name !== '..',
        ({ input }: Input<string>) => `has "${input}" in it: give names of new directories`,
      ),
      v.check(
        (name) => !name.includes('/'),
        ({ input }: Input<string>) => `has ${shown(input)} in it: give single names, without "/"`,
      ),
      v.check(isPrintable, ({ input }: Input<string>) => `has ${shown(input)} in it, with a control character`),
      v.check(
        isShort,
        ({ input }: Input<string>) => `has a name that is too long, at most ${NAME_BYTES_MAX} bytes: ${shown(input)}`,
      ),
    ),
  ),
  v.check(
    (names) => repeated(names) === undefined,
    ({ input }: Input<string[]>) => `has ${shown(repeated(input) ?? '')} twice`,
  ),
)
export const checkDirectories = checkOf(directories)

function repeated(names: readonly string[]): string | undefined {
  return names.find((name, i) => names.indexOf(name) < i)
}
