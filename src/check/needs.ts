/** What a tree needs: its nodes, and the chunks that its windows refer to. */
import { ByteReader } from '../bytes.ts'
import type { Address } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import type { Tree } from '../tree/tree.ts'
import { Kind, kindOf } from '../volume/keys.ts'
import { decodeWindow, type Window } from '../volume/piece.ts'

export interface Needs {
  node(address: Address): void
  /** up to `end` of the chunk */
  chunk(address: Address, end: number): void
  /** a node that cannot be read */
  lost(address: Address): void
}

/** Yields between slices of work. */
export function* needsOf(tree: Tree, root: Address | null, needs: Needs): Generator<void, void> {
  const entry = (key: Buffer, value: Buffer): void => {
    if (key.length < 5 || kindOf(key) !== Kind.window) return
    for (const piece of readableWindow(value)) if (piece.kind === 'chunk') needs.chunk(piece.address, piece.offset + piece.length)
  }
  const damaged = (_: Error, address: Address, isLost: boolean): void => {
    if (isLost) needs.lost(address)
  }
  yield* tree.verifySlices(root, { entry, damaged, node: (address) => needs.node(address) })
}

/** What cannot be understood is the check's to say. */
export function readableWindow(value: Buffer): Window {
  try {
    return decodeWindow(new ByteReader(value))
  } catch (error) {
    if (error instanceof NexusError) return []
    throw error
  }
}
