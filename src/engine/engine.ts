/**
 * Everything behind the mount, put together: the store, the volumes, the workspaces and the
 * filesystem. It needs no mount, which is how most tests use it.
 */
import { Access, type AccessOptions } from '../acl/access.ts'
import type { Index } from '../cas/index.ts'
import { type Checked, check } from '../check/fsck.ts'
import { Scrub } from '../check/scrub.ts'
import { isNoSpace } from '../errors.ts'
import type { Space } from '../journal/space.ts'
import type { Logger } from '../logger.ts'
import { Pace } from '../pace.ts'
import type { Time } from '../vfs/filesystem.ts'
import { KnownNodes } from '../vfs/known.ts'
import { NexusFs } from '../vfs/nexusfs.ts'
import { type Attr, S_IFDIR, wallClock } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import type { Collected, CollectOptions } from '../volume/collect.ts'
import type { DataDirectory } from '../volume/datadir.ts'
import { slotOf } from '../volume/dirent.ts'
import { FIRST_FREE_INO, ROOT_INO } from '../volume/keys.ts'
import type { Root } from '../volume/live.ts'
import type { Pause } from '../volume/merge.ts'
import type { Usage } from '../volume/usage.ts'
import type { Volumes } from '../volume/volumes.ts'
import { VolumesTree } from '../workspaces/containment.ts'
import { WorkspaceQuotas } from '../workspaces/quotas.ts'
import { TENANTS_NAME, WORKSPACES_NAME, WorkspaceRegistry } from '../workspaces/registry.ts'
import { NO_LIMITS, SUBJECT_LIMITS, type SubjectLimits } from '../workspaces/subjectlimits.ts'
import { type OpenOptions, type Store, withStore } from './store.ts'
import { type StoreState, Upkeep } from './upkeep.ts'

export interface EngineOptions extends OpenOptions {
  /** time of the request that is served; the wall clock when not given */
  now?: () => Time
  /** owner of the root and of what nobody made */
  owner?: { uid: number; gid: number }
  /** only the owner can reach the mount: no directory has to be open to others */
  singleUser?: boolean
  /** set-id bits take effect: views do not show them */
  suid?: boolean
  /** device files can be used: views show none that can */
  dev?: boolean
  /** rings when a grant ends by the wall clock (acl/access.ts) */
  alarm?: AccessOptions['alarm']
  /** what the kernel holds of a mount that is taken over */
  known?: KnownNodes
  /** how much each subject may have; the usual limits when not given, and none on a mount for a single user */
  subjectLimits?: SubjectLimits | undefined
}

/** On a nearly full disk little is alive in few segments: those go that give anything at all. */
const PRESSED_SHARE = 0.95
const USAGE_AGE_MS = 60_000

export interface EngineMeasures extends Usage {
  physicalBytes: number
  measuredAt: Date
}

export class Engine {
  readonly volumes: Volumes
  readonly registry: WorkspaceRegistry
  readonly quotas: WorkspaceQuotas
  readonly access: Access
  readonly known: KnownNodes
  readonly fs: NexusFs
  readonly data: DataDirectory
  /** number of the last record that was in the log at the start */
  readonly recovered: number
  readonly #logger: Logger
  readonly #index: Index
  #usage: { at: number; result: Promise<EngineMeasures> } | undefined
  readonly #space: Space
  readonly #upkeep: Upkeep
  #closing: Promise<void> | undefined
  readonly scrub: Scrub

  static open(options: EngineOptions): Promise<Engine> {
    return withStore(options, (store) => new Engine(options, store))
  }

  private constructor(options: EngineOptions, { data, index, volumes, space }: Store) {
    this.data = data
    this.volumes = volumes
    this.#logger = options.logger
    this.#index = index
    this.recovered = volumes.log.sequence
    this.#space = space
    space.estimate = () => volumes.checkpointBytes
    this.known = options.known ?? new KnownNodes()
    // The kernel holds the root from the mount on, without ever having looked it up.
    if (!this.known.has(0, ROOT_INO)) this.known.add(0, ROOT_INO)
    const now = options.now ?? wallClock
    const owner = options.owner ?? { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    this.registry = new WorkspaceRegistry(volumes, () => new Date())
    this.registry.neverGive(this.known.volumes())
    this.quotas = new WorkspaceQuotas(volumes, this.registry, limitsOf(options))
    this.access = new Access({
      catalog: volumes.catalog,
      tree: new VolumesTree(volumes, this.registry),
      commit: (changes) => volumes.commit(changes),
      logger: options.logger,
      singleUser: options.singleUser === true,
      ...(options.alarm && { alarm: options.alarm }),
    })
    this.registry.neverGive(this.access.tuples.numbers())
    this.fs = new NexusFs({
      volumes,
      registry: this.registry,
      guard: this.access,
      quotas: this.quotas,
      known: this.known,
      now,
      owner,
      hidesFromViews: { setId: options.suid === true, devices: options.dev === true },
      space: () => space.blocks(),
    })
    if (volumes.get(0) === undefined) this.#bootstrap(owner, now(), options.singleUser === true)
    this.#dropOrphans()
    this.#upkeep = new Upkeep({ volumes, space, logger: options.logger, collect: (copy) => this.collect({ copy }) })
    this.scrub = new Scrub({ volumes, hold: (roots) => this.hold(roots), logger: options.logger })
  }

  /** Bytes of the disk that holds the log, and what is free of them. */
  get diskSpace(): { bytes: number; free: number } {
    const { blockBytes, blocks, blocksFree } = this.#space.blocks()
    return { bytes: blockBytes * blocks, free: blockBytes * blocksFree }
  }

  /** While what is stored cannot be looked up, what ends when it can; some seconds at most. */
  get opening(): Promise<void> | undefined {
    return this.#index.opening
  }

  /** Begins to flush, checkpoint and collect by itself. */
  start(): void {
    this.#upkeep.start()
    this.scrub.resume()
  }

  /** Whether the store takes what is written, and if not, why. */
  get state(): StoreState {
    return this.#upkeep.state
  }

  /**
   * Gives back the space of what nothing reaches any more, beside everybody who works; on a nearly full disk as much of
   * it as can be had with the room that there is.
   */
  async collect(options: CollectOptions = {}): Promise<Collected> {
    const pace = new Pace()
    await this.#layGhosts(options.pause ?? (() => pace.pause()))
    this.#dropOrphans()
    const space = this.#space
    const pressed = space.isTight ? () => ({ share: PRESSED_SHARE, copyBytes: space.copyBytesMax }) : undefined
    const result = await this.volumes.collect(() => this.registry.roots(), { ...options, pressed })
    this.#usage = undefined
    this.#upkeep.collected()
    return result
  }

  /** What is stored and who needs it; who asks within a minute is told the same. */
  usage(): Promise<EngineMeasures> {
    if (this.#usage === undefined || performance.now() - this.#usage.at > USAGE_AGE_MS) {
      const measure = async (): Promise<EngineMeasures> => {
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

  /** Checks everything, beside running writers. @param wantsFixes also says how to mend what is wrong */
  check(wantsFixes = false): Promise<Checked> {
    return check({ volumes: this.volumes, hold: (roots) => this.hold(roots), wantsFixes })
  }

  /** Keeps states from the collector until the returned function is called. */
  hold(roots: readonly Root[]): () => void {
    const pin = this.volumes.pin(roots)
    return () => pin.release()
  }

  /** Takes a last checkpoint and closes everything. Quiet when repeated. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#upkeep.stop()
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

  /** Ends what is without a name and nobody's: what was open when the last daemon ended, or the disk was full. */
  #dropOrphans(): void {
    for (const number of this.volumes.numbers()) this.volumes.dropOrphans(number, (ino) => this.known.has(number, ino))
  }

  /** For want of room those that are left keep what they are made of. */
  async #layGhosts(pause: Pause): Promise<void> {
    try {
      for (const _ of this.fs.core.layGhosts()) await pause()
    } catch (error) {
      if (!isNoSpace(error)) throw error
    }
  }
}

function limitsOf({ singleUser, subjectLimits = SUBJECT_LIMITS }: EngineOptions): SubjectLimits {
  return singleUser === true ? NO_LIMITS : subjectLimits
}

function directoryAttr(
  owner: { uid: number; gid: number },
  now: Time,
  own: { mode: number; nlink: number; parent: number; name: string },
): Attr {
  const times = { atime: now, mtime: now, ctime: now, btime: now }
  return { ...owner, ...times, rdev: 0, size: 0, allocated: 0, xattrs: 0, ...own, mode: S_IFDIR | own.mode }
}
