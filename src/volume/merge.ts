/**
 * Merging: a volume's frozen layer becomes part of its tree. First the raw pieces are sealed into
 * chunks, then every change becomes an edit of the tree.
 */
import type { Address } from '../cas/address.ts'
import type { RunPart, Sealed } from '../cas/seal.ts'
import type { Sealer } from '../cas/sealer.ts'
import type { ContentStore, SealedChunk } from '../cas/store.ts'
import type { Edit } from '../tree/tree.ts'
import { encodeAttr } from './attr.ts'
import { encodeBucket } from './dirent.ts'
import { encodedOf, StoredWindow, windowOf } from './held.ts'
import { Kind, numberKey, orphanKey, plainKey, stringKey } from './keys.ts'
import type { InodeDelta, Layer } from './layer.ts'
import { type Piece, splice, WINDOW_BYTES, type Window } from './piece.ts'
import { encodeSuper, type Volume } from './volume.ts'

/** Told now and then during long work; may wait, so that others get their turn. */
export type Pause = () => Promise<void> | undefined

export interface MergeTools {
  store: ContentStore
  sealer: Sealer
  pause: Pause
  /** told of every stretch that could not be sealed because its bytes are damaged */
  onDamage(volume: number, ino: number, damage: { segment: number; offset: number; length: number }): void
}

const JOB_BYTES_MAX = 4 * 1024 * 1024
const JOB_RUNS_MAX = 256
/** Given to the sealer before the first has to be done. */
const JOBS_MAX = 8

/**
 * Merges the frozen layer and returns the new root; the volume itself is not changed.
 * @throws what the store throws when it cannot write; then nothing has happened
 */
export async function mergeFrozen(volume: Volume, layer: Layer, tools: MergeTools): Promise<Address | null> {
  const base = volume.root
  const windows = await sealLayer(volume, layer, tools)
  const merge = volume.tree.edit(base, editsOf(volume, base, layer, windows))
  for (;;) {
    const step = merge.next()
    if (step.done === true) return step.value
    const wait = tools.pause()
    if (wait !== undefined) await wait
  }
}

/** A contiguous stretch of raw pieces of one file. */
interface FileRun {
  ino: number
  delta: InodeDelta
  /** file offset */
  at: number
  length: number
  parts: RunPart[]
}

export type SealedWindows = Map<number, Map<number, Window>>

/** Seals every raw piece of the layer; returns the windows that had any, by inode and index. */
async function sealLayer(volume: Volume, layer: Layer, tools: MergeTools): Promise<SealedWindows> {
  const windows: SealedWindows = new Map()
  let jobs: Promise<void>[] = []
  for (const job of jobsOf(runsOf(layer))) {
    const sealing = async (): Promise<void> => {
      const results = await tools.sealer.seal(job.map((run) => run.parts))
      storeChunks(volume.domain, results, tools.store)
      job.forEach((run, i) => {
        placeSealed(volume.number, windows, run, results[i] as Sealed[], tools)
      })
    }
    const sealed = sealing()
    sealed.catch(() => undefined) // may fail while we pause; whoever awaits it below hears of it
    jobs.push(sealed)
    if (jobs.length >= JOBS_MAX) {
      await allEnded(jobs)
      jobs = []
    }
    const wait = tools.pause()
    if (wait !== undefined) await wait
  }
  await allEnded(jobs)
  return windows
}

/** Not `Promise.all`: a merge that has failed must have nothing at work any more. */
async function allEnded(jobs: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(jobs)).find((result) => result.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

function* jobsOf(runs: Iterable<FileRun>): Generator<FileRun[]> {
  let job: FileRun[] = []
  let bytes = 0
  for (const run of runs) {
    job.push(run)
    bytes += run.length
    if (bytes < JOB_BYTES_MAX && job.length < JOB_RUNS_MAX) continue
    yield job
    job = []
    bytes = 0
  }
  if (job.length > 0) yield job
}

function* runsOf(layer: Layer): Generator<FileRun> {
  for (const [ino, delta] of layer.inodes) {
    if (delta.windows.size === 0) continue
    let run: FileRun | undefined
    for (const index of [...delta.windows.keys()].sort((a, b) => a - b)) {
      const window = delta.windows.get(index)
      // What is in its stored form has no raw pieces.
      if (window == null || window instanceof StoredWindow) continue
      for (const piece of window) {
        if (piece.kind !== 'raw') continue
        const at = index * WINDOW_BYTES + piece.start
        if (run === undefined || run.at + run.length !== at || run.length >= JOB_BYTES_MAX) {
          if (run !== undefined) yield run
          run = { ino, delta, at, length: 0, parts: [] }
        }
        run.parts.push({ segment: piece.segment, base: piece.base, offset: piece.offset, length: piece.length })
        run.length += piece.length
      }
    }
    if (run !== undefined) yield run
  }
}

function storeChunks(domain: number, results: readonly Sealed[][], store: ContentStore): void {
  const chunks: SealedChunk[] = []
  for (const sealed of results.flat()) {
    if (sealed.kind !== 'chunk') continue
    if (sealed.gathered === undefined) chunks.push(sealed)
    else
      store.putChunk(
        domain,
        sealed.address,
        Buffer.from(sealed.gathered.buffer, sealed.gathered.byteOffset, sealed.gathered.length),
      )
  }
  store.addChunks(domain, chunks)
}

/** Replaces the raw pieces of a run by what they became. */
function placeSealed(volume: number, windows: SealedWindows, run: FileRun, sealed: readonly Sealed[], tools: MergeTools): void {
  let ofInode = windows.get(run.ino)
  if (ofInode === undefined) {
    ofInode = new Map()
    windows.set(run.ino, ofInode)
  }
  let at = run.at
  for (const stretch of sealed) {
    const length = stretch.kind === 'chunk' ? stretch.location.length : stretch.length
    if (stretch.kind === 'damaged') tools.onDamage(volume, run.ino, stretch)
    for (let done = 0; done < length; ) {
      const index = Math.floor((at + done) / WINDOW_BYTES)
      const start = at + done - index * WINDOW_BYTES
      const count = Math.min(WINDOW_BYTES - start, length - done)
      const piece: Piece =
        stretch.kind === 'chunk'
          ? { kind: 'chunk', address: stretch.address, offset: done, start, length: count }
          : { kind: 'damaged', start, length: count }
      const window = ofInode.get(index) ?? windowOf(run.delta.windows.get(index) ?? [])
      ofInode.set(index, splice(window, start, start + count, [piece]))
      done += count
    }
    at += length
  }
}

/** The layer's changes as edits of the tree, ascending by key. */
export function* editsOf(volume: Volume, base: Address | null, layer: Layer, windows: SealedWindows): Generator<Edit> {
  yield { key: plainKey(0, Kind.super), value: encodeSuper(volume.frozenSuper) }
  for (const ino of [...layer.orphans.keys()].sort((a, b) => a - b)) {
    yield { key: orphanKey(ino), value: layer.orphans.get(ino) ? Buffer.alloc(0) : null }
  }
  for (const ino of [...layer.inodes.keys()].sort((a, b) => a - b)) {
    const delta = layer.inodes.get(ino) as InodeDelta
    const edits = inodeEdits(ino, delta, windows.get(ino))
    yield* delta.wiped ? overWiped(volume, base, ino, edits) : edits
  }
}

/** One after the other, as the tree takes them: a large directory has more than fit into a slice. */
function* inodeEdits(ino: number, delta: InodeDelta, sealed: Map<number, Window> | undefined): Generator<Edit, undefined> {
  if (delta.attr !== undefined) {
    yield { key: plainKey(ino, Kind.attr), value: delta.attr === null ? null : encodeAttr(delta.attr) }
  }
  if (delta.dirents.size > 0) {
    for (const slot of delta.slots.from(0)) {
      const bucket = delta.dirents.get(slot) ?? null
      yield { key: numberKey(ino, Kind.dirent, slot), value: bucket === null ? null : encodeBucket(bucket) }
    }
  }
  for (const index of [...delta.windows.keys()].sort((a, b) => a - b)) {
    const window = sealed?.get(index) ?? delta.windows.get(index) ?? null
    yield { key: numberKey(ino, Kind.window, index), value: window === null ? null : encodedOf(window) }
  }
  for (const name of [...delta.xattrs.keys()].sort((a, b) => (a < b ? -1 : 1))) {
    const value = delta.xattrs.get(name) ?? null
    yield { key: stringKey(ino, Kind.xattr, name), value: value === null ? null : Buffer.from(value) }
  }
  if (delta.link !== undefined) yield { key: plainKey(ino, Kind.link), value: Buffer.from(delta.link) }
}

/** The same, with a deletion for every entry of the inode that lies in the tree and is not set again. */
function* overWiped(volume: Volume, base: Address | null, ino: number, edits: Iterator<Edit, undefined>): Generator<Edit> {
  let edit = edits.next().value
  const end = ino === 0xffff_ffff ? undefined : plainKey(ino + 1, 0)
  for (const [key] of volume.tree.scan(base, plainKey(ino, 0), end)) {
    for (; edit !== undefined && Buffer.compare(edit.key, key) < 0; edit = edits.next().value) yield edit
    if (edit === undefined || !edit.key.equals(key)) yield { key, value: null }
  }
  for (; edit !== undefined; edit = edits.next().value) yield edit
}
