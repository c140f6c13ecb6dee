/** The way up from a directory. In a damaged tree it may lead in a circle, and whoever walks it must end all the same. */
import { NexusError } from '../errors.ts'
import { ROOT_INO } from './keys.ts'
import type { Volume } from './volume.ts'

/**
 * An inode, what it is recorded to lie in, and so on; the last is the root, or what has no place that is known.
 * @throws NexusError NEXUS_CORRUPT when it lies in itself, at the latest after three times round
 */
export function* ancestors(volume: Volume, ino: number): Generator<number> {
  // Brent's way to find a circle: the walk is held against a place that it passed, which moves on twice as far each time.
  let [passed, steps, limit] = [ino, 0, 1]
  for (let at = ino; ; ) {
    yield at
    const parent = at === ROOT_INO ? undefined : volume.attr(at)?.parent
    if (parent === undefined || parent === 0) return
    if (parent === passed) throw inItself(volume.number, parent)
    at = parent
    if (++steps === limit) [passed, steps, limit] = [at, 0, limit * 2]
  }
}

/** What a directory that lies in itself is told as. */
export function inItself(volume: number, ino: number): NexusError {
  return new NexusError(
    'NEXUS_CORRUPT',
    `directory ${ino} of volume ${volume} is recorded to lie in itself: unmount, and mend it with "nexusd fsck --repair"`,
  )
}
