/** The thread that seals: reads runs from the segment files and answers with chunks. */
import path from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { directoryDisk } from '../journal/disk.ts'
import { OpenFiles } from '../journal/openfiles.ts'
import { type LogReader, type Run, type Sealed, sealRun } from './seal.ts'

export interface SealWorkerData {
  directory: string
  store: bigint
}

export interface SealJob {
  job: number
  runs: readonly Run[]
}

export type SealReply = { job: number; sealed: Sealed[][] } | { job: number; error: string }

const { directory, store } = workerData as SealWorkerData
const disk = directoryDisk(path.resolve(directory))
const files = new OpenFiles(disk)

const read: LogReader = (segment, offset, length, into, at) => {
  if (disk.read(files.get(segment), into, at, length, offset) !== length) throw new Error(`segment ${segment} is too short`)
}

parentPort?.on('message', ({ job, runs }: SealJob) => {
  try {
    const sealed = runs.map((run) => sealRun(run, read, store))
    parentPort?.postMessage({ job, sealed } satisfies SealReply)
  } catch (error) {
    parentPort?.postMessage({ job, error: error instanceof Error ? error.message : String(error) } satisfies SealReply)
  }
})
