/**
 * Telling the kernel what a restore changed: exactly that, and of that only what it may know. The
 * new state is in place before this begins; when it is through, no cache shows the old one.
 */
import type { Core, Replacement } from '../vfs/core.ts'
import type { KernelCaches } from '../vfs/filesystem.ts'
import { nodeOf } from '../vfs/place.ts'
import { isRegular, S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { INO_MAX, plainKey, ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Context } from '../workspaces/context.ts'
import { tellAll } from '../workspaces/tell.ts'
import { type InodeDiff, inodeDiffs } from './inodediffs.ts'
import type { News } from './news.ts'

/**
 * Keeps pages of the state before a restore from being written into the state after it. A mapping may dirty pages at
 * any time; while the kernel drops them it writes them back, and it writes whole pages.
 */
export class PageGuard implements Replacement {
  readonly #differs: (ino: number) => boolean
  readonly #known = new Map<number, boolean>()
  readonly #discarded = new Set<number>()
  readonly #fresh = new Set<number>()

  /** @param differs whether an inode is in both states and not the same */
  constructor(differs: (ino: number) => boolean) {
    this.#differs = differs
  }

  isStale(ino: number): boolean {
    if (this.#fresh.has(ino)) return false
    const differs = this.isReplaced(ino)
    if (differs) this.#discarded.add(ino)
    return differs
  }

  isReplaced(ino: number): boolean {
    const differs = this.#known.get(ino) ?? this.#differs(ino)
    this.#known.set(ino, differs)
    return differs
  }

  /** The kernel has dropped its pages. @returns true when some were discarded, which may have been fresh ones already */
  dropped(ino: number): boolean {
    this.#fresh.add(ino)
    return this.#discarded.has(ino)
  }
}

/** Guards a volume from the instant of a restore on; the changes are those of the restore. */
export function guardPages(core: Core, number: number, before: Volume, changes: readonly Change[]): PageGuard {
  const guard = new PageGuard(differing(core, number, before, changes))
  const all = core.replacements.get(number) ?? new Set()
  core.replacements.set(number, all.add(guard))
  return guard
}

export function unguardPages(core: Core, number: number, guard: PageGuard): void {
  const all = core.replacements.get(number)
  all?.delete(guard)
  if (all?.size === 0) core.replacements.delete(number)
}

function differing(core: Core, number: number, before: Volume, changes: readonly Change[]): (ino: number) => boolean {
  const swap = changes.find((change) => change.kind === 'root' && change.volume === number)
  if (swap?.kind === 'root') {
    const after = core.volumes.view(number, swap.domain, swap.root)
    return (ino) => after.attr(ino) !== undefined && isDifferent(before, after, ino)
  }
  // A directory was restored: every inode that it changed was dropped and made again.
  const inos = (kind: 'drop' | 'attr'): Set<number> =>
    new Set(changes.flatMap((change) => (change.kind === kind && change.volume === number ? [change.ino] : [])))
  const [dropped, made] = [inos('drop'), inos('attr')]
  return (ino) => dropped.has(ino) && made.has(ino)
}

/** True when anything of an inode is not the same in two states of a volume. */
export function isDifferent(before: Volume, after: Volume, ino: number): boolean {
  const end = ino === INO_MAX ? undefined : plainKey(ino + 1, 0)
  return before.tree.diff(before.root, after.root, plainKey(ino, 0), end).next().done !== true
}

/** What a restore changed. */
export interface Changed {
  /** nodes of files of which the kernel has the size of before */
  resized: Set<number>
  /** what programs that watch are told */
  news: News
}

/** @param changed takes up what is found */
export async function invalidateBetween(
  context: Context,
  number: number,
  before: Volume,
  after: Volume,
  guard: PageGuard,
  changed: Changed,
): Promise<void> {
  function* batches(): Generator<Promise<void>[]> {
    for (const diff of inodeDiffs(before, after)) {
      const isKnown = context.core.known.has(number, diff.ino)
      if (isKnown && isResized(diff)) changed.resized.add(nodeOf(number, diff.ino))
      changed.news.add(context.core.known, number, diff)
      yield isKnown ? invalidateInode(context, number, diff, guard) : []
    }
  }
  await tellAll(batches())
}

function isResized({ before, after }: InodeDiff): boolean {
  return before !== undefined && after !== undefined && isRegular(after) && before.size !== after.size
}

function invalidateInode({ core, kernel }: Context, number: number, diff: InodeDiff, guard: PageGuard): Promise<void>[] {
  const node = nodeOf(number, diff.ino)
  const sent = [dropPages(kernel, node, diff.ino, guard)]
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

async function dropPages(kernel: KernelCaches, node: number, ino: number, guard: PageGuard): Promise<void> {
  await kernel.invalidateNode(node)
  // What was discarded is still in the kernel's cache, as if it had been written.
  if (guard.dropped(ino)) await kernel.invalidateNode(node)
}
