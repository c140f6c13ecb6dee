/** Quotas at a real mount, with real programs: refused at once, shown by df, set live, exact after a death and a remount. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { QuotaInfo, QuotaShowInfo } from '../../src/api/quotas.ts'
import type { FsckInfo } from '../../src/api/store.ts'
import { childrenOf, mountFor, nexusctl, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const MIB = 1024 * 1024
const EDQUOT = 122
/** A call that waits longer than this hangs. */
const HANG_MS = 60_000

/** Pages of a hole that are written through a mapping, and what the kernel says when it could not write them back. */
const MAPPED = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 4 << 20)
mapping = mmap.mmap(fd, 4 << 20)
for at in range(0, 4 << 20, 4096):
    mapping[at] = 1
try:
    mapping.flush()
    os.fsync(fd)
    print('no error')
except OSError as error:
    print(error.errno)
`

function run(cwd: string, command: string, ...words: string[]): { status: number | null; out: string } {
  const { status, stdout, stderr } = spawnSync(command, words, {
    cwd,
    encoding: 'utf8',
    timeout: HANG_MS,
    env: { ...process.env, LC_ALL: 'C' },
  })
  return { status, out: stdout + stderr }
}

function df(directory: string, ...words: string[]): number[] {
  const { out } = run(directory, 'df', ...words, '.')
  return (out.trim().split('\n').at(-1) ?? '').trim().split(/ +/).map(Number)
}

function python(cwd: string, program: string, ...words: string[]): string {
  return run(cwd, 'python3', '-c', program, ...words).out.trim()
}

const bytesDf = (directory: string): number[] => df(directory, '-B1', '--output=size,used,avail')
const inodesDf = (directory: string): number[] => df(directory, '--output=itotal,iused,iavail')

function set(mount: TestMount, path: string, ...limits: string[]): QuotaInfo {
  return mount.json<QuotaInfo>('quota', 'set', path, ...limits)
}

/** The mount goes on at once, but commands are refused until the next process listens. */
async function answering(mount: TestMount): Promise<void> {
  const until = performance.now() + HANG_MS
  while (performance.now() < until) {
    if (run('/', process.execPath, nexusctl, '--data', mount.data, 'status').status === 0) return
    await sleep(50)
  }
  throw new Error(`nobody answers: ${mount.log}`)
}

function du(directory: string): number {
  return Number(run(directory, 'du', '-s', '--block-size=1', '.').out.split('\t')[0])
}

t.test('programs are told at once, whoever runs them', { skip }, async (t) => {
  const mount = await mountFor(t)
  mount.ctl('workspace', 'create', '/workspace/w', '--quota-bytes', '8MiB', '--quota-inodes', '40')
  mount.ctl('workspace', 'create', '/workspace/w/inner')
  const [top, inner] = [mount.at('workspace/w'), mount.at('workspace/w/inner')]
  t.strictSame(bytesDf(inner), [8 * MIB, 0, 8 * MIB])
  t.strictSame(inodesDf(top), [40, 2, 38])

  const dd = run(inner, 'dd', 'if=/dev/zero', 'of=big', 'bs=1M', 'count=20')
  t.match(dd, { status: 1, out: /Disk quota exceeded/ })
  t.equal(fs.statSync(`${inner}/big`).size, 8 * MIB)
  t.strictSame(bytesDf(top), [8 * MIB, 8 * MIB, 0])
  t.match(run(top, 'sh', '-c', 'head -c 1 /dev/zero > small'), { out: /Disk quota exceeded/ })
  t.match(run(top, 'cp', '/bin/ls', 'copy'), { status: 1, out: /Disk quota exceeded/ })
  fs.rmSync(`${inner}/big`)
  t.equal(run(inner, 'dd', 'if=/dev/zero', 'of=big', 'bs=1M', 'count=7').status, 0, 'deleted, and on it goes')

  t.equal(run(top, 'truncate', '-s', '1T', 'sparse').status, 0, 'holes do not count')
  t.match(run(top, 'fallocate', '-l', '2M', 'sparse'), { status: 1, out: /Disk quota exceeded/ })
  t.equal(run(top, 'fallocate', '-l', '512K', 'sparse').status, 0)
  t.equal(bytesDf(top)[1], 7.5 * MIB)
  t.equal(run(top, 'fallocate', '-p', '-o', '0', '-l', '512K', 'sparse').status, 0)

  const mapped = python(top, MAPPED, 'mapped')
  t.match(mapped, /^(5|28|122)$/, 'a mapping that could not be written back')
  fs.rmSync(`${top}/mapped`)
  t.match(bytesDf(top), [8 * MIB, 7 * MIB, MIB])
  t.equal(du(top), bytesDf(top)[1], 'as du counts')

  const many = run(top, 'sh', '-c', 'i=0; while touch n$i; do i=$((i+1)); done; echo $i')
  t.match(many.out, /Disk quota exceeded/)
  t.strictSame(inodesDf(top), [40, 40, 0])
  t.equal(run(top, 'ln', 'n0', 'link').status, 0, 'a hard link is no inode')
  t.match(run(top, 'mkdir', 'd'), { out: /Disk quota exceeded/ })
  t.match(run(top, 'mkfifo', 'd'), { out: /Disk quota exceeded/ })
  t.match(run(top, 'ln', '-s', 'x', 'd'), { out: /Disk quota exceeded/ })
  const tmpfile = 'import os\ntry: os.open(".", os.O_TMPFILE | os.O_RDWR)\nexcept OSError as e: print(e.errno)'
  t.equal(python(top, tmpfile), String(EDQUOT))
  t.match(run('/', process.execPath, nexusctl, '--data', mount.data, 'workspace', 'create', '/workspace/w/more'), {
    status: 1,
    out: /takes 1 inodes more, and the quota of \/workspace\/w leaves 0/,
  })
  run(top, 'sh', '-c', 'rm -f n* link')
  t.equal(python(top, tmpfile), '')
  t.equal(run(top, 'mkdir', 'd').status, 0)
  t.match(mount.json<FsckInfo>('fsck'), { clean: true })
})

t.test('set live, and exact after a death and a remount', { skip }, async (t) => {
  const mount = await mountFor(t)
  for (const path of ['/workspace/w', '/workspace/w/n', '/workspace/w/n/m']) mount.ctl('workspace', 'create', path)
  const deep = mount.at('workspace/w/n/m')
  const fd = fs.openSync(`${deep}/open`, 'w')
  t.teardown(() => fs.closeSync(fd))
  const write = (mib: number): string => {
    try {
      fs.writeSync(fd, Buffer.alloc(mib * MIB))
      return 'ok'
    } catch (error) {
      // Node has no name for it.
      return (error as NodeJS.ErrnoException).errno === -EDQUOT ? 'EDQUOT' : String(error)
    }
  }
  t.equal(write(3), 'ok')
  t.match(set(mount, '/workspace/w', '--bytes', '4MiB'), { bytes_used: 3 * MIB, bytes_remaining: MIB })
  t.equal(write(1), 'ok')
  t.equal(write(1), 'EDQUOT', 'what is open too')
  set(mount, '/workspace/w', '--bytes', '1MiB')
  t.strictSame(bytesDf(deep), [MIB, MIB, 0])
  fs.ftruncateSync(fd, 2 * MIB)
  t.equal(fs.writeSync(fd, Buffer.alloc(MIB), 0, MIB, 0), MIB, 'in place of what was there')
  set(mount, '/workspace/w', '--bytes', '64MiB')

  const shown = (): QuotaShowInfo => mount.json<QuotaShowInfo>('quota', 'show', '/workspace/w')
  fs.writeFileSync(`${deep}/gone`, Buffer.alloc(MIB))
  const held = fs.openSync(`${deep}/gone`, 'r')
  fs.rmSync(`${deep}/gone`)
  t.match(shown(), { bytes_used: 3 * MIB, inodes_used: 5 }, 'deleted and open')
  for (let i = 0; i < 3; i++) {
    run(deep, 'sh', '-c', `for j in 1 2 3 4 5; do head -c 10000 /dev/zero > f${i}.$j; done`)
    const before = shown()
    const serving = childrenOf(mount.pid)[0] as number
    process.kill(serving, 'SIGKILL')
    while ((childrenOf(mount.pid)[0] ?? serving) === serving) await sleep(5)
    await answering(mount)
    t.match(shown(), before, 'another process counts the same')
  }
  fs.closeSync(held)
  run(deep, 'stat', 'open')
  t.match(shown(), { bytes_used: 2 * MIB + 150_000, bytes_limit: 64 * MIB, inodes_used: 3 + 1 + 15 })
  t.match(mount.json<FsckInfo>('fsck'), { clean: true })
  await mount.kill()
  await mount.dispose()
  await mount.start()
  t.match(shown(), { bytes_used: 2 * MIB + 150_000, bytes_limit: 64 * MIB, inodes_used: 19 }, 'mounted again')
  t.match(mount.json<FsckInfo>('fsck'), { clean: true })
})
