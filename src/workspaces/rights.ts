/**
 * Telling the kernel that rights changed: it holds compiled ACLs of whatever was looked at. The daemon refuses by the new
 * rights from the moment they are stored. The kernel refuses by them when it has dropped the attributes: first of the
 * workspaces' roots, so that nobody gets in any more, then of what lies inside. Nothing can hold that up. Names and pages
 * come after it: a process may hold a directory or a page.
 */
import { nodeOf, SNAPSHOTS_NAME } from '../vfs/core.ts'
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
  const [expired] = heard([core.gates.expire(live)])
  await Promise.all(roots)
  for (const number of numbers) await tellAll(dropAttributes(context, number))
  await Promise.all([expired, ...numbers.map((number) => tellAll(dropContents(context, number, revoked)))])
}

function* dropAttributes({ core, kernel }: Context, number: number): Generator<Promise<void>[]> {
  for (const ino of [...core.known.of(number)]) yield [kernel.invalidateAttributes(nodeOf(number, ino))]
}

function* dropContents(context: Context, number: number, revoked: boolean): Generator<Promise<void>[]> {
  const { core, kernel } = context
  const volume = core.volumes.get(number) ?? core.registry.view(number)
  if (volume === undefined) return
  for (const ino of [...core.known.of(number)]) {
    if (revoked) yield [kernel.invalidateNode(nodeOf(number, ino))]
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
  if (ino === ROOT_INO) names.push(SNAPSHOTS_NAME)
  return names.map((name) => kernel.invalidateEntry(node, name))
}
