/** Which files of a state refer to some chunks. */
import type { Address } from '../cas/address.ts'
import type { Pace } from '../pace.ts'
import type { Tree } from '../tree/tree.ts'
import { inoOf, Kind, kindOf } from '../volume/keys.ts'
import type { Piece } from '../volume/piece.ts'
import { readableWindow } from './needs.ts'

export type ChunkPiece = Extract<Piece, { kind: 'chunk' }>

/** Tells of every piece in a tree that refers to a chunk; what cannot be read is passed over. */
export async function eachChunkPiece(
  tree: Tree,
  root: Address | null,
  pace: Pace,
  visit: (ino: number, piece: ChunkPiece) => void,
): Promise<void> {
  const entry = (key: Buffer, value: Buffer): void => {
    if (key.length < 5 || kindOf(key) !== Kind.window) return
    for (const piece of readableWindow(value)) if (piece.kind === 'chunk') visit(inoOf(key), piece)
  }
  await pace.run(tree.verifySlices(root, { entry, damaged: () => undefined }))
}
