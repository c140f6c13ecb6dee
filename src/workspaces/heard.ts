/**
 * Promises that are gathered, to be awaited together later. One that is rejected before that, or after the gathering has
 * failed, is no rejection that nobody heard of: that would end the process.
 */
export function heard<T>(promises: readonly Promise<T>[]): readonly Promise<T>[] {
  for (const promise of promises) promise.catch(() => undefined)
  return promises
}
