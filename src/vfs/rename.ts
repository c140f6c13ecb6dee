/** rename(2) with its flags. */
import { FS } from '../errors.ts'
import { ancestors } from '../volume/ancestors.ts'
import { altered, isDirectory, S_IFDIR } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { type Dirent, isName } from '../volume/dirent.ts'
import type { Volume } from '../volume/volume.ts'
import type { Core } from './core.ts'
import { entryChange, existing, isReserved, NAME_BYTES_MAX, removedDirectory, removeEntry, unlinked } from './names.ts'
import { nodeOf, type Place } from './place.ts'

const RENAME_NOREPLACE = 1
const RENAME_EXCHANGE = 2

export function rename(core: Core, parent: number, name: string, newParent: number, newName: string, flags: number): void {
  if (flags !== 0 && flags !== RENAME_NOREPLACE && flags !== RENAME_EXCHANGE) throw FS.EINVAL
  const from = core.writableDirectory(parent)
  const to = core.writableDirectory(newParent)
  if (newName.length > NAME_BYTES_MAX) throw FS.ENAMETOOLONG
  if (from.volume !== to.volume) throw FS.EXDEV
  if (!isName(newName)) throw FS.EINVAL
  const target = to.volume.entry(to.ino, newName)
  if (target === undefined && isReserved(core, to, newName)) throw FS.EEXIST
  const entry = existing(core, from, name)
  if (flags === RENAME_NOREPLACE && target !== undefined) throw FS.EEXIST
  if (flags === RENAME_EXCHANGE) {
    if (target === undefined) throw FS.ENOENT
    refusePlain(core, from, entry, to, newName)
    refusePlain(core, to, target, from, name)
    exchange(core, from, entry, to, target)
    return
  }
  if (target !== undefined && target.ino === entry.ino && target.volume === entry.volume) return
  refusePlain(core, from, entry, to, newName)
  move(core, from, entry, to, newName, target)
}

function move(core: Core, from: Place, entry: Dirent, to: Place, newName: string, target: Dirent | undefined): void {
  const moved = core.target(from.volume, entry)
  const isDir = isDirectory(moved.attr)
  refuseLoop(moved, entry, to)
  const changes: Change[] = [removeEntry(from, entry)]
  let links = 0
  const replaced = target === undefined ? undefined : core.target(to.volume, target)
  if (target !== undefined && replaced !== undefined) {
    if (isDir && !isDirectory(replaced.attr)) throw FS.ENOTDIR
    if (!isDir && isDirectory(replaced.attr)) throw FS.EISDIR
    changes.push(...(isDir ? removedDirectory(core, target, replaced) : unlinked(core, replaced, to, newName)))
    if (isDir) links -= 1
  }
  if (isDir) links += 1
  changes.push(entryChange(to, newName, entry, target))
  changes.push(...movedTo(core, moved, entry, to, newName))
  changes.push(...parentsTouched(core, from, isDir ? -1 : 0, to, links))
  core.volumes.commit(changes)
  if (isDir || from.ino !== to.ino) {
    core.guard.moved(to.volume.number, entry.volume === 0 ? { ino: entry.ino, from: from.ino, to: to.ino } : undefined)
  }
  gatesMoved(core, from, to, [entry])
  if (isDir && replaced !== undefined) {
    if (replaced.volume !== to.volume) core.guard.gone([replaced.volume.number])
    core.buried(nodeOf(replaced.volume.number, replaced.ino))
  }
}

function exchange(core: Core, from: Place, entry: Dirent, to: Place, target: Dirent): void {
  const first = core.target(from.volume, entry)
  const second = core.target(to.volume, target)
  refuseLoop(first, entry, to)
  refuseLoop(second, target, from)
  const gained = (isDirectory(second.attr) ? 1 : 0) - (isDirectory(first.attr) ? 1 : 0)
  core.volumes.commit([
    entryChange(from, entry.name, target, entry),
    entryChange(to, target.name, entry, target),
    ...movedTo(core, first, entry, to, target.name),
    ...(first.ino === second.ino && first.volume === second.volume ? [] : movedTo(core, second, target, from, entry.name)),
    ...parentsTouched(core, from, gained, to, -gained),
  ])
  core.guard.moved(to.volume.number)
  gatesMoved(core, from, to, [entry, target])
}

/**
 * Where directories that are made become workspaces, a plain one must not get by other means: no relations would guard it.
 * mv(1) takes EXDEV as a reason to copy, and makes a workspace by that. @throws EXDEV
 */
function refusePlain(core: Core, from: Place, entry: Dirent, to: Place, newName: string): void {
  if (entry.volume !== 0 || entry.type !== S_IFDIR) return
  const { number } = to.volume
  // One that lies there already, of an older store, may be given another name.
  if (from.ino !== to.ino && core.registry.makesWorkspace(number, to.ino)) throw FS.EXDEV
  if (core.registry.makesWorkspaces(number, to.ino, newName) && hasPlain(to.volume, entry.ino)) throw FS.EXDEV
}

function hasPlain(volume: Volume, directory: number): boolean {
  for (const [, entry] of volume.entries(directory)) if (entry.volume === 0 && entry.type === S_IFDIR) return true
  return false
}

/** In another directory a workspace's name is for others. */
function gatesMoved(core: Core, from: Place, to: Place, entries: readonly Dirent[]): void {
  if (from.ino === to.ino) return
  for (const { volume } of entries) {
    if (volume === 0) continue
    core.guard.relocated(volume)
    core.gates.expireSoon([volume])
  }
}

/** A directory must not become part of itself. @throws EINVAL, and NEXUS_CORRUPT where one is already */
function refuseLoop(moved: Place, entry: Dirent, to: Place): void {
  if (entry.volume !== 0 || !isDirectory(moved.attr)) return
  for (const ino of ancestors(to.volume, to.ino)) if (ino === moved.ino) throw FS.EINVAL
}

function movedTo(core: Core, moved: Place, entry: Dirent, to: Place, name: string): Change[] {
  if (entry.volume !== 0) return core.registry.moveWorkspace(entry.volume, to.ino, name)
  if (moved.attr.nlink > 1 && !isDirectory(moved.attr)) core.otherNames.remember(moved.volume.number, moved.ino, moved.attr)
  const attr = altered(moved.attr, { ctime: core.now(), parent: to.ino, name })
  return [{ kind: 'attr', volume: moved.volume.number, ino: moved.ino, attr }]
}

function parentsTouched(core: Core, from: Place, fromLinks: number, to: Place, toLinks: number): Change[] {
  const now = core.now()
  const after = ({ volume, ino, attr }: Place, links: number): Change => ({
    kind: 'attr',
    volume: volume.number,
    ino,
    attr: altered(attr, { nlink: attr.nlink + links, mtime: now, ctime: now }),
  })
  if (from.ino === to.ino) return [after(from, fromLinks + toLinks)]
  return [after(from, fromLinks), after(to, toLinks)]
}
