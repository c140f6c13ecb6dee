/** Who is answered by GET /metrics: those who ask for it, and no page of another site in a browser. */
import http from 'node:http'
import type net from 'node:net'
import { test } from 'tap'
import { refusalOf, Scrape } from '../../src/server/scrape.ts'

const HERE = '127.0.0.1'
const ROWS: [name: string, listensOn: string, headers: Record<string, string>, isAnswered: boolean][] = [
  ['its address', HERE, { host: '127.0.0.1:9469' }, true],
  ['another address of this machine', HERE, { host: '127.0.0.2:9469' }, true],
  ['without a port', HERE, { host: 'localhost' }, true],
  ['in capitals', HERE, { host: 'LOCALHOST:9469' }, true],
  ['IPv6', '::1', { host: '[::1]:9469' }, true],
  ['HTTP/1.0', HERE, {}, true],
  ['a name that leads here', HERE, { host: 'attacker.example:9469' }, false],
  ['a name that begins as one of ours', HERE, { host: '127.0.0.1.attacker.example:9469' }, false],
  ['a name that ends as one of ours', HERE, { host: 'attacker.localhost:9469' }, false],
  ['an empty name', HERE, { host: '' }, false],
  ['an address elsewhere', 'localhost', { host: '192.0.2.1:9469' }, false],
  ['a page', HERE, { host: '127.0.0.1:9469', origin: 'https://attacker.example' }, false],
  ['a page without an origin of its own', HERE, { host: '127.0.0.1:9469', origin: 'null' }, false],
  ['a port for the network, by a name', '192.0.2.1', { host: 'store.example:9469' }, true],
  ['a port for the network, from a page', '0.0.0.0', { host: 'store.example:9469', origin: 'https://store.example' }, false],
]

test('which requests are refused', async (t) => {
  for (const [name, listensOn, headers, isAnswered] of ROWS)
    t.equal(refusalOf({ headers }, listensOn) === undefined, isAnswered, name)
})

test('a refused request is told why, and nothing else', async (t) => {
  const probe = http.createServer().listen(0, HERE)
  await new Promise((resolve) => probe.once('listening', resolve))
  const { port } = probe.address() as net.AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  const scrape = new Scrape({ host: HERE, port })
  await scrape.listen()
  t.teardown(() => scrape.close())
  const ask = (headers: Record<string, string>): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const request = http.get({ host: HERE, port, path: '/metrics', headers, agent: false }, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      request.once('error', reject)
    })
  t.equal(await ask({ host: 'attacker.example' }), 403)
  t.equal(await ask({ origin: 'https://attacker.example' }), 403)
  t.equal(await ask({}), 503, 'there is nothing to tell yet')
})
