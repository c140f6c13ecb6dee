/** What a workload is, and what it is handed when it runs. */
import fs from 'node:fs'
import path from 'node:path'
import type { Service } from '../src/api/calls.ts'
import type { Inputs } from './inputs.ts'
import type { Shell } from './shell.ts'

/** `budget` is what the test of requests runs: small, and as fast as it gets. */
export type Scale = 'full' | 'quick' | 'budget'

/** One place where a workload runs: a directory of some filesystem, and a uid that works there. */
export interface Place {
  readonly name: string
  readonly kind: 'local' | 'nexus' | 'peer'
  /** empty at first; everything lies below it. Places that share it share what is made for reading only */
  readonly home: string
  /** who makes what others read */
  readonly owner: number
  /** who is measured */
  readonly uid: number
  /** everything stored, nothing left to do in the background */
  settle(): Promise<void>
  /** nothing of it in any memory; `settle` first */
  restart(): Promise<void>
  /** requests that have reached the daemon, by operation; there is none on the local disk, and peers do not tell */
  requests?(): Promise<Record<string, number>>
  /** only of peers: @throws HungError when it does not answer */
  probe?(): Promise<void>
  /** only of peers: ends it, however it stands */
  giveUp?(): Promise<void>
  /** only of nexus */
  readonly store?: Store
}

/** What is behind a mount of nexus. */
export interface Store {
  readonly service: Service
  /** bytes that workspaces and snapshots need, measured anew */
  storedBytes(): Promise<number>
  /** bytes that the daemon had written to the disk since it began, from /proc */
  writtenBytes(): Promise<number>
}

/** Made once a home, by its owner, and only read afterwards. */
export interface Fixture {
  readonly name: string
  make(job: Job): Promise<unknown>
}

/** One workload at one place. */
export interface Job {
  readonly place: Place
  readonly inputs: Inputs
  /** what the workload's `sizes` say */
  readonly size: number
  /** empty, new for each round, the measured uid's own, and where commands are run */
  readonly directory: string
  /** that no other workload or round has, and the same in every run: for content that nothing else is alike */
  readonly seed: number
  /** where the workload's fixture is */
  readonly fixture: string
  /** commands as the measured uid */
  readonly shell: Shell
  /** commands as the one who owns the place */
  readonly asOwner: Shell
}

export interface Workload {
  readonly name: string
  /** `time`: seconds, whose ratio to the local disk's is held against the aim; else `run` returns what is */
  readonly measure: 'time' | 'ms' | 'MiB' | 'times'
  /** undefined: it is measured and nothing was promised */
  readonly aim: number | undefined
  readonly sizes: Readonly<Record<Scale, number>>
  /** what `sizes` counts and requests are told for */
  readonly each: string
  /** programs that it needs, and the packages that have them */
  readonly programs?: Readonly<Record<string, string>>
  readonly fixture?: Fixture
  /** only where there is a store to ask, and once: what is stored does not depend on who asks or on the load */
  readonly onlyStore?: true
  /** what is dropped before each round: what the kernel caches, of the whole machine, or also what the daemon does */
  readonly cold?: 'kernel' | 'daemon'
  /** it is run before untimed, right before it is measured: all that it reads is in the caches then */
  readonly warm?: true
  /** requests are not what it is about */
  readonly noBudget?: true
  /** what is needed and not measured; `settle` follows */
  prepare?(job: Job): Promise<unknown>
  run(job: Job): Promise<number>
  /** throws when what was done is not what should have been */
  verify?(job: Job): Promise<unknown>
}

export class BenchError extends Error {}

/** @throws BenchError when two values that should be equal are not */
export function expectEqual(what: string, found: string | number, expected: string | number): void {
  if (String(found).trim() !== String(expected)) throw new BenchError(`${what}: ${found}, where it should be ${expected}`)
}

/** Programs that a workload needs and that are not installed, with their packages. */
export function missingFor({ programs = {} }: Workload): string[] {
  const directories = (process.env['PATH'] ?? '').split(':')
  const isThere = (program: string): boolean => directories.some((directory) => fs.existsSync(path.join(directory, program)))
  const missing = Object.entries(programs).filter(([program]) => !isThere(program))
  return missing.map(([program, of]) => `no ${program} (apt-get install ${of})`)
}
