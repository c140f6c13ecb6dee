/** What a change does to a volume: the same when it is made and when recovery makes it again. */
import { NexusError } from '../errors.ts'
import type { Span } from '../journal/log.ts'
import type { Change } from './change.ts'
import { type Source, WINDOW_BYTES } from './piece.ts'
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
      volume.place(change.ino, change.offset, change.length, { kind: 'raw', segment, base, offset: base + change.from })
      break
    }
    case 'refer':
      volume.place(change.ino, change.offset, change.length, change.source)
      break
    case 'clear':
      if (change.allocate) volume.place(change.ino, change.offset, change.length, ZERO)
      else volume.clear(change.ino, change.offset, change.length)
      break
    case 'copy':
      copy(volume, volumeAt(change.fromVolume), change)
      break
  }
}

function copy(volume: Volume, from: Volume, change: Extract<Change, { kind: 'copy' }>): void {
  const { ino, offset, length, fromIno, fromOffset } = change
  const shift = (offset - fromOffset) / WINDOW_BYTES
  const end = fromOffset + length
  const first = Math.ceil(fromOffset / WINDOW_BYTES)
  const isWhole = Number.isInteger(shift) && (first + 1) * WINDOW_BYTES <= end
  // Read before anything is changed: the ranges may lie in one file. Windows that stay windows are taken as they are.
  const last = isWhole ? Math.floor(end / WINDOW_BYTES) : first
  const windows = isWhole ? [...from.windowsIn(fromIno, first, last)] : []
  const [headEnd, tailAt] = isWhole ? [first * WINDOW_BYTES, last * WINDOW_BYTES] : [end, end]
  const pieces = [...from.pieces(fromIno, fromOffset, headEnd - fromOffset), ...from.pieces(fromIno, tailAt, end - tailAt)]
  volume.clear(ino, offset, length)
  volume.setWindows(ino, windows, shift)
  for (const [at, piece] of pieces) {
    volume.place(ino, offset + (at - fromOffset), piece.length, piece)
  }
}
