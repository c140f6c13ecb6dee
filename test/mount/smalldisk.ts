/** Small disks of their own for tests: files mounted through loop devices, gone when the test ends. */
import { execFileSync, spawnSync } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { noMount, TestMount } from './harness.ts'

/** Why small disks cannot be tested here, or undefined. `npm test` says so loudly and CI fails on it. */
export const noSmallDisk =
  noMount ?? (process.env['NEXUS_NO_LOOP'] === '1' ? 'NO LOOP DEVICES HERE: tests on small disks are skipped' : undefined)

export const MIB = 1024 * 1024
const RUN_MS_MAX = 120_000

export interface SmallDisk {
  /** a directory for the data directory, and one for everything else */
  data: string
  directory: string
  /** bytes that root can still write */
  free(): number
}

/**
 * An ext4 of so many MiB.
 * @param backing MiB that the disk really has: what is written beyond fails with EIO, as on a dying one
 */
export function smallDiskFor(t: Test, mib: number, backing?: number): SmallDisk {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-disk-'))
  const at = (name: string): string => path.join(directory, name)
  for (const name of ['disk', 'backing']) fs.mkdirSync(at(name))
  t.teardown(() => {
    for (const name of ['disk', 'backing']) spawnSync('umount', [at(name)], { stdio: 'ignore' })
    for (const name of ['disk', 'backing']) spawnSync('umount', ['-l', at(name)], { stdio: 'ignore' })
    fs.rmSync(directory, { recursive: true, force: true })
  })
  if (backing !== undefined) execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${backing}m`, 'tmpfs', at('backing')])
  const image = at('backing/image')
  execFileSync('truncate', ['-s', `${mib}M`, image])
  // No journal where the disk dies: the kernel would stop everything at once.
  execFileSync('mkfs.ext4', ['-q', '-m', '0', ...(backing === undefined ? [] : ['-O', '^has_journal']), image])
  execFileSync('mount', ['-o', 'loop,errors=continue', image, at('disk')])
  return {
    directory,
    data: at('disk/data'),
    free: () => {
      const { bsize, bfree } = fs.statfsSync(at('disk'))
      return bsize * bfree
    },
  }
}

/** A mount whose data lies on a disk; it ends before the disk does. */
export async function mountOn(t: Test, disk: SmallDisk): Promise<TestMount> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-full-'))
  const mount = new TestMount(directory, { data: disk.data, flags: [] })
  t.teardown(async () => {
    await mount.dispose()
    fs.rmSync(directory, { recursive: true, force: true })
  })
  await mount.start()
  return mount
}

export interface Ran {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs a program to its end; one that hangs is killed and has status null. */
export function run(cwd: string, command: string, ...words: string[]): Ran {
  const { status, stdout, stderr } = spawnSync(command, words, {
    cwd,
    encoding: 'utf8',
    timeout: RUN_MS_MAX,
    killSignal: 'SIGKILL',
  })
  return { status, stdout, stderr }
}

/** Files of noise, 1 MiB each, every one fsynced, until the disk is full. @returns what each must hold, by name */
export function fill(directory: string, prefix: string): Map<string, string> {
  const files = new Map<string, string>()
  for (let i = 0; i < 10_000; i++) {
    const name = `${prefix}${i}`
    const words = ['if=/dev/urandom', `of=${name}`, 'bs=1M', 'count=1', 'conv=fsync', 'status=none']
    const { status, stderr } = run(directory, 'dd', ...words)
    if (status === 0) {
      files.set(name, sha(path.join(directory, name)))
      continue
    }
    if (!stderr.includes('No space left on device')) throw new Error(`dd failed for another reason: ${stderr}`)
    fs.rmSync(path.join(directory, name), { force: true })
    return files
  }
  throw new Error('the disk does not become full')
}

/** Fills it again and again, while space comes back, until there are so many files more. */
export async function refill(directory: string, prefix: string, count: number, msMax = 60_000): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  const end = Date.now() + msMax
  for (let i = 0; files.size < count && Date.now() < end; i++) {
    for (const [name, wanted] of fill(directory, `${prefix}-${i}-`)) files.set(name, wanted)
    await sleep(500)
  }
  return files
}

export function sha(file: string): string {
  return crypto.createHash('sha256').update(fs.readFileSync(file)).digest('hex')
}

/** Throws when a file does not hold what it must. */
export function verify(directory: string, files: ReadonlyMap<string, string>): void {
  for (const [name, wanted] of files) if (sha(path.join(directory, name)) !== wanted) throw new Error(`${name} has other bytes`)
}

/** Waits for the state that `nexusctl status` tells. */
export async function waitForState(mount: TestMount, wanted: string, msMax = 60_000): Promise<number> {
  const start = Date.now()
  for (;;) {
    const { state, reason } = mount.json<{ state: string; reason: string | null }>('status')
    if (state === wanted) return Date.now() - start
    if (Date.now() - start > msMax) throw new Error(`still ${state} (${reason}) after ${msMax} ms`)
    await sleep(200)
  }
}
