/** A store with a bit of everything, and ways to make it wrong. */
import type { Test } from 'tap'
import type { Finding } from '../../src/api/store.ts'
import { ByteReader } from '../../src/bytes.ts'
import type { Address } from '../../src/cas/address.ts'
import type { Engine, EngineOptions } from '../../src/engine/engine.ts'
import type { Edit } from '../../src/tree/tree.ts'
import { inoOfNode } from '../../src/vfs/place.ts'
import { type Attr, encodeAttr, readAttr } from '../../src/volume/attr.ts'
import { type Dirent, encodeBucket, slotOf } from '../../src/volume/dirent.ts'
import { Kind, numberKey, plainKey, ROOT_INO } from '../../src/volume/keys.ts'
import type { Volume } from '../../src/volume/volume.ts'
import { noise } from '../cas/support.ts'
import { caller, engineFor, type TestEngine } from '../snapshots/support.ts'

/** Several chunks long. */
export const bigContent = noise(300_000, 3)

/** The inodes of /workspace/a by their names. */
export class Sample {
  test: TestEngine

  constructor(test: TestEngine) {
    this.test = test
  }

  get engine(): Engine {
    return this.test.engine
  }

  /** @param name '.' is the root */
  ino(name: string): number {
    if (name === '.') return ROOT_INO
    return inoOfNode(this.test.stat(`/workspace/a/${name}`).node)
  }

  get volume(): Volume {
    const { node } = this.test.stat('/workspace/a')
    return this.engine.volumes.get((node - inoOfNode(node)) / 2 ** 32) as Volume
  }

  attr(name: string): Attr {
    return this.volume.attr(this.ino(name)) as Attr
  }

  /** Puts other entries into the stored tree. */
  async wrong(...edits: Edit[]): Promise<void> {
    const { volumes } = this.engine
    await volumes.checkpoint()
    const { volume } = this
    const sorted = edits.sort((a, b) => Buffer.compare(a.key, b.key))
    this.setRoot(volumes.tree.editNow(volume.root, sorted))
    await volumes.checkpoint()
  }

  setRoot(root: Address | null): void {
    const { number, domain } = this.volume
    this.engine.volumes.commit([{ kind: 'root', volume: number, root, domain, inoNext: this.volume.super.inoNext }])
  }

  attrEdit(name: string, patch: Partial<Attr>): Edit {
    return { key: plainKey(this.ino(name), Kind.attr), value: encodeAttr({ ...this.attr(name), ...patch }) }
  }

  entryEdit(directory: string, name: string, entry: Partial<Dirent> | null): Edit {
    const slot = slotOf(name)
    const ino = this.ino(directory)
    const known = this.volume.bucket(ino, slot)?.[0] ?? { index: 0, name, type: 0o100000, ino: 99, volume: 0 }
    return { key: numberKey(ino, Kind.dirent, slot), value: entry === null ? null : encodeBucket([{ ...known, ...entry }]) }
  }

  async findings(): Promise<Finding[]> {
    return (await this.engine.check()).findings
  }
}

/** Fills /workspace/a. */
export function fill(test: TestEngine): void {
  const { fs } = test.engine
  for (const name of ['d', 'd/e', 'd/e/deep']) test.mkdir(`/workspace/a/${name}`)
  test.write('/workspace/a/f', 'something')
  test.write('/workspace/a/d/big', bigContent)
  test.write('/workspace/a/d/e/deep/x', 'deep down')
  test.write('/workspace/a/sparse', 'far away', 5_000_000)
  fs.link(caller, test.stat('/workspace/a/f').node, test.stat('/workspace/a/d').node, 'g')
  fs.symlink(caller, test.stat('/workspace/a').node, 's', Buffer.from('d/e'))
  fs.setxattr(caller, test.stat('/workspace/a/f').node, 'user.a', Buffer.from('1'), 0, false)
  fs.fallocate(caller, test.write('/workspace/a/reserved', 'x'), 1, 100, 4000)
  // Open without a name.
  fs.tmpfile(caller, test.stat('/workspace/a').node, 0o600, 0)
  test.mkdir('/workspace/b')
}

export async function sampleFor(t: Test, limits: EngineOptions['limits'] = {}): Promise<Sample> {
  const test = await engineFor(t, limits)
  fill(test)
  return new Sample(test)
}

export function readAttrOf(value: Buffer): Attr {
  return readAttr(new ByteReader(value))
}
