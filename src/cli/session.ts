/** What a command works with, made from the options that all commands have. */
import type { Service } from '../api/calls.ts'
import { usage } from '../api/text.ts'
import { connectControl } from '../client/client.ts'
import { findSocket, seenMounts } from '../client/find.ts'
import { systemCode } from '../errors.ts'
import { hostPathOf, hostSurroundings, resolvePath, type Shell } from '../host/location.ts'
import { jsonOutput, type Output, textOutput } from './output.ts'
import type { Terminal } from './terminal.ts'

/** The outside of the program, so that tests can stand in for it. */
export interface Host {
  env: Readonly<Record<string, string | undefined>>
  /** the shell's directory; may throw ENOENT */
  cwd(): string
  stdout(text: string | Uint8Array): void
  stderr(text: string): void
  /** true when somebody watches stderr on a terminal */
  isWatched?: boolean
  /** takes the terminal that stdin and stdout are; absent when they are none */
  terminal?: (() => Terminal) | undefined
}

/** The options that every command has. */
export interface GlobalOptions {
  json?: boolean
  data?: string
}

export interface Invocation {
  service: Service
  output: Output
  /** The path in the filesystem that a PATH argument means (`resolvePath`). */
  resolve(argument: string): Promise<string>
  /** Where this process sees a path in the filesystem; undefined where no mount shows it. */
  hostPath(path: string): Promise<string | undefined>
  /** Whether one JSON document is wanted. */
  isJson: boolean
  /** Writes what is no text in any encoding to stdout. */
  write(bytes: Uint8Array): void
  /** A line on stderr beside a result. */
  note(line: string): void
  /** Shows a line that takes the place of the one before, when somebody watches. */
  progress?: (line: string) => void
  /** Takes the terminal, where there is one and text is wanted. */
  terminal?: (() => Terminal) | undefined
}

/** Ends a command whose result was "no", once that is printed: exit status 1 without a message. */
export class AnswerIsNo extends Error {}

/** Makes the session when a command starts: only then are the options known. */
export type OpenSession = () => Invocation

export function openSession(options: GlobalOptions, host: Host): Invocation {
  const surroundings = hostSurroundings(host.env)
  let socket: Promise<string> | undefined
  const find = (path?: string) => {
    socket ??= findSocket({ data: options.data, surroundings, cwd: () => host.cwd(), path })
    return socket
  }
  const service = connectControl({ socketPath: () => find() })
  const output = options.json ? jsonOutput(host.stdout) : textOutput(host.stdout)
  let shown: Promise<Pick<Shell, 'mountpoint' | 'mounts'>> | undefined
  const mounts = () => {
    shown ??= service.status().then(({ mountpoint, data }) => ({ mountpoint, mounts: seenMounts(data, surroundings.uid) }))
    return shown
  }
  const resolve = async (argument: string) => {
    // First, because a call that is begun must be awaited.
    const cwd = cwdFor(argument, host)
    await find(argument)
    return resolvePath(argument, { cwd, ...(await mounts()) })
  }
  const hostPath = async (path: string) => hostPathOf(path, await mounts())
  const progress = (line: string): void => host.stderr(`\r\u001b[K${line}`)
  const isJson = options.json === true
  const terminal = isJson ? undefined : host.terminal
  const plain = { isJson, write: (bytes: Uint8Array) => host.stdout(bytes), note: (line: string) => host.stderr(line) }
  return { service, output, resolve, hostPath, terminal, ...plain, ...(host.isWatched === true && { progress }) }
}

/** Asked for relative paths only: the rest must work where the shell's directory was deleted. */
function cwdFor(argument: string, host: Host): string {
  if (argument === '' || argument.startsWith('/')) return '/'
  try {
    return host.cwd()
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
    throw usage('the current directory is gone: go to another with cd, or give an absolute path')
  }
}
