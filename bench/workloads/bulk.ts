/** Large files: in a row, and here and there. */
import type { Job, Workload } from '../workload.ts'
import { BenchError, expectEqual } from '../workload.ts'

/** MiB */
const SIZES = { full: 1024, quick: 64, budget: 8 }
const APPENDS = { full: 1_000_000, quick: 10_000, budget: 500 }
/** blocks of 4 KiB that are read or written, in a file four times as large */
const BLOCKS = { full: 20_000, quick: 1_000, budget: 200 }
const BLOCK_BYTES = 4096
const APPEND_BYTES = 128

async function sizeIs({ shell, directory }: Job, file: string, bytes: number): Promise<void> {
  expectEqual(`size of ${file}`, await shell.run(directory, `stat -c %s ${file}`), bytes)
}

const makeLarge = ({ shell, directory, size }: Job): Promise<number> => shell.ops(directory, 'write', size)
const readLarge = ({ shell, directory, size }: Job): Promise<number> => shell.ops(directory, 'read', size)

const fileBlocks = (size: number): number => size * 4

/** fio's own time of the job: from its first block until what it wrote is synced. */
function fio(name: string, rw: 'randread' | 'randwrite', way: 'direct' | 'mapped'): Workload {
  const engine = way === 'direct' ? '--ioengine=psync --direct=1' : '--ioengine=mmap'
  return {
    ...{ name, measure: 'time', aim: 1.5, sizes: BLOCKS, each: 'block', programs: { fio: 'fio' } },
    ...(way === 'mapped' ? { cold: 'kernel' } : {}),
    prepare: ({ shell, directory, size }) => shell.ops(directory, 'write', Math.ceil((fileBlocks(size) * BLOCK_BYTES) / 2 ** 20)),
    run: async ({ shell, directory, size }) => {
      const sizes = `--bs=${BLOCK_BYTES} --filesize=${fileBlocks(size) * BLOCK_BYTES} --number_ios=${size} --randseed=1`
      const words = `--name=bench --filename=large ${engine} --rw=${rw} ${sizes} --end_fsync=1 --thread`
      const text = await shell.run(directory, `fio ${words} --output-format=json --allow_file_create=0`)
      const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { job_runtime: number; error: number }[] }
      if (jobs[0] === undefined || jobs[0].error !== 0) throw new BenchError(`fio: ${text.slice(0, 500)}`)
      return jobs[0].job_runtime / 1000
    },
    verify: (job) => sizeIs(job, 'large', Math.ceil((fileBlocks(job.size) * BLOCK_BYTES) / 2 ** 20) * 2 ** 20),
  }
}

export const bulk: readonly Workload[] = [
  {
    ...{ name: 'sequential write, fsync', measure: 'time', aim: 1.2, sizes: SIZES, each: 'MiB' },
    run: ({ shell, directory, size }) => shell.ops(directory, 'write', size),
    verify: (job) => sizeIs(job, 'large', job.size * 2 ** 20),
  },
  {
    ...{ name: 'sequential read, cold', measure: 'time', aim: 1.2, sizes: SIZES, each: 'MiB', cold: 'kernel' },
    prepare: makeLarge,
    run: readLarge,
  },
  {
    ...{ name: 'sequential read, warm', measure: 'time', aim: 1.05, sizes: SIZES, each: 'MiB', warm: true },
    prepare: makeLarge,
    run: readLarge,
  },
  fio('random read, 4 KiB, direct', 'randread', 'direct'),
  fio('random write, 4 KiB, direct', 'randwrite', 'direct'),
  fio('random read, 4 KiB, mapped', 'randread', 'mapped'),
  fio('random write, 4 KiB, mapped', 'randwrite', 'mapped'),
  {
    ...{ name: 'append 128 bytes', measure: 'time', aim: 2.0, sizes: APPENDS, each: 'append' },
    run: ({ shell, directory, size }) => shell.ops(directory, 'append', size),
    verify: (job) => sizeIs(job, 'appended', job.size * APPEND_BYTES),
  },
]
