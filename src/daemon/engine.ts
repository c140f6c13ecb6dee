/**
 * Everything behind the mount, put together: the store, the volumes, the workspaces and the
 * filesystem. It needs no mount, which is how most tests use it.
 */
import fs from 'node:fs'
import os from 'node:os'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Access } from '../acl/access.ts'
import { type Index, openIndex } from '../cas/index.ts'
import { NexusError } from '../errors.ts'
import { type Disk, directoryDisk } from '../journal/disk.ts'
import type { Logger } from '../logger.ts'
import type { Time } from '../vfs/filesystem.ts'
import { KnownNodes } from '../vfs/known.ts'
import { NexusFs } from '../vfs/nexusfs.ts'
import { type Attr, S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import type { Collected, CollectOptions } from '../volume/collect.ts'
import { type DataDirectory, explainDisk, openDataDirectory } from '../volume/datadir.ts'
import { slotOf } from '../volume/dirent.ts'
import { FIRST_FREE_INO, ROOT_INO } from '../volume/keys.ts'
import type { Usage } from '../volume/usage.ts'
import { Volumes, type VolumesOptions } from '../volume/volumes.ts'
import { VolumesTree } from '../workspaces/containment.ts'
import { TENANTS_NAME, WORKSPACES_NAME, WorkspaceRegistry } from '../workspaces/registry.ts'
import { isGarbageWorthIt } from './garbage.ts'

type VolumeLimits = Pick<
  VolumesOptions,
  'segmentBytesMax' | 'checkpointBytes' | 'checkpointWeight' | 'nodeCacheBytesMax' | 'chunkCacheBytesMax' | 'sealWorkers'
>

export interface EngineOptions {
  /** data directory; made when it is missing */
  data: string
  logger: Logger
  /** time of the request that is served; the wall clock when not given */
  now?: () => Time
  /** owner of the root and of what nobody made */
  owner?: { uid: number; gid: number }
  /** only the owner can reach the mount: no directory has to be open to others */
  singleUser?: boolean
  /** throw the index away and make it anew from the log */
  rebuildIndex?: boolean
  /** what the kernel holds of a mount that is taken over */
  known?: KnownNodes
  /** for tests: another disk under the log, an index that stays open, other limits */
  disk?: Disk
  index?: Index
  limits?: Partial<VolumeLimits>
}

/** How often the log is flushed and a checkpoint considered. */
const TICK_MS = 200
const FLUSH_MS = 1000
/** Changes that have lain this long only in the log are checkpointed. */
const CHECKPOINT_AGE_MS = 30_000
const CHECKPOINT_RETRY_MS = 10_000
/** How often it is looked whether to collect garbage. */
const LOOK_MS = 15_000
/** A collection rests so many times as long as it took: what it finds may all be in snapshots. */
const COLLECT_REST = 10
const SLICE_MS = 2

const USAGE_AGE_MS = 60_000

export interface Measured extends Usage {
  physicalBytes: number
  measuredAt: Date
}

export class Engine {
  readonly volumes: Volumes
  readonly registry: WorkspaceRegistry
  readonly access: Access
  readonly known: KnownNodes
  readonly fs: NexusFs
  readonly data: DataDirectory
  /** number of the last record that was in the log at the start */
  readonly recovered: number
  readonly #logger: Logger
  readonly #index: Index
  #timer: NodeJS.Timeout | undefined
  #lastFlush = 0
  #dirtySince = 0
  #checkpointNotBefore = 0
  #lastLook = 0
  /** by `performance.now` */
  #collectNotBefore = 0
  #isCollecting = false
  #usage: { at: number; result: Promise<Measured> } | undefined
  #lastCollection = 0
  #closing: Promise<void> | undefined

  static async open(options: EngineOptions): Promise<Engine> {
    const data = openDataDirectory(options.data)
    let index: Index | undefined
    let aside: Aside | undefined
    try {
      if (options.rebuildIndex === true) aside = await setIndexAside(data)
      index = options.index ?? (await openIndex(data.index, data.store))
      const volumes = await Volumes.open({
        disk: options.disk ?? directoryDisk(data.log),
        index,
        store: data.store,
        logDirectory: data.log,
        logger: options.logger,
        sealWorkers: Math.max(1, Math.min(4, os.availableParallelism() - 1)),
        ...options.limits,
      })
      const engine = new Engine(options, data, index, volumes)
      aside?.discard()
      return engine
    } catch (error) {
      if (index !== undefined && options.index === undefined) await index.close()
      aside?.putBack()
      throw explainDisk(data.path, error)
    }
  }

  private constructor(options: EngineOptions, data: DataDirectory, index: Index, volumes: Volumes) {
    this.data = data
    this.volumes = volumes
    this.#logger = options.logger
    this.#index = index
    this.recovered = volumes.log.sequence
    this.known = options.known ?? new KnownNodes()
    // The kernel holds the root from the mount on, without ever having looked it up.
    if (!this.known.has(0, ROOT_INO)) this.known.add(0, ROOT_INO)
    const now = options.now ?? wallClock
    const owner = options.owner ?? { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    this.registry = new WorkspaceRegistry(volumes, () => new Date())
    this.registry.neverGive(this.known.volumes())
    const space = spaceOf(data.path)
    this.access = new Access({
      catalog: volumes.catalog,
      tree: new VolumesTree(volumes, this.registry),
      commit: (changes) => volumes.commit(changes),
      logger: options.logger,
      singleUser: options.singleUser === true,
    })
    this.fs = new NexusFs({ volumes, registry: this.registry, guard: this.access, known: this.known, now, owner, space })
    if (volumes.get(0) === undefined) this.#bootstrap(owner, now(), options.singleUser === true)
    this.#sweepOrphans()
  }

  /** Bytes of the disk that holds the log, and what is free of them. */
  get diskSpace(): { bytes: number; free: number } {
    const { blockBytes, blocks, blocksAvailable } = spaceOf(this.data.path)()
    return { bytes: blockBytes * blocks, free: blockBytes * blocksAvailable }
  }

  /** Begins to flush and checkpoint by itself. */
  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref()
  }

  /** Gives back the space of what nothing reaches any more, beside everybody who works. */
  async collect(options: CollectOptions = {}): Promise<Collected> {
    const pause = options.pause ?? slices()
    for (const _ of this.fs.core.layGhosts()) await pause()
    const result = await this.volumes.collect(() => this.registry.roots(), options)
    this.#usage = undefined
    return result
  }

  /** What is stored and who needs it; who asks within a minute is told the same. */
  usage(): Promise<Measured> {
    if (this.#usage === undefined || performance.now() - this.#usage.at > USAGE_AGE_MS) {
      const measure = async (): Promise<Measured> => {
        const usage = await this.volumes.usage(() => this.registry.roots())
        return { ...usage, physicalBytes: this.volumes.logBytes, measuredAt: new Date() }
      }
      const result = measure()
      this.#usage = { at: performance.now(), result }
      result.catch(() => {
        this.#usage = undefined
      })
    }
    return this.#usage.result
  }

  /** Takes a last checkpoint and closes everything. Quiet when repeated. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    clearInterval(this.#timer)
    this.access.stop()
    try {
      await this.volumes.close()
    } catch (error) {
      if (this.volumes.log.failure !== undefined) throw error
      this.#logger.warn({ err: error }, 'the last checkpoint failed; nothing is lost, the next mount reads more of the log')
    } finally {
      await this.#index.close()
    }
  }

  /**
   * The first root directory, with the places for tenants and workspaces. Making a tenant is the
   * administrator's; making a workspace is anybody's, removing it its owner's.
   */
  #bootstrap(owner: { uid: number; gid: number }, now: Time, singleUser: boolean): void {
    const places = [
      { ino: FIRST_FREE_INO, name: TENANTS_NAME, mode: 0o755 },
      { ino: FIRST_FREE_INO + 1, name: WORKSPACES_NAME, mode: singleUser ? 0o755 : 0o1777 },
    ]
    const record = { ...this.registry.newRecord(0, 0, '', 0), parent_ino: 0 }
    // One record: a start that is cut short leaves nothing, and the next begins anew.
    this.volumes.commit([
      this.registry.storeWorkspace(record),
      { kind: 'root', volume: 0, root: null, domain: 0, inoNext: 0 },
      { kind: 'attr', volume: 0, ino: ROOT_INO, attr: directoryAttr(owner, now, { mode: 0o755, nlink: 4, parent: 0, name: '' }) },
      ...places.flatMap(({ ino, name, mode }): Change[] => [
        { kind: 'attr', volume: 0, ino, attr: directoryAttr(owner, now, { mode, nlink: 2, parent: ROOT_INO, name }) },
        { kind: 'entry', volume: 0, ino: ROOT_INO, slot: slotOf(name), entry: { index: 0, name, type: S_IFDIR, ino, volume: 0 } },
      ]),
    ])
  }

  /** What was open and without a name when the last daemon ended is nobody's now, unless the kernel still holds it. */
  #sweepOrphans(): void {
    for (const number of this.volumes.numbers()) this.volumes.dropOrphans(number, (ino) => this.known.has(number, ino))
  }

  async #collectInBackground(now: number): Promise<void> {
    this.#isCollecting = true
    this.#lastCollection = now
    try {
      await this.collect()
    } catch (error) {
      if (this.#closing !== undefined) return
      this.#logger.error({ err: error }, 'garbage collection failed; nothing is lost, and it is tried again')
    } finally {
      this.#isCollecting = false
      const end = performance.now()
      this.#collectNotBefore = end + Math.max(LOOK_MS, COLLECT_REST * (end - now))
    }
  }

  #isCollectionDue(now: number): boolean {
    if (this.#isCollecting || now < this.#collectNotBefore) return false
    return isGarbageWorthIt(this.volumes, now - this.#lastCollection)
  }

  /** A full disk fails it again and again: each time costs, and says nothing new. */
  #checkpointInBackground(now: number): void {
    this.volumes.checkpoint().catch((error: unknown) => {
      this.#checkpointNotBefore = now + CHECKPOINT_RETRY_MS
      this.#logger.error({ err: error }, 'a checkpoint failed; it is tried again, and nothing is lost')
    })
  }

  #tick(): void {
    const now = performance.now()
    const { log } = this.volumes
    if (log.failure !== undefined) return
    if (log.durable !== log.sequence && now - this.#lastFlush >= FLUSH_MS) {
      this.#lastFlush = now
      this.volumes
        .sync()
        .catch((error: unknown) => this.#logger.error({ err: error }, 'the disk failed to store the log: read-only from now on'))
    }
    if (this.volumes.dirtyBytes === 0) this.#dirtySince = now
    const isDue = this.volumes.checkpointDue && now >= this.#checkpointNotBefore
    if (isDue || now - this.#dirtySince > CHECKPOINT_AGE_MS) {
      this.#dirtySince = now
      this.#checkpointInBackground(now)
    }
    if (now - this.#lastLook > LOOK_MS) {
      this.#lastLook = now
      if (this.#isCollectionDue(now)) void this.#collectInBackground(now)
    }
  }
}

/** Returns to the event loop when a slice is over. */
function slices(): () => Promise<void> | undefined {
  let start = performance.now()
  return () => {
    if (performance.now() - start < SLICE_MS) return undefined
    return nextTurn().then(() => {
      start = performance.now()
    })
  }
}

function directoryAttr(
  owner: { uid: number; gid: number },
  now: Time,
  own: { mode: number; nlink: number; parent: number; name: string },
): Attr {
  const times = { atime: now, mtime: now, ctime: now, btime: now }
  return { ...owner, ...times, rdev: 0, size: 0, allocated: 0, xattrs: 0, ...own, mode: S_IFDIR | own.mode }
}

function wallClock(): Time {
  const ms = Date.now()
  return { s: Math.floor(ms / 1000), ns: (ms % 1000) * 1_000_000 }
}

function spaceOf(directory: string): () => { blockBytes: number; blocks: number; blocksFree: number; blocksAvailable: number } {
  return () => {
    const { bsize, blocks, bfree, bavail } = fs.statfsSync(directory)
    return { blockBytes: bsize, blocks, blocksFree: bfree, blocksAvailable: bavail }
  }
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
