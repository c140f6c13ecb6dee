/** How a list of changes looks to people, for `snapshot diff` and `restore`. */
import type { ChangeInfo } from '../api/snapshots.ts'
import { align, count } from './format.ts'

/** One line for each change: what happened, the path (directories end in `/`), what differs. */
export function describeChanges(changes: readonly ChangeInfo[]): string {
  return align(changes.map((change) => [change.change, placesOf(change), change.what.join(', ')]))
}

function placesOf({ path, from, kind }: ChangeInfo): string {
  return from === undefined ? pathOf(path, kind) : `${pathOf(from, kind)} → ${pathOf(path, kind)}`
}

/** The comparison's root itself has the empty path. */
function pathOf(path: string, kind: ChangeInfo['kind']): string {
  return `${path === '' ? '.' : path}${kind === 'directory' ? '/' : ''}`
}

/** `3 changes`, or `1000 changes and more` when the list was cut at its limit. */
export function countChanges({ changes, truncated }: { changes: readonly ChangeInfo[]; truncated: boolean }): string {
  return `${count(changes.length, 'change')}${truncated ? ' and more (raise --limit to see them)' : ''}`
}
