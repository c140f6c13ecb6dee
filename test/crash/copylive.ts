/** What a killed process leaves: its files as they are at one moment. */
import fs from 'node:fs'
import path from 'node:path'

const ATTEMPTS = 50

/** Every file below a directory with what tells that it was changed. */
function stampOf(directory: string): string {
  const names = fs.readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
  return names
    .map((name) => {
      const { ino, size, mtimeNs } = fs.statSync(path.join(directory, name), { bigint: true })
      return `${name} ${ino} ${size} ${mtimeNs}`
    })
    .join('\n')
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT'
}

/**
 * Copies a data directory that is in use. LevelDB writes in threads of its own: what was copied of it file by file while it
 * removed one and wrote another is no state that ever was, and is copied again.
 * @throws Error when it never stands still
 */
export function copyLive(from: string, to: string): void {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    fs.rmSync(to, { recursive: true, force: true })
    try {
      const before = stampOf(from)
      fs.cpSync(from, to, { recursive: true, filter: (file) => !file.endsWith('.sock') })
      if (stampOf(from) === before) return
    } catch (error) {
      if (!isGone(error)) throw error
    }
  }
  throw new Error(`${from} was written to during each of ${ATTEMPTS} copies`)
}
