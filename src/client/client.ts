/** The control API from another process: a `Service` whose calls travel to the daemon's socket. */
import { type IncomingMessage, request } from 'node:http'
import type { Service } from '../api/calls.ts'
import { type CallName, callNames, checkAnswer, encodeCall } from '../api/calls.ts'
import { callPrefix, fromErrorAnswer } from '../api/protocol.ts'
import { UnlikeAnswer } from '../api/schema.ts'
import { NexusError, systemCode } from '../errors.ts'
import { openAddress } from '../host/address.ts'

/** A little longer than the daemon itself lets a call take (server.ts), which knows better what it is at. */
const callTimeoutMs = 10.5 * 60 * 1000
/** Far more than any answer has, and less than a string may hold. */
const answerBytesMax = 256 * 1024 * 1024

export interface ClientOptions {
  /** or how to find it, which is asked at each call */
  socketPath: string | (() => Promise<string>)
  /** the longest wait for one call; 10 and a half minutes unless told */
  timeoutMs?: number
  /** the largest answer that is read; 256 MiB unless told */
  bytesMax?: number
}

interface Reply {
  status: number
  text: string
}

/**
 * A client of the daemon on `socketPath`. Nothing is sent before the first call, and each call
 * has a connection of its own, so there is nothing to close.
 */
export function connectControl({ socketPath, timeoutMs = callTimeoutMs, bytesMax = answerBytesMax }: ClientOptions): Service {
  const methods = callNames.map((name) => {
    const method = async (...args: unknown[]) => {
      const body = JSON.stringify(encodeCall(name, args))
      const found = typeof socketPath === 'string' ? socketPath : await socketPath()
      return resultOf(name, await send(name, body, { socketPath: found, timeoutMs, bytesMax }), found)
    }
    return [name, method]
  })
  // The table of calls has a row for each method of Service: its type demands it.
  return Object.fromEntries(methods) as Service
}

function send(
  name: CallName,
  body: string,
  { socketPath, timeoutMs, bytesMax }: { socketPath: string; timeoutMs: number; bytesMax: number },
): Promise<Reply> {
  return new Promise<Reply>((resolve, reject) => {
    const address = openAddress(socketPath)
    const sent = request({
      socketPath: address.path,
      agent: false,
      method: 'POST',
      path: `${callPrefix}${name}`,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    })
    const timer = setTimeout(() => {
      reject(timeout(name, timeoutMs))
      sent.destroy()
    }, timeoutMs)
    sent.on('response', (response) => read(response, bytesMax).then(resolve, reject))
    // An answer to nothing that was asked; nobody would read on.
    sent.on('upgrade', (_response, socket) => {
      reject(strange(socketPath))
      socket.destroy()
    })
    sent.on('error', reject)
    sent.on('close', () => {
      clearTimeout(timer)
      address.close()
    })
    sent.end(body)
  }).catch((error: unknown) => {
    throw explain(error, name, socketPath)
  })
}

/** Nothing is read beyond the limit: leaving the loop ends the connection. */
async function read(response: IncomingMessage, bytesMax: number): Promise<Reply> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > bytesMax)
      throw new NexusError('NEXUS_INTERNAL', `an answer of more than ${bytesMax} bytes was not read: ask for less`)
    parts.push(part)
  }
  return { status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }
}

function resultOf(name: CallName, { status, text }: Reply, socketPath: string): unknown {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    throw strange(socketPath)
  }
  if (status !== 200) throw fromErrorAnswer(answer) ?? strange(socketPath)
  try {
    checkAnswer(name, answer)
    return answer
  } catch (error) {
    if (!(error instanceof UnlikeAnswer)) throw error
    const what = `the nexusd on ${socketPath} answers ${name} with something else than this program knows (${error.message})`
    throw new NexusError('NEXUS_INTERNAL', `${what}: are they of one version? "nexusd upgrade" changes the one that serves`)
  }
}

function strange(socketPath: string): NexusError {
  return new NexusError('NEXUS_INTERNAL', `what answers on ${socketPath} does not speak as nexusd does`)
}

function timeout(name: CallName, timeoutMs: number): NexusError {
  const seconds = timeoutMs / 1000
  return new NexusError('NEXUS_TIMEOUT', `nexusd did not answer ${name} within ${seconds} s: it may still be at work`)
}

/** The words for a connection that failed. */
function explain(error: unknown, name: CallName, socketPath: string): NexusError {
  if (error instanceof NexusError) return error
  const code = systemCode(error)
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return new NexusError(
        'NEXUS_NOT_RUNNING',
        `no nexusd answers on ${socketPath}: start it with "nexusd mount /mnt/nexus", or name its data directory with --data`,
        { cause: error },
      )
    case 'EACCES':
    case 'EPERM':
      return new NexusError(
        'NEXUS_DENIED',
        `you may not talk to the nexusd on ${socketPath}: be the user who started it or root, or name your own data directory with --data`,
        { cause: error },
      )
    case 'ECONNRESET':
    case 'EPIPE':
    case 'HPE_INVALID_EOF_STATE':
      return new NexusError('NEXUS_NOT_RUNNING', `nexusd went away during ${name}: see its log, and whether it was done`, {
        cause: error,
      })
    case 'EAGAIN':
      return new NexusError('NEXUS_BUSY', `the nexusd on ${socketPath} has too many callers: try again`, {
        cause: error,
      })
    default:
      if (code?.startsWith('HPE_')) return strange(socketPath)
      return new NexusError('NEXUS_INTERNAL', `cannot talk to what answers on ${socketPath}: ${wordsOf(error)}`, { cause: error })
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
