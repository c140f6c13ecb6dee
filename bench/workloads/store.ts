/** What only a store with snapshots has: copies, states that share, and how many bytes it keeps of what is alike. */
import path from 'node:path'
import { SourceTree } from '../generator.ts'
import type { Job, Store, Workload } from '../workload.ts'
import { BenchError, expectEqual } from '../workload.ts'

const MIB = 2 ** 20
/** MiB */
const LARGE = { full: 10_240, quick: 256, budget: 16 }
const FILE = { full: 32, quick: 32, budget: 4 }
const FILES = { full: 50_000, quick: 1_000, budget: 300 }
const EDITS = 16
const EDIT_BYTES = 10
const COPIES = 10
const STATES = 11
/** the file of a source tree that is changed */
const CHANGED = new SourceTree().path(0)

function storeOf({ place }: Job): Store {
  if (place.store === undefined) throw new BenchError(`${place.name} has no store to ask`)
  return place.store
}

/** Where the directory of a round is to the service. */
function pathOf(job: Job): string {
  return `${storeOf(job).workspace}/${path.relative(job.place.home, job.directory)}`
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] as number
}

/** MiB that the store needs more than before, after each of some changes. */
async function grown(job: Job, ...changes: (() => void | Promise<void>)[]): Promise<number[]> {
  const store = storeOf(job)
  const before = await store.storedBytes()
  const after: number[] = []
  for (const change of changes) {
    await change()
    after.push(((await store.storedBytes()) - before) / MIB)
  }
  return after
}

/** What several cost, to what the first of them does. */
function timesFirst([first = Number.NaN, all = Number.NaN]: readonly number[]): number {
  return all / first
}

const makeLarge = ({ shell, directory, size }: Job): void => void shell.ops(directory, 'write', size)

/** A state of a tree of `size` files with one of them changed, `STATES` times; what the daemon says it took. */
function states(name: string, what: (job: Job, workspace: string, round: number) => Promise<number>): Workload {
  const workspaceOf = (job: Job): string => `/workspace/states-${path.basename(job.directory)}`
  return {
    ...{ name, measure: 'ms', aim: 5, sizes: FILES, each: 'file', onlyStore: true, noBudget: true },
    prepare: async (job) => {
      await storeOf(job).service.workspaceCreate(workspaceOf(job), { owner: 'user:bench-owner' })
      job.shell.run(mountedAt(job, workspaceOf(job)), `tar -xf ${job.inputs.tar(job.size)}`)
    },
    run: async (job) => {
      const at = mountedAt(job, workspaceOf(job))
      const times: number[] = []
      for (let round = 0; round < STATES; round++) {
        job.shell.run(at, `echo ${round} >> ${CHANGED}`)
        times.push(await what(job, workspaceOf(job), round))
      }
      return median(times)
    },
    verify: async (job) => void (await storeOf(job).service.workspaceDelete(workspaceOf(job))),
  }
}

function mountedAt({ place }: Job, workspace: string): string {
  return path.join(path.dirname(path.dirname(place.home)), workspace)
}

async function takeSnapshot(job: Job, workspace: string, round: number): Promise<number> {
  return (await storeOf(job).service.snapshotCreate(workspace, { name: `s${round}` })).elapsed_ms as number
}

export const store: readonly Workload[] = [
  {
    ...{ name: 'cp of a file in a workspace', measure: 'ms', aim: 50, sizes: LARGE, each: 'MiB', onlyStore: true },
    prepare: ({ shell, directory, size }) => {
      // Grown by copies: to write all of it takes longer, and the pieces are the same.
      const first = Math.min(size, 1024)
      shell.ops(directory, 'write', first)
      const more = `import os
a = os.open('large', os.O_RDWR)
at = ${first} << 20
while at < ${size} << 20:
    at += os.copy_file_range(a, a, min(${first} << 20, (${size} << 20) - at), 0, at)`
      if (first < size) shell.run(directory, `python3 -c "${more}"`)
    },
    run: ({ shell, directory }) => shell.time(directory, 'cp large copy') * 1000,
    verify: ({ shell, directory, size }) => {
      expectEqual('size of the copy', shell.run(directory, 'stat -c %s copy'), size * MIB)
      const last = 'tail -c 1000000 '
      shell.run(directory, `cmp <(${last} large) <(${last} copy)`)
    },
  },
  states('snapshot after a change', takeSnapshot),
  states('restore after a change', async (job, workspace, round) => {
    if (round === 0) await takeSnapshot(job, workspace, 0)
    return (await storeOf(job).service.restore(workspace, 's0', {})).elapsed_ms
  }),
  states('fork after a change', async (job, workspace, round) => {
    const { service } = storeOf(job)
    const fork = `${workspace}-fork-${round}`
    const { elapsed_ms } = await service.fork(workspace, fork, {})
    await service.workspaceDelete(fork)
    return elapsed_ms
  }),
  {
    ...{ name: `${EDITS} edits of ${EDIT_BYTES} bytes, a snapshot after each: stored`, measure: 'MiB', aim: 0.25, sizes: FILE },
    ...{ each: 'MiB', onlyStore: true, noBudget: true },
    prepare: makeLarge,
    run: async (job) => {
      const [stored] = await grown(job, async () => {
        for (let edit = 0; edit < EDITS; edit++) {
          const at = Math.floor((job.size * MIB * (edit + 0.5)) / EDITS)
          job.shell.run(job.directory, `printf '%010d' ${edit} | dd of=large bs=1 seek=${at} conv=notrunc status=none`)
          await storeOf(job).service.snapshotCreate(pathOf(job), { name: `edit-${path.basename(job.directory)}-${edit}` })
        }
      })
      return stored as number
    },
  },
  {
    ...{ name: 'prepend 10 bytes by copy and rename: stored', measure: 'MiB', aim: 0.05, sizes: FILE, each: 'MiB' },
    ...{ onlyStore: true, noBudget: true },
    prepare: makeLarge,
    run: async (job) => {
      const change = '{ printf 0123456789; cat large; } > new && mv new large'
      const [stored] = await grown(job, () => void job.shell.run(job.directory, change))
      return stored as number
    },
    verify: ({ shell, directory, size }) =>
      expectEqual('size', shell.run(directory, 'stat -c %s large'), size * MIB + EDIT_BYTES),
  },
  {
    ...{ name: `${COPIES} copies of a source tree, one line changed in each: stored`, measure: 'times', aim: 1.02 },
    ...{ sizes: { full: 5_000, quick: 300, budget: 100 }, each: 'file', onlyStore: true, noBudget: true },
    run: async (job) => {
      const { shell, directory, inputs, size } = job
      const copies = (from: number, to: number) => (): void => {
        const change = `echo "// changed in $i" >> ${CHANGED}`
        const one = `mkdir $i; cd $i; tar -xf ${inputs.tar(size)}; ${change}; cd ..`
        shell.run(directory, `for i in $(seq ${from} ${to}); do ${one}; done`)
      }
      return timesFirst(await grown(job, copies(1, 1), copies(2, COPIES)))
    },
  },
  {
    ...{ name: `${COPIES} forks of a source tree, one line changed in each: stored`, measure: 'times', aim: 1.02 },
    ...{ sizes: { full: 5_000, quick: 300, budget: 100 }, each: 'file', onlyStore: true, noBudget: true },
    run: async (job) => {
      const { shell, inputs, size } = job
      const { service } = storeOf(job)
      const name = (i: number): string => `/workspace/copy-${path.basename(job.directory)}-${i}`
      const change = (i: number): void => void shell.run(mountedAt(job, name(i)), `echo "// changed in ${i}" >> ${CHANGED}`)
      const first = async (): Promise<void> => {
        await service.workspaceCreate(name(0), { owner: 'user:bench-owner' })
        shell.run(mountedAt(job, name(0)), `tar -xf ${inputs.tar(size)}`)
        change(0)
      }
      const others = async (): Promise<void> => {
        for (let i = 1; i < COPIES; i++) {
          await service.fork(name(0), name(i), { owner: 'user:bench-owner' })
          change(i)
        }
      }
      const stored = await grown(job, first, others)
      for (let i = 0; i < COPIES; i++) await service.workspaceDelete(name(i))
      return timesFirst(stored)
    },
  },
  {
    ...{ name: 'new file data, written to the disk for each of its bytes', measure: 'times', aim: 1.1, each: 'MiB' },
    ...{ sizes: { full: 1024, quick: 64, budget: 16 }, onlyStore: true, noBudget: true },
    run: async (job) => {
      const before = await storeOf(job).writtenBytes()
      makeLarge(job)
      await job.place.settle()
      return ((await storeOf(job).writtenBytes()) - before) / (job.size * MIB)
    },
  },
]
