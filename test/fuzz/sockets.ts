/** Both ends of a control socket by hand: what is written to one, and what comes back until it is closed. */
import { connect, type Socket } from 'node:net'
import { httpStatusOf } from '../../src/api/protocol.ts'

/** Whatever is done on it, a connection has ended by then: those who wait longer than this have found a hole. */
const CLOSED_MS_MAX = 8000

export interface Heard {
  text: string
  ms: number
}

/** Connects, lets `say` write, and resolves with all that came when the other end has closed. */
export function talk(socketPath: string, say: (socket: Socket) => void): Promise<Heard> {
  return new Promise((resolve, reject) => {
    const begun = performance.now()
    const socket = connect({ path: socketPath, allowHalfOpen: true })
    const parts: Buffer[] = []
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Error(`it is still connected, and has said ${Buffer.concat(parts).toString('latin1').slice(0, 200)}`))
    }, CLOSED_MS_MAX)
    socket.on('data', (part) => parts.push(part))
    // Cut off while it sent: what came before counts.
    socket.on('error', () => undefined)
    socket.on('end', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(timer)
      resolve({ text: Buffer.concat(parts).toString('latin1'), ms: performance.now() - begun })
    })
    socket.on('connect', () => say(socket))
  })
}

export interface Answered {
  status: number
  /** undefined when it is an answer and no error */
  code: string | undefined
  message: string
}

/** The answer that somebody heard; undefined when there was none. Throws when it is none that docs/cli-abi.md allows. */
export function answerOf({ text }: Heard): Answered | undefined {
  const heard = text.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '')
  if (heard === '') return undefined
  const [, status, head = '', body = ''] = /^HTTP\/1\.1 (\d{3}) [^\r]*\r\n([\s\S]*?)\r\n\r\n([\s\S]*)$/.exec(heard) ?? []
  if (status === undefined) throw new Error(`this is no answer: ${heard.slice(0, 300)}`)
  if (!/^content-type: application\/json$/im.test(head)) throw new Error(`the answer is not JSON: ${heard.slice(0, 300)}`)
  const [, length] = /^content-length: (\d+)$/im.exec(head) ?? []
  if (Number(length) !== Buffer.byteLength(body, 'latin1')) throw new Error(`the answer is cut, or there are two: ${heard}`)
  return typed(Number(status), JSON.parse(Buffer.from(body, 'latin1').toString('utf8')))
}

/** An answer by its status and body. */
export function typed(status: number, answer: unknown): Answered {
  if (status === 200) return { status, code: undefined, message: '' }
  const { code, message } = (answer as { error: { code: keyof typeof httpStatusOf; message: string } }).error
  if (httpStatusOf[code] !== status || message.length < 5) throw new Error(`status ${status} with ${code}: ${message}`)
  return { status, code, message }
}
