/** The check of a whole store: of every live volume, snapshot and ghost, all as of one instant, beside running writers. */
import type { Finding } from '../api/store.ts'
import { type Address, toHex } from '../cas/address.ts'
import { NexusError } from '../errors.ts'
import { Pace } from '../pace.ts'
import { inoOf, Kind, kindOf } from '../volume/keys.ts'
import type { Super, Volume } from '../volume/volume.ts'
import type { Volumes } from '../volume/volumes.ts'
import { type Capture, type CapturedState, capture, type Hold, viewOf } from './capture.ts'
import { CatalogCheck } from './catalog.ts'
import { lookForChunks, WantedChunks, wrongPlace } from './chunks.ts'
import { Findings, type Fix, type Report } from './finding.ts'
import { InodeTable, type NestedEntry } from './inodes.ts'
import { isCounted, judge, shownCounters } from './judge.ts'
import { StateReader } from './reader.ts'
import { eachChunkPiece } from './users.ts'

export interface Checked {
  findings: Finding[]
  /** of which `findings` has the first */
  total: number
  /** what mends the live volumes, if that was asked for */
  fixes: ReadonlyMap<number, readonly Fix[]>
  /** keys of grants to remove */
  strayGrants: readonly string[]
  /** as counted in the live volumes */
  counted: ReadonlyMap<number, Super>
  states: number
  workspaces: number
  snapshots: number
  inodes: number
  chunks: number
}

export interface CheckOptions {
  volumes: Volumes
  /** keeps from the collector what is being read */
  hold: Hold
  wantsFixes?: boolean
}

/** @throws what makes it impossible to look at all, such as a disk that fails */
export async function check(options: CheckOptions): Promise<Checked> {
  const captured = await capture(options.volumes, options.hold)
  try {
    return await new Check(options, captured).run()
  } finally {
    captured.release()
  }
}

class Check {
  readonly #volumes: Volumes
  readonly #capture: Capture
  readonly #findings: Findings
  readonly #pace = new Pace()
  readonly #wanted = new WantedChunks()
  /** by live volume */
  readonly #nested = new Map<number, readonly NestedEntry[]>()
  readonly #counted = new Map<number, Super>()
  #inodes = 0

  constructor({ volumes, wantsFixes }: CheckOptions, captured: Capture) {
    this.#volumes = volumes
    this.#capture = captured
    this.#findings = new Findings(wantsFixes === true)
  }

  async run(): Promise<Checked> {
    const { states, workspaces, snapshots } = this.#capture
    for (const state of states) await this.#state(state)
    new CatalogCheck(this.#capture, this.#volumes, this.#findings).check(this.#nested)
    await this.#chunks()
    return {
      findings: this.#findings.listed,
      total: this.#findings.total,
      fixes: this.#findings.fixes,
      strayGrants: this.#findings.strayGrants,
      counted: this.#counted,
      states: states.length,
      workspaces: workspaces.size,
      snapshots: snapshots.length,
      inodes: this.#inodes,
      chunks: this.#wanted.size,
    }
  }

  async #state(state: CapturedState): Promise<void> {
    const view = this.#viewOf(state)
    const report: Report = (found) => this.#findings.add(state.holders, view, found)
    const table = new InodeTable()
    const needChunk = (address: Address, end: number): void => this.#wanted.need(state.domain, address, end)
    const reader = new StateReader(table, needChunk, report)
    let isPartial = false
    const damaged = (error: Error, _: Address, isLost: boolean, from: Buffer | undefined): void => {
      isPartial ||= isLost
      const text = `${error.message}${isLost ? whereabouts(from) : ''}`
      report({ kind: isLost ? 'node' : 'tree', severity: isLost ? 'damage' : 'error', text })
    }
    await this.#pace.run(
      this.#volumes.tree.verifySlices(state.root, { entry: (key, value) => reader.entry(key, value), damaged }),
    )
    reader.finish()
    this.#inodes += table.inodes
    // Half of a tree says nothing about what the other half has.
    if (isPartial || reader.isPartial) return
    await this.#pace.run(judge(table, view, report))
    this.#live(state, table)
  }

  #live(state: CapturedState, table: InodeTable): void {
    for (const { volume, live } of state.holders) {
      const merged = this.#capture.live.get(volume)
      if (!live || merged === undefined) continue
      this.#nested.set(volume, table.nested)
      this.#atWork(state, table, merged.super)
      const inoNext = Math.max(table.counted.inoNext, table.stored?.inoNext ?? 0, merged.super.inoNext)
      this.#counted.set(volume, { ...table.counted, inoNext })
    }
  }

  /** What the daemon counts with may have gone wrong where what it has stored is right. */
  #atWork(state: CapturedState, { stored, counted }: InodeTable, working: Super): void {
    if (isCounted(working, counted) || stored === undefined || !isCounted(stored, counted)) return
    const text = `the daemon counts ${shownCounters(working)}; stored are other numbers`
    const fix: Fix[] = [{ kind: 'recount' }]
    this.#findings.add(state.holders, this.#viewOf(state), { kind: 'counters', severity: 'error', text, fix })
  }

  /** Chunks that the index does not have, or not whole, and the files that refer to them. */
  async #chunks(): Promise<void> {
    try {
      await lookForChunks(this.#wanted, this.#volumes, this.#pace)
    } catch (error) {
      if (!(error instanceof NexusError) || error.code !== 'NEXUS_CORRUPT') throw error
      this.#findings.note('index', '/', error.message)
      return
    }
    if (await this.#wanted.complete(this.#pace)) return
    const segments = this.#volumes.segmentSizes()
    for (const state of this.#capture.states) {
      const view = this.#viewOf(state)
      const told = new Set<string>()
      await eachChunkPiece(this.#volumes.tree, state.root, this.#pace, (ino, { address, offset, length }) => {
        if (this.#wanted.isFound(state.domain, address)) return
        const part = { domain: state.domain, address, end: offset + length }
        // The collector may have been at work in between.
        if (wrongPlace(this.#volumes.content, segments, part) === undefined) return
        const wrong = wrongPlace(this.#volumes.content, this.#volumes.segmentSizes(), part)
        if (wrong === undefined || told.has(`${ino} ${address}`)) return
        told.add(`${ino} ${address}`)
        const text = `chunk ${toHex(address)} of inode ${ino} ${wrong}`
        this.#findings.add(state.holders, view, { kind: 'content', severity: 'damage', ino, text })
      })
    }
  }

  #viewOf({ holders, domain, root }: CapturedState): Volume {
    return viewOf(this.#volumes, { number: holders[0]?.volume ?? 0, domain, root })
  }
}

function whereabouts(from: Buffer | undefined): string {
  if (from === undefined) return ': nothing of the workspace can be read'
  const what = kindOf(from) === Kind.dirent ? 'entries of directory' : 'what belongs to inode'
  return `: ${what} ${inoOf(from)} and some behind it cannot be read`
}
