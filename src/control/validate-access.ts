/**
 * What the control API accepts where it is about who may: subjects, relations, times, groups,
 * tenants. The manner is that of `validate.ts`: a value typed and normalised, or NEXUS_USAGE.
 */
import { type Check, checkString, shown, usage } from './validate.ts'

const uidMax = 2 ** 32 - 2
/** Of an access model. Doubled, as JSON's escapes may do to text, it still fits in the server's largest body. */
export const modelBytesMax = 256 * 1024
const directoriesMax = 64
const nameBytesMax = 255

const nameCharacters = /^[A-Za-z0-9._@+-]{1,128}$/
const nameRule = '1 to 128 of the characters A-Z a-z 0-9 . _ @ + -'
const word = /^[a-z][a-z0-9_]{0,49}$/
const time = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/
const controlCharacter = /\p{Cc}/u
const binaryCharacter = /[^\P{Cc}\t\n\r]/u

/** Subjects that are one process's owner, and those that stand for all their members. */
const persons = ['user', 'agent']
const sets = ['group', 'tenant']
const membersOf = '#member'

/**
 * Whom a grant is for, in its one spelling: `alice` becomes `user:alice`, `group:eng` becomes
 * `group:eng#member`.
 */
export function checkSubject(value: unknown, label: string): string {
  const { text, kind, name } = splitSubject(value, label)
  if (sets.includes(kind)) {
    const bare = name.endsWith(membersOf) ? name.slice(0, -membersOf.length) : name
    return `${kind}:${checkName(bare, text, label)}${membersOf}`
  }
  if (!persons.includes(kind)) {
    throw usage(`${label} ${shown(text)} has the unknown kind ${shown(kind)}: use user, agent, group or tenant`)
  }
  return name === '*' ? `${kind}:*` : `${kind}:${checkName(name, text, label)}`
}

/** One user or one agent, such as a process can be; the kind may be left out for a user. */
export function checkPerson(value: unknown, label: string): string {
  const { text, kind, name } = splitSubject(value, label)
  if (!persons.includes(kind) || name === '*') {
    throw usage(`${label} ${shown(text)} is not one user or agent: give user:NAME or agent:NAME`)
  }
  return `${kind}:${checkName(name, text, label)}`
}

function splitSubject(value: unknown, label: string): { text: string; kind: string; name: string } {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: give one such as user:alice`)
  if (text === '*') throw usage(`${label} "*" has no kind: write user:* or agent:*`)
  const colon = text.indexOf(':')
  if (colon < 0) return { text, kind: 'user', name: text }
  return { text, kind: text.slice(0, colon), name: text.slice(colon + 1) }
}

function checkName(name: string, text: string, label: string): string {
  if (!nameCharacters.test(name)) throw usage(`${label} ${shown(text)} has not a usable name: it must be ${nameRule}`)
  return name
}

/** The word for a relation that is granted, such as `editor`. The daemon knows which there are. */
export const checkRelation: Check<string> = (value, label) => checkWord(value, label, 'owner, editor or viewer')

/** The word for what is asked for, such as `read`; relations can be asked for too. */
export const checkPermission: Check<string> = (value, label) => checkWord(value, label, 'read or write')

function checkWord(value: unknown, label: string, such: string): string {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: give one such as ${such}`)
  if (!word.test(text)) {
    throw usage(`${label} ${shown(text)} is no such word: it starts with a-z and has at most 50 of a-z 0-9 _, such as ${such}`)
  }
  return text
}

/** The number of a user on this system, other than root. */
export function checkUid(value: unknown, label: string): number {
  const fits = typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= uidMax
  if (!fits) throw usage(`${label} must be a whole number from 1 to ${uidMax}`)
  if (value === 0) throw usage(`${label} 0 is the administrator and needs no name`)
  return value
}

/**
 * A moment that is still to come, in ISO-8601 with its offset from UTC.
 * @returns the same moment in UTC with milliseconds
 */
export function checkTime(value: unknown, label: string): string {
  const text = checkString(value, label)
  const at = momentOf(text)
  if (at === undefined) {
    throw usage(`${label} ${shown(text)} is not a time: write it as 2027-01-31T18:00Z, or with +02:00 instead of Z`)
  }
  if (at.getTime() <= Date.now()) throw usage(`${label} ${shown(text)} is over already: give a time in the future`)
  return at.toISOString()
}

function momentOf(text: string): Date | undefined {
  const day = time.exec(text)?.[1]
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
export function checkGroup(value: unknown, label: string): string {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: give a name such as eng`)
  return checkName(text.startsWith('group:') ? text.slice('group:'.length) : text, text, label)
}

/** A tenant's name, which is also that of its directory. */
export function checkTenant(value: unknown, label: string): string {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: give a name such as acme`)
  if (text === '.' || text === '..') throw usage(`${label} cannot be "${text}"`)
  return checkName(text, text, label)
}

/** An access model as written. Whether it says anything is for the daemon to find out. */
export function checkModelText(value: unknown, label: string): string {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: see "nexusctl model show" for one`)
  if (Buffer.byteLength(text) > modelBytesMax) throw usage(`${label} is too long: at most ${modelBytesMax} bytes`)
  if (binaryCharacter.test(text)) throw usage(`${label} is not plain text: it has a control character in it`)
  return text
}

/** Names of directories to make beside each other. */
export function checkDirectories(value: unknown, label: string): string[] {
  if (!Array.isArray(value)) throw usage(`${label} must be a list of names`)
  if (value.length > directoriesMax) throw usage(`${label} has too many names: at most ${directoriesMax}`)
  const names = value.map((name: unknown) => checkDirectory(name, label))
  const twice = names.find((name, i) => names.indexOf(name) < i)
  if (twice !== undefined) throw usage(`${label} has ${shown(twice)} twice`)
  return names
}

function checkDirectory(value: unknown, label: string): string {
  const name = checkString(value, `a name in ${label}`)
  if (name === '') throw usage(`${label} has an empty name in it`)
  if (name === '.' || name === '..') throw usage(`${label} has "${name}" in it: give names of new directories`)
  if (name.includes('/')) throw usage(`${label} has ${shown(name)} in it: give single names, without "/"`)
  if (controlCharacter.test(name)) throw usage(`${label} has ${shown(name)} in it, with a control character`)
  if (Buffer.byteLength(name) > nameBytesMax) {
    throw usage(`${label} has a name that is too long, at most ${nameBytesMax} bytes: ${shown(name)}`)
  }
  return name
}
