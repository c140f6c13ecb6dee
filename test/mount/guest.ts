/**
 * Processes that live in a mount: each keeps what it has open from one command to the next, so that a
 * test can look at a restore through eyes that saw the state before it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

/** Nothing that a test asks for takes this long: a guest that does hangs in the kernel. */
const ANSWER_MS_MAX = 30_000

interface Answer {
  value?: unknown
  error?: string
}

/** A script of ours, beside this file's source: scripts are not compiled. */
export function scriptOf(name: string): string {
  return fileURLToPath(new URL(`../../../test/mount/${name}`, import.meta.url))
}

/** A Python interpreter (guest.py) that answers one command after the other. */
export class Guest {
  readonly #child: ChildProcess
  readonly #waiting: ((answer: Answer) => void)[] = []

  constructor(t: Test, cwd = '/') {
    this.#child = spawn('python3', ['-u', scriptOf('guest.py')], { cwd, stdio: ['pipe', 'pipe', 'inherit'] })
    if (this.#child.stdout === null) throw new Error('a guest without stdout')
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#waiting.shift()?.(JSON.parse(line) as Answer))
    t.teardown(() => this.end())
  }

  /** The value of an expression, or null for statements; an errno's name when the call fails. */
  async run<T = unknown>(code: string): Promise<T> {
    const { value, error } = await this.#ask(code)
    return (error ?? value) as T
  }

  end(): void {
    this.#child.kill('SIGKILL')
  }

  #ask(code: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`a guest hangs in: ${code}`)), ANSWER_MS_MAX)
      this.#waiting.push((answer) => {
        clearTimeout(timer)
        resolve(answer)
      })
      this.#child.stdin?.write(`${JSON.stringify(code)}\n`)
    })
  }
}

/** Runs a shell script; returns its stdout, throws with its stderr when it fails. */
export function sh(script: string, cwd: string): string {
  return execFileSync('bash', ['-euc', script], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** The same for a script that must fail: what it wrote to stderr. */
export function shFails(script: string, cwd: string): string {
  try {
    sh(script, cwd)
  } catch (error) {
    return String((error as { stderr?: unknown }).stderr ?? error)
  }
  throw new Error(`this must fail: ${script}`)
}

/** Everything that a restore has to bring back, of a whole directory, as text to compare. */
export function fingerprint(directory: string): string {
  return execFileSync('python3', [scriptOf('fingerprint.py'), directory], { encoding: 'utf8', maxBuffer: 256 << 20 })
}

/** A fingerprint of files as a snapshot shows them: nobody may open one for writing. */
export function inSnapshot(print: string): string {
  return print.replace(/ 0o100(\d{3,4}) /g, (_, mode: string) => ` 0o100${withoutWriting(mode)} `)
}

/** The permission bits of a file in a snapshot, in octal digits. */
export function withoutWriting(mode: string): string {
  return (Number.parseInt(mode, 8) & ~0o222).toString(8).padStart(mode.length, '0')
}
