/** The commands about quotas, and what commands that add much at once are refused for. */
import type { QuotaInfo, QuotaShowInfo } from '../api/quotas.ts'
import { NexusError } from '../errors.ts'
import type { Attr } from '../volume/attr.ts'
import type { Change } from '../volume/change.ts'
import { ROOT_INO } from '../volume/keys.ts'
import type { Taken, Volume } from '../volume/volume.ts'
import { xattrCost } from '../volume/xattrbytes.ts'
import { type Context, type Target, targetAt } from './context.ts'
import { pathOf } from './paths.ts'
import { remaining } from './quotas.ts'
import type { QuotaRecord } from './records.ts'

/** What is absent stays as it is; null: no limit. */
export interface NewQuota {
  bytes?: number | null
  inodes?: number | null
}

export function setQuota(context: Context, path: string, wanted: NewQuota): QuotaInfo {
  const { place, workspace } = targetAt(context, path)
  if (place.ino !== ROOT_INO) {
    throw new NexusError(
      'NEXUS_NOT_FOUND',
      `${path} is a directory of a workspace, not one itself: see "nexusctl workspace list"`,
    )
  }
  const { quota: before, ...record } = workspace
  const quota = quotaFor({ ...before, ...wanted })
  context.core.volumes.commit([context.registry.storeWorkspace({ ...record, ...(quota && { quota }) })])
  return quotaInfo(context, workspace.number)
}

/** A record's quota; undefined when nothing is limited. */
export function quotaFor({ bytes = null, inodes = null }: NewQuota): QuotaRecord | undefined {
  return bytes === null && inodes === null ? undefined : { bytes, inodes }
}

/** Of the workspace that a path lies in. */
export function showQuota(context: Context, path: string): QuotaShowInfo {
  const { number } = targetAt(context, path).workspace
  const outer = context.quotas.accountsOf(number).map(({ workspace }) => workspace)
  return { ...quotaInfo(context, number), around: outer.filter((one) => one !== number).map((one) => quotaInfo(context, one)) }
}

export function listQuotas(context: Context): QuotaInfo[] {
  const records = [...context.registry.workspaces()].filter(({ quota }) => quota !== undefined)
  return records.map(({ number }) => quotaInfo(context, number)).sort((a, b) => (a.path < b.path ? -1 : 1))
}

function quotaInfo({ core, registry, quotas }: Context, number: number): QuotaInfo {
  const { bytes = null, inodes = null } = registry.workspace(number)?.quota ?? {}
  const taken = quotas.takenBy(number)
  const left = (limit: number | null, used: number): number | null => (limit === null ? null : Math.max(0, limit - used))
  return {
    path: pathOf(core, registry, number, ROOT_INO),
    number,
    bytes_used: taken.bytes,
    bytes_limit: bytes,
    bytes_remaining: left(bytes, taken.bytes),
    inodes_used: taken.inodes,
    inodes_limit: inodes,
    inodes_remaining: left(inodes, taken.inodes),
  }
}

/**
 * Refuses what would take more than the quotas around it leave.
 * @param volume what it is added to
 * @param added asked only where there is a quota: it may have to be read from what nobody could read otherwise
 * @param what as in `… takes N bytes more`
 * @throws NexusError NEXUS_NO_SPACE
 */
export function demandRoom({ core, registry, quotas }: Context, volume: number, added: () => Taken, what: string): void {
  const accounts = quotas.accountsOf(volume)
  if (accounts.length === 0) return
  const more = added()
  for (const account of accounts) {
    for (const unit of ['bytes', 'inodes'] as const) {
      const left = remaining(account, unit)
      if (more[unit] <= 0 || more[unit] <= left) continue
      const path = pathOf(core, registry, account.workspace, ROOT_INO)
      throw new NexusError(
        'NEXUS_NO_SPACE',
        `${what} takes ${more[unit]} ${unit} more, and the quota of ${path} leaves ${left}: delete files in it, or ask for a larger one`,
      )
    }
  }
}

/** The same for a restore: a workspace as a whole may go beyond its own quota, but not beyond those around it. */
export function demandRoomToRestore(
  context: Context,
  { path, workspace }: Target,
  isWhole: boolean,
  changes: readonly Change[],
): void {
  if (isWhole && workspace.number === 0) return
  demandRoom(
    context,
    isWhole ? workspace.parent_volume : workspace.number,
    () => takenMore(context, changes),
    `restoring ${path}`,
  )
}

/** How much more these changes take; less than nothing when they free. Content is not counted where nothing but it changes. */
export function takenMore(context: Context, changes: readonly Change[]): Taken {
  const { volumes } = context.core
  const more = { bytes: 0, inodes: 0 }
  const add = (bytes: number, inodes: number): void => {
    more.bytes += bytes
    more.inodes += inodes
  }
  const without = (number: number): void => {
    const taken = volumes.get(number)?.taken
    if (taken !== undefined) add(-taken.bytes, -taken.inodes)
  }
  const attrs = new Map<Volume, Map<number, Attr | undefined>>()
  const xattrs = new Map<Volume, XattrsAfter>()
  const xattrsOf = (volume: Volume): XattrsAfter => {
    const found = xattrs.get(volume) ?? new XattrsAfter(volume)
    xattrs.set(volume, found)
    return found
  }
  for (const change of changes) {
    if (change.kind === 'unvolume') without(change.volume)
    else if (change.kind === 'root') {
      without(change.volume)
      const taken = takenByRoot(context, change.volume, volumes.view(change.volume, change.domain, change.root))
      add(taken.bytes, taken.inodes)
    } else if (change.kind === 'attr' || change.kind === 'drop') {
      const volume = volumes.get(change.volume)
      if (volume === undefined) continue
      const last = attrs.get(volume) ?? new Map<number, Attr | undefined>()
      attrs.set(volume, last.set(change.ino, change.kind === 'attr' ? change.attr : undefined))
      if (change.kind === 'drop') xattrsOf(volume).drop(change.ino)
    } else if (change.kind === 'xattr') {
      const volume = volumes.get(change.volume)
      if (volume !== undefined) xattrsOf(volume).set(change.ino, change.name, change.value)
    }
  }
  for (const after of xattrs.values()) add(after.more, 0)
  for (const [volume, last] of attrs) {
    for (const [ino, after] of last) {
      const before = volume.attr(ino)
      add((after?.allocated ?? 0) - (before?.allocated ?? 0), (after === undefined ? 0 : 1) - (before === undefined ? 0 : 1))
    }
  }
  return more
}

/** Extended attributes of a volume after changes that are not made yet. */
class XattrsAfter {
  readonly #volume: Volume
  /** of an inode, what is said of its attributes, and whether that is all that it has */
  readonly #inodes = new Map<number, { values: Map<string, Uint8Array | null>; isWhole: boolean }>()

  constructor(volume: Volume) {
    this.#volume = volume
  }

  drop(ino: number): void {
    this.#inodes.set(ino, { values: new Map(), isWhole: true })
  }

  set(ino: number, name: string, value: Uint8Array | null): void {
    const inode = this.#inodes.get(ino) ?? { values: new Map<string, Uint8Array | null>(), isWhole: false }
    inode.values.set(name, value)
    this.#inodes.set(ino, inode)
  }

  /** How many bytes more they count for. */
  get more(): number {
    let more = 0
    for (const [ino, { values, isWhole }] of this.#inodes) {
      if (isWhole) more -= this.#volume.xattrBytesOf(ino)
      for (const [name, value] of values) {
        more += xattrCost(name, value) - (isWhole ? 0 : xattrCost(name, this.#volume.xattr(ino, name)))
      }
    }
    return more
  }
}

/** What had no name then and nobody has open now goes at once. */
function takenByRoot({ core }: Context, number: number, state: Volume): Taken {
  let { bytes, inodes } = state.taken
  for (const ino of state.orphanInos) {
    if (core.known.has(number, ino)) continue
    bytes -= (state.attr(ino)?.allocated ?? 0) + state.xattrBytesOf(ino)
    inodes--
  }
  return { bytes, inodes }
}
