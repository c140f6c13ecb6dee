/** What a commit is for: on a full disk, what ends something is let through. */
import type { Purpose } from '../journal/space.ts'
import type { Change } from './change.ts'

type Share = 'adds' | 'names' | 'ends' | 'revives' | 'notes' | 'refers' | 'none'

/** A commit that ends something and adds nothing is a removal; one that does neither, or moves a name, changes attributes. */
export function purposeOf(changes: readonly Change[]): Purpose {
  const has = new Set(changes.map(shareOf))
  if (has.has('adds')) return 'data'
  // An inode without a name that a restore had removed: whoever has it open must be able to read it.
  if (has.has('revives') && !has.has('ends')) return has.has('names') ? 'data' : 'attributes'
  if (has.has('refers')) return 'data'
  if (has.has('names')) return has.has('ends') ? 'attributes' : 'data'
  if (has.has('ends')) return 'removal'
  return has.has('notes') ? 'data' : 'attributes'
}

function shareOf(change: Change): Share {
  switch (change.kind) {
    case 'write':
    case 'copy':
    case 'root':
      return 'adds'
    case 'entry':
      return 'names'
    case 'link':
    case 'refer':
      return 'refers'
    case 'unentry':
    case 'drop':
    case 'unvolume':
      return 'ends'
    case 'clear':
      return change.allocate ? 'adds' : 'ends'
    case 'xattr':
      return change.value === null ? 'ends' : 'refers'
    case 'orphan':
      return change.present ? 'revives' : 'none'
    case 'catalog':
      // With a snapshot that goes, those that descend from it get another parent: the same document again.
      return change.value === null ? 'ends' : 'notes'
    case 'attr':
      return 'none'
  }
}
