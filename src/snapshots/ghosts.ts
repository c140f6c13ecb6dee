/**
 * What a restore removed and somebody still has open lives on in the state before it, a *ghost*, which is asked when an
 * inode is looked for and not there. A ghost is laid soon: what is held then becomes an inode without a name.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { FsError } from '../errors.ts'
import { type Core, nodeOf } from '../vfs/core.ts'
import type { Context } from '../workspaces/context.ts'
import type { State } from './snapshots.ts'

/** The kernel's requests that give back what nobody has open are on their way. */
const GIVE_BACK_MS = 100
const SLICE_MS = 2

export function haunt({ volumes }: Core, before: State): void {
  for (const [number, old] of before) volumes.get(number)?.ghosts.push(old)
}

export async function layGhosts({ core }: Context, before: State): Promise<void> {
  await sleep(GIVE_BACK_MS)
  let sliceStart = performance.now()
  for (const [number, old] of before) {
    for (const ino of core.known.of(number)) {
      keep(core, number, ino)
      if (performance.now() - sliceStart < SLICE_MS) continue
      await nextTurn()
      sliceStart = performance.now()
    }
    const ghosts = core.volumes.get(number)?.ghosts
    if (ghosts?.includes(old)) ghosts.splice(ghosts.indexOf(old), 1)
  }
}

/** Looking for an inode is what brings it back. */
function keep(core: Core, number: number, ino: number): void {
  try {
    core.place(nodeOf(number, ino))
  } catch (error) {
    // The hidden directory of snapshots, or given back since: of that there is nothing to keep.
    if (!(error instanceof FsError)) throw error
  }
}
