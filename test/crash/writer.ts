/**
 * A program under load, for kill.test.ts: it works in one directory of the mount, one system call
 * after the other, and says in a side log on the local disk what it is about to do and what is done.
 *
 *     node writer.js DIRECTORY SIDE_LOG SEED
 *
 * It ends when the mount no longer answers. `replayLog` tells what the directory must hold.
 */
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export type Call =
  | { do: 'create'; name: string }
  | { do: 'write'; name: string; at: number; length: number; fill: number }
  | { do: 'append'; name: string; length: number; fill: number }
  | { do: 'truncate'; name: string; length: number }
  | { do: 'rename'; name: string; to: string }
  | { do: 'link'; name: string; to: string }
  | { do: 'unlink'; name: string }
  | { do: 'mkdir'; name: string }
  | { do: 'rmdir'; name: string }
  | { do: 'symlink'; name: string; target: string }
  | { do: 'fsync'; name: string }

/** What a name holds: a file's content, shared by its hard links, null for a directory, text for a symlink. */
export type Content = { bytes: Buffer } | null | string
export type Tree = Map<string, Content>

const NAMES = 14
const WRITE_BYTES_MAX = 40_000
const PAGE_BYTES = 4096

/** The same for the same arguments, and different for any others. */
export function contentOf(fill: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) bytes[i] = (fill + i * (1 + (fill % 13))) & 255
  return bytes
}

/** The tree after a call; the one before stays as it is. */
export function applyCall(tree: Tree, call: Call): Tree {
  const next = new Map(tree)
  const file = tree.get(call.name)
  // All hard links of a file show what is written through one.
  const change = (bytes: Buffer): void => {
    const changed = { bytes }
    for (const [name, content] of tree) if (content === file) next.set(name, changed)
  }
  switch (call.do) {
    case 'create':
      return next.set(call.name, { bytes: Buffer.alloc(0) })
    case 'mkdir':
      return next.set(call.name, null)
    case 'symlink':
      return next.set(call.name, call.target)
    case 'link':
      return next.set(call.to, file as Content)
    case 'rename':
      // Renaming one hard link over another does nothing.
      if (typeof file === 'object' && file !== null && file === tree.get(call.to)) return next
      next.delete(call.name)
      return next.set(call.to, file as Content)
    case 'unlink':
    case 'rmdir':
      next.delete(call.name)
      return next
    case 'write':
      change(written(bytesOf(file), call.at, contentOf(call.fill, call.length)))
      return next
    case 'append':
      change(written(bytesOf(file), bytesOf(file).length, contentOf(call.fill, call.length)))
      return next
    case 'truncate':
      change(written(bytesOf(file).subarray(0, call.length), call.length, Buffer.alloc(0)))
      return next
    case 'fsync':
      return next
  }
}

function bytesOf(content: Content | undefined): Buffer {
  return typeof content === 'object' && content !== null ? content.bytes : Buffer.alloc(0)
}

function written(before: Buffer, at: number, content: Buffer): Buffer {
  const after = Buffer.alloc(Math.max(before.length, at + content.length))
  before.copy(after)
  content.copy(after, at)
  return after
}

/** The states that a side log allows: all that was acknowledged, without and with the call that was under way. */
export function replayLog(text: string): { allowed: Tree[]; acknowledged: number; failures: string[] } {
  let tree: Tree = new Map()
  let pending: Call | undefined
  // A write that came back short: the daemon died over the rest, which it may or may not have stored before.
  let rest: Tree[] = []
  let acknowledged = 0
  const failures: string[] = []
  // The last line may be torn: the writer itself is killed in the end.
  for (const line of text.split('\n').slice(0, -1)) {
    if (line.startsWith('begin ')) pending = JSON.parse(line.slice(6)) as Call
    else if (line.startsWith('done') && pending !== undefined) {
      const count = Number(line.slice(5))
      const isShort = 'length' in pending && pending.do !== 'truncate' && count < pending.length
      rest = isShort ? [applyCall(tree, pending)] : []
      tree = applyCall(tree, shortened(pending, count))
      pending = undefined
      acknowledged++
    } else if (line.startsWith('unexpected ')) failures.push(line)
  }
  const after = pending === undefined ? [] : outcomesOf(tree, pending)
  return { allowed: [tree, ...after.map((call) => applyCall(tree, call)), ...rest], acknowledged, failures }
}

/** What may have become of a call that nobody was told the end of. */
function outcomesOf(tree: Tree, call: Call): Call[] {
  if (call.do !== 'write' && call.do !== 'append') return [call]
  // Where the first page of a write is not cached whole, the kernel sends it in a request of its own
  // (fuse_fill_write_pages in fs/fuse/file.c): the daemon never sees that they belong together.
  const at = call.do === 'write' ? call.at : bytesOf(tree.get(call.name)).length
  const first = PAGE_BYTES - (at % PAGE_BYTES)
  return first < call.length ? [call, shortened(call, first)] : [call]
}

/** A write of fewer bytes than it was asked for. */
function shortened(call: Call, length: number): Call {
  return 'length' in call && call.do !== 'truncate' ? { ...call, length } : call
}

/** A directory of the mount in the same form. */
export function readTree(directory: string, below = ''): Tree {
  const tree: Tree = new Map()
  for (const entry of fs.readdirSync(path.join(directory, below), { withFileTypes: true })) {
    const name = path.join(below, entry.name)
    const full = path.join(directory, name)
    if (entry.isDirectory()) {
      tree.set(name, null)
      for (const [inner, content] of readTree(directory, name)) tree.set(inner, content)
    } else if (entry.isSymbolicLink()) tree.set(name, fs.readlinkSync(full))
    else tree.set(name, { bytes: fs.readFileSync(full) })
  }
  return tree
}

function firstDifference(found: Buffer, wanted: Buffer): string {
  const length = Math.min(found.length, wanted.length)
  const differs = (i: number): boolean => found[i] !== wanted[i]
  let first = 0
  while (first < length && !differs(first)) first++
  let last = length - 1
  while (last > first && !differs(last)) last--
  const bytes = (buffer: Buffer): string => buffer.subarray(first, first + 8).toString('hex')
  return `they differ from ${first} to ${last}: ${bytes(found)} instead of ${bytes(wanted)}`
}

/** What differs, in words; undefined when nothing does. */
export function difference(found: Tree, wanted: Tree): string | undefined {
  for (const name of new Set([...found.keys(), ...wanted.keys()])) {
    const [a, b] = [found.get(name), wanted.get(name)]
    if (a === undefined || b === undefined) return `${name} is ${a === undefined ? 'missing' : 'there'}`
    if (a === null || b === null || typeof a === 'string' || typeof b === 'string') {
      if (a !== b) return `${name} is another kind of thing`
    } else if (!a.bytes.equals(b.bytes))
      return `${name} has ${a.bytes.length} bytes, wanted ${b.bytes.length}; ${firstDifference(a.bytes, b.bytes)}`
  }
  return undefined
}

/** xorshift32. */
function randomFrom(seed: number): (below: number) => number {
  let state = (seed * 2654435761) | 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/** The next call that makes sense in this tree. */
function nextCall(tree: Tree, random: (below: number) => number): Call {
  const names = [...tree.keys()]
  const files = names.filter((name) => typeof tree.get(name) === 'object' && tree.get(name) !== null)
  const pick = (from: readonly string[]): string => from[random(from.length)] as string
  const fresh = `n${random(NAMES)}`
  const isFree = !tree.has(fresh)
  const name = files.length > 0 ? pick(files) : undefined
  const dice = random(20)
  if (name === undefined || (dice < 3 && isFree)) return isFree ? { do: 'create', name: fresh } : removal(tree, fresh)
  const size = bytesOf(tree.get(name)).length
  const length = 1 + random(WRITE_BYTES_MAX)
  const fill = random(256)
  if (dice < 7) return { do: 'write', name, at: random(size + 1), length, fill }
  if (dice < 10) return size > 500_000 ? { do: 'truncate', name, length: random(size) } : { do: 'append', name, length, fill }
  if (dice === 10) return { do: 'truncate', name, length: random(size + 1000) }
  if (dice < 14) return tree.get(fresh) === null ? { do: 'rmdir', name: fresh } : { do: 'rename', name, to: fresh }
  if (dice === 14) return { do: 'fsync', name }
  if (!isFree) return removal(tree, fresh)
  if (dice === 15) return { do: 'link', name, to: fresh }
  if (dice === 16) return { do: 'symlink', name: fresh, target: `to ${fill}` }
  return { do: 'mkdir', name: fresh }
}

function removal(tree: Tree, name: string): Call {
  return { do: tree.get(name) === null ? 'rmdir' : 'unlink', name }
}

/** Does one call, with as few others around it as possible. @returns bytes written, if it writes */
function perform(directory: string, call: Call): number {
  const at = (name: string): string => path.join(directory, name)
  let count = 0
  const within = (flags: string, work: (fd: number) => void): void => {
    const fd = fs.openSync(at(call.name), flags)
    try {
      work(fd)
    } finally {
      fs.closeSync(fd)
    }
  }
  switch (call.do) {
    case 'create':
      within('wx', () => {})
      break
    case 'write':
      within('r+', (fd) => {
        count = fs.writeSync(fd, contentOf(call.fill, call.length), 0, call.length, call.at)
      })
      break
    case 'append':
      within('a', (fd) => {
        count = fs.writeSync(fd, contentOf(call.fill, call.length))
      })
      break
    case 'truncate':
      fs.truncateSync(at(call.name), call.length)
      break
    case 'rename':
      fs.renameSync(at(call.name), at(call.to))
      break
    case 'link':
      fs.linkSync(at(call.name), at(call.to))
      break
    case 'unlink':
      fs.unlinkSync(at(call.name))
      break
    case 'mkdir':
      fs.mkdirSync(at(call.name))
      break
    case 'rmdir':
      fs.rmdirSync(at(call.name))
      break
    case 'symlink':
      fs.symlinkSync(call.target, at(call.name))
      break
    case 'fsync':
      within('r+', (fd) => fs.fsyncSync(fd))
      break
  }
  return count
}

/** What the death of the daemon looks like to a program. */
const DEATHS = new Set(['ENOTCONN', 'ECONNABORTED', 'EIO', 'ENODEV'])

function main(directory: string, sideLog: string, seed: number): void {
  const log = fs.openSync(sideLog, 'a')
  const random = randomFrom(seed)
  let tree: Tree = new Map()
  for (;;) {
    const call = nextCall(tree, random)
    let count = 0
    fs.writeSync(log, `begin ${JSON.stringify(call)}\n`)
    try {
      count = perform(directory, call)
    } catch (error) {
      const { code } = error as { code?: string }
      if (!DEATHS.has(code ?? '')) fs.writeSync(log, `unexpected ${JSON.stringify(call)}: ${error}\n`)
      return
    }
    fs.writeSync(log, `done ${count}\n`)
    tree = applyCall(tree, shortened(call, count))
  }
}

const [program, directory, sideLog, seed] = process.argv.slice(1)
if (program === fileURLToPath(import.meta.url) && directory !== undefined && sideLog !== undefined)
  main(directory, sideLog, Number(seed))
