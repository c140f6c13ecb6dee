/** `npm start`: which words it takes, and what it does when the filesystem is mounted already. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { readMountWords } from '../../src/cli/nexusd.ts'
import { planStart } from '../../src/cli/start.ts'
import { scratchDir } from '../service/fake-service.ts'
import { nexusd, noMount } from './harness.ts'

const skip = noMount ?? false
const START = fileURLToPath(new URL('../../../scripts/start.mjs', import.meta.url))

/** What `nexusd mount --help` lists, each with a value where it takes one. */
function options(): string[][] {
  const help = execFileSync(process.execPath, [nexusd, 'mount', '--help'], { encoding: 'utf8' })
  const found = [...help.matchAll(/^ {2}(--[a-z-]+)(?: <(\w+)[^>]*>)?/gm)]
  const values: Record<string, string> = { SIZE: '300MiB', SECONDS: '60', ADDRESS: '127.0.0.1:9469', DIR: '/tmp/d' }
  return found.map(([, name = '', value]) => (value === undefined ? [name] : [name, values[value] ?? '1']))
}

t.test('every option of nexusd mount, before and after the mountpoint, and without', async (t) => {
  const all = options()
  t.ok(all.length >= 8 && all.some(([name]) => name === '--no-standby'), `${all.length} options`)
  for (const words of [...all, all.flat(), []]) {
    t.equal(readMountWords([...words, '/mnt/x']).mountpoint, '/mnt/x', `${words.join(' ')} /mnt/x`)
    t.equal(readMountWords(['/mnt/x', ...words]).mountpoint, '/mnt/x', `/mnt/x ${words.join(' ')}`)
    t.equal(readMountWords(words).mountpoint, undefined, words.join(' '))
  }
  t.equal(readMountWords(['--data=/d', '/mnt/x']).mountpoint, '/mnt/x')
  t.equal(readMountWords(['--', '/mnt/x']).mountpoint, '/mnt/x')
})

t.test('the words for nexusd', async (t) => {
  const place = path.join(scratchDir(t), 'made')
  t.strictSame(await planStart(['--no-standby', place]), { words: ['mount', '--no-standby', place] })
  t.ok(fs.statSync(place).isDirectory(), 'it is made')
  t.strictSame(await planStart(['--no-standby'], place), { words: ['mount', place, '--no-standby'] })
  t.strictSame(await planStart([], place), { words: ['mount', place] })
  const file = path.join(place, 'file')
  fs.writeFileSync(file, '')
  t.match(await planStart([path.join(file, 'x')]), { said: /cannot make .*file\/x \(ENOTDIR\): run sudo mkdir/, status: 1 })
})

async function started(t: Test, words: string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, [START, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (text: Buffer) => text.includes('mounted ') && resolve())
    child.once('exit', (status) => reject(new Error(`it ended with ${status}`)))
  })
  return child
}

t.test('it mounts where it is told, and a second one says that it is mounted', { skip }, async (t) => {
  const directory = scratchDir(t)
  const words = ['--no-standby', '--data', path.join(directory, 'data'), path.join(directory, 'mnt')]
  const first = await started(t, words)
  t.teardown(() => spawnSync('umount', ['-l', path.join(directory, 'mnt')]))
  fs.writeFileSync(path.join(directory, 'mnt', 'file'), 'there')
  const second = spawnSync(process.execPath, [START, ...words], { encoding: 'utf8' })
  t.equal(second.status, 0)
  t.match(second.stdout, /mnt is mounted already \(data in .*data, served by pid \d+\): nexusd unmount .*mnt ends it\n$/)
  // With other data it is not what was asked for.
  const other = spawnSync(process.execPath, [START, '--data', path.join(directory, 'other'), path.join(directory, 'mnt')], {
    encoding: 'utf8',
  })
  t.equal(other.status, 1)
  t.match(other.stderr, /is busy: nexus/)
  const ended = once(first, 'exit')
  first.kill('SIGTERM')
  t.strictSame(await ended, [0, null])
  t.notOk(fs.existsSync(path.join(directory, 'mnt', 'file')))
})
