/** What npm does, without a network: a lockfile, and a cache that has every package. */
import type { Job, Workload } from '../workload.ts'
import { expectEqual } from '../workload.ts'

/** packages */
const SIZES = { full: 400, quick: 20, budget: 5 }
const programs = { npm: 'npm' }

async function prepare({ shell, directory, inputs, size }: Job): Promise<void> {
  await shell.run(directory, `cp ${inputs.packages(size).project}/package*.json .`)
}

function install({ shell, directory, inputs, size }: Job): Promise<number> {
  const { cache } = inputs.packages(size)
  return shell.time(directory, `npm ci --offline --ignore-scripts --no-audit --no-fund --logs-max=0 --cache ${cache}`)
}

export const npm: readonly Workload[] = [
  {
    ...{ name: 'npm ci, warm cache', measure: 'time', aim: 1.5, sizes: SIZES, each: 'package', programs },
    prepare,
    run: install,
    verify: async ({ shell, directory, inputs, size }) =>
      expectEqual(
        'files of packages',
        await shell.run(directory, "find node_modules -type f ! -name '.package-lock.json' | wc -l"),
        inputs.packages(size).files,
      ),
  },
  {
    ...{ name: 'rm -rf node_modules', measure: 'time', aim: 1.5, sizes: SIZES, each: 'package', programs },
    prepare: async (job) => {
      await prepare(job)
      await install(job)
    },
    run: ({ shell, directory }) => shell.time(directory, 'rm -rf node_modules'),
    verify: async ({ shell, directory }) => expectEqual('what is left', await shell.run(directory, 'find . -type f | wc -l'), 2),
  },
]
