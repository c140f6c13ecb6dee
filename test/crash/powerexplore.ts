/** Runs a sequence of operations on a recorded disk, and opens the store in every state that a loss of power could leave. */
import { createHash } from 'node:crypto'
import { MemoryIndex } from '../cas/support.ts'
import type { TestEngine } from '../snapshots/support.ts'
import { diskOf, hashOf, type Image, imageOf, Machine, type Note, Recorder, type Thoroughness } from './powerdisk.ts'
import { checkStore, dump, OPERATIONS, openStore, perform, type Step, SYNCS } from './powerstore.ts'

/** `sync`: one of SYNCS; `racing`: a sync that the next operation does not wait for. */
export type Action = { kind: 'operation' | 'sync' | 'racing'; name: string }

/** What was done, and all that could be seen after each operation. */
interface Recording {
  notes: readonly Note[]
  dumps: readonly string[]
}

/** They end with everything on the disk, as `syncfs` does. */
const STORING: ReadonlySet<string> = new Set(['checkpoint', 'collect'])

export class Explorer {
  readonly #data: string
  readonly #start: Image
  /** what a start found, by state of the disk: a digest of the dump */
  readonly #found = new Map<string, string>()
  /** the same by state of the disk after the start: those are the same store, and were checked */
  readonly #checked = new Map<string, string>()
  readonly #began = performance.now()
  readonly counts = { sequences: 0, moments: 0, states: 0, distinct: 0, stores: 0 }

  constructor(data: string, start: Image) {
    this.#data = data
    this.#start = start
  }

  get figures(): string {
    const { sequences, moments, states, distinct, stores } = this.counts
    const time = `${((performance.now() - this.#began) / 1000).toFixed(1)} s`
    return `${sequences} sequences, ${moments} moments, ${states} states, ${distinct} distinct, ${stores} stores, ${time}`
  }

  /** @param whole also from the beginning; else what shorter sequences have in common with it is left out */
  async explore(plan: readonly Action[], how: Thoroughness, whole: boolean): Promise<void> {
    const last = plan.findLastIndex(({ kind }) => kind === 'operation')
    await this.exploreRun(
      (run) => run.all(plan, whole ? 0 : last),
      how,
      plan.map(({ kind, name }) => (kind === 'racing' ? `${name} beside` : name)).join(', '),
    )
  }

  async exploreRun(work: (run: Run) => Promise<void>, how: Thoroughness, words: string): Promise<void> {
    const run = new Run(this.#start)
    await run.start(this.#data)
    await work(run)
    this.counts.sequences++
    try {
      await this.#judge(run, how)
    } catch (error) {
      throw new Error(`${words}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
  }

  async #judge({ notes, dumps, from }: Run, how: Thoroughness): Promise<void> {
    const machine = new Machine(this.#start)
    const digests = dumps.map(digest)
    for (const [i, note] of notes.entries()) {
      if (!machine.follow(note) || i < from) continue
      this.counts.moments++
      const right = new Set(digests.slice(machine.safe, machine.latest + 1))
      for (const { image, hash, words } of machine.images(how)) {
        this.counts.states++
        const found =
          this.#found.get(hash) ?? (await this.#open(image, hash, how, `after ${i} of ${notes.length} (${note.kind}), ${words}`))
        if (right.has(found)) continue
        const which = digests.indexOf(found)
        const what =
          which === -1 ? await this.#difference(image, dumps[machine.latest] as string) : `the state after operation ${which}`
        throw new Error(
          `after ${i} of ${notes.length} (${note.kind}), ${words}: wanted ${machine.safe} to ${machine.latest}, found ${what}`,
        )
      }
    }
  }

  /** States of the disk in which a start has something to clean up. */
  readonly unclean: Image[] = []

  /** @returns the digest of what can be seen */
  async #open(image: Image, hash: string, how: Thoroughness, words: string): Promise<string> {
    this.counts.distinct++
    try {
      const [disk, index] = [diskOf(image), image.index.clone()]
      const test = await openStore(this.#data, disk, index)
      const opened = hashOf(imageOf(disk, index))
      if (opened !== hash) this.unclean.push(image)
      let found = this.#checked.get(opened)
      if (found === undefined) {
        found = digest(dump(test))
        await checkStore(test)
        if (how.rebuilds) await this.#rebuild(image, found)
        this.#checked.set(opened, found)
        this.counts.stores++
      }
      this.#found.set(hash, found)
      return found
    } catch (error) {
      throw new Error(`${words}: ${error}`, { cause: error })
    }
  }

  /** The same from the log alone. */
  async #rebuild({ files }: Image, wanted: string): Promise<void> {
    const test = await openStore(this.#data, diskOf({ files, index: new MemoryIndex() }), new MemoryIndex())
    if (digest(dump(test)) !== wanted) throw new Error('without its index it is another store')
    await checkStore(test)
  }

  async #difference(image: Image, wanted: string): Promise<string> {
    const found = dump(await openStore(this.#data, diskOf(image), image.index.clone())).split('\n')
    const lines = wanted.split('\n')
    const missing = lines.filter((line) => !found.includes(line)).map((line) => `  - ${line.slice(0, 300)}`)
    const more = found.filter((line) => !lines.includes(line)).map((line) => `  + ${line.slice(0, 300)}`)
    return `a mixture:\n${[...missing, ...more].join('\n')}`
  }
}

/** A sequence as it is performed. */
export class Run implements Recording {
  readonly #recorder: Recorder
  readonly dumps: string[] = []
  /** states before this note are not looked at */
  from = 0
  test!: TestEngine

  constructor(image: Image) {
    this.#recorder = new Recorder(image)
  }

  get notes(): Note[] {
    return this.#recorder.notes
  }

  async start(data: string): Promise<void> {
    this.test = await openStore(data, this.#recorder.disk, this.#recorder.index)
    this.dumps.push(dump(this.test))
    this.notes.push({ kind: 'safe', moment: 0 })
  }

  async all(plan: readonly Action[], first: number): Promise<void> {
    let racing: Promise<void> | undefined
    for (const [i, { kind, name }] of plan.entries()) {
      if (i === first) this.from = this.notes.length
      if (kind === 'operation') {
        await this.operation(name)
        await racing
        racing = undefined
      } else {
        const done = this.sync(SYNCS[name] as Step)
        if (kind === 'racing') racing = done
        else await done
      }
    }
    await racing
  }

  async operation(name: string): Promise<void> {
    this.notes.push({ kind: 'begun', moment: this.dumps.length })
    await perform(this.test, OPERATIONS[name] as Step)
    this.dumps.push(dump(this.test))
    if (STORING.has(name)) this.notes.push({ kind: 'safe', moment: this.dumps.length - 1 })
  }

  /**
   * A collection, and an operation that begins when it has paused so many times; neither waits for the other.
   * @returns false when there were fewer pauses
   */
  async collectBeside(name: string, pauses: number): Promise<boolean> {
    let left = pauses
    let other: Promise<void> | undefined
    const moment = this.dumps.length - 1
    const pause = (): undefined => {
      if (left-- === 0) other = this.operation(name)
    }
    await this.test.engine.collect({ pause })
    this.notes.push({ kind: 'safe', moment })
    await other
    return other !== undefined
  }

  async sync(step: Step): Promise<void> {
    const moment = this.dumps.length - 1
    await step(this.test)
    this.notes.push({ kind: 'safe', moment })
  }
}

function digest(text: string): string {
  return createHash('sha1').update(text).digest('base64')
}
