/**
 * What must stay: the nodes and chunks that some root reaches.
 *
 * It is marked while everybody goes on working. Trees never change, so what was reachable from the roots at one instant
 * still is when the walk gets there; what is referred to anew from that instant on is told by the store (a node or
 * chunk that is stored, or found there already) and by `Volumes` (a piece that is copied).
 */
import { ByteReader } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { AddressMarks } from '../cas/addressmarks.ts'
import { AddressSet } from '../cas/addressset.ts'
import type { StoredContent } from '../cas/store.ts'
import type { Tree } from '../tree/tree.ts'
import { windowOf } from './held.ts'
import { Kind, kindOf } from './keys.ts'
import type { Layer } from './layer.ts'
import { decodeWindow, type Window } from './piece.ts'

/** A state to keep: a volume's, a snapshot's. */
export interface Root {
  root: Address | null
  domain: number
}

/** A layer and the domain of its volume. */
export interface DomainLayer {
  layer: Layer
  domain: number
}

export class Live {
  readonly #nodes = new AddressSet()
  /** of a million chunks that are dead it may keep one, which costs its space and nothing else */
  readonly #chunks = new AddressMarks()
  /** nodes whose subtree was walked, by domain: the same node may be in several, with chunks of each */
  readonly #walked = new AddressSet()

  has({ domain, address }: Pick<StoredContent, 'domain' | 'address'>): boolean {
    return domain === undefined ? this.#nodes.has(address) : this.#chunks.has(address, domain)
  }

  /** @param domain undefined for a node */
  add(address: Address, domain: number | undefined): void {
    if (domain === undefined) this.#nodes.add(address)
    else this.#chunks.add(address, domain)
  }

  addWindow(window: Window, domain: number): void {
    for (const piece of window) if (piece.kind === 'chunk') this.#chunks.add(piece.address, domain)
  }

  /** Whether all below a node is marked too. */
  isWalked(address: Address, domain: number): boolean {
    return this.#walked.has(address, domain)
  }

  /** Nodes and chunks so far. */
  get size(): number {
    return this.#nodes.size + this.#chunks.size
  }

  /**
   * Marks what a root reaches; yields between slices.
   * @param isKnown of some nodes: all below them is in another set
   */
  *markRoot(tree: Tree, { root, domain }: Root, isKnown: (address: Address) => boolean = () => false): Generator<void, void> {
    const isWalked = (address: Address): boolean => {
      if (isKnown(address)) return true
      this.#nodes.add(address)
      return !this.#walked.add(address, domain)
    }
    yield* tree.walk(root, isWalked, (key, value) => {
      if (kindOf(key) === Kind.window) this.addWindow(decodeWindow(new ByteReader(value)), domain)
    })
  }

  /** Marks what a layer refers to; yields between slices. The layer may change meanwhile. */
  *markLayer({ layer, domain }: DomainLayer): Generator<void, void> {
    for (const delta of layer.inodes.values()) {
      for (const window of delta.windows.values()) {
        if (window !== null) this.addWindow(windowOf(window), domain)
        yield
      }
    }
  }
}

/** Roots that are in use across awaits, and stay until they are released. */
export class Pin {
  readonly #pins: Set<Pin>
  readonly #roots: Root[] = []

  constructor(pins: Set<Pin>) {
    this.#pins = pins
    pins.add(this)
  }

  /** Call it while the states are kept by somebody else, and before the next await. */
  add(roots: Iterable<Root>): void {
    for (const { root, domain } of roots) this.#roots.push({ root, domain })
  }

  get roots(): readonly Root[] {
    return this.#roots
  }

  /** Quiet when repeated. */
  release(): void {
    this.#pins.delete(this)
  }
}
