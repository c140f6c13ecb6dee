/** What git does to a working tree and to a store of objects. */
import type { Fixture, Workload } from '../workload.ts'
import { expectEqual } from '../workload.ts'

const COMMITS = 100
const SIZES = { full: 10_000, quick: 500, budget: 100 }
const programs = { git: 'git' }

const packed: Fixture = {
  name: 'packed',
  make: ({ asOwner, inputs, size, fixture }) =>
    asOwner.run('/', `git clone -q --bare --no-hardlinks ${inputs.repository(size, COMMITS)} ${fixture}`),
}

/** Every object a file of its own. */
const loose: Fixture = {
  name: 'loose',
  make: async ({ asOwner, inputs, size, fixture }) => {
    await asOwner.run('/', `git init -q --bare ${fixture}`)
    const from = inputs.repository(size, COMMITS)
    await asOwner.run(
      fixture,
      `for p in ${from}/objects/pack/*.pack; do git unpack-objects -q < $p; done; cp ${from}/packed-refs .`,
    )
  },
}

export const git: readonly Workload[] = [
  {
    ...{ name: 'git clone, local', measure: 'time', aim: 1.5, sizes: SIZES, each: 'file', programs, fixture: packed },
    run: ({ shell, directory, fixture }) => shell.time(directory, `git clone -q ${fixture} clone`),
    verify: async ({ shell, directory }) =>
      expectEqual('git status', await shell.run(`${directory}/clone`, 'git status --porcelain'), ''),
  },
  {
    ...{
      name: 'git checkout, between far commits',
      measure: 'time',
      aim: 1.5,
      sizes: SIZES,
      each: 'file',
      programs,
      fixture: packed,
    },
    prepare: ({ shell, directory, fixture }) => shell.run(directory, `git clone -q ${fixture} clone`),
    run: ({ shell, directory }) => shell.time(`${directory}/clone`, 'git checkout -q first && git checkout -q last'),
    verify: async ({ shell, directory }) =>
      expectEqual('git status', await shell.run(`${directory}/clone`, 'git status --porcelain'), ''),
  },
  {
    ...{ name: 'git gc, of loose objects', measure: 'time', aim: 1.5, sizes: SIZES, each: 'file', programs, fixture: loose },
    prepare: ({ shell, directory, fixture }) => shell.run(directory, `cp -r ${fixture} gc.git`),
    run: ({ shell, directory }) => shell.time(`${directory}/gc.git`, 'git gc -q --prune=now'),
    verify: async ({ shell, directory }) => {
      expectEqual('loose objects', await shell.run(`${directory}/gc.git`, 'git count-objects'), '0 objects, 0 kilobytes')
      await shell.run(`${directory}/gc.git`, 'git fsck --connectivity-only')
    },
  },
]
