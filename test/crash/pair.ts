/** A real filesystem without a mount and a model of one, side by side: every operation goes to both. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'
import type { Index } from '../../src/cas/index.ts'
import { Engine, type EngineOptions } from '../../src/engine/engine.ts'
import { FsError } from '../../src/errors.ts'
import type { Disk } from '../../src/journal/disk.ts'
import { silentLogger } from '../../src/logger.ts'
import type { Stat } from '../../src/vfs/filesystem.ts'
import { inoOfNode, nodeOf, volumeOf } from '../../src/vfs/place.ts'
import { ALWAYS_ZEROS } from '../journal/support.ts'
import { lineOf, Model, Refused } from './model.ts'
import { NAMES, type Operation, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, XATTRS } from './operations.ts'

const CALLER = { uid: 0, gid: 0, pid: 1 }
const TOP = nodeOf(0, 1)
/** the root of all, tenants, workspace */
const TOP_INODES = 3
const O_EXCL = 0o200
/** Room that Filesystem.write may use around the data. */
const BEFORE = 80
const BEHIND = 1024

export interface Where {
  data: string
  disk?: Disk
  index?: Index
}

/** So small that segments roll and caches miss all the time. */
export const smallLimits: NonNullable<EngineOptions['limits']> = {
  segmentBytesMax: 3000,
  nodeCacheBytesMax: 2000,
  chunkCacheBytesMax: 1000,
  sealWorkers: 0,
  zeros: ALWAYS_ZEROS,
}

export function dataFor(t: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-crash-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}

let seconds = 1_000_000

export function openEngine(where: Where, limits = smallLimits): Promise<Engine> {
  const { data, disk, index } = where
  const injected = { ...(disk && { disk }), ...(index && { index }) }
  return Engine.open({
    data,
    ...injected,
    limits,
    logger: silentLogger,
    owner: CALLER,
    singleUser: true,
    now: () => ({ s: seconds, ns: 7 }),
  })
}

export class Pair {
  engine: Engine
  model: Model
  readonly root: number

  private constructor(engine: Engine, root: number) {
    this.engine = engine
    this.root = root
    this.model = new Model(root, seconds)
  }

  /** A fresh store with one workspace. */
  static async make(where: Where, limits = smallLimits): Promise<Pair> {
    const engine = await openEngine(where, limits)
    const workspaces = engine.fs.lookup(CALLER, TOP, 'workspace') as Stat
    const { node } = engine.fs.mkdir(CALLER, workspaces.node, 'w', 0o755, 0)
    return new Pair(engine, node)
  }

  /** Puts the pair on a store that was opened again: what had no name is gone. */
  reopened(engine: Engine): void {
    this.engine = engine
    this.model.dropOrphans()
  }

  /** Does it on both sides; both do it or both refuse with the same errno. @returns true when it was done */
  apply(operation: Operation): boolean {
    seconds++
    this.model.now = seconds
    const before = this.model.clone()
    const [real, wanted] = [outcome(() => this.#real(operation)), outcome(() => this.#modelled(operation))]
    if (typeof wanted === 'string') this.model = before
    if (typeof real === 'string' || typeof wanted === 'string') {
      if (real !== wanted) throw new Error(`${JSON.stringify(operation)}: got ${show(real)}, wanted ${show(wanted)}`)
      return false
    }
    if (real !== undefined) this.#adopt(operation, real)
    return true
  }

  /** Throws when anything that can be seen differs. */
  check(): void {
    const [found, wanted] = [this.dump(), this.model.dump()]
    if (found === wanted) {
      this.#checkStatfs()
      return
    }
    const [a, b] = [found.split('\n'), wanted.split('\n')]
    const lines = [
      ...a.filter((line) => !b.includes(line)).map((line) => `  found  ${line}`),
      ...b.filter((line) => !a.includes(line)).map((line) => `  wanted ${line}`),
    ]
    throw new Error(`the filesystem is not what the model says:\n${lines.map((line) => line.slice(0, 600)).join('\n')}`)
  }

  /** Throws when what is stored contradicts itself. */
  async fsck(): Promise<void> {
    const { total, findings } = await this.engine.check()
    if (total > 0) throw new Error(`fsck finds ${JSON.stringify(findings, null, 1)}`)
  }

  /** The real filesystem in the form of `Model.dump`. */
  dump(): string {
    const seen = new Map<number, string>()
    const visit = (id: number): void => {
      if (seen.has(id)) return
      const entries = this.#entries(id)
      seen.set(id, this.#line(id, entries))
      for (const [name, child] of entries) {
        const found = this.engine.fs.lookup(CALLER, id, name)
        if (found?.node !== child) throw new Error(`${name} in ${id} is listed as ${child} and looked up as ${found?.node}`)
        visit(child)
      }
    }
    visit(this.root)
    // What has no name is found by nobody else; what the model has no more must not be there.
    for (const [id, { nlink }] of this.model.nodes) if (nlink === 0) visit(id)
    const { files, directories, bytes } = this.#volume.super
    const lines = [...seen].sort(([a], [b]) => a - b).map(([, line]) => line)
    return [...lines, `files ${files} directories ${directories} bytes ${bytes}`].join('\n')
  }

  get #volume() {
    const volume = this.engine.volumes.get(volumeOf(this.root))
    if (volume === undefined) throw new Error('the workspace is gone')
    return volume
  }

  #checkStatfs(): void {
    const { files, filesFree } = this.engine.fs.statfs({ uid: 0, gid: 0, pid: 1 }, nodeOf(0, 1))
    const counted = this.model.counters
    const used = counted.files + counted.directories + TOP_INODES
    if (files - filesFree !== used) throw new Error(`statfs counts ${files - filesFree} inodes, there are ${used}`)
  }

  #entries(id: number): Map<string, number> {
    const entries = new Map<string, number>()
    const { mode } = this.engine.fs.getattr(CALLER, id)
    if ((mode & 0o170000) !== S_IFDIR) return entries
    this.engine.fs.readdir(CALLER, id, 0, true, (name, node, _mode, _cookie, stat) => {
      if (name === '.' || name === '..') return true
      if (stat?.node !== node) throw new Error(`${name} in ${id} is listed with the attributes of another inode`)
      entries.set(name, node)
      return true
    })
    return entries
  }

  #line(id: number, entries: Map<string, number>): string {
    const stat = this.engine.fs.getattr(CALLER, id)
    for (const { ns } of [stat.atime, stat.mtime, stat.ctime, stat.btime])
      if (ns !== 7) throw new Error(`${id} has lost nanoseconds`)
    const type = stat.mode & 0o170000
    const xattrs = this.engine.fs
      .listxattr(CALLER, id)
      .map((name): [string, string] => [name, text(this.engine.fs.getxattr(CALLER, id, name))])
    const line = {
      type,
      bits: stat.mode & 0o7777,
      nlink: stat.nlink,
      uid: stat.uid,
      gid: stat.gid,
      size: stat.size,
      atime: stat.atime.s,
      mtime: stat.mtime.s,
      ctime: stat.ctime.s,
      btime: stat.btime.s,
      target: type === S_IFLNK ? text(this.engine.fs.readlink(CALLER, id)) : '',
      entries,
      xattrs: new Map(xattrs),
      bytes: type === S_IFREG ? this.#bytes(id, stat.size) : new Map(),
    }
    if (line.bytes.size !== stat.allocated)
      throw new Error(`${id} says ${stat.allocated} bytes are allocated, there are ${line.bytes.size}`)
    return lineOf(id, line)
  }

  /** Allocated bytes, as `read` gives them; around them it must give zeros. */
  #bytes(id: number, size: number): Map<number, number> {
    const bytes = new Map<number, number>()
    let end = 0
    for (const [at, piece] of this.#volume.pieces(inoOfNode(id), 0, Number.MAX_SAFE_INTEGER)) {
      const start = Math.max(end, at - 20)
      const into = Buffer.alloc(at + piece.length + 20 - start, 'x')
      const count = this.engine.fs.read(CALLER, id, start, into.length, into, 0)
      if (count !== Math.max(0, Math.min(into.length, size - start)))
        throw new Error(`${id} reads ${count} bytes at ${start} of ${size}`)
      for (let i = start; i < at; i++)
        if (i < size && into[i - start] !== 0) throw new Error(`the hole at ${i} of ${id} reads ${into[i - start]}`)
      for (let i = at; i < at + piece.length; i++) bytes.set(i, i < size ? (into[i - start] as number) : 0)
      end = at + piece.length
    }
    return bytes
  }

  // Picking.

  #pick(n: number, fits: (type: number, nlink: number) => boolean): number | undefined {
    const found = [...this.model.nodes].filter(([, { type, nlink }]) => fits(type, nlink)).map(([id]) => id)
    return found[n % found.length]
  }

  #directory(n: number): number {
    return this.#pick(n, (type, nlink) => type === S_IFDIR && nlink > 0) ?? this.root
  }

  /** Also one that was unlinked and is still open. */
  #file(n: number): number | undefined {
    return this.#pick(n, (type) => type === S_IFREG)
  }

  #any(n: number): number {
    return this.#pick(n, (_, nlink) => nlink > 0) ?? this.root
  }

  /** A directory that has this name, so that removals and renames mostly hit something. */
  #holder(n: number, name: string): number {
    const found = [...this.model.nodes].filter(([, { entries }]) => entries.has(name)).map(([id]) => id)
    return found[n % found.length] ?? this.#directory(n)
  }

  // The operations, on either side.

  /** @returns the new inode, if one was made */
  #real(operation: Operation): number | undefined {
    const { a, b, seed, length, offset } = operation
    const { fs } = this.engine
    const [name, other] = namesOf(operation)
    const file = this.#file(a)
    const bits = bitsOf(seed)
    switch (operation.kind) {
      case 'create':
        return fs.create(CALLER, this.#directory(a), name, bits, 0, O_EXCL).node
      case 'mkdir':
        return fs.mkdir(CALLER, this.#directory(a), name, bits, 0).node
      case 'symlink':
        return fs.symlink(CALLER, this.#directory(a), name, Buffer.from(targetOf(operation))).node
      case 'mkfifo':
        return fs.mknod(CALLER, this.#directory(a), name, S_IFIFO | bits, 0, 0).node
      case 'tmpfile':
        return fs.tmpfile(CALLER, this.#directory(a), bits, 0).node
      case 'link':
        fs.link(CALLER, this.#any(a), this.#directory(b), name)
        return undefined
      case 'unlink':
        fs.unlink(CALLER, this.#holder(a, name), name)
        return undefined
      case 'rmdir':
        fs.rmdir(CALLER, this.#holder(a, name), name)
        return undefined
      case 'rename':
        fs.rename(CALLER, this.#holder(a, name), name, this.#directory(b), other, seed % 3)
        return undefined
      case 'write':
      case 'append': {
        if (file === undefined) return undefined
        const content = contentOf(operation)
        const buffer = Buffer.concat([Buffer.alloc(BEFORE), content, Buffer.alloc(BEHIND)])
        const at = operation.kind === 'append' ? this.model.node(file).size : offset
        const count = fs.write(CALLER, file, at, buffer, BEFORE, content.length, false)
        if (count !== content.length) throw new Error(`${count} of ${content.length} bytes written`)
        return undefined
      }
      case 'truncate':
        if (file !== undefined) fs.setattr(CALLER, file, { size: offset + length })
        return undefined
      case 'setattr':
        fs.setattr(CALLER, this.#any(a), attributesOf(operation))
        return undefined
      case 'setxattr':
        fs.setxattr(CALLER, this.#any(a), xattrOf(operation), contentOf(operation), 0, false)
        return undefined
      case 'removexattr':
        fs.removexattr(CALLER, this.#any(a), xattrOf(operation))
        return undefined
      case 'fallocate':
        if (file !== undefined) fs.fallocate(CALLER, file, fallocateMode(seed), offset, Math.max(1, length))
        return undefined
      case 'copy': {
        const to = this.#file(b)
        if (file === undefined || to === undefined) return undefined
        const wanted = this.model.clone().copy(file, seed, to, offset, length)
        const count = fs.copyFileRange(CALLER, file, seed, to, offset, length)
        if (count !== wanted) throw new Error(`${count} bytes copied, ${wanted} wanted`)
        return undefined
      }
      case 'forget': {
        const orphan = this.#pick(a, (_, nlink) => nlink === 0)
        if (orphan !== undefined) fs.forget(orphan, 1_000_000)
        return undefined
      }
    }
  }

  /** The same on the model; what is made gets its number from the real side, see `#adopt`. */
  #modelled(operation: Operation): undefined {
    const { a, b, seed, length, offset } = operation
    const { model } = this
    const [name, other] = namesOf(operation)
    const file = this.#file(a)
    switch (operation.kind) {
      case 'create':
      case 'mkdir':
      case 'symlink':
      case 'mkfifo':
        model.checkFree(this.#directory(a), name)
        return
      case 'tmpfile':
        return
      case 'link':
        model.link(this.#any(a), this.#directory(b), name)
        return
      case 'unlink':
        model.unlink(this.#holder(a, name), name)
        return
      case 'rmdir':
        model.rmdir(this.#holder(a, name), name)
        return
      case 'rename':
        model.rename(this.#holder(a, name), name, this.#directory(b), other, seed % 3)
        return
      case 'write':
      case 'append': {
        const content = contentOf(operation)
        if (file === undefined || content.length === 0) return
        model.write(file, operation.kind === 'append' ? model.node(file).size : offset, content)
        return
      }
      case 'truncate':
        if (file !== undefined) model.truncate(file, offset + length)
        return
      case 'setattr':
        this.#setattr(this.#any(a), attributesOf(operation))
        return
      case 'setxattr':
        model.node(this.#any(a)).xattrs.set(xattrOf(operation), text(contentOf(operation)))
        model.node(this.#any(a)).ctime = model.now
        return
      case 'removexattr':
        if (!model.node(this.#any(a)).xattrs.delete(xattrOf(operation))) throw new Refused('ENODATA')
        model.node(this.#any(a)).ctime = model.now
        return
      case 'fallocate':
        if (file !== undefined) model.fallocate(file, fallocateMode(seed), offset, Math.max(1, length))
        return
      case 'copy': {
        const to = this.#file(b)
        if (file !== undefined && to !== undefined) model.copy(file, seed, to, offset, length)
        return
      }
      case 'forget': {
        const orphan = this.#pick(a, (_, nlink) => nlink === 0)
        if (orphan !== undefined) model.nodes.delete(orphan)
      }
    }
  }

  #setattr(id: number, change: ReturnType<typeof attributesOf>): void {
    const node = this.model.node(id)
    if (change.mode !== undefined) node.bits = change.mode
    if (change.uid !== undefined) node.uid = change.uid
    if (change.gid !== undefined) node.gid = change.gid
    if (change.atime !== undefined) node.atime = change.atime.s
    if (change.mtime !== undefined) node.mtime = change.mtime.s
    node.ctime = this.model.now
  }

  #adopt(operation: Operation, id: number): void {
    const [name] = namesOf(operation)
    const bits = bitsOf(operation.seed)
    const { model } = this
    if (model.nodes.has(id)) throw new Error(`inode ${id} was used twice`)
    if (operation.kind === 'tmpfile') model.make(id, S_IFREG, bits).nlink = 0
    else {
      const parent = this.#directory(operation.a)
      if (operation.kind === 'create') model.add(parent, name, id, S_IFREG, bits)
      else if (operation.kind === 'mkdir') model.add(parent, name, id, S_IFDIR, bits)
      else if (operation.kind === 'mkfifo') model.add(parent, name, id, S_IFIFO, bits)
      else {
        const node = model.add(parent, name, id, S_IFLNK, 0o777)
        node.target = targetOf(operation)
        node.size = node.target.length
      }
    }
  }
}

function namesOf({ name, other }: Operation): [string, string] {
  return [NAMES[name] as string, NAMES[other] as string]
}

function xattrOf({ other }: Operation): string {
  return XATTRS[other % XATTRS.length] as string
}

function bitsOf(seed: number): number {
  return (seed * 3) & 0o777
}

function targetOf({ seed, length }: Operation): string {
  return `t${seed}`.repeat(1 + (length % 40))
}

/** Two seeds in eight give bytes that all are the same, so that chunks are found again. */
function contentOf({ seed, length }: Operation): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (seed % 8 < 2 ? seed % 8 : (seed + i * 7) & 255)))
}

function attributesOf({ seed, length, offset }: Operation) {
  const time = (s: number) => ({ s, ns: 7 })
  return {
    ...(seed & 1 ? { mode: length & 0o777 } : {}),
    ...(seed & 2 ? { uid: length } : {}),
    ...(seed & 4 ? { gid: offset % 1000 } : {}),
    ...(seed & 8 ? { atime: time(length - 100) } : {}),
    ...(seed & 16 ? { mtime: time(2 ** 33 + length) } : {}),
  }
}

function fallocateMode(seed: number): number {
  return [0, 1, 3, 0x10, 0x11][seed % 5] as number
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1')
}

/** What was returned, or the name of the errno. */
function outcome(run: () => number | undefined): number | undefined | string {
  try {
    return run()
  } catch (error) {
    if (error instanceof FsError) return error.code
    if (error instanceof Refused) return error.message
    throw error
  }
}

function show(result: number | undefined | string): string {
  return result === undefined ? 'success' : String(result)
}
