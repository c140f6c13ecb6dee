/**
 * The index: LevelDB, from addresses to places in the log, and the catalog as of the last
 * checkpoint. Everything in it can be made again from the log; losing it loses time, not data.
 */
import { mkdirSync } from 'node:fs'
import { Level } from 'level'
import { NexusError, systemCode } from '../errors.ts'

export interface IndexEntry {
  key: Buffer
  /** null removes the key */
  value: Buffer | null
}

export interface Index {
  get(key: Buffer): Buffer | undefined
  /** every entry whose key starts with `prefix` */
  entries(prefix: Buffer): AsyncIterable<[Buffer, Buffer]>
  /** writes them all or none, and safely to disk before it resolves */
  write(entries: readonly IndexEntry[]): Promise<void>
  close(): Promise<void>
}

const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const

/**
 * @throws NexusError NEXUS_BUSY when another process holds it, NEXUS_CORRUPT when LevelDB cannot
 *   read it
 */
export async function openIndex(directory: string): Promise<Index> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const level = new Level<Buffer, Buffer>(directory, {
    ...options,
    cacheSize: 16 * 1024 * 1024,
    writeBufferSize: 8 * 1024 * 1024,
  })
  try {
    await level.open()
  } catch (cause) {
    throw explain(directory, cause)
  }
  return {
    get: (key) => level.getSync(key, options),
    entries: (prefix) => level.iterator({ gte: prefix, lt: after(prefix), ...options }),
    write: (entries) =>
      level.batch(
        entries.map(({ key, value }) => (value === null ? { type: 'del', key } : { type: 'put', key, value })),
        { ...options, sync: true },
      ),
    close: () => level.close(),
  }
}

/** The first key behind all that start with `prefix`. */
function after(prefix: Buffer): Buffer {
  const key = Buffer.from(prefix)
  const last = key.length - 1
  key[last] = (key[last] as number) + 1
  return key
}

function explain(directory: string, error: unknown): NexusError {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  if (systemCode(cause) === 'LEVEL_LOCKED') {
    return new NexusError(
      'NEXUS_BUSY',
      `another nexusd is using ${directory}: stop it first, or name another directory with --data`,
      { cause },
    )
  }
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new NexusError(
    'NEXUS_CORRUPT',
    `the index ${directory} is damaged (${reason}); nothing is lost: mount again with --rebuild-index to make it anew from the log`,
    { cause },
  )
}
