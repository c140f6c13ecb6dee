/**
 * The log of a daemon in the background, kept small. Supervisor and serving process write to it through descriptors that
 * they inherited and that nobody can change later: so old lines are copied away and the file is emptied, which is right
 * because all of them append. Whoever has it open goes on.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { Logger } from '../logger.ts'

export const LOG_NAME = 'nexusd.log'

const BYTES_MAX = 10 * 1024 * 1024
/** nexusd.log.1 is the newest of them. */
const OLD_MAX = 3
const LOOK_MS = 5000
const COPY_BYTES = 256 * 1024
const STDERR = 2
/** fcntl(2), in the flags that /proc/self/fdinfo shows in octal */
const O_APPEND = 0o2000

/**
 * Looks now, and every few seconds, whether the log has grown too large. Does nothing where this process does not log
 * to the file of this data directory.
 */
export function keepLogSmall(data: string, logger: Logger): void {
  const file = path.join(data, LOG_NAME)
  const look = (): void => {
    try {
      if (mayBeTooLong() && isOurs(file)) rotateLog(file)
    } catch (error) {
      logger.warn({ err: error }, 'the log could not be put aside: it grows until that works')
    }
  }
  look()
  setInterval(look, LOOK_MS).unref()
}

/**
 * Puts the lines of a log aside when they are too many. A line that is written between the last copy and the emptying, which
 * follows at once, is lost.
 * @param bytesMax for tests
 */
export function rotateLog(file: string, bytesMax = BYTES_MAX): void {
  const log = fs.openSync(file, 'r+')
  try {
    if (fs.fstatSync(log).size <= bytesMax) return
    const unfinished = `${file}.new`
    const old = fs.openSync(unfinished, 'w+', 0o600)
    try {
      const done = copy(log, old, 0)
      for (let number = OLD_MAX - 1; number >= 1; number--) moveIfThere(`${file}.${number}`, `${file}.${number + 1}`)
      fs.renameSync(unfinished, `${file}.1`)
      copy(log, old, done)
      fs.ftruncateSync(log, 0)
      cutUnfinishedLine(old)
    } finally {
      fs.closeSync(old)
      // It is there when the disk was full.
      fs.rmSync(unfinished, { force: true })
    }
  } finally {
    fs.closeSync(log)
  }
}

/** From `start` to the end, also of what is written meanwhile. @returns where that is */
function copy(from: number, to: number, start: number): number {
  const buffer = Buffer.allocUnsafe(COPY_BYTES)
  for (let at = start; ; ) {
    const bytes = fs.readSync(from, buffer, 0, buffer.length, at)
    if (bytes === 0) return at
    for (let done = 0; done < bytes; ) done += fs.writeSync(to, buffer, done, bytes - done)
    at += bytes
  }
}

/** A line over the end of a page becomes longer in two steps, and the file may have been read between them. */
function cutUnfinishedLine(file: number): void {
  const bytes = fs.fstatSync(file).size
  const start = Math.max(0, bytes - COPY_BYTES)
  const tail = Buffer.alloc(bytes - start)
  fs.readSync(file, tail, 0, tail.length, start)
  const end = tail.lastIndexOf('\n') + 1
  // Without any end of a line in so much it is no log of lines.
  if (end > 0) fs.ftruncateSync(file, start + end)
}

function moveIfThere(from: string, to: string): void {
  if (fs.existsSync(from)) fs.renameSync(from, to)
}

/** By its descriptor alone: whoever looks must not wait for a disk that hangs. */
function mayBeTooLong(): boolean {
  const stderr = fs.fstatSync(STDERR)
  return stderr.isFile() && stderr.size > BYTES_MAX
}

/** Somebody else's file, or one that is not appended to, is not ours to empty. */
function isOurs(file: string): boolean {
  const stderr = fs.fstatSync(STDERR)
  const stats = fs.statSync(file, { throwIfNoEntry: false })
  if (stats === undefined || stats.dev !== stderr.dev || stats.ino !== stderr.ino) return false
  const [, flags = '0'] = /^flags:\s*([0-7]+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${STDERR}`, 'utf8')) ?? []
  return (Number.parseInt(flags, 8) & O_APPEND) !== 0
}
