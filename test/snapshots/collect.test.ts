/**
 * Garbage collection against a model: whatever is reached by a live file, a snapshot, a fork or an
 * open file without a name stays byte for byte, and what nothing reaches is given back.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { type DaemonService, daemonService } from '../../src/service/service.ts'
import type { KernelCaches } from '../../src/vfs/filesystem.ts'
import { nodeOf } from '../../src/vfs/place.ts'

const caller = { uid: 0, gid: 0, pid: 1 }
const kernel: KernelCaches = {
  invalidateNode: async () => undefined,
  invalidateAttributes: async () => undefined,
  invalidateNames: async () => undefined,
  invalidateEntry: async () => undefined,
  expireEntry: async () => undefined,
  deleteEntry: async () => undefined,
  writeBack: async () => undefined,
}
const session = { protocol: '7.0', counts: {} }

/** Content that chunks well: long runs of a few different blocks. */
function content(seed: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes)
  for (let at = 0, state = seed + 1; at + 4 <= bytes; at += 4) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    buffer.writeUInt32LE(state, at)
  }
  return buffer
}

class Store {
  engine!: Engine
  service!: DaemonService
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  async open(rebuildIndex = false): Promise<void> {
    const limits = { segmentBytesMax: 256 * 1024, sealWorkers: 0, checkpointBytes: 2 ** 40, checkpointWeight: 2 ** 40 }
    this.engine = await Engine.open({ data: this.directory, logger: silentLogger, limits, rebuildIndex })
    const options = {
      engine: this.engine,
      logger: silentLogger,
      kernel,
      session,
      mountpoint: '/none',
      data: this.directory,
      singleUser: false,
    }
    this.service = daemonService({ ...options, stop: () => undefined })
  }

  root(workspace: string): number {
    const directory = this.engine.fs.lookup(caller, nodeOf(0, 1), 'workspace')?.node as number
    return this.engine.fs.lookup(caller, directory, workspace)?.node as number
  }

  write(parent: number, name: string, bytes: Buffer): void {
    const { fs } = this.engine
    const { node } = fs.create(caller, parent, name, 0o644, 0, 0)
    fs.setattr(caller, node, { size: 0 })
    const buffer = Buffer.alloc(bytes.length + 2048)
    bytes.copy(buffer, 128)
    fs.write(caller, node, 0, buffer, 128, bytes.length, false)
  }

  read(parent: number, name: string): Buffer | undefined {
    const stat = this.engine.fs.lookup(caller, parent, name)
    if (stat === undefined) return undefined
    const into = Buffer.alloc(stat.size)
    this.engine.fs.read(caller, stat.node, 0, stat.size, into, 0)
    return into
  }

  files(parent: number): Map<string, Buffer> {
    const names: string[] = []
    this.engine.fs.readdir(caller, parent, 0, false, (name, _node, mode) => {
      if ((mode & 0o170000) === 0o100000) names.push(name)
      return true
    })
    return new Map(names.sort().map((name) => [name, this.read(parent, name) as Buffer]))
  }

  snapshotRoot(workspace: string, name: string): number {
    const hidden = this.engine.fs.lookup(caller, this.root(workspace), '.snapshots')?.node as number
    return this.engine.fs.lookup(caller, hidden, name)?.node as number
  }
}

async function freshStore(t: Test): Promise<Store> {
  const directory = mkdtempSync(path.join(tmpdir(), 'nexus-collect-'))
  const store = new Store(path.join(directory, 'data'))
  await store.open()
  t.teardown(async () => {
    await store.engine.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return store
}

type Model = { live: Map<string, Map<string, Buffer>>; snapshots: Map<string, { workspace: string; files: Map<string, Buffer> }> }

function check(t: Test, store: Store, model: Model, when: string): void {
  for (const [workspace, files] of model.live) sameFiles(t, store.files(store.root(workspace)), files, `${workspace} ${when}`)
  for (const [name, { workspace, files }] of model.snapshots) {
    if (model.live.has(workspace))
      sameFiles(t, store.files(store.snapshotRoot(workspace, name)), files, `snapshot ${name} ${when}`)
  }
}

function sameFiles(t: Test, found: Map<string, Buffer>, wanted: Map<string, Buffer>, what: string): void {
  const same = found.size === wanted.size && [...wanted].every(([name, bytes]) => found.get(name)?.equals(bytes))
  if (!same) t.fail(`${what}: found ${[...found.keys()]}, wanted ${[...wanted.keys()]} with their content`)
}

const names = ['a', 'b', 'c', 'd']
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('write' as const),
      ws: fc.nat(2),
      file: fc.nat(3),
      seed: fc.nat(5),
      kib: fc.integer({ min: 1, max: 90 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('unlink' as const), ws: fc.nat(2), file: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('copy' as const), ws: fc.nat(2), file: fc.nat(3), to: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('snapshot' as const), ws: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('unsnapshot' as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('restore' as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('fork' as const), ws: fc.nat(2), to: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('collect' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('crash' as const), rebuild: fc.boolean() }) },
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

async function apply(store: Store, model: Model, one: Step, counter: { value: number }): Promise<void> {
  const { service, engine } = store
  const workspace = 'ws' in one ? `w${one.ws}` : ''
  const files = model.live.get(workspace)
  const name = 'file' in one ? (names[one.file] as string) : ''
  const picked = 'pick' in one ? [...model.snapshots.keys()][one.pick % Math.max(1, model.snapshots.size)] : undefined
  const snapshot = picked === undefined ? undefined : model.snapshots.get(picked)
  if (one.op === 'write' && files !== undefined) {
    const bytes = content(one.seed, one.kib * 1024)
    store.write(store.root(workspace), name, bytes)
    files.set(name, bytes)
  } else if (one.op === 'unlink' && files?.has(name)) {
    const { node } = engine.fs.lookup(caller, store.root(workspace), name) as { node: number }
    engine.fs.unlink(caller, store.root(workspace), name)
    engine.fs.forget(node, 1000)
    files.delete(name)
  } else if (one.op === 'copy' && files?.has(name) && one.to !== one.file) {
    const to = names[one.to] as string
    const from = engine.fs.lookup(caller, store.root(workspace), name)
    const target = engine.fs.create(caller, store.root(workspace), to, 0o644, 0, 0)
    engine.fs.setattr(caller, target.node, { size: 0 })
    engine.fs.copyFileRange(caller, from?.node as number, 0, target.node, 0, from?.size as number)
    files.set(to, files.get(name) as Buffer)
  } else if (one.op === 'snapshot' && files !== undefined) {
    const id = `s${counter.value++}`
    await service.snapshotCreate(`/workspace/${workspace}`, { name: id })
    model.snapshots.set(id, { workspace, files: new Map(files) })
  } else if (one.op === 'unsnapshot' && picked !== undefined && snapshot !== undefined) {
    await service.snapshotDelete(`/workspace/${snapshot.workspace}`, picked)
    model.snapshots.delete(picked)
  } else if (one.op === 'restore' && picked !== undefined && snapshot !== undefined) {
    await service.restore(`/workspace/${snapshot.workspace}`, picked, {})
    model.live.set(snapshot.workspace, new Map(snapshot.files))
  } else if (one.op === 'fork' && files !== undefined) {
    const to = `w${one.to}`
    if (to === workspace) return
    if (model.live.has(to)) await service.workspaceDelete(`/workspace/${to}`)
    for (const [id, kept] of model.snapshots) if (kept.workspace === to) model.snapshots.delete(id)
    await service.fork(`/workspace/${workspace}`, `/workspace/${to}`, {})
    model.live.set(to, new Map(files))
  } else if (one.op === 'collect') {
    // Something is written while it runs: commits do not wait for it.
    const running = service.collect()
    store.write(store.root('w0'), 'busy', content(99, 20_000))
    model.live.get('w0')?.set('busy', content(99, 20_000))
    await running
  } else if (one.op === 'crash') {
    const copy = `${store.directory}.copy`
    rmSync(copy, { recursive: true, force: true })
    cpSync(store.directory, copy, { recursive: true })
    await engine.close()
    rmSync(store.directory, { recursive: true })
    cpSync(copy, store.directory, { recursive: true })
    rmSync(copy, { recursive: true })
    await store.open(one.rebuild)
  }
}

t.test('nothing that is reached is lost, whatever is interleaved', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
      const store = await freshStore(t)
      const model: Model = { live: new Map(), snapshots: new Map() }
      const counter = { value: 0 }
      for (const workspace of ['w0', 'w1']) {
        await store.service.workspaceCreate(`/workspace/${workspace}`, {})
        model.live.set(workspace, new Map())
      }
      for (const one of steps) {
        await apply(store, model, one, counter)
        if (one.op === 'collect' || one.op === 'crash') check(t, store, model, `after ${one.op}`)
      }
      await store.service.collect()
      check(t, store, model, 'at the end')
      await store.engine.close()
      await store.open(true)
      check(t, store, model, 'after a rebuild of the index')
      await store.engine.close()
      return t.passing()
    }),
    { numRuns: 40, endOnFailure: true, seed: Number(process.env['NEXUS_SEED'] ?? Date.now() % 2 ** 31) },
  )
  t.pass('40 runs')
})

t.test('the space of what was deleted comes back', async (t) => {
  const store = await freshStore(t)
  await store.service.workspaceCreate('/workspace/w0', {})
  for (let i = 0; i < 40; i++) store.write(store.root('w0'), `f${i}`, content(i, 200_000))
  await store.service.snapshotCreate('/workspace/w0', { name: 'all' })
  const full = store.engine.volumes.logBytes
  t.ok(full > 8_000_000)
  for (let i = 1; i < 40; i++) {
    const { node } = store.engine.fs.lookup(caller, store.root('w0'), `f${i}`) as { node: number }
    store.engine.fs.unlink(caller, store.root('w0'), `f${i}`)
    store.engine.fs.forget(node, 1000)
  }
  await store.service.collect()
  t.ok(store.engine.volumes.logBytes > full * 0.95, 'the snapshot keeps what it had')
  t.ok(store.read(store.snapshotRoot('w0', 'all'), 'f7')?.equals(content(7, 200_000)))
  await store.service.snapshotDelete('/workspace/w0', 'all')
  await store.service.workspaceCreate('/workspace/w1', {})
  const info = await store.service.collect()
  t.ok(info.segments > 10 && info.freed_bytes > 6_000_000, 'segments were removed')
  t.ok(store.engine.volumes.logBytes < full / 2, 'and are gone from the disk')
  t.ok(store.read(store.root('w0'), 'f0')?.equals(content(0, 200_000)), 'what is left reads the same')
})
