/** `nexusd fsck`: the check of a store that no daemon serves, and its repair. */
import fs from 'node:fs'
import path from 'node:path'
import type { FsckInfo } from '../api/store.ts'
import { type Checked, check } from '../check/fsck.ts'
import { repairVolume } from '../check/repair.ts'
import { infoOfReport } from '../check/report.ts'
import { NexusError } from '../errors.ts'
import { wallClock } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type OpenOptions, type Store, withStore } from './store.ts'

export interface OfflineOptions extends OpenOptions {
  repair: boolean
}

/** A fix may bring to light what was hidden before, such as what lies in a directory that got its name back. */
const ROUNDS_MAX = 8

/**
 * Takes the data directory as a mount does, checks everything, and repairs what can be if that is asked for.
 * @throws NexusError NEXUS_NOT_FOUND when there is no store, NEXUS_BUSY when a daemon serves it, what opening it throws
 */
export async function fsckOffline(options: OfflineOptions): Promise<FsckInfo> {
  const start = performance.now()
  if (!fs.existsSync(path.join(options.data, 'nexus.json')))
    throw new NexusError('NEXUS_NOT_FOUND', `${options.data} holds no nexus store: name its directory with --data`)
  let checked = await checkOnce(options)
  let repaired = 0
  if (options.repair && options.rebuildIndex !== true && checked.first.findings.some(isLostFromIndex)) {
    const again = await checkOnce({ ...options, rebuildIndex: true })
    checked = { ...again, first: checked.first }
  }
  if (options.repair) repaired = Math.max(0, checked.first.total - checked.last.total)
  return infoOfReport(checked.last, performance.now() - start, repaired)
}

interface Rounds {
  first: Checked
  last: Checked
}

/** The store is open meanwhile. */
async function checkOnce(options: OfflineOptions): Promise<Rounds> {
  const store = await openFor(options)
  try {
    return await rounds(store, options.repair)
  } finally {
    try {
      await store.volumes.close()
    } finally {
      if (options.index === undefined) await store.index.close()
    }
  }
}

/** An index that is damaged or gone is made anew from the log. */
async function openFor(options: OfflineOptions): Promise<Store> {
  try {
    return await withStore(options, (store) => store)
  } catch (error) {
    if (!options.repair || options.rebuildIndex === true) throw error
    if (!(error instanceof NexusError) || error.code !== 'NEXUS_CORRUPT') throw error
    options.logger.warn({ err: error }, 'the index cannot be used: it is made anew from the log')
    return await withStore({ ...options, rebuildIndex: true }, (store) => store)
  }
}

async function rounds({ volumes }: Store, repair: boolean): Promise<Rounds> {
  const look = (): Promise<Checked> => check({ volumes, hold: () => () => undefined, wantsFixes: repair })
  const first = await look()
  let last = first
  const isMendable = ({ fixes, strayGrants }: Checked): boolean => fixes.size > 0 || strayGrants.length > 0
  for (let round = 0; repair && round < ROUNDS_MAX && isMendable(last); round++) {
    if (last.strayGrants.length > 0) {
      volumes.commit(last.strayGrants.map((key): Change => ({ kind: 'catalog', key, value: null })))
    }
    for (const [number, fixes] of last.fixes) {
      const counted = last.counted.get(number)
      // Of a tree that cannot be read whole nobody knows what it should be.
      if (counted !== undefined) repairVolume(volumes, number, fixes, counted, wallClock())
    }
    await volumes.checkpoint()
    const next = await look()
    const isSame = next.total === last.total && JSON.stringify(next.findings) === JSON.stringify(last.findings)
    last = next
    if (isSame) break
  }
  return { first, last }
}

/** The log may still have it. */
function isLostFromIndex({ kind, text }: { kind: string; text: string }): boolean {
  return kind === 'index' || ((kind === 'content' || kind === 'node') && text.includes('not in the index'))
}
