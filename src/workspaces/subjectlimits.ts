/**
 * Limits for each subject: how many workspaces outside of tenants, and how many snapshots, may count for one user or agent.
 * Workspaces and snapshots carry the name of the subject that they count for (`charged` in `records.ts`), so the numbers
 * come from the catalog. Root is never refused, and a mount for a single user has no limits.
 */
import { NexusError } from '../errors.ts'

export interface SubjectLimits {
  /** infinite: no limit */
  workspaces: number
  snapshots: number
}

/** Bound the memory that one subject can take: a workspace takes about 8 KiB, a snapshot 5. */
export const SUBJECT_LIMITS: SubjectLimits = { workspaces: 1000, snapshots: 1000 }
export const NO_LIMITS: SubjectLimits = { workspaces: Number.POSITIVE_INFINITY, snapshots: Number.POSITIVE_INFINITY }

/** @throws NexusError NEXUS_NO_SPACE when a subject would have more than its limit */
export function demandWithin(
  limits: SubjectLimits,
  what: keyof SubjectLimits,
  subject: string,
  used: number,
  more: number,
): void {
  const limit = limits[what]
  if (used + more <= limit) return
  const asked = more === 1 ? `one of the ${what}` : `${more} ${what}`
  throw new NexusError(
    'NEXUS_NO_SPACE',
    `${subject} has ${used} ${what} and may have ${limit}: delete ${asked} first, or ask root for a larger --max-${what}`,
  )
}

/** Counts by subject. */
export class Tally {
  readonly #counts = new Map<string, number>()

  of(subject: string): number {
    return this.#counts.get(subject) ?? 0
  }

  /** @param subject undefined: what counts for nobody */
  add(subject: string | undefined, by: 1 | -1): void {
    if (subject === undefined) return
    const count = this.of(subject) + by
    if (count === 0) this.#counts.delete(subject)
    else this.#counts.set(subject, count)
  }
}
