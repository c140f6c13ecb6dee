/**
 * What the API accepts: the schemas of parameters, which normalise where it is said. Pure: nothing here looks at the
 * filesystem.
 */
import * as v from 'valibot'
import { checkOf, type Input } from './schema.ts'
import { shown } from './text.ts'

const NAME_BYTES_MAX = 255
const PATH_BYTES_MAX = 4096
const SNAPSHOT_NAME_CHARS_MAX = 128
const METADATA_PAIRS_MAX = 64
const METADATA_VALUE_CHARS_MAX = 1024
/** Changes in one answer: more would keep the daemon's only thread busy writing JSON. */
const CHANGES_MAX = 100_000

const CONTROL_CHARACTER = /\p{Cc}/u
const METADATA_KEY = /^[A-Za-z0-9._-]{1,64}$/

/** What every snapshot id starts with, and so no snapshot name may. */
export const SNAPSHOT_ID_PREFIX = 'snap_'

/** Any string. */
export const string = v.string(({ input }) => (input === undefined ? 'is missing' : 'must be a string'))

export const flag = v.boolean('must be true or false')

function wholeNumber(from: number, to: number, message: string) {
  return v.pipe(v.number(message), v.safeInteger(message), v.minValue(from, message), v.maxValue(to, message))
}

/** How many changes to list. */
export const limit = wholeNumber(0, CHANGES_MAX, `must be a whole number from 0 to ${CHANGES_MAX}`)

/** Bytes a second. */
export const rate = wholeNumber(1, Number.MAX_SAFE_INTEGER, 'must be a whole number of bytes a second, from 1 on')

/** Bytes or inodes of a quota. */
export const quota = wholeNumber(0, Number.MAX_SAFE_INTEGER, 'must be a whole number, from 0 on')

/** A JSON object: neither null nor an array. */
export const object = v.custom<Record<string, unknown>>(
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  'must be a JSON object',
)
export const checkObject = checkOf(object)

/** An absolute path in the filesystem. The output has no slash at its end; the root stays `/`. */
export const path = v.pipe(
  string,
  v.nonEmpty('is empty: give a path such as /workspace/acme'),
  v.check(
    (given) => given.startsWith('/'),
    ({ input }: Input<string>) => `${shown(input)} is not absolute: start it with "/"`,
  ),
  v.check(isPrintable, ({ input }: Input<string>) => `${shown(input)} has a control character in it`),
  v.check(
    (given) => Buffer.byteLength(given) <= PATH_BYTES_MAX,
    ({ input }: Input<string>) => `${shown(input)} is too long: at most ${PATH_BYTES_MAX} bytes`,
  ),
  v.rawCheck(({ dataset, addIssue }) => {
    const message = dataset.typed ? problemOfNames(dataset.value) : undefined
    if (message !== undefined) addIssue({ message })
  }),
  v.transform((given) => (given !== '/' && given.endsWith('/') ? given.slice(0, -1) : given)),
  v.metadata({ pattern: '^/', examples: ['/workspace/acme'] }),
)
export const checkPath = checkOf(path)

function problemOfNames(given: string): string | undefined {
  if (given === '/') return undefined
  const bare = given.endsWith('/') ? given.slice(0, -1) : given
  for (const name of bare.slice(1).split('/')) {
    if (name === '') return `${shown(given)} has an empty name in it: write "/" once between names`
    if (name === '.' || name === '..') return `${shown(given)} has "${name}" in it: write the path out`
    if (!isShort(name)) return `has a name that is too long, at most ${NAME_BYTES_MAX} bytes: ${shown(name)}`
  }
  return undefined
}

export function isPrintable(text: string): boolean {
  return !CONTROL_CHARACTER.test(text)
}

/** Whether an entry of a directory may have such a name. */
export function isShort(name: string): boolean {
  return Buffer.byteLength(name) <= NAME_BYTES_MAX
}

/** One name of a directory, such as `.snapshots`. */
export const directoryName = v.pipe(
  string,
  v.nonEmpty('is empty: give a name such as .snapshots'),
  v.check(
    (name) => name !== '.' && name !== '..',
    ({ input }: Input<string>) => `cannot be "${input}": give a name such as .snapshots`,
  ),
  v.check(
    (name) => !name.includes('/'),
    ({ input }: Input<string>) => `${shown(input)} has a "/" in it: give one name, such as .snapshots`,
  ),
  v.check(isPrintable, ({ input }: Input<string>) => `${shown(input)} has a control character in it`),
  v.check(isShort, ({ input }: Input<string>) => `${shown(input)} is too long: at most ${NAME_BYTES_MAX} bytes`),
  // Half of a surrogate pair has no bytes of its own: two such names would be one.
  v.check(
    (name) => !/\p{Cs}/u.test(name),
    ({ input }: Input<string>) => `${shown(input)} is no valid text`,
  ),
)
export const checkDirectoryName = checkOf(directoryName)

/** Words that a snapshot is known by: an id, the start of one, or a name. */
export const snapshotReference = v.pipe(
  string,
  v.nonEmpty('is empty: give a name or an id'),
  v.check(
    (text) => [...text].length <= SNAPSHOT_NAME_CHARS_MAX,
    ({ input }: Input<string>) => `${shown(input)} is too long: at most ${SNAPSHOT_NAME_CHARS_MAX} characters`,
  ),
  v.check(isPrintable, ({ input }: Input<string>) => `${shown(input)} has a control character in it`),
  v.check(
    (text) => !text.includes('/'),
    ({ input }: Input<string>) => `${shown(input)} has a "/" in it`,
  ),
  v.check(
    (text) => text !== '.' && text !== '..',
    ({ input }: Input<string>) => `cannot be "${input}"`,
  ),
  v.check(
    (text) => !text.startsWith('-'),
    ({ input }: Input<string>) => `${shown(input)} starts with "-"`,
  ),
  v.metadata({ minLength: 1, maxLength: SNAPSHOT_NAME_CHARS_MAX }),
)
export const checkSnapshotReference = checkOf(snapshotReference)

/** A name for a new snapshot. It becomes a directory name in `.snapshots/`, and must not read as an id. */
export const snapshotName = v.pipe(
  snapshotReference,
  v.check(
    (name) => !name.startsWith(SNAPSHOT_ID_PREFIX),
    ({ input }: Input<string>) => `${shown(input)} starts with "${SNAPSHOT_ID_PREFIX}", which means an id: choose another`,
  ),
  v.check(isShort, ({ input }: Input<string>) => `${shown(input)} is too long: at most ${NAME_BYTES_MAX} bytes`),
)
export const checkSnapshotName = checkOf(snapshotName)

export const checkLimit = checkOf(limit)

/** Free-form pairs. They are built anew, so that a key `__proto__` is a key like any other. */
export const metadata = v.pipe(
  object,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const message = problemOfPairs(dataset.value)
    if (message === undefined) return Object.fromEntries(Object.entries(dataset.value)) as Record<string, string>
    addIssue({ message })
    return NEVER
  }),
  v.metadata({ type: 'object', additionalProperties: { type: 'string' }, maxProperties: METADATA_PAIRS_MAX }),
)
export const checkMetadata = checkOf(metadata)

function problemOfPairs(pairs: object): string | undefined {
  const entries = Object.entries<unknown>(pairs as Record<string, unknown>)
  if (entries.length > METADATA_PAIRS_MAX) return `has too many pairs: at most ${METADATA_PAIRS_MAX}`
  for (const [key, value] of entries) {
    if (!METADATA_KEY.test(key)) return `has the key ${shown(key)}: use 1 to 64 of the characters A-Z a-z 0-9 . _ -`
    if (typeof value !== 'string') return `${key} must be a string`
    if ([...value].length > METADATA_VALUE_CHARS_MAX) return `${key} is too long: at most ${METADATA_VALUE_CHARS_MAX} characters`
  }
  return undefined
}
