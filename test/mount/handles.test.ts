/**
 * Handles of files (name_to_handle_at(2), open_by_handle_at(2)), as NFS servers use them: good for as long as the mount, whatever
 * the kernel has dropped, and never for another file.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { skip } from './access.ts'
import { childrenOf, gone, mountFor, plainFor, type TestMount } from './harness.ts'

const program = fileURLToPath(new URL('../../../test/mount/handles.py', import.meta.url))
const python = (...words: string[]): string => execFileSync('python3', [program, ...words], { encoding: 'utf8' })

function handles(directory: string, ...names: string[]): string {
  return python('make', directory, ...names)
}

/** What handles lead to, once the kernel has dropped every inode that it can. */
function looked(directory: string, lines: string): string[] {
  fs.writeFileSync('/proc/sys/vm/drop_caches', '2')
  const text = execFileSync('python3', [program, 'open', directory], { input: lines, encoding: 'utf8' })
  return text.split('\n').filter(Boolean)
}

function fill(directory: string): void {
  fs.mkdirSync(`${directory}/outer/inner`, { recursive: true })
  for (const name of ['one', 'two', 'outer/three', 'outer/inner/four']) fs.writeFileSync(`${directory}/${name}`, name)
  fs.linkSync(`${directory}/two`, `${directory}/outer/second`)
}

const NAMES = ['one', 'two', 'outer', 'outer/three', 'outer/inner', 'outer/inner/four']
const FOUND = ['file one', 'file two', 'directory outer', 'file outer/three', 'directory inner', 'file outer/inner/four']

function check(t: Test, directory: string): void {
  fill(directory)
  const lines = handles(directory, ...NAMES)
  t.same(looked(directory, lines), FOUND, 'what is there')
  fs.renameSync(`${directory}/outer/inner`, `${directory}/moved`)
  fs.renameSync(`${directory}/outer/three`, `${directory}/moved/three`)
  fs.rmSync(`${directory}/two`)
  const moved = FOUND.with(4, 'directory moved')
  t.same(looked(directory, lines), moved, 'what was moved, or has another name left')
  fs.rmSync(`${directory}/one`)
  fs.rmSync(`${directory}/outer/second`)
  fs.rmSync(`${directory}/moved`, { recursive: true })
  const left = ['ESTALE', 'ESTALE', 'directory outer', 'ESTALE', 'ESTALE', 'ESTALE']
  t.same(looked(directory, lines), left, 'what was removed')
  fill(directory)
  t.same(looked(directory, lines), left, 'what is new has handles of its own')
}

t.test('handles of what the kernel has dropped', { skip }, async (t) => {
  const mount = await mountFor(t)
  const places: [what: string, directory: string][] = [
    ['the local disk', plainFor(t)],
    ['a plain directory', mount.at('plain')],
    ['a workspace', mount.at('workspace', 'w')],
  ]
  for (const [what, directory] of places) {
    fs.mkdirSync(directory, { recursive: true })
    await t.test(what, async (t) => check(t, directory))
  }
})

/** The process that serves dies. @returns when another serves */
async function takeOver(mount: TestMount): Promise<void> {
  const [serving = 0] = childrenOf(mount.pid)
  process.kill(serving, 'SIGKILL')
  await gone(serving)
  fs.readdirSync(mount.mountpoint)
}

t.test('handles of a workspace: takeovers, snapshots, restores, its end, the end of the mount', { skip }, async (t) => {
  const mount = await mountFor(t)
  const w = mount.at('workspace', 'w')
  fs.mkdirSync(w)
  fill(w)
  mount.ctl('snapshot', '/workspace/w', '--name', 's')
  const lines = handles(w, ...NAMES)
  const frozen = handles(`${w}/.snapshots/s`, ...NAMES)
  await takeOver(mount)
  t.same(looked(mount.mountpoint, lines), FOUND, 'another process serves')
  // The kernel finds the name of a directory in the listing of the one around it, and no listing has .snapshots.
  const files = FOUND.with(2, 'ESTALE').with(4, 'ESTALE')
  t.same(looked(mount.mountpoint, frozen), files, 'in the snapshot')
  fs.rmSync(`${w}/one`)
  fs.writeFileSync(`${w}/new`, 'new')
  const made = handles(w, 'new')
  mount.ctl('restore', '/workspace/w', 's', '--force')
  t.same(looked(mount.mountpoint, lines), FOUND, 'after a restore')
  t.same(looked(mount.mountpoint, made), ['ESTALE'], 'what the restore removed does not come back')
  t.equal(await mount.stop(), 0)
  await mount.start()
  t.same(looked(mount.mountpoint, lines + frozen), Array(12).fill('ESTALE'), 'a mount has handles of its own')
  const again = handles(w, ...NAMES)
  t.same(looked(mount.mountpoint, again), FOUND)
  mount.ctl('workspace', 'delete', '/workspace/w')
  t.same(looked(mount.mountpoint, again), Array(6).fill('ESTALE'), 'the workspace is gone')
})
