/** lseek(2) with SEEK_DATA and SEEK_HOLE: where a file has data, and where holes. */
import { FS } from '../errors.ts'
import type { Volume } from '../volume/volume.ts'
import type { Core } from './core.ts'
import { regular } from './data.ts'
import { pageAfter, pageOf } from './pages.ts'

const SEEK_DATA = 3
const SEEK_HOLE = 4

/** [from, to) */
export type Hole = readonly [from: number, to: number]

/**
 * The holes of a file, from an offset on. A page that holds a byte of data is data, whole: what a mapping
 * stores into the rest of it is not known before the kernel writes it back. What is reserved and was never written is a
 * hole, for it reads as one.
 */
export function* holesOf(volume: Volume, ino: number, size: number, offset: number): Generator<Hole> {
  const first = pageOf(offset)
  let at = offset
  for (const [start, piece] of volume.pieces(ino, first, size - first)) {
    if (piece.kind === 'zero') continue
    const to = pageOf(start)
    if (to > at) yield [at, to]
    at = Math.max(at, pageAfter(start + piece.length))
  }
  if (at < size) yield [at, size]
}

/** By what is stored, once that is all there is. */
export function lseek(core: Core, node: number, offset: number, whence: number): number | Promise<number> {
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw FS.EINVAL
  const hole = firstHole(core, node, offset)
  const isInData = hole === undefined || hole[0] > offset
  const settled = hole === undefined || (whence === SEEK_DATA && isInData) ? undefined : core.mapped.settled(node, hole)
  if (settled === undefined) return answer(core, node, offset, whence, hole)
  return settled.then(() => answer(core, node, offset, whence, firstHole(core, node, offset)))
}

/** @returns undefined when there is none from `offset` on */
function firstHole(core: Core, node: number, offset: number): Hole | undefined {
  const { volume, ino, attr } = regular(core.place(node))
  if (offset < 0 || offset >= attr.size) throw FS.ENXIO
  for (const hole of holesOf(volume, ino, attr.size, offset)) return hole
  return undefined
}

function answer(core: Core, node: number, offset: number, whence: number, stored: Hole | undefined): number {
  const { size } = core.place(node).attr
  // What cannot be known counts as data.
  const hole = core.mapped.isUnknown(node) ? undefined : stored
  if (whence === SEEK_HOLE) return hole?.[0] ?? size
  if (hole === undefined || hole[0] > offset) return offset
  if (hole[1] >= size) throw FS.ENXIO
  return hole[1]
}
