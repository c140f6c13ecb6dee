/** The volumes and the catalog as they are in memory, what each change makes of them, and what a checkpoint has to store of it. */
import type { Address } from '../cas/address.ts'
import { fromHex } from '../cas/address.ts'
import { assert } from '../errors.ts'
import type { Span } from '../journal/log.ts'
import type { Logger } from '../logger.ts'
import type { Tree } from '../tree/tree.ts'
import { applyChange } from './apply.ts'
import { Catalog } from './catalog.ts'
import type { Change } from './change.ts'
import type { DomainLayer, Live, Root } from './live.ts'
import type { VolumeState } from './state.ts'
import { type Super, Volume } from './volume.ts'

/** A volume as it was when it was merged. */
export interface MergedState {
  root: Address | null
  domain: number
  super: Super
}

/** What changed since the last time somebody took it. */
export interface Unstored {
  /** null: removed */
  catalog: ReadonlyMap<string, string | null>
  /** volumes that are gone */
  removed: ReadonlySet<number>
  /** volumes of which the index may not have the state */
  volumes: readonly number[]
}

export class VolumeTable {
  readonly catalog = new Catalog()
  /** changes in all active layers, a measure of the work that merging them will be */
  weight = 0
  /** bytes that became garbage, by estimate; whoever collects takes them off */
  released = 0
  /** told of references that are made while a collection marks */
  live: Live | undefined
  readonly #tree: Tree
  readonly #logger: Logger
  readonly #volumes = new Map<number, Volume>()
  #removed = new Set<number>()
  /** a checkpoint looks at these and no others */
  #unsaved = new Set<number>()
  /** sum of what changes allocated and freed since the start */
  #allocated = 0

  constructor(tree: Tree, logger: Logger) {
    this.#tree = tree
    this.#logger = logger
  }

  get(number: number): Volume | undefined {
    return this.#volumes.get(number)
  }

  get numbers(): number[] {
    return [...this.#volumes.keys()]
  }

  /** A volume as the index has it. @param isSaved false when the index has lost it */
  restore(number: number, { root, domain, ino_next }: VolumeState, isSaved: boolean): void {
    this.#reset(number, root === null ? null : fromHex(root), domain, ino_next)
    if (!isSaved) this.#unsaved.add(number)
  }

  /** @param span where the data lies that the changes write */
  apply(changes: readonly Change[], span: Span): void {
    const before = this.#allocated
    for (const change of changes) this.#apply(change, span)
    // What was written and is not allocated more than before took the place of something, or something went.
    this.released += Math.max(0, span.length - (this.#allocated - before))
  }

  /** What has to be stored; if that fails, `giveBack` it. */
  takeUnstored(): Unstored {
    const unstored = { catalog: this.catalog.takeDirty(), removed: this.#removed, volumes: [...this.#unsaved] }
    this.#removed = new Set()
    this.#unsaved = new Set()
    return unstored
  }

  giveBack({ catalog, removed, volumes }: Unstored): void {
    this.catalog.giveBack(catalog)
    for (const number of removed) this.#removed.add(number)
    for (const number of volumes) if (this.#volumes.has(number)) this.#unsaved.add(number)
  }

  /** Of the volumes that have no changes these are the states of now. */
  get states(): Map<number, MergedState> {
    return new Map([...this.#volumes].map(([number, volume]) => [number, stateOf(volume)]))
  }

  get roots(): Root[] {
    return [...this.#volumes.values()].map(rootOf)
  }

  /** What volumes stood on before restores: somebody may still have files open from there. */
  get ghosts(): Root[] {
    return [...this.#volumes.values()].flatMap(({ ghosts }) => ghosts.map(rootOf))
  }

  /** What lies over the roots. */
  get layers(): DomainLayer[] {
    return [...this.#volumes.values()].map(({ active, domain }) => ({ layer: active, domain }))
  }

  #apply(change: Change, span: Span): void {
    if (change.kind === 'catalog') {
      this.catalog.apply(change.key, change.value)
      return
    }
    if (change.kind === 'root') {
      this.#removed.delete(change.volume)
      this.#unsaved.add(change.volume)
      this.#reset(change.volume, change.root, change.domain, change.inoNext)
      return
    }
    if (change.kind === 'unvolume') {
      this.#remove(change.volume)
      return
    }
    const volume = this.#at(change.volume)
    const { allocated, active } = volume
    const { weight } = active
    // A change that fails half-way has changed something all the same.
    this.#unsaved.add(change.volume)
    try {
      applyChange(change, span, (number) => this.#at(number))
    } finally {
      this.weight += active.weight - weight
      this.#allocated += volume.allocated - allocated
    }
    if (this.live !== undefined && (change.kind === 'copy' || change.kind === 'refer')) this.#markCopied(change, this.live)
  }

  #remove(number: number): void {
    const gone = this.#volumes.get(number)
    this.released += gone?.super.bytes ?? 0
    this.weight -= gone?.active.weight ?? 0
    this.#volumes.delete(number)
    this.#unsaved.delete(number)
    this.#removed.add(number)
  }

  #at(number: number): Volume {
    const volume = this.#volumes.get(number)
    assert(volume !== undefined, `a change names volume ${number}, which is not there`)
    return volume
  }

  /** Where pieces were copied from they may be overwritten before the mark comes there. */
  #markCopied(change: Extract<Change, { kind: 'copy' | 'refer' }>, live: Live): void {
    const volume = this.#at(change.volume)
    for (const [, piece] of volume.pieces(change.ino, change.offset, change.length)) {
      if (piece.kind === 'chunk') live.add(piece.address, volume.domain)
    }
  }

  #reset(number: number, root: Address | null, domain: number, inoNext: number): void {
    let volume = this.#volumes.get(number)
    this.weight -= volume?.active.weight ?? 0
    if (volume === undefined || volume.domain !== domain) {
      volume = new Volume(number, domain, this.#tree, null)
      this.#volumes.set(number, volume)
    }
    volume.reset(root, inoNext, (error) =>
      this.#logger.error({ volume: number }, `a workspace cannot be read, the others can: ${error.message}`),
    )
  }
}

/** Of one whose layers are empty. */
export function stateOf({ root, domain, super: counters }: Volume): MergedState {
  return { root, domain, super: { ...counters } }
}

/** A copy: a volume's root moves on. */
function rootOf({ root, domain }: Root): Root {
  return { root, domain }
}
