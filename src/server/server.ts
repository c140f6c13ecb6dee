/** Serves the calls of the control API over HTTP on a unix socket (`protocol.ts` has the shape). */
import { lstat, unlink } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Service } from '../api/calls.ts'
import { type CallName, invokeCall, isCallName } from '../api/calls.ts'
import { callPrefix, httpStatusOf, toErrorAnswer } from '../api/protocol.ts'
import { shown, usage } from '../api/text.ts'
import { type ErrorCode, NexusError, systemCode } from '../errors.ts'
import { openAddress, type SocketAddress } from '../host/address.ts'
import { Callers } from './callers.ts'
import { type Exchange, endWith, refuseMalformed } from './refusal.ts'

const bodyBytesMax = 1024 * 1024
/** What is read of a body that is too large before the connection is given up. */
const drainBytesMax = 16 * bodyBytesMax
/** How long `close()` waits for the calls at work before it cuts them off. */
const closeGraceMs = 5000
/** Leaves 0600, or 0666, of the 0777 that bind(2) starts from. */
const privateUmask = 0o177
const publicUmask = 0o111
/** How long it may take to ask, and how often that is looked at. */
const askingTimes = { headersTimeout: 5000, requestTimeout: 30_000, connectionsCheckingInterval: 1000 }
/** All that is refused is refused by `answer`, in JSON. */
const serverOptions = { ...askingTimes, requireHostHeader: false }
const answeringTimes = {
  /** within this a call is answered; what takes longer goes on without its caller */
  callMsMax: 10 * 60 * 1000,
  /** a client that takes in nothing of its answer for this long is cut off */
  answerIdleMs: 30_000,
}

/** The part of a pino logger that is used here. */
export interface ControlLogger {
  error(details: object, message: string): void
}

export interface ControlServer {
  /** stops accepting, lets the calls at work end for a few seconds, and removes the socket */
  close(): Promise<void>
}

export interface ControlOptions {
  socketPath: string
  logger: ControlLogger
  /** for tests: other limits */
  limits?: Partial<typeof askingTimes & typeof answeringTimes>
}

/** What a socket that every user may connect to goes by. */
export interface Doorkeeper {
  /** the user at the other end of a connected socket, by its descriptor */
  uidOf(fd: number): number
  /** what the user may call, and with what */
  serviceFor(uid: number): Service
}

/**
 * Listens on `socketPath` for the daemon's own user (mode 0600, its directory must exist). A socket
 * file that nobody answers on is replaced; the data directory's lock, held by the caller, keeps two
 * daemons from doing so at once. Rejects with NEXUS_BUSY when somebody answers.
 */
export function serveControl(service: Service, options: ControlOptions): Promise<ControlServer> {
  const server = createServer({ ...serverOptions, ...options.limits })
  return serve(server, { ...options, umask: privateUmask, during: (_, call) => call(service) })
}

/** The same for everybody (mode 0666): each is known by his uid, and there is a limit to how many come at a time. */
export function serveEverybody({ uidOf, serviceFor }: Doorkeeper, options: ControlOptions): Promise<ControlServer> {
  const server = createServer({ ...serverOptions, ...options.limits })
  const callers = new Callers(uidOf)
  server.on('connection', (socket: Socket) => callers.enter(socket))
  const during: Serving['during'] = (socket, call) => callers.during(socket, (uid) => call(serviceFor(uid)))
  return serve(server, { ...options, umask: publicUmask, during })
}

interface Serving extends ControlOptions {
  umask: number
  /** runs a call with what the other end may use; throws when that is nothing */
  during(socket: Socket, call: (service: Service) => Promise<unknown>): Promise<unknown>
}

async function serve(server: Server, { socketPath, logger, umask, during, limits }: Serving): Promise<ControlServer> {
  const address = openAddress(socketPath)
  const exchanges = new WeakMap<Socket, Exchange>()
  const take = (request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = request
    // A connection is one call: many at once in one would pass every limit by.
    if (exchanges.has(socket)) {
      socket.destroy()
      return
    }
    exchanges.set(socket, { request, response })
    const { callMsMax, answerIdleMs } = { ...answeringTimes, ...limits }
    const run: Run = (name, call) => withinLimit(during(socket, call), { name, ms: callMsMax, logger })
    // The answer is all that comes now.
    response.once('prefinish', () => socket.setTimeout(answerIdleMs, () => socket.destroy()))
    void answer(run, logger, request, response)
  }
  server.on('request', take)
  server.on('checkExpectation', take)
  refuseMalformed(server, (socket) => exchanges.get(socket))
  try {
    await clearStale(address.path, socketPath)
    await listen(server, address.path, umask)
  } catch (error) {
    address.close()
    throw error
  }
  server.on('error', (error) => logger.error({ err: error }, 'control socket failed'))
  return { close: once(() => close(server, address)) }
}

/** Closing twice is quiet: both wait for the one closing. */
function once<T>(run: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined
  return () => {
    result ??= run()
    return result
  }
}

async function clearStale(path: string, shownPath: string): Promise<void> {
  const stat = await lstat(path).catch(absent)
  if (stat === undefined) return
  if (!stat.isSocket()) throw new NexusError('NEXUS_EXISTS', `${shownPath} is not a socket: move it away`)
  if (await somebodyAnswers(path)) {
    throw new NexusError('NEXUS_BUSY', `another nexusd answers on ${shownPath}: unmount it first, or use another --data`)
  }
  await unlink(path).catch(absent)
}

function absent(error: unknown): undefined {
  if (systemCode(error) !== 'ENOENT') throw error
}

/** Only a refused connection proves that nobody is there: a full queue, say, is a live daemon. */
function somebodyAnswers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error) => resolve(!['ECONNREFUSED', 'ENOENT'].includes(systemCode(error) ?? '')))
  })
}

function listen(server: Server, path: string, socketUmask: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', () => {
      server.off('error', reject)
      resolve()
    })
    // bind(2) runs inside listen(), so the file never exists with a wider mode.
    const umask = process.umask(socketUmask)
    try {
      server.listen(path)
    } finally {
      process.umask(umask)
    }
  })
}

function close(server: Server, address: SocketAddress): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), closeGraceMs)
    server.close(() => {
      clearTimeout(timer)
      // Only now: closing the server has removed the socket file by this address.
      address.close()
      resolve()
    })
  })
}

type Run = (name: string, call: (service: Service) => Promise<unknown>) => Promise<unknown>

async function answer(run: Run, logger: ControlLogger, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const body = await readBody(request)
    const result = await run(request.url ?? '', (service) => invokeCall(service, callOf(request), parse(body)))
    send(response, 200, result)
  } catch (error) {
    // A client that hung up while sending is nobody's failure, and nobody hears the answer.
    if (!request.complete && request.socket.destroyed) return
    const known = toNexusError(error)
    if (known.code === 'NEXUS_INTERNAL') logger.error({ err: error, url: request.url }, 'control call failed')
    if (request.complete) send(response, httpStatusOf[known.code], toErrorAnswer(known))
    else endWith(request.resume().socket, known)
  }
}

/** Answers for a call that takes too long. It goes on, and keeps its place, because nothing can be stopped half done. */
async function withinLimit(
  call: Promise<unknown>,
  { name, ms, logger }: { name: string; ms: number; logger: ControlLogger },
): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new NexusError('NEXUS_TIMEOUT', `nexusd has not done this within ${ms / 1000} s, and goes on with it: look at its log`),
      )
      logger.error({ call: name, waited_s: ms / 1000 }, 'a control call takes too long: its caller is told, and it goes on')
      call.catch((error: unknown) => logger.error({ err: error, call: name }, 'a control call failed after its caller was told'))
    }, ms)
    // A daemon that ends does not wait for it.
    timer.unref()
  })
  try {
    return await Promise.race([call, late])
  } finally {
    clearTimeout(timer)
  }
}

function callOf(request: IncomingMessage): CallName {
  const url = request.url ?? ''
  const name = url.slice(callPrefix.length)
  if (!url.startsWith(callPrefix) || !isCallName(name)) {
    throw new NexusError('NEXUS_UNSUPPORTED', `this nexusd has no call ${shown(url)}: is it older than its client?`)
  }
  if (request.method !== 'POST') throw usage(`${url} must be called with POST`)
  return name
}

/** Reads on even when it is too much: most clients learn the answer only after sending all. */
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes <= bodyBytesMax) parts.push(part)
    if (bytes > drainBytesMax) break
  }
  if (bytes > bodyBytesMax) throw usage(`the body is too large: at most ${bodyBytesMax} bytes`)
  return Buffer.concat(parts)
}

/** An empty body is an empty object, so that calls without arguments need none. */
function parse(body: Buffer): unknown {
  if (body.length === 0) return {}
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch (error) {
    throw new NexusError('NEXUS_USAGE', 'the body is not JSON in UTF-8', { cause: error })
  }
}

const storeFailures: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ENOSPC: ['NEXUS_NO_SPACE', 'the disk of the data directory is full: free some space and try again'],
  EDQUOT: ['NEXUS_NO_SPACE', 'the disk quota of the data directory is used up: free some space and try again'],
  EROFS: ['NEXUS_READ_ONLY', 'the data directory is on a read-only disk: make it writable and mount again'],
}

/** What the caller is told: nothing of a bug but that it is in the log. */
function toNexusError(error: unknown): NexusError {
  if (error instanceof NexusError) return error
  const failure = storeFailures[systemCode(error) ?? '']
  if (failure !== undefined) return new NexusError(...failure, { cause: error })
  return new NexusError('NEXUS_INTERNAL', "nexusd met a bug of its own: the daemon's log has the details")
}

function send(response: ServerResponse, status: number, result: unknown): void {
  const text = `${JSON.stringify(result)}\n`
  // Without keep-alive, closing the server never waits for an idle client.
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  })
  response.end(text)
}
