/** Listings of what is hidden from the caller: looked at in slices, so that others are served between. */
import t from 'tap'
import { passHidden } from '../../src/vfs/listing.ts'
import { engineFor } from '../snapshots/support.ts'

const HIDDEN = 1500
/** Looks at the rights on an entry between two chances for others. */
const LOOKS_MAX = 64

t.test('many names that are not for the caller are passed over in slices', async (t) => {
  const made = await engineFor(t)
  const { fs } = made.engine
  const {
    core,
    core: { guard },
  } = fs
  const bob = { uid: 1002, gid: 1002, pid: 1 }
  for (let i = 0; i < HIDDEN; i++) made.mkdir(`/workspace/hidden-${i}`)
  const { node } = made.stat('/workspace')
  const own = fs.mkdir(bob, node, "bob's", 0o755, 0).node

  let looks = 0
  const rwx = guard.rwx.bind(guard)
  guard.rwx = (uid, place) => {
    looks++
    // As slow as rights that are not known yet; a clock that stands still would hide a missing look at it.
    for (const until = performance.now() + 0.2; performance.now() < until; );
    return rwx(uid, place)
  }
  const list = (from: number): { names: [name: string, node: number, cookie: number][]; looks: number } => {
    const names: [string, number, number][] = []
    looks = 0
    fs.readdir(bob, node, from, false, (name, child, _mode, cookie) => names.push([name, child, cookie]) > 0)
    return { names, looks }
  }
  const first = list(0)
  t.ok(first.looks <= LOOKS_MAX, `an answer that has an entry ends after ${first.looks} looks`)

  // The whole of it, as the kernel asks.
  const found: [string, number, number][] = []
  let slices = 0
  for (let at = 2; ; ) {
    const passing = passHidden(core, bob, node, at)
    for (;;) {
      looks = 0
      const step = passing.next()
      t.ok(looks <= LOOKS_MAX, `a slice of ${looks} looks`)
      slices++
      if (step.done !== true) continue
      at = step.value
      break
    }
    const { names } = list(at)
    if (names.length === 0) break
    found.push(...names)
    at = names.at(-1)?.[2] ?? 0
  }
  t.ok(slices > HIDDEN / LOOKS_MAX, `${slices} slices`)
  t.strictSame(
    found.map(([name, child]) => [name, child]),
    [["bob's", own]],
  )
  t.equal(list(await fs.passHidden(bob, node, 2)).names[0]?.[0], "bob's", 'as the dispatcher does')
  // A directory that goes while somebody lists it, and one that was never there.
  const passing = passHidden(core, bob, node, 2)
  passing.next()
  for (let i = 0; i < HIDDEN; i++) fs.rmdir({ uid: 0, gid: 0, pid: 1 }, node, `hidden-${i}`)
  let step = passing.next()
  while (step.done !== true) step = passing.next()
  t.equal(list(step.value).names.length <= 1, true, 'what changed meanwhile is no trouble')
  await t.rejects(fs.passHidden(bob, own + 7, 0), { code: 'ENOENT' })
})
