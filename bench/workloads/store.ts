/** What only a store with snapshots has: copies, states that share, and how many bytes it keeps of what is alike. */
import path from 'node:path'
import { SourceTree } from '../generator.ts'
import { median } from '../report.ts'
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

/** A round's own workspace, so that what is stored for it does not depend on what lies beside it. */
function workspaceOf(job: Job, name: string | number = 'own'): string {
  return `/workspace/${path.basename(job.directory)}-${name}`
}

function mountedAt({ place }: Job, workspace: string): string {
  return path.join(path.dirname(path.dirname(place.home)), workspace)
}

async function makeWorkspace(job: Job, workspace = workspaceOf(job)): Promise<void> {
  await storeOf(job).service.workspaceCreate(workspace, { owner: 'user:bench-owner' })
}

async function removeWorkspace(job: Job, workspace = workspaceOf(job)): Promise<void> {
  await storeOf(job).service.workspaceDelete(workspace)
}

/** Runs a script in the round's own workspace. */
function inWorkspace(job: Job, script: string, workspace = workspaceOf(job)): Promise<string> {
  return job.shell.run(mountedAt(job, workspace), script)
}

/** MiB that the store needs more than before, after each of some changes. */
async function grown(job: Job, ...changes: (() => Promise<unknown>)[]): Promise<number[]> {
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

const makeLarge = ({ shell, directory, size }: Job): Promise<number> => shell.ops(directory, 'write', size)

async function makeLargeApart(job: Job): Promise<void> {
  await makeWorkspace(job)
  await job.shell.ops(mountedAt(job, workspaceOf(job)), 'write', job.size)
}

/** A state of a tree of `size` files with one of them changed, `STATES` times; what the daemon says it took. */
function states(name: string, what: (job: Job, workspace: string, round: number) => Promise<number>): Workload {
  return {
    ...{ name, measure: 'ms', aim: 5, sizes: FILES, each: 'file', onlyStore: true, noBudget: true },
    prepare: async (job) => {
      await makeWorkspace(job)
      await inWorkspace(job, `tar -xf ${job.inputs.tar(job.size)}`)
    },
    run: async (job) => {
      const times: number[] = []
      for (let round = 0; round < STATES; round++) {
        await inWorkspace(job, `echo ${round} >> ${CHANGED}`)
        times.push(await what(job, workspaceOf(job), round))
      }
      return median(times)
    },
    verify: (job) => removeWorkspace(job),
  }
}

async function takeSnapshot(job: Job, workspace: string, round: number): Promise<number> {
  return (await storeOf(job).service.snapshotCreate(workspace, { name: `s${round}` })).elapsed_ms as number
}

export const store: readonly Workload[] = [
  {
    ...{ name: 'cp of a file in a workspace', measure: 'ms', aim: 50, sizes: LARGE, each: 'MiB', onlyStore: true },
    prepare: async ({ shell, directory, size }) => {
      // Grown by copies: to write all of it takes longer, and the pieces are the same.
      const first = Math.min(size, 1024)
      await shell.ops(directory, 'write', first)
      const more = `import os
a = os.open('large', os.O_RDWR)
at = ${first} << 20
while at < ${size} << 20:
    at += os.copy_file_range(a, a, min(${first} << 20, (${size} << 20) - at), 0, at)`
      if (first < size) await shell.run(directory, `python3 -c "${more}"`)
    },
    run: async ({ shell, directory }) => (await shell.time(directory, 'cp large copy')) * 1000,
    verify: async ({ shell, directory, size }) => {
      expectEqual('size of the copy', await shell.run(directory, 'stat -c %s copy'), size * MIB)
      const last = 'tail -c 1000000 '
      await shell.run(directory, `cmp <(${last} large) <(${last} copy)`)
    },
  },
  states('snapshot after a change', takeSnapshot),
  states('restore after a change', async (job, workspace, round) => {
    if (round === 0) await takeSnapshot(job, workspace, 0)
    return (await storeOf(job).service.restore(workspace, 's0', { force: true })).elapsed_ms
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
    prepare: makeLargeApart,
    run: async (job) => {
      const [stored] = await grown(job, async () => {
        for (let edit = 0; edit < EDITS; edit++) {
          const at = Math.floor((job.size * MIB * (edit + 0.5)) / EDITS)
          await inWorkspace(job, `printf '%010d' ${edit} | dd of=large bs=1 seek=${at} conv=notrunc status=none`)
          await takeSnapshot(job, workspaceOf(job), edit)
        }
      })
      return stored as number
    },
    verify: (job) => removeWorkspace(job),
  },
  {
    ...{ name: 'prepend 10 bytes by copy and rename: stored', measure: 'MiB', aim: 0.05, sizes: FILE, each: 'MiB' },
    ...{ onlyStore: true, noBudget: true },
    prepare: makeLargeApart,
    run: async (job) => {
      const change = '{ printf 0123456789; cat large; } > new && mv new large'
      const [stored] = await grown(job, () => inWorkspace(job, change))
      return stored as number
    },
    verify: async (job) => {
      expectEqual('size', await inWorkspace(job, 'stat -c %s large'), job.size * MIB + EDIT_BYTES)
      await removeWorkspace(job)
    },
  },
  {
    ...{ name: `${COPIES} copies of a source tree, one line changed in each: stored`, measure: 'times', aim: 1.02 },
    ...{ sizes: { full: 5_000, quick: 300, budget: 100 }, each: 'file', onlyStore: true, noBudget: true },
    prepare: (job) => makeWorkspace(job),
    run: async (job) => {
      const change = `echo "// changed in $i" >> ${CHANGED}`
      const one = `mkdir $i; cd $i; tar -xf ${job.inputs.tar(job.size, job.seed)}; ${change}; cd ..`
      const copies = (from: number, to: number) => () => inWorkspace(job, `for i in $(seq ${from} ${to}); do ${one}; done`)
      return timesFirst(await grown(job, copies(1, 1), copies(2, COPIES)))
    },
    verify: (job) => removeWorkspace(job),
  },
  {
    ...{ name: `${COPIES} forks of a source tree, one line changed in each: stored`, measure: 'times', aim: 1.02 },
    ...{ sizes: { full: 5_000, quick: 300, budget: 100 }, each: 'file', onlyStore: true, noBudget: true },
    run: async (job) => {
      const change = (i: number): Promise<string> =>
        inWorkspace(job, `echo "// changed in ${i}" >> ${CHANGED}`, workspaceOf(job, i))
      const first = async (): Promise<void> => {
        await makeWorkspace(job, workspaceOf(job, 0))
        await inWorkspace(job, `tar -xf ${job.inputs.tar(job.size, job.seed)}`, workspaceOf(job, 0))
        await change(0)
      }
      const others = async (): Promise<void> => {
        for (let i = 1; i < COPIES; i++) {
          await storeOf(job).service.fork(workspaceOf(job, 0), workspaceOf(job, i), { owner: 'user:bench-owner' })
          await change(i)
        }
      }
      return timesFirst(await grown(job, first, others))
    },
    verify: async (job) => {
      for (let i = 0; i < COPIES; i++) await removeWorkspace(job, workspaceOf(job, i))
    },
  },
  {
    ...{ name: 'new file data, written to the disk for each of its bytes', measure: 'times', aim: 1.1, each: 'MiB' },
    ...{ sizes: { full: 1024, quick: 64, budget: 16 }, onlyStore: true, noBudget: true },
    run: async (job) => {
      const before = await storeOf(job).writtenBytes()
      await makeLarge(job)
      await job.place.settle()
      return ((await storeOf(job).writtenBytes()) - before) / (job.size * MIB)
    },
  },
]
