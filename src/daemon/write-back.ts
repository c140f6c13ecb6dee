/** Has the kernel write back what mappings of some workspaces dirtied (fuse/write-back.ts). */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Notifier } from '../fuse/binding.ts'
import type { FuseSession } from '../fuse/session.ts'
import { Pace } from '../pace.ts'
import type { Core } from '../vfs/core.ts'
import { ANY_PAGE } from '../vfs/known.ts'
import { nodeOf, volumeOf } from '../vfs/place.ts'
import { isRegular } from '../volume/attr.ts'

export interface WriteBackOptions {
  session: FuseSession
  /** does nothing else: it waits in the kernel */
  writer: Notifier
  mountpoint: string
  core: Core
}

/** Files that are given to the thread at once. */
const FILES_MAX = 1000
const SLICE_MS = 3

interface FileHandle {
  node: number
  generation: number
}

export class WriteBack {
  readonly #options: WriteBackOptions

  constructor(options: WriteBackOptions) {
    this.#options = options
  }

  /** Resolves when it is in the log. @throws FsError EIO, ENOSPC */
  of(volumes: readonly number[]): Promise<void> {
    const { session } = this.#options
    return session.writeBack(
      (node) => volumes.includes(volumeOf(node)),
      () => this.#sync(),
      () => this.#flush(volumes),
    )
  }

  /** Of the whole mount. */
  all(): Promise<void> {
    return this.#options.session.writeBack(
      () => true,
      () => this.#sync(),
      () => Promise.resolve(),
    )
  }

  #sync(): Promise<void> {
    return this.#options.writer.syncFilesystem(this.#options.mountpoint)
  }

  async #flush(volumes: readonly number[]): Promise<void> {
    const { writer, mountpoint } = this.#options
    const pace = new Pace(SLICE_MS, nextTurn)
    let files: FileHandle[] = []
    for (const file of this.#filesOf(volumes)) {
      if (file !== undefined) files.push(file)
      if (files.length >= FILES_MAX) {
        await writer.flushFiles(mountpoint, files)
        files = []
      }
      const wait = pace.pause()
      if (wait !== undefined) await wait
    }
    if (files.length > 0) await writer.flushFiles(mountpoint, files)
  }

  /** Those that the kernel may have pages of; undefined stands for what is none. */
  *#filesOf(volumes: readonly number[]): Generator<FileHandle | undefined> {
    const { core } = this.#options
    for (const number of volumes) {
      const volume = core.volumes.get(number)
      for (const ino of volume === undefined ? [] : [...core.known.of(number)]) {
        const attr = core.known.hasPages(number, ino, ANY_PAGE) ? volume?.attr(ino) : undefined
        const isFile = attr !== undefined && isRegular(attr)
        yield isFile ? { node: nodeOf(number, ino), generation: core.known.generation(number, ino) } : undefined
      }
    }
  }
}
