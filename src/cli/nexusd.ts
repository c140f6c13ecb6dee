/** The program `nexusd`: mount, unmount, status, fsck. */
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import type { StatusInfo } from '../api/store.ts'
import { shown } from '../api/text.ts'
import { connectControl } from '../client/client.ts'
import { reportToParent, startInBackground } from '../daemon/background.ts'
import { makeLogger, preparePlaces } from '../daemon/daemon.ts'
import { keepLogSmall } from '../daemon/logfile.ts'
import { abortAndUnmount, lookAt, type MountPlace, unmount } from '../daemon/mountpoint.ts'
import { serve } from '../daemon/serve.ts'
import { ABORT_AFTER_S, supervise } from '../daemon/supervisor.ts'
import { MEMORY_BYTES, MEMORY_BYTES_MIN } from '../engine/memory.ts'
import { fsckOffline } from '../engine/offline.ts'
import { NexusError, toExitStatus } from '../errors.ts'
import { REQUEST_LIMIT_S } from '../fuse/session.ts'
import { dataDirectory, hostSurroundings, socketPathOf } from '../host/location.ts'
import { filesystemType, type Mount } from '../host/mounts.ts'
import { packageVersion } from '../host/version.ts'
import { parseScrapeAddress } from '../server/scrape.ts'
import { SUBJECT_LIMITS, type SubjectLimits } from '../workspaces/subjectlimits.ts'
import { addCompletionCommand } from './commands/completion.ts'
import { describeFsck } from './commands/fsck.ts'
import { describeStatus } from './commands/status.ts'
import { parseSize } from './options.ts'
import { AnswerIsNo } from './session.ts'

interface MountFlags {
  data?: string
  background?: boolean
  singleUser?: boolean
  suid?: boolean
  dev?: boolean
  rebuildIndex?: boolean
  memory: number
  metrics?: string
  /** commander's name for --no-standby not given */
  standby?: boolean
  /** and for --no-halt-poll */
  haltPoll?: boolean
  requestTimeout?: string
  maxWorkspaces: number
  maxSnapshots: number
  abortAfter?: string
}

const STOP_MS_MAX = 60_000
/** Sooner would be an error where a disk is merely busy; a day is as good as for ever. */
const TIMEOUT_S_MIN = 1
const TIMEOUT_S_MAX = 86_400
/** A daemon that does not say who it is by then hangs. */
const ANSWER_MS_MAX = 3000
const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const

/** @returns the exit status; whatever there was to say has been said */
export async function runNexusd(words: readonly string[]): Promise<number> {
  try {
    await nexusdProgram(words).parseAsync(words, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof AnswerIsNo) return 1
    const message =
      error instanceof NexusError
        ? error.message
        : `unexpected failure: ${error instanceof Error ? (error.stack ?? error.message) : error}`
    const status = toExitStatus(error)
    reportToParent({ failed: message, status })
    process.stderr.write(`nexusd: ${message}\n`)
    return status
  }
}

/**
 * What `nexusd mount` would make of its words.
 * @throws CommanderError when they are none of its; it has said why
 */
export function readMountWords(words: readonly string[]): { mountpoint: string | undefined; data: string | undefined } {
  const mount = nexusdProgram(words).commands.find((command) => command.name() === 'mount')
  const [mountpoint] = mount?.parseOptions([...words]).operands ?? []
  return { mountpoint, data: mount?.opts<MountFlags>().data }
}

/**
 * The tree of commands; `--help`, completion and the man page are made from it.
 * @param words what the program was called with, for `mount --background` to call it again
 */
export function nexusdProgram(words: readonly string[]): Command {
  const nexusd = new Command('nexusd').exitOverride()
  nexusd.description('Serves the nexus filesystem.').version(packageVersion(), '--version', 'print the version')
  nexusd
    .command('mount')
    .description('mount the filesystem and serve it, in the foreground')
    .argument('<mountpoint>', 'a directory')
    .option('--data <DIR>', "where everything is kept (default: NEXUS_DATA, /var/lib/nexus for root, or the user's own)")
    .option('--background', 'return when the mount answers')
    .option('--single-user', 'only this user can reach the mount (always so without root)')
    .option('--suid', 'let set-user-id and set-group-id programs and file capabilities take effect (root only; default: no)')
    .option('--dev', 'let device files be used (root only; default: no)')
    .option('--rebuild-index', 'throw the index away and make it anew from the log, which takes a while')
    .addOption(memoryOption())
    .option('--metrics <ADDRESS:PORT>', 'serve GET /metrics for Prometheus there, such as 127.0.0.1:9469 (default: nowhere)')
    .option('--no-standby', 'keep no process that waits to take over: less memory, and a longer pause when nexusd dies')
    .option(
      '--no-halt-poll',
      'let idle processors of a virtual machine halt at once also while requests come: slower, and kinder to its host',
    )
    .option('--request-timeout <SECONDS>', `fsync that has waited so long for the disk gets EIO (default: ${REQUEST_LIMIT_S})`)
    .addOption(limitOption('workspaces', 'how many workspaces outside of tenants a user or agent may have'))
    .addOption(limitOption('snapshots', 'how many snapshots a user or agent may have taken'))
    .option(
      '--abort-after <SECONDS>',
      `abort the mount when no process can serve it for so long, so that nobody waits for ever (default: ${ABORT_AFTER_S})`,
    )
    .action((mountpoint: string, flags: MountFlags) =>
      flags.background === true ? background(mountpoint, flags, words) : foreground(mountpoint, flags),
    )
  nexusd
    .command('serve', { hidden: true })
    .description('what "mount" starts to serve for it')
    .argument('<mountpoint>')
    .requiredOption('--data <DIR>')
    .option('--single-user')
    .option('--suid')
    .option('--dev')
    .option('--rebuild-index')
    .addOption(memoryOption())
    .option('--metrics <ADDRESS:PORT>')
    .option('--no-halt-poll')
    .option('--request-timeout <SECONDS>')
    .addOption(limitOption('workspaces', ''))
    .addOption(limitOption('snapshots', ''))
    .action((mountpoint: string, flags: MountFlags & { data: string }) =>
      serve({
        mountpoint,
        data: flags.data,
        singleUser: flags.singleUser === true,
        suid: flags.suid === true,
        dev: flags.dev === true,
        rebuildIndex: flags.rebuildIndex === true,
        memory: flags.memory,
        metrics: flags.metrics,
        haltPoll: flags.haltPoll !== false,
        requestTimeout: parseSeconds('--request-timeout', flags.requestTimeout),
        subjectLimits: { workspaces: flags.maxWorkspaces, snapshots: flags.maxSnapshots },
      }),
    )
  nexusd
    .command('upgrade')
    .description('serve with the program that is installed now, without an unmount')
    .argument('<mountpoint>')
    .action(upgrade)
  nexusd
    .command('unmount')
    .description('store everything, unmount, and wait until the daemon has ended')
    .argument('<mountpoint>')
    .option('--force', 'abort the connection: what waits for an answer gets an error, also when no daemon answers any more')
    .action((mountpoint: string, { force }: { force?: boolean }) => (force === true ? stopByForce(mountpoint) : stop(mountpoint)))
  nexusd
    .command('status')
    .description('show the daemon of a data directory')
    .option('--data <DIR>', 'as for mount')
    .option('--json', 'print one JSON document')
    .action(status)
  nexusd
    .command('fsck')
    .description('check a store that is not mounted; exit status 1 when something is wrong')
    .option('--data <DIR>', 'as for mount')
    .option('--repair', 'mend what can be: link counts, counters, places; what has no name gets one in lost+found')
    .option('--rebuild-index', 'throw the index away first and make it anew from the log')
    .option('--json', 'print one JSON document')
    .action(fsck)
  addCompletionCommand(nexusd, (text) => process.stdout.write(text))
  return nexusd
}

/** @throws NexusError NEXUS_USAGE */
function parseSeconds(option: string, word: string | undefined): number | undefined {
  if (word === undefined) return undefined
  const seconds = /^[1-9]\d{0,4}$/.test(word) ? Number(word) : 0
  if (seconds >= TIMEOUT_S_MIN && seconds <= TIMEOUT_S_MAX) return seconds
  throw new NexusError(
    'NEXUS_USAGE',
    `${option} ${shown(word)} is not a whole number of seconds from ${TIMEOUT_S_MIN} to ${TIMEOUT_S_MAX}`,
  )
}

function memoryOption(): Option {
  const option = new Option('--memory <SIZE>', 'how much the serving process may have, 256MiB or more')
  return option.default(MEMORY_BYTES, '512MiB').argParser(parseMemory)
}

function limitOption(what: keyof SubjectLimits, description: string): Option {
  const usual = SUBJECT_LIMITS[what]
  return new Option(`--max-${what} <N>`, description).default(usual, String(usual)).argParser(parseCountOrNone)
}

/** @throws InvalidArgumentError */
function parseCountOrNone(text: string): number {
  if (text === 'none') return Number.POSITIVE_INFINITY
  if (/^[0-9]{1,7}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be a whole number from 0 to 9999999, or none.')
}

/** @throws InvalidArgumentError */
function parseMemory(text: string): number {
  const bytes = parseSize(text)
  if (bytes >= MEMORY_BYTES_MIN) return bytes
  throw new InvalidArgumentError('It must be at least 256MiB: with less there is no room for what is being written.')
}

async function foreground(wanted: string, flags: MountFlags): Promise<void> {
  // A word that is off is found before anything is touched.
  if (flags.metrics !== undefined) parseScrapeAddress(flags.metrics)
  const requestTimeout = parseSeconds('--request-timeout', flags.requestTimeout)
  const abortAfter = parseSeconds('--abort-after', flags.abortAfter) ?? ABORT_AFTER_S
  refuseEffects(flags)
  const { mountpoint, data } = await preparePlaces({ mountpoint: wanted, ...flags })
  const logger = makeLogger()
  const supervised = supervise({
    mountpoint,
    data,
    singleUser: flags.singleUser === true || process.getuid?.() !== 0,
    suid: flags.suid === true,
    dev: flags.dev === true,
    rebuildIndex: flags.rebuildIndex === true,
    memory: flags.memory,
    metrics: flags.metrics,
    requestTimeout,
    subjectLimits: { workspaces: flags.maxWorkspaces, snapshots: flags.maxSnapshots },
    script: process.argv[1] as string,
    standby: flags.standby !== false,
    abortAfterMs: abortAfter * 1000,
    haltPoll: flags.haltPoll !== false,
    logger,
  })
  for (const signal of STOP_SIGNALS) process.on(signal, () => supervised.stop(signal))
  process.on('SIGHUP', () => supervised.upgrade())
  await supervised.started
  keepLogSmall(data, logger)
  const line = `mounted ${mountpoint} (data in ${data}, pid ${process.pid})`
  process.stdout.write(`${line}\n`)
  reportToParent({ mounted: line })
  const why = await supervised.ended
  // Who started it may read no more.
  process.stdout.on('error', () => undefined)
  process.stdout.write(`unmounted ${mountpoint}: ${why}\n`)
}

/** fusermount3 mounts nosuid,nodev, whatever it is told. @throws NexusError NEXUS_DENIED */
function refuseEffects({ suid, dev }: MountFlags): void {
  if ((suid !== true && dev !== true) || process.getuid?.() === 0) return
  const word = suid === true ? '--suid' : '--dev'
  throw new NexusError('NEXUS_DENIED', `${word} is for root: mount without it, or as root`)
}

async function background(mountpoint: string, flags: MountFlags, words: readonly string[]): Promise<void> {
  if (flags.metrics !== undefined) parseScrapeAddress(flags.metrics)
  parseSeconds('--request-timeout', flags.requestTimeout)
  parseSeconds('--abort-after', flags.abortAfter)
  refuseEffects(flags)
  // Before there is a child: a log is not left where none belongs.
  const { data } = await preparePlaces({ mountpoint, ...flags })
  const report = await startInBackground(
    words.filter((word) => word !== '--background'),
    data,
  )
  if ('failed' in report) throw new NexusError(report.status === 2 ? 'NEXUS_USAGE' : 'NEXUS_NOT_RUNNING', report.failed)
  process.stdout.write(`${report.mounted}\n`)
}

async function stop(mountpoint: string): Promise<void> {
  const mount = mountAt(path.resolve(mountpoint))
  const pid = await shutDown(mount)
  // Nobody serves it any more: what is left is the mountpoint.
  if (pid === undefined) await unmount(mount.mountpoint, true)
  else await ended(pid)
}

/** Asks nobody: neither the daemon nor what is in the mount need answer. */
async function stopByForce(mountpoint: string): Promise<void> {
  const mount = mountAt(path.resolve(mountpoint))
  const { data } = mount
  const info = await connectControl({ socketPath: socketPathOf(data), timeoutMs: ANSWER_MS_MAX })
    .status()
    .catch(() => undefined)
  await abortAndUnmount(mount)
  if (info?.mountpoint === mount.mountpoint) await ended(info.supervisor_pid)
}

async function upgrade(mountpoint: string): Promise<void> {
  const { data } = mountAt(path.resolve(mountpoint))
  const before = await statusOf(data)
  process.kill(before.supervisor_pid, 'SIGHUP')
  const deadline = Date.now() + STOP_MS_MAX
  for (;;) {
    await sleep(20)
    const now = await statusOf(data).catch(notRunning)
    if (now !== undefined && now.pid !== before.pid) {
      process.stdout.write(`${now.mountpoint} is served by ${now.version} (pid ${now.pid}), before by ${before.version}\n`)
      return
    }
    if (Date.now() > deadline) {
      throw new NexusError('NEXUS_TIMEOUT', `nexusd did not change within ${STOP_MS_MAX / 1000} s: look at its log`)
    }
  }
}

/** Between one process and the next nobody answers. */
function notRunning(error: unknown): undefined {
  if (!(error instanceof NexusError) || error.code !== 'NEXUS_NOT_RUNNING') throw error
}

function statusOf(data: string): Promise<StatusInfo> {
  return connectControl({ socketPath: socketPathOf(data), timeoutMs: STOP_MS_MAX }).status()
}

function mountAt(absolute: string): Mount {
  let place: MountPlace | undefined
  try {
    place = lookAt(absolute)
  } catch {
    // Said below.
  }
  if (place?.mount?.type === filesystemType) return place.mount
  throw new NexusError('NEXUS_NOT_FOUND', `no nexus is mounted on ${absolute}: see "grep nexus /proc/mounts"`)
}

/** @returns the daemon's pid; undefined when none serves this mount, be it that another serves its data elsewhere */
async function shutDown({ mountpoint, data }: Mount): Promise<number | undefined> {
  const control = connectControl({ socketPath: socketPathOf(data), timeoutMs: STOP_MS_MAX })
  try {
    const info = await control.status()
    return info.mountpoint === mountpoint ? (await control.shutdown()).pid : undefined
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_NOT_RUNNING') return undefined
    throw error
  }
}

async function ended(pid: number): Promise<void> {
  const deadline = Date.now() + STOP_MS_MAX
  while (isRunning(pid)) {
    if (Date.now() > deadline)
      throw new NexusError(
        'NEXUS_TIMEOUT',
        `nexusd (pid ${pid}) is still writing after ${STOP_MS_MAX / 1000} s: wait, or look at its log`,
      )
    await sleep(20)
  }
}

/** False also for one that has ended and waits for its parent to notice. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

async function status(flags: { data?: string; json?: boolean }): Promise<void> {
  const data = dataDirectory(flags.data, hostSurroundings())
  const info: StatusInfo = await connectControl({ socketPath: socketPathOf(data) }).status()
  process.stdout.write(flags.json === true ? `${JSON.stringify(info)}\n` : `${describeStatus(info)}\n`)
}

interface FsckFlags {
  data?: string
  repair?: boolean
  rebuildIndex?: boolean
  json?: boolean
}

async function fsck({ data, repair = false, rebuildIndex = false, json }: FsckFlags): Promise<void> {
  const directory = dataDirectory(data, hostSurroundings())
  const info = await fsckOffline({ data: directory, repair, rebuildIndex, logger: makeLogger() })
  process.stdout.write(json === true ? `${JSON.stringify(info)}\n` : `${describeFsck(info)}\n`)
  if (!info.clean) throw new AnswerIsNo()
}
