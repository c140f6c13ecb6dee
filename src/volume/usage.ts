/** What the store holds, by who needs it: a marking walk on demand, which frees nothing. */
import type { Address } from '../cas/address.ts'
import type { ContentStore } from '../cas/store.ts'
import { RECORD_HEADER_BYTES } from '../journal/record.ts'
import type { Tree } from '../tree/tree.ts'
import { type DomainLayer, Live, type Root } from './live.ts'
import type { Pause } from './merge.ts'

export interface Usage {
  /** what volumes need: nodes and chunks, with the records around them */
  liveBytes: number
  /** what only snapshots need besides */
  snapshotBytes: number
  /** file content that volumes need, each chunk once */
  contentBytes: number
}

export interface UsageTools {
  store: ContentStore
  tree: Tree
  pause: Pause
}

/** Behind what is stored lies its address. */
const RECORD_BYTES = RECORD_HEADER_BYTES + 32

/** @param states pinned until this is done */
export async function measureUsage(
  { store, tree, pause }: UsageTools,
  states: { volumes: readonly Root[]; layers: readonly DomainLayer[]; snapshots: readonly Root[] },
): Promise<Usage> {
  const live = new Live()
  const kept = new Live()
  for (const layer of states.layers) await inSlices(live.markLayer(layer), pause)
  for (const root of states.volumes) await inSlices(live.markRoot(tree, root), pause)
  for (const root of states.snapshots) {
    const isLive = (address: Address): boolean => live.isWalked(address, root.domain)
    await inSlices(kept.markRoot(tree, root, isLive), pause)
  }
  const usage: Usage = { liveBytes: 0, snapshotBytes: 0, contentBytes: 0 }
  for await (const content of store.contents()) {
    const bytes = content.location.length + RECORD_BYTES
    if (live.has(content)) {
      usage.liveBytes += bytes
      if (content.domain !== undefined) usage.contentBytes += content.location.length
    } else if (kept.has(content)) usage.snapshotBytes += bytes
    await pause()
  }
  return usage
}

async function inSlices(work: Generator<void, void>, pause: Pause): Promise<void> {
  // Also when all is done at once: of 10,000 snapshots each may have a few nodes of its own.
  for (let isDone: boolean | undefined; isDone !== true; await pause()) isDone = work.next().done
}
