/** Keeps a long output until it is known that nothing fails: a command that fails prints nothing, and half a patch could be applied. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

/** More than this goes to a file without a name. */
const MEMORY_BYTES_MAX = 8 * 1024 * 1024
const STEP_BYTES = 256 * 1024

export class Spool {
  #pending: Buffer[] = []
  #pendingBytes = 0
  #fd: number | undefined

  /** @param text one character a byte */
  write(text: string): void {
    const bytes = Buffer.from(text, 'latin1')
    this.#pending.push(bytes)
    this.#pendingBytes += bytes.length
    if (this.#pendingBytes > (this.#fd === undefined ? MEMORY_BYTES_MAX : STEP_BYTES)) this.#store()
  }

  /** Hands over all that was written, and ends. */
  drain(write: (bytes: Uint8Array) => void): void {
    if (this.#fd !== undefined) {
      const step = Buffer.alloc(STEP_BYTES)
      for (let at = 0; ; ) {
        const count = fs.readSync(this.#fd, step, 0, STEP_BYTES, at)
        if (count === 0) break
        // Whoever takes it may keep it.
        write(Uint8Array.prototype.slice.call(step, 0, count))
        at += count
      }
    }
    if (this.#pendingBytes > 0) write(Buffer.concat(this.#pending))
    this.close()
  }

  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd)
    this.#fd = undefined
    this.#pending = []
    this.#pendingBytes = 0
  }

  #store(): void {
    this.#fd ??= openUnnamed()
    const bytes = Buffer.concat(this.#pending)
    for (let at = 0; at < bytes.length; ) at += fs.writeSync(this.#fd, bytes, at)
    this.#pending = []
    this.#pendingBytes = 0
  }
}

function openUnnamed(): number {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexusctl-'))
  try {
    return fs.openSync(path.join(directory, 'patch'), 'wx+', 0o600)
  } finally {
    fs.rmSync(directory, { recursive: true })
  }
}
