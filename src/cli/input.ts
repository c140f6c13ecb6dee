/** Files of the host that a command reads: a file by name, or stdin by `-`. */
import { createReadStream } from 'node:fs'
import { shown, usage } from '../api/text.ts'
import { NexusError, systemCode } from '../errors.ts'

/**
 * The text of a file.
 * @param bytesMax reading stops beyond, so that an endless file does no harm
 * @param stdin what `-` means
 */
export async function readText(
  file: string,
  { bytesMax, stdin = process.stdin }: { bytesMax: number; stdin?: AsyncIterable<Buffer> },
): Promise<string> {
  if (file === '') throw usage('FILE is empty: give a file, or - for stdin')
  const parts: Buffer[] = []
  let bytes = 0
  try {
    for await (const part of file === '-' ? stdin : (createReadStream(file) as AsyncIterable<Buffer>)) {
      parts.push(part)
      bytes += part.length
      if (bytes > bytesMax) throw usage(`${nameOf(file)} is too long: at most ${bytesMax} bytes`)
    }
  } catch (error) {
    throw explain(error, nameOf(file))
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts))
  } catch {
    throw usage(`${nameOf(file)} is not text in UTF-8`)
  }
}

function nameOf(file: string): string {
  return file === '-' ? 'stdin' : shown(file)
}

function explain(error: unknown, name: string): unknown {
  switch (systemCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new NexusError('NEXUS_NOT_FOUND', `there is no file ${name}`, { cause: error })
    case 'EACCES':
      return new NexusError('NEXUS_DENIED', `you may not read ${name}`, { cause: error })
    case 'EISDIR':
      return usage(`${name} is a directory: give a file`)
    default:
      return error
  }
}
