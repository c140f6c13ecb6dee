/**
 * A process that changed something behind the kernel's back may die before the kernel has heard of it. Nobody knows then
 * what it was: the next process tells the kernel to drop everything.
 */
import { nodeOf } from '../vfs/place.ts'
import type { Context } from '../workspaces/context.ts'
import { tellAll } from '../workspaces/tell.ts'
import { haunt, layGhosts } from './ghosts.ts'
import { settleAllSizes } from './sizes.ts'
import { stateOfSnapshot } from './snapshots.ts'

/** It may have been a restore: what that removed is in the snapshot which it took before. */
export function hauntUndone(context: Context): void {
  const { core, registry } = context
  const undos = registry.snapshots().filter((record) => record.automatic)
  for (const record of undos) haunt(core, stateOfSnapshot(context, record))
  core.staleSizes.all = true
}

/** Resolves when the kernel shows nothing that is no longer so. */
export async function refreshKernel(context: Context): Promise<void> {
  const { core, kernel } = context
  await kernel.invalidateNames()
  for (const number of core.known.volumes()) await tellAll(dropAll(context, number))
  await settleAllSizes(context)
  core.staleSizes.all = false
  await layGhosts(core)
}

function* dropAll({ core, kernel }: Context, number: number): Generator<Promise<void>[]> {
  for (const ino of core.known.of(number)) yield [kernel.invalidateNode(nodeOf(number, ino))]
}
