/**
 * A process that changed something behind the kernel's back may die before the kernel has heard of it. Nobody knows then
 * what it was: the next process tells the kernel to drop everything.
 */
import { nodeOf } from '../vfs/core.ts'
import type { Context } from '../workspaces/context.ts'
import { haunt, layGhosts } from './ghosts.ts'
import { stateOfSnapshot } from './snapshots.ts'

const IN_FLIGHT_MAX = 4096

/** It may have been a restore: what that removed is in the snapshot which it took before. */
export function hauntUndone(context: Context): void {
  const { core, registry } = context
  const undos = registry.snapshots().filter((record) => record.automatic)
  for (const record of undos) haunt(core, stateOfSnapshot(context, record))
}

/** Resolves when the kernel shows nothing that is no longer so. */
export async function refreshKernel(context: Context): Promise<void> {
  const { core, kernel } = context
  await kernel.invalidateNames()
  let pending: Promise<void>[] = []
  for (const number of core.known.volumes()) {
    for (const ino of core.known.of(number)) {
      pending.push(kernel.invalidateNode(nodeOf(number, ino)))
      if (pending.length < IN_FLIGHT_MAX) continue
      await Promise.all(pending)
      pending = []
    }
  }
  await Promise.all(pending)
  await layGhosts(core)
}
