/** The calls behind `nexusctl`, answered by the engine. */
import { monotonicFactory } from 'ulid'
import type * as api from '../control/service.ts'
import { packageVersion } from '../control/version.ts'
import type { Session } from '../fuse/session.ts'
import { fork } from '../snapshots/fork.ts'
import { restore } from '../snapshots/restore.ts'
import { deleteSnapshot, diffSnapshots, listSnapshots, showSnapshot, takeSnapshot } from '../snapshots/snapshots.ts'
import type { KernelCaches } from '../vfs/filesystem.ts'
import { type Context, SNAPSHOT_ID_PREFIX } from '../workspaces/context.ts'
import {
  createWorkspace,
  deleteWorkspace,
  listWorkspaces,
  renameWorkspace,
  showWorkspace,
  updateWorkspace,
} from '../workspaces/workspaces.ts'
import type { Engine } from './engine.ts'

export interface ServiceOptions {
  engine: Engine
  kernel: KernelCaches
  session: Pick<Session, 'protocol' | 'counts'>
  mountpoint: string
  data: string
  singleUser: boolean
  /** begins to unmount and end */
  stop(): void
}

/** The answer to `shutdown` must be out before the socket closes. */
const STOP_DELAY_MS = 10

export class DaemonService implements api.Service {
  readonly #options: ServiceOptions
  readonly #context: Context
  readonly #startedAt = new Date()

  constructor(options: ServiceOptions) {
    this.#options = options
    const ulid = monotonicFactory()
    const { engine, kernel } = options
    const newId = (): string => SNAPSHOT_ID_PREFIX + ulid()
    this.#context = { core: engine.fs.core, registry: engine.registry, kernel, now: () => new Date(), newId }
  }

  async status(): Promise<api.StatusInfo> {
    const { engine, session, mountpoint, data, singleUser } = this.#options
    return {
      version: packageVersion(),
      pid: process.pid,
      mountpoint,
      data,
      started_at: this.#startedAt.toISOString(),
      uptime_s: Math.floor((Date.now() - this.#startedAt.getTime()) / 1000),
      single_user: singleUser,
      kernel_protocol: session.protocol,
      workspaces: [...engine.registry.workspaces()].length,
      snapshots: engine.registry.snapshotCount,
      requests: session.counts,
      memory_bytes: process.memoryUsage.rss(),
      log_bytes: engine.volumes.logBytes,
      dirty_bytes: engine.volumes.dirtyBytes,
    }
  }

  workspaceCreate(path: string, options: { metadata?: api.Metadata }): Promise<api.WorkspaceInfo> {
    return createWorkspace(this.#context, path, options.metadata ?? {})
  }

  async workspaceList(): Promise<api.WorkspaceInfo[]> {
    return listWorkspaces(this.#context)
  }

  async workspaceShow(path: string): Promise<api.WorkspaceInfo> {
    return showWorkspace(this.#context, path)
  }

  workspaceDelete(path: string): Promise<api.WorkspaceInfo> {
    return deleteWorkspace(this.#context, path)
  }

  workspaceRename(path: string, newPath: string): Promise<api.WorkspaceInfo> {
    return renameWorkspace(this.#context, path, newPath)
  }

  async workspaceUpdate(path: string, options: { metadata: api.Metadata }): Promise<api.WorkspaceInfo> {
    return updateWorkspace(this.#context, path, options.metadata)
  }

  snapshotCreate(path: string, options: { name?: string; metadata?: api.Metadata }): Promise<api.SnapshotInfo> {
    return takeSnapshot(this.#context, path, options)
  }

  async snapshotList(path: string): Promise<api.SnapshotInfo[]> {
    return listSnapshots(this.#context, path)
  }

  async snapshotShow(path: string, snapshot: string): Promise<api.SnapshotInfo> {
    return showSnapshot(this.#context, path, snapshot)
  }

  snapshotDelete(path: string, snapshot: string): Promise<api.SnapshotInfo> {
    return deleteSnapshot(this.#context, path, snapshot)
  }

  snapshotDiff(path: string, from: string, to: string | null, limit: number): Promise<api.DiffInfo> {
    return diffSnapshots(this.#context, path, from, to, limit)
  }

  restore(path: string, snapshot: string, options: { dryRun?: boolean; limit?: number }): Promise<api.RestoreInfo> {
    return restore(this.#context, path, snapshot, options)
  }

  fork(path: string, newPath: string, options: { snapshot?: string }): Promise<api.ForkInfo> {
    return fork(this.#context, path, newPath, options)
  }

  async checkpoint(): Promise<{ elapsed_ms: number }> {
    const start = performance.now()
    await this.#options.engine.volumes.checkpoint()
    return { elapsed_ms: performance.now() - start }
  }

  async collect(): Promise<api.CollectInfo> {
    const start = performance.now()
    const { forgotten, segments, freedBytes, copiedBytes } = await this.#options.engine.collect()
    return { forgotten, segments, freed_bytes: freedBytes, copied_bytes: copiedBytes, elapsed_ms: performance.now() - start }
  }

  async shutdown(): Promise<{ pid: number }> {
    setTimeout(() => this.#options.stop(), STOP_DELAY_MS)
    return { pid: process.pid }
  }
}
