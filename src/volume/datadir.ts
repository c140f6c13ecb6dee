/** The data directory: what lies in it, who made it, and whether this program can use it. */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { NexusError, systemCode } from '../errors.ts'
import { FORMAT_VERSION } from '../journal/record.ts'

export interface DataDirectory {
  path: string
  /** random, made with the store; seeds every checksum */
  store: bigint
  /** the log's segments */
  log: string
  /** LevelDB */
  index: string
}

const IDENTITY = 'nexus.json'
/** What may lie in a directory that becomes a store; `nexus.json.new.…` is of a start that was cut short. */
const HARMLESS_NAME = /^(nexus\.json\.new\..*|lost\+found|nexusd\.log|control\.sock)$/

/**
 * Opens a data directory, or makes it when it is missing or empty.
 * @throws NexusError with what to do, for a directory that is not ours, newer, damaged or not writable
 */
export function openDataDirectory(directory: string): DataDirectory {
  try {
    makeDirectory(directory)
    const identity = path.join(directory, IDENTITY)
    if (!isStore(directory)) create(directory, identity)
    fs.accessSync(directory, fs.constants.W_OK)
    const store = readIdentity(identity)
    const log = path.join(directory, 'log')
    makeDirectory(log)
    return { path: directory, store, log, index: path.join(directory, 'index') }
  } catch (error) {
    throw explainDisk(directory, error)
  }
}

/**
 * Makes sure that a directory is a store or may become one, and changes nothing but to make it.
 * @throws NexusError with what to do
 */
export function prepareDataDirectory(directory: string): void {
  try {
    makeDirectory(directory)
    isStore(directory)
  } catch (error) {
    throw explainDisk(directory, error)
  }
}

/** A system error of the data directory's disk as an error that says what to do; others as they are. */
export function explainDisk(directory: string, error: unknown): unknown {
  const cause = error
  switch (systemCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new NexusError(
        'NEXUS_NO_SPACE',
        `the disk that holds ${directory} is full: free some space, or name another directory with --data`,
        { cause },
      )
    case 'EROFS':
      return new NexusError(
        'NEXUS_READ_ONLY',
        `${directory} is on a read-only disk: remount it writable, or name another directory with --data`,
        { cause },
      )
    case 'EACCES':
    case 'EPERM':
      return new NexusError(
        'NEXUS_DENIED',
        `${directory} cannot be written by this user: change its owner, or name another directory with --data`,
        { cause },
      )
    case 'ENOTDIR':
    case 'EEXIST':
      return new NexusError('NEXUS_USAGE', `${directory} is not a directory: name another one with --data`, { cause })
    default:
      if (!(error instanceof Error) || !('syscall' in error)) return error
      return new NexusError(
        'NEXUS_UNSUPPORTED',
        `${directory} cannot be used (${error.message}): name another directory with --data`,
        {
          cause,
        },
      )
  }
}

/**
 * Makes a directory and those above it, so that they outlast a loss of power. Not with `recursive`,
 * which makes ENOENT of a read-only disk.
 */
function makeDirectory(directory: string): void {
  try {
    fs.mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST' && fs.statSync(directory).isDirectory()) return
    if (code !== 'ENOENT' || fs.existsSync(path.dirname(directory))) throw error
    makeDirectory(path.dirname(directory))
    fs.mkdirSync(directory, { mode: 0o700 })
  }
  syncDirectory(path.dirname(directory))
}

/** One that may be entered but not read is somebody else's, who cares for it. */
function syncDirectory(directory: string): void {
  let fd: number
  try {
    fd = fs.openSync(directory, 'r')
  } catch (error) {
    if (systemCode(error) === 'EACCES') return
    throw error
  }
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/** False for a directory that may become one. */
function isStore(directory: string): boolean {
  const names = fs.readdirSync(directory)
  if (names.includes(IDENTITY)) return true
  const others = names.filter((name) => !HARMLESS_NAME.test(name))
  if (others.includes('log') || others.includes('index')) {
    throw new NexusError(
      'NEXUS_CORRUPT',
      `${path.join(directory, IDENTITY)} is missing although ${directory} holds a store: restore that file from a backup`,
    )
  }
  if (others.length > 0) {
    throw new NexusError('NEXUS_USAGE', `${directory} holds other files and no nexus store: name an empty directory with --data`)
  }
  return false
}

/** Another daemon may do the same at this moment: the first keeps its identity, and both go on with that. */
function create(directory: string, identity: string): void {
  const document = { format: FORMAT_VERSION, store: randomBytes(8).toString('hex'), created_at: new Date().toISOString() }
  const fresh = `${identity}.new.${process.pid}`
  try {
    fs.writeFileSync(fresh, `${JSON.stringify(document)}\n`, { mode: 0o600, flush: true })
    fs.linkSync(fresh, identity)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  } finally {
    fs.rmSync(fresh, { force: true })
  }
  syncDirectory(directory)
}

function readIdentity(identity: string): bigint {
  const damaged = (cause?: unknown): NexusError =>
    new NexusError('NEXUS_CORRUPT', `${identity} is damaged: restore that file from a backup`, { cause })
  let document: unknown
  try {
    document = JSON.parse(fs.readFileSync(identity, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged(error)
    throw error
  }
  if (typeof document !== 'object' || document === null) throw damaged()
  // First of all: a newer one may have other fields.
  if (!('format' in document) || typeof document.format !== 'number') throw damaged()
  if (document.format > FORMAT_VERSION) {
    throw new NexusError(
      'NEXUS_TOO_NEW',
      `${path.dirname(identity)} has format ${document.format}, this program reads up to ${FORMAT_VERSION}: install a newer nexus`,
    )
  }
  const store = 'store' in document ? document.store : undefined
  if (typeof store !== 'string' || !/^[0-9a-f]{16}$/.test(store)) throw damaged()
  return BigInt(`0x${store}`)
}
