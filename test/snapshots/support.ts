/** An engine without a mount, the calls behind nexusctl, and a kernel that notes what it was told to drop. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'
import { Engine, type EngineOptions } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { type DaemonService, daemonService } from '../../src/service/service.ts'
import type { Caller, KernelCaches, Stat } from '../../src/vfs/filesystem.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'

export const caller: Caller = { uid: 0, gid: 0, pid: 1 }

export class RecordingKernel implements KernelCaches {
  /** `node N`, `name N/x`, `delete N/x` */
  told: string[] = []

  async invalidateNode(node: number): Promise<void> {
    this.told.push(`node ${node}`)
  }

  async invalidateAttributes(node: number): Promise<void> {
    this.told.push(`attributes ${node}`)
  }

  async invalidateEntry(parent: number, name: string): Promise<void> {
    this.told.push(`name ${parent}/${name}`)
  }

  async invalidateNames(): Promise<void> {
    this.told.push('names')
  }

  async expireEntry(parent: number, name: string): Promise<void> {
    this.told.push(`expire ${parent}/${name}`)
  }

  async deleteEntry(parent: number, _child: number, name: string): Promise<void> {
    this.told.push(`delete ${parent}/${name}`)
  }

  async writeBack(): Promise<void> {}
}

export class TestEngine {
  readonly kernel = new RecordingKernel()
  readonly engine: Engine
  readonly service: DaemonService

  constructor(engine: Engine) {
    this.engine = engine
    const session = { protocol: '7.45', counts: {} }
    this.service = daemonService({
      engine,
      logger: silentLogger,
      kernel: this.kernel,
      session,
      mountpoint: '/',
      data: '/',
      singleUser: false,
      stop: () => undefined,
    })
  }

  /** The attributes of what is at a path; fails where there is nothing. */
  stat(file: string): Stat {
    let stat: Stat | undefined = this.engine.fs.getattr(caller, nodeOf(0, ROOT_INO))
    for (const name of file.split('/').filter(Boolean)) {
      stat = this.engine.fs.lookup(caller, stat.node, name)
      if (stat === undefined) throw new Error(`there is no ${file}`)
    }
    return stat
  }

  mkdir(file: string): number {
    return this.engine.fs.mkdir(caller, this.stat(path.dirname(file)).node, path.basename(file), 0o755, 0).node
  }

  /** Makes the file if there is none, and puts the text at an offset. */
  write(file: string, text: string | Buffer, offset = 0): number {
    const { node } = this.engine.fs.create(caller, this.stat(path.dirname(file)).node, path.basename(file), 0o644, 0, 0)
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length; at += WRITE_BYTES) {
      const part = bytes.subarray(at, at + WRITE_BYTES)
      const buffer = Buffer.concat([Buffer.alloc(ROOM_BEFORE), part, Buffer.alloc(ROOM_BEHIND)])
      this.engine.fs.write(caller, node, offset + at, buffer, ROOM_BEFORE, part.length, false)
    }
    return node
  }

  read(file: string): string {
    const { node, size } = this.stat(file)
    const into = Buffer.alloc(size)
    this.engine.fs.read(caller, node, 0, size, into, 0)
    return into.toString()
  }

  list(file: string): string[] {
    const names: string[] = []
    this.engine.fs.readdir(caller, this.stat(file).node, 0, false, (name) => names.push(name) > 0)
    return names.filter((name) => name !== '.' && name !== '..').sort()
  }

  unlink(file: string): void {
    this.engine.fs.unlink(caller, this.stat(path.dirname(file)).node, path.basename(file))
  }
}

const WRITE_BYTES = 1 << 20
/** What `write` may overwrite around the data (vfs/filesystem.ts). */
const ROOM_BEFORE = 80
const ROOM_BEHIND = 1024

/** A fresh engine with the workspace /workspace/a, closed and removed when the test ends. */
export async function engineFor(t: Test, limits: EngineOptions['limits'] = {}, singleUser = false): Promise<TestEngine> {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-engine-'))
  const engine = await Engine.open({ data, logger: silentLogger, limits, singleUser })
  t.teardown(async () => {
    await engine.close()
    fs.rmSync(data, { recursive: true, force: true })
  })
  const made = new TestEngine(engine)
  made.mkdir('/workspace/a')
  return made
}
