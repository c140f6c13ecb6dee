/** readdir: entries in the order of their cookies, which stays the same whatever else changes. */
import { cookieOf, type Dirent, slotOf } from '../volume/dirent.ts'
import { ROOT_INO, SNAPSHOTS_INO } from '../volume/keys.ts'
import type { Volume } from '../volume/volume.ts'
import type { Core } from './core.ts'
import type { Caller, DirectorySink } from './filesystem.ts'
import { parentOf } from './names.ts'
import { nodeOf, type Place, volumeOf } from './place.ts'

/** Cookies below the first that an entry can have. */
const COOKIE_SELF = 1
const COOKIE_PARENT = 2
const DIRECTORY_MODE = 0o040000
/** One answer looks at hidden entries for so long, and at the clock after so many of them. */
const LOOK_MS = 2
const HIDDEN_ENTRIES = 32

export function readdir(core: Core, caller: Caller, node: number, cookie: number, withStats: boolean, sink: DirectorySink): void {
  if (core.isSnapshots(node)) {
    listSnapshots(core, node, cookie, sink)
    return
  }
  const directory = core.directory(node)
  if (!listDots(cookie, node, () => nodeOfPlace(parentOf(core, directory)), sink)) return
  // A directory that was removed lists nothing but itself.
  if (directory.attr.nlink === 0) return
  const { volume, ino } = directory
  // An answer without an entry is the end of a directory.
  let hasEntry = cookie < COOKIE_PARENT
  let looked = 0
  const until = performance.now() + LOOK_MS
  for (const [slot, entry] of volume.entries(ino, cookie <= COOKIE_PARENT ? 0 : cookie)) {
    const next = cookieOf(slot, entry.index)
    if (isHidden(core, caller, volume, entry)) {
      // The kernel asks for the rest, which begins with `passHidden`.
      if (hasEntry && ++looked % HIDDEN_ENTRIES === 0 && performance.now() > until) return
      continue
    }
    hasEntry = true
    const child =
      entry.volume === 0 ? nodeOf(volume.number, entry.ino) : nodeOf(core.registry.nested(volume.number, entry.volume), ROOT_INO)
    if (!withStats) {
      if (!sink(entry.name, child, entry.type, next, undefined)) return
      continue
    }
    const place = core.target(volume, entry)
    if (!sink(entry.name, child, place.attr.mode, next, core.statListed(directory, place))) return
    core.known.add(place.volume.number, place.ino)
  }
}

/**
 * Looks for the first entry behind a cookie that the caller may see: there may be any number of others before it.
 * Yields often, and finds what is there when it goes on.
 * @returns the cookie behind which it is, or where the directory ends
 */
export function* passHidden(core: Core, caller: Caller, node: number, cookie: number): Generator<void, number> {
  let at = cookie
  for (let isEnd = false; !isEnd; ) {
    const { volume, ino } = core.directory(node)
    let looked = 0
    for (const [slot, entry] of volume.entries(ino, at)) {
      if (!isHidden(core, caller, volume, entry)) return at
      at = cookieOf(slot, entry.index)
      if (++looked === HIDDEN_ENTRIES) break
    }
    isEnd = looked < HIDDEN_ENTRIES
    yield
  }
  return at
}

/** A user who may read a workspace sees the names in it; from outside, only a user whom a workspace is for sees its name. */
function isHidden(core: Core, { uid }: Caller, volume: Volume, entry: Dirent): boolean {
  return entry.volume !== 0 && !core.guard.guards(volume.number) && core.guard.rwx(uid, core.target(volume, entry)) === 0
}

function listDots(cookie: number, node: number, parent: () => number, sink: DirectorySink): boolean {
  if (cookie < COOKIE_SELF && !sink('.', node, DIRECTORY_MODE, COOKIE_SELF, undefined)) return false
  return cookie >= COOKIE_PARENT || sink('..', parent(), DIRECTORY_MODE, COOKIE_PARENT, undefined)
}

function listSnapshots(core: Core, node: number, cookie: number, sink: DirectorySink): void {
  const volume = volumeOf(node)
  if (!listDots(cookie, nodeOf(volume, SNAPSHOTS_INO), () => nodeOf(volume, ROOT_INO), sink)) return
  for (const { name, root, next } of snapshotListing(core, volume)) {
    // Without attributes, which would open every snapshot at once: who wants them asks for each.
    if (next > cookie && !sink(name, root, DIRECTORY_MODE, next, undefined)) return
  }
}

interface Listing {
  volume: number
  revision: number
  entries: { name: string; root: number; next: number }[]
}

/** The last one: a long listing is read by many requests. */
const listings = new WeakMap<Core, Listing>()

function snapshotListing(core: Core, volume: number): Listing['entries'] {
  const revision = core.registry.snapshotsRevision
  const last = listings.get(core)
  if (last?.volume === volume && last.revision === revision) return last.entries
  const entries = [...core.registry.snapshotNames(volume)]
    .map(({ name, node: root }) => ({ name, root, next: cookieOf(slotOf(name), 0) }))
    .sort((a, b) => a.next - b.next)
  listings.set(core, { volume, revision, entries })
  return entries
}

function nodeOfPlace({ volume, ino }: Place): number {
  return nodeOf(volume.number, ino)
}
