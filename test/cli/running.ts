/** Runs `nexusctl` against a fake daemon: in a process of its own, or in this one. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { runCtl } from '../../src/cli/ctl.ts'
import type { Host } from '../../src/cli/session.ts'
import { fakeService, scratchDir, serveFake } from '../service/fake-service.ts'

export const program = fileURLToPath(new URL('../../bin/nexusctl.js', import.meta.url))

export interface Ended {
  exit: number | null
  stdout: string
  stderr: string
}

export function run(command: string, args: string[], options: { env?: Record<string, string> } = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, env: { ...process.env, TZ: 'UTC', ...options.env } })
    const ended: Ended = { exit: null, stdout: '', stderr: '' }
    child.stdout.on('data', (part: Buffer) => {
      ended.stdout += part
    })
    child.stderr.on('data', (part: Buffer) => {
      ended.stderr += part
    })
    child.on('error', reject)
    child.on('close', (exit) => resolve({ ...ended, exit }))
  })
}

export const nexusctl = (dataDir: string, ...args: string[]) => run(process.execPath, [program, '--data', dataDir, ...args])

/** The same without a process of its own, for the many rows. */
export async function inProcess(dataDir: string, args: string[], cwd: Host['cwd'] = () => '/'): Promise<Ended> {
  const ended: Ended = { exit: null, stdout: '', stderr: '' }
  const host: Host = {
    env: { NEXUS_DATA: dataDir },
    cwd,
    stdout: (text) => {
      ended.stdout += text
    },
    stderr: (text) => {
      ended.stderr += text
    },
  }
  ended.exit = await runCtl(args, host)
  return ended
}

export async function served(t: Test, overrides: Partial<Service> = {}) {
  const dataDir = scratchDir(t)
  const service = fakeService(overrides)
  await serveFake(t, dataDir, service)
  return { dataDir, service }
}
