/** Names and attributes, and small files that are only read: over one large tree of source files. */
import type { Fixture, Job, Workload } from '../workload.ts'
import { expectEqual } from '../workload.ts'

const SIZES = { full: 50_000, quick: 2_000, budget: 300 }

/** A clone of a repository of so many files; `git status` is quiet in it. */
const tree: Fixture = {
  name: 'tree',
  async make({ asOwner, inputs, size, fixture }) {
    await asOwner.run('/', `git clone -q --no-hardlinks ${inputs.repository(size, 1)} ${fixture}`)
    await asOwner.run(fixture, 'git status > /dev/null; sleep 1; git status > /dev/null')
    // By name, as a program would come by them: in the order of the list that git has.
    await asOwner.run(fixture, 'git ls-files > .git/list')
  },
}

const LIST = '.git/list'
const ls: Script = 'ls -lR .'
const find: Script = 'find . -type f -size +100k'
const status: Script = 'git status --porcelain'
// -F and --exclude-dir: what is measured is to open and read, not how fast grep is at expressions.
const grep: Script = 'grep -rF --exclude-dir=.git "no such words are in it" . || test $? = 1'

type Script = string

function warm(name: string, script: Script, aim: number, programs = {}): Workload {
  return {
    ...{ name, measure: 'time', aim, sizes: SIZES, each: 'file', fixture: tree, programs, warm: true },
    run: ({ shell, fixture }) => shell.time(fixture, script),
    verify,
  }
}

function cold(name: string, script: Script, from: 'kernel' | 'daemon'): Workload {
  return {
    ...{ name, measure: 'time', aim: 1.5, sizes: SIZES, each: 'file', fixture: tree, cold: from },
    run: ({ shell, fixture }) => shell.time(fixture, script),
    verify,
  }
}

function calls(name: string, operation: 'stat' | 'open', aim: number): Workload {
  return {
    ...{ name, measure: 'time', aim, sizes: SIZES, each: 'file', fixture: tree, warm: true },
    run: ({ shell, fixture, size }) => shell.ops(fixture, operation, size, LIST),
    verify,
  }
}

async function verify({ shell, fixture, size }: Job): Promise<void> {
  expectEqual('files in the tree', await shell.run(fixture, 'find . -path ./.git -prune -o -type f -print | wc -l'), size)
}

export const names: readonly Workload[] = [
  calls('stat, warm', 'stat', 1.1),
  warm('ls -lR, warm', ls, 1.1),
  warm('find, warm', find, 1.1),
  warm('git status, warm', status, 1.1, { git: 'git' }),
  calls('open, read, close, warm', 'open', 1.3),
  warm('grep -r, warm', grep, 1.3),
  cold('find, cold kernel', find, 'kernel'),
  cold('grep -r, cold kernel', grep, 'kernel'),
  cold('find, after a start', find, 'daemon'),
  cold('grep -r, after a start', grep, 'daemon'),
]
