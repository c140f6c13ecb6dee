/** What the daemon may grow with: `bench/bounds.ts` measures all of it, this holds what can be held in seconds. */
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { connectControl } from '../../src/client/client.ts'
import { socketPathOf } from '../../src/host/location.ts'
import { childrenOf, mountFor, noMount, type TestMount } from './harness.ts'

const skip = noMount ?? false
const FILES = 6000
const FILES_PER_DIRECTORY = 500
const ROUNDS = 3
/** What is kept of an inode that the kernel holds (src/vfs/known.ts): a count, a generation, and its part of a page's header. */
const INODE_BYTES_MAX = 16
const PAGE_BYTES = 4096
/** Of the system's pages some are there from the start, and the last is not full. */
const SPARE_BYTES = 4 * PAGE_BYTES
const FORGET_MS_MAX = 10_000

/** Bytes that the serving process shares with the one after it. */
function sharedBytes(mount: TestMount): number {
  const status = fs.readFileSync(`/proc/${childrenOf(mount.pid)[0]}/status`, 'utf8')
  return Number(/RssShmem:\s+(\d+)/.exec(status)?.[1]) * 1024
}

function fill(directory: string): void {
  for (let i = 0; i < FILES; i++) {
    const inside = `${directory}/d${Math.floor(i / FILES_PER_DIRECTORY)}`
    if (i % FILES_PER_DIRECTORY === 0) fs.mkdirSync(inside)
    fs.writeFileSync(`${inside}/f${i}`, '')
  }
}

t.test('what the kernel holds takes a few bytes each, which are used again when it has let go', { skip }, async (t) => {
  const mount = await mountFor(t)
  const control = connectControl({ socketPath: socketPathOf(mount.data) })
  const known = async (): Promise<number> => (await control.metrics()).known_inodes
  fs.mkdirSync(mount.at('workspace/a'))
  const [before, sharedBefore] = [await known(), sharedBytes(mount)]
  const shared: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    fill(mount.at('workspace/a'))
    const held = (await known()) - before
    t.ok(held >= FILES, 'the kernel holds all of them', { held })
    shared.push(sharedBytes(mount) - sharedBefore)
    t.ok((shared.at(-1) as number) <= held * INODE_BYTES_MAX + SPARE_BYTES, 'a few bytes each', { shared, held })
    for (const name of fs.readdirSync(mount.at('workspace/a'))) fs.rmSync(mount.at('workspace/a', name), { recursive: true })
    for (let waited = 0; (await known()) > before; waited += 20) {
      if (waited > FORGET_MS_MAX) throw new Error(`the kernel still holds ${(await known()) - before} more than before`)
      await sleep(20)
    }
  }
  t.ok((shared.at(-1) as number) <= (shared[0] as number) + PAGE_BYTES, 'as much the third time as the first', { shared })
})

t.test('memory is as much as was asked for, within reason', { skip }, async (t) => {
  const mount = await mountFor(t, { flags: ['--memory', '256MiB'] })
  const serving = childrenOf(mount.pid)[0]
  const words = fs.readFileSync(`/proc/${serving}/cmdline`, 'latin1').split('\0')
  t.equal(words[words.indexOf('--memory') + 1], String(256 * 1024 * 1024), 'the one that serves is told')
  for (const [size, reason] of [
    ['255MiB', /at least 256MiB/],
    ['lots', /number of KiB, MiB, GiB or TiB/],
  ] as const) {
    t.throws(() => mount.daemonSays('mount', mount.at('workspace'), '--memory', size), reason, size)
  }
})
