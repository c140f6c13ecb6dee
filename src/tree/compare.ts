/** Order of byte strings: unsigned bytes, and a prefix before what it begins. */

/** Up to here a loop is faster than the call out of JavaScript. */
const loopBytesMax = 32

/** Compares `a[aStart, aEnd)` with `b[bStart, bEnd)` without allocating: -1, 0 or 1. */
export function compareRanges(a: Buffer, aStart: number, aEnd: number, b: Buffer, bStart: number, bEnd: number): -1 | 0 | 1 {
  const aBytes = aEnd - aStart
  const bBytes = bEnd - bStart
  const shorter = Math.min(aBytes, bBytes)
  const looped = Math.min(shorter, loopBytesMax)
  for (let i = 0; i < looped; i++) {
    const difference = (a[aStart + i] as number) - (b[bStart + i] as number)
    if (difference !== 0) return difference < 0 ? -1 : 1
  }
  if (shorter > looped) return a.compare(b, bStart + looped, bEnd, aStart + looped, aEnd)
  return aBytes === bBytes ? 0 : aBytes < bBytes ? -1 : 1
}

export function compareKeys(a: Buffer, b: Buffer): -1 | 0 | 1 {
  return compareRanges(a, 0, a.length, b, 0, b.length)
}
