/**
 * `snapshot diff -p` and `--stat` on a real mount: what git apply and GNU patch make of the older tree with the patch is the
 * newer tree, whatever was done to it.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { runCtl } from '../../src/cli/ctl.ts'
import type { DiffStat } from '../../src/cli/patch/stat.ts'
import { connectControl } from '../../src/client/client.ts'
import { socketPathOf } from '../../src/host/location.ts'
import { sh } from './guest.ts'
import { mountFor, nexusctl, noMount, plainFor, type TestMount } from './harness.ts'

const skip = noMount ?? false
const timeout = 400_000
const RUNS = Number(process.env['NEXUS_PATCH_RUNS'] ?? 25)
const seed = Number(process.env['NEXUS_SEED'] ?? Date.now() % 1_000_000)

interface Said {
  status: number
  stdout: Buffer
  stderr: string
}

/** nexusctl in this process, which is none of the daemon's. */
async function ctl(mount: TestMount, ...words: string[]): Promise<Said> {
  const parts: Buffer[] = []
  let stderr = ''
  const status = await runCtl(['--data', mount.data, ...words], {
    env: {},
    cwd: () => '/',
    stdout: (text) => parts.push(Buffer.from(text as string)),
    stderr: (text) => {
      stderr += text
    },
  })
  return { status, stdout: Buffer.concat(parts), stderr }
}

async function patchOf(mount: TestMount, ...words: string[]): Promise<Buffer> {
  const { status, stdout, stderr } = await ctl(mount, 'snapshot', 'diff', '-p', ...words)
  if (status !== 0) throw new Error(stderr)
  return stdout
}

/** All files, as far as a patch knows them: name, mode and content. */
function filesIn(directory: string): Map<string, string> {
  const found = new Map<string, string>()
  const walk = (at: Buffer, name: string): void => {
    for (const entry of fs.readdirSync(at, { encoding: 'buffer' })) {
      const [one, inside] = [Buffer.concat([at, Buffer.from('/'), entry]), `${name}/${entry.toString('latin1')}`]
      const stat = fs.lstatSync(one)
      if (stat.isDirectory()) walk(one, inside)
      else if (stat.isSymbolicLink()) found.set(inside, `-> ${fs.readlinkSync(one, 'latin1')}`)
      else found.set(inside, `${(stat.mode & 0o100) === 0 ? '' : 'x '}${fs.readFileSync(one, 'latin1')}`)
    }
  }
  walk(Buffer.from(directory), '')
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** A copy that can be written to: files in snapshots have no bit for that. */
function copyOf(t: Test, directory: string): string {
  const copy = path.join(plainFor(t), 'copy')
  execFileSync('cp', ['-a', directory, copy])
  execFileSync('chmod', ['-R', 'u+w', copy])
  return copy
}

type Apply = (directory: string, patch: Buffer) => void
const gitApply: Apply = (cwd, input) => run('git', ['apply', '--whitespace=nowarn'], cwd, input)
const gitReverse: Apply = (cwd, input) => run('git', ['apply', '-R', '--whitespace=nowarn'], cwd, input)
const gnuPatch: Apply = (cwd, input) => run('patch', ['-p1', '--force', '--quiet', '--no-backup-if-mismatch'], cwd, input)

function run(program: string, words: string[], cwd: string, input: Buffer): void {
  if (input.length === 0) return
  const env = { ...process.env, GIT_CEILING_DIRECTORIES: path.dirname(cwd), LC_ALL: 'C' }
  execFileSync(program, words, { cwd, input, env, stdio: ['pipe', 'pipe', 'pipe'] })
}

// Names that git quotes, names with spaces, bytes that are no UTF-8, and what looks like such a byte as the daemon tells it.
const NAMES = ['a', 'b', 'c', 'd', 'two words', 'ü', '\\x41', 'q"t', 'tab\there', 'new\nline', '\xff\xfe', '-x', 'b '].map(
  (name) => (name === '\xff\xfe' ? Buffer.from(name, 'latin1') : Buffer.from(name)),
)
const name = fc.integer({ min: 0, max: NAMES.length - 1 })
/** Mostly three names, so that edits meet. */
const place = fc.array(fc.oneof({ weight: 3, arbitrary: fc.integer({ min: 0, max: 2 }) }, { weight: 1, arbitrary: name }), {
  minLength: 1,
  maxLength: 3,
})
const line = fc.constantFrom('', 'one', 'two', 'three', 'x', '--- a/x', '+++ b/x', '@@ -1 +1 @@', '\\ No newline', 'cr\r', '\xe9')
const content = fc
  .tuple(fc.array(line, { maxLength: 25 }), fc.boolean())
  .map(([lines, isOpen]) => Buffer.from(lines.join('\n') + (isOpen ? '' : '\n'), 'latin1'))
const edit = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('write' as const), at: place, content }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('alter' as const), at: place, where: fc.nat(30), text: line, drop: fc.nat(2) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('move' as const), at: place, to: place }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), at: place }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('link' as const), at: place, target: fc.constantFrom('a', 'x/y', 'z z', 'ü') }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('mode' as const), at: place }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('touch' as const), at: place }) },
)
type EditOf = typeof edit extends fc.Arbitrary<infer E> ? E : never

/** What cannot be done (a name is taken, or is none of that kind) is left. */
function make(root: string, one: EditOf): void {
  const at = pathOf(root, one.at)
  try {
    if (one.do === 'write') {
      fs.mkdirSync(pathOf(root, one.at.slice(0, -1)), { recursive: true })
      fs.writeFileSync(at, one.content)
    } else if (one.do === 'alter') {
      const lines = fs.readFileSync(at, 'latin1').split('\n')
      lines.splice(one.where % (lines.length + 1), one.drop, one.text)
      fs.writeFileSync(at, lines.join('\n'), 'latin1')
    } else if (one.do === 'move') fs.renameSync(at, pathOf(root, one.to))
    else if (one.do === 'remove') fs.rmSync(at, { recursive: true })
    else if (one.do === 'link') fs.symlinkSync(one.target, at)
    else if (one.do === 'mode') fs.chmodSync(at, (fs.lstatSync(at).mode ^ 0o111) & 0o777)
    else fs.utimesSync(at, 1, 1)
  } catch (error) {
    if (
      !['ENOENT', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENOTEMPTY', 'EINVAL', 'ELOOP'].includes(
        (error as NodeJS.ErrnoException).code ?? '',
      )
    )
      throw error
  }
}

function pathOf(root: string, at: readonly number[]): Buffer {
  return Buffer.concat([Buffer.from(root), ...at.flatMap((one) => [Buffer.from('/'), NAMES[one] as Buffer])])
}

/** Whether a file is where a directory with files was, or the other way round: GNU patch removes files last, and cannot do that. */
function isTurned(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): boolean {
  const isBelow = (one: ReadonlyMap<string, string>, other: ReadonlyMap<string, string>): boolean =>
    [...one.keys()].some((name) => name.split('/').some((_, i, names) => i > 0 && other.has(names.slice(0, i).join('/'))))
  return isBelow(before, after) || isBelow(after, before)
}

async function started(t: Test): Promise<{ mount: TestMount; service: Service }> {
  const mount = await mountFor(t)
  return { mount, service: connectControl({ socketPath: socketPathOf(mount.data) }) }
}

t.test('whatever was done, the patch makes the newer tree of the older one', { skip, timeout }, async (t) => {
  const { mount, service } = await started(t)
  let count = 0
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { maxLength: 30 }), fc.array(edit, { maxLength: 15 }), async (first, then) => {
      const space = `/workspace/w${count++}`
      const dir = mount.at(space)
      fs.mkdirSync(dir)
      for (const one of first) make(dir, one)
      await service.snapshotCreate(space, { name: 'before' })
      for (const one of then) make(dir, one)
      await service.snapshotCreate(space, { name: 'after' })
      const [patch, same] = [await patchOf(mount, space, 'before'), await patchOf(mount, space, 'before', 'after')]
      t.same(patch.toString('latin1'), same.toString('latin1'), 'the live state and its snapshot')
      const [before, after] = [filesIn(`${dir}/.snapshots/before`), filesIn(dir)]
      for (const [apply, from, want] of [
        [gitApply, `${dir}/.snapshots/before`, after],
        [gnuPatch, `${dir}/.snapshots/before`, after],
        [gitReverse, dir, before],
      ] as const) {
        if (apply === gnuPatch && isTurned(before, after)) continue
        const copy = copyOf(t, from)
        try {
          apply(copy, patch)
        } catch (error) {
          throw new Error(
            `${String((error as { stderr?: unknown }).stderr ?? error)} ${String((error as { stdout?: unknown }).stdout ?? error)}\n${patch.toString('latin1')}`,
          )
        }
        const is = filesIn(copy)
        if (JSON.stringify([...is]) !== JSON.stringify([...want]))
          throw new Error(
            `${JSON.stringify([...is], null, 1)}\nis not\n${JSON.stringify([...want], null, 1)}\n${patch.toString('latin1')}`,
          )
        fs.rmSync(copy, { recursive: true })
      }
      await service.workspaceDelete(space)
    }),
    { numRuns: RUNS, seed, interruptAfterTimeLimit: 300_000, endOnFailure: process.env['NEXUS_SHRINK'] === undefined },
  )
  t.pass(`${count} trees, seed ${seed}`)
})

/** The counts of git for the same two trees. */
function gitCounts(before: string, after: string): string[] {
  const words = ['diff', '--no-index', '--numstat', '--no-renames', '-z', before, after]
  const { stdout } = spawnSync('git', words, { encoding: 'utf8', cwd: '/' })
  return [...stdout.matchAll(/(\d+|-)\t(\d+|-)\t\0[^\0]*\0[^\0]*\0|(\d+|-)\t(\d+|-)\t[^\0]*\0/g)].map(
    (one) => `${one[1] ?? one[3]} ${one[2] ?? one[4]}`,
  )
}

t.test('counts, binary and large files, and what no patch can hold', { skip, timeout }, async (t) => {
  const { mount, service } = await started(t)
  const [space, dir] = ['/workspace/w', mount.at('workspace/w')]
  await service.workspaceCreate(space, { snapshotDir: '.history' })
  sh(
    'seq 100 > numbers; seq 20 > gone; printf "a\\0b" > binary; echo old > name; mkdir empty in; echo x > in/f; seq 9 > mode; ln -s x link',
    dir,
  )
  fs.writeFileSync(`${dir}/large`, 'line\n'.repeat(1_700_000))
  await service.workspaceCreate(`${space}/nest`, {})
  sh('seq 30 > nest/n', dir)
  await service.snapshotCreate(space, { name: 's' })
  t.same(
    await ctl(mount, 'snapshot', 'diff', '-p', space, 's'),
    { status: 0, stdout: Buffer.alloc(0), stderr: '' },
    'nothing differs',
  )
  sh(
    'sed -i "s/^5.$/x/; 3d" numbers; rm gone; printf "a\\0c" > binary; mv name "new name"; rmdir empty; mkfifo pipe; chmod 600 in/f',
    dir,
  )
  sh('chmod +x mode; ln -sfn y link; echo more >> large; mkdir fresh; touch fresh/file; sed -i 2d nest/n; mv nest nest2', dir)

  const stat = await ctl(mount, 'snapshot', 'diff', '--stat', space, 's')
  t.equal(
    stat.stdout.toString(),
    [
      ' binary            | Bin 3 -> 3 bytes',
      ' fresh/file        |   0',
      ' gone              |  20 --------------------',
      ' large             | Bin 8500000 -> 8500005 bytes (too large to count)',
      ' link              |   2 +-',
      ' mode              |   0',
      ' nest/n => nest2/n |   1 -',
      ' name => new name  |   0',
      ' numbers           |  21 ++++++++++-----------',
      ' 9 files changed, 11 insertions(+), 33 deletions(-)',
      '',
    ].join('\n'),
  )
  const json = await ctl(mount, '--json', 'snapshot', 'diff', '--stat', space, 's')
  const { files, ...rest } = JSON.parse(json.stdout.toString()) as DiffStat
  t.match(rest, { to: 'live', added: 11, removed: 33 })
  t.same(
    files.find((file) => file.path === 'numbers'),
    {
      path: 'numbers',
      change: 'modified',
      added: 10,
      removed: 11,
      uncounted: null,
    },
  )
  t.match(
    files.find((file) => file.path === 'new name'),
    { change: 'renamed', from: 'name', added: 0, removed: 0 },
  )
  t.match(
    files.find((file) => file.path === 'large'),
    { added: null, removed: null, uncounted: 'too large' },
  )
  t.match(
    files.find((file) => file.path === 'binary'),
    { added: null, uncounted: 'binary' },
  )
  const parts = (only: string) => files.filter((file) => file.path === only).map((file) => `${file.added} ${file.removed}`)
  t.same(parts('numbers'), gitCounts(`${dir}/.history/s/numbers`, `${dir}/numbers`), 'as git counts')

  const { status, stdout, stderr } = await ctl(mount, 'snapshot', 'diff', '-p', '--stat', space, 's')
  const text = stdout.toString()
  t.equal(status, 0)
  t.ok(text.startsWith(`${stat.stdout.toString()}\n`), 'the counts come first')
  t.match(text, /^Binary files a\/binary and b\/binary differ$/m)
  t.match(text, /^Binary files a\/large and b\/large differ\n\(larger than 8388608 bytes: not compared by lines\)$/m)
  t.match(
    text,
    /^diff --git "a\/name" "b\/new name"\nsimilarity index 100%|^diff --git a\/name "b\/new name"\nsimilarity index 100%/m,
  )
  t.match(text, /^old mode 100644\nnew mode 100755$/m)
  t.match(stderr, /^nexusctl: \d+ changes not in a patch: /, 'the FIFO, the directory and the mode 0600')
  t.throws(() => gitApply(copyOf(t, `${dir}/.history/s`), stdout), /binary/, 'never half of it in silence')
  sh('rm binary large; printf "a\\0b" > binary; cp .history/s/large .', dir)
  const copy = copyOf(t, `${dir}/.history/s`)
  fs.rmSync(`${dir}/pipe`)
  gitApply(copy, (await ctl(mount, 'snapshot', 'diff', '-p', '--stat', space, 's')).stdout)
  t.same(filesIn(copy), filesIn(dir), 'the counts in front do no harm')

  // A directory, its own snapshot, and what is younger than a snapshot.
  await service.snapshotCreate(`${space}/in`, { name: 'of-in' })
  sh('echo y >> in/f', dir)
  for (const from of ['s', 'of-in']) {
    t.match(
      (await patchOf(mount, `${space}/in`, from)).toString(),
      /^diff --git a\/f b\/f\nindex [^\n]+\n--- a\/f\n\+\+\+ b\/f\n@@ -1 \+1,2 @@\n x\n\+y\n$/,
    )
  }
  sh('echo z > fresh/file', dir)
  t.match((await patchOf(mount, `${space}/fresh`, 's')).toString(), /^diff --git a\/file b\/file\nnew file mode 100644\n/)
  t.match(await ctl(mount, 'snapshot', 'diff', '-p', `${space}/in`, 's', 'of-in'), { status: 0, stdout: Buffer.alloc(0) })

  const failures: [status: number, line: RegExp, words: string[]][] = [
    [2, /a patch is text: leave out --json/, ['--json', 'snapshot', 'diff', '-p', space, 's']],
    [2, /cannot be used with option '--limit/, ['snapshot', 'diff', '-p', '--limit', '5', space, 's']],
    [1, /has no snapshot none/, ['snapshot', 'diff', '--stat', space, 'none']],
  ]
  for (const [status, line, words] of failures) {
    const failed = await ctl(mount, ...words)
    t.equal(failed.status, status, words.join(' '))
    t.equal(failed.stdout.length, 0)
    t.match(failed.stderr, line)
  }
})

t.test('a user has what they may read, and no more', { skip: skip || process.getuid?.() !== 0, timeout }, async (t) => {
  const { mount, service } = await started(t)
  const [space, dir] = ['/workspace/w', mount.at('workspace/w')]
  // The mountpoint lies in a directory that is root's alone.
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  await service.identityAdd('user:vic', 4711)
  await service.workspaceCreate(space, {})
  sh('echo 1 > open; echo secret > closed; chmod 644 open; chmod 600 closed; mkdir sub; echo 1 > sub/f; chmod 755 sub .', dir)
  await service.snapshotCreate(space, { name: 's' })
  sh('echo 2 > open', dir)
  await service.grant('user:vic', 'viewer', space, {})
  const asVic = (...words: string[]) => {
    const own = ['--reuid', '4711', '--regid', '4711', '--clear-groups', process.execPath, nexusctl]
    return spawnSync('setpriv', [...own, 'snapshot', 'diff', ...words], {
      cwd: dir,
      encoding: 'utf8',
      env: { HOME: '/', PATH: process.env['PATH'] },
    })
  }
  t.match(asVic('-p', '.', 's'), { status: 0, stdout: /^diff --git a\/open b\/open\n[\s\S]*-1\n\+2\n$/ })
  sh('echo other > closed', dir)
  const refused = asVic('-p', '.', 's')
  t.match(refused, {
    status: 1,
    stdout: /^$/,
    stderr: /^nexusctl: you may not read closed in \/workspace\/w[^\n]*: ask one of its owners, [^\n]+\n$/,
  })
  await service.revoke('user:vic', 'viewer', space)
  await service.grant('user:vic', 'viewer', `${space}/sub`, {})
  sh('echo 2 > sub/f', dir)
  t.match(asVic('--stat', `${dir}/sub`, 's'), { status: 1, stdout: /^$/, stderr: /you may not list the root of the workspace/ })
})
