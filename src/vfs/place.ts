/** Where an inode is: its volume and its number there, also as the one number that the kernel knows it by. */
import type { Attr } from '../volume/attr.ts'
import type { Volume } from '../volume/volume.ts'

/** An inode that exists, and where. */
export interface Place {
  volume: Volume
  ino: number
  attr: Attr
}

const TWO_32 = 0x1_0000_0000

/** A node id is the volume's number and the inode's: durable, and below 2^53 for volumes below 2^21. */
export function nodeOf(volume: number, ino: number): number {
  return volume * TWO_32 + ino
}

export function volumeOf(node: number): number {
  return Math.floor(node / TWO_32)
}

export function inoOfNode(node: number): number {
  return node % TWO_32
}

/** Volumes are numbered below this. */
export const VOLUMES_MAX = 2 ** 21
