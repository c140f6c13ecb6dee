/**
 * Quotas: how many bytes and inodes a workspace may take, all workspaces in it included. The counters of volumes are the
 * one record of what is taken; here are sums of them, for workspaces with a quota, which follow when volumes change.
 */
import { FS } from '../errors.ts'
import type { StatFs } from '../vfs/filesystem.ts'
import type { Quotas } from '../vfs/quotas.ts'
import type { Taken, Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import { type QuotaRecord, WORKSPACE_PREFIX, type WorkspaceRecord } from './records.ts'
import type { WorkspaceRegistry } from './registry.ts'
import type { SubjectLimits } from './subjectlimits.ts'

/** A workspace with a quota. */
export interface Account {
  workspace: number
  taken: Taken
  /** infinite where there is no limit */
  limit: Taken
}

/** A volume that counts for some account. */
interface Member {
  volume: Volume
  /** of its workspace and of those around it, from inside out */
  accounts: Account[]
  /** as the accounts have it */
  taken: Taken
  /** what the volume calls when that is no longer so */
  note(): void
}

const NO_ACCOUNTS: readonly Account[] = []

export class WorkspaceQuotas implements Quotas {
  readonly #volumes: Volumes
  readonly #registry: WorkspaceRegistry
  readonly subjectLimits: SubjectLimits
  /** by volume; as of a revision of the catalog's workspaces */
  #members = new Map<number, Member>()
  #revision = -1
  /** members whose volume has changed since their accounts were told */
  #changed: Member[] = []

  constructor(volumes: Volumes, registry: WorkspaceRegistry, subjectLimits: SubjectLimits) {
    this.#volumes = volumes
    this.#registry = registry
    this.subjectLimits = subjectLimits
  }

  admit(volume: number, bytes: number, inodes: number): void {
    if (bytes <= 0 && inodes <= 0) return
    for (const { taken, limit } of this.accountsOf(volume)) {
      if (bytes > 0 && taken.bytes + bytes > limit.bytes) throw FS.EDQUOT
      if (inodes > 0 && taken.inodes + inodes > limit.inodes) throw FS.EDQUOT
    }
  }

  admitWorkspace(subject: string | undefined): void {
    if (subject === undefined) return
    if (this.#registry.chargedTo(subject).workspaces >= this.subjectLimits.workspaces) throw FS.EDQUOT
  }

  admitPlain(subject: string | undefined, has: () => number): void {
    if (subject !== undefined && has() >= this.subjectLimits.workspaces) throw FS.EDQUOT
  }

  within(volume: number, disk: StatFs): StatFs {
    const accounts = this.accountsOf(this.#registry.liveOf(volume))
    const bytes = tightest(accounts, 'bytes')
    const inodes = tightest(accounts, 'inodes')
    return { ...disk, ...(bytes && blocksWithin(bytes, disk)), ...(inodes && filesWithin(inodes, disk)) }
  }

  /** The quotas that something in a volume counts for, from inside out, with what is taken at this moment. */
  accountsOf(volume: number): readonly Account[] {
    if (this.#volumes.catalog.revisionOf(WORKSPACE_PREFIX) !== this.#revision) this.#begin()
    while (this.#changed.length > 0) this.#settle(this.#changed.pop() as Member)
    return this.#members.get(volume)?.accounts ?? NO_ACCOUNTS
  }

  /** What a workspace takes, with all that lie in it. */
  takenBy(workspace: number): Taken {
    const sum = { bytes: 0, inodes: 0 }
    for (const number of [workspace, ...this.#registry.inside(workspace).map((record) => record.number)]) {
      const volume = this.#volumes.get(number)
      if (volume !== undefined) add(sum, volume.taken, 1)
    }
    return sum
  }

  #begin(): void {
    for (const { volume } of this.#members.values()) volume.onCount = undefined
    this.#members = new Map()
    this.#changed = []
    this.#revision = this.#volumes.catalog.revisionOf(WORKSPACE_PREFIX)
    if (!this.#registry.mayHaveQuotas) return
    const records = new Map<number, WorkspaceRecord>()
    const accounts = new Map<number, Account>()
    for (const number of this.#volumes.numbers()) {
      const record = this.#registry.workspace(number)
      if (record !== undefined) records.set(number, record)
      if (record?.quota !== undefined) accounts.set(number, accountFor(number, record.quota))
    }
    if (accounts.size > 0) for (const number of records.keys()) this.#join(number, accountsAround(number, records, accounts))
  }

  #join(number: number, accounts: Account[]): void {
    const volume = this.#volumes.get(number)
    if (volume === undefined || accounts.length === 0) return
    const note = (): void => void this.#changed.push(member)
    const member: Member = { volume, accounts, taken: { bytes: 0, inodes: 0 }, note }
    this.#members.set(number, member)
    this.#settle(member)
  }

  #settle(member: Member): void {
    const { taken } = member.volume
    for (const account of member.accounts) {
      add(account.taken, taken, 1)
      add(account.taken, member.taken, -1)
    }
    member.taken = taken
    member.volume.onCount = member.note
  }
}

/** What a quota leaves of what it limits: never less than nothing. */
export function remaining({ taken, limit }: Account, what: keyof Taken): number {
  return Math.max(0, limit[what] - taken[what])
}

/** Of a workspace and of those around it, from inside out. */
function accountsAround(
  workspace: number,
  records: ReadonlyMap<number, WorkspaceRecord>,
  accounts: ReadonlyMap<number, Account>,
): Account[] {
  const found: Account[] = []
  let record = records.get(workspace)
  // Records that lie in each other, which only damage makes, would lead around for ever.
  for (let depth = 0; record !== undefined && depth <= records.size; depth++) {
    const account = accounts.get(record.number)
    if (account !== undefined) found.push(account)
    record = record.number === 0 ? undefined : records.get(record.parent_volume)
  }
  return found
}

function accountFor(workspace: number, { bytes, inodes }: QuotaRecord): Account {
  const limit = { bytes: bytes ?? Number.POSITIVE_INFINITY, inodes: inodes ?? Number.POSITIVE_INFINITY }
  return { workspace, taken: { bytes: 0, inodes: 0 }, limit }
}

function add(sum: Taken, { bytes, inodes }: Taken, sign: 1 | -1): void {
  sum.bytes += sign * bytes
  sum.inodes += sign * inodes
}

/** The account that has least left. */
function tightest(accounts: readonly Account[], what: keyof Taken): Account | undefined {
  const limited = accounts.filter(({ limit }) => Number.isFinite(limit[what]))
  return limited.sort((a, b) => remaining(a, what) - remaining(b, what))[0]
}

/** Of a disk with less room than the quota leaves, what is taken and what there is room for. */
function blocksWithin(account: Account, disk: StatFs): Partial<StatFs> {
  const { blockBytes } = disk
  const blocksAvailable = Math.min(Math.floor(remaining(account, 'bytes') / blockBytes), disk.blocksAvailable)
  const taken = Math.ceil(account.taken.bytes / blockBytes)
  const blocks = Math.min(Math.ceil(account.limit.bytes / blockBytes), blocksAvailable + taken)
  return { blocks, blocksFree: blocksAvailable, blocksAvailable }
}

function filesWithin(account: Account, disk: StatFs): Partial<StatFs> {
  return { files: account.limit.inodes, filesFree: Math.min(remaining(account, 'inodes'), disk.filesFree) }
}
