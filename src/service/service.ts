/** The calls of the API, answered by the engine. */
import { monotonicFactory } from 'ulid'
import { type CallName, callNames, calls, type Service } from '../api/calls.ts'
import type { MetricsInfo } from '../api/metrics.ts'
import { SNAPSHOT_ID_PREFIX } from '../api/parameters.ts'
import { discardUnfinished } from '../snapshots/onboard.ts'
import { hauntUndone, refreshKernel } from '../snapshots/refresh.ts'
import type { Context } from '../workspaces/context.ts'
import { rightsChanged } from '../workspaces/rights.ts'
import { serviceFor } from './asuser.ts'
import { type Answering, handlers, measured } from './handlers.ts'
import type { ServiceOptions } from './options.ts'

/** All calls with the rights of root, and what only the daemon itself may do. */
export interface DaemonService extends Service {
  /** Call it before any request is served: what a process before this one has removed may be asked for. */
  prepare(): void
  /** Ends what a daemon before this one did not come to the end of. */
  recover(): Promise<void>
  /** The calls with a user's rights. */
  forUser(uid: number): Service
  /** What this process has measured so far. */
  measure(): MetricsInfo
}

export function daemonService(options: ServiceOptions): DaemonService {
  const { engine, kernel, toucher, lookForHolders, lookForWatches, handover, logger } = options
  /** A change that the kernel has to be told of: should this process end before it is, the next one tells it. */
  const changing = <T>(run: () => Promise<T>): Promise<T> => handover?.telling(run) ?? run()
  const aside = (run: () => Promise<void>, failure: string): void => {
    run().catch((error: unknown) => logger.error({ err: error }, failure))
  }
  const ulid = monotonicFactory()
  const context: Context = {
    inBackground: (what, run) => aside(() => changing(run), `${what} failed`),
    aside: (what, run) => aside(run, `${what} failed`),
    core: engine.fs.core,
    registry: engine.registry,
    access: engine.access,
    quotas: engine.quotas,
    kernel,
    toucher,
    lookForHolders,
    lookForWatches,
    now: () => new Date(),
    newId: () => SNAPSHOT_ID_PREFIX + ulid(),
  }
  const daemon: Answering = { ...options, context, startedAt: new Date() }
  // For changes that nobody waits for.
  engine.access.onChanged = (volumes, revoked) =>
    aside(
      () => changing(() => rightsChanged(context, volumes, revoked)),
      'the kernel was not told of changed rights; the daemon goes by them',
    )

  const service = answering(daemon, changing)
  return {
    ...service,
    prepare: () => {
      if (handover?.isKernelStale === true) hauntUndone(context)
    },
    recover: async () => {
      await changing(() => discardUnfinished(context))
      if (handover?.isKernelStale !== true) return
      refreshKernel(context).then(
        () => handover.kernelIsFresh(),
        (error: unknown) => logger.error({ err: error }, 'the kernel may show what is no longer so: unmount, and mount again'),
      )
    },
    forUser: (uid) => serviceFor(service, context, uid),
    measure: () => measured(daemon),
  }
}

/** Every call as a method that never throws, but rejects. */
function answering(daemon: Answering, changing: <T>(run: () => Promise<T>) => Promise<T>): Service {
  const method = (name: CallName) => {
    const handler = handlers[name] as (daemon: Answering, ...args: unknown[]) => unknown
    const answer = async (args: unknown[]): Promise<unknown> => await handler(daemon, ...args)
    if (calls[name].effect !== 'change') return (...args: unknown[]) => answer(args)
    return (...args: unknown[]) => changing(() => answer(args))
  }
  // The table of handlers has one for each call: its type demands it.
  return Object.fromEntries(callNames.map((name) => [name, method(name)])) as unknown as Service
}
