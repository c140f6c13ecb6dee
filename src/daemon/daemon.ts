/** The daemon: the engine, the kernel's requests, and the control socket, from mount to unmount. */
import { pino } from 'pino'
import { dataDirectory, hostSurroundings, socketPathOf } from '../control/location.ts'
import { type ControlServer, serveControl } from '../control/server.ts'
import { NexusError } from '../errors.ts'
import { Channel, Notifier, syncfs } from '../fuse/binding.ts'
import { RequestClock } from '../fuse/clock.ts'
import { KernelNotifier } from '../fuse/notify.ts'
import { Session } from '../fuse/session.ts'
import { Engine } from './engine.ts'
import { mountFilesystem, prepareMountpoint, unmount } from './mountpoint.ts'
import { DaemonService } from './service.ts'

export interface DaemonOptions {
  mountpoint: string
  data?: string
  singleUser?: boolean
  rebuildIndex?: boolean
}

/** A daemon that serves; `ended` resolves when it has unmounted and stored everything. */
export interface Daemon {
  mountpoint: string
  data: string
  ended: Promise<void>
  /** flush, unmount, end; quiet when repeated */
  stop(): void
}

/** The kernel asks for INIT as soon as it has mounted: longer than this means that nobody is there. */
const READY_MS_MAX = 10_000

/**
 * Opens the store, mounts, and serves.
 * @throws NexusError with what to do; then nothing is mounted and nothing was changed
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const logger = pino({ level: process.env['NEXUS_LOG'] ?? 'warn', base: null }, pino.destination({ dest: 2, sync: true }))
  const data = dataDirectory(options.data, hostSurroundings())
  const mountpoint = await prepareMountpoint(options.mountpoint)
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
    const fd = mountFilesystem(mountpoint, { data, singleUser })
    channel = new Channel(fd)
    notifier = new Notifier(channel)
    const session = new Session({ channel, fs: engine.fs, logger, clock, onUnmounted })
    const writeBack = async (): Promise<void> => {
      await syncfs(mountpoint)
      await session.drained()
    }
    const kernel = new KernelNotifier({ notifier, writeBack, logger })
    session.start()
    await withTimeout(session.ready, READY_MS_MAX, 'the kernel did not answer the mount')
    engine.start()
    const service = new DaemonService({ engine, kernel, session, mountpoint, data, singleUser, stop })
    control = await serveControl(service, { socketPath: socketPathOf(data), logger })
    const ended = finish({ stopped, unmounted, session, channel, notifier, control, engine, mountpoint })
    return { mountpoint, data, ended, stop }
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
  session: Session
  channel: Channel
  notifier: Notifier
  control: ControlServer
  engine: Engine
  mountpoint: string
}

async function finish(running: Running): Promise<void> {
  const { session, channel, notifier, control, engine, mountpoint } = running
  const why = await Promise.race([running.stopped, running.unmounted])
  if (why === 'asked') {
    await engine.volumes.sync().catch(() => undefined)
    // Served until the end: the kernel writes back what mappings dirtied before it lets go. What is
    // in use is detached, so that the path is free and no new user comes.
    await unmount(mountpoint, false).catch(() => unmount(mountpoint, true))
  }
  await control.close()
  session.stop()
  notifier.stop()
  await engine.close()
  channel.close()
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
