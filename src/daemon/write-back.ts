/** Has the kernel write back what mappings of some workspaces dirtied (fuse/write-back.ts). */
import type { Notifier } from '../fuse/binding.ts'
import type { Session } from '../fuse/session.ts'
import { type Core, nodeOf, volumeOf } from '../vfs/core.ts'
import { isRegular } from '../volume/attr.ts'

export interface WriteBackOptions {
  session: Session
  /** does nothing else: it waits in the kernel */
  writer: Notifier
  mountpoint: string
  core: Core
}

/** Files that are given to the thread at once. */
const FILES_MAX = 1000

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
    const files = [...this.#filesOf(volumes)]
    for (let at = 0; at < files.length; at += FILES_MAX) await writer.flushFiles(mountpoint, files.slice(at, at + FILES_MAX))
  }

  /** Those that the kernel may have pages of. */
  *#filesOf(volumes: readonly number[]): Generator<{ node: number; generation: number }> {
    const { core } = this.#options
    for (const number of volumes) {
      const volume = core.volumes.get(number)
      for (const ino of volume === undefined ? [] : [...core.known.of(number)]) {
        const attr = volume?.attr(ino)
        if (attr === undefined || !isRegular(attr)) continue
        yield { node: nodeOf(number, ino), generation: core.known.generation(number, ino) }
      }
    }
  }
}
