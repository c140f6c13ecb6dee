/**
 * Has programs that watch files and directories (inotify(7)) hear of a restore. Only system calls make such events, so a thread
 * of ours makes them through the mount, after the restore has been answered (FileToucher, vfs/tidings.ts).
 *
 * - It is told what is so: content of a file that changed (IN_MODIFY, IN_CLOSE_WRITE), its attributes (IN_ATTRIB), names that
 *   came or went (IN_CREATE, IN_DELETE).
 * - Nothing waits for it, and it changes nothing.
 * - A file that is watched, or whose directory is, is told of, and no other: a child process looks into /proc for watches.
 *   Where it cannot see all processes, everything counts as watched.
 */
import { Pace } from '../pace.ts'
import type { Core } from '../vfs/core.ts'
import type { Touch } from '../vfs/filesystem.ts'
import type { KnownNodes } from '../vfs/known.ts'
import { inoOfNode, nodeOf, volumeOf } from '../vfs/place.ts'
import type { Tiding } from '../vfs/tidings.ts'
import type { Watches } from '../vfs/watches.ts'
import { type Attr, isDirectory, isRegular, S_IFDIR, S_IFREG } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Context } from '../workspaces/context.ts'
import { bytesPathOf } from '../workspaces/paths.ts'
import type { InodeDiff } from './inodediffs.ts'

/** So much of one restore is kept until it is known what is watched. Each takes some 100 bytes. */
const NEWS_MAX = 200_000
/** Each errand costs a request or two. What is beyond is not told, which only one huge directory or tree that is watched reaches. */
const ERRANDS_MAX = 10_000
/** What is done by one thread, and waits when that does. */
const BATCH = 100
/** A name that a program has looked up before us is dropped from the kernel's cache, and told again. */
const TRIES_MAX = 3
/** What an errand is answered then: the kernel knows the name already, or knows that there is none. */
const ENOENT = -2
const EEXIST = -17
const ANY_EXECUTE = 0o111

/** A file or directory that is in both states. */
interface Altered {
  kind: 'content' | 'attributes' | 'entries'
  node: number
}

/** What a restore changed that can be watched: inodes that the kernel holds, and what lies in directories that it holds. */
export class News {
  readonly names: Tiding[] = []
  readonly inodes: Altered[] = []

  add(known: KnownNodes, volume: number, diff: InodeDiff): void {
    if (this.names.length + this.inodes.length > NEWS_MAX) return
    const { ino, before, after } = diff
    if (before === undefined || after === undefined) return
    const isKnown = known.has(volume, ino)
    if (!isKnown && !known.has(volume, after.parent)) return
    const node = nodeOf(volume, ino)
    if (!isDirectory(after)) {
      const isContent = diff.data || diff.target || before.size !== after.size
      this.inodes.push({ kind: isContent ? 'content' : 'attributes', node })
      return
    }
    const hasEntries = diff.added.length + diff.removed.length > 0
    this.inodes.push({ kind: hasEntries ? 'entries' : 'attributes', node })
    if (!isKnown) return
    // What is another inode under the same name came: it is there.
    const gone = diff.removed.filter(({ name }) => !diff.added.some((other) => other.name === name))
    for (const { name, type } of gone) this.names.push({ kind: 'went', directory: node, name, type })
    for (const { name, type } of diff.added) this.names.push({ kind: 'came', directory: node, name, type })
  }

  get isEmpty(): boolean {
    return this.names.length + this.inodes.length === 0
  }
}

/** Resolves when all is told that could be, or waits in a thread of its own. */
export async function tellWatchers(context: Context, news: News): Promise<void> {
  if (news.isEmpty || context.toucher === undefined) return
  const watches = await context.lookForWatches?.()
  if (watches !== undefined && watches.nodes.size + watches.leased.size === 0) return
  await new Teller(context, watches).tell(news)
}

class Teller {
  readonly #context: Context
  readonly #core: Core
  /** undefined: anything may be watched */
  readonly #watches: Watches | undefined
  readonly #pace = new Pace()
  #left = ERRANDS_MAX

  constructor(context: Context, watches: Watches | undefined) {
    this.#context = context
    this.#core = context.core
    this.#watches = watches
  }

  /** Names first: upon IN_ATTRIB of a directory a program lists it, and then the kernel knows its names before we make them. */
  async tell({ names, inodes }: News): Promise<void> {
    const told = names.filter(({ directory }) => this.#isWatched(directory))
    await this.#tellNames(told.filter(({ kind }) => kind === 'went'))
    const came = told.filter(({ kind }) => kind === 'came')
    await this.#tellNames(came.filter(({ type }) => type === S_IFDIR))
    await this.#tellNames(came.filter(({ type }) => type !== S_IFDIR))
    const files = came.filter(({ type }) => type === S_IFREG)
    await this.#run(files, (tiding) => this.#writtenName(tiding))
    const changed = inodes.filter(({ kind }) => kind === 'content')
    await this.#run(changed, ({ node }) => this.#errandsToContent(node))
    const rest = inodes.filter(({ kind }) => kind !== 'content')
    await this.#run(rest, ({ node }) => this.#errandsTo(node, ['attributes']))
  }

  async #tellNames(tidings: readonly Tiding[]): Promise<void> {
    let left: readonly Tiding[] = tidings
    for (let i = 0; i < TRIES_MAX && left.length > 0; i++) left = await this.#tellNamesOnce(left)
  }

  /** @returns what is to be told again */
  async #tellNamesOnce(tidings: readonly Tiding[]): Promise<Tiding[]> {
    const { tidings: shown } = this.#core
    const again: Tiding[] = []
    for (const batch of batchesOf(tidings)) {
      if (this.#left <= 0) return []
      for (const tiding of batch) shown.add(tiding)
      const errands = batch.map((tiding) => ({ tiding, errand: this.#nameErrand(tiding) }))
      const sent = errands.flatMap(({ tiding, errand }) => (errand === undefined ? [] : [{ tiding, errand }]))
      const results = await this.#send(
        sent.map(({ errand }) => errand),
        () => {
          for (const tiding of batch) shown.delete(tiding)
        },
      )
      for (const [i, { tiding }] of sent.entries()) if (this.#isKnownAlready(tiding, results?.[i])) again.push(tiding)
    }
    await Promise.all(again.map(({ directory, name }) => this.#context.kernel.invalidateEntry(directory, name)))
    return again
  }

  /** Only directories are left as they are: what is mounted or works in one would lose its path for a moment. */
  #isKnownAlready({ kind, directory, name, type }: Tiding, errno: number | undefined): boolean {
    if (kind === 'went') return errno === ENOENT
    const entry = this.#core.volumes.get(volumeOf(directory))?.entry(inoOfNode(directory), name)
    return errno === EEXIST && type !== S_IFDIR && entry?.type === type
  }

  async #run<T>(items: readonly T[], errandsOf: (item: T) => Touch[]): Promise<void> {
    let errands: Touch[] = []
    for (const item of items) {
      if (this.#left <= 0) return
      errands.push(...errandsOf(item))
      if (errands.length >= BATCH) errands = await this.#sendAll(errands)
      const wait = this.#pace.pause()
      if (wait !== undefined) await wait
    }
    await this.#sendAll(errands)
  }

  async #sendAll(errands: readonly Touch[]): Promise<Touch[]> {
    await this.#send(errands, () => undefined)
    return []
  }

  async #send(errands: readonly Touch[], onDone: () => void): Promise<number[] | undefined> {
    this.#left -= errands.length
    if (errands.length === 0 || this.#left < 0) {
      onDone()
      return undefined
    }
    return this.#context.toucher?.tell(errands, onDone)
  }

  #nameErrand({ kind, directory, name, type }: Tiding): Touch | undefined {
    const errand = this.#touchOf(directory, kind)
    return errand && { ...errand, name, type }
  }

  #writtenName({ directory, name }: Tiding): Touch[] {
    const entry = this.#core.volumes.get(volumeOf(directory))?.entry(inoOfNode(directory), name)
    if (entry === undefined || entry.volume !== 0) return []
    return this.#errandTo(nodeOf(volumeOf(directory), entry.ino), 'written')
  }

  /** Whoever has a lease of it is told as by any open of another program: the kernel sends a signal. */
  #errandsToContent(node: number): Touch[] {
    const errands = this.#errandsTo(node, ['content', 'written'])
    return errands.length === 0 && this.#watches?.leased.has(node) === true ? this.#errandTo(node, 'written') : errands
  }

  #errandsTo(node: number, kinds: readonly Touch['kind'][]): Touch[] {
    const parent = this.#parentOf(node)
    if (!this.#isWatched(node) && (parent === undefined || !this.#isWatched(parent))) return []
    return kinds.flatMap((kind) => this.#errandTo(node, kind))
  }

  /** To a node that the kernel holds, or else to its name. */
  #errandTo(node: number, kind: Touch['kind']): Touch[] {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    const attr = this.#core.volumes.get(number)?.attr(ino)
    if (attr === undefined) return []
    if (kind === 'written' && !this.#canBeOpened(number, ino, attr)) return []
    const { atime, mtime, parent, name } = attr
    if (this.#core.known.has(number, ino)) return [this.#touchOf(node, kind) ?? []].flat()
    const directory = this.#touchOf(nodeOf(number, parent), kind)
    return directory === undefined ? [] : [{ ...directory, name, atime, mtime }]
  }

  /**
   * While we have a file open for writing no process could execute it (ETXTBSY). And a close takes the error of a page that was
   * not written back (fuse_flush), which is for those who stored it.
   */
  #canBeOpened(number: number, ino: number, attr: Attr): boolean {
    return isRegular(attr) && (attr.mode & ANY_EXECUTE) === 0 && !this.#core.known.isTainted(number, ino)
  }

  #touchOf(node: number, kind: Touch['kind']): Touch | undefined {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    const volume = this.#core.volumes.get(number)
    const attr = volume?.attr(ino)
    if (volume === undefined || attr === undefined || !this.#core.known.has(number, ino)) return undefined
    const { atime, mtime } = attr
    const path = bytesPathOf(this.#core, this.#context.registry, { volume, ino, attr })
    return { kind, node, generation: this.#core.known.generation(number, ino), atime, mtime, path }
  }

  /** The directory of a node; undefined for a workspace, and where the recorded name is not its own any more. */
  #parentOf(node: number): number | undefined {
    const [number, ino] = [volumeOf(node), inoOfNode(node)]
    const volume = this.#core.volumes.get(number)
    const attr = volume?.attr(ino)
    if (volume === undefined || attr === undefined || ino === ROOT_INO) return this.#core.registry.parentOf(number)
    return volume.entry(attr.parent, attr.name)?.ino === ino ? nodeOf(number, attr.parent) : undefined
  }

  #isWatched(node: number): boolean {
    return this.#watches === undefined || this.#watches.nodes.has(node)
  }
}

function* batchesOf<T>(items: readonly T[]): Generator<T[]> {
  for (let at = 0; at < items.length; at += BATCH) yield items.slice(at, at + BATCH)
}
