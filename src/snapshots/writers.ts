/**
 * Processes that a restore would change files under: they hold them open for writing, or mapped from a descriptor that may
 * write. A database goes on with what it remembers of the state before, and ruins what was restored.
 *
 * Invariants:
 * - Before a restore changes anything, it is refused while there are such processes, unless the caller forces it.
 * - A user other than root learns of processes of their own uid alone, and how many others there are; no others are signalled
 *   for them.
 * - It is a warning: a process that cannot be looked into counts for nothing, and one may open a file after the look.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WriterInfo } from '../api/snapshots.ts'
import { NexusError, systemCode } from '../errors.ts'
import type { Holder } from '../vfs/holders.ts'
import { inoOfNode, volumeOf } from '../vfs/place.ts'
import { isRegular } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import { type Context, type Permit, targetNow, volumesOf } from '../workspaces/context.ts'
import { isInside } from '../workspaces/paths.ts'
import type { Goal } from './gone.ts'
import type { State } from './snapshots.ts'

export interface WritersOptions {
  /** restores whatever is open */
  force?: boolean
  /** ends those processes first */
  stop?: boolean
  permit?: Permit
  /** of the caller; root when not given */
  uid?: number
}

/** What is restored, and to what. */
export interface Restored {
  goal: Goal
  states: State
  /** the directory of the snapshot that is restored */
  source: number
}

/** One for each process. */
interface Writer {
  pid: number
  command: string
  files: number
  /** of its threads */
  uids: ReadonlySet<number>
}

const NAMED_MAX = 5
const STOP_MS_MAX = 10_000
const STOP_POLL_MS = 50
/** Inodes that are looked at for a file; where there are more directories than that, processes are looked at anyway. */
const KNOWN_MAX = 1000

/**
 * Resolves when nothing is in the way of a restore.
 * @throws NexusError NEXUS_BUSY naming the processes; of `stop` NEXUS_DENIED, NEXUS_TIMEOUT
 */
export async function demandNoWriters(context: Context, restored: Restored, options: WritersOptions): Promise<void> {
  const { path } = restored.goal
  const { force = false, stop = false, uid } = options
  if (force && stop) throw new NexusError('NEXUS_USAGE', 'force and stop exclude each other: give one of them')
  if (force) return
  const deadline = performance.now() + STOP_MS_MAX
  const signalled = new Set<number>()
  for (;;) {
    const writers = await writersIn(context, restored)
    if (writers.length === 0) return
    targetNow(context, restored.goal.target, options.permit)
    const own = ownOf(writers, uid)
    const others = writers.length - own.length
    if (!stop) throw new NexusError('NEXUS_BUSY', `${described(own, others, path)}: ${HINT}`)
    if (others > 0)
      throw new NexusError('NEXUS_DENIED', `${countOfOthers(others)} have files open for writing in ${path}: ask root`)
    for (const writer of own) {
      if (!signalled.has(writer.pid)) terminate(writer, uid, path)
      signalled.add(writer.pid)
    }
    if (performance.now() > deadline) {
      const text = `${described(own, 0, path)}, ${STOP_MS_MAX / 1000} s after SIGTERM: end them, or use --force; nothing was changed`
      throw new NexusError('NEXUS_TIMEOUT', text)
    }
    await sleep(STOP_POLL_MS)
  }
}

/** What a dry run tells of them. */
export async function reportWriters(
  context: Context,
  restored: Restored,
  { uid }: WritersOptions,
): Promise<{ writers: WriterInfo[]; writers_hidden: number }> {
  const all = await writersIn(context, restored)
  const own = ownOf(all, uid)
  return { writers: own.map(({ pid, command, files }) => ({ pid, command, files })), writers_hidden: all.length - own.length }
}

const HINT = 'stop them, or --force to restore under them, or --stop to end them first'

async function writersIn(context: Context, restored: Restored): Promise<Writer[]> {
  if (context.lookForHolders === undefined || !mayBeHeld(context, restored.goal)) return []
  const { holders } = await context.lookForHolders()
  const volumes = new Set(volumesOf(context, restored.goal.target))
  const byPid = new Map<number, Holder[]>()
  for (const holder of holders) {
    if (holder.pid === process.pid || !volumes.has(volumeOf(holder.node)) || !isRestored(context, restored, holder.node)) continue
    byPid.set(holder.pid, [...(byPid.get(holder.pid) ?? []), holder])
  }
  return [...byPid].map(([pid, held]) => ({
    pid,
    command: held[0]?.comm ?? '',
    files: new Set(held.map(({ node }) => node)).size,
    uids: new Set(held.map(({ uid }) => uid)),
  }))
}

/** Whether the kernel has a file at all of what is restored: who has one open holds it. */
function mayBeHeld(context: Context, { target }: Goal): boolean {
  const { core } = context
  let seen = 0
  for (const number of volumesOf(context, target)) {
    const volume = core.volumes.get(number)
    for (const ino of core.known.of(number)) {
      const attr = volume?.attr(ino)
      if (++seen > KNOWN_MAX || (attr !== undefined && isRegular(attr))) return true
    }
  }
  return false
}

function isRestored({ core }: Context, { goal, states, source }: Restored, node: number): boolean {
  const { place } = goal.target
  const [number, ino] = [volumeOf(node), inoOfNode(node)]
  const volume = core.volumes.get(number)
  const attr = volume?.attr(ino)
  if (volume === undefined || attr === undefined || !isRegular(attr)) return false
  const isOuter = number === place.volume.number
  if (attr.nlink === 0) {
    // It has no name any more, and a restore leaves it alone unless the snapshot has it.
    const then = states.get(number)
    return then?.attr(ino) !== undefined && (!isOuter || isInside(then, ino, source))
  }
  if (goal.missing.length > 0) return false
  // Of a file with several names one is recorded; another may be inside.
  return !isOuter || place.ino === ROOT_INO || attr.nlink > 1 || isInside(volume, ino, place.ino)
}

/** A process counts as of a uid when all its threads that hold files are. */
function ownOf(writers: readonly Writer[], uid: number | undefined): Writer[] {
  if (uid === undefined) return [...writers]
  return writers.filter(({ uids }) => uids.size === 1 && uids.has(uid))
}

function described(own: readonly Writer[], others: number, path: string): string {
  const named = own.slice(0, NAMED_MAX).map(({ command, pid }) => `${command.replaceAll(/\p{C}/gu, '?')} (${pid})`)
  const more = own.length - named.length
  const all = [...named, ...(more > 0 ? [`${more} more`] : []), ...(others > 0 ? [countOfOthers(others)] : [])]
  return `files in ${path} are open for writing in ${all.join(', ')}`
}

function countOfOthers(count: number): string {
  return count === 1 ? '1 process of another user' : `${count} processes of other users`
}

/** @throws NexusError NEXUS_DENIED when it is not the caller's, or this daemon may not */
function terminate({ pid, command }: Writer, uid: number | undefined, path: string): void {
  // Of another pid namespace the numbers mean other processes.
  if (readlinkSync('/proc/self') !== String(process.pid)) {
    throw new NexusError(
      'NEXUS_UNSUPPORTED',
      `processes of another pid namespace cannot be ended: end them by hand, or use --force`,
    )
  }
  const status = statusOf(pid)
  // Ended meanwhile; the number may be another process' by now.
  if (status === undefined || status.command !== command) return
  if (uid !== undefined && status.uids.some((one) => one !== uid)) {
    throw new NexusError('NEXUS_DENIED', `${countOfOthers(1)} has files open for writing in ${path}: ask root`)
  }
  try {
    process.kill(pid, 'SIGTERM')
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return
    if (systemCode(error) !== 'EPERM') throw error
    throw new NexusError(
      'NEXUS_DENIED',
      `nexusd may not end ${described([{ pid, command, files: 1, uids: new Set() }], 0, path)}`,
    )
  }
}

/** The real, effective, saved and filesystem uid: who may signal a process is judged by all. */
function statusOf(pid: number): { command: string; uids: number[] } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8')
    const uids = /^Uid:\s*(.*)$/m.exec(text)?.[1]?.split(/\s+/).map(Number) ?? []
    return { command: /^Name:\s*(.*)$/m.exec(text)?.[1] ?? '', uids }
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ESRCH') return undefined
    throw error
  }
}
