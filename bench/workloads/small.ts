/** Small files that are made: by system calls, from archives, by a compiler, and by several at once. */
import type { Job, Workload } from '../workload.ts'
import { expectEqual } from '../workload.ts'

const PROCESSES = 4

async function countFiles({ shell, directory }: Job, size: number): Promise<void> {
  expectEqual('files', await shell.run(directory, 'find . -type f | wc -l'), size)
}

/** Each into a directory of its own: which one after the other, or all at once. */
function inTrees(size: number, atOnce: boolean, ops: string): string {
  const one = `${ops} $i create ${size} > /dev/null`
  if (!atOnce) return `for i in $(seq ${PROCESSES}); do mkdir $i; ${one}; done`
  return `for i in $(seq ${PROCESSES}); do mkdir $i; ${one} & pids[$i]=$!; done; for i in $(seq ${PROCESSES}); do wait \${pids[$i]}; done`
}

export const small: readonly Workload[] = [
  {
    ...{ name: 'create, write 4 KiB, close', measure: 'time', aim: 2.0, each: 'file' },
    sizes: { full: 10_000, quick: 1_000, budget: 300 },
    run: ({ shell, directory, size }) => shell.ops(directory, 'create', size),
    verify: (job) => countFiles(job, job.size),
  },
  {
    ...{ name: 'unlink', measure: 'time', aim: undefined, each: 'file' },
    sizes: { full: 10_000, quick: 1_000, budget: 300 },
    prepare: ({ shell, directory, size }) => shell.ops(directory, 'create', size),
    run: ({ shell, directory, size }) => shell.ops(directory, 'unlink', size),
    verify: (job) => countFiles(job, 0),
  },
  {
    ...{ name: 'untar', measure: 'time', aim: 2.0, each: 'file', programs: { tar: 'tar' } },
    sizes: { full: 30_000, quick: 1_000, budget: 300 },
    prepare: async ({ inputs, size }) => inputs.tar(size),
    run: ({ shell, directory, inputs, size }) => shell.time(directory, `tar -xf ${inputs.tar(size)}`),
    verify: async (job) => {
      await countFiles(job, job.size)
      await job.shell.run(job.directory, `diff -r ${job.inputs.tree(job.size)}/module0 module0`)
    },
  },
  {
    ...{ name: 'unzip, times set after close', measure: 'time', aim: 2.0, each: 'file' },
    sizes: { full: 15_000, quick: 1_000, budget: 300 },
    programs: { unzip: 'unzip', zip: 'zip' },
    prepare: async ({ inputs, size }) => inputs.zip(size),
    run: ({ shell, directory, inputs, size }) => shell.time(directory, `unzip -q ${inputs.zip(size)}`),
    verify: async (job) => {
      await countFiles(job, job.size)
      expectEqual('files that are new', await job.shell.run(job.directory, 'find . -type f -newermt 2020-01-02 | wc -l'), 0)
    },
  },
  {
    ...{ name: 'make -j2', measure: 'time', aim: 1.2, each: 'source' },
    sizes: { full: 120, quick: 8, budget: 3 },
    programs: { make: 'make', gcc: 'gcc' },
    prepare: ({ shell, directory, inputs, size }) => shell.run(directory, `cp -r ${inputs.project(size)}/. .`),
    run: ({ shell, directory }) => shell.time(directory, 'make -s -j2'),
    verify: async ({ shell, directory, size }) => expectEqual('what was built says', await shell.run(directory, './all'), size),
  },
  {
    ...{ name: `${PROCESSES} processes, each its own tree`, measure: 'time', aim: 1.2, each: 'file' },
    sizes: { full: 20_000, quick: 2_000, budget: 400 },
    run: ({ shell, directory, size, inputs }) => shell.time(directory, inTrees(size / PROCESSES, true, inputs.ops)),
    verify: (job) => countFiles(job, job.size),
  },
  {
    ...{ name: `${PROCESSES} processes at once, to one after the other`, measure: 'times', aim: 1.0, each: 'file' },
    sizes: { full: 20_000, quick: 2_000, budget: 400 },
    noBudget: true,
    run: async ({ shell, directory, size, inputs }) => {
      await shell.run(directory, 'mkdir serial parallel')
      const serial = await shell.time(`${directory}/serial`, inTrees(size / PROCESSES, false, inputs.ops))
      const parallel = await shell.time(`${directory}/parallel`, inTrees(size / PROCESSES, true, inputs.ops))
      return parallel / serial
    },
    verify: (job) => countFiles(job, 2 * job.size),
  },
]
