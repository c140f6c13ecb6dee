/**
 * What the control API accepts. Every function takes a value of unknown type, returns it typed
 * (and normalised where said), or throws a `NexusError` NEXUS_USAGE whose message says what is
 * wrong with it. Pure: nothing here looks at the filesystem.
 */
import { NexusError } from '../errors.ts'
import type { Metadata } from './service.ts'

/** Turns an unknown value into a `T` or throws NEXUS_USAGE; `label` names the value in the message. */
export type Check<T> = (value: unknown, label: string) => T

const nameBytesMax = 255
const pathBytesMax = 4096
const snapshotNameCharsMax = 128
const metadataPairsMax = 64
const metadataValueCharsMax = 1024
/** Changes in one answer: more would keep the daemon's only thread busy writing JSON. */
const changesMax = 100_000
const shownCharsMax = 80

const controlCharacter = /\p{Cc}/u
const metadataKey = /^[A-Za-z0-9._-]{1,64}$/

/** What every snapshot id starts with, and so no snapshot name may. */
export const snapshotIdPrefix = 'snap_'

/** A NEXUS_USAGE error, for `throw`. */
export function usage(message: string): NexusError {
  return new NexusError('NEXUS_USAGE', message)
}

/** A value as shown in a message: quoted, control characters escaped, cut when long. */
export function shown(value: string): string {
  const text = value.length > shownCharsMax ? `${value.slice(0, shownCharsMax)}…` : value
  return JSON.stringify(text).replace(/\p{Cc}/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Any string. */
export function checkString(value: unknown, label: string): string {
  if (value === undefined) throw usage(`${label} is missing`)
  if (typeof value !== 'string') throw usage(`${label} must be a string`)
  return value
}

/** `true` or `false`. */
export function checkBoolean(value: unknown, label: string): boolean {
  if (typeof value !== 'boolean') throw usage(`${label} must be true or false`)
  return value
}

/** How many changes to list: a whole number from 0 to 100,000. */
export function checkLimit(value: unknown, label: string): number {
  const fits = typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= changesMax
  if (!fits) throw usage(`${label} must be a whole number from 0 to ${changesMax}`)
  return value
}

/** Bytes a second. */
export function checkRate(value: unknown, label: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
  throw usage(`${label} must be a whole number of bytes a second, from 1 on`)
}

/** Bytes or inodes of a quota. */
export function checkQuota(value: unknown, label: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw usage(`${label} must be a whole number, from 0 on`)
}

/** A JSON object: neither null nor an array. */
export function checkObject(value: unknown, label: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw usage(`${label} must be a JSON object`)
  return value as Record<string, unknown>
}

/**
 * An absolute path in the filesystem, in its one spelling.
 * @returns the path without its trailing slash; the root stays `/`
 */
export function checkPath(value: unknown, label: string): string {
  const given = checkString(value, label)
  if (given === '') throw usage(`${label} is empty: give a path such as /workspace/acme`)
  if (!given.startsWith('/')) throw usage(`${label} ${shown(given)} is not absolute: start it with "/"`)
  if (controlCharacter.test(given)) throw usage(`${label} ${shown(given)} has a control character in it`)
  if (Buffer.byteLength(given) > pathBytesMax) {
    throw usage(`${label} ${shown(given)} is too long: at most ${pathBytesMax} bytes`)
  }
  if (given === '/') return given
  const path = given.endsWith('/') ? given.slice(0, -1) : given
  for (const name of path.slice(1).split('/')) checkPathName(name, given, label)
  return path
}

function checkPathName(name: string, path: string, label: string): void {
  if (name === '') throw usage(`${label} ${shown(path)} has an empty name in it: write "/" once between names`)
  if (name === '.' || name === '..') throw usage(`${label} ${shown(path)} has "${name}" in it: write the path out`)
  if (Buffer.byteLength(name) > nameBytesMax) {
    throw usage(`${label} has a name that is too long, at most ${nameBytesMax} bytes: ${shown(name)}`)
  }
}

/** One name of a directory, such as `.snapshots`. */
export function checkDirectoryName(value: unknown, label: string): string {
  const name = checkString(value, label)
  if (name === '') throw usage(`${label} is empty: give a name such as .snapshots`)
  if (name === '.' || name === '..') throw usage(`${label} cannot be "${name}": give a name such as .snapshots`)
  if (name.includes('/')) throw usage(`${label} ${shown(name)} has a "/" in it: give one name, such as .snapshots`)
  if (controlCharacter.test(name)) throw usage(`${label} ${shown(name)} has a control character in it`)
  if (Buffer.byteLength(name) > nameBytesMax) {
    throw usage(`${label} ${shown(name)} is too long: at most ${nameBytesMax} bytes`)
  }
  // Half of a surrogate pair has no bytes of its own: two such names would be one.
  if (/\p{Cs}/u.test(name)) throw usage(`${label} ${shown(name)} is no valid text`)
  return name
}

/** Words that a snapshot is known by: an id, the start of one, or a name. */
export function checkSnapshotReference(value: unknown, label: string): string {
  const text = checkString(value, label)
  if (text === '') throw usage(`${label} is empty: give a name or an id`)
  if ([...text].length > snapshotNameCharsMax) {
    throw usage(`${label} ${shown(text)} is too long: at most ${snapshotNameCharsMax} characters`)
  }
  if (controlCharacter.test(text)) throw usage(`${label} ${shown(text)} has a control character in it`)
  if (text.includes('/')) throw usage(`${label} ${shown(text)} has a "/" in it`)
  if (text === '.' || text === '..') throw usage(`${label} cannot be "${text}"`)
  if (text.startsWith('-')) throw usage(`${label} ${shown(text)} starts with "-"`)
  return text
}

/**
 * A name for a new snapshot. It becomes a directory name in `.snapshots/`, hence no `/`, and it
 * must not read as an id.
 */
export function checkSnapshotName(value: unknown, label: string): string {
  const name = checkSnapshotReference(value, label)
  if (name.startsWith(snapshotIdPrefix)) {
    throw usage(`${label} ${shown(name)} starts with "${snapshotIdPrefix}", which means an id: choose another`)
  }
  if (Buffer.byteLength(name) > nameBytesMax) {
    throw usage(`${label} ${shown(name)} is too long: at most ${nameBytesMax} bytes`)
  }
  return name
}

/** Free-form pairs. Built anew by `fromEntries`, so that a key `__proto__` is a key like any other. */
export function checkMetadata(value: unknown, label: string): Metadata {
  const entries = Object.entries(checkObject(value, label))
  if (entries.length > metadataPairsMax) throw usage(`${label} has too many pairs: at most ${metadataPairsMax}`)
  return Object.fromEntries(entries.map(([key, text]) => checkPair(key, text, label)))
}

function checkPair(key: string, value: unknown, label: string): [string, string] {
  if (!metadataKey.test(key)) {
    throw usage(`${label} has the key ${shown(key)}: use 1 to 64 of the characters A-Z a-z 0-9 . _ -`)
  }
  const text = checkString(value, `${label} ${key}`)
  if ([...text].length > metadataValueCharsMax) {
    throw usage(`${label} ${key} is too long: at most ${metadataValueCharsMax} characters`)
  }
  return [key, text]
}

/** The same check for a value that may be absent. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, label) => (value === undefined ? undefined : check(value, label))
}

/** The same check for a value that may be null or absent, which mean the same. */
export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, label) => (value === undefined || value === null ? null : check(value, label))
}
