/** From the changes that the daemon tells to pairs of files, each of which is one part of a patch. */
import type { ChangeInfo, DiffInfo } from '../../api/snapshots.ts'
import { NexusError } from '../../errors.ts'
import { bytesOf, type FoundSide, type Side, type SideName } from './side.ts'

/** A file on one side or on both. */
export interface Pair {
  old?: { name: SideName; found: FoundSide } | undefined
  new?: { name: SideName; found: FoundSide } | undefined
  /** false where the daemon has said that the contents are equal */
  mayDiffer: boolean
}

export interface Pairs {
  /** in the order of a patch */
  pairs: Pair[]
  /** changes that a patch cannot hold: of directories, owners, times, and of what is neither file nor symlink */
  leftOut: number
}

/** What is held in memory for each is 500 bytes or so. */
const FILES_MAX = 200_000

export interface Sides {
  /** undefined where that side is not to be seen */
  before: Side | undefined
  after: Side | undefined
}

/** @throws NexusError NEXUS_UNSUPPORTED when a side that is needed cannot be seen, or there are too many files */
export function pairsOf({ changes }: Pick<DiffInfo, 'changes'>, sides: Sides): Pairs {
  const plan = new Plan(sides)
  for (const change of changes) plan.take(change)
  return plan.finish()
}

class Plan {
  readonly #sides: Sides
  readonly #old = new Map<SideName, FoundSide>()
  readonly #new = new Map<SideName, FoundSide>()
  /** what is at the new name was at the old one */
  readonly #moved = new Map<SideName, SideName>()
  readonly #movedFrom = new Set<SideName>()
  /** the last directory of each side of which all files are known */
  readonly #walked = new Map<Map<SideName, FoundSide>, SideName>()
  readonly #directories: { from: SideName; to: SideName }[] = []
  /** what the daemon has said of a file that is there on both sides */
  readonly #what = new Map<SideName, readonly string[]>()
  #leftOut = 0

  constructor(sides: Sides) {
    this.#sides = sides
  }

  take(change: ChangeInfo): void {
    const name = change.path === '.' ? '' : bytesOf(change.path)
    if (change.kind === 'other') this.#leftOut++
    else if (change.change === 'renamed') this.#takeMove(change, bytesOf(change.from ?? change.path), name)
    else if (change.change === 'modified' && !change.what.includes('type')) {
      this.#takeFile(change, name)
    } else {
      const files = [
        change.change !== 'added' && this.#add(this.#old, this.#before, name),
        change.change !== 'removed' && this.#add(this.#new, this.#after, name),
      ]
      if (!files.includes(true)) this.#leftOut++
    }
  }

  #takeFile(change: ChangeInfo, name: SideName): void {
    // What lies in a directory has changes of its own.
    if (change.kind === 'directory') {
      this.#leftOut++
      return
    }
    this.#what.set(name, change.what)
    this.#add(this.#old, this.#before, name)
    this.#add(this.#new, this.#after, name)
  }

  #takeMove(change: ChangeInfo, from: SideName, to: SideName): void {
    const files = [this.#add(this.#old, this.#before, from), this.#add(this.#new, this.#after, to)]
    if (change.kind === 'directory') {
      this.#directories.push({ from, to })
      if (!files.includes(true)) this.#leftOut++
    } else {
      this.#what.set(to, change.what)
      this.#move(from, to)
    }
  }

  /** A file, or all files in a directory. @returns whether there is any */
  #add(files: Map<SideName, FoundSide>, side: Side, name: SideName): boolean {
    const walked = this.#walked.get(files)
    // Changes come by path: those in a directory right behind it.
    if (walked !== undefined && name.startsWith(`${walked}/`)) return true
    const found = side.look(name)
    if (found === undefined) return false
    if (found.kind !== 'directory') {
      this.#put(files, name, found)
      return true
    }
    this.#walked.set(files, name)
    const before = files.size
    // Workspaces inside come and go without a change for each file in them.
    for (const [inside, one] of side.below(name)) this.#put(files, name === '' ? inside : `${name}/${inside}`, one)
    return files.size > before
  }

  #put(files: Map<SideName, FoundSide>, name: SideName, found: FoundSide): void {
    if (found.kind === 'other') return
    files.set(name, found)
    if (files.size <= FILES_MAX) return
    throw new NexusError('NEXUS_UNSUPPORTED', `more than ${FILES_MAX} files differ: compare a directory in it`)
  }

  #move(from: SideName, to: SideName): void {
    if (this.#movedFrom.has(from) || this.#moved.has(to)) return
    this.#moved.set(to, from)
    this.#movedFrom.add(from)
  }

  finish(): Pairs {
    // What was moved within a directory that was moved is told by itself: inner ones first.
    for (const { from, to } of this.#directories.toSorted((a, b) => b.to.length - a.to.length)) {
      for (const name of this.#old.keys()) {
        if (!name.startsWith(`${from}/`)) continue
        const moved = to + name.slice(from.length)
        if (this.#new.has(moved)) this.#move(name, moved)
      }
    }
    for (const [to, from] of this.#moved) {
      if (this.#isPlainMove(from, to)) continue
      this.#moved.delete(to)
      // The daemon has compared it with what it was elsewhere.
      this.#what.delete(to)
    }
    const sources = new Set(this.#moved.values())
    const pairs = [...this.#new].flatMap(([name, found]) => this.#pairsFor(name, found))
    for (const [name, found] of this.#old) {
      if (!this.#new.has(name) && !sources.has(name)) pairs.push({ old: { name, found }, mayDiffer: true })
    }
    return { pairs: this.#sorted(pairs), leftOut: this.#leftOut }
  }

  /** Like git, and because GNU patch goes from file to file: only what leaves a name free and takes a free one is a move. */
  #isPlainMove(from: SideName, to: SideName): boolean {
    const [old, fresh] = [this.#old.get(from), this.#new.get(to)]
    // A rename says nothing of the kind, and GNU patch takes what it renames for a file.
    if (old?.kind !== 'file' || fresh?.kind !== 'file') return false
    return !this.#new.has(from) && !this.#old.has(to) && !to.startsWith(`${from}/`) && !from.startsWith(`${to}/`)
  }

  #pairsFor(name: SideName, found: FoundSide): Pair[] {
    const from = this.#moved.get(name) ?? name
    const old = this.#old.get(from)
    const fresh = { name, found }
    if (old === undefined) return [{ new: fresh, mayDiffer: true }]
    const before = { name: from, found: old }
    if (old.kind === found.kind) return [{ old: before, new: fresh, mayDiffer: this.#mayDiffer(before, fresh) }]
    return [
      { old: before, mayDiffer: true },
      { new: fresh, mayDiffer: true },
    ]
  }

  /** The files in a directory that was moved are told of where something is not as it was. */
  #mayDiffer(old: { name: SideName; found: FoundSide }, fresh: { name: SideName; found: FoundSide }): boolean {
    const what = this.#what.get(fresh.name) ?? (this.#moved.has(fresh.name) ? this.#what.get(old.name) : undefined)
    if (what !== undefined) return what.some((one) => one === 'content' || one === 'target')
    return !this.#moved.has(fresh.name) || old.found.size !== fresh.found.size || old.found.mtime !== fresh.found.mtime
  }

  /** By name, byte for byte; what has to go before a file can take the place of a directory comes first. */
  #sorted(pairs: Pair[]): Pair[] {
    const keys = new Map(pairs.map((pair) => [pair, this.#key(pair)]))
    const key = (pair: Pair): string => keys.get(pair) as string
    return pairs.sort((a, b) => (key(a) < key(b) ? -1 : 1))
  }

  #key({ old, new: fresh }: Pair): string {
    const name = fresh?.name ?? old?.name ?? ''
    if (fresh !== undefined) return `${name}\u0001`
    // NUL sorts before the end of any name.
    for (let at = name.indexOf('/'); at !== -1; at = name.indexOf('/', at + 1)) {
      if (this.#new.has(name.slice(0, at))) return `${name.slice(0, at)}\0${name}`
    }
    return `${name}\0`
  }

  get #before(): Side {
    return needed(this.#sides.before, 'older')
  }

  get #after(): Side {
    return needed(this.#sides.after, 'newer')
  }
}

function needed(side: Side | undefined, which: string): Side {
  if (side !== undefined) return side
  throw new NexusError(
    'NEXUS_UNSUPPORTED',
    `the ${which} side is not to be seen in the filesystem, where its files would be read: it has no such directory, the workspace ` +
      'has an entry in place of its snapshots (see "nexusctl workspace show"), or you may not list the root of the workspace',
  )
}
