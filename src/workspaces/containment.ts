/** What contains what, for the relations that are inherited down the tree: read from volumes, stored nowhere. */
import type { AccessTree } from '../acl/access.ts'
import { inoOfNode, volumeOf } from '../vfs/place.ts'
import { type Attr, isDirectory } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volumes } from '../volume/volumes.ts'
import type { WorkspaceRegistry } from './registry.ts'

export class VolumesTree implements AccessTree {
  readonly #volumes: Volumes
  readonly #registry: WorkspaceRegistry

  constructor(volumes: Volumes, registry: WorkspaceRegistry) {
    this.#volumes = volumes
    this.#registry = registry
  }

  typeOf(volume: number, ino: number): string | undefined {
    const attr = this.#attr(volume, ino)
    if (attr === undefined) return undefined
    if (ino === ROOT_INO) return this.#registry.isTenant(this.liveOf(volume)) ? 'tenant' : 'workspace'
    return isDirectory(attr) ? 'dir' : 'file'
  }

  /** Undefined at the gate of a workspace that lies in none: relations end there. */
  parentOf(volume: number, ino: number): { volume: number; ino: number } | undefined {
    if (ino !== ROOT_INO) {
      const attr = this.#attr(volume, ino)
      if (attr === undefined) return undefined
      // What is still open may have lost its directory: then the workspace decides.
      return { volume, ino: this.#attr(volume, attr.parent) === undefined ? ROOT_INO : attr.parent }
    }
    const node = this.#registry.parentOf(volume)
    if (node === undefined || volumeOf(node) === 0) return undefined
    return { volume: volumeOf(node), ino: inoOfNode(node) }
  }

  liveOf(volume: number): number {
    return this.#registry.liveOf(volume)
  }

  /** At the root of all nothing is guarded, so nothing is nested in it. */
  nestedIn(volume: number): Iterable<{ number: number; parent_ino: number }> {
    return volume === 0 ? [] : this.#registry.directlyIn(volume)
  }

  isNamed(volume: number, ino: number): boolean {
    return (this.#attr(volume, ino)?.nlink ?? 0) > 0
  }

  isPresent(volume: number): boolean {
    return this.#registry.isPresent(volume)
  }

  #attr(volume: number, ino: number): Attr | undefined {
    return (this.#volumes.get(volume) ?? this.#registry.view(volume))?.attr(ino)
  }
}
