/** What comes over a socket and is no request: it is told so in JSON, as far as HTTP allows, and its connection ends. */
import { type IncomingMessage, maxHeaderSize, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { callPrefix, httpStatusOf, toErrorAnswer } from '../api/protocol.ts'
import { usage } from '../api/text.ts'
import { NexusError, systemCode } from '../errors.ts'

/** How long whoever still sends may go on before the connection is cut: until then he can read why. */
const lingerMs = 1000

/** A request that is being read or answered. */
export interface Exchange {
  request: IncomingMessage
  response: ServerResponse
}

/** @param exchangeOn what a connection is used for, if it has come so far */
export function refuseMalformed(server: Server, exchangeOn: (socket: Socket) => Exchange | undefined): void {
  // A parser that has failed says so for every further part.
  const refused = new WeakSet<Socket>()
  const refuse = (socket: Socket, error: NexusError): void => {
    if (refused.has(socket)) return
    refused.add(socket)
    socket.on('error', () => undefined)
    const exchange = exchangeOn(socket)
    // Behind a whole request comes nothing that is answered, and into an answer goes nothing else.
    const isTaken = exchange !== undefined && (exchange.request.complete || exchange.response.headersSent)
    if (isTaken || !socket.writable) socket.destroy()
    else endWith(socket, error)
  }
  server.on('clientError', (error, socket) => refuse(socket as Socket, explain(error)))
  server.on('connect', (_request, socket) => refuse(socket as Socket, usage(`nexusd is no proxy: POST ${callPrefix}<call>`)))
}

/** Answers what is still being sent, and ends the connection a moment later. */
export function endWith(socket: Socket, error: NexusError): void {
  const status = httpStatusOf[error.code]
  const text = `${JSON.stringify(toErrorAnswer(error))}\n`
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(text)}`,
    'connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${text}`)
  socket.resume()
  const timer = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(timer))
}

/** The words for what Node's parser makes of it. */
function explain(error: Error): NexusError {
  const code = systemCode(error) ?? error.name
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return usage(`the header is too large: at most ${maxHeaderSize} bytes`)
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new NexusError('NEXUS_TIMEOUT', 'the request did not come to its end in time: send it at once')
    default:
      return usage(`this is no HTTP request (${code}): POST ${callPrefix}<call> with a JSON object`)
  }
}
