/** Runs workloads at places: what they need is made before, what they made is looked at and removed after. */
import fs from 'node:fs'
import path from 'node:path'
import zlib from 'node:zlib'
import type { Inputs } from './inputs.ts'
import { dropKernelCaches } from './places.ts'
import { execute, Limit, Shell } from './shell.ts'
import { BenchError, type Job, type Place, type Scale, type Workload } from './workload.ts'

export interface Sample {
  /** seconds, or what the workload's `measure` says */
  value: number
  /** that reached the daemon while it ran, by operation; undefined where nobody counts */
  requests: Map<string, number> | undefined
  /** of the whole of what was measured, by the clock */
  elapsedMs: number
}

const GIT_CONFIG = `[user]
	name = bench
	email = bench@localhost
[safe]
	directory = *
[gc]
	auto = 0
[advice]
	detachedHead = false
`
/** Twice: reading what was not in memory yet makes the kernel ask for the time of that at the next look. */
const WARM_UPS = 2
/** for what is made before a measurement, looked at after it, or removed; to make all inputs takes a minute or two */
const ASIDE_MS_MAX = { local: 30 * 60_000, nexus: 30 * 60_000, peer: 3 * 60_000 }

export class Runner {
  readonly #inputs: Inputs
  readonly #homes: string
  readonly #scale: Scale
  /** where fixtures are that were made, or why one could not be */
  readonly #fixtures = new Map<string, BenchError | undefined>()
  /** by name of the place */
  readonly #directories = new Map<string, string[]>()

  /** @param directory for what programs find as $HOME */
  constructor(inputs: Inputs, directory: string, scale: Scale) {
    this.#inputs = inputs
    this.#homes = directory
    this.#scale = scale
  }

  sizeOf(workload: Workload): number {
    return workload.sizes[this.#scale]
  }

  #shell(uid: number, limit: Limit): Shell {
    const home = path.join(this.#homes, `home-${uid}`)
    if (!fs.existsSync(home)) {
      fs.mkdirSync(home)
      fs.writeFileSync(path.join(home, '.gitconfig'), GIT_CONFIG)
      if (process.getuid?.() === 0) fs.chownSync(home, uid, uid)
    }
    return new Shell(uid, home, this.#inputs.ops, limit)
  }

  /**
   * One round. What it made stays until `clean`.
   * @param msMax what is measured may take so long
   * @throws BenchError when a command fails, SlowError when it takes too long, HungError when it cannot be ended
   */
  async measure(workload: Workload, place: Place, round: number, msMax = Infinity): Promise<Sample> {
    const limit = new Limit()
    limit.begin(ASIDE_MS_MAX[place.kind], false)
    const job = await this.#jobFor(workload, place, round, limit)
    await workload.prepare?.(job)
    // A count is the same with all that goes on beside it.
    if (this.#scale !== 'budget') await place.settle()
    if (workload.cold === 'daemon') await place.restart()
    if (workload.cold !== undefined && process.getuid?.() === 0) dropKernelCaches()
    // Not sooner: the machine may take from memory what nobody has used for a while.
    if (workload.warm === true) for (let i = 0; i < WARM_UPS; i++) await workload.run(job)
    const before = await place.requests?.()
    limit.begin(msMax, true)
    const begun = performance.now()
    const value = await workload.run(job)
    const elapsedMs = performance.now() - begun
    limit.begin(ASIDE_MS_MAX[place.kind], false)
    const after = await place.requests?.()
    await workload.verify?.(job)
    return { value, requests: before && after && difference(before, after), elapsedMs }
  }

  async #jobFor(workload: Workload, place: Place, round: number, limit: Limit): Promise<Job> {
    const size = this.sizeOf(workload)
    const [shell, asOwner] = [this.#shell(place.uid, limit), this.#shell(place.owner, limit)]
    const name = `${slug(workload.name)}-${place.uid}-${round}`
    const directory = path.join(place.home, name)
    const fixture = path.join(place.home, `${workload.fixture?.name}-${size}`)
    const job: Job = { place, inputs: this.#inputs, size, directory, seed: zlib.crc32(name), fixture, shell, asOwner }
    await this.#makeFixture(workload, job)
    const made = this.#directories.get(place.name) ?? []
    this.#directories.set(place.name, [...made, directory])
    await shell.run(place.home, `mkdir ${directory}`)
    return job
  }

  async #makeFixture({ fixture }: Workload, job: Job): Promise<void> {
    if (fixture === undefined) return
    if (!this.#fixtures.has(job.fixture))
      try {
        await fixture.make(job)
        this.#fixtures.set(job.fixture, undefined)
      } catch (error) {
        if (error instanceof BenchError) this.#fixtures.set(job.fixture, error)
        throw error
      }
    const why = this.#fixtures.get(job.fixture)
    if (why !== undefined) throw why
  }

  /**
   * Removes what the rounds of a workload have made at a place: not sooner, because what is deleted makes the next round slower.
   * @throws as `measure`
   */
  async clean(place: Place): Promise<void> {
    const directories = this.#directories.get(place.name) ?? []
    this.#directories.delete(place.name)
    if (directories.length > 0) await execute(['rm', '-rf', ...directories], ASIDE_MS_MAX[place.kind])
  }
}

function difference(before: Record<string, number>, after: Record<string, number>): Map<string, number> {
  const all = Object.entries(after).map(([name, count]): [string, number] => [name, count - (before[name] ?? 0)])
  return new Map(all.filter(([, more]) => more > 0))
}

function slug(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')
}
