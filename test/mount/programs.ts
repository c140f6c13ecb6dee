/** What the tests of programs share. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import type { TestMount } from './harness.ts'
import { plainFor } from './harness.ts'

const execute = promisify(execFile)
const FIXTURE = fileURLToPath(new URL('../../../test/mount/fixtures/programs.py', import.meta.url))
const OUTPUT_BYTES_MAX = 1 << 28

/** A test that can be run in any directory. */
export interface ProgramTest {
  /** a fresh directory is given, and may be left as it is */
  run(t: Test, directory: string): Promise<void>
  /** too slow to be checked against the local disk each time */
  onlyMount?: boolean
  /** compares permission bits and ACLs with those of the local disk; in a workspace what is shown is what relations leave */
  keepsModes?: true
}

/** Runs a program in a directory and returns its stdout; throws with all that it said when it fails. */
export async function run(directory: string, program: string, ...words: string[]): Promise<string> {
  try {
    const { stdout } = await execute(program, words, { cwd: directory, maxBuffer: OUTPUT_BYTES_MAX })
    return stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${program} ${words.join(' ')}: ${(error as Error).message.split('\n')[0]}\n${stdout}${stderr}`)
  }
}

/** Runs a line of shell. */
export function shell(directory: string, line: string): Promise<string> {
  return run(directory, 'sh', '-ec', line)
}

/** Runs one of the checks of fixtures/programs.py. */
export function check(name: string, directory: string, ...words: string[]): Promise<string> {
  return run(directory, 'python3', FIXTURE, name, directory, ...words)
}

/** Starts a check and resolves when it has printed something; `ended` is its exit status. */
export async function startCheck(
  name: string,
  directory: string,
  ...words: string[]
): Promise<{ ended: Promise<number | null> }> {
  const child = spawn('python3', [FIXTURE, name, directory, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit').then(([status]) => status as number | null)
  await Promise.race([once(child.stdout, 'data'), ended])
  return { ended }
}

/** A folder that is no workspace: permissions are the plain ones there. */
export const OPEN = 'open'

/** Runs them on the local disk, to check the tests themselves, and then on the mount. */
export async function runOnBoth(t: Test, mount: TestMount, tests: Readonly<Record<string, ProgramTest>>): Promise<void> {
  fs.mkdirSync(mount.at(OPEN))
  for (const [name, { run: body, onlyMount, keepsModes }] of Object.entries(tests)) {
    if (onlyMount !== true) await t.test(`${name}, on the local disk`, (t) => body(t, plainFor(t)))
    await t.test(name, async (t) => {
      await body(t, folder(mount.at(keepsModes === true ? OPEN : 'workspace'), name.replaceAll(' ', '-')))
    })
  }
}

/** Makes a directory in another and returns its path. */
export function folder(directory: string, name: string): string {
  const made = path.join(directory, name)
  fs.mkdirSync(made)
  return made
}
