/**
 * Garbage collection: marks what some root still reaches, forgets the rest, and gives back segments
 * of the log in which little is alive, after copying that to the log's end.
 *
 * It runs in the turn of merges and checkpoints, so nothing is sealed or stored meanwhile, but
 * commits and reads go on. That is safe: a commit refers to bytes of its own record, or to what
 * could be reached when it was made, and all of that was marked or is newer than the mark.
 */
import { ByteReader } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { AddressSet } from '../cas/addressset.ts'
import type { ContentStore, StoredContent } from '../cas/store.ts'
import type { Tree } from '../tree/tree.ts'
import { Kind, kindOf } from './keys.ts'
import type { Layer } from './layer.ts'
import type { Pause } from './merge.ts'
import { decodeWindow, type Window } from './piece.ts'
import type { Volume } from './volume.ts'

/** A state to keep: a volume's, a snapshot's. */
export interface Root {
  root: Address | null
  domain: number
}

/** What a garbage collection did. */
export interface Collected {
  /** chunks and nodes that nothing reached */
  forgotten: number
  /** segments of the log removed */
  segments: number
  /** copied out of them to the end of the log */
  copiedBytes: number
  /** size of the removed segments */
  freedBytes: number
}

/** What one state of the store needs, by domain. */
export class Live {
  readonly nodes = new AddressSet()
  readonly #chunks = new Map<number, AddressSet>()
  /** nodes seen in a domain: the same node may be in several, with chunks of each */
  readonly #seen = new Map<number, AddressSet>()

  chunks(domain: number): AddressSet {
    return setOf(this.#chunks, domain)
  }

  seen(domain: number): AddressSet {
    return setOf(this.#seen, domain)
  }

  has(content: Pick<StoredContent, 'domain' | 'address'>): boolean {
    return content.domain === undefined ? this.nodes.has(content.address) : this.chunks(content.domain).has(content.address)
  }
}

/** Marks everything that the roots reach, and what the layers refer to. */
export async function mark(tree: Tree, roots: readonly Root[], volumes: readonly Volume[], pause: Pause): Promise<Live> {
  const live = new Live()
  for (const volume of volumes) markLayer(volume.active, live.chunks(volume.domain))
  for (const { root, domain } of roots) {
    const chunks = live.chunks(domain)
    const seen = live.seen(domain)
    const isSeen = (address: Address): boolean => {
      live.nodes.add(address)
      return !seen.add(address)
    }
    const walk = tree.walk(root, isSeen, (key, value) => {
      if (kindOf(key) === Kind.window) markWindow(decodeWindow(new ByteReader(value)), chunks)
    })
    while (walk.next().done !== true) await pause()
  }
  return live
}

function markLayer(layer: Layer, chunks: AddressSet): void {
  for (const delta of layer.inodes.values()) {
    for (const window of delta.windows.values()) if (window !== null) markWindow(window, chunks)
  }
}

function markWindow(window: Window, chunks: AddressSet): void {
  for (const piece of window) if (piece.kind === 'chunk') chunks.add(piece.address)
}

/** The first segment that a raw piece of some layer points into, or infinity. */
export function firstRawSegment(volumes: readonly Volume[]): number {
  let first = Number.POSITIVE_INFINITY
  for (const volume of volumes) {
    for (const delta of volume.active.inodes.values()) {
      for (const window of delta.windows.values()) {
        for (const piece of window ?? []) if (piece.kind === 'raw') first = Math.min(first, piece.segment)
      }
    }
  }
  return first
}

/** How much of each segment is alive, and what is dead. */
export interface Census {
  liveBytes: Map<number, number>
  dead: number
}

export async function census(store: ContentStore, live: Live, pause: Pause): Promise<Census> {
  const found: Census = { liveBytes: new Map(), dead: 0 }
  for await (const content of store.contents()) {
    if (!live.has(content)) found.dead++
    else {
      for (const { segment, length } of content.location.parts) {
        found.liveBytes.set(segment, (found.liveBytes.get(segment) ?? 0) + length)
      }
    }
    await pause()
  }
  return found
}

/** Segments that are worth giving back: the emptiest first, as long as little has to be copied. */
export function victims(
  sizes: ReadonlyMap<number, number>,
  found: Census,
  before: number,
  limits: { share: number; copyBytes: number },
): number[] {
  const candidates = [...sizes]
    .filter(([segment]) => segment < before)
    .map(([segment, bytes]) => ({ segment, live: found.liveBytes.get(segment) ?? 0, bytes }))
    .filter(({ live, bytes }) => live <= bytes * limits.share)
    .sort((a, b) => a.live / a.bytes - b.live / b.bytes)
  const chosen: number[] = []
  let copied = 0
  for (const { segment, live } of candidates) {
    if (copied + live > limits.copyBytes) break
    copied += live
    chosen.push(segment)
  }
  return chosen
}

/** Forgets what is dead and moves what is alive out of the chosen segments. @returns bytes copied */
export async function sweep(store: ContentStore, live: Live, chosen: ReadonlySet<number>, pause: Pause): Promise<number> {
  let copied = 0
  for await (const content of store.contents()) {
    if (!live.has(content)) store.forget(content)
    else if (content.location.parts.some((part) => chosen.has(part.segment))) copied += store.move(content)
    await pause()
  }
  return copied
}

function setOf(sets: Map<number, AddressSet>, domain: number): AddressSet {
  let set = sets.get(domain)
  if (set === undefined) {
    set = new AddressSet()
    sets.set(domain, set)
  }
  return set
}
