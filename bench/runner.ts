/** Runs workloads at places: what they need is made before, what they made is looked at and removed after. */
import fs from 'node:fs'
import path from 'node:path'
import type { Inputs } from './inputs.ts'
import { dropKernelCaches } from './places.ts'
import { Shell } from './shell.ts'
import type { Job, Place, Scale, Workload } from './workload.ts'

export interface Sample {
  /** seconds, or what the workload's `measure` says */
  value: number
  /** that reached the daemon while it ran, by operation; undefined where nobody counts */
  requests: Map<string, number> | undefined
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

export class Runner {
  readonly #inputs: Inputs
  readonly #homes: string
  readonly #scale: Scale
  readonly #shells = new Map<number, Shell>()
  /** where fixtures are that were made */
  readonly #fixtures = new Set<string>()
  #directories: string[] = []

  /** @param directory for what programs find as $HOME */
  constructor(inputs: Inputs, directory: string, scale: Scale) {
    this.#inputs = inputs
    this.#homes = directory
    this.#scale = scale
  }

  sizeOf(workload: Workload): number {
    return workload.sizes[this.#scale]
  }

  #shell(uid: number): Shell {
    let shell = this.#shells.get(uid)
    if (shell === undefined) {
      const home = path.join(this.#homes, `home-${uid}`)
      fs.mkdirSync(home, { recursive: true })
      fs.writeFileSync(path.join(home, '.gitconfig'), GIT_CONFIG)
      if (process.getuid?.() === 0) fs.chownSync(home, uid, uid)
      shell = new Shell(uid, home, this.#inputs.ops)
      this.#shells.set(uid, shell)
    }
    return shell
  }

  /** One round. What it made stays until `clean`. */
  async measure(workload: Workload, place: Place, round: number): Promise<Sample> {
    const job = await this.#jobFor(workload, place, round)
    await workload.prepare?.(job)
    // A count is the same with all that goes on beside it.
    if (this.#scale !== 'budget') await place.settle()
    if (workload.cold === 'daemon') await place.restart()
    if (workload.cold !== undefined && process.getuid?.() === 0) dropKernelCaches()
    const before = await place.requests?.()
    const value = await workload.run(job)
    const after = await place.requests?.()
    await workload.verify?.(job)
    return { value, requests: before && after && difference(before, after) }
  }

  async #jobFor(workload: Workload, place: Place, round: number): Promise<Job> {
    const size = this.sizeOf(workload)
    const [shell, asOwner] = [this.#shell(place.uid), this.#shell(place.owner)]
    const directory = path.join(place.home, `${slug(workload.name)}-${place.uid}-${round}`)
    const fixture = path.join(place.home, `${workload.fixture?.name}-${size}`)
    const job: Job = { place, inputs: this.#inputs, size, directory, fixture, shell, asOwner }
    if (workload.fixture !== undefined && !this.#fixtures.has(fixture)) {
      workload.fixture.make(job)
      this.#fixtures.add(fixture)
    }
    shell.run(place.home, `mkdir ${directory}`)
    this.#directories.push(directory)
    return job
  }

  /** Removes what the rounds of a workload have made: not sooner, because what is deleted makes the next round slower. */
  clean(): void {
    for (const one of this.#directories) fs.rmSync(one, { recursive: true, force: true })
    this.#directories = []
  }
}

function difference(before: Record<string, number>, after: Record<string, number>): Map<string, number> {
  const all = Object.entries(after).map(([name, count]): [string, number] => [name, count - (before[name] ?? 0)])
  return new Map(all.filter(([, more]) => more > 0))
}

function slug(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')
}
