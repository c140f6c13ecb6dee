/** Puts together what all parts of a serving process have measured. */
import type { MetricsInfo } from '../api/metrics.ts'
import type { Engine } from '../engine/engine.ts'
import { NO_REQUESTS } from '../fuse/meter.ts'
import type { FuseSession } from '../fuse/session.ts'
import { Histogram } from '../histogram.ts'
import { packageVersion } from '../host/version.ts'
import type { Takeovers } from './options.ts'

/** Rare enough to cost nothing, often enough to meet whatever holds the thread for longer. */
const LOOP_MS = 50

/** How late timers come: what holds the thread holds every request. */
export class LoopDelay {
  readonly #delays = new Histogram()

  start(): void {
    let due = performance.now() + LOOP_MS
    setInterval(() => {
      const now = performance.now()
      this.#delays.add(Math.max(0, now - due) * 1000)
      due = now + LOOP_MS
    }, LOOP_MS).unref()
  }

  get distribution(): MetricsInfo['loop_delay'] {
    return this.#delays.distribution
  }
}

export interface Measured {
  engine: Engine
  session: Partial<Pick<FuseSession, 'metrics'>>
  handover: Takeovers | undefined
  loopDelay: LoopDelay
  startedAt: Date
}

export function measure({ engine, session, handover, loopDelay, startedAt }: Measured): MetricsInfo {
  const { volumes, registry, known, fs } = engine
  const { operations, stalls, ...requests } = session.metrics ?? NO_REQUESTS
  const { bytes, free } = engine.diskSpace
  const takeovers = handover?.takeovers ?? { count: 0, last: [] }
  return {
    version: packageVersion(),
    pid: process.pid,
    at: new Date().toISOString(),
    started_at: startedAt.toISOString(),
    takeovers: takeovers.count,
    taken_over_at: takeovers.last.map((at) => at.toISOString()),
    operations: Object.fromEntries(operations.map(({ name, ...operation }) => [name, operation])),
    read_bytes: requests.readBytes,
    written_bytes: requests.writtenBytes,
    timeout_count: requests.timeouts,
    stall_count: requests.stallCount,
    stalls: stalls.map(({ operation, at, micros, waited }) => ({
      operation,
      at: at.toISOString(),
      elapsed_ms: micros / 1000,
      waited,
    })),
    loop_delay: loopDelay.distribution,
    tree_cache: volumes.tree.cacheUse,
    chunk_cache: volumes.content.chunkCacheUse,
    log_bytes: volumes.logBytes,
    dirty_bytes: volumes.dirtyBytes,
    appended_bytes: volumes.log.appendedBytes,
    fsync: volumes.log.syncTimes.distribution,
    merge: volumes.mergeTimes.distribution,
    checkpoint: volumes.checkpointTimes.distribution,
    checkpoint_running: volumes.isCheckpointing,
    checkpoint_failures: volumes.failed.checkpoints,
    seal: volumes.sealed.times,
    sealed_bytes: volumes.sealed.bytes,
    collect: volumes.collectTimes.distribution,
    collect_phase: volumes.collectProgress.phase,
    collect_failures: volumes.failed.collections,
    freed_bytes: volumes.freedBytes,
    access_checks: fs.core.accessChecks,
    access_refusals: fs.core.accessRefusals,
    known_inodes: known.inodes,
    workspaces: registry.workspaceCount,
    snapshots: registry.snapshotCount,
    memory_bytes: process.memoryUsage.rss(),
    disk_bytes: bytes,
    disk_free_bytes: free,
  }
}
