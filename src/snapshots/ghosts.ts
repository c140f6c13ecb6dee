/**
 * What a restore removed and somebody still has open lives on in the state before it, a *ghost*, which is asked when an
 * inode is looked for and not there. Ghosts are laid soon: what is held then becomes an inode without a name.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pace } from '../pace.ts'
import type { Core } from '../vfs/core.ts'
import type { State } from './snapshots.ts'

/** The kernel's requests that give back what nobody has open are on their way. */
const GIVE_BACK_MS = 100

export function haunt({ volumes }: Core, before: State): void {
  for (const [number, old] of before) volumes.get(number)?.ghosts.push(old)
}

export async function layGhosts(core: Core): Promise<void> {
  await sleep(GIVE_BACK_MS)
  const pace = new Pace()
  // A process that ends has laid them, if another goes on with the mount.
  if (core.volumes.isClosed) return
  for (const _ of core.layGhosts()) {
    const wait = pace.pause()
    if (wait === undefined) continue
    await wait
    if (core.volumes.isClosed) return
  }
}
