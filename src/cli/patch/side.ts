/** One side of a comparison, read through the mount by the caller: what they may not read there, they do not get here. */
import fs from 'node:fs'
import { NexusError, systemCode } from '../../errors.ts'

/** Names are latin1 below, one character a byte, with `/` between them. */
export type SideName = string

export interface FoundSide {
  /** file: a regular one; other: what a patch cannot hold */
  kind: 'file' | 'symlink' | 'directory' | 'other'
  /** as git has it: 100644, 100755 or 120000 */
  mode: string
  size: number
  mtime: bigint
}

/** A path that is read is opened without following a symlink, and without waiting for the other end of a FIFO. */
const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK

/** The bytes of a name as the daemon shows it: odd ones are \xNN there. */
export function bytesOf(shown: string): SideName {
  const bytes = Buffer.from(shown).toString('latin1')
  return bytes.replace(/\\x([0-9a-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
}

export class Side {
  readonly #root: SideName
  readonly #what: string
  readonly #device: bigint

  /**
   * @param root the host's path of the directory compared, in bytes
   * @param what as in `what cannot be read`
   */
  constructor(root: SideName, what: string) {
    this.#root = root
    this.#what = what
    try {
      this.#device = fs.lstatSync(bytes(root), { bigint: true }).dev
    } catch (error) {
      throw failure(error, what)
    }
  }

  /** undefined where nothing is, or what is there is no part of the mount: a symlink has come into the way to it. */
  look(name: SideName): FoundSide | undefined {
    try {
      const stat = fs.lstatSync(this.#path(name), { bigint: true })
      return stat.dev === this.#device ? foundOf(stat) : undefined
    } catch (error) {
      if (isGone(error)) return undefined
      throw failure(error, this.#shown(name))
    }
  }

  /** The content of a regular file; undefined when it has gone or grown beyond `most` bytes meanwhile. */
  read(name: SideName, most: number): Buffer | undefined {
    let fd: number | undefined
    try {
      fd = fs.openSync(this.#path(name), OPEN_FLAGS)
      const stat = fs.fstatSync(fd, { bigint: true })
      if (!stat.isFile() || stat.dev !== this.#device || stat.size > most) return undefined
      const content = fs.readFileSync(fd)
      return content.length > most ? undefined : content
    } catch (error) {
      if (isGone(error)) return undefined
      throw failure(error, this.#shown(name))
    } finally {
      if (fd !== undefined) fs.closeSync(fd)
    }
  }

  /** Where a symlink leads; undefined when it has gone. */
  target(name: SideName): Buffer | undefined {
    try {
      return fs.readlinkSync(this.#path(name), 'buffer')
    } catch (error) {
      if (isGone(error) || systemCode(error) === 'EINVAL') return undefined
      throw failure(error, this.#shown(name))
    }
  }

  /** All that lies somewhere in a directory, and is no directory: names relative to it. */
  *below(directory: SideName): Generator<[inside: SideName, found: FoundSide]> {
    const waiting: SideName[] = ['']
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      for (const entry of this.#list(at === '' ? directory : `${directory}/${at}`)) {
        const inside = at === '' ? entry : `${at}/${entry}`
        const found = this.look(`${directory}/${inside}`)
        if (found?.kind === 'directory') waiting.push(inside)
        else if (found !== undefined) yield [inside, found]
      }
    }
  }

  #list(directory: SideName): SideName[] {
    try {
      return fs.readdirSync(this.#path(directory), { encoding: 'buffer' }).map((name) => name.toString('latin1'))
    } catch (error) {
      if (isGone(error)) return []
      throw failure(error, this.#shown(directory))
    }
  }

  #path(name: SideName): Buffer {
    return bytes(name === '' ? this.#root : `${this.#root}/${name}`)
  }

  #shown(name: SideName): string {
    return `${bytes(name).toString()} in ${this.#what}`
  }
}

function bytes(name: SideName): Buffer {
  return Buffer.from(name, 'latin1')
}

function foundOf(stat: fs.BigIntStats): FoundSide {
  const { size, mtimeNs: mtime } = stat
  const own = { size: Number(size), mtime }
  if (stat.isFile()) return { kind: 'file', mode: (stat.mode & 0o100n) === 0n ? '100644' : '100755', ...own }
  if (stat.isSymbolicLink()) return { kind: 'symlink', mode: '120000', ...own }
  return { kind: stat.isDirectory() ? 'directory' : 'other', mode: '', ...own }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(systemCode(error) ?? '')
}

function failure(error: unknown, what: string): NexusError {
  const code = systemCode(error) ?? String(error)
  const options = { cause: error }
  if (code === 'EACCES' || code === 'EPERM') {
    return new NexusError(
      'NEXUS_DENIED',
      `you may not read ${what}: ask one of its owners, or compare a directory that you may read`,
      options,
    )
  }
  if (code === 'ENOENT' || code === 'ESTALE') return new NexusError('NEXUS_NOT_FOUND', `${what} is gone: try again`, options)
  if (code === 'EIO') return new NexusError('NEXUS_CORRUPT', `${what} cannot be read (EIO): see "nexusctl scrub"`, options)
  return new NexusError('NEXUS_INTERNAL', `${what} cannot be read (${code})`, options)
}
