/** Plain directories among workspaces, which older versions let be moved there. */
import t from 'tap'
import { inoOfNode } from '../../src/vfs/place.ts'
import { slotOf } from '../../src/volume/dirent.ts'
import { caller, engineFor } from '../snapshots/support.ts'

t.test('a plain directory among workspaces is told of, and moving it away and back is refused', async (t) => {
  const test = await engineFor(t)
  const { engine, service } = test
  const { volumes } = engine
  test.mkdir('/plain')
  const root = inoOfNode(test.stat('/').node)
  const gate = inoOfNode(test.stat('/workspace').node)
  const volume = volumes.get(0)
  const entry = volume?.entry(root, 'plain')
  const attr = volume?.attr(entry?.ino ?? 0)
  const [at, around] = [volume?.attr(gate), volume?.attr(root)]
  if (entry === undefined || attr === undefined || at === undefined || around === undefined) throw new Error('it is there')
  const base = { volume: 0, slot: slotOf('plain') }
  volumes.commit([
    { kind: 'unentry', ...base, ino: root, index: entry.index },
    { kind: 'entry', ...base, ino: gate, entry },
    { kind: 'attr', volume: 0, ino: entry.ino, attr: { ...attr, parent: gate } },
    { kind: 'attr', volume: 0, ino: gate, attr: { ...at, nlink: at.nlink + 1 } },
    { kind: 'attr', volume: 0, ino: root, attr: { ...around, nlink: around.nlink - 1 } },
  ])
  const { findings } = await engine.check()
  t.match(findings, [{ kind: 'workspace', path: '/workspace/plain', text: /is none/ }])
  t.equal(findings.length, 1)
  await t.rejects(service.workspaceCreate('/workspace/plain', {}), {
    code: 'NEXUS_EXISTS',
    message: /no workspace: as root move it/,
  })
  const [rootNode, gateNode] = [test.stat('/').node, test.stat('/workspace').node]
  engine.fs.rename(caller, gateNode, 'plain', gateNode, 'renamed', 0)
  engine.fs.rename(caller, gateNode, 'renamed', rootNode, 'plain', 0)
  t.throws(() => engine.fs.rename(caller, rootNode, 'plain', gateNode, 'plain', 0), { code: 'EXDEV' })
  t.strictSame((await engine.check()).findings, [])
})
