/** What the service is given by the process that it runs in. */
import type { Engine } from '../engine/engine.ts'
import type { FuseSession } from '../fuse/session.ts'
import type { Logger } from '../logger.ts'
import type { FileToucher, KernelCaches } from '../vfs/filesystem.ts'
import type { LookForHolders } from '../vfs/holders.ts'
import type { LookForWatches } from '../vfs/watches.ts'
import type { LoopDelay } from './measure.ts'

/** How often another process took the mount over, and when it last did. */
export interface Takeovers {
  readonly takeovers: { count: number; last: Date[] }
}

/** What a process leaves for the one that may take the mount over. */
export interface HandoverNotes extends Takeovers {
  /** true when a process before this one ended before it had told the kernel of a change */
  readonly isKernelStale: boolean
  /** the kernel has dropped everything */
  kernelIsFresh(): void
  /** runs what changes something behind the kernel's back and then tells it */
  telling<T>(run: () => Promise<T>): Promise<T>
}

export interface ServiceOptions {
  engine: Engine
  logger: Logger
  kernel: KernelCaches
  /** there is none without a mount */
  toucher?: FileToucher
  /** there is none without a mount */
  lookForHolders?: LookForHolders | undefined
  /** there is none without a mount */
  lookForWatches?: LookForWatches | undefined
  session: Pick<FuseSession, 'protocol' | 'counts'> & Partial<Pick<FuseSession, 'metrics'>>
  mountpoint: string
  data: string
  singleUser: boolean
  /** where a next process finds what this one has not come to; there is none without a mount */
  handover?: HandoverNotes
  /** the process that keeps the mount, and ends last; this one when not given */
  supervisor?: number
  loopDelay?: LoopDelay
  /** begins to unmount and end */
  stop(): void
}
