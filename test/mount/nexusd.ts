/**
 * `nexusd` as a command: run to its end, or started and held. Everything that a test starts, mounts
 * or makes below its scratch directory is gone when the test ends, however it ends.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { publicSocketOf } from '../../src/host/location.ts'

/** Where package.json is: this runs as dist/test/mount/nexusd.js. */
export const PACKAGE = fileURLToPath(new URL('../../..', import.meta.url))
const RUN_MS_MAX = 60_000

const isRoot = process.getuid?.() === 0

/** For tests that need other users or disks of their own. */
export const needsRoot = isRoot ? false : 'needs root'

export interface RunOptions {
  env?: Record<string, string>
  cwd?: string
  /** run as this user, without root's groups and capabilities */
  uid?: number
}

/** A program that has ended. */
export interface Outcome {
  status: number | null
  stdout: string
  stderr: string
}

/** A program that runs; what it prints is collected. */
export class Running {
  readonly child: ChildProcess
  readonly ended: Promise<Outcome>
  stdout = ''
  stderr = ''

  constructor(child: ChildProcess) {
    this.child = child
    child.stdout?.on('data', (text: Buffer) => {
      this.stdout += text.toString()
    })
    child.stderr?.on('data', (text: Buffer) => {
      this.stderr += text.toString()
    })
    this.ended = once(child, 'close').then(([status]) => ({ status, stdout: this.stdout, stderr: this.stderr }))
  }

  get pid(): number {
    return this.child.pid as number
  }

  /** Resolves when stdout holds `words`; rejects when the program ends before. */
  async says(words: string): Promise<void> {
    while (!this.stdout.includes(words)) {
      const ended = await Promise.race([
        this.ended,
        once(this.child.stdout as NodeJS.ReadableStream, 'data').then(() => undefined),
      ])
      if (ended !== undefined && !this.stdout.includes(words)) throw new Error(`ended with ${ended.status}: ${ended.stderr}`)
    }
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals): Promise<Outcome> {
    this.child.kill(signal)
    return await this.ended
  }
}

/** A directory for one test, with the programs that it starts. */
export class Scratch {
  readonly directory: string
  /** the package whose programs are run */
  program = PACKAGE
  readonly #running: Running[] = []
  readonly #background: number[] = []

  constructor(directory: string) {
    this.directory = directory
  }

  at(...names: string[]): string {
    return path.join(this.directory, ...names)
  }

  /** Makes a directory and returns its path. */
  dir(...names: string[]): string {
    const directory = this.at(...names)
    fs.mkdirSync(directory, { recursive: true })
    return directory
  }

  #bin(name: string): string {
    return path.join(this.program, 'dist', 'bin', `${name}.js`)
  }

  /** Starts a program. */
  spawn(command: string, words: readonly string[], { env, cwd, uid }: RunOptions = {}): Running {
    const asUser = uid === undefined ? [] : ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--']
    const [program, ...rest] = [...asUser, command, ...words] as [string, ...string[]]
    const child = spawn(program, rest, {
      cwd: cwd ?? this.directory,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const running = new Running(child)
    this.#running.push(running)
    return running
  }

  /** Runs a program to its end. */
  async run(command: string, words: readonly string[], options?: RunOptions): Promise<Outcome> {
    const running = this.spawn(command, words, options)
    const timer = setTimeout(() => running.child.kill('SIGKILL'), RUN_MS_MAX)
    const outcome = await running.ended
    clearTimeout(timer)
    return outcome
  }

  /** Runs nexusd or nexusctl to its end. */
  async nexusd(words: readonly string[], options?: RunOptions): Promise<Outcome> {
    const outcome = await this.run(process.execPath, [this.#bin('nexusd'), ...words], options)
    const pid = words.includes('--background') ? /pid (\d+)/.exec(outcome.stdout)?.[1] : undefined
    if (pid !== undefined) this.#background.push(Number(pid))
    return outcome
  }

  nexusctl(words: readonly string[], options?: RunOptions): Promise<Outcome> {
    return this.run(process.execPath, [this.#bin('nexusctl'), ...words], options)
  }

  /** Starts `nexusd mount` in the foreground. */
  begin(words: readonly string[], options?: RunOptions): Running {
    return this.spawn(process.execPath, [this.#bin('nexusd'), 'mount', ...words], options)
  }

  /** The same; resolves when the mount answers, rejects with what it said instead. */
  async mount(words: readonly string[], options?: RunOptions): Promise<Running> {
    const running = this.begin(words, options)
    await running.says('mounted ')
    return running
  }

  async dispose(): Promise<void> {
    for (const pid of this.#background) if (isRunning(pid)) process.kill(pid, 'SIGKILL')
    for (const { child, ended } of this.#running) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await ended
    }
    const [program, flag] = isRoot ? ['umount', '-l'] : ['fusermount3', '-uz']
    for (const mountpoint of mountsBelow(this.directory).toReversed()) execFileSync(program, [flag, mountpoint])
    // What a daemon that was killed could not remove.
    for (const name of fs.readdirSync(this.directory)) fs.rmSync(publicSocketOf(this.at(name)), { force: true })
    fs.rmSync(this.directory, { recursive: true, force: true })
  }
}

/** A scratch directory that lasts as long as the test, and that any user can reach. */
export function scratchFor(t: Test): Scratch {
  const scratch = new Scratch(fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-cmd-'))))
  fs.chmodSync(scratch.directory, 0o755)
  t.teardown(() => scratch.dispose())
  return scratch
}

/** Every mountpoint in a directory, in the order of mounting. */
export function mountsBelow(directory: string): string[] {
  return fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8))),
    )
    .filter((mountpoint) => mountpoint.startsWith(`${directory}/`))
}

export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** True for exactly one line that is no stack. */
export function isOneLine(text: string): boolean {
  return /^nexus(d|ctl): [^\n]+\n$/.test(text) && !text.includes('unexpected')
}
