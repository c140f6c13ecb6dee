/** When the daemon collects garbage by itself. */

const MIB = 1024 * 1024
/** So many bytes were released, or a fifth of the log (and not next to nothing) … */
const RELEASED_BYTES = 256 * MIB
const RELEASED_SHARE = 0.2
const RELEASED_BYTES_MIN = 16 * MIB
/** … which is next to nothing no more after a while: in a small store it is all there is … */
const RELEASED_BYTES_OLD = MIB
const OLD_MS = 10 * 60_000
/** … or the log grew by half, and so much … */
const GROWTH_SHARE = 0.5
const GROWTH_BYTES_MIN = 512 * MIB
/** … or anything at all was written, and it is so long ago. */
const AGE_MS = 24 * 60 * 60_000

export interface Garbage {
  logBytes: number
  /** of the log when the last collection had ended */
  collectedBytes: number
  /** since then, at most */
  releasedBytes: number
}

/** @param ageMs since the last collection, or the start */
export function isGarbageWorthIt({ logBytes, collectedBytes, releasedBytes }: Garbage, ageMs: number): boolean {
  const grown = logBytes - collectedBytes
  const least = ageMs > OLD_MS ? RELEASED_BYTES_OLD : RELEASED_BYTES_MIN
  if (releasedBytes >= Math.min(RELEASED_BYTES, Math.max(least, logBytes * RELEASED_SHARE))) return true
  if (grown > Math.max(GROWTH_BYTES_MIN, collectedBytes * GROWTH_SHARE)) return true
  return ageMs > AGE_MS && (grown > 0 || releasedBytes > 0)
}
