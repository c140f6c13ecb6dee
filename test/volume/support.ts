/** A volume on a log in memory, with what is needed to merge it. */
import { Sealer } from '../../src/cas/sealer.ts'
import { ContentStore } from '../../src/cas/store.ts'
import type { Log } from '../../src/journal/log.ts'
import { type Shape, standardShape } from '../../src/tree/chunker.ts'
import { Tree } from '../../src/tree/tree.ts'
import type { Attr } from '../../src/volume/attr.ts'
import { mergeFrozen } from '../../src/volume/merge.ts'
import { Volume } from '../../src/volume/volume.ts'
import { MemoryIndex } from '../cas/support.ts'
import { MemoryDisk, newLog, STORE } from '../journal/support.ts'

export class TestVolume {
  readonly disk = new MemoryDisk()
  readonly log: Log
  readonly store: ContentStore
  readonly tree: Tree
  readonly volume: Volume
  readonly damage: unknown[] = []
  readonly #sealer: Sealer

  constructor(shape: Shape = standardShape) {
    this.log = newLog(this.disk, { segmentBytesMax: 1 << 16 })
    this.store = new ContentStore(this.log, new MemoryIndex(), { store: STORE, chunkCacheBytesMax: 1 << 20 })
    this.tree = new Tree(this.store, { cacheBytesMax: 1 << 16, shape })
    this.volume = new Volume(1, 0, this.tree, null)
    this.#sealer = new Sealer({ directory: '', store: STORE, workers: 0 }, (segment, offset, length, into, at) =>
      this.log.read(segment, offset, length, into, at),
    )
  }

  write(ino: number, offset: number, content: Buffer): void {
    const { segment, offset: base } = this.log.append(1, content, Buffer.from('meta'))
    this.volume.place(ino, offset, content.length, { kind: 'raw', segment, base, offset: base })
  }

  /** The root of what is frozen; the volume stays as it is. */
  merge(): ReturnType<typeof mergeFrozen> {
    const layer = this.volume.frozen
    if (layer === null) throw new Error('nothing is frozen')
    return mergeFrozen(this.volume, layer, {
      store: this.store,
      sealer: this.#sealer,
      pause: () => undefined,
      onDamage: (volume, ino, damage) => this.damage.push({ volume, ino, ...damage }),
    })
  }

  /** Freezes and merges all that changed. */
  async checkpoint(): Promise<string | null> {
    if (!this.volume.active.empty) {
      this.volume.freeze()
      this.volume.thaw(await this.merge())
    }
    return this.volume.root === null ? null : Buffer.from(this.volume.root, 'latin1').toString('hex')
  }

  /** The bytes of a range: those of a piece, 'zero' or 'damaged' by kind, '.' for a hole. */
  read(ino: number, offset: number, length: number): string {
    const bytes = Buffer.alloc(length, '.')
    let end = offset
    for (const [at, piece] of this.volume.pieces(ino, offset, length)) {
      if (at < end || at + piece.length > offset + length) throw new Error('pieces overlap or reach beyond what was asked for')
      end = at + piece.length
      const to = at - offset
      if (piece.kind === 'raw') this.log.read(piece.segment, piece.offset, piece.length, bytes, to)
      else if (piece.kind === 'chunk') this.store.readChunks(0, [{ ...piece, at: to }], bytes)
      else bytes.fill(piece.kind === 'zero' ? '0' : '!', to, to + piece.length)
    }
    return bytes.toString('latin1')
  }
}

export function attrOf(mode: number, size: number, more: Partial<Attr> = {}): Attr {
  const time = { s: 1, ns: 2 }
  const times = { atime: time, mtime: time, ctime: time, btime: time }
  return { mode, nlink: 1, uid: 0, gid: 0, rdev: 0, size, allocated: 0, xattrs: 0, parent: 1, name: 'n', ...times, ...more }
}

/** fast-check needs an exception where tap would only note a failure. The order of keys does not count. */
export function same(found: unknown, wanted: unknown, what = 'it'): void {
  const [a, b] = [canonical(found), canonical(wanted)]
  if (a !== b) throw new Error(`${what}: found ${a?.slice(0, 700)}, wanted ${b?.slice(0, 700)}`)
}

function canonical(value: unknown): string | undefined {
  return JSON.stringify(value, (_, each: unknown) => {
    if (typeof each !== 'object' || each === null || Array.isArray(each)) return each
    return Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}
