/** A workspace with a process that lives in it, for the tests of what running programs see of a restore. */
import fs from 'node:fs'
import type { Test } from 'tap'
import type { RestoreInfo } from '../../src/api/snapshots.ts'
import { Guest, scriptOf } from './guest.ts'
import { mountFor, type TestMount } from './harness.ts'

export interface World {
  mount: TestMount
  /** of the workspace /workspace/a, on the host */
  dir: string
  guest: Guest
}

/** @param module of Python beside this file, that the guest imports */
export async function worldFor(t: Test, module: string): Promise<World> {
  const mount = await mountFor(t)
  const dir = mount.at('workspace/a')
  fs.mkdirSync(dir)
  const guest = new Guest(t, dir)
  await guest.run(`sys.path.insert(0, ${JSON.stringify(scriptOf('.'))}); sys.dont_write_bytecode = True; import ${module}`)
  return { mount, dir, guest }
}

export function restore(mount: TestMount, name: string): RestoreInfo {
  return mount.json<RestoreInfo>('restore', '/workspace/a', name, '--force')
}
