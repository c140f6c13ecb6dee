/**
 * A store whose garbage is collected one step at a time, beside a model of what must be readable: files by name, open
 * files without one, snapshots. Everything is in memory, so that the machine can stop at any write.
 */
import assert from 'node:assert/strict'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Engine } from '../../src/engine/engine.ts'
import { silentLogger } from '../../src/logger.ts'
import { type DaemonService, daemonService } from '../../src/service/service.ts'
import type { KernelCaches } from '../../src/vfs/filesystem.ts'
import { inoOfNode, nodeOf, volumeOf } from '../../src/vfs/place.ts'
import type { CollectOptions } from '../../src/volume/collect.ts'
import { MemoryIndex, noise } from '../cas/support.ts'
import { MemoryDisk } from '../journal/support.ts'

const caller = { uid: 0, gid: 0, pid: 1 }
export const SEGMENT_BYTES = 48 * 1024
const limits = {
  segmentBytesMax: SEGMENT_BYTES,
  sealWorkers: 0,
  nodeCacheBytesMax: 1,
  chunkCacheBytesMax: 1000,
  checkpointBytes: 2 ** 40,
  checkpointWeight: 2 ** 40,
}
const ROOM_BEFORE = 128
const ROOM_BEHIND = 1024

/** Content of files by node; those without a name are there as long as they are open. */
interface State {
  names: Map<string, number>
  bytes: Map<number, Buffer>
}

interface KeptState extends State {
  workspace: string
}

/** What a command that was begun, and stands still in the kernel, will have done. */
interface Begun {
  result: Promise<unknown>
  /** told of the outcome */
  ended(error: unknown): void
}

/** Does what it is asked for, or only when it is let go. */
class HoldingKernel implements KernelCaches {
  /** what is held from now on */
  holds: 'nothing' | 'writeBack' | 'notify' = 'nothing'
  #held: (() => void)[] = []

  get isHolding(): boolean {
    return this.#held.length > 0
  }

  letGo(): void {
    this.holds = 'nothing'
    for (const resolve of this.#held.splice(0)) resolve()
  }

  #notify(): Promise<void> {
    return this.holds === 'notify' ? new Promise((resolve) => this.#held.push(resolve)) : Promise.resolve()
  }

  invalidateNode = (): Promise<void> => this.#notify()
  invalidateAttributes = (): Promise<void> => this.#notify()
  invalidateEntry = (): Promise<void> => this.#notify()
  invalidateNames = (): Promise<void> => this.#notify()
  expireEntry = (): Promise<void> => this.#notify()
  deleteEntry = (): Promise<void> => this.#notify()
  writeBack = (): Promise<void> =>
    this.holds === 'writeBack' ? new Promise((resolve) => this.#held.push(resolve)) : Promise.resolve()
}

/** A collection that stands still between two slices. */
class Stepped {
  readonly result: Promise<unknown>
  isOver = false
  error: unknown
  #go: (() => void) | undefined

  constructor(collect: (options: CollectOptions) => Promise<unknown>, copy: boolean) {
    const pause = (): Promise<void> => new Promise((resolve) => (this.#go = resolve))
    this.result = collect({ copy, pause }).then(
      () => (this.isOver = true),
      (error: unknown) => {
        this.isOver = true
        this.error = error
      },
    )
  }

  /** Lets it do one slice, until it stands still again or is over; the first time up to where it stands first. */
  async step(): Promise<void> {
    const go = this.#go
    this.#go = undefined
    go?.()
    await this.still()
  }

  async still(): Promise<void> {
    while (!this.isOver && this.#go === undefined) await nextTurn()
  }
}

export class World {
  readonly data: string
  readonly kernel = new HoldingKernel()
  engine!: Engine
  service!: DaemonService
  disk = new MemoryDisk()
  index = new MemoryIndex()
  collection: Stepped | undefined
  begun: Begun | undefined
  readonly live = new Map<string, State>()
  readonly snapshots = new Map<string, KeptState>()
  /** nodes that somebody has open */
  readonly open = new Set<number>()
  #names = 0

  constructor(data: string) {
    this.data = data
  }

  async start(): Promise<void> {
    const { data, disk, index } = this
    this.engine = await Engine.open({ data, disk, index, logger: silentLogger, limits, owner: caller, singleUser: true })
    const session = { protocol: '', counts: {} }
    const { engine, kernel } = this
    const more = { mountpoint: '/', data, singleUser: true, stop: () => undefined }
    this.service = daemonService({ engine, kernel, session, logger: silentLogger, ...more })
  }

  // Files.

  write(workspace: string, name: string, bytes: Buffer, offset: number): void {
    const state = this.live.get(workspace)
    if (state === undefined) return
    const { fs } = this.engine
    const { node } = fs.create(caller, this.#root(workspace), name, 0o644, 0, 0)
    const buffer = Buffer.concat([Buffer.alloc(ROOM_BEFORE), bytes, Buffer.alloc(ROOM_BEHIND)])
    fs.write(caller, node, offset, buffer, ROOM_BEFORE, bytes.length, false)
    const before = state.bytes.get(node) ?? Buffer.alloc(0)
    const after = Buffer.alloc(Math.max(before.length, offset + bytes.length))
    before.copy(after)
    bytes.copy(after, offset)
    state.names.set(name, node)
    state.bytes.set(node, after)
    this.#unlessOpen(node)
  }

  /** Without moving a byte: both files refer to the same from then on. */
  copy(workspace: string, name: string, toWorkspace: string, to: string): void {
    const from = this.live.get(workspace)?.names.get(name)
    const target = this.live.get(toWorkspace)
    if (target === undefined || from === undefined || (workspace === toWorkspace && name === to)) return
    this.#copy(this.live.get(workspace)?.bytes.get(from) as Buffer, from, toWorkspace, to)
  }

  /** The same from a snapshot. */
  copyKept(id: string, name: string, toWorkspace: string, to: string): void {
    const kept = this.snapshots.get(id)
    const from = kept?.names.get(name)
    const record = this.engine.registry.snapshot(id)
    if (kept === undefined || from === undefined || record === undefined || !this.live.has(toWorkspace)) return
    this.#copy(kept.bytes.get(from) as Buffer, nodeOf(record.view, inoOfNode(from)), toWorkspace, to)
  }

  /** The same from a file that somebody has open, and that may have no name. */
  copyOpen(pick: number, toWorkspace: string, to: string): void {
    const from = [...this.open][pick % Math.max(1, this.open.size)]
    const state = [...this.live.values()].find((one) => from !== undefined && one.bytes.has(from))
    const target = this.live.get(toWorkspace)
    if (from === undefined || state === undefined || target === undefined || target.names.get(to) === from) return
    this.#copy(state.bytes.get(from) as Buffer, from, toWorkspace, to)
  }

  #copy(bytes: Buffer, from: number, workspace: string, to: string): void {
    const { fs } = this.engine
    const state = this.live.get(workspace) as State
    const { node } = fs.create(caller, this.#root(workspace), to, 0o644, 0, 0)
    fs.setattr(caller, node, { size: 0 })
    fs.copyFileRange(caller, from, 0, node, 0, bytes.length)
    state.names.set(to, node)
    state.bytes.set(node, bytes)
    this.#unlessOpen(node)
  }

  /** From now on somebody has the file open. */
  hold(workspace: string, name: string): void {
    const node = this.live.get(workspace)?.names.get(name)
    if (node === undefined || this.open.has(node)) return
    this.engine.fs.lookup(caller, this.#root(workspace), name)
    this.open.add(node)
  }

  /** Who has files open closes them all. */
  closeAll(): void {
    for (const node of this.open) this.#close(node)
  }

  #close(node: number): void {
    this.open.delete(node)
    this.engine.fs.forget(node, 1000)
    for (const state of this.live.values()) if (![...state.names.values()].includes(node)) state.bytes.delete(node)
  }

  unlink(workspace: string, name: string): void {
    const state = this.live.get(workspace)
    const node = state?.names.get(name)
    if (state === undefined || node === undefined) return
    this.engine.fs.unlink(caller, this.#root(workspace), name)
    state.names.delete(name)
    if (this.open.has(node)) return
    state.bytes.delete(node)
    this.engine.fs.forget(node, 1000)
  }

  // Workspaces and snapshots.

  async create(workspace: string): Promise<void> {
    if (this.live.has(workspace)) return
    await this.service.workspaceCreate(pathOf(workspace), {})
    this.live.set(workspace, { names: new Map(), bytes: new Map() })
  }

  async remove(workspace: string): Promise<void> {
    if (!this.live.has(workspace)) return
    const number = volumeOf(this.#root(workspace))
    await this.service.workspaceDelete(pathOf(workspace))
    this.live.delete(workspace)
    for (const node of this.open) if (volumeOf(node) === number) this.open.delete(node)
    for (const [id, kept] of this.snapshots) if (kept.workspace === workspace) this.snapshots.delete(id)
  }

  async snapshot(workspace: string): Promise<void> {
    const state = this.live.get(workspace)
    if (state === undefined) return
    const kept = { workspace, ...clone(state) }
    const { snapshot_id } = await this.service.snapshotCreate(pathOf(workspace), { name: `s${this.#names++}` })
    this.snapshots.set(snapshot_id, kept)
  }

  async unsnapshot(id: string): Promise<void> {
    const kept = this.snapshots.get(id)
    if (kept === undefined) return
    await this.service.snapshotDelete(pathOf(kept.workspace), id)
    this.snapshots.delete(id)
  }

  /** @param snapshot of that workspace; undefined: as it is now */
  async fork(workspace: string, to: string, snapshot: string | undefined): Promise<void> {
    const source = snapshot === undefined ? this.live.get(workspace) : this.snapshots.get(snapshot)
    if (source === undefined || workspace === to || this.live.has(to)) return
    const copy = clone(source)
    await this.service.fork(pathOf(workspace), pathOf(to), snapshot === undefined ? {} : { snapshot })
    const number = volumeOf(this.#root(to))
    const renumbered = (node: number): number => nodeOf(number, inoOfNode(node))
    const names = new Map([...copy.names].map(([name, node]) => [name, renumbered(node)]))
    const bytes = new Map([...copy.names.values()].map((node) => [renumbered(node), copy.bytes.get(node) as Buffer]))
    this.live.set(to, { names, bytes })
  }

  /** @param holds where the command stands still until `finish` */
  async restore(id: string, holds: HoldingKernel['holds']): Promise<void> {
    const kept = this.snapshots.get(id)
    if (kept === undefined || this.begun !== undefined) return
    const wanted = clone(kept)
    const { workspace } = kept
    const done = (): void => this.#restored(workspace, wanted)
    if (holds === 'nothing') {
      await this.service.restore(pathOf(workspace), id, {})
      done()
      return
    }
    await this.#begin(
      () => this.service.restore(pathOf(workspace), id, {}),
      holds,
      (error) => {
        if (error !== undefined) assert(!this.snapshots.has(id) || !this.live.has(workspace), `restore: ${error}`)
        else if (holds === 'writeBack') done()
      },
    )
    if (holds === 'notify' && this.begun !== undefined) done()
  }

  async diff(id: string): Promise<void> {
    const kept = this.snapshots.get(id)
    if (kept === undefined || this.begun !== undefined) return
    const { workspace } = kept
    const number = volumeOf(this.#root(workspace))
    await this.#begin(
      () => this.service.snapshotDiff(pathOf(workspace), id, null, 1000),
      'writeBack',
      (error) => {
        // A workspace that was removed may be there anew, under its name and with another number.
        const isThere = this.live.has(workspace) && volumeOf(this.#root(workspace)) === number
        if (error !== undefined) assert(!isThere, `diff: ${error}`)
      },
    )
  }

  async #begin(command: () => Promise<unknown>, holds: HoldingKernel['holds'], ended: Begun['ended']): Promise<void> {
    this.kernel.holds = holds
    let isOver = false
    const result = command().then(
      () => undefined,
      (error: unknown) => error ?? new Error('failed'),
    )
    void result.then(() => (isOver = true))
    while (!isOver && !this.kernel.isHolding) await nextTurn()
    this.kernel.holds = 'nothing'
    this.begun = { result, ended }
    if (isOver) await this.finish()
  }

  /** What was begun ends. */
  async finish(): Promise<void> {
    const { begun } = this
    this.kernel.letGo()
    if (begun === undefined) return
    this.begun = undefined
    begun.ended(await begun.result)
  }

  /** The model of a restore; the engine has done it. */
  #restored(workspace: string, wanted: State): void {
    const before = this.live.get(workspace)
    if (before === undefined) return
    const held = [...before.bytes].filter(([node]) => this.open.has(node) && !wanted.bytes.has(node))
    const back = [...wanted.bytes].filter(([node]) => this.open.has(node) || [...wanted.names.values()].includes(node))
    this.live.set(workspace, { names: wanted.names, bytes: new Map([...back, ...held]) })
    const undo = this.engine.registry.snapshotsOf(volumeOf(this.#root(workspace))).findLast((record) => record.automatic)
    if (undo !== undefined) this.snapshots.set(undo.id, { workspace, ...clone(before) })
  }

  /**
   * A command that reads a snapshot stands still, the snapshot goes with all that was left of it, and so does what the
   * command found; a collection passes, and the command goes on.
   */
  async race(id: string, holds: HoldingKernel['holds'], isDiff: boolean): Promise<void> {
    const workspace = this.snapshots.get(id)?.workspace
    if (workspace === undefined || this.begun !== undefined) return
    const before = new Set(this.snapshots.keys())
    await (isDiff ? this.diff(id) : this.restore(id, holds))
    for (const one of [...this.snapshots.keys()]) if (one === id || !before.has(one)) await this.unsnapshot(one)
    this.write(workspace, 'a', noise(5000, 77), 0)
    this.unlink(workspace, 'b')
    await this.engine.volumes.checkpoint()
    await this.collected()
    this.closeAll()
    for (let i = 0; i < 2; i++) await this.engine.collect()
    await this.finish()
  }

  // The collector.

  /** Begins to collect, and stands still when the first checkpoint is about to be stored. */
  async beginHeld(): Promise<() => void> {
    let release: (() => void) | undefined
    this.disk.gate = () => new Promise((resolve) => (release = resolve))
    this.collection = new Stepped((options) => this.engine.collect(options), true)
    while (release === undefined) await nextTurn()
    this.disk.gate = undefined
    return release
  }

  async step(count: number, copy: boolean): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.collection ??= new Stepped((options) => this.engine.collect(options), copy)
      await this.collection.step()
      if (this.collection.isOver) await this.collected()
    }
  }

  /** The collection that runs is over. */
  async collected(): Promise<void> {
    const { collection } = this
    while (collection !== undefined && !collection.isOver) await collection.step()
    this.collection = undefined
    if (collection?.error !== undefined) throw collection.error
  }

  // Death.

  /** The machine stops at a write of the collection to log or index, or where it stands, and starts again. */
  async die(afterWrites: number, rebuild: boolean): Promise<void> {
    let left = afterWrites
    let found: { disk: MemoryDisk; index: MemoryIndex } | undefined
    const { disk, index } = this
    const count = (): void => {
      if (left-- === 0) found ??= { disk: disk.afterKill(), index: index.clone() }
    }
    disk.fault = (call) => {
      if (call !== 'open') count()
    }
    index.fault = count
    for (let i = 0; i < 200 && found === undefined && this.collection !== undefined; i++) await this.step(1, true)
    disk.fault = () => {
      throw new Error('the machine is off')
    }
    index.fault = undefined
    this.disk = found?.disk ?? disk.afterKill()
    this.index = rebuild ? new MemoryIndex() : (found?.index ?? index.clone())
    this.kernel.letGo()
    this.begun = undefined
    this.collection = undefined
    this.open.clear()
    for (const state of this.live.values()) {
      const named = new Set(state.names.values())
      for (const node of state.bytes.keys()) if (!named.has(node)) state.bytes.delete(node)
    }
    await this.start()
    this.#adoptUnknown()
  }

  /** A restore that was begun has left its undo snapshot, or not. */
  #adoptUnknown(): void {
    for (const record of this.engine.registry.snapshots()) {
      if (!this.snapshots.has(record.id)) throw new Error(`a snapshot ${record.id} that nobody took`)
    }
  }

  // What must be there.

  /** Throws when any byte of any file, open file or snapshot is not what it must be. */
  check(): void {
    for (const [workspace, state] of this.live) {
      this.#checkDirectory(this.#root(workspace), state, workspace)
      for (const node of this.open) {
        const bytes = state.bytes.get(node)
        if (bytes !== undefined) assert(this.#read(node, bytes.length).equals(bytes), `an open file of ${workspace}`)
      }
    }
    for (const [id, kept] of this.snapshots) {
      const record = this.engine.registry.snapshot(id)
      assert(record !== undefined, `snapshot ${id}`)
      this.#checkDirectory(nodeOf(record.view, 1), kept, `snapshot ${id}`)
    }
  }

  #checkDirectory(directory: number, state: State, what: string): void {
    const { fs } = this.engine
    const names: string[] = []
    fs.readdir(caller, directory, 0, false, (name, _node, mode) => {
      if ((mode & 0o170000) === 0o100000) names.push(name)
      return true
    })
    assert.deepEqual(names.sort(), [...state.names.keys()].sort(), what)
    for (const [name, wanted] of state.names) {
      const stat = fs.lookup(caller, directory, name)
      assert(stat !== undefined, `${name} in ${what}`)
      const bytes = state.bytes.get(wanted) as Buffer
      assert.equal(stat.size, bytes.length, `size of ${name} in ${what}`)
      assert(this.#read(stat.node, stat.size).equals(bytes), `${name} in ${what}`)
      if (!this.open.has(stat.node)) fs.forget(stat.node, 1000)
    }
  }

  /** Bytes of what the index knows, all of it alive after a collection. */
  async storedBytes(): Promise<number> {
    let bytes = 0
    for await (const { location } of this.engine.volumes.content.contents()) bytes += location.length
    return bytes
  }

  #read(node: number, size: number): Buffer {
    const into = Buffer.alloc(size)
    this.engine.fs.read(caller, node, 0, size, into, 0)
    return into
  }

  #unlessOpen(node: number): void {
    if (!this.open.has(node)) this.engine.fs.forget(node, 1000)
  }

  #root(workspace: string): number {
    const { fs } = this.engine
    const directory = fs.lookup(caller, nodeOf(0, 1), 'workspace')?.node as number
    return fs.lookup(caller, directory, workspace)?.node as number
  }
}

/** A few different contents, so that most of what is written has been there before. */
export function content(seed: number, kib: number): Buffer {
  return noise(40 * 1024, seed + 1).subarray(0, kib * 1024)
}

function pathOf(workspace: string): string {
  return `/workspace/${workspace}`
}

function clone({ names, bytes }: State): State {
  return { names: new Map(names), bytes: new Map(bytes) }
}
