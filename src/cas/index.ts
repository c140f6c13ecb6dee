/**
 * The index: LevelDB, from addresses to places in the log, and the catalog as of the last
 * checkpoint. Everything in it can be made again from the log; losing it loses time, not data.
 *
 * LevelDB alone would answer with rotten bytes (reads do not check its block checksums), drop a
 * damaged batch and keep those behind it, and after a failed write lose later ones that it had
 * confirmed (seen on a full disk). So every value carries a checksum over key and value, every
 * batch a number, and after a failed write it is opened again before the next.
 */
import { mkdirSync } from 'node:fs'
import { open, readdir, rm, stat, statfs } from 'node:fs/promises'
import path from 'node:path'
import { Level } from 'level'
import { type ErrorCode, isNoSpace, NexusError, systemCode } from '../errors.ts'
import { xxh64 } from '../journal/checksum.ts'
import { Pace } from '../pace.ts'

export interface IndexEntry {
  key: Buffer
  /** null removes the key */
  value: Buffer | null
}

export interface Index {
  /** @throws NexusError NEXUS_CORRUPT when it is not what was written */
  get(key: Buffer): Buffer | undefined
  /** every entry whose key starts with `prefix` */
  entries(prefix: Buffer): AsyncIterable<[Buffer, Buffer]>
  /** writes them all or none, and safely to disk before it resolves */
  write(entries: readonly IndexEntry[]): Promise<void>
  /** While it cannot be asked because it is opened again, what ends when it can; at the latest after some seconds. */
  readonly opening?: Promise<void> | undefined
  close(): Promise<void>
}

type Database = Level<Buffer, Buffer>

const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const
/** How much memory LevelDB may have, besides two write buffers. */
export interface IndexMemory {
  /** blocks of tables that were read and unpacked */
  cacheBytes: number
  /** of a table, which is mapped whole while it is open */
  tableBytes: number
  tablesOpen: number
}

const MEMORY: IndexMemory = { cacheBytes: 16 * 1024 * 1024, tableBytes: 2 * 1024 * 1024, tablesOpen: 64 }
/** LevelDB counts a few files of its own among the open ones. */
const OTHER_FILES = 10
/** LevelDB's log grows to this before it becomes a table, and on a nearly full disk there must be room for both. */
const WRITE_BUFFER_BYTES = 4 * 1024 * 1024
const CHECKSUM_BYTES = 8
/** LevelDB needs a few small files besides what it is given … */
const SPARE_BYTES = 1024 * 1024
/** … and a little with each entry. */
const ENTRY_BYTES = 16
const NOTHING = Buffer.alloc(0)
/** Opening takes milliseconds; on a disk that hangs whoever needs the index is told so after this. */
const OPEN_MS_MAX = 10_000
/** One that could not be opened is tried again when it is asked, so long after the last time. */
const RETRY_MS = 500
/** Shows whether the disk can be written. */
const PROBE = 'probe'

/** Batches are numbered by a key each; those up to the base have been seen complete by an earlier start. */
const BATCH_PREFIX = 'w/'
const BATCH_DIGITS = 16
const BASE_KEY = Buffer.from(`${BATCH_PREFIX}base`)

/**
 * @param store seeds the checksums
 * @throws NexusError NEXUS_BUSY when another process holds it, NEXUS_CORRUPT when it is damaged
 */
export async function openIndex(directory: string, store: bigint, memory: IndexMemory = MEMORY): Promise<Index> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const level: Database = new Level(directory, {
    ...options,
    cacheSize: memory.cacheBytes,
    maxFileSize: memory.tableBytes,
    maxOpenFiles: memory.tablesOpen + OTHER_FILES,
    writeBufferSize: WRITE_BUFFER_BYTES,
  })
  const index = new LevelIndex(level, directory, store)
  try {
    await index.open()
  } catch (error) {
    await level.close()
    throw error
  }
  return index
}

class LevelIndex implements Index {
  readonly #level: Database
  readonly #directory: string
  readonly #store: bigint
  /** number of the last batch */
  #last = 0
  /** batches up to this one have no key of their own any more */
  #base = 0
  /** batches up to this one were all there when it was opened */
  #verified = 0
  #failed = false
  opening: Promise<void> | undefined
  #reopening: Promise<void> | undefined
  #triedAt = 0
  #isEnded = false
  /** why it could not be opened again */
  #closedFor = ''

  constructor(level: Database, directory: string, store: bigint) {
    this.#level = level
    this.#directory = directory
    this.#store = store
  }

  async open(createIfMissing = true): Promise<void> {
    try {
      await this.#level.open({ createIfMissing })
    } catch (error) {
      throw explain(this.#directory, error)
    }
    const base = this.get(BASE_KEY)
    this.#base = base === undefined ? 0 : Number(base.toString())
    this.#last = this.#base
    for await (const [key] of this.entries(Buffer.from(BATCH_PREFIX))) {
      if (key.equals(BASE_KEY)) continue
      this.#last += 1
      if (!key.equals(batchKey(this.#last))) throw damaged(this.#directory, `batch ${this.#last} is missing`)
    }
    this.#verified = this.#last
  }

  get(key: Buffer): Buffer | undefined {
    try {
      const stored = this.#level.getSync(key, options)
      return stored === undefined ? undefined : this.#unseal(key, stored)
    } catch (error) {
      throw this.#explain(error)
    }
  }

  async *entries(prefix: Buffer): AsyncGenerator<[Buffer, Buffer]> {
    try {
      for await (const [key, stored] of this.#level.iterator({ gte: prefix, lt: after(prefix), ...options })) {
        yield [key, this.#unseal(key, stored)]
      }
    } catch (error) {
      throw this.#explain(error)
    }
  }

  async write(entries: readonly IndexEntry[]): Promise<void> {
    await this.#needSpace(entries)
    if (this.#failed) await this.#reopen()
    const rows = [...entries, ...this.#numbers()]
    const pace = new Pace()
    const batch = this.#level.batch()
    try {
      // A batch has every volume that changed, and requests go on while it is put together.
      for (const { key, value } of rows) {
        if (value === null) batch.del(key, options)
        else batch.put(key, this.#seal(key, value), options)
        const wait = pace.pause()
        if (wait !== undefined) await wait
      }
      await batch.write({ sync: true })
    } catch (error) {
      await batch.close()
      this.#failed = true
      throw explain(this.#directory, error)
    }
    this.#last += 1
    this.#base = this.#verified
  }

  async close(): Promise<void> {
    this.#isEnded = true
    await this.#reopening?.catch(() => undefined)
    await this.#level.close()
  }

  /** The key of the batch that is about to be written, in exchange for those that were verified. */
  #numbers(): IndexEntry[] {
    const rows: IndexEntry[] = [{ key: batchKey(this.#last + 1), value: NOTHING }]
    if (this.#base === this.#verified) return rows
    rows.push({ key: BASE_KEY, value: Buffer.from(String(this.#verified)) })
    for (let number = this.#base + 1; number <= this.#verified; number++) rows.push({ key: batchKey(number), value: null })
    return rows
  }

  /** Who comes while it is at work shares it. */
  #reopen(): Promise<void> {
    this.#reopening ??= this.#reopenNow().finally(() => {
      this.#reopening = undefined
      this.#triedAt = performance.now()
    })
    return this.#reopening
  }

  async #reopenNow(): Promise<void> {
    // What is open can be read: it is not given up for a disk that cannot be written.
    if (this.#level.status === 'open') await this.#probe()
    const work = this.#openAgain()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, OPEN_MS_MAX)
    })
    this.opening = Promise.race([work.catch(() => undefined), late]).finally(() => {
      clearTimeout(timer)
      this.opening = undefined
    })
    await work
  }

  /** Opening writes LevelDB's log once more. @throws NexusError when the disk does not take so much */
  async #probe(): Promise<void> {
    const name = path.join(this.#directory, PROBE)
    const bytes = Buffer.alloc((await logFileBytes(this.#directory)) + SPARE_BYTES)
    try {
      const file = await open(name, 'w', 0o600)
      try {
        await file.writeFile(bytes)
        await file.sync()
      } finally {
        await file.close()
      }
    } catch (cause) {
      const words = `${this.#directory} cannot be written (${systemCode(cause) ?? String(cause)})`
      if (isNoSpace(cause)) throw new NexusError('NEXUS_NO_SPACE', `${words}: free some space on that disk`, { cause })
      throw new NexusError('NEXUS_CORRUPT', `${words}: look at the disk (dmesg); nothing is lost, and reading goes on`, { cause })
    } finally {
      await rm(name, { force: true }).catch(() => undefined)
    }
  }

  async #openAgain(): Promise<void> {
    this.#closedFor = 'opening it again takes too long'
    try {
      await this.#level.close()
      await this.open(false)
    } catch (error) {
      this.#closedFor = error instanceof Error ? error.message : String(error)
      throw error
    }
    this.#failed = false
  }

  #explain(error: unknown): unknown {
    if (systemCode(error) !== 'LEVEL_DATABASE_NOT_OPEN' && systemCode(error) !== 'LEVEL_ITERATOR_NOT_OPEN')
      return explain(this.#directory, error)
    // A checkpoint would not get as far as writing to it.
    if (this.#failed && !this.#isEnded && performance.now() - this.#triedAt > RETRY_MS) this.#reopen().catch(() => undefined)
    const reason = `the index was closed after a failed write, and is opened again: ${this.#closedFor}`
    return new NexusError('NEXUS_TIMEOUT', `${reason}; nothing is lost, and it is tried again`, { cause: error })
  }

  /**
   * Refuses to write when the disk is nearly full: LevelDB would fail in the middle, and opening it
   * again writes its log a second time.
   */
  async #needSpace(entries: readonly IndexEntry[]): Promise<void> {
    let bytes = 0
    for (const { key, value } of entries) bytes += key.length + (value?.length ?? 0) + ENTRY_BYTES
    bytes += await logFileBytes(this.#directory)
    const { bsize, bavail, bfree } = await statfs(this.#directory)
    // A part of some disks is kept for root.
    const free = bsize * (process.getuid?.() === 0 ? bfree : bavail)
    if (free < 2 * bytes + SPARE_BYTES) {
      throw new NexusError('NEXUS_NO_SPACE', `the disk that holds ${this.#directory} is full: free some space`)
    }
  }

  #seal(key: Buffer, value: Buffer): Buffer {
    const stored = Buffer.allocUnsafe(CHECKSUM_BYTES + value.length)
    stored.writeBigUInt64LE(this.#checksum(key, value))
    stored.set(value, CHECKSUM_BYTES)
    return stored
  }

  #unseal(key: Buffer, stored: Buffer): Buffer {
    const value = stored.subarray(CHECKSUM_BYTES)
    if (stored.length < CHECKSUM_BYTES || stored.readBigUInt64LE() !== this.#checksum(key, value))
      throw damaged(this.#directory, 'an entry is not what was written')
    return value
  }

  #checksum(key: Buffer, value: Buffer): bigint {
    return xxh64(value, xxh64(key, this.#store))
  }
}

function batchKey(number: number): Buffer {
  return Buffer.from(BATCH_PREFIX + String(number).padStart(BATCH_DIGITS, '0'))
}

/** Bytes in LevelDB's own write-ahead log. */
async function logFileBytes(directory: string): Promise<number> {
  let bytes = 0
  for (const name of await readdir(directory)) {
    // A file that goes away meanwhile is counted no more.
    if (name.endsWith('.log'))
      bytes += await stat(path.join(directory, name)).then(
        ({ size }) => size,
        () => 0,
      )
  }
  return bytes
}

/** The first key behind all that start with `prefix`. */
function after(prefix: Buffer): Buffer {
  const key = Buffer.from(prefix)
  const last = key.length - 1
  key[last] = (key[last] as number) + 1
  return key
}

function damaged(directory: string, reason: string, cause?: unknown): NexusError {
  return new NexusError(
    'NEXUS_CORRUPT',
    `the index ${directory} is damaged (${reason}); nothing is lost: mount again with --rebuild-index to make it anew from the log`,
    { cause },
  )
}

/** LevelDB tells system errors only by the words of strerror(3). */
const diskFailures: readonly (readonly [RegExp, ErrorCode, string])[] = [
  [/No space left|quota exceeded/, 'NEXUS_NO_SPACE', 'is on a full disk: free some space'],
  [/Read-only file system/, 'NEXUS_READ_ONLY', 'is on a read-only disk: remount it writable'],
  [
    /Input\/output error/,
    'NEXUS_CORRUPT',
    'cannot be read or written by the disk (EIO): look at the disk (dmesg); nothing is lost, and --rebuild-index makes it anew from the log',
  ],
  [/Permission denied|not permitted/, 'NEXUS_DENIED', 'cannot be used by this user: change the owner of the files in it'],
  [/Too many open files/, 'NEXUS_INTERNAL', 'needs more open files than allowed: raise "ulimit -n"'],
]

function explain(directory: string, error: unknown): unknown {
  if (error instanceof NexusError) return error
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code = systemCode(cause) ?? systemCode(error) ?? ''
  if (!code.startsWith('LEVEL_')) return error
  const reason = cause instanceof Error ? cause.message : String(cause)
  if (code === 'LEVEL_LOCKED') {
    return new NexusError(
      'NEXUS_BUSY',
      `another nexusd is using ${directory}: stop it first, or name another directory with --data`,
      { cause },
    )
  }
  const failure = diskFailures.find(([words]) => words.test(reason))
  if (failure !== undefined) return new NexusError(failure[1], `${directory} ${failure[2]}`, { cause })
  return damaged(directory, reason, cause)
}
