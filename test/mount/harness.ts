/**
 * Real mounts for tests: `nexusd` in a process of its own (a process must never use its own mount),
 * on fresh directories, unmounted and removed when the test ends, however it ends.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { publicSocketOf } from '../../src/host/location.ts'
import { isRunning } from './nexusd.ts'

export const nexusd = fileURLToPath(new URL('../../bin/nexusd.js', import.meta.url))
export const nexusctl = fileURLToPath(new URL('../../bin/nexusctl.js', import.meta.url))
const START_MS_MAX = 60_000

/** Why mounts cannot be tested here, or undefined. `npm test` says so loudly and CI fails on it. */
export const noMount = process.env['NEXUS_NO_FUSE'] === '1' ? 'NO FUSE HERE: mount tests are skipped' : undefined

export interface MountOptions {
  /** where everything is kept; next to the mountpoint when not given */
  data?: string
  /** words for `nexusd mount` besides the mountpoint and --data */
  flags?: string[]
  env?: Record<string, string>
  /** what to run instead of nexusd */
  program?: string
}

export class TestMount {
  readonly mountpoint: string
  readonly data: string
  readonly #options: MountOptions
  #daemon: ChildProcess | undefined
  /** what the daemon wrote to stderr */
  log = ''

  constructor(directory: string, options: MountOptions) {
    this.#options = options
    this.mountpoint = path.join(directory, 'mnt')
    this.data = options.data ?? path.join(directory, 'data')
    fs.mkdirSync(this.mountpoint)
  }

  get pid(): number {
    return this.#daemon?.pid ?? 0
  }

  /** A path in the mount. */
  at(...names: string[]): string {
    return path.join(this.mountpoint, ...names)
  }

  /** Starts the daemon; resolves when the mount answers. */
  async start(): Promise<void> {
    const words = [this.#options.program ?? nexusd, 'mount', this.mountpoint, '--data', this.data, ...(this.#options.flags ?? [])]
    const daemon = spawn(process.execPath, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#options.env },
    })
    this.#daemon = daemon
    daemon.stderr.on('data', (text: Buffer) => {
      this.log += text.toString()
    })
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`nexusd did not mount in time: ${this.log}`)), START_MS_MAX)
      daemon.stdout.once('data', () => resolve())
      daemon.once('exit', (status) => reject(new Error(`nexusd ended with ${status}: ${this.log}`)))
      daemon.stdout.once('data', () => clearTimeout(timer))
      daemon.once('exit', () => clearTimeout(timer))
    })
    daemon.removeAllListeners('exit')
  }

  /** SIGTERM; resolves with the exit status when it has unmounted and ended. */
  async stop(): Promise<number | null> {
    return this.#end('SIGTERM')
  }

  /** SIGKILL: no last words. The dead mount stays until the next start or the end of the test. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** Runs nexusctl and returns its stdout; throws (with stderr in the message) when it fails. */
  ctl(...words: string[]): string {
    return execFileSync(process.execPath, [nexusctl, '--data', this.data, ...words], { encoding: 'utf8', cwd: os.tmpdir() })
  }

  /** The same with --json, parsed. */
  json<T>(...words: string[]): T {
    return JSON.parse(this.ctl('--json', ...words)) as T
  }

  /** Runs another command of nexusd and returns its stdout. */
  daemonSays(...words: string[]): string {
    return execFileSync(process.execPath, [nexusd, ...words], { encoding: 'utf8', cwd: os.tmpdir() })
  }

  /** Resolves with the exit status when the daemon has ended by itself. */
  async ended(): Promise<number | null> {
    if (this.#daemon === undefined) return null
    if (this.#daemon.exitCode !== null) return this.#daemon.exitCode
    const [status] = (await once(this.#daemon, 'close')) as [number | null]
    return status
  }

  /** Ends the daemon and clears the mountpoint, whatever state they are in. */
  async dispose(): Promise<void> {
    if (this.#daemon !== undefined && this.#daemon.exitCode === null && this.#daemon.signalCode === null)
      await this.#end('SIGKILL')
    try {
      execFileSync('umount', ['-l', this.mountpoint], { stdio: 'ignore' })
    } catch {
      // Not mounted any more, as it should be.
    }
    fs.rmSync(publicSocketOf(this.data), { force: true })
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const daemon = this.#daemon
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return daemon?.exitCode ?? null
    const exit = once(daemon, 'exit') as Promise<[number | null]>
    const serving = childrenOf(daemon.pid as number)
    daemon.kill(signal)
    const [status] = await exit
    // The kernel kills them with it, at once but not before: until then they hold the store.
    await Promise.all(serving.map(gone))
    return status
  }
}

/** Processes that a process has started and that run. */
export function childrenOf(pid: number): number[] {
  try {
    const pids = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    return pids.split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
}

/** Waits until a process that was killed has ended. */
export async function gone(pid: number): Promise<void> {
  for (let waited = 0; isRunning(pid); waited += 5) {
    if (waited > 10_000) throw new Error(`process ${pid} has not ended`)
    await sleep(5)
  }
}

/** A fresh mount that lasts as long as the test. */
export async function mountFor(t: Test, options: MountOptions = {}): Promise<TestMount> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-test-'))
  const mount = new TestMount(directory, options)
  t.teardown(async () => {
    await mount.dispose()
    fs.rmSync(directory, { recursive: true, force: true })
  })
  await mount.start()
  return mount
}

/** A plain directory of the local disk, to check a test against the kernel's own filesystem first. */
export function plainFor(t: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-plain-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}
