/**
 * A filesystem as a few maps: what a workspace must contain after any run of operations, however
 * often the daemon died meanwhile. It knows nothing of logs, layers and trees.
 */
import { S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from './operations.ts'

interface Times {
  atime: number
  mtime: number
  ctime: number
  btime: number
}

export interface ModelNode extends Times {
  type: number
  bits: number
  nlink: number
  uid: number
  gid: number
  size: number
  /** allocated bytes by offset; what is not there is a hole */
  bytes: Map<number, number>
  target: string
  entries: Map<string, number>
  xattrs: Map<string, string>
  parent: number
}

/** A refusal, by errno name. */
export class Refused extends Error {}

export class Model {
  /** seconds of the clock, one value an operation */
  now = 0
  nodes = new Map<number, ModelNode>()
  readonly root: number

  constructor(root: number, now: number) {
    this.root = root
    this.now = now
    this.make(root, S_IFDIR, 0o755)
    this.node(root).nlink = 2
  }

  clone(): Model {
    const copy = new Model(this.root, this.now)
    copy.nodes = new Map([...this.nodes].map(([id, node]) => [id, { ...node, ...mapsOf(node) }]))
    return copy
  }

  node(id: number): ModelNode {
    const node = this.nodes.get(id)
    if (node === undefined) throw new Error(`the model has no node ${id}`)
    return node
  }

  make(id: number, type: number, bits: number): ModelNode {
    const times = { atime: this.now, mtime: this.now, ctime: this.now, btime: this.now }
    const maps = { bytes: new Map(), entries: new Map(), xattrs: new Map() }
    const node = { ...times, ...maps, type, bits, nlink: 1, uid: 0, gid: 0, size: 0, target: '', parent: 0 }
    this.nodes.set(id, node)
    return node
  }

  /** @throws Refused when a name cannot be made in this directory */
  checkFree(parent: number, name: string): void {
    if (this.node(parent).nlink === 0) throw new Refused('ENOENT')
    if (this.node(parent).entries.has(name)) throw new Refused('EEXIST')
  }

  /** A new inode under a name. */
  add(parent: number, name: string, id: number, type: number, bits: number): ModelNode {
    const node = this.make(id, type, bits)
    const directory = this.node(parent)
    directory.entries.set(name, id)
    node.parent = parent
    if (type === S_IFDIR) {
      node.nlink = 2
      directory.nlink++
    }
    this.touch(parent)
    return node
  }

  link(id: number, parent: number, name: string): void {
    const node = this.node(id)
    if (node.type === S_IFDIR) throw new Refused('EPERM')
    this.checkFree(parent, name)
    this.node(parent).entries.set(name, id)
    node.nlink++
    node.ctime = this.now
    this.touch(parent)
  }

  unlink(parent: number, name: string): void {
    const id = this.existing(parent, name)
    if (this.node(id).type === S_IFDIR) throw new Refused('EISDIR')
    this.node(parent).entries.delete(name)
    this.unlinked(id)
    this.touch(parent)
  }

  rmdir(parent: number, name: string): void {
    const id = this.existing(parent, name)
    if (this.node(id).type !== S_IFDIR) throw new Refused('ENOTDIR')
    this.removeDirectory(id)
    this.node(parent).entries.delete(name)
    this.node(parent).nlink--
    this.touch(parent)
  }

  rename(from: number, name: string, to: number, newName: string, flags: number): void {
    if (this.node(to).nlink === 0) throw new Refused('ENOENT')
    const id = this.existing(from, name)
    const target = this.node(to).entries.get(newName)
    if (flags === 1 && target !== undefined) throw new Refused('EEXIST')
    if (flags === 2 && target === undefined) throw new Refused('ENOENT')
    if (flags !== 2 && target === id) return
    this.refuseLoop(id, to)
    if (flags === 2) this.exchange(from, name, to, newName)
    else this.move(from, name, to, newName)
    this.touch(from)
    this.touch(to)
  }

  private move(from: number, name: string, to: number, newName: string): void {
    const id = this.existing(from, name)
    const isDir = this.node(id).type === S_IFDIR
    const target = this.node(to).entries.get(newName)
    if (target !== undefined) {
      const targetIsDir = this.node(target).type === S_IFDIR
      if (isDir && !targetIsDir) throw new Refused('ENOTDIR')
      if (!isDir && targetIsDir) throw new Refused('EISDIR')
      if (isDir) this.removeDirectory(target)
      else this.unlinked(target)
      if (isDir) this.node(to).nlink--
    }
    this.node(from).entries.delete(name)
    this.place(id, to, newName)
    if (!isDir) return
    this.node(from).nlink--
    this.node(to).nlink++
  }

  private exchange(from: number, name: string, to: number, newName: string): void {
    const [first, second] = [this.existing(from, name), this.existing(to, newName)]
    this.refuseLoop(second, from)
    for (const [id, before, after] of [
      [first, from, to],
      [second, to, from],
    ] as const) {
      if (this.node(id).type !== S_IFDIR) continue
      this.node(before).nlink--
      this.node(after).nlink++
    }
    this.place(first, to, newName)
    this.place(second, from, name)
  }

  private place(id: number, parent: number, name: string): void {
    this.node(parent).entries.set(name, id)
    this.node(id).parent = parent
    this.node(id).ctime = this.now
  }

  private refuseLoop(id: number, to: number): void {
    if (this.node(id).type !== S_IFDIR) return
    for (let at = to; at !== this.root; at = this.node(at).parent) if (at === id) throw new Refused('EINVAL')
  }

  private existing(parent: number, name: string): number {
    if (this.node(parent).nlink === 0) throw new Refused('ENOENT')
    const id = this.node(parent).entries.get(name)
    if (id === undefined) throw new Refused('ENOENT')
    return id
  }

  private removeDirectory(id: number): void {
    if (this.node(id).entries.size > 0) throw new Refused('ENOTEMPTY')
    this.node(id).nlink = 0
    this.node(id).ctime = this.now
  }

  private unlinked(id: number): void {
    this.node(id).nlink--
    this.node(id).ctime = this.now
  }

  private touch(id: number): void {
    this.node(id).mtime = this.now
    this.node(id).ctime = this.now
  }

  write(id: number, offset: number, content: Uint8Array): void {
    const node = this.node(id)
    for (const [i, byte] of content.entries()) node.bytes.set(offset + i, byte)
    node.size = Math.max(node.size, offset + content.length)
    this.touch(id)
  }

  truncate(id: number, size: number): void {
    const node = this.node(id)
    if (size <= node.size) this.clear(node, size, Number.MAX_SAFE_INTEGER)
    node.size = size
    this.touch(id)
  }

  /** @param mode FALLOC_FL_* bits */
  fallocate(id: number, mode: number, offset: number, length: number): void {
    const node = this.node(id)
    if (mode & 2) this.clear(node, offset, offset + length)
    else {
      for (let at = offset; at < offset + length; at++) if (mode & 0x10 || !node.bytes.has(at)) node.bytes.set(at, 0)
      if (!(mode & 1)) node.size = Math.max(node.size, offset + length)
    }
    this.touch(id)
  }

  /** @returns bytes copied */
  copy(from: number, offset: number, to: number, toOffset: number, length: number): number {
    const count = Math.min(length, this.node(from).size - offset)
    if (count <= 0) return 0
    const source = new Map(this.node(from).bytes)
    const node = this.node(to)
    this.clear(node, toOffset, toOffset + count)
    for (const [at, byte] of source) if (at >= offset && at < offset + count) node.bytes.set(toOffset + at - offset, byte)
    node.size = Math.max(node.size, toOffset + count)
    this.touch(to)
    return count
  }

  private clear(node: ModelNode, start: number, end: number): void {
    for (const at of [...node.bytes.keys()]) if (at >= start && at < end) node.bytes.delete(at)
  }

  /** Inodes without a name are gone. */
  dropOrphans(): void {
    for (const [id, { nlink }] of this.nodes) if (nlink === 0) this.nodes.delete(id)
  }

  get counters(): { files: number; directories: number; bytes: number } {
    // What is only open has no name any more, and is not counted.
    const all = [...this.nodes.values()].filter(({ nlink }) => nlink > 0)
    const directories = all.filter(({ type }) => type === S_IFDIR).length
    const bytes = all.reduce((sum, { type, size }) => sum + (type === S_IFREG ? size : 0), 0)
    return { files: all.length - directories, directories, bytes }
  }

  /** Everything that can be seen, one line an inode, in the order of ids. */
  dump(): string {
    const lines = [...this.nodes].sort(([a], [b]) => a - b).map(([id, node]) => lineOf(id, node))
    const { files, directories, bytes } = this.counters
    return [...lines, `files ${files} directories ${directories} bytes ${bytes}`].join('\n')
  }
}

/** One inode as a line; the real filesystem is brought into the same form. */
export function lineOf(id: number, node: Omit<ModelNode, 'parent'>): string {
  const { type, bits, nlink, uid, gid, size, atime, mtime, ctime, btime } = node
  const parts = [`${id} ${(type | bits).toString(8)} links ${nlink} ${uid}:${gid} size ${size} allocated ${node.bytes.size}`]
  parts.push(`times ${atime} ${mtime} ${ctime} ${btime}`)
  if (type === S_IFLNK) parts.push(`-> ${node.target}`)
  if (type === S_IFDIR) parts.push(`[${[...node.entries].sort(([a], [b]) => (a < b ? -1 : 1)).map((entry) => entry.join('='))}]`)
  for (const [name, value] of [...node.xattrs].sort(([a], [b]) => (a < b ? -1 : 1))) parts.push(`${name}=${value}`)
  if (type === S_IFREG) parts.push(...stretchesOf(node.bytes, size))
  if (type === S_IFIFO) parts.push('fifo')
  return parts.join(' ')
}

/** Allocated bytes inside the file as `offset:text`, neighbours together. */
function* stretchesOf(bytes: ReadonlyMap<number, number>, size: number): Generator<string> {
  let start = -1
  let text: number[] = []
  for (const at of [...bytes.keys()].sort((a, b) => a - b)) {
    if (at >= size) break
    if (at !== start + text.length) {
      if (text.length > 0) yield `${start}:${Buffer.from(text).toString('hex')}`
      start = at
      text = []
    }
    text.push(bytes.get(at) as number)
  }
  if (text.length > 0) yield `${start}:${Buffer.from(text).toString('hex')}`
}

function mapsOf({ bytes, entries, xattrs }: ModelNode): Pick<ModelNode, 'bytes' | 'entries' | 'xattrs'> {
  return { bytes: new Map(bytes), entries: new Map(entries), xattrs: new Map(xattrs) }
}
