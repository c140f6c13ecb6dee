/** What becomes of an operation that failed: an errno for the kernel, and for the log what somebody has to know. */
import { type FsError, NexusError, toFsError } from '../errors.ts'
import type { Logger } from '../logger.ts'

/** Readers of a damaged file come again and again, a page at a time: the same is said once. */
const SAID_MAX = 1000

export class Failures {
  readonly #logger: Logger
  readonly #said = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /**
   * Logs damage in the store as one line, and a bug with its stack.
   * @param fields what failed
   * @returns what to tell the kernel
   */
  report(fields: () => object, error: unknown): FsError {
    const { fsError, expected } = toFsError(error)
    if (!expected) this.#logger.error({ ...fields(), err: error }, 'fuse: operation failed')
    else if (error instanceof NexusError && error.code === 'NEXUS_CORRUPT') this.#sayOnce(fields, error.message)
    return fsError
  }

  #sayOnce(fields: () => object, message: string): void {
    if (this.#said.has(message)) return
    if (this.#said.size >= SAID_MAX) this.#said.clear()
    this.#said.add(message)
    this.#logger.error(fields(), message)
  }
}
