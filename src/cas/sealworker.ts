/** The thread that seals: reads runs from the segment files and answers with chunks. */
import { constants, setPriority } from 'node:os'
import path from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { directoryDisk } from '../journal/disk.ts'
import { OpenFiles } from '../journal/openfiles.ts'
import { type Sealed, type SealRun, sealRun } from './seal.ts'
import type { LogReader } from './verified.ts'

export interface SealWorkerData {
  directory: string
  store: bigint
}

export interface SealJob {
  job: number
  runs: readonly SealRun[]
}

export interface SealForget {
  forget: readonly number[]
}

export type SealReply = { job: number; sealed: Sealed[][] } | { job: number; error: string }

// Of this thread alone (setpriority(2), "C library/kernel differences"): who reads and writes comes first.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL)

const { directory, store } = workerData as SealWorkerData
const disk = directoryDisk(path.resolve(directory))
const files = new OpenFiles(disk)

const read: LogReader = (segment, offset, length, into, at) => {
  if (disk.read(files.get(segment), into, at, length, offset) !== length) throw new Error(`segment ${segment} is too short`)
}

parentPort?.on('message', (message: SealJob | SealForget) => {
  if ('forget' in message) for (const segment of message.forget) files.close(segment)
  else parentPort?.postMessage(answer(message))
})

function answer({ job, runs }: SealJob): SealReply {
  try {
    return { job, sealed: runs.map((run) => sealRun(run, read, store)) }
  } catch (error) {
    return { job, error: error instanceof Error ? error.message : String(error) }
  }
}
