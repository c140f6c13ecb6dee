/** What a daemon says of itself, at real mounts: that it counts what was done, and goes on counting. */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { MetricsInfo } from '../../src/api/metrics.ts'
import type { StatusInfo } from '../../src/api/store.ts'
import type { TopInfo } from '../../src/cli/commands/top.ts'
import { parseExposition } from '../metrics/parse.ts'
import { childrenOf, mountFor, noMount, type TestMount } from './harness.ts'
import { isOneLine, mountsBelow, scratchFor } from './nexusd.ts'

const skip = noMount ?? false
const TAKEOVER_MS_MAX = 20_000

const metricsOf = (mount: TestMount) => mount.json<MetricsInfo>('metrics')

/** A port that nobody listens on, as far as anybody knows. */
async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Asks again until it is so: who takes over needs a moment. */
async function eventually<T>(ask: () => T | Promise<T>, isSo: (answer: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + TAKEOVER_MS_MAX; ; await sleep(50)) {
    try {
      const answer = await ask()
      if (isSo(answer) || Date.now() > deadline) return answer
    } catch (error) {
      if (Date.now() > deadline) throw error
    }
  }
}

t.test('counts are those of what was done', { skip }, async (t) => {
  const mount = await mountFor(t)
  const before = metricsOf(mount)
  const files = 20
  const content = Buffer.alloc(10_000, 'x')
  for (let i = 0; i < files; i++) fs.writeFileSync(mount.at(`file${i}`), content)
  for (let i = 0; i < 5; i++) fs.unlinkSync(mount.at(`file${i}`))
  const fd = fs.openSync(mount.at('file10'), 'r+')
  fs.fsyncSync(fd)
  fs.closeSync(fd)
  fs.mkdirSync(mount.at('full'))
  fs.mkdirSync(mount.at('full', 'inside'))
  t.throws(() => fs.rmdirSync(mount.at('full')), { code: 'ENOTEMPTY' })
  const after = metricsOf(mount)
  const count = (name: string) => (after.operations[name]?.count ?? 0) - (before.operations[name]?.count ?? 0)
  t.strictSame([count('CREATE'), count('WRITE'), count('UNLINK'), count('FSYNC')], [files, files, 5, 1])
  t.equal(after.written_bytes - before.written_bytes, files * content.length)
  t.strictSame(after.operations['RMDIR']?.errors, { ENOTEMPTY: 1 })
  t.ok(after.appended_bytes - before.appended_bytes >= files * content.length)
  t.ok(after.fsync.count > 0 && after.fsync.max_us > 0)
  t.ok(after.known_inodes >= files - 5 + 1, `${after.known_inodes} inodes`)
  for (const [name, { count, latency }] of Object.entries(after.operations)) {
    if (/FORGET|INTERRUPT|DESTROY|NOTIFY/.test(name)) continue
    t.equal(latency.count, count, `${name}: all were answered`)
    t.ok(latency.max_us > 1 && latency.max_us < 60e6 && latency.sum_us <= latency.max_us * count, `${name}: in microseconds`)
  }
  mount.ctl('checkpoint')
  mount.ctl('gc')
  t.match(metricsOf(mount), { checkpoint_failures: 0, collect_failures: 0, collect_phase: 'idle', takeovers: 0 })
  t.ok(metricsOf(mount).checkpoint.count >= 1)
  t.ok(metricsOf(mount).merge.count >= 1)
  t.equal(metricsOf(mount).collect.count, 1)
  t.ok(metricsOf(mount).sealed_bytes >= content.length)

  await mount.stop()
  await mount.start()
  for (let i = 5; i < files; i++) t.same(fs.readFileSync(mount.at(`file${i}`)), content)
  const read = metricsOf(mount)
  t.equal(read.read_bytes, (files - 5) * content.length)
  t.ok(read.tree_cache.hits > 0 && read.tree_cache.misses > 0)
  t.equal(read.takeovers, 0, 'a mount of its own')
})

t.test('top --once --json has the operations of an interval', { skip }, async (t) => {
  const mount = await mountFor(t)
  for (let i = 0; i < 10; i++) fs.writeFileSync(mount.at(`before${i}`), '')
  const scratch = scratchFor(t)
  const working = scratch.nexusctl(['--data', mount.data, 'top', '--once', '--json', '--interval', '1500ms'])
  // When the interval begins is up to the command, which takes its time to start.
  const made: number[] = []
  let isOver = false
  const over = working.finally(() => {
    isOver = true
  })
  for (let i = 0; !isOver; i++) {
    await fs.promises.mkdir(mount.at(`directory${i}`))
    made.push(Date.now())
    await sleep(20)
  }
  const { status, stdout, stderr } = await over
  t.strictSame({ status, stderr }, { status: 0, stderr: '' })
  const info = JSON.parse(stdout) as TopInfo
  t.ok(info.interval_s >= 1.4 && info.interval_s < 10, `${info.interval_s} s`)
  const end = Date.parse(info.at)
  const within = made.filter((at) => at > end - info.interval_s * 1000 && at <= end).length
  const told = info.operations.find(({ operation }) => operation === 'MKDIR')
  const count = told?.count ?? 0
  t.ok(count > 5 && Math.abs(count - within) <= 2, `${count} were told, ${within} made`)
  t.equal(told?.errors, 0)
  t.ok(Math.abs((told?.per_second ?? 0) - count / info.interval_s) < 0.01)
  t.ok((told?.p50_us ?? 0) > 0 && (told?.p50_us ?? 0) <= (told?.p99_us ?? 0) && (told?.p99_us ?? 0) <= (told?.max_us ?? 0))
  t.notOk(
    info.operations.some(({ operation }) => operation === 'CREATE'),
    'nothing of before',
  )

  const endless = scratch.spawn(process.execPath, [
    ...[path.resolve(import.meta.dirname, '../../bin/nexusctl.js'), '--data', mount.data, 'top', '--interval', '100ms'],
  ])
  await endless.says('OPERATION')
  await eventually(
    () => endless.stdout.split('requests ').length,
    (frames) => frames > 3,
  )
  t.ok(endless.stdout.split('requests ').length > 3, 'without a terminal, frame after frame')
  t.match(await endless.end('SIGTERM'), { stderr: '' })
})

t.test('/metrics is served, and again after the serving process died or changed', { skip }, async (t) => {
  const port = await freePort()
  const mount = await mountFor(t, { flags: ['--metrics', `127.0.0.1:${port}`] })
  const ask = async (where: string, options?: RequestInit) => await fetch(`http://127.0.0.1:${port}${where}`, options)
  const value = async (name: string): Promise<number | undefined> => {
    const families = parseExposition(await (await ask('/metrics')).text())
    return families.get(`nexus_${name}`)?.samples[0]?.value
  }
  const answer = await ask('/metrics')
  t.equal(answer.status, 200)
  t.match(answer.headers.get('content-type'), /^text\/plain; version=0\.0\.4/)
  t.ok(parseExposition(await answer.text()).size > 25)
  t.strictSame(parseExposition(mount.ctl('metrics')).size, parseExposition(await (await ask('/metrics')).text()).size)
  t.equal((await ask('/')).status, 404)
  t.equal((await ask('/metrics', { method: 'POST', body: 'x' })).status, 405)
  t.equal(await value('takeovers_total'), 0)

  const before = childrenOf(mount.pid)[0] as number
  process.kill(before, 'SIGKILL')
  t.equal(
    await eventually(
      () => value('takeovers_total'),
      (count) => count === 1,
    ),
    1,
  )
  const { takeovers, taken_over_at, pid } = mount.json<StatusInfo>('status')
  t.equal(takeovers, 1)
  t.not(pid, before)
  t.ok(Math.abs(Date.parse(taken_over_at ?? '') - Date.now()) < TAKEOVER_MS_MAX + 2000)
  t.match(mount.ctl('status'), /taken over +once, last /)
  t.strictSame(metricsOf(mount).taken_over_at, [taken_over_at])

  mount.daemonSays('upgrade', mount.mountpoint)
  t.equal(
    await eventually(
      () => value('takeovers_total'),
      (count) => count === 2,
    ),
    2,
    'an upgrade takes over too',
  )
  t.equal(await mount.stop(), 0)
  await t.rejects(ask('/metrics'), 'the port is given back')
})

t.test('a port that somebody has, and an address that is none', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const [mountpoint, data] = [scratch.dir('mnt'), scratch.at('data')]
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as net.AddressInfo
  const rows: [string, number, RegExp][] = [
    [`127.0.0.1:${port}`, 1, /--metrics: another program listens on 127\.0\.0\.1 port/],
    ['203.0.113.7:9469', 2, /--metrics: cannot listen on 203\.0\.113\.7 port 9469 \(EADDRNOTAVAIL\)/],
    ...[
      '9469',
      ':9469',
      'example.com:9469',
      '127.0.0.1',
      '127.0.0.1:0',
      '127.0.0.1:65536',
      '[127.0.0.1]:1',
      '::1:9469',
      '*:9469',
    ].map((words): [string, number, RegExp] => [words, 2, /--metrics takes an address and a port such as 127\.0\.0\.1:9469/]),
  ]
  for (const [words, want, message] of rows) {
    const { status, stdout, stderr } = await scratch.nexusd(['mount', mountpoint, '--data', data, `--metrics=${words}`])
    t.strictSame({ status, stdout }, { status: want, stdout: '' }, words)
    t.match(stderr, message, words)
    t.ok(isOneLine(stderr))
    t.same(mountsBelow(scratch.directory), [], 'nothing is mounted')
  }
  const { status, stderr } = await scratch.nexusd([
    'mount',
    mountpoint,
    '--data',
    data,
    `--metrics=127.0.0.1:${port}`,
    '--background',
  ])
  t.equal(status, 1)
  t.match(stderr, /another program listens on/)
})

t.test('the log of a daemon in the background is put aside when it is large', { skip }, async (t) => {
  const scratch = scratchFor(t)
  const [mountpoint, data] = [scratch.dir('mnt'), scratch.at('data')]
  const log = path.join(data, 'nexusd.log')
  const words = ['mount', mountpoint, '--data', data, '--background']
  t.match(await scratch.nexusd(words), { status: 0 })
  t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0 })
  t.notOk(fs.existsSync(`${log}.1`))
  fs.appendFileSync(log, `${'old line\n'.repeat(1_300_000)}`)
  const size = fs.statSync(log).size
  const { stdout } = await scratch.nexusd(words)
  const pid = Number(/pid (\d+)/.exec(stdout)?.[1])
  t.equal(fs.statSync(`${log}.1`).size, size)
  t.ok(fs.statSync(log).size < 1000)
  process.kill(childrenOf(pid)[0] as number, 'SIGKILL')
  const lines = await eventually(
    () => fs.readFileSync(log, 'utf8'),
    (text) => text.includes('another takes over'),
  )
  t.match(lines, /another takes over/, 'and written to from its beginning')
  t.notMatch(lines, /\0/)
  t.match(await scratch.nexusd(['unmount', mountpoint]), { status: 0 })
})
