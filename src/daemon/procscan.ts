/**
 * Finds in /proc the processes that hold files of one filesystem for writing. Nothing here opens, stats or follows a path into that
 * filesystem: the process that serves it waits for the answer.
 *
 * The kernel's facts:
 * - a thread may have a table of descriptors of its own (CLONE_FILES), so the descriptors of each thread are looked at,
 *   unless kcmp(2) says that it is the table of the one before; memory is the same for all threads of a process
 * - `ino` of fdinfo is the inode's own number, which for FUSE is the node id; `mnt_id` leads to the device by mountinfo.
 *   A mount that was detached, or is in no process' namespace, is in no mountinfo
 * - a shared mapping of a descriptor that may write can be made writable later (mprotect(2)) with no further check, so the
 *   mode of the file counts and not the mapping's: map_files shows it in its own permission bits (fs/proc/base.c)
 * - reading `maps` waits for the lock of that memory, which a page fault can hold as long as another filesystem likes
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { systemCode } from '../errors.ts'
import type { Holder, Process } from '../vfs/holders.ts'

/** PROC_PID_INIT_INO of linux/proc_ns.h: the namespace from which all processes can be seen. */
const ALL_PIDS = 'pid:[4026531836]'
/** asm-generic/fcntl.h, in octal as fdinfo has it */
const O_ACCMODE = 0o3
const O_PATH = 0o10000000
/** Numbers of inodes in workspaces begin here: what is below is never guarded. */
const NODES_MIN = 2 ** 32
/** Processes that began meanwhile are looked at too, so often. */
const ROUNDS_MAX = 5

export interface ScanResult {
  process: Process
  holders: Holder[]
  isReadable: boolean
}

export interface ProcScanOptions {
  /** of the filesystem, as `major:minor` in mountinfo */
  device: string
  /** processes that are not to be looked into, and users none of whose processes are */
  skip: { pids: ReadonlySet<number>; uids: ReadonlySet<number> }
  sharesDescriptors: (a: number, b: number) => boolean
  /** called before what may wait for long */
  onLook: (process: Process) => void
  onFound: (found: ScanResult) => void
}

/** Whether all processes of the machine can be seen from here. */
export function seesAll(): boolean {
  try {
    // The second: /proc may be that of another namespace.
    return readlinkSync('/proc/self/ns/pid') === ALL_PIDS && readlinkSync('/proc/self') === String(process.pid)
  } catch {
    return false
  }
}

/**
 * Finds what processes watch, and files with leases. A descriptor of inotify(7) or fanotify(7) has a line for each watch in its
 * fdinfo, with the inode's number and its device (fs/notify/fdinfo.c); a file on a mount or a whole filesystem has one without.
 * Tables of descriptors that a thread has for itself are not looked into, nor are processes that may not be.
 */
export function scanWatches(device: string): { nodes: number[]; leased: number[]; isComplete: boolean } {
  const [major = 0, minor = 0] = device.split(':').map(Number)
  // MKDEV of linux/kdev_t.h
  const here = (major * 2 ** 20 + minor).toString(16)
  const nodes = new Set<number>()
  let isComplete = seesAll()
  for (const pid of numbersIn('/proc')) {
    for (const text of fdinfosOf(pid)) {
      if (!text.includes('notify ')) continue
      for (const [, node] of text.matchAll(new RegExp(`^[if]a?notify .*?ino:([0-9a-f]+) sdev:${here} `, 'gm'))) {
        nodes.add(Number.parseInt(node ?? '', 16))
      }
      if (/^fanotify (mnt_id|sdev):/m.test(text)) isComplete = false
    }
  }
  return { nodes: [...nodes], leased: leasedFiles(major, minor), isComplete }
}

function* fdinfosOf(pid: number): Generator<string> {
  const directory = `/proc/${pid}/fdinfo`
  for (const fd of readable(() => readdirSync(directory)) ?? []) {
    // Links of other kinds are longer to read than to leave out: `anon_inode:inotify`, `anon_inode:[fanotify]`.
    const link = readable(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? ''
    if (link.includes('notify')) yield readable(() => readFileSync(`${directory}/${fd}`, 'utf8')) ?? ''
  }
}

/** From lines like `1: LEASE  ACTIVE    READ 4711 fe:00:1234 0 EOF` (proc_locks(5)). */
function leasedFiles(major: number, minor: number): number[] {
  const device = [major, minor].map((part) => part.toString(16).padStart(2, '0')).join(':')
  const text = readable(() => readFileSync('/proc/locks', 'utf8')) ?? ''
  const pattern = new RegExp(`^\\d+: (?:LEASE|DELEG) .* ${device}:(\\d+) `, 'gm')
  return [...text.matchAll(pattern)].map(([, node]) => Number(node))
}

/** undefined when it is not there any more, or not for us. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (systemCode(error) === undefined) throw error
    return undefined
  }
}

/** Looks at every process once. */
export function scanProcesses(options: ProcScanOptions): void {
  const scan = new ProcScan(options)
  // The process that serves has files open for a moment, to tell programs that watch them.
  const seen = new Set<number>([process.pid, process.ppid, ...options.skip.pids])
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const pids = numbersIn('/proc').filter((pid) => !seen.has(pid))
    if (pids.length === 0) return
    for (const pid of pids) {
      seen.add(pid)
      scan.look(pid)
    }
  }
}

class ProcScan {
  readonly #options: ProcScanOptions
  /** mnt_id to device, of all namespaces that were seen */
  readonly #devices = new Map<string, string>()
  readonly #namespaces = new Set<string>()
  /** as maps writes it */
  readonly #hexDevice: string

  constructor(options: ProcScanOptions) {
    this.#options = options
    const [major = 0, minor = 0] = options.device.split(':').map(Number)
    this.#hexDevice = [major, minor].map((part) => part.toString(16).padStart(2, '0')).join(':')
  }

  look(pid: number): void {
    const status = textOf(`/proc/${pid}/status`)
    if (status === undefined) return
    const main = processOf(pid, status)
    if (this.#options.skip.uids.has(main.uid)) {
      this.#options.onFound({ process: main, holders: [], isReadable: false })
      return
    }
    const reach = new Map<number, Holder['how']>()
    const uids = new Set<number>()
    try {
      const tasks = numbersIn(`/proc/${pid}/task`)
      for (const tid of tasks) {
        uids.add(uidOf(textOf(`/proc/${pid}/task/${tid}/status`) ?? status) ?? main.uid)
        this.#readMounts(`/proc/${pid}/task/${tid}`)
      }
      this.#readTasks(pid, tasks, reach)
      this.#options.onLook(main)
      // The first thread may have ended: then it has no memory.
      for (const tid of tasks) if (this.#readMaps(`/proc/${pid}/task/${tid}`, reach)) break
    } catch (error) {
      if (isGone(error)) return
      this.#options.onFound({ process: main, holders: [], isReadable: false })
      return
    }
    const holders = [...reach].flatMap(([node, how]) => [...uids].map((uid): Holder => ({ ...main, uid, node, how })))
    if (holders.length > 0) this.#options.onFound({ process: main, holders, isReadable: true })
  }

  /** @throws a system error */
  #readMounts(task: string): void {
    // A thread that has ended has none, and no descriptors.
    const namespace = whenThere(() => readlinkSync(`${task}/ns/mnt`))
    if (namespace === undefined || this.#namespaces.has(namespace)) return
    const text = whenThere(() => readFileSync(`${task}/mountinfo`, 'utf8')) ?? ''
    for (const line of text.split('\n')) {
      const [id, , device] = line.split(' ', 3)
      if (id !== undefined && device !== undefined) this.#devices.set(id, device)
    }
    this.#namespaces.add(namespace)
  }

  #readTasks(pid: number, tasks: readonly number[], reach: Map<number, Holder['how']>): void {
    let before: number | undefined
    for (const tid of tasks) {
      if (before !== undefined && this.#options.sharesDescriptors(before, tid)) continue
      before = tid
      const directory = `/proc/${pid}/task/${tid}/fdinfo`
      for (const fd of whenThere(() => readdirSync(directory)) ?? []) {
        const node = this.#writtenNode(whenThere(() => readFileSync(`${directory}/${fd}`, 'utf8')) ?? '')
        if (node !== undefined && !reach.has(node)) reach.set(node, 'writes')
      }
    }
  }

  /** The node that a descriptor may write to, if it is of this filesystem. */
  #writtenNode(fdinfo: string): number | undefined {
    const flags = Number.parseInt(field(fdinfo, 'flags') ?? '0', 8)
    if ((flags & O_ACCMODE) === 0 || (flags & O_PATH) !== 0) return undefined
    const node = Number(field(fdinfo, 'ino') ?? Number.NaN)
    const device = this.#devices.get(field(fdinfo, 'mnt_id') ?? '')
    // A mount that is in no mountinfo has no known device; other kinds of descriptors have small numbers.
    const isOurs = device === undefined ? node >= NODES_MIN : device === this.#options.device
    return isOurs && Number.isSafeInteger(node) ? node : undefined
  }

  /** @returns whether there was any memory */
  #readMaps(directory: string, reach: Map<number, Holder['how']>): boolean {
    const maps = whenThere(() => readFileSync(`${directory}/maps`, 'utf8')) ?? ''
    if (!maps.includes(` ${this.#hexDevice} `)) return maps !== ''
    for (const line of maps.split('\n')) {
      const [range = '', permissions = '', , device, inode] = line.split(/ +/, 5)
      if (device !== this.#hexDevice || permissions[3] !== 's') continue
      if (permissions[1] === 'w' || mayWrite(directory, range)) reach.set(Number(inode), 'maps')
    }
    return true
  }
}

/** Whether a mapping is of a descriptor that may write. */
function mayWrite(directory: string, range: string): boolean {
  // Only processes have map_files.
  const file = `${directory.replace(/\/task\/\d+$/, '')}/map_files/${range.replaceAll(/\b0+(?=[0-9a-f])/g, '')}`
  const link = whenThere(() => lstatSync(file))
  return link === undefined || (link.mode & 0o200) !== 0
}

function processOf(pid: number, status: string): Process {
  return { pid, uid: uidOf(status) ?? 0, comm: field(status, 'Name') ?? '' }
}

/** The fourth of `Uid:` is the filesystem uid (proc_pid_status(5)). */
function uidOf(status: string | undefined): number | undefined {
  const uids = field(status ?? '', 'Uid')
  return uids === undefined ? undefined : Number(uids.split(/\s+/)[3])
}

function field(text: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1]
}

function numbersIn(directory: string): number[] {
  return readdirSync(directory)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

function textOf(file: string): string | undefined {
  return whenThere(() => readFileSync(file, 'utf8'))
}

/** undefined when it is not there any more. @throws any other system error */
function whenThere<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

function isGone(error: unknown): boolean {
  const code = systemCode(error)
  return code === 'ENOENT' || code === 'ESRCH'
}
