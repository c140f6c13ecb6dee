/** What may be moved to where workspaces are, and out again. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import t, { type Test } from 'tap'
import type { FsckInfo } from '../../src/api/store.ts'
import type { WorkspaceInfo } from '../../src/api/workspaces.ts'
import { mountFor, noMount, type TestMount } from './harness.ts'
import { notRoot } from './posix.ts'

const skip = noMount ?? notRoot ?? false
const EXCHANGE = 2

/** renameat2(2) with flags. @returns the errno's name, or '' */
function renamed(from: string, to: string, flags = 0): string {
  const script = `
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
done = libc.renameat2(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), ctypes.c_uint(int(sys.argv[3])))
print(errno.errorcode[ctypes.get_errno()] if done else "")`
  return execFileSync('python3', ['-c', script, from, to, String(flags)], { encoding: 'utf8' }).trim()
}

function paths(mount: TestMount): string[] {
  return mount.json<WorkspaceInfo[]>('workspace', 'list').map(({ path }) => path)
}

/** Whether a user that no tuple names gets in. */
function strangerEnters(directory: string): boolean {
  return spawnSync('setpriv', ['--reuid=65533', '--clear-groups', 'ls', directory]).status === 0
}

function isClosed(t: Test, mount: TestMount, path: string): void {
  t.ok(paths(mount).includes(path), `${path} is a workspace`)
  t.notOk(strangerEnters(mount.at(path)), `${path} is closed`)
}

t.test('mv of a directory to where workspaces are makes a workspace', { skip }, async (t) => {
  const mount = await mountFor(t)
  const sh = (script: string): string => execFileSync('sh', ['-ec', script], { cwd: mount.mountpoint, encoding: 'utf8' })
  for (const gate of ['workspace', 'tenants']) {
    sh(`mkdir -p -m 755 plain/d && echo secret > plain/d/f && chmod 640 plain/d/f && ln -s d plain/l && mv plain ${gate}/made`)
    isClosed(t, mount, `/${gate}/made`)
    t.equal(sh(`cat ${gate}/made/d/f; readlink ${gate}/made/l; test ! -e plain`), 'secret\nd\n')
    // Under a name that is new, into one that is empty, and from further inside.
    sh(`mkdir -p deep/in/side && mv deep/in ${gate}/ && rm -r deep`)
    isClosed(t, mount, `/${gate}/in`)
  }
  sh('mkdir -p elsewhere/d && mv elsewhere workspace/made/ && test -d workspace/made/elsewhere/d')
})

t.test('nothing but workspaces gets there by rename', { skip }, async (t) => {
  const mount = await mountFor(t)
  for (const name of ['plain', 'plain/d', 'full', 'full/d', 'workspace/w', 'tenants/t', 'tenants/empty'])
    fs.mkdirSync(mount.at(name))
  for (const name of ['file', 'workspace/file']) fs.writeFileSync(mount.at(name), name)
  const rows: [from: string, to: string, flags: number, answer: string][] = [
    ['plain', 'workspace/plain', 0, 'EXDEV'],
    ['plain', 'tenants/empty', 0, 'EXDEV'],
    ['plain', 'workspace/w', EXCHANGE, 'EXDEV'],
    ['tenants/t', 'plain', EXCHANGE, 'EXDEV'],
    ['plain', 'workspace/file', EXCHANGE, 'EXDEV'],
    ['workspace/file', 'plain', EXCHANGE, 'EXDEV'],
    // A file is nobody's workspace, as before.
    ['file', 'workspace/file2', 0, ''],
    ['workspace/file2', 'file', 0, ''],
    // Workspaces stay what they are wherever they are.
    ['workspace/w', 'tenants/w', 0, ''],
    ['tenants/w', 'plain/w', 0, ''],
    ['plain/w', 'workspace/w', 0, ''],
    ['workspace/w', 'tenants/t', EXCHANGE, ''],
    // Where workspaces are may be put aside and back, but not replaced by a tree of directories.
    ['workspace', 'aside', 0, ''],
    ['full', 'workspace', 0, 'EXDEV'],
    ['aside', 'workspace', 0, ''],
    ['full', 'workspace', EXCHANGE, 'EXDEV'],
    ['workspace', 'full', EXCHANGE, 'EXDEV'],
  ]
  for (const [from, to, flags, answer] of rows) {
    t.equal(renamed(mount.at(from), mount.at(to), flags), answer, `${from} → ${to} ${flags}`)
  }
  t.ok(mount.json<FsckInfo>('fsck').clean)
})
