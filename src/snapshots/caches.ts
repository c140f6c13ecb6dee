/**
 * Telling the kernel what a restore changed: exactly that, and of that only what it may know. The
 * new state is in place before this begins; when it is through, no cache shows the old one.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { nodeOf } from '../vfs/core.ts'
import { S_IFDIR } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Context } from './context.ts'
import { type InodeDiff, inodeDiffs } from './trees.ts'

const SLICE_MS = 5
const IN_FLIGHT_MAX = 4096

export async function invalidateBetween(context: Context, number: number, before: Volume, after: Volume): Promise<void> {
  let pending: Promise<void>[] = []
  let sliceStart = performance.now()
  for (const diff of inodeDiffs(before, after)) {
    if (context.core.known.has(number, diff.ino)) pending.push(...invalidateInode(context, number, diff))
    if (pending.length > IN_FLIGHT_MAX) {
      await Promise.all(pending)
      pending = []
    }
    if (performance.now() - sliceStart > SLICE_MS) {
      await nextTurn()
      sliceStart = performance.now()
    }
  }
  await Promise.all(pending)
}

function invalidateInode({ core, kernel }: Context, number: number, diff: InodeDiff): Promise<void>[] {
  const node = nodeOf(number, diff.ino)
  const sent = [kernel.invalidateNode(node)]
  for (const entry of diff.removed) {
    const child = entry.volume === 0 ? nodeOf(number, entry.ino) : nodeOf(entry.volume, ROOT_INO)
    const isKnown = core.known.has(entry.volume === 0 ? number : entry.volume, entry.ino)
    const isGone = !diff.added.some((other) => other.name === entry.name)
    // A directory that is deleted in the kernel's eyes stays so for who is in it: an undo could not bring it back.
    const isDeletion = isGone && isKnown && entry.type !== S_IFDIR
    sent.push(isDeletion ? kernel.deleteEntry(node, child, entry.name) : kernel.invalidateEntry(node, entry.name))
  }
  for (const entry of diff.added) sent.push(kernel.invalidateEntry(node, entry.name))
  return sent
}

/** An entry of a directory was made or removed by a command. */
export async function entryChanged(
  { core, kernel }: Context,
  directory: number,
  name: string,
  removedChild?: number,
): Promise<void> {
  if (removedChild !== undefined) core.buried(removedChild)
  const entry =
    removedChild === undefined ? kernel.invalidateEntry(directory, name) : kernel.deleteEntry(directory, removedChild, name)
  await Promise.all([entry, kernel.invalidateNode(directory)])
}
