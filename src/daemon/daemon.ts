/** What serves a mount: the engine, the kernel's requests, and the control socket, until the unmount or the next process. */
import fs from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { Engine, type EngineOptions } from '../engine/engine.ts'
import { NexusError, systemCode } from '../errors.ts'
import { Channel, Notifier, WallAlarm } from '../fuse/binding.ts'
import { RequestClock } from '../fuse/clock.ts'
import { canResend } from '../fuse/init.ts'
import { KernelNotifier, type PrivateListingPages } from '../fuse/notify.ts'
import type { PrivateListings } from '../fuse/private-listings.ts'
import { FuseSession, type MountEnd, REQUEST_LIMIT_S } from '../fuse/session.ts'
import { Toucher } from '../fuse/toucher.ts'
import { dataDirectory, hostSurroundings, socketPathOf } from '../host/location.ts'
import { allMounts } from '../host/mounts.ts'
import { type Logger, limited } from '../logger.ts'
import { parseScrapeAddress, Scrape } from '../server/scrape.ts'
import { serveControl } from '../server/server.ts'
import { LoopDelay } from '../service/measure.ts'
import { daemonService } from '../service/service.ts'
import type { Core } from '../vfs/core.ts'
import { DirectWrites } from '../vfs/direct.ts'
import type { Time } from '../vfs/filesystem.ts'
import { KnownNodes } from '../vfs/known.ts'
import { volumeOf } from '../vfs/place.ts'
import { isDirectory } from '../volume/attr.ts'
import type { SubjectLimits } from '../workspaces/subjectlimits.ts'
import { serveUsers } from './everybody.ts'
import { HaltPolling } from './haltpoll.ts'
import type { Handover } from './handover.ts'
import { HolderSearch } from './holders.ts'
import { prepareMountpoint, setReadAhead, unmount } from './mountpoint.ts'
import { WriteBack } from './write-back.ts'

export interface DaemonOptions {
  /** real path */
  mountpoint: string
  data: string
  singleUser: boolean
  /** whether the mount lets set-id bits and file capabilities take effect, and device files be used */
  suid: boolean
  dev: boolean
  rebuildIndex: boolean
  /** bytes that this process may have (memory.ts) */
  memory: number
  logger: Logger
  handover: Handover
  /** the process to signal when the whole has to end */
  supervisor: number
  /** where to serve GET /metrics; nowhere when not given */
  metrics?: string | undefined
  /** how many seconds a request may wait for its answer before it gets EIO; the session's own limit when not given */
  requestTimeout?: number | undefined
  /** whether virtual processors may be kept from halting while requests come (haltpoll.ts) */
  haltPoll: boolean
  /** how much each subject may have; the usual limits when not given */
  subjectLimits?: SubjectLimits | undefined
  /** called when the store is open: gives the descriptor of the mount, which is made now unless it is there already */
  mount(): Promise<number>
}

/** A daemon that serves. */
export interface Daemon {
  /** why it ended, when everything is stored; `replaced` with the mount as it was */
  ended: Promise<Why>
  /** whether this kernel lets another process go on when this one dies */
  canBeReplaced: boolean
  /** Begins to unmount and end. Quiet when repeated. */
  stop(): void
  /** Begins to end, for another process to go on. Quiet when repeated. */
  handOver(): void
}

/** The kernel asks for INIT as soon as it has mounted: longer than this means that nobody is there. */
const READY_MS_MAX = 10_000
const WRITE_BACK_MS_MAX = 10_000
const BUSY_MS_MAX = 1000
const BUSY_POLL_MS = 20
/** Lines that could not be written are kept up to this, then dropped. */
const LOG_BACKLOG_BYTES_MAX = 64 * 1024

/**
 * Looks whether a mountpoint and a data directory can be used, and clears a dead mount.
 * @throws NexusError with what to do
 */
export async function preparePlaces(options: {
  mountpoint: string
  data?: string
}): Promise<{ mountpoint: string; data: string }> {
  const data = dataDirectory(options.data, hostSurroundings())
  const mountpoint = await prepareMountpoint(options.mountpoint)
  refuseDataInside(mountpoint, data)
  return { mountpoint, data }
}

/**
 * Opens the store and serves: a new mount, or one whose process died.
 * @throws NexusError with what to do
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { mountpoint, data, singleUser, suid, dev, rebuildIndex, memory, subjectLimits, logger, handover, supervisor } = options
  const clock = new RequestClock()
  const known = new KnownNodes(handover.slabs, handover.generation)
  const now = (): Time => clock.now()
  const alarm = (ring: () => void): WallAlarm => new WallAlarm(ring)
  const how = { singleUser, suid, dev, rebuildIndex, memory, known, subjectLimits }
  const engine = await openEngine({ data, logger, now, alarm, ...how })
  handover.logIsRead(engine.recovered, () => engine.volumes.log.sequence)
  const terms = handover.negotiated
  if (terms !== undefined) handover.noteTakeover()

  let end: (why: Why) => void = () => undefined
  const why = new Promise<Why>((resolve) => {
    end = resolve
  })
  let channel: Channel | undefined
  const notifiers: { stop(): void }[] = []
  let polling: HaltPolling | undefined
  const controls: { close(): Promise<void> }[] = []
  const loopDelay = new LoopDelay()
  try {
    const scrape = options.metrics === undefined ? undefined : new Scrape(parseScrapeAddress(options.metrics))
    if (scrape !== undefined) {
      controls.push(scrape)
      // A port that cannot be had ends a start, but not a mount that is used.
      await (terms === undefined ? scrape.listen() : scrape.listenSometime(logger))
    }
    const opened = new Channel(await options.mount())
    channel = opened
    const writer = new Notifier(opened)
    notifiers.push(writer)
    const kernel = new KernelNotifier({
      newSender: () => new Notifier(opened),
      isDirectory: (node) => isDirectoryIn(engine.fs.core, node),
      canDropNames: () => session.dropsNames,
      writeBack: (volumes) => writeBack.of(volumes),
      logger,
    })
    notifiers.push(kernel)
    engine.fs.core.mapped.serve(kernel.pages)
    const toucher = new Toucher({ newSender: () => new Notifier(opened), mountpoint, threads: engine.fs.core.touchers, logger })
    notifiers.push(toucher)
    const device = allMounts().findLast((entry) => entry.mountpoint === mountpoint)?.device
    const search = device === undefined ? undefined : new HolderSearch({ device, logger })
    if (search !== undefined) notifiers.push(search)
    const look = search && (() => search.look())
    polling = options.haltPoll ? HaltPolling.open(logger) : undefined
    const session: FuseSession = new FuseSession({
      channel: opened,
      fs: engine.fs,
      logger,
      clock,
      onUnmounted: (how) => end(how),
      privateListings: singleUser ? undefined : listingsOutsideWorkspaces(kernel.privateListings),
      hold: () => engine.opening,
      takeover: terms,
      requestLimitMs: (options.requestTimeout ?? REQUEST_LIMIT_S) * 1000,
      mark: handover,
      direct: new DirectWrites(known, kernel.pages),
      onServed: polling?.note.bind(polling),
      onAccept: (agreed) => handover.accept(agreed),
    })
    const writeBack = new WriteBack({ session, writer, mountpoint, core: engine.fs.core })
    const stop = (by: 'command' | 'signal'): void => end(by)
    const service = daemonService({
      engine,
      logger,
      kernel,
      toucher,
      lookForHolders: look,
      lookForWatches: search && (() => search.watches()),
      session,
      handover,
      mountpoint,
      data,
      singleUser,
      supervisor,
      loopDelay,
      stop: () => stop('command'),
    })
    service.prepare()
    // Before anything else is read: it sends everything again that is not answered.
    if (terms !== undefined) await kernel.resend()
    const { gates, crowds, tainted } = engine.fs.core
    crowds.serve(kernel, logger, terms !== undefined)
    if (!singleUser && look !== undefined) tainted.serve({ kernel, look, logger })
    if (terms !== undefined && !singleUser && session.expiresNames) gates.takeOver(kernel, logger)
    session.start()
    await withTimeout(session.ready, READY_MS_MAX, 'the kernel did not answer the mount')
    if (terms === undefined) {
      setReadAhead(mountpoint)
      await endOpens(session, mountpoint, logger)
    }
    if (terms === undefined && !singleUser && session.expiresNames) await gates.serve(kernel, logger)
    await gates.takenOver
    engine.start()
    loopDelay.start()
    scrape?.serve(() => service.measure())
    await service.recover()
    controls.push(await serveControl(service, { socketPath: socketPathOf(data), logger }))
    const users = singleUser ? undefined : await serveUsers({ data, logger, serviceFor: (uid) => service.forUser(uid) })
    if (users !== undefined) controls.push(users)
    const running = { why, writeBack, logger, session, channel: opened, notifiers, polling, controls, engine, mountpoint }
    return {
      ended: finish(running),
      canBeReplaced: session.negotiated !== undefined && canResend(session.negotiated),
      stop: () => stop('signal'),
      handOver: () => void handOver(engine, logger, () => end('replaced')),
    }
  } catch (error) {
    await closeAll(controls)
    for (const notifier of notifiers) notifier.stop()
    polling?.close()
    channel?.close()
    await engine.close()
    throw error
  }
}

/** Outside of workspaces, directories list for each caller the workspaces that they may see. */
function listingsOutsideWorkspaces(pages: PrivateListingPages): PrivateListings {
  return { has: (node) => volumeOf(node) === 0, drop: (node) => pages.dropListing(node) }
}

/** True also of what is not there any more: the kernel may have known it as one. */
function isDirectoryIn(core: Core, node: number): boolean {
  try {
    return isDirectory(core.place(node).attr)
  } catch {
    return true
  }
}

/** Only saves requests, so a mount that something keeps from it is as good. */
async function endOpens(session: FuseSession, mountpoint: string, logger: Logger): Promise<void> {
  const open = session.endOpens(async (name) => (await openFile(path.join(mountpoint, name), 'r')).close())
  await withTimeout(open, READY_MS_MAX, 'the kernel did not open a file').catch((err: unknown) => {
    logger.warn({ err }, 'the kernel will tell of each file that is opened until one that existed is')
  })
}

/** The process before this one may take a moment to be gone, after it was killed. */
async function openEngine(options: EngineOptions): Promise<Engine> {
  for (const deadline = Date.now() + BUSY_MS_MAX; ; ) {
    try {
      return await Engine.open(options)
    } catch (error) {
      const isBusy = error instanceof NexusError && error.code === 'NEXUS_BUSY'
      if (!isBusy || Date.now() > deadline) throw error
      await sleep(BUSY_POLL_MS)
    }
  }
}

/** Everything that takes time is done while requests are still answered. */
async function handOver(engine: Engine, logger: Logger, then: () => void): Promise<void> {
  try {
    await engine.volumes.checkpoint()
  } catch (error) {
    logger.warn({ err: error }, 'no checkpoint before the next process takes over: it reads more of the log')
  }
  then()
}

/** `command` is `nexusd unmount`, `signal` one that the supervisor was sent; the others are of the mount itself. */
export type Why = 'command' | 'signal' | MountEnd | 'replaced'

interface Running {
  why: Promise<Why>
  writeBack: WriteBack
  logger: Logger
  session: FuseSession
  channel: Channel
  notifiers: readonly { stop(): void }[]
  polling: HaltPolling | undefined
  controls: readonly { close(): Promise<void> }[]
  engine: Engine
  mountpoint: string
}

async function finish(running: Running): Promise<Why> {
  const { session, channel, notifiers, polling, controls, engine, logger, mountpoint } = running
  const why = await running.why
  if (why === 'command' || why === 'signal') await detach(running)
  if (why === 'aborted') {
    logger.error(
      {},
      `the connection of ${mountpoint} was aborted, by nexusd unmount --force or in /sys/fs/fuse/connections: what waited for an answer got ECONNABORTED, and everything acknowledged is stored`,
    )
  }
  await closeAll(controls)
  engine.fs.core.tainted.stop()
  session.stop()
  polling?.close()
  for (const notifier of notifiers) notifier.stop()
  // The next process has no state from before a restore.
  if (why === 'replaced') for (const _ of engine.fs.core.layGhosts());
  await engine.close()
  channel.close()
  return why
}

async function closeAll(controls: readonly { close(): Promise<void> }[]): Promise<void> {
  await Promise.all(controls.map((control) => control.close()))
}

/**
 * Served until the end: the kernel writes back what mappings dirtied before it lets go. What is in
 * use is detached, so that the path is free and no new user comes.
 */
async function detach({ writeBack, logger, engine, mountpoint }: Running): Promise<void> {
  await engine.volumes.sync().catch(() => undefined)
  try {
    await unmount(mountpoint, false)
  } catch {
    // Detaching waits for nothing.
    await withTimeout(writeBack.all(), WRITE_BACK_MS_MAX, 'the kernel did not write back').catch(() => undefined)
    await unmount(mountpoint, true).catch((error: unknown) =>
      logger.warn({ err: error }, `${mountpoint} could not be unmounted: umount -l it`),
    )
  }
}

/** A log whose reader is gone, or whose disk is full, is no reason to end. */
export function makeLogger(): Logger {
  const destination = pino.destination({ dest: 2, sync: true, maxLength: LOG_BACKLOG_BYTES_MAX })
  destination.on('error', () => undefined)
  const level = process.env['NEXUS_LOG'] ?? 'warn'
  if (level !== 'silent' && !Object.hasOwn(pino.levels.values, level)) {
    const levels = Object.keys(pino.levels.values).join(', ')
    throw new NexusError('NEXUS_USAGE', `NEXUS_LOG=${level} is no level of logging: use one of ${levels}, silent`)
  }
  return limited(pino({ level, base: null }, destination))
}

/** The store would be served by the daemon that needs it to serve. */
function refuseDataInside(mountpoint: string, data: string): void {
  const real = realPathOf(data)
  if (real !== mountpoint && !real.startsWith(mountpoint === '/' ? mountpoint : `${mountpoint}/`)) return
  throw new NexusError('NEXUS_USAGE', `${data} is inside of the mountpoint ${mountpoint}: name another directory with --data`)
}

/** Of a path that need not exist. */
function realPathOf(file: string): string {
  try {
    return fs.realpathSync(file)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') return file
    return path.join(realPathOf(path.dirname(file)), path.basename(file))
  }
}

async function withTimeout<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new NexusError('NEXUS_TIMEOUT', `${what} within ${ms / 1000} s: try again`)), ms)
  })
  try {
    return await Promise.race([promise, timeout])
  } finally {
    clearTimeout(timer)
  }
}
