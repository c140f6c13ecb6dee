/** The daemon: the engine, the kernel's requests, and the control socket, from mount to unmount. */
import fs from 'node:fs'
import path from 'node:path'
import { pino } from 'pino'
import { dataDirectory, hostSurroundings, socketPathOf } from '../control/location.ts'
import { type ControlServer, serveControl } from '../control/server.ts'
import { NexusError, systemCode } from '../errors.ts'
import { Channel, Notifier, syncfs } from '../fuse/binding.ts'
import { RequestClock } from '../fuse/clock.ts'
import { KernelNotifier } from '../fuse/notify.ts'
import { Session } from '../fuse/session.ts'
import type { Logger } from '../logger.ts'
import { volumeOf } from '../vfs/core.ts'
import { Engine } from './engine.ts'
import { mountFilesystem, prepareMountpoint, setReadAhead, unmount } from './mountpoint.ts'
import { DaemonService } from './service.ts'

export interface DaemonOptions {
  mountpoint: string
  data?: string
  singleUser?: boolean
  rebuildIndex?: boolean
  /** called right before mounting with what begins to unmount and end, which is quiet when repeated */
  onStoppable?: (stop: () => void) => void
}

/** A daemon that serves; `ended` resolves when it has unmounted and stored everything. */
export interface Daemon {
  mountpoint: string
  data: string
  ended: Promise<void>
}

/** The kernel asks for INIT as soon as it has mounted: longer than this means that nobody is there. */
const READY_MS_MAX = 10_000
const WRITE_BACK_MS_MAX = 10_000
/** Lines that could not be written are kept up to this, then dropped. */
const LOG_BACKLOG_BYTES_MAX = 64 * 1024

/**
 * Looks whether a mountpoint and a data directory can be used, and clears a dead mount.
 * @throws NexusError with what to do
 */
export async function preparePlaces(
  options: Pick<DaemonOptions, 'mountpoint' | 'data'>,
): Promise<{ mountpoint: string; data: string }> {
  const data = dataDirectory(options.data, hostSurroundings())
  const mountpoint = await prepareMountpoint(options.mountpoint)
  refuseDataInside(mountpoint, data)
  return { mountpoint, data }
}

/**
 * Opens the store, mounts, and serves.
 * @throws NexusError with what to do; then nothing is mounted and nothing was changed
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const logger = makeLogger()
  const { mountpoint, data } = await preparePlaces(options)
  const singleUser = options.singleUser === true || process.getuid?.() !== 0
  const clock = new RequestClock()
  const rebuildIndex = options.rebuildIndex === true
  const engine = await Engine.open({ data, logger, now: () => clock.now(), singleUser, rebuildIndex })

  let stop: () => void = () => undefined
  const stopped = new Promise<'asked'>((resolve) => {
    stop = () => resolve('asked')
  })
  let onUnmounted: () => void = () => undefined
  const unmounted = new Promise<'unmounted'>((resolve) => {
    onUnmounted = () => resolve('unmounted')
  })

  let channel: Channel | undefined
  let notifier: Notifier | undefined
  let control: ControlServer | undefined
  try {
    options.onStoppable?.(stop)
    const fd = mountFilesystem(mountpoint, { data, singleUser })
    channel = new Channel(fd)
    notifier = new Notifier(channel)
    // Outside of workspaces, directories list for each caller the workspaces that he may see.
    const listingDependsOnCaller = singleUser ? undefined : (node: number): boolean => volumeOf(node) === 0
    const session = new Session({ channel, fs: engine.fs, logger, clock, onUnmounted, listingDependsOnCaller })
    const writeBack = async (): Promise<void> => {
      await syncfs(mountpoint)
      await session.drained()
    }
    const kernel = new KernelNotifier({ notifier, writeBack, logger })
    session.start()
    await withTimeout(session.ready, READY_MS_MAX, 'the kernel did not answer the mount')
    setReadAhead(mountpoint)
    engine.start()
    const service = new DaemonService({ engine, logger, kernel, session, mountpoint, data, singleUser, stop })
    await service.recover()
    control = await serveControl(service, { socketPath: socketPathOf(data), logger })
    const ended = finish({ stopped, unmounted, writeBack, logger, session, channel, notifier, control, engine, mountpoint })
    return { mountpoint, data, ended }
  } catch (error) {
    if (channel !== undefined) await unmount(mountpoint, true).catch(() => undefined)
    await control?.close()
    notifier?.stop()
    channel?.close()
    await engine.close()
    throw error
  }
}

interface Running {
  stopped: Promise<'asked'>
  unmounted: Promise<'unmounted'>
  writeBack: () => Promise<void>
  logger: Logger
  session: Session
  channel: Channel
  notifier: Notifier
  control: ControlServer
  engine: Engine
  mountpoint: string
}

async function finish(running: Running): Promise<void> {
  const { session, channel, notifier, control, engine } = running
  const why = await Promise.race([running.stopped, running.unmounted])
  if (why === 'asked') await detach(running)
  await control.close()
  session.stop()
  notifier.stop()
  await engine.close()
  channel.close()
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
    await withTimeout(writeBack(), WRITE_BACK_MS_MAX, 'the kernel did not write back').catch(() => undefined)
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
  return pino({ level, base: null }, destination)
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
