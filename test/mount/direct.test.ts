/** Files that their makers write past the page cache: that nobody can tell, but by the requests that it takes. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { StatusInfo } from '../../src/api/store.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const SCRIPT = fileURLToPath(new URL('../../../test/mount/direct.py', import.meta.url))
const AIO_SCRIPT = fileURLToPath(new URL('../../../test/mount/aio.py', import.meta.url))
const FILES = 50
const { O_CREAT, O_EXCL, O_WRONLY, O_RDWR, O_DSYNC, O_APPEND } = fs.constants

/** Requests that `work` takes, by kind. */
function requestsOf(mount: TestMount, work: () => void): (name: string) => number {
  const counts = () => mount.json<StatusInfo>('status').requests
  const before = counts()
  work()
  const after = counts()
  return (name) => (after[name] ?? 0) - (before[name] ?? 0)
}

function makeAll(mount: TestMount, prefix: string, flags: number): void {
  for (let i = 0; i < FILES; i++) {
    const fd = fs.openSync(mount.at('workspace', `${prefix}${i}`), O_CREAT | O_EXCL | flags, 0o644)
    fs.writeSync(fd, 'text')
    fs.closeSync(fd)
  }
}

t.test('a file that is made and written costs four requests, from the first on', { skip }, async (t) => {
  const mount = await mountFor(t)
  const direct = requestsOf(mount, () => makeAll(mount, 'w', O_WRONLY))
  t.strictSame(
    ['CREATE', 'WRITE', 'GETXATTR', 'OPEN', 'RELEASE'].map((name) => [name, direct(name)]),
    [
      ['CREATE', FILES],
      ['WRITE', FILES],
      ['GETXATTR', 0],
      ['OPEN', 0],
      ['RELEASE', 0],
    ], // prettier-ignore
  )
  // The way to the directory comes on top.
  t.ok(direct('LOOKUP') <= FILES + 2 && direct('GETATTR') <= FILES + 2)
  const cached = requestsOf(mount, () => makeAll(mount, 'r', O_RDWR))
  t.strictSame(
    [cached('GETXATTR'), cached('RELEASE')],
    [FILES, 0],
    'whoever may read as well has pages, which ask for a capability',
  )
  t.equal(fs.readFileSync(mount.at('workspace', 'w7'), 'latin1'), 'text')
})

t.test('O_DSYNC and O_APPEND mean what they say', { skip }, async (t) => {
  const mount = await mountFor(t)
  const synced = requestsOf(mount, () => makeAll(mount, 's', O_WRONLY | O_DSYNC))
  t.equal(synced('FSYNC'), FILES)
  const first = fs.openSync(mount.at('a'), O_CREAT | O_EXCL | O_WRONLY | O_APPEND)
  const second = fs.openSync(mount.at('a'), O_WRONLY | O_APPEND)
  for (const [fd, text] of [
    [first, 'one '],
    [second, 'two '],
    [first, 'three'],
  ] as const)
    fs.writeSync(fd, text) // prettier-ignore
  fs.ftruncateSync(first, 12)
  t.equal(fs.readFileSync(mount.at('a'), 'latin1'), 'one two thre')
  fs.writeSync(first, '!')
  t.equal(fs.readFileSync(mount.at('a'), 'latin1'), 'one two thre!')
  for (const fd of [first, second]) fs.closeSync(fd)
})

t.test('who reads beside the writer sees each write at once', { skip }, async (t) => {
  const mount = await mountFor(t)
  const said = execFileSync('python3', [SCRIPT, mount.at('beside'), '3'], { encoding: 'utf8', timeout: 60_000 })
  t.match(said, /^writes \d{2,} stale 0 back 0\n$/)
})

t.test('a reader beside asynchronous O_DIRECT writes sees each that has completed', { skip }, async (t) => {
  const mount = await mountFor(t)
  const words = [AIO_SCRIPT, mount.at('asynchronous'), '10']
  t.match(execFileSync('python3', words, { encoding: 'utf8', timeout: 120_000 }), /^writes \d{2,} stale 0\n$/)
})

t.test('a set-uid bit goes with a direct write', { skip }, async (t) => {
  const mount = await mountFor(t)
  const file = mount.at('tool')
  const write = 'import os,sys; os.setresuid(1000,1000,1000); os.write(3, b"x")'
  const fd = fs.openSync(file, O_CREAT | O_EXCL | O_WRONLY, 0o755)
  fs.fchmodSync(fd, 0o4755)
  execFileSync('python3', ['-c', write], { stdio: ['ignore', 'inherit', 'inherit', fd] })
  t.equal(fs.statSync(file).mode & 0o7777, 0o755)
  fs.closeSync(fd)
})
