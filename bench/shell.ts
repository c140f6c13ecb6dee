/**
 * Commands of a uid, and how long they take without the start of the shell. Every command has an end: a filesystem that does not
 * answer must not hold up who measures it. For the same reason the directory of a command is entered by the command itself: of
 * a program that is started in a directory, who starts it waits until it is there.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { BenchError } from './workload.ts'

/** No workload takes as long; a command that hangs ends the run with its name. */
const COMMAND_MS_MAX = 30 * 60 * 1000
/** from SIGKILL until nothing of a command runs any more: a request that a filesystem is at must be answered first */
const KILL_MS_MAX = 10_000

/** A command was killed, because it took longer than it may. */
export class SlowError extends BenchError {
  readonly msMax: number
  /** it was what is measured, and not what has to be there before or is looked at after */
  readonly isMeasured: boolean

  constructor(message: string, msMax: number, isMeasured: boolean) {
    super(message)
    this.msMax = msMax
    this.isMeasured = isMeasured
  }
}

/** A filesystem does not answer. */
export class HungError extends BenchError {}

/** How long the commands of a measurement may take together. */
export class Limit {
  #end = Infinity
  msMax = COMMAND_MS_MAX
  isMeasured = false

  begin(msMax: number, isMeasured: boolean): void {
    this.#end = performance.now() + msMax
    this.msMax = msMax
    this.isMeasured = isMeasured
  }

  get msLeft(): number {
    return Math.max(1, Math.min(COMMAND_MS_MAX, this.#end - performance.now()))
  }
}

/**
 * Runs a program to its end and returns its stdout.
 * @throws BenchError with its stderr when it fails, SlowError when it took too long, HungError when it could not even be killed
 */
export async function execute(words: readonly string[], msMax: number, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const [program, ...rest] = words as [string, ...string[]]
  const child = spawn(program, rest, { cwd: '/', detached: true, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr] = [child.stdout, child.stderr].map((stream) => {
    const parts: string[] = []
    stream.setEncoding('utf8').on('data', (part: string) => parts.push(part))
    return parts
  }) as [string[], string[]]
  const over = new AbortController()
  const late = sleep(msMax, undefined, { signal: over.signal }).catch(() => undefined)
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  const result = await Promise.race([ended, late]).finally(() => over.abort())
  if (result === undefined) {
    child.unref()
    for (const stream of [child.stdout, child.stderr]) stream.destroy()
    ended.catch(() => undefined)
    await killGroup(child.pid as number)
    throw new SlowError(`it took longer than ${(msMax / 1000).toFixed(0)} s`, msMax, false)
  }
  const [status, signal] = result
  if (status !== 0) throw new BenchError(stderr.join('').slice(-2000) || `it ended with ${status ?? signal}`)
  return stdout.join('')
}

async function killGroup(group: number): Promise<void> {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    // It has ended meanwhile.
  }
  for (const end = performance.now() + KILL_MS_MAX; isGroupRunning(group); await sleep(20))
    if (performance.now() > end) throw new HungError('it cannot be killed, since a request of it is not answered')
}

function isGroupRunning(group: number): boolean {
  return fs.readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      const stat = fs.readFileSync(`/proc/${name}/stat`, 'utf8')
      // Behind the program's name, which may have any character: state, parent, group. @see proc(5)
      const [state, , of] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return Number(of) === group && state !== 'Z' && state !== 'X'
    } catch {
      return false // It has ended since the listing.
    }
  })
}

export class Shell {
  readonly #uid: number
  readonly #environment: Record<string, string>
  readonly #ops: string
  readonly #limit: Limit

  /**
   * @param home what programs find as $HOME: nothing of whoever started the run must count
   * @param ops the program made of ops.c
   */
  constructor(uid: number, home: string, ops: string, limit: Limit) {
    this.#uid = uid
    this.#ops = ops
    this.#limit = limit
    this.#environment = {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      HOME: home,
      LC_ALL: 'C',
      TZ: 'UTC',
      GIT_CONFIG_NOSYSTEM: '1',
      npm_config_update_notifier: 'false',
    }
  }

  /** Runs a script of bash in a directory and returns its stdout; throws as `execute` does, when any command of it fails. */
  async run(directory: string, script: string): Promise<string> {
    const words = ['bash', '-eu', '-o', 'pipefail', '-c', `cd -- "$1"\n${script}`, 'bash', directory]
    const isOther = process.getuid?.() === 0 && this.#uid !== 0
    const as = isOther ? ['setpriv', `--reuid=${this.#uid}`, `--regid=${this.#uid}`, '--clear-groups', '--'] : []
    try {
      return await execute([...as, ...words], this.#limit.msLeft, this.#environment)
    } catch (error) {
      if (!(error instanceof BenchError)) throw error
      const message = `in ${directory}, uid ${this.#uid}: ${script.trim()}\n${error.message}`
      if (error instanceof SlowError) throw new SlowError(message, this.#limit.msMax, this.#limit.isMeasured)
      throw error instanceof HungError ? new HungError(message) : new BenchError(message, { cause: error })
    }
  }

  /** Seconds that a script takes, measured in the shell that runs it; its output is thrown away. */
  async time(directory: string, script: string): Promise<number> {
    const micros = (name: string): string => `${name}=\${EPOCHREALTIME/./}`
    const taken = `${micros('s')}\n{ ${script}\n} > /dev/null\n${micros('e')}\necho $((e - s))`
    return Number(await this.run(directory, taken)) / 1e6
  }

  /**
   * Seconds that `count` system calls take in one process (see ops.c).
   * @param list a file with the names that they are for
   */
  async ops(directory: string, operation: string, count: number, list = ''): Promise<number> {
    const each = Number(await this.run(directory, `${this.#ops} . ${operation} ${count} ${list}`))
    return (each * count) / 1e6
  }
}
