/** The control API from another process: a `Service` whose calls travel to the daemon's socket. */
import { type IncomingMessage, request } from 'node:http'
import { NexusError, systemCode } from '../errors.ts'
import { openAddress } from './address.ts'
import { type CallName, callNames, encodeCall } from './calls.ts'
import { callPrefix, fromErrorAnswer } from './protocol.ts'
import type { Service } from './service.ts'

/** Long enough for a restore or delete that has millions of kernel entries to drop. */
const callTimeoutMs = 10 * 60 * 1000

export interface ClientOptions {
  /** or how to find it, which is asked at each call */
  socketPath: string | (() => Promise<string>)
  /** the longest wait for one call; 10 minutes unless told */
  timeoutMs?: number
}

interface Reply {
  status: number
  text: string
}

/**
 * A client of the daemon on `socketPath`. Nothing is sent before the first call, and each call
 * has a connection of its own, so there is nothing to close.
 */
export function connectControl({ socketPath, timeoutMs = callTimeoutMs }: ClientOptions): Service {
  const methods = callNames.map((name) => {
    const method = async (...args: unknown[]) => {
      const body = JSON.stringify(encodeCall(name, args))
      const found = typeof socketPath === 'string' ? socketPath : await socketPath()
      return resultOf(await send(name, body, { socketPath: found, timeoutMs }), found)
    }
    return [name, method]
  })
  // The table of calls has a row for each method of Service: its type demands it.
  return Object.fromEntries(methods) as Service
}

function send(
  name: CallName,
  body: string,
  { socketPath, timeoutMs }: { socketPath: string; timeoutMs: number },
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
    sent.on('response', (response) => read(response).then(resolve, reject))
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

async function read(response: IncomingMessage): Promise<Reply> {
  const parts: Buffer[] = []
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part)
  return { status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }
}

function resultOf({ status, text }: Reply, socketPath: string): unknown {
  const strange = new NexusError('NEXUS_INTERNAL', `what answers on ${socketPath} does not speak as nexusd does`)
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    throw strange
  }
  if (status === 200) return answer
  throw fromErrorAnswer(answer) ?? strange
}

function timeout(name: CallName, timeoutMs: number): NexusError {
  const seconds = timeoutMs / 1000
  return new NexusError('NEXUS_TIMEOUT', `nexusd did not answer ${name} within ${seconds} s: it may still be at work`)
}

/** The words for a connection that failed. */
function explain(error: unknown, name: CallName, socketPath: string): unknown {
  switch (systemCode(error)) {
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
      return new NexusError('NEXUS_NOT_RUNNING', `nexusd went away during ${name}: see its log, and whether it was done`, {
        cause: error,
      })
    case 'EAGAIN':
      return new NexusError('NEXUS_BUSY', `the nexusd on ${socketPath} has too many callers: try again`, {
        cause: error,
      })
    default:
      return error
  }
}
