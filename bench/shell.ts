/** Commands of a uid, and how long they take without the start of the shell. */
import { execFileSync } from 'node:child_process'
import { BenchError } from './workload.ts'

const OUTPUT_BYTES_MAX = 1 << 28
/** No workload takes as long; a command that hangs ends the run with its name. */
const COMMAND_MS_MAX = 30 * 60 * 1000

export class Shell {
  readonly #uid: number
  readonly #environment: Record<string, string>
  readonly #ops: string

  /**
   * @param home what programs find as $HOME: nothing of whoever started the run must count
   * @param ops the program made of ops.c
   */
  constructor(uid: number, home: string, ops: string) {
    this.#uid = uid
    this.#ops = ops
    this.#environment = {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      HOME: home,
      LC_ALL: 'C',
      TZ: 'UTC',
      GIT_CONFIG_NOSYSTEM: '1',
      npm_config_update_notifier: 'false',
    }
  }

  /** Runs a script of bash in a directory and returns its stdout; throws with its stderr when any command of it fails. */
  run(directory: string, script: string): string {
    const words = ['bash', '-eu', '-o', 'pipefail', '-c', script]
    const isOther = process.getuid?.() === 0 && this.#uid !== 0
    const as = isOther ? ['setpriv', `--reuid=${this.#uid}`, `--regid=${this.#uid}`, '--clear-groups', '--'] : []
    const [program, ...rest] = [...as, ...words] as [string, ...string[]]
    try {
      return execFileSync(program, rest, {
        cwd: directory,
        encoding: 'utf8',
        env: this.#environment,
        maxBuffer: OUTPUT_BYTES_MAX,
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: COMMAND_MS_MAX,
      })
    } catch (error) {
      const { stderr = '', message } = error as { stderr?: string; message: string }
      throw new BenchError(`in ${directory}, uid ${this.#uid}: ${script.trim()}\n${stderr.slice(-2000) || message}`, {
        cause: error,
      })
    }
  }

  /** Seconds that a script takes, measured in the shell that runs it; its output is thrown away. */
  time(directory: string, script: string): number {
    const micros = (name: string): string => `${name}=\${EPOCHREALTIME/./}`
    return Number(this.run(directory, `${micros('s')}\n{ ${script}\n} > /dev/null\n${micros('e')}\necho $((e - s))`)) / 1e6
  }

  /**
   * Seconds that `count` system calls take in one process (see ops.c).
   * @param list a file with the names that they are for
   */
  ops(directory: string, operation: string, count: number, list = ''): number {
    const each = Number(this.run(directory, `${this.#ops} . ${operation} ${count} ${list}`))
    return (each * count) / 1e6
  }
}
