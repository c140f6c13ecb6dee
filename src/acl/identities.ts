/**
 * Which subject a process is, by its uid. A uid has one subject, a subject any number of uids; a uid without a name is
 * `user:uid-1234`. Kept in the catalog under `i/`.
 */
import { NexusError } from '../errors.ts'
import type { Change } from '../volume/change.ts'

export const IDENTITY_KIND = 'i/'

/** (uid_t) -1 is nobody */
const UID_MAX = 0xffff_fffe
const named = /^(user|agent):[^\s:#*]+$/
const unnamed = /^user:uid-(\d{1,10})$/

export class Identities {
  readonly #byUid = new Map<number, string>()
  readonly #bySubject = new Map<string, Set<number>>()

  set(uid: number, subject: string): void {
    this.remove(uid)
    this.#byUid.set(uid, subject)
    const uids = this.#bySubject.get(subject) ?? new Set()
    this.#bySubject.set(subject, uids.add(uid))
  }

  remove(uid: number): void {
    const subject = this.#byUid.get(uid)
    if (subject === undefined) return
    this.#byUid.delete(uid)
    const uids = this.#bySubject.get(subject)
    uids?.delete(uid)
    if (uids?.size === 0) this.#bySubject.delete(subject)
  }

  subjectOf(uid: number): string {
    return this.#byUid.get(uid) ?? `user:uid-${uid}`
  }

  /** The subject that a uid was given, if any. */
  named(uid: number): string | undefined {
    return this.#byUid.get(uid)
  }

  /** Uids of a subject, ascending. */
  uidsOf(subject: string): number[] {
    const uids = [...(this.#bySubject.get(subject) ?? [])]
    const own = unnamed.exec(subject)
    // A uid that has a name is not also its number.
    if (own !== null && !this.#byUid.has(Number(own[1]))) uids.push(Number(own[1]))
    return uids.sort((a, b) => a - b)
  }

  /** Uids that have a name. */
  uids(): Iterable<number> {
    return this.#byUid.keys()
  }

  /** Named subjects, sorted. */
  subjects(): string[] {
    return [...this.#bySubject.keys()].sort()
  }
}

/**
 * The uid and the subject that an entry of the catalog is.
 * @throws NexusError NEXUS_CORRUPT when it is none
 */
export function parseIdentity(key: string, subject: string): [uid: number, subject: string] {
  const uid = key.slice(IDENTITY_KIND.length)
  if (/^\d{1,10}$/.test(uid) && Number(uid) <= UID_MAX && named.test(subject)) return [Number(uid), subject]
  throw new NexusError('NEXUS_CORRUPT', `the catalog's entry ${key} is damaged: mount again with --rebuild-index`)
}

export function storeIdentity(uid: number, subject: string | null): Change {
  return { kind: 'catalog', key: IDENTITY_KIND + uid, value: subject }
}
