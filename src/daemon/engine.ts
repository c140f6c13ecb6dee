/**
 * Everything behind the mount, put together: the store, the volumes, the workspaces and the
 * filesystem. It needs no mount, which is how most tests use it.
 */
import fs from 'node:fs'
import { Access } from '../acl/access.ts'
import type { Index } from '../cas/index.ts'
import { type Checked, check } from '../check/fsck.ts'
import { Scrub } from '../check/scrub.ts'
import type { Logger } from '../logger.ts'
import type { Time } from '../vfs/filesystem.ts'
import { KnownNodes } from '../vfs/known.ts'
import { NexusFs } from '../vfs/nexusfs.ts'
import { type Attr, S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import type { Collected, Root } from '../volume/collect.ts'
import type { DataDirectory } from '../volume/datadir.ts'
import { slotOf } from '../volume/dirent.ts'
import { FIRST_FREE_INO, ROOT_INO } from '../volume/keys.ts'
import type { Volumes } from '../volume/volumes.ts'
import { VolumesTree } from '../workspaces/containment.ts'
import { TENANTS_NAME, WORKSPACES_NAME, WorkspaceRegistry } from '../workspaces/registry.ts'
import { type StoreOptions, withStore } from './store.ts'

export interface EngineOptions extends StoreOptions {
  /** time of the request that is served; the wall clock when not given */
  now?: () => Time
  /** owner of the root and of what nobody made */
  owner?: { uid: number; gid: number }
  /** only the owner can reach the mount: no directory has to be open to others */
  singleUser?: boolean
}

/** How often the log is flushed and a checkpoint considered. */
const TICK_MS = 200
const FLUSH_MS = 1000
/** Changes that have lain this long only in the log are checkpointed. */
const CHECKPOINT_AGE_MS = 30_000
const CHECKPOINT_RETRY_MS = 10_000
/** How often the size of the log is looked at, and how much it grows (or by half) until garbage is collected. */
const LOOK_MS = 15_000
const COLLECT_GROWTH_BYTES_MIN = 512 * 1024 * 1024

export class Engine {
  readonly volumes: Volumes
  readonly registry: WorkspaceRegistry
  readonly access: Access
  readonly known: KnownNodes
  readonly fs: NexusFs
  readonly data: DataDirectory
  readonly #logger: Logger
  readonly #index: Index
  #timer: NodeJS.Timeout | undefined
  #lastFlush = 0
  #dirtySince = 0
  #checkpointNotBefore = 0
  #lastLook = 0
  /** size of the log after the last collection */
  #collectedBytes: number
  #closing: Promise<void> | undefined
  /** states that a check reads, which nobody else may keep */
  readonly #held = new Set<readonly Root[]>()
  readonly scrub: Scrub

  static open(options: EngineOptions): Promise<Engine> {
    return withStore(options, ({ data, index, volumes }) => new Engine(options, data, index, volumes))
  }

  private constructor(options: EngineOptions, data: DataDirectory, index: Index, volumes: Volumes) {
    this.data = data
    this.volumes = volumes
    this.#logger = options.logger
    this.#index = index
    this.known = new KnownNodes()
    // The kernel holds the root from the mount on, without ever having looked it up.
    this.known.add(0, ROOT_INO)
    const now = options.now ?? wallClock
    const owner = options.owner ?? { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    this.registry = new WorkspaceRegistry(volumes, () => new Date())
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
    this.#collectedBytes = volumes.logBytes
    this.scrub = new Scrub({ volumes, hold: (roots) => this.hold(roots), logger: options.logger })
  }

  /** Begins to flush and checkpoint by itself. */
  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref()
    this.scrub.resume()
  }

  /** Gives back the space of what nothing reaches any more. */
  async collect(): Promise<Collected> {
    this.fs.core.layGhosts()
    const result = await this.volumes.collect(() => [...this.registry.roots(), ...[...this.#held].flat()])
    this.#collectedBytes = this.volumes.logBytes
    return result
  }

  /** Checks everything, beside running writers. @param wantsFixes also says how to mend what is wrong */
  check(wantsFixes = false): Promise<Checked> {
    return check({ volumes: this.volumes, hold: (roots) => this.hold(roots), wantsFixes })
  }

  /** Keeps states from the collector until the returned function is called. */
  hold(roots: readonly Root[]): () => void {
    this.#held.add(roots)
    return () => this.#held.delete(roots)
  }

  /** Takes a last checkpoint and closes everything. Quiet when repeated. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    clearInterval(this.#timer)
    await this.scrub.pause()
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

  /** What was open and without a name when the last daemon ended is nobody's now. */
  #sweepOrphans(): void {
    for (const number of this.volumes.numbers()) this.volumes.dropOrphans(number)
  }

  #collectInBackground(): void {
    // Counts from now, so that a failure is not repeated at every look.
    this.#collectedBytes = this.volumes.logBytes
    this.collect().catch((error: unknown) =>
      this.#logger.error({ err: error }, 'garbage collection failed; nothing is lost, and it is tried again'),
    )
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
      if (isCollectionDue(this.#collectedBytes, this.volumes.logBytes)) this.#collectInBackground()
    }
  }
}

/** Whether a log that was `before` bytes after the last collection has grown enough for another. */
function isCollectionDue(before: number, now: number): boolean {
  return now - before > Math.max(COLLECT_GROWTH_BYTES_MIN, before / 2)
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
