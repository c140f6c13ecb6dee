/**
 * Tables of system calls, for the tests of POSIX semantics. Each row is a call with what it must
 * answer; a table is run on the local disk first, so that it is checked itself, and then in the mount.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { mountFor, noMount, plainFor } from './harness.ts'

type Value = string | number | boolean | null | Value[]

/** What the call answers: its result, the name of an errno, or a function that judges it. */
export type Expected = Value | ((result: never) => boolean)

/** The call's name and arguments, as `syscalls.py` has them, and its answer. */
export type Row = [call: [name: string, ...args: Value[]], expected?: Expected]

/** Where a check runs; `onMount` for the few things that ext4 does differently on purpose. */
export interface Place {
  directory: string
  onMount: boolean
}

export type Check = (t: Test, place: Place) => void | Promise<void>

const OUTPUT_BYTES_MAX = 64 << 20

/** Another user than root, and somebody who shares nothing with that one. */
export const USER = 65534
export const STRANGER = 65533

export const notRoot = process.getuid?.() === 0 ? undefined : 'needs root, for other uids and capabilities'

/** A helper script, beside this file's source: scripts are not compiled. */
export function script(name: string): string {
  return fileURLToPath(new URL(`../../../test/mount/${name}`, import.meta.url))
}

/** Runs a Python script of ours in a directory; its stdout, parsed. */
export function python<T>(name: string, directory: string, input: unknown, ...args: string[]): T {
  const options = { input: JSON.stringify(input), encoding: 'utf8', maxBuffer: OUTPUT_BYTES_MAX } as const
  return JSON.parse(execFileSync('python3', [script(name), directory, ...args], options)) as T
}

/** Makes the calls one after the other in one process, and compares what they answer. */
export function table(t: Test, directory: string, rows: readonly Row[]): void {
  const results = python<Value[]>(
    'syscalls.py',
    directory,
    rows.map(([call]) => call),
  )
  rows.forEach(([call, expected = null], i) => {
    const result = results[i] as Value
    const name = shortened(call)
    if (typeof expected === 'function') t.ok((expected as (value: Value) => boolean)(result), name, { result })
    else t.same(result, expected, name)
  })
}

function shortened(call: unknown): string {
  const text = JSON.stringify(call)
  return text.length > 100 ? `${text.slice(0, 100)}…` : text
}

/** Runs each check in a directory of its own, on the local disk and in one mount. */
export function posixTests(checks: Record<string, Check>): void {
  const skip = noMount ?? notRoot ?? false
  t.test('the local disk', { skip }, async (t) => runAll(t, plainFor(t), false, checks))
  t.test('the mount', { skip }, async (t) => runAll(t, (await mountFor(t, { flags: ['--suid', '--dev'] })).at(), true, checks))
}

async function runAll(t: Test, base: string, onMount: boolean, checks: Record<string, Check>): Promise<void> {
  fs.chmodSync(base, 0o755)
  let number = 0
  for (const [name, check] of Object.entries(checks)) {
    const directory = path.join(base, `check-${++number}`)
    fs.mkdirSync(directory)
    fs.chmodSync(directory, 0o755)
    await t.test(name, async (t) => check(t, { directory, onMount }))
  }
}
