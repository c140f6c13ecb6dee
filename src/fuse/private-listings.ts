/**
 * Listings that differ by caller, which the kernel must never serve from its cache. It opens directories without asking
 * us, and caches what is read of each (fs/fuse/readdir.c). An entry goes into that cache where its directory's inode has
 * got to: a position, 0 at first, then the cookie of the entry added last. The first entry makes page 0; one that does
 * not begin a page needs the page to be there, else it is not added and the position stays. The cache is complete when an
 * answer at the position is empty. Readers of a complete cache whose page 0 is gone have it begun anew, and ask.
 *
 * So a listing begins with an answer that holds only `.`, behind which there is a cookie that nobody has seen before nor
 * could guess; and whatever is asked from another position than 0 is answered when the kernel has dropped the pages.
 *
 * Then nobody is shown what another was answered. The one entry that can be added at 0 is a `.`, and with it the position
 * becomes the cookie behind it. Another is added only from an answer to who asks there. He knows that cookie from
 * the kernel, which added the `.` before it gave him any: page 0 was there when he asked, and is gone when he is
 * answered. Nothing brings it back, as something was added and nothing is complete: `..` finds no page and stays out, the
 * position stays where it is, and there no answer is empty, because `..` is in it. So the cache holds no name, and is never
 * complete. It makes no difference how many list the directory at a time, which of them stop or seek, whether the
 * kernel drops pages by itself, or whether another process of ours goes on. Should a cookie be guessed all the same, the
 * answer at the end is preceded by a drop of its own.
 */
import { randomInt } from 'node:crypto'
import type { DirectorySink } from '../vfs/filesystem.ts'
import type { Encode } from './operation.ts'

export interface PrivateListings {
  /** whether what a directory lists depends on who asks */
  has(node: number): boolean
  /**
   * Resolves when the kernel has dropped the pages of a directory's listing. It must not wait for what waits for a lock of
   * the directory: who lists it has one.
   */
  drop(node: number): Promise<void>
}

/** Lists from a cookie on, what it is given through `narrow`. */
export type List = (from: number, narrow?: (sink: DirectorySink) => DirectorySink) => Encode

/** Cookies of a filesystem end here; what is above is behind `.`, in one listing or another. */
const COOKIE_MAX = 2 ** 52
/** The most that `randomInt` chooses among. */
const LISTINGS = 2 ** 48 - 1

/**
 * The answer from a position on, when it may be given.
 * @param pass the cookie to list from in place of another, when what is not for the caller has been passed over
 */
export function privately(
  listings: PrivateListings,
  node: number,
  position: number,
  { list, pass }: { list: List; pass: (from: number) => Promise<number> },
): Encode | Promise<Encode> {
  if (position === 0) return list(0, onlySelf)
  return answer()

  async function answer(): Promise<Encode> {
    // Lists again what came first, which is not taken.
    const rest = position > COOKIE_MAX ? list(0, allButSelf) : list(await pass(position))
    await listings.drop(node)
    return rest
  }
}

function onlySelf(sink: DirectorySink): DirectorySink {
  return (name, node, mode, _cookie, stat) => name === '.' && sink(name, node, mode, COOKIE_MAX + 1 + randomInt(LISTINGS), stat)
}

function allButSelf(sink: DirectorySink): DirectorySink {
  return (name, ...entry) => name === '.' || sink(name, ...entry)
}
