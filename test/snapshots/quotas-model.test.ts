/**
 * Quotas against a model that counts by force: random operations in nested workspaces, with restores, forks, deletes, and
 * crashes. What is taken is always what the model counts, and EDQUOT comes exactly when the model says so.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import { systemCode } from '../../src/errors.ts'
import { silentLogger } from '../../src/logger.ts'
import { inoOfNode, nodeOf, volumeOf } from '../../src/vfs/place.ts'
import { copyLive } from '../crash/copylive.ts'
import { caller, TestEngine } from './support.ts'

const seed = Number(process.env['NEXUS_SEED'] ?? Date.now() % 1_000_000)
const STEPS = Number(process.env['NEXUS_STEPS'] ?? 1200)
const BLOCK = 1000
const BLOCKS = 12
const NAMES = ['p', 'q', 'r', 's']
const ALL_REFERENCES = 2 ** 31

/** A file with its blocks, or a directory; hard links share it. */
interface Inode {
  node: number
  blocks: Set<number>
  isFile: boolean
}

interface Space {
  /** the same for as long as it is the same workspace */
  id: number
  entries: Map<string, Inode>
  nested: Map<string, Space>
  /** open without a name */
  held: Inode[]
  bytes: number
  inodes: number
}

interface Snapshot {
  id: string
  space: number
  state: Space
}

/** How much is taken, counted one by one. */
function takenBy(space: Space): { bytes: number; inodes: number } {
  const all = new Set([...space.entries.values(), ...space.held])
  const sum = { bytes: 0, inodes: 1 + all.size }
  for (const { blocks } of all) sum.bytes += blocks.size * BLOCK
  for (const inner of space.nested.values()) {
    const { bytes, inodes } = takenBy(inner)
    sum.bytes += bytes
    sum.inodes += inodes
  }
  return sum
}

/** As a snapshot has it: without what is only open. */
function copyOf(space: Space): Space {
  const made = new Map<Inode, Inode>()
  const entries = [...space.entries].map(([name, inode]): [string, Inode] => {
    const copy = made.get(inode) ?? { ...inode, blocks: new Set(inode.blocks) }
    made.set(inode, copy)
    return [name, copy]
  })
  const nested = [...space.nested].map(([name, inner]): [string, Space] => [name, copyOf(inner)])
  return { ...space, entries: new Map(entries), nested: new Map(nested), held: [] }
}

function* within(space: Space): Generator<Space> {
  yield space
  for (const inner of space.nested.values()) yield* within(inner)
}

class World {
  readonly t: Test
  test: TestEngine
  data: string
  #random = seed
  #ids = 1
  readonly top: Space
  snapshots: Snapshot[] = []
  #names = 0
  /** how often what happened */
  readonly happened: Record<string, number> = {}

  constructor(t: Test, test: TestEngine, data: string) {
    this.t = t
    this.test = test
    this.data = data
    this.top = this.#space()
  }

  #space(): Space {
    return { id: this.#ids++, entries: new Map(), nested: new Map(), held: [], bytes: Infinity, inodes: Infinity }
  }

  nat(below: number): number {
    this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((this.#random / 2 ** 32) * below)
  }

  pick<T>(from: readonly T[]): T {
    return from[this.nat(from.length)] as T
  }

  /** Every workspace with its path and those around it, itself first. */
  *spaces(space = this.top, at = '/workspace', around: Space[] = []): Generator<{ space: Space; at: string; chain: Space[] }> {
    const chain = [space, ...around]
    // The one on top is the root of all, whose workspaces lie in a directory of it.
    yield { space, at: space === this.top ? '/' : at, chain }
    for (const [name, inner] of space.nested) yield* this.spaces(inner, `${at}/${name}`, chain)
  }

  fits(chain: readonly Space[], bytes: number, inodes: number): boolean {
    return chain.every((space) => {
      const taken = takenBy(space)
      return (bytes <= 0 || taken.bytes + bytes <= space.bytes) && (inodes <= 0 || taken.inodes + inodes <= space.inodes)
    })
  }

  /** Does it, and holds what comes of it against what is to come. @returns true when it was done */
  async expect(what: string, fits: boolean, run: () => unknown, refusal = 'EDQUOT'): Promise<boolean> {
    let code = 'done'
    try {
      await run()
    } catch (error) {
      code = systemCode(error) ?? String(error)
    }
    const wanted = fits ? 'done' : refusal
    const kind = `${what.split(' ')[0]} ${code}`
    this.happened[kind] = (this.happened[kind] ?? 0) + 1
    if (code !== wanted) throw new Error(`seed ${seed}: ${what}: ${code}, and not ${wanted}`)
    return fits
  }

  /** The kernel gives back what nobody has open. */
  forget(): void {
    const held = new Set([...this.spaces()].flatMap(({ space }) => space.held.map(({ node }) => node)))
    const { known } = this.test.engine
    for (const number of known.volumes()) {
      for (const ino of [...known.of(number)]) {
        const node = nodeOf(number, ino)
        if (ino !== 1 && !held.has(node)) this.test.engine.fs.forget(node, ALL_REFERENCES)
      }
    }
  }

  async step(): Promise<void> {
    const all = [...this.spaces()].filter(({ space }) => space !== this.top)
    const kinds = [
      'write',
      'write',
      'write',
      'make',
      'make',
      'make',
      'link',
      'unlink',
      'punch',
      'copy',
      'copy',
      'tmpfile',
      'release',
    ]
    const rare = [
      'quota',
      'quota',
      'quota',
      'nest',
      'nest',
      'snapshot',
      'restore',
      'restore',
      'fork',
      'delete',
      'checkpoint',
      'crash',
    ]
    const likely = this.nat(5) === 0 ? this.pick(rare) : this.pick(kinds)
    // When the last workspace went while the quota of the root allows none, that has to change.
    const kind = all.length > 0 ? likely : this.nat(3) === 0 ? 'quota' : 'nest'
    const { space, at, chain } = all.length === 0 ? { space: this.top, at: '/', chain: [this.top] } : this.pick(all)
    if (kind === 'nest') await this.nest()
    else if (kind === 'quota') await this.quota()
    else if (kind === 'snapshot' || kind === 'restore' || kind === 'fork' || kind === 'delete') await this[kind](space, at, chain)
    else if (kind === 'checkpoint') await this.test.engine.volumes.checkpoint()
    else if (kind === 'crash') await this.crash()
    else if (kind === 'make') await this.make(space, at, chain)
    else if (kind === 'tmpfile') {
      const directory = this.test.stat(at).node
      let node = 0
      const run = (): void => {
        node = this.test.engine.fs.tmpfile(caller, directory, 0o600, 0).node
      }
      if (await this.expect('tmpfile', this.fits(chain, 0, 1), run)) space.held.push({ node, blocks: new Set(), isFile: true })
    } else if (kind === 'release') {
      const gone = space.held.pop()
      if (gone !== undefined) this.test.engine.fs.forget(gone.node, ALL_REFERENCES)
    } else await this.change(kind, space, at, chain)
    this.forget()
  }

  async make(space: Space, at: string, chain: Space[]): Promise<void> {
    const name = this.pick(NAMES)
    if (space.entries.has(name)) return
    const { fs } = this.test.engine
    const directory = this.test.stat(at).node
    const makers = {
      create: () => fs.create(caller, directory, name, 0o644, 0, 0).node,
      mkdir: () => fs.mkdir(caller, directory, name, 0o755, 0).node,
      symlink: () => fs.symlink(caller, directory, name, Buffer.from('to')).node,
      mknod: () => fs.mknod(caller, directory, name, 0o010644, 0, 0).node,
    }
    const how = this.pick(['create', 'create', 'create', 'mkdir', 'symlink', 'mknod'] as const)
    let node = 0
    const run = (): void => {
      node = makers[how]()
    }
    const isDone = await this.expect(how, this.fits(chain, 0, 1), run)
    if (isDone) space.entries.set(name, { node, blocks: new Set(), isFile: how === 'create' })
  }

  /** What is done to a file that is there. */
  async change(kind: string, space: Space, at: string, chain: Space[]): Promise<void> {
    const named = [...space.entries]
    if (named.length === 0) return
    const [name, inode] = this.pick(named)
    const engine = this.test.engine.fs
    if (kind === 'unlink') {
      const directory = this.test.stat(at).node
      if (!inode.isFile && (this.test.stat(`${at}/${name}`).mode & 0o170000) === 0o040000) engine.rmdir(caller, directory, name)
      else {
        engine.lookup(caller, directory, name)
        engine.unlink(caller, directory, name)
      }
      space.entries.delete(name)
      const isLast = ![...space.entries.values()].includes(inode)
      if (isLast && inode.isFile && this.nat(2) === 0) space.held.push(inode)
      return
    }
    if (!inode.isFile) return
    const { node } = inode
    const from = this.nat(BLOCKS)
    const count = 1 + this.nat(BLOCKS - from)
    const range = Array.from({ length: count }, (_, i) => from + i)
    if (kind === 'link') {
      const free = NAMES.find((one) => !space.entries.has(one))
      if (free === undefined) return
      await this.expect('link', true, () => engine.link(caller, node, this.test.stat(at).node, free))
      space.entries.set(free, inode)
    } else if (kind === 'punch') {
      if (this.nat(2) === 0) engine.fallocate(caller, node, 3, from * BLOCK, count * BLOCK)
      else {
        // What is allocated behind the end goes with a truncate to less only.
        engine.setattr(caller, node, { size: BLOCKS * BLOCK })
        engine.setattr(caller, node, { size: from * BLOCK })
        engine.setattr(caller, node, { size: BLOCKS * BLOCK })
        for (let i = from; i < BLOCKS; i++) inode.blocks.delete(i)
        return
      }
      for (const i of range) inode.blocks.delete(i)
    } else if (kind === 'copy') {
      const [, source] = this.pick(named)
      if (!source.isFile || source === inode) return
      engine.setattr(caller, source.node, { size: BLOCKS * BLOCK })
      const after = new Set(inode.blocks)
      for (const i of range) source.blocks.has(i) ? after.add(i) : after.delete(i)
      const fits = this.fits(chain, (after.size - inode.blocks.size) * BLOCK, 0)
      const run = (): number => engine.copyFileRange(caller, source.node, from * BLOCK, node, from * BLOCK, count * BLOCK)
      if (await this.expect('copy', fits, run)) inode.blocks = after
    } else {
      const fresh = range.filter((i) => !inode.blocks.has(i)).length
      const mode = this.pick([undefined, undefined, 0, 1, 0x10])
      const buffer = Buffer.alloc(80 + count * BLOCK + 1024, 'x')
      const run = (): unknown =>
        mode === undefined
          ? engine.write(caller, node, from * BLOCK, buffer, 80, count * BLOCK, false)
          : engine.fallocate(caller, node, mode, from * BLOCK, count * BLOCK)
      const what = mode === undefined ? 'write' : 'fallocate'
      if (await this.expect(`${what} ${at}/${name}`, this.fits(chain, fresh * BLOCK, 0), run))
        for (const i of range) inode.blocks.add(i)
    }
  }

  async nest(): Promise<void> {
    const outer = this.pick([...this.spaces()].filter(({ chain }) => chain.length < 4))
    const name = this.pick(['u', 'v'])
    if (outer.space.nested.has(name)) return
    const at = `${outer.space === this.top ? '/workspace' : outer.at}/${name}`
    const fits = this.fits(outer.chain, 0, 1)
    const run = (): unknown => this.test.service.workspaceCreate(at, {})
    if (await this.expect('nest', fits, run, 'NEXUS_NO_SPACE')) outer.space.nested.set(name, this.#space())
  }

  async quota(): Promise<void> {
    const { space, at } = this.pick([...this.spaces()])
    const taken = takenBy(space)
    const limit = (used: number, unit: number): number =>
      this.nat(2) === 0 ? Infinity : Math.max(0, used + (this.nat(30) - 3) * unit)
    space.bytes = limit(taken.bytes, BLOCK)
    space.inodes = limit(taken.inodes, 1)
    const orNull = (value: number): number | null => (Number.isFinite(value) ? value : null)
    await this.test.service.quotaSet(at, { bytes: orNull(space.bytes), inodes: orNull(space.inodes) })
  }

  async snapshot(space: Space, at: string): Promise<void> {
    const { snapshot_id } = await this.test.service.snapshotCreate(at, {})
    this.snapshots.push({ id: snapshot_id, space: space.id, state: copyOf(space) })
  }

  async restore(space: Space, at: string, chain: Space[]): Promise<void> {
    const there = await this.test.service.snapshotList(at)
    const mine = this.snapshots.filter(({ id }) => there.some(({ snapshot_id }) => snapshot_id === id))
    if (mine.length === 0) return
    const { id, state } = this.pick(mine)
    for (const inner of within(space))
      for (const { node } of inner.held.splice(0)) this.test.engine.fs.forget(node, ALL_REFERENCES)
    this.forget()
    const before = copyOf(space)
    const [now, then] = [takenBy(space), takenBy(state)]
    const fits = this.fits(chain.slice(1), then.bytes - now.bytes, then.inodes - now.inodes)
    let undo: string | null = null
    const run = async (): Promise<void> => {
      undo = (await this.test.service.restore(at, id, {})).undo
    }
    if (!(await this.expect('restore', fits, run, 'NEXUS_NO_SPACE'))) return
    this.snapshots.push({ id: String(undo), space: space.id, state: before })
    const quotas = new Map([...within(space)].map((one) => [one.id, one]))
    const restored = copyOf(state)
    for (const inner of within(restored)) {
      const live = quotas.get(inner.id)
      if (live !== undefined) Object.assign(inner, { bytes: live.bytes, inodes: live.inodes })
    }
    Object.assign(space, { entries: restored.entries, nested: restored.nested })
  }

  async fork(space: Space, at: string): Promise<void> {
    const outer = this.pick([...this.spaces()].filter((one) => one.chain.length < 3 && !one.chain.includes(space)))
    if (outer === undefined) return
    const name = `f${this.#names++ % 3}`
    if (outer.space.nested.has(name)) return
    const to = `${outer.space === this.top ? '/workspace' : outer.at}/${name}`
    const copy = copyOf(space)
    for (const inner of within(copy)) Object.assign(inner, { id: this.#ids++, bytes: Infinity, inodes: Infinity })
    const { bytes, inodes } = takenBy(copy)
    const run = (): unknown => this.test.service.fork(at, to, {})
    if (!(await this.expect('fork', this.fits(outer.chain, bytes, inodes), run, 'NEXUS_NO_SPACE'))) return
    outer.space.nested.set(name, copy)
    this.renumber(copy, to)
  }

  /** Inodes of a fork have the numbers that they had, in a volume of another number. */
  renumber(space: Space, at: string): void {
    const volume = volumeOf(this.test.stat(at).node)
    for (const inode of new Set(space.entries.values())) inode.node = nodeOf(volume, inoOfNode(inode.node))
    for (const [name, inner] of space.nested) this.renumber(inner, `${at}/${name}`)
  }

  async delete(_space: Space, at: string, chain: Space[]): Promise<void> {
    if (this.nat(2) === 0) return
    await this.test.service.workspaceDelete(at)
    chain[1]?.nested.delete(path.basename(at))
  }

  /** What a process leaves that is killed now. */
  async crash(): Promise<void> {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-quota-'))
    this.t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
    copyLive(this.data, data)
    await this.test.engine.close()
    this.data = data
    this.test = new TestEngine(await Engine.open({ data, logger: silentLogger }))
    for (const { space } of this.spaces()) space.held.length = 0
  }

  async check(): Promise<void> {
    for (const { space, at } of this.spaces()) {
      const { bytes, inodes } = takenBy(space)
      const { bytes_used, inodes_used } = await this.test.service.quotaShow(at)
      if (bytes_used === bytes && inodes_used === inodes) continue
      throw new Error(`seed ${seed}: ${at} takes ${bytes_used} bytes, ${inodes_used} inodes; counted ${bytes}, ${inodes}`)
    }
  }
}

t.test(`used is what a recount says, and EDQUOT comes when it must (seed ${seed})`, async (t) => {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-quota-'))
  t.teardown(() => fs.rmSync(data, { recursive: true, force: true }))
  const world = new World(t, new TestEngine(await Engine.open({ data, logger: silentLogger })), data)
  for (const name of ['tenants', 'workspace']) world.top.entries.set(name, { node: 0, blocks: new Set(), isFile: false })
  t.teardown(() => world.test.engine.close())
  for (let i = 0; i < STEPS; i++) {
    await world.step()
    await world.check()
  }
  const { findings } = await world.test.engine.check()
  t.strictSame(findings, [], 'fsck counts the same, and finds nothing else')
  const refusals = Object.entries(world.happened).filter(([kind]) => kind.endsWith(' EDQUOT'))
  t.ok(refusals.length > 2, `refused: ${JSON.stringify(world.happened)}`)
  for (const kind of ['write', 'fallocate', 'create', 'tmpfile']) t.ok(world.happened[`${kind} done`], kind)
  for (const kind of ['copy', 'link', 'nest', 'restore', 'fork']) t.ok(world.happened[`${kind} done`], kind)
})
