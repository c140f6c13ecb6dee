/** From paths in the filesystem (`/workspace/acme`, UTF-8) to places in it, and back. */
import { NexusError } from '../errors.ts'
import type { Core } from '../vfs/core.ts'
import { nodeOf, type Place } from '../vfs/place.ts'
import { ancestors } from '../volume/ancestors.ts'
import { isDirectory } from '../volume/attr.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { WorkspaceRegistry } from './registry.ts'

/** Names are bytes inside; a path from a command is UTF-8. */
export function namesOf(path: string): string[] {
  return path
    .split('/')
    .filter((name) => name !== '')
    .map((name) => Buffer.from(name).toString('latin1'))
}

/**
 * A name as people see it: UTF-8 where it is, else \xNN for its odd bytes. A backslash that would look like one of these is
 * shown as \x5c: so the name can be told from what is shown.
 */
export function shownName(name: string): string {
  const plain = name.replace(/\\(?=x[0-9a-f]{2})/g, '\\x5c')
  const bytes = Buffer.from(plain, 'latin1')
  const text = bytes.toString('utf8')
  if (Buffer.from(text).equals(bytes)) return text
  return [...bytes]
    .map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`))
    .join('')
}

/**
 * The directory at a path.
 * @throws NexusError NEXUS_NOT_FOUND when there is none
 */
export function directoryAt(core: Core, path: string): Place {
  const place = placeAt(core, path)
  if (!isDirectory(place.attr)) throw new NexusError('NEXUS_NOT_FOUND', `${path} is not a directory`)
  return place
}

/**
 * Whatever is at a path; a symlink is itself.
 * @throws NexusError NEXUS_NOT_FOUND when there is nothing
 */
export function placeAt(core: Core, path: string): Place {
  let place = core.place(nodeOf(0, ROOT_INO))
  for (const name of namesOf(path)) {
    const entry = isDirectory(place.attr) ? place.volume.entry(place.ino, name) : undefined
    if (entry === undefined) throw new NexusError('NEXUS_NOT_FOUND', `there is no ${path}: see "nexusctl workspace list"`)
    place = core.target(place.volume, entry)
  }
  return place
}

/** The directory that would hold a path's last name, and that name. */
export function parentAt(core: Core, path: string): { parent: Place; name: string } {
  const names = namesOf(path)
  const name = names.pop()
  if (name === undefined) throw new NexusError('NEXUS_USAGE', '/ is the root of everything: give a path below it')
  const parentPath = `/${path.split('/').filter(Boolean).slice(0, -1).join('/')}`
  return { parent: directoryAt(core, parentPath), name }
}

/**
 * Where a directory of a volume is, from the volume's root: [] for the root itself; undefined when it has no place.
 * @throws NexusError NEXUS_CORRUPT when it lies in itself
 */
export function namesInVolume(volume: Volume, ino: number): string[] | undefined {
  const names: string[] = []
  let top = ino
  for (const at of ancestors(volume, ino)) {
    top = at
    if (at !== ROOT_INO) names.push(volume.attr(at)?.name ?? '')
  }
  return top === ROOT_INO ? names.reverse() : undefined
}

/** The path of a live directory, as people see it; as much of it as is known where the tree is damaged. */
export function pathOf(core: Core, registry: WorkspaceRegistry, volume: number, ino: number): string {
  return `/${partsOf(core, registry, volume, ino).map(shownName).join('/')}`
}

function partsOf(core: Core, registry: WorkspaceRegistry, volume: number, ino: number): string[] {
  const parts: string[] = []
  let number = volume
  let directory = ino
  // Workspaces that are recorded to lie in each other have no path from the root.
  for (const seen = new Set<number>(); !seen.has(number); ) {
    seen.add(number)
    const at = core.volumes.get(number)
    const names = at === undefined ? undefined : namesIfKnown(at, directory)
    if (names !== undefined) parts.unshift(...names)
    const record = number === 0 ? undefined : registry.workspace(number)
    if (record === undefined) break
    parts.unshift(record.name)
    number = record.parent_volume
    directory = record.parent_ino
  }
  return parts
}

/** From the root of all to an inode, one character a byte; not to be relied on, as it may have been moved by the time that it is used. */
export function bytesPathOf(core: Core, registry: WorkspaceRegistry, { volume, ino, attr }: Place): string {
  const parts = partsOf(core, registry, volume.number, ino === ROOT_INO ? ino : attr.parent || ROOT_INO)
  return (ino === ROOT_INO ? parts : [...parts, attr.name]).join('/')
}

/** The same, and undefined also where the tree is damaged. */
export function namesIfKnown(volume: Volume, directory: number): string[] | undefined {
  try {
    return namesInVolume(volume, directory)
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_CORRUPT') return undefined
    throw error
  }
}

/**
 * True when a directory is another one or lies somewhere in it.
 * @throws NexusError NEXUS_CORRUPT when it lies in itself, and not in the other one
 */
export function isInside(volume: Volume, ino: number, directory: number): boolean {
  for (const at of ancestors(volume, ino)) if (at === directory) return true
  return false
}
