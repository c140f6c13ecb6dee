/**
 * What the kernel is told of a change that it did not ask for: set-id bits and capabilities that a write takes, times, links,
 * modes that an ACL changes. Everything is cached before, and looked at right after; ext4 says what must be seen.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type Test, test } from 'tap'
import { accessMountFor, skip as skipAccess } from './access.ts'
import { scriptOf } from './guest.ts'
import { mountFor, noMount, plainFor } from './harness.ts'
import { needsRoot } from './nexusd.ts'

const skip = noMount ?? needsRoot
const USER = 1001

/** Operations on the content of the set-uid program. */
const WRITES = /write|append|splice|sendfile|fallocate|punch|zero|copy|truncate/
/** A mapped store takes the capabilities that a file had, because a write-back does what a write does. ext4 leaves them. */
const ALSO_TAKEN = [['store in a mapping', 'xattrs and lists']] as const

type Seen = Record<string, Record<string, { result: string; seen: unknown }>>

function seenIn(directory: string, ...views: string[]): Seen {
  fs.mkdirSync(directory)
  fs.chmodSync(directory, 0o777)
  const words = [scriptOf('sideeffects.py'), directory, String(USER), ...views]
  return JSON.parse(execFileSync('python3', words, { encoding: 'utf8', maxBuffer: 64 << 20 })) as Seen
}

function seenOf(seen: Seen, row: string, view: string): unknown {
  return seen[row]?.[view]?.seen
}

function plainSeen(t: Test, ...views: string[]): Seen {
  const plain = plainFor(t)
  fs.chmodSync(plain, 0o755)
  return seenIn(path.join(plain, 'plain'), ...views)
}

test('after each operation the kernel shows what is so', { skip }, async (t) => {
  const wanted = plainSeen(t)
  for (const [row, view] of ALSO_TAKEN) {
    const xattrs = seenOf(wanted, row, view) as { f: Record<string, string> }
    delete xattrs.f['security.capability']
  }
  const mount = await mountFor(t, { flags: ['--suid'] })
  fs.chmodSync(path.dirname(mount.mountpoint), 0o755)
  const seen = seenIn(mount.at('outside'))
  for (const [row, views] of Object.entries(wanted))
    for (const [view, want] of Object.entries(views)) t.strictSame(seen[row]?.[view], want, `${row}: ${view}`)
})

test('in a workspace no editor makes a set-uid program do something else', { skip: skipAccess }, async (t) => {
  const wanted = plainSeen(t, 'execve')
  const { mount } = await accessMountFor(t, { flags: ['--suid'] })
  const seen = seenIn(mount.at('tenants', 'acme', 'data', 'programs'), 'execve')
  for (const row of Object.keys(wanted).filter((one) => WRITES.test(one))) {
    const [got, want] = [seen, wanted].map((one) => seenOf(one, row, 'execve') as string[])
    t.equal(got?.[0], want?.[0], row)
  }
})
