/** The socket for everybody: who calls, and how many at a time. */
import { statSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { connectControl } from '../../src/client/client.ts'
import { peerCredentials } from '../../src/fuse/binding.ts'
import { serveEverybody } from '../../src/server/server.ts'
import { fakeService, memoryLogger, scratchDir, status } from '../service/fake-service.ts'

interface Door {
  socketPath: string
  /** uids that were served, in order */
  served: number[]
  /** the uid of whoever connects next, and of those after him */
  uid: unknown
}

async function doorFor(t: Test, overrides: Partial<Service> = {}): Promise<Door> {
  const door: Door = { socketPath: join(scratchDir(t), 'users.sock'), served: [], uid: 1001 }
  const serviceFor = (uid: number): Service => {
    door.served.push(uid)
    return fakeService(overrides)
  }
  const uidOf = (): number => {
    if (door.uid instanceof Error) throw door.uid
    return door.uid as number
  }
  const server = await serveEverybody({ uidOf, serviceFor }, { socketPath: door.socketPath, logger: memoryLogger() })
  t.teardown(() => server.close())
  return door
}

/** A connection that asks nothing until it is told to. */
async function idle(t: Test, { socketPath }: Door): Promise<Socket> {
  const socket = connect(socketPath)
  t.teardown(() => socket.destroy())
  socket.on('error', () => undefined)
  await new Promise((resolve) => socket.once('connect', resolve))
  // The server takes it in on a turn of its own.
  await sleep(5)
  return socket
}

const REQUEST = 'POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}'

/** What a connection is sent until it ends. */
async function rest(socket: Socket): Promise<string> {
  let text = ''
  socket.on('data', (part: Buffer) => {
    text += part.toString()
  })
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

t.test('the socket is for everybody, and each is who the kernel says', async (t) => {
  const socketPath = join(scratchDir(t), 'users.sock')
  const served: number[] = []
  const serviceFor = (uid: number): Service => {
    served.push(uid)
    return fakeService()
  }
  const uidOf = (fd: number): number => peerCredentials(fd).uid
  const server = await serveEverybody({ uidOf, serviceFor }, { socketPath, logger: memoryLogger() })
  t.teardown(() => server.close())
  t.equal(statSync(socketPath).mode & 0o7777, 0o666)
  t.strictSame(await connectControl({ socketPath }).status(), status)
  t.strictSame(served, [process.geteuid?.()])
})

t.test('a user has eight connections, and nobody else loses by that', async (t) => {
  const door = await doorFor(t)
  const client = connectControl({ socketPath: door.socketPath })
  const held: Socket[] = []
  for (let i = 0; i < 8; i++) held.push(await idle(t, door))
  await t.rejects(client.status(), { code: 'NEXUS_BUSY', message: 'nexusd is busy: this user has 8 calls at work; try again' })
  door.uid = 1002
  t.strictSame(await client.status(), status)
  door.uid = 1001
  held[0]?.destroy()
  await sleep(20)
  t.strictSame(await client.status(), status, 'a place that is free again')
  held[1]?.write(REQUEST)
  t.match(await rest(held[1] as Socket), /^HTTP\/1.1 200/, 'those inside are served')
  t.strictSame(door.served, [1002, 1001, 1001])
})

t.test('no number of users with slow connections keeps others out', async (t) => {
  const door = await doorFor(t)
  const slow: Socket[] = []
  for (let i = 0; i < 64; i++) {
    door.uid = 2000 + Math.floor(i / 8)
    const socket = await idle(t, door)
    // Some have begun to ask.
    if (i % 2 === 0) socket.write('POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Le')
    slow.push(socket)
  }
  const client = connectControl({ socketPath: door.socketPath })
  const told = rest(slow[0] as Socket)
  for (let uid = 3000; uid < 3020; uid++) {
    door.uid = uid
    t.strictSame(await client.status(), status, `uid ${uid}`)
    // The place is taken again by those who had it.
    door.uid = 2000 + (uid % 8)
    slow.push(await idle(t, door))
  }
  await told
  slow[1]?.write(REQUEST)
  t.match(
    await rest(slow[1] as Socket),
    /NEXUS_BUSY.*another user needed the place|^$/,
    'whose place was taken is told, or cut off',
  )
  // One connection each, of as many users as there are places.
  for (const socket of slow) socket.destroy()
  await sleep(50)
  const one: Socket[] = []
  for (door.uid = 5000; (door.uid as number) < 5064; (door.uid as number)++) one.push(await idle(t, door))
  door.uid = 6000
  t.strictSame(await client.status(), status, 'a user with none takes the place of a slow one')
})

t.test('who is slow to take in an answer has no place for long when others need it', async (t) => {
  const big = { subjects: Array.from({ length: 400_000 }, (_, i) => `user:u${i}`) }
  const door = await doorFor(t, { whoCan: async () => big })
  const body = JSON.stringify({ permission: 'read', path: '/workspace/a' })
  const head = `POST /v1/whoCan HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n`
  for (let i = 0; i < 64; i++) {
    door.uid = 2000 + Math.floor(i / 8)
    const socket = await idle(t, door)
    socket.pause()
    socket.write(head + body)
  }
  while (door.served.length < 64) await sleep(5)
  await sleep(50)
  door.uid = 3000
  t.strictSame(await connectControl({ socketPath: door.socketPath }).status(), status)
})

t.test('calls at work keep their places, and a user without any gets one more', async (t) => {
  const door = await doorFor(t, { checkpoint: () => new Promise(() => undefined) })
  const atWork = async (): Promise<void> => {
    const socket = await idle(t, door)
    const before = door.served.length
    socket.write(REQUEST.replace('status', 'checkpoint'))
    while (door.served.length === before) await sleep(2)
  }
  for (let i = 0; i < 64; i++) {
    door.uid = 2000 + Math.floor(i / 8)
    await atWork()
  }
  door.uid = 3000
  const client = connectControl({ socketPath: door.socketPath })
  t.strictSame(await client.status(), status)
  await atWork()
  await t.rejects(client.status(), { code: 'NEXUS_BUSY', message: /all users together have 65 calls at work; try again/ })
  for (door.uid = 4000; (door.uid as number) < 4063; (door.uid as number)++) await atWork()
  door.uid = 5000
  await t.rejects(client.status(), { code: 'NEXUS_BUSY', message: /all users together have 128 calls at work; try again/ })
  const refused: Socket[] = []
  for (let i = 0; i < 64; i++) refused.push(await idle(t, door))
  await t.rejects(client.status(), { code: 'NEXUS_NOT_RUNNING' }, 'not even told any more')
  await Promise.all(refused.map((socket) => socket.destroyed || new Promise((resolve) => socket.once('close', resolve))))
  await t.rejects(client.status(), { code: 'NEXUS_BUSY' })
})

t.test('a call keeps its place when its caller does not wait', async (t) => {
  let release = (): void => undefined
  const gate = new Promise<{ elapsed_ms: number }>((resolve) => {
    release = () => resolve({ elapsed_ms: 1 })
  })
  const door = await doorFor(t, { checkpoint: () => gate })
  for (let i = 0; i < 8; i++) {
    const socket = await idle(t, door)
    socket.write(REQUEST.replace('status', 'checkpoint'))
    await sleep(10)
    socket.destroy()
  }
  await sleep(50)
  const client = connectControl({ socketPath: door.socketPath })
  await t.rejects(client.status(), { code: 'NEXUS_BUSY' })
  release()
  await sleep(20)
  t.strictSame(await client.status(), status)
})

t.test('a connection is one call', async (t) => {
  const door = await doorFor(t, { checkpoint: () => new Promise(() => undefined) })
  const socket = await idle(t, door)
  const checkpoint = REQUEST.replace('status', 'checkpoint')
  socket.write(`${checkpoint}${checkpoint}${checkpoint}`)
  t.equal(await rest(socket), '')
  t.equal(door.served.length, 1)
  const old = await idle(t, door)
  old.write(checkpoint.replace('HTTP/1.1', 'HTTP/1.0').replace('Host: x', 'Connection: keep-alive').repeat(3))
  await rest(old)
  t.equal(door.served.length, 2)
})

t.test('nobody is served whom the kernel does not name', async (t) => {
  const door = await doorFor(t)
  const client = connectControl({ socketPath: door.socketPath })
  for (const uid of [-1, 0xffff_ffff, 1.5, Number.NaN, undefined, '0', new Error('EBADF')]) {
    door.uid = uid
    await t.rejects(client.status(), { code: 'NEXUS_NOT_RUNNING' }, String(uid))
  }
  t.strictSame(door.served, [])
})

t.test('who connects and does not ask is cut off', async (t) => {
  const door = await doorFor(t)
  const [silent, slow] = [await idle(t, door), await idle(t, door)]
  slow.write('POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Le')
  const start = Date.now()
  const late = /^HTTP\/1\.1 504 [\s\S]*"code":"NEXUS_TIMEOUT"/
  t.match(await Promise.all([rest(silent), rest(slow)]), [late, late])
  t.ok(Date.now() - start < 10_000)
})
