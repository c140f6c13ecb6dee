/** Runs sealing where it disturbs least: small runs here, larger ones on worker threads. */
import { Worker } from 'node:worker_threads'
import { NexusError } from '../errors.ts'
import { type Distribution, Histogram } from '../histogram.ts'
import { type Sealed, type SealRun, sealRun } from './seal.ts'
import type { SealForget, SealJob, SealReply, SealWorkerData } from './sealworker.ts'
import type { LogReader } from './verified.ts'

export interface SealerOptions {
  /** directory of the segments, for the workers */
  directory: string
  store: bigint
  /** 0: everything on this thread */
  workers: number
}

/** Handing a job to a worker costs about as much as sealing this many bytes. */
const INLINE_BYTES_MAX = 128 * 1024

interface Waiting {
  resolve(sealed: Sealed[][]): void
  reject(error: unknown): void
}

export class Sealer {
  readonly #options: SealerOptions
  readonly #read: LogReader
  readonly #workers: Worker[] = []
  readonly #waiting = new Map<number, Waiting>()
  #jobs = 0
  #sealedBytes = 0
  readonly #times = new Histogram()

  constructor(options: SealerOptions, read: LogReader) {
    this.#options = options
    this.#read = read
  }

  /** What was sealed, and how long each call took, waiting for a thread included. */
  get sealed(): { bytes: number; times: Distribution } {
    return { bytes: this.#sealedBytes, times: this.#times.distribution }
  }

  /** @returns for each run what it became */
  async seal(runs: readonly SealRun[]): Promise<Sealed[][]> {
    const start = performance.now()
    const bytes = runs.reduce((sum, run) => sum + run.reduce((runSum, part) => runSum + part.length, 0), 0)
    const sealed = await this.#seal(runs, bytes)
    this.#sealedBytes += bytes
    this.#times.addSince(start)
    return sealed
  }

  #seal(runs: readonly SealRun[], bytes: number): Promise<Sealed[][]> | Sealed[][] {
    if (bytes <= INLINE_BYTES_MAX || this.#options.workers === 0) {
      return runs.map((run) => sealRun(run, this.#read, this.#options.store))
    }
    return new Promise((resolve, reject) => {
      const job = this.#jobs++
      this.#waiting.set(job, { resolve, reject })
      const worker = this.#worker(job)
      worker.ref()
      worker.postMessage({ job, runs } satisfies SealJob)
    })
  }

  /** Segments were removed: the threads let go of them too, so that their space is free. */
  forgetSegments(segments: readonly number[]): void {
    for (const worker of this.#workers) worker.postMessage({ forget: segments } satisfies SealForget)
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }

  #worker(job: number): Worker {
    const slot = job % this.#options.workers
    let worker = this.#workers[slot]
    if (worker === undefined) {
      worker = this.#start()
      this.#workers[slot] = worker
    }
    return worker
  }

  #start(): Worker {
    const { directory, store } = this.#options
    const worker = new Worker(new URL('./sealworker.js', import.meta.url), {
      workerData: { directory, store } satisfies SealWorkerData,
    })
    worker.on('message', (reply: SealReply) => {
      const waiting = this.#waiting.get(reply.job)
      this.#waiting.delete(reply.job)
      // An idle thread must not keep the process alive.
      if (this.#waiting.size === 0) for (const idle of this.#workers) idle.unref()
      if (waiting === undefined) return
      if ('sealed' in reply) waiting.resolve(reply.sealed)
      else waiting.reject(new NexusError('NEXUS_INTERNAL', `sealing failed: ${reply.error}`))
    })
    worker.on('error', (cause) => {
      // Its jobs are lost; a checkpoint that fails leaves everything in the log and is tried again.
      const index = this.#workers.indexOf(worker)
      if (index !== -1) this.#workers.splice(index, 1, this.#start())
      for (const waiting of this.#waiting.values())
        waiting.reject(new NexusError('NEXUS_INTERNAL', 'a sealing thread died', { cause }))
      this.#waiting.clear()
    })
    return worker
  }
}
