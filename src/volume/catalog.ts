/**
 * The catalog: what is known about workspaces and snapshots, as small JSON documents by key. It is
 * held in memory whole, changed only through the log, and handed to the index at checkpoints.
 */
export class Catalog {
  readonly #entries = new Map<string, string>()
  #dirty = new Set<string>()

  get(key: string): string | undefined {
    return this.#entries.get(key)
  }

  /** Every entry whose key starts with `prefix`, in no order. */
  *list(prefix: string): Generator<[key: string, value: string]> {
    for (const entry of this.#entries) if (entry[0].startsWith(prefix)) yield entry
  }

  /** An entry as the index had it. */
  load(key: string, value: string): void {
    this.#entries.set(key, value)
  }

  apply(key: string, value: string | null): void {
    if (value === null) this.#entries.delete(key)
    else this.#entries.set(key, value)
    this.#dirty.add(key)
  }

  /** What changed since the last call, with the values of now; null: removed. */
  takeDirty(): Map<string, string | null> {
    const taken = new Map<string, string | null>()
    for (const key of this.#dirty) taken.set(key, this.#entries.get(key) ?? null)
    this.#dirty = new Set()
    return taken
  }

  /** What was taken could not be stored: it counts as changed again. */
  giveBack(taken: ReadonlyMap<string, string | null>): void {
    for (const key of taken.keys()) this.#dirty.add(key)
  }
}
