/** Opening what lies in a data directory, for a mount and for a check without one. */
import fs from 'node:fs'
import os from 'node:os'
import { type Index, openIndex } from '../cas/index.ts'
import { NexusError } from '../errors.ts'
import { willNeed } from '../fuse/binding.ts'
import { type Disk, directoryDisk } from '../journal/disk.ts'
import { type Blocks, Space } from '../journal/space.ts'
import type { Logger } from '../logger.ts'
import { type DataDirectory, explainDisk, openDataDirectory } from '../volume/datadir.ts'
import { Volumes, type VolumesOptions } from '../volume/volumes.ts'
import { MEMORY_BYTES, memoryShares } from './memory.ts'

type VolumeLimits = Pick<
  VolumesOptions,
  | 'segmentBytesMax'
  | 'zeros'
  | 'checkpointBytes'
  | 'checkpointWeight'
  | 'nodeCacheBytesMax'
  | 'chunkCacheBytesMax'
  | 'sealWorkers'
>

export interface OpenOptions {
  /** data directory; made when it is missing */
  data: string
  logger: Logger
  /** throw the index away and make it anew from the log */
  rebuildIndex?: boolean
  /** bytes that the process may have (memory.ts) */
  memory?: number
  /** for tests: another disk under the log, an index that stays open, a disk of another size, other limits */
  disk?: Disk
  index?: Index
  space?: () => Blocks
  limits?: Partial<VolumeLimits>
}

export interface Store {
  data: DataDirectory
  index: Index
  volumes: Volumes
  space: Space
}

/**
 * Opens a store, which nobody else may have open, and hands it to what makes something of it.
 * @throws NexusError with what to do; then the store is closed, and its index is as it was
 */
export async function withStore<T>(options: OpenOptions, make: (store: Store) => T): Promise<T> {
  const data = openDataDirectory(options.data)
  let index: Index | undefined
  let aside: Aside | undefined
  try {
    const space = spaceOf(data.path, options.space)
    if (options.rebuildIndex === true) aside = await setIndexAside(data)
    const { index: indexMemory, ...shares } = memoryShares(options.memory ?? MEMORY_BYTES)
    index = options.index ?? (await openIndex(data.index, data.store, indexMemory))
    const volumes = await Volumes.open({
      disk: options.disk ?? directoryDisk(data.log, willNeed),
      index,
      store: data.store,
      logDirectory: data.log,
      logger: options.logger,
      sealWorkers: Math.max(1, Math.min(4, os.availableParallelism() - 1)),
      space,
      segmentBytesMax: space.segmentBytesMax,
      ...shares,
      ...options.limits,
    })
    const made = make({ data, index, volumes, space })
    aside?.discard()
    return made
  } catch (error) {
    if (index !== undefined && options.index === undefined) await index.close()
    aside?.putBack()
    throw explainDisk(data.path, error)
  }
}

/** How full the disk is that holds a directory. @param look instead of asking it */
function spaceOf(directory: string, look?: () => Blocks): Space {
  if (look !== undefined) return new Space(directory, look)
  const isRoot = process.getuid?.() === 0
  // A part of some disks is kept for root.
  const blocks = ({ bsize, blocks, bfree, bavail }: fs.StatsFs): Blocks => {
    return { blockBytes: bsize, blocks, blocksFree: bfree, blocksAvailable: isRoot ? bfree : bavail }
  }
  const aside = async (): Promise<Blocks> => blocks(await fs.promises.statfs(directory))
  return new Space(directory, () => blocks(fs.statfsSync(directory)), undefined, aside)
}

/** The index as it was before it is made anew. */
interface Aside {
  discard(): void
  putBack(): void
}

/** Only when nobody holds it: LevelDB's own lock tells. A log that cannot be read leaves the old index in place. */
async function setIndexAside(data: DataDirectory): Promise<Aside> {
  try {
    await (await openIndex(data.index, data.store)).close()
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_BUSY') throw error
  }
  const old = `${data.index}.old`
  fs.rmSync(old, { recursive: true, force: true })
  fs.renameSync(data.index, old)
  return {
    discard: () => fs.rmSync(old, { recursive: true, force: true }),
    putBack: () => {
      fs.rmSync(data.index, { recursive: true, force: true })
      fs.renameSync(old, data.index)
    },
  }
}
