/**
 * Reading all that is stored, in the background: every chunk and node that some state needs, against its address and its
 * checksum. How far it came is kept in the catalog, so that a daemon that starts again goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { BadContent, ScrubInfo } from '../api/store.ts'
import { type Address, fromHex, toHex } from '../cas/address.ts'
import { AddressMap } from '../cas/addressmap.ts'
import type { Logger } from '../logger.ts'
import { Pace } from '../pace.ts'
import type { Volumes } from '../volume/volumes.ts'
import { type Capture, capture, type Hold, viewOf } from './capture.ts'
import { WantedChunks } from './chunks.ts'
import { namesInPath, pathIn } from './finding.ts'
import { needsOf } from './needs.ts'
import { eachChunkPiece } from './users.ts'

export interface ScrubOptions {
  volumes: Volumes
  hold: Hold
  logger: Logger
}

/** What the catalog holds. */
interface Saved extends Pick<ScrubInfo, 'started_at' | 'finished_at' | 'rate' | 'total_bytes' | 'done_bytes' | 'bad'> {
  state: ScrubInfo['state']
  /** the last key of the index that was read, hex */
  position: string
}

const KEY = 'c/scrub'
const SAVE_MS = 5000
const BAD_MAX = 1000
const FILES_MAX = 100
const NOTHING: Saved = {
  state: 'none',
  started_at: null,
  finished_at: null,
  rate: null,
  total_bytes: 0,
  done_bytes: 0,
  bad: [],
  position: '',
}

export class Scrub {
  readonly #options: ScrubOptions
  #saved: Saved
  #running: Promise<void> | undefined
  #isStopping = false
  #savedAt = 0

  constructor(options: ScrubOptions) {
    this.#options = options
    this.#saved = readSaved(options.volumes)
    this.#recall()
  }

  get info(): ScrubInfo {
    const { position: _, ...info } = this.#saved
    return info
  }

  /** Begins, or goes on where it was stopped. */
  begin(rate: number | null): ScrubInfo {
    if (this.#running === undefined) {
      const isUnfinished = this.#saved.state === 'stopped' || this.#saved.state === 'running'
      if (!isUnfinished) this.#saved = { ...NOTHING, started_at: new Date().toISOString() }
      this.#saved = { ...this.#saved, state: 'running', rate }
      this.#save()
      this.#start()
    } else this.#saved = { ...this.#saved, rate }
    return this.info
  }

  /** Goes on with what the daemon before this one was at. */
  resume(): void {
    if (this.#saved.state === 'running' && this.#running === undefined) this.#start()
  }

  async stop(): Promise<ScrubInfo> {
    if (this.#running !== undefined) {
      await this.pause()
      if (this.#saved.state === 'running') this.#saved = { ...this.#saved, state: 'stopped' }
      this.#save()
    }
    return this.info
  }

  /** The daemon ends: the next one goes on. */
  async pause(): Promise<void> {
    this.#isStopping = true
    await this.#running
    this.#isStopping = false
  }

  /** What an earlier daemon found bad is known to this one: who stores it again heals it. */
  #recall(): void {
    const { volumes } = this.#options
    const domains = new Set(volumes.numbers().map((number) => volumes.get(number)?.domain))
    for (const { kind, address } of this.#saved.bad) {
      for (const domain of kind === 'node' ? [undefined] : domains) volumes.content.inspect(domain, fromHex(address))
    }
  }

  #start(): void {
    const { logger } = this.#options
    this.#running = this.#run()
      .catch((error: unknown) => {
        this.#saved = { ...this.#saved, state: 'failed', finished_at: new Date().toISOString() }
        logger.error({ err: error }, 'the scrub failed: begin it again')
      })
      .finally(() => {
        this.#running = undefined
      })
  }

  async #run(): Promise<void> {
    const { volumes, hold } = this.#options
    const captured = await capture(volumes, hold)
    try {
      const isOver = await new Pass(
        this.#options,
        captured,
        this.#saved,
        () => this.#isStopping,
        (saved) => {
          this.#saved = { ...saved, rate: this.#saved.rate }
          if (performance.now() - this.#savedAt > SAVE_MS) this.#save()
          return this.#saved.rate
        },
      ).run()
      if (isOver) this.#saved = { ...this.#saved, state: 'done', finished_at: new Date().toISOString() }
      this.#save()
    } finally {
      captured.release()
    }
  }

  #save(): void {
    this.#savedAt = performance.now()
    // A log that failed takes nothing more: where the scrub was is the least of the losses.
    if (this.#options.volumes.log.failure !== undefined) return
    this.#options.volumes.commit([{ kind: 'catalog', key: KEY, value: JSON.stringify(this.#saved) }])
  }
}

function readSaved(volumes: Volumes): Saved {
  const text = volumes.catalog.get(KEY)
  // Bytes that this program wrote, behind a checksum.
  return text === undefined ? NOTHING : { ...NOTHING, ...(JSON.parse(text) as Saved) }
}

interface Content {
  domain: number | undefined
  address: Address
}

/** One way through everything, from where it was. */
class Pass {
  readonly #options: ScrubOptions
  readonly #capture: Capture
  #saved: Saved
  readonly #isStopping: () => boolean
  readonly #progress: (saved: Saved) => number | null
  readonly #pace = new Pace()
  readonly #chunks = new WantedChunks()
  readonly #nodes = new AddressMap()
  readonly #bad = new Map<string, Content>()
  readonly #damaged: BadContent[] = []
  #rate: number | null
  #credit = 0
  #creditAt = performance.now()

  constructor(
    options: ScrubOptions,
    captured: Capture,
    saved: Saved,
    isStopping: () => boolean,
    progress: (saved: Saved) => number | null,
  ) {
    this.#options = options
    this.#capture = captured
    this.#saved = saved
    this.#isStopping = isStopping
    this.#progress = progress
    this.#rate = saved.rate
  }

  /** @returns whether it came to the end */
  async run(): Promise<boolean> {
    for (const { kind, address } of this.#saved.bad) {
      // Those of chunks are looked for in every domain: one that was healed is not bad any more.
      for (const domain of kind === 'node' ? [undefined] : this.#domains()) this.#inspect({ domain, address: fromHex(address) })
    }
    for (const state of this.#capture.states) {
      if (this.#isStopping()) return false
      await this.#needs(state)
    }
    await this.#count()
    const isOver = !this.#isStopping() && (await this.#read())
    if (isOver) await this.#missing()
    // Whoever stopped it does not wait for names: the rest of the way finds them.
    const bad = isOver ? await this.#describe() : this.#listed()
    this.#saved = { ...this.#saved, bad }
    this.#progress(this.#saved)
    return isOver
  }

  #domains(): Set<number> {
    return new Set(this.#capture.states.map((state) => state.domain))
  }

  async #needs(state: Capture['states'][number]): Promise<void> {
    await this.#runUnlessStopped(
      needsOf(this.#options.volumes.tree, state.root, {
        node: (address) => this.#nodes.set(address, 1),
        chunk: (address, end) => this.#chunks.need(state.domain, address, end),
        lost: (address) => {
          const known = this.#damaged.find((one) => one.address === toHex(address))
          const files = state.holders.map(({ path, live, snapshots }) => ({ path, live, snapshots }))
          if (known !== undefined) known.files.push(...files)
          else this.#damaged.push({ ...this.#placeOf({ domain: undefined, address }), files })
        },
      }),
    )
  }

  async #runUnlessStopped(work: Generator<void, void>): Promise<void> {
    // Also when all is done at once: of 10,000 snapshots each may have a few nodes of its own.
    for (let isDone: boolean | undefined; isDone !== true && !this.#isStopping(); await this.#pace.pause())
      isDone = work.next().done
  }

  async #count(): Promise<void> {
    let total = 0
    for await (const { domain, address, location } of this.#options.volumes.content.everything()) {
      if (this.#isStopping()) return
      if (this.#isNeeded({ domain, address })) total += location.length
      if (domain !== undefined) this.#chunks.found(domain, address)
      await this.#pace.pause()
    }
    this.#saved = { ...this.#saved, total_bytes: total }
    this.#progress(this.#saved)
  }

  async #read(): Promise<boolean> {
    let done = 0
    const { position } = this.#saved
    for await (const content of this.#options.volumes.content.everything()) {
      if (this.#isStopping()) return false
      if (!this.#isNeeded(content)) {
        await this.#pace.pause()
        continue
      }
      const key = orderOf(content.key)
      done += content.location.length
      if (key > position) {
        this.#inspect(content)
        const done_bytes = Math.min(done, this.#saved.total_bytes)
        // Places that are not in the index yet come first and in no order: they are read again.
        const isOrdered = key > this.#saved.position && this.#options.volumes.content.pendingCount === 0
        this.#saved = { ...this.#saved, done_bytes, position: isOrdered ? key : this.#saved.position }
        this.#rate = this.#progress(this.#saved)
        await this.#pay(content.location.length)
      }
      await this.#pace.pause()
    }
    this.#saved = { ...this.#saved, done_bytes: this.#saved.total_bytes }
    return true
  }

  /** Waits as the rate demands; what was not used for a while is not saved up. */
  async #pay(bytes: number): Promise<void> {
    if (this.#rate === null) return
    const now = performance.now()
    this.#credit = Math.min(this.#rate / 10, this.#credit + ((now - this.#creditAt) / 1000) * this.#rate) - bytes
    this.#creditAt = now
    while (this.#credit < 0 && !this.#isStopping()) {
      await sleep(Math.min(100, Math.ceil((-this.#credit / this.#rate) * 1000)))
      const later = performance.now()
      this.#credit += ((later - this.#creditAt) / 1000) * this.#rate
      this.#creditAt = later
    }
  }

  #isNeeded({ domain, address }: Content): boolean {
    return domain === undefined ? this.#nodes.get(address) !== undefined : this.#chunks.end(domain, address) !== undefined
  }

  #inspect({ domain, address }: Content): void {
    if (this.#options.volumes.content.inspect(domain, address) !== 0) return
    const key = `${domain ?? 'node'} ${address}`
    if (this.#bad.has(key) || this.#bad.size >= BAD_MAX) return
    this.#bad.set(key, { domain, address })
    const { kind, segment, offset } = this.#placeOf({ domain, address })
    this.#options.logger.error({ segment, offset }, `scrub: ${kind} ${toHex(address)} is not what was stored`)
  }

  /** Chunks that are needed and that the index does not have. */
  async #missing(): Promise<void> {
    if (await this.#chunks.complete(this.#pace)) return
    for (const state of this.#capture.states) {
      await eachChunkPiece(this.#options.volumes.tree, state.root, this.#pace, (_, { address }) => {
        const { domain } = state
        if (this.#chunks.isFound(domain, address) || this.#bad.size >= BAD_MAX) return
        if (this.#options.volumes.content.locate(domain, address) === undefined)
          this.#bad.set(`${domain} ${address}`, { domain, address })
      })
    }
  }

  /** What is bad, without its files as far as they are not known from before. */
  #listed(): BadContent[] {
    return [...this.#damaged, ...this.#undescribed().values()].map(
      (bad) => this.#saved.bad.find(({ address }) => address === bad.address) ?? bad,
    )
  }

  #undescribed(): Map<string, BadContent> {
    const found = new Map<string, BadContent>()
    for (const [key, content] of this.#bad) {
      if (content.domain === undefined && this.#damaged.some((one) => one.address === toHex(content.address))) continue
      found.set(key, { ...this.#placeOf(content), files: [] })
    }
    return found
  }

  /** What is bad, with the files that refer to it. */
  async #describe(): Promise<BadContent[]> {
    if (this.#bad.size === 0) return this.#damaged
    const described = this.#undescribed()
    for (const { root, domain, holders } of this.#capture.states) {
      const view = viewOf(this.#options.volumes, { number: holders[0]?.volume ?? 0, domain, root })
      const told = new Set<string>()
      await eachChunkPiece(this.#options.volumes.tree, root, this.#pace, (ino, { address }) => {
        const bad = described.get(`${domain} ${address}`)
        if (bad === undefined || told.has(`${ino} ${address}`)) return
        told.add(`${ino} ${address}`)
        const names = namesInPath(view, ino) ?? [`#${ino}`]
        for (const { path, live, snapshots } of holders) {
          if (bad.files.length < FILES_MAX) bad.files.push({ path: pathIn(path, names), live, snapshots })
        }
      })
    }
    return [...this.#damaged, ...described.values()].slice(0, BAD_MAX)
  }

  #placeOf({ domain, address }: Content): Omit<BadContent, 'files'> {
    const part = this.#options.volumes.content.locate(domain, address)?.parts[0]
    const kind = domain === undefined ? 'node' : 'chunk'
    return { kind, address: toHex(address), segment: part?.segment ?? null, offset: part?.offset ?? null }
  }
}

/** In the order in which the store goes through its index: nodes before chunks. */
function orderOf(key: Buffer): string {
  return `${key[0] === 'n'.charCodeAt(0) ? '0' : '1'}${key.toString('hex', 1)}`
}
