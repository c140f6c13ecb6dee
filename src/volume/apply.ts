/** What a change does to a volume: the same when it is made and when recovery makes it again. */
import { NexusError } from '../errors.ts'
import type { Span } from '../journal/log.ts'
import type { Change } from './change.ts'
import { type Source, sourceAt } from './piece.ts'
import type { Volume } from './volume.ts'

/** Changes of one volume's content; the others are about volumes and the catalog. */
export type ContentChange = Exclude<Change, { kind: 'catalog' | 'root' | 'unvolume' }>

const ZERO: Source = { kind: 'zero' }

/**
 * @param span where the data of the record lies that carries the change
 * @param volumeAt the volume of a number; throws when there is none
 */
export function applyChange(change: ContentChange, span: Span, volumeAt: (number: number) => Volume): void {
  const volume = volumeAt(change.volume)
  switch (change.kind) {
    case 'attr':
      volume.setAttr(change.ino, change.attr)
      break
    case 'drop':
      volume.drop(change.ino)
      break
    case 'orphan':
      volume.setOrphan(change.ino, change.present)
      break
    case 'entry':
      volume.setEntry(change.ino, change.slot, change.entry)
      break
    case 'unentry':
      volume.removeEntry(change.ino, change.slot, change.index)
      break
    case 'xattr':
      volume.setXattr(change.ino, change.name, change.value)
      break
    case 'link':
      volume.setLink(change.ino, change.target)
      break
    case 'write': {
      const { segment, offset: base } = span
      if (change.from + change.length > span.length) {
        throw new NexusError('NEXUS_CORRUPT', 'a record in the log holds less than it says was written')
      }
      const first = base + change.from
      volume.place(change.ino, change.offset, change.length, (skip) => ({ kind: 'raw', segment, base, offset: first + skip }))
      break
    }
    case 'refer':
      volume.place(change.ino, change.offset, change.length, (skip) => sourceAt(change.source, skip))
      break
    case 'clear':
      if (change.allocate) volume.place(change.ino, change.offset, change.length, () => ZERO)
      else volume.clear(change.ino, change.offset, change.length)
      break
    case 'copy':
      copy(volume, volumeAt(change.fromVolume), change)
      break
  }
}

function copy(volume: Volume, from: Volume, change: Extract<Change, { kind: 'copy' }>): void {
  // Read before anything is changed: the ranges may lie in one file.
  const pieces = [...from.pieces(change.fromIno, change.fromOffset, change.length)]
  volume.clear(change.ino, change.offset, change.length)
  for (const [at, piece] of pieces) {
    const to = change.offset + (at - change.fromOffset)
    volume.place(change.ino, to, piece.length, (skip) => sourceAt(piece, skip))
  }
}
