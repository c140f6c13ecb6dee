/** GET /metrics over HTTP, for those who scrape: one address, one path, and nothing that has a name in the filesystem. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { EXPOSITION_TYPE, exposition } from '../api/exposition.ts'
import type { MetricsInfo } from '../api/metrics.ts'
import { NexusError, systemCode } from '../errors.ts'
import type { Logger } from '../logger.ts'

const CONNECTIONS_MAX = 16
const TIMES = { headersTimeout: 5000, requestTimeout: 5000, keepAliveTimeout: 5000, connectionsCheckingInterval: 1000 }
/** How often a process that takes over tries to get the port, should somebody else have it. */
const RETRY_MS = 1000

export interface ScrapeAddress {
  host: string
  port: number
}

/**
 * `127.0.0.1:9469`, `[::1]:9469` or `localhost:9469`. Another machine's way in is opened only by writing the very address:
 * no name but localhost is looked up, and no address is assumed.
 * @throws NexusError NEXUS_USAGE
 */
export function parseScrapeAddress(text: string): ScrapeAddress {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  const isAddress = bracketed === undefined ? plain === 'localhost' || isIP(plain ?? '') === 4 : isIP(bracketed) === 6
  if (host === undefined || !isAddress || port < 1 || port > 65535) {
    throw new NexusError(
      'NEXUS_USAGE',
      `--metrics takes an address and a port such as 127.0.0.1:9469, not ${JSON.stringify(text)}`,
    )
  }
  return { host, port }
}

/**
 * Why a request is refused: a browser sends it for a page of another site. A browser names the page's site as Origin; where
 * that site's name was made to lead to this machine (DNS rebinding), it names it as Host. A port of this machine alone is
 * asked for by an address of this machine or as localhost.
 */
export function refusalOf({ headers }: Pick<IncomingMessage, 'headers'>, listensOn: string): string | undefined {
  if (headers.origin !== undefined) return 'pages of other sites are not answered'
  if (!isLoopback(listensOn) || headers.host === undefined) return undefined
  const name = headers.host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
  return isLoopback(name.toLowerCase()) ? undefined : 'ask for it as localhost or by the address that it listens on'
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

/** Listens before there is anything to tell. */
export class Scrape {
  readonly #server: Server
  readonly #address: ScrapeAddress
  #measure: (() => MetricsInfo) | undefined
  #retry: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(address: ScrapeAddress) {
    this.#address = address
    this.#server = createServer(TIMES, (request, response) => this.#answer(request, response))
    this.#server.maxConnections = CONNECTIONS_MAX
  }

  /** @throws NexusError NEXUS_BUSY, NEXUS_USAGE when this machine does not have the address */
  async listen(): Promise<void> {
    const { host, port } = this.#address
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject)
        this.#server.listen({ host, port }, () => {
          this.#server.off('error', reject)
          resolve()
        })
      })
    } catch (error) {
      const code = systemCode(error)
      if (code === 'EADDRINUSE')
        throw new NexusError('NEXUS_BUSY', `--metrics: another program listens on ${host} port ${port}: choose another`)
      throw new NexusError('NEXUS_USAGE', `--metrics: cannot listen on ${host} port ${port} (${code}): choose another`)
    }
  }

  /** The same for a mount that is there already, and is worth more than its numbers: tries until it has the port. */
  async listenSometime(logger: Logger): Promise<void> {
    try {
      await this.listen()
    } catch (error) {
      logger.warn({ err: error }, 'the metrics are not served yet: it is tried again')
      if (!this.#isClosed) this.#retry = setTimeout(() => void this.listenSometime(logger), RETRY_MS).unref()
    }
  }

  serve(measure: () => MetricsInfo): void {
    this.#measure = measure
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#retry)
    if (!this.#server.listening) return
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const say = (status: number, text: string): void => {
      response.writeHead(status, { 'content-type': EXPOSITION_TYPE, 'content-length': Buffer.byteLength(text) })
      response.end(text)
    }
    const refusal = refusalOf(request, this.#address.host)
    if (refusal !== undefined) say(403, `${refusal}\n`)
    else if (request.url?.split('?')[0] !== '/metrics') say(404, 'only /metrics is served\n')
    else if (request.method !== 'GET') say(405, 'only GET is served\n')
    else if (this.#measure === undefined) say(503, 'not mounted yet\n')
    else say(200, exposition(this.#measure()))
  }
}
