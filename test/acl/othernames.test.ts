/** Looking for another name of an inode when its recorded one goes, which trees of second names must not pay for each time. */
import t from 'tap'
import { OtherNames } from '../../src/vfs/othernames.ts'
import { inoOfNode, nodeOf, volumeOf } from '../../src/vfs/place.ts'
import type { Volume } from '../../src/volume/volume.ts'
import { engineFor, type TestEngine } from '../snapshots/support.ts'

const A = '/workspace/a'
const caller = { uid: 0, gid: 0, pid: 1 }

/** How many slots of directories are looked at from now on. */
function looksOf(volume: Volume): () => number {
  let looks = 0
  const entries = volume.entries.bind(volume)
  volume.entries = function* (directory, cookie, most = Number.POSITIVE_INFINITY) {
    for (const found of entries(directory, cookie, most)) {
      looks++
      yield found
    }
  }
  return () => looks
}

function volumeOfA(test: TestEngine): Volume {
  return test.engine.volumes.get(volumeOf(test.stat(A).node)) as Volume
}

t.test('a tree of second names is removed without a search for each', async (t) => {
  const COUNT = 1500
  const test = await engineFor(t)
  const { fs } = test.engine
  const [first, second] = [test.mkdir(`${A}/first`), test.mkdir(`${A}/second`)]
  for (let i = 0; i < COUNT; i++) {
    const { node } = fs.create(caller, first, `f${i}`, 0o644, 0, 0)
    fs.link(caller, node, second, `f${i}`)
  }
  // As after a start: nothing is known of names that were made before.
  Object.assign(fs.core, { otherNames: new OtherNames() })
  const names: string[] = []
  fs.readdir(caller, second, 2, false, (name) => names.push(name) > 0)
  const looks = looksOf(volumeOfA(test))
  for (const name of names) fs.unlink(caller, second, name)
  t.ok(looks() < 80 * COUNT, `${looks()} slots for ${COUNT} names`)
  t.equal((await test.engine.check()).total, 0)
})

t.test('another name in the same directory is found, before and behind the one that goes', async (t) => {
  const test = await engineFor(t)
  const { fs } = test.engine
  const directory = test.mkdir(`${A}/d`)
  const { node } = fs.create(caller, directory, 'n0', 0o644, 0, 0)
  for (let i = 1; i < 20; i++) fs.link(caller, node, directory, `n${i}`)
  for (let i = 0; i < 10; i++) fs.create(caller, directory, `other${i}`, 0o644, 0, 0)
  Object.assign(fs.core, { otherNames: new OtherNames() })
  const volume = volumeOfA(test)
  for (let i = 19; i > 0; i--) {
    fs.unlink(caller, directory, `n${i}`)
    const { parent, name } = volume.attr(inoOfNode(node)) ?? { parent: 0, name: '' }
    t.equal(parent, inoOfNode(directory), `a name is recorded beside n${i}`)
    t.not(fs.lookup(caller, directory, name), undefined, 'which is there')
  }
  t.equal(nodeOf(volume.number, inoOfNode(node)), node)
})

t.test('names that were removed are passed over, and after many misses small directories are still searched', (t) => {
  const names = new OtherNames()
  let most = 0
  const volume = {
    number: 7,
    entry: () => undefined,
    *entries(_directory: number, _cookie: number, looks: number) {
      most = Math.max(most, looks)
      yield [1, { index: 0, name: 'other', type: 0, ino: 99, volume: 0 }]
    },
  } as unknown as Volume
  for (let i = 0; i < 90; i++) t.strictSame(names.besides(volume, i, { parent: 3, name: 'x' }), { parent: 0, name: '' })
  t.equal(most, 1000)
  most = 0
  names.besides(volume, 5, { parent: 3, name: 'x' })
  t.equal(most, 32, 'a glance')
  t.strictSame(names.besides(volume, 99, { parent: 3, name: 'x' }), { parent: 3, name: 'other' })
  most = 0
  names.besides(volume, 5, { parent: 3, name: 'x' })
  t.equal(most, 1000, 'a hit ends the series')
  t.end()
})
