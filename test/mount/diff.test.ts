/** `snapshot diff`: each path once, in order, and a rename is a rename; against trees that ordinary tools have changed. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import type { Service } from '../../src/api/calls.ts'
import type { ChangeInfo, DiffInfo } from '../../src/api/snapshots.ts'
import { connectControl } from '../../src/client/client.ts'
import { socketPathOf } from '../../src/host/location.ts'
import { mountFor, noMount } from './harness.ts'

const skip = noMount ?? false

const BEFORE = `
mkdir -p d/e tree/a/b swap1 swap2 again/same empty other
echo 1 > f; echo 1 > g; echo 1 > d/e/x; echo deep > tree/a/b/c; echo s1 > swap1/in; echo s2 > swap2/in
echo same > again/same/kept; echo old > again/same/changed; echo gone > again/gone
ln -s target l; ln -s target l2; echo linked > h1; ln h1 h2; echo file > becomes
touch -d @1000000000 again/same/kept f g; mkfifo pipe; echo e1 > e1; echo e2 > e2
`

interface Row {
  name: string
  /** in the workspace */
  script: string
  want: string[]
}

function line({ change, path, from, kind, what }: ChangeInfo): string {
  return [change, from === undefined ? path : `${from}>${path}`, kind, what.join('+')].filter((word) => word !== '').join(' ')
}

const rows: Row[] = [
  { name: 'a file', script: 'mv f f2', want: ['renamed f>f2 file'] },
  { name: 'a file that changes as well', script: 'mv f d/f && echo 2 > d/f', want: ['renamed f>d/f file content+mtime'] },
  { name: 'a tree', script: 'mv tree moved', want: ['renamed tree>moved directory'] },
  {
    name: 'a tree, and a file in it',
    script: 'mv tree d/ && echo new > d/tree/a/b/c && rm d/e/x',
    want: ['removed d/e/x file', 'renamed tree>d/tree directory', 'modified d/tree/a/b/c file content+mtime'],
  },
  {
    name: 'out of a tree that moves',
    script: 'mv tree t2 && mv t2/a a',
    want: ['renamed tree/a>a directory', 'renamed tree>t2 directory'],
  },
  { name: 'over a file', script: 'mv f g', want: ['removed f file'] },
  {
    name: 'over a file that differs',
    script: 'echo 2 > f && touch -d @2000000000 f && mv f g',
    want: ['removed f file', 'modified g file content+mtime'],
  },
  {
    name: 'saved as editors do',
    script: 'echo 3 > .f.tmp && touch -d @1000000000 .f.tmp && mv .f.tmp f',
    want: ['modified f file content'],
  },
  { name: 'over an empty directory', script: 'mv -T tree empty', want: ['renamed tree>empty directory'] },
  { name: 'in a circle', script: 'mv e1 t && mv e2 e1 && mv t e2', want: ['renamed e2>e1 file', 'renamed e1>e2 file'] },
  {
    name: 'directories that change places',
    script: 'mv swap1 t && mv swap2 swap1 && mv t swap2',
    want: ['renamed swap2>swap1 directory', 'renamed swap1>swap2 directory'],
  },
  { name: 'one after the other', script: 'mv g g2 && mv f g', want: ['renamed f>g file', 'renamed g>g2 file'] },
  { name: 'and another in its place', script: 'mv f f2 && echo n > f', want: ['added f file', 'renamed f>f2 file'] },
  {
    name: 'a directory that was removed and made again',
    script:
      'rm -r again && mkdir -p again/same && echo same > again/same/kept && touch -d @1000000000 again/same/kept && echo new > again/same/changed && echo n > again/new',
    want: ['removed again/gone file', 'added again/new file', 'modified again/same/changed file content+mtime'],
  },
  { name: 'a symlink that leads elsewhere', script: 'ln -sfn elsewhere l', want: ['modified l symlink mtime+target'] },
  {
    name: 'a file that becomes a directory',
    script: 'rm becomes && mkdir becomes && echo in > becomes/in',
    want: ['modified becomes directory type', 'added becomes/in file'],
  },
  {
    name: 'a directory that becomes a file',
    script: 'rm -r tree && echo f > tree',
    want: ['modified tree file type', 'removed tree/a directory', 'removed tree/a/b directory', 'removed tree/a/b/c file'],
  },
  { name: 'a symlink that becomes a file', script: 'rm l && echo f > l', want: ['modified l file type'] },
  { name: 'one of two names', script: 'rm h2', want: ['removed h2 file'] },
  {
    name: 'a third name, and new content',
    script: 'ln h1 h3 && echo new > h3',
    want: ['modified h2 file content+mtime', 'added h3 file'],
  },
  { name: 'modes', script: 'chmod 600 f && chmod 700 d', want: ['modified d directory mode', 'modified f file mode'] },
  { name: 'nothing that stays', script: 'mv tree x && mv x tree && rm f && echo 1 > f && touch -d @1000000000 f', want: [] },
  {
    name: 'in the order of names',
    script: "mkdir 'd.' d/e.d && echo > d/e/z && echo > d/e.d/z && echo > 'd./z' && echo > e",
    want: [
      'added d/e/z file',
      'added d/e.d directory',
      'added d/e.d/z file',
      'added d. directory',
      'added d./z file',
      'added e file',
    ],
  },
  {
    name: 'bytes that are no text, and names that look so',
    script: `touch "$(printf 'n\\377')" 'n\\xff' 'a\\b' && mkdir 'q\\x5c'`,
    want: ['added a\\b file', 'added n\\x5cxff file', 'added n\\xff file', 'added q\\x5cx5c directory'],
  },
] // prettier-ignore

function diffOf(service: Service, limit = 1000): Promise<DiffInfo> {
  return service.snapshotDiff('/workspace/w', 'before', null, limit)
}

t.test('what tools do to a tree', { skip, timeout: 600_000 }, async (t) => {
  const mount = await mountFor(t)
  const sh = (script: string): string => execFileSync('bash', ['-ec', script], { cwd: mount.at('workspace/w'), encoding: 'utf8' })
  const service = connectControl({ socketPath: socketPathOf(mount.data) })
  await service.workspaceCreate('/workspace/w', {})
  sh(BEFORE)
  mount.ctl('snapshot', '/workspace/w', '--name', 'before')
  for (const { name, script, want } of rows) {
    sh(script)
    t.strictSame((await diffOf(service)).changes.map(line), want, name)
    await service.restore('/workspace/w', 'before', {})
    t.strictSame((await diffOf(service)).changes, [], 'restored')
  }
  // The first of all, however many there are.
  sh('for i in $(seq -w 300); do echo $i > n$i; done; mv tree atree')
  t.strictSame(
    (await diffOf(service, 3)).changes.map(({ path }) => path),
    ['atree', 'n001', 'n002'],
  )
  t.ok((await diffOf(service, 3)).truncated)
  t.notOk((await diffOf(service, 301)).truncated)
  t.match(mount.ctl('snapshot', 'diff', '/workspace/w', 'before'), /^renamed +tree\/ → atree\/\n/)
})
