/** Sends the messages of one lane in the order in which they are given, from a thread of its own. */
import type { LaneName, Notice } from './notices.ts'

/** What is needed of `Notifier` in binding.ts. */
export interface NotifySender {
  /** 0 or a negative errno for each, when the kernel has taken all of them */
  send(buffers: readonly Uint8Array[]): Promise<number[]>
  /** Cancels the batches that are not begun. @returns how many, which are those that were given last */
  takeBack(): number
  stop(): void
}

interface Queued {
  bytes: Buffer
  resolve: (errno: number) => void
  reject: (error: unknown) => void
}

/** asm-generic/errno.h */
export const ECANCELED = -125

export class Lane<Name extends LaneName> {
  readonly #sender: NotifySender
  #queue: Queued[] = []

  constructor(sender: NotifySender) {
    this.#sender = sender
  }

  /** @returns 0 or a negative errno. What is sent in one turn of the event loop goes to the thread together. */
  send({ bytes }: Notice<Name>): Promise<number> {
    if (this.#queue.length === 0) setImmediate(() => void this.#flush())
    return new Promise((resolve, reject) => this.#queue.push({ bytes, resolve, reject }))
  }

  async #flush(): Promise<void> {
    const batch = this.#queue
    this.#queue = []
    try {
      const results = await this.#sender.send(batch.map(({ bytes }) => bytes))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] ?? ECANCELED)
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }
}
