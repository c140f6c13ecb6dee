/**
 * After a restore files are touched through the mount: the kernel has the size of before of each that was changed, and takes
 * the right one then. Programs that watch such a file hear IN_MODIFY of it; all else that they are told is in `news.ts`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Touch } from '../vfs/filesystem.ts'
import { inoOfNode, nodeOf, volumeOf } from '../vfs/place.ts'
import { isRegular } from '../volume/attr.ts'
import type { Context } from '../workspaces/context.ts'
import { bytesPathOf } from '../workspaces/paths.ts'

/**
 * Longest that a restore waits. Touching a file waits for the lock of whoever writes to it, and a program can hold
 * that as long as it likes; until then appends are put in the right place by us.
 */
const SETTLE_MS_MAX = 5000
/** The kernel has no such inode: no process can have a size of it. */
const ESTALE = -116

/** @param nodes files whose size may have changed behind the kernel's back; before this they are in `core.staleSizes` */
export async function settleSizes(context: Context, nodes: Iterable<number>): Promise<void> {
  const files = [...nodes].flatMap((node) => touchOf(context, node) ?? [])
  if (files.length === 0) return
  const settling = settle(context, files)
  // Whoever comes first: the other is no failure of the restore.
  let isSettled = false
  const settled = settling.then(() => {
    isSettled = true
  })
  await Promise.race([settled, sleep(SETTLE_MS_MAX, undefined, { ref: false })])
  if (!isSettled) context.inBackground('telling the kernel the sizes of restored files', () => settled)
}

/** Resolves when the kernel has the sizes of all files that it holds. */
export async function settleAllSizes(context: Context): Promise<void> {
  const { core } = context
  const files = function* (): Generator<Touch> {
    for (const number of core.known.volumes()) {
      for (const ino of core.known.of(number)) yield* touchOf(context, nodeOf(number, ino)) ?? []
    }
  }
  await settle(context, [...files()])
}

async function settle({ core, kernel, toucher }: Context, files: readonly Touch[]): Promise<void> {
  const results = (await toucher?.touch(files)) ?? []
  for (const [i, { node }] of files.entries()) if (results[i] === ESTALE) core.staleSizes.settled(node)
  const touched = new Set(files.map(({ node }) => node))
  await Promise.all(core.staleSizes.takeMisplaced((node) => touched.has(node)).map((node) => kernel.invalidateNode(node)))
}

/** Undefined for what is no regular file, or is gone. */
function touchOf({ core, registry }: Context, node: number): [Touch] | undefined {
  const [number, ino] = [volumeOf(node), inoOfNode(node)]
  const volume = core.volumes.get(number)
  const attr = volume?.attr(ino)
  if (volume === undefined || attr === undefined || !isRegular(attr)) {
    core.staleSizes.settled(node)
    return undefined
  }
  const { atime, mtime } = attr
  const path = bytesPathOf(core, registry, { volume, ino, attr })
  return [{ kind: 'content', node, generation: core.known.generation(number, ino), atime, mtime, path }]
}
