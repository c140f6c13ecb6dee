/** The catalog's workspaces, parsed once, and found by number and by the workspace around them. It follows the catalog. */
import type { Catalog } from '../volume/catalog.ts'
import { parseWorkspace, WORKSPACE_PREFIX, type WorkspaceRecord } from './records.ts'
import { Tally } from './subjectlimits.ts'

export class WorkspaceIndex {
  readonly #all = new Map<string, WorkspaceRecord>()
  /** keys, by the number of the workspace around; the root of all lies in none */
  readonly #inside = new Map<number, Set<string>>()
  readonly #charged = new Tally()

  /** @throws NexusError NEXUS_CORRUPT for a record that this program did not write */
  constructor(catalog: Catalog) {
    for (const [key, text] of catalog.list(WORKSPACE_PREFIX)) this.#put(key, text)
    catalog.watch(WORKSPACE_PREFIX, (key, text) => {
      this.#delete(key)
      if (text !== null) this.#put(key, text)
    })
  }

  get size(): number {
    return this.#all.size
  }

  all(): Iterable<WorkspaceRecord> {
    return this.#all.values()
  }

  /** How many count for a subject. */
  chargedTo(subject: string): number {
    return this.#charged.of(subject)
  }

  get(key: string): WorkspaceRecord | undefined {
    return this.#all.get(key)
  }

  /** The workspaces that lie in one, and in no other between. */
  *directlyIn(number: number): Generator<WorkspaceRecord> {
    for (const key of this.#inside.get(number) ?? []) yield this.#all.get(key) as WorkspaceRecord
  }

  #put(key: string, text: string): void {
    const record = parseWorkspace(key, text)
    this.#all.set(key, record)
    this.#charged.add(record.charged, 1)
    if (record.number === 0) return
    const inside = this.#inside.get(record.parent_volume)
    if (inside === undefined) this.#inside.set(record.parent_volume, new Set([key]))
    else inside.add(key)
  }

  #delete(key: string): void {
    const record = this.#all.get(key)
    if (record === undefined) return
    this.#all.delete(key)
    this.#charged.add(record.charged, -1)
    const inside = this.#inside.get(record.parent_volume)
    inside?.delete(key)
    if (inside?.size === 0) this.#inside.delete(record.parent_volume)
  }
}
