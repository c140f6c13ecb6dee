/**
 * The catalog: what is known about workspaces, snapshots and grants, as small documents by key. It
 * is held in memory whole, changed only through the log, and handed to the index at checkpoints.
 * A key is `kind/rest`; entries are kept by kind, so that one kind is listed without the others.
 */
export class Catalog {
  readonly #kinds = new Map<string, Map<string, string>>()
  readonly #revisions = new Map<string, number>()
  readonly #watchers = new Map<string, (key: string, value: string | null) => void>()
  #dirty = new Set<string>()

  get(key: string): string | undefined {
    return this.#kinds.get(kindOf(key))?.get(key)
  }

  /** Every entry of a kind (`w/`), in no order. */
  list(kind: string): Iterable<[key: string, value: string]> {
    return this.#kinds.get(kind) ?? []
  }

  /** Every entry there is, in no order. */
  *all(): Generator<[key: string, value: string]> {
    for (const entries of this.#kinds.values()) yield* entries
  }

  /** Grows with every change of an entry of a kind. */
  revisionOf(kind: string): number {
    return this.#revisions.get(kind) ?? 0
  }

  /** Tells of each change of an entry of a kind from now on, when it is made; null: removed. One for each kind. */
  watch(kind: string, changed: (key: string, value: string | null) => void): void {
    this.#watchers.set(kind, changed)
  }

  /** An entry as the index had it. */
  load(key: string, value: string): void {
    const kind = kindOf(key)
    const entries = this.#kinds.get(kind)
    if (entries === undefined) this.#kinds.set(kind, new Map([[key, value]]))
    else entries.set(key, value)
  }

  apply(key: string, value: string | null): void {
    const kind = kindOf(key)
    this.#revisions.set(kind, this.revisionOf(kind) + 1)
    if (value === null) this.#kinds.get(kind)?.delete(key)
    else this.load(key, value)
    this.#dirty.add(key)
    this.#watchers.get(kind)?.(key, value)
  }

  /** What changed since the last call, with the values of now; null: removed. */
  takeDirty(): Map<string, string | null> {
    const taken = new Map<string, string | null>()
    for (const key of this.#dirty) taken.set(key, this.get(key) ?? null)
    this.#dirty = new Set()
    return taken
  }

  /** What was taken could not be stored: it counts as changed again. */
  giveBack(taken: ReadonlyMap<string, string | null>): void {
    for (const key of taken.keys()) this.#dirty.add(key)
  }
}

function kindOf(key: string): string {
  return key.slice(0, key.indexOf('/') + 1)
}
