/** What a check finds, who holds the state that has it, and what would mend it. */
import type { Finding } from '../api/store.ts'
import type { Attr } from '../volume/attr.ts'
import type { Dirent } from '../volume/dirent.ts'
import type { Volume } from '../volume/volume.ts'
import { namesIfKnown, shownName } from '../workspaces/paths.ts'

export type FindingKind =
  /** a node of a tree that cannot be read */
  | 'node'
  /** a node that is not as the content makes it */
  | 'tree'
  /** an entry of a tree that cannot be understood */
  | 'value'
  | 'attributes'
  | 'links'
  | 'entry'
  | 'unreachable'
  | 'orphan'
  /** the recorded parent and name */
  | 'place'
  /** pieces of a window */
  | 'pieces'
  | 'size'
  /** bytes that are lost */
  | 'content'
  | 'counters'
  | 'workspace'
  | 'snapshot'
  | 'grant'
  | 'index'

/** How one finding of a live volume is mended; `src/check/repair.ts` does it. */
export type Fix =
  | { kind: 'attr'; ino: number; patch: Partial<Attr> }
  /** attributes for an inode that has lost them */
  | { kind: 'make'; ino: number; attr: Pick<Attr, 'mode' | 'nlink' | 'size' | 'allocated' | 'xattrs' | 'parent' | 'name'> }
  | { kind: 'drop'; ino: number }
  | { kind: 'unentry'; directory: number; slot: number; index: number }
  | { kind: 'entry'; directory: number; slot: number; entry: Dirent }
  /** it is in the set of those without a name, and should not be */
  | { kind: 'unorphan'; ino: number }
  /** gets a name in lost+found */
  | { kind: 'adopt'; ino: number }
  | { kind: 'recount' }

/** Found in one tree, whoever holds that. */
export interface Found {
  kind: FindingKind
  severity: Finding['severity']
  ino?: number
  /** the name that it is about, where that is not the inode's own */
  at?: { directory: number; name: string }
  text: string
  fix?: Fix[]
}

export type Report = (found: Found) => void

/** A workspace whose state of now, or of some snapshots, is the tree in question. */
export interface StateHolder {
  volume: number
  path: string
  live: boolean
  snapshots: string[]
}

export const FINDINGS_MAX = 1000

/** All findings of a check: the first ones whole, of the rest only how many. */
export class Findings {
  readonly listed: Finding[] = []
  /** by volume, of what is live */
  readonly fixes = new Map<number, Fix[]>()
  /** keys of grants in the catalog that name what is not there */
  readonly strayGrants: string[] = []
  total = 0
  readonly #collectsFixes: boolean

  constructor(collectsFixes: boolean) {
    this.#collectsFixes = collectsFixes
  }

  /** @param view the tree as a volume, to find names in */
  add(holders: readonly StateHolder[], view: Volume, found: Found): void {
    for (const holder of holders) {
      if (this.#collectsFixes && holder.live && found.fix !== undefined) this.#addFixes(holder.volume, found.fix)
      if (this.#count()) this.listed.push(findingOf(holder, view, found))
    }
  }

  /** About a workspace or the store as a whole. */
  note(kind: FindingKind, workspace: string, text: string, more: Partial<Finding> = {}): void {
    if (!this.#count()) return
    this.listed.push({ kind, severity: 'error', workspace, ino: null, path: null, live: true, snapshots: [], text, ...more })
  }

  fix(volume: number, ...fixes: Fix[]): void {
    if (this.#collectsFixes) this.#addFixes(volume, fixes)
  }

  #addFixes(volume: number, fixes: readonly Fix[]): void {
    const all = this.fixes.get(volume)
    if (all === undefined) this.fixes.set(volume, [...fixes])
    else all.push(...fixes)
  }

  #count(): boolean {
    this.total++
    return this.listed.length < FINDINGS_MAX
  }
}

function findingOf(holder: StateHolder, view: Volume, { kind, severity, ino, at, text }: Found): Finding {
  const names = at === undefined ? namesInPath(view, ino) : namesInPath(view, at.directory)?.concat(at.name)
  return {
    kind,
    severity,
    workspace: holder.path,
    ino: ino ?? null,
    path: names === undefined ? null : pathIn(holder.path, names),
    live: holder.live,
    snapshots: holder.snapshots,
    text,
  }
}

/** Undefined for what has no place, or one that cannot be read. */
export function namesInPath(view: Volume, ino: number | undefined): string[] | undefined {
  if (ino === undefined) return undefined
  return namesIfKnown(view, ino)
}

export function pathIn(workspace: string, names: readonly string[]): string {
  const inside = names.map(shownName).join('/')
  if (inside === '') return workspace
  return workspace === '/' ? `/${inside}` : `${workspace}/${inside}`
}
