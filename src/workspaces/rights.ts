/**
 * Telling the kernel that rights changed: it holds compiled ACLs of whatever was looked at. The daemon refuses by the new
 * rights from the moment they are stored. The kernel refuses by them when it has dropped the attributes: first of the
 * workspaces' roots, so that nobody gets in any more, then of what lies inside. Nothing can hold that up. Names and pages
 * come after it: a process may hold a directory or a page. At last, files that a process without the right holds for writing
 * are marked: what it changes through a mapping is a request of nobody's.
 */
import { NexusError } from '../errors.ts'
import { nodeOf } from '../vfs/place.ts'
import { ancestors } from '../volume/ancestors.ts'
import { isDirectory } from '../volume/attr.ts'
import { ROOT_INO, SNAPSHOTS_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Context } from './context.ts'
import { heard, tellAll } from './tell.ts'

/**
 * Resolves when no process sees the rights of before in these workspaces, in those inside them and in their snapshots.
 * @param revoked drop cached data too, so that who holds a file open is asked for his right again
 */
export async function rightsChanged(context: Context, workspaces: Iterable<number>, revoked: boolean): Promise<void> {
  const { core, kernel, registry } = context
  const live = new Set([...workspaces].flatMap((number) => [number, ...registry.inside(number).map((record) => record.number)]))
  const numbers = [...live, ...registry.viewsOf(live)].filter((number) => core.guard.guards(number))
  const roots = numbers.flatMap((number) =>
    [ROOT_INO, SNAPSHOTS_INO].map((ino) => kernel.invalidateAttributes(nodeOf(number, ino))),
  )
  const ways = [...live].flatMap((number) => registry.workspace(number) ?? [])
  const expired = heard([
    core.gates.expire(live),
    ...ways.map((record) => wayChanged(context, record.parent_volume, record.parent_ino)),
  ])
  await Promise.all(roots)
  for (const number of numbers) await tellAll(dropAttributes(context, number))
  await Promise.all([...expired, ...numbers.map((number) => tellAll(dropContents(context, number, revoked)))])
  if (revoked) await core.tainted.revoked(numbers)
}

/**
 * The same for the directories on the way to a workspace that lies in another: they are shown to let through whoever may
 * see something in it, and no name beside the way may be kept for those.
 */
export async function wayChanged(context: Context, volume: number, ino: number): Promise<void> {
  const { core, kernel, registry } = context
  const seen = new Set<number>()
  const told: Promise<void>[] = []
  for (let at: { volume: number; ino: number } | undefined = { volume, ino }; at !== undefined && at.volume !== 0; ) {
    const around = core.volumes.get(at.volume)
    // A workspace that is recorded to lie in itself, which only damage makes, ends the way as well.
    if (around === undefined || seen.has(at.volume)) break
    seen.add(at.volume)
    for (const directory of wayUp(around, at.ino)) {
      told.push(kernel.invalidateAttributes(nodeOf(at.volume, directory)), ...dropNames(context, around, directory))
    }
    const record = registry.workspace(at.volume)
    at = record && { volume: record.parent_volume, ino: record.parent_ino }
  }
  await Promise.all(told)
}

/** What depends on a directory that lies in itself, which only damage makes, is refused: there is nothing to tell of. */
function wayUp(volume: Volume, ino: number): number[] {
  try {
    return [...ancestors(volume, ino)]
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_CORRUPT') return []
    throw error
  }
}

function* dropAttributes({ core, kernel }: Context, number: number): Generator<Promise<void>[]> {
  for (const ino of [...core.known.of(number)]) yield [kernel.invalidateAttributes(nodeOf(number, ino))]
}

function* dropContents(context: Context, number: number, revoked: boolean): Generator<Promise<void>[]> {
  const { core, kernel } = context
  const volume = core.volumes.get(number) ?? core.registry.view(number)
  for (const ino of [...core.known.of(number)]) {
    // Of a workspace that was deleted, nothing that the kernel holds is to be had any more.
    if (revoked || volume === undefined) yield [kernel.invalidateNode(nodeOf(number, ino))]
    if (volume === undefined) continue
    yield dropNames(context, volume, ino)
  }
}

/** Where callers now differ in what they may see, no name must be left that was kept for all. */
function dropNames({ core, kernel }: Context, volume: Volume, ino: number): Promise<void>[] {
  const attr = volume.attr(ino)
  if (attr === undefined || !isDirectory(attr) || !core.guard.isMixed({ volume, ino, attr })) return []
  const node = nodeOf(volume.number, ino)
  const children = [...volume.entries(ino, 0)].map(([, entry]) => entry)
  const known = children.filter((entry) =>
    entry.volume === 0 ? core.known.has(volume.number, entry.ino) : core.known.has(entry.volume, ROOT_INO),
  )
  const names = known.map((entry) => entry.name)
  if (ino === ROOT_INO) names.push(core.registry.snapshotsNameOf(volume.number))
  return names.map((name) => kernel.invalidateEntry(node, name))
}
