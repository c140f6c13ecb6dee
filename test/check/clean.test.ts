/** What commands leave behind is clean: snapshots, restores of the whole and of parts, forks, deletions, collections. */
import t from 'tap'
import { capture } from '../../src/check/capture.ts'
import { needsOf } from '../../src/check/needs.ts'
import { Pace } from '../../src/pace.ts'
import { caller } from '../snapshots/support.ts'
import { bigContent, type Sample, sampleFor } from './support.ts'

/** A little of everything, different each time. */
function change({ test }: Sample, round: number): void {
  const { fs } = test.engine
  const top = test.stat('/workspace/a').node
  test.write(`/workspace/a/d/big`, `start of round ${round}`, round * 1000)
  test.mkdir(`/workspace/a/d/r${round}`)
  test.write(`/workspace/a/d/r${round}/x`, bigContent.subarray(0, 20_000 + round))
  fs.link(caller, test.stat(`/workspace/a/d/r${round}/x`).node, top, `link${round}`)
  fs.link(caller, test.stat('/workspace/a/f').node, test.stat(`/workspace/a/d/r${round}`).node, 'of f')
  if (round > 0) {
    fs.rename(caller, test.stat('/workspace/a/d').node, `r${round - 1}`, test.stat('/workspace/a/d/e').node, `moved${round}`, 0)
    fs.unlink(caller, top, `link${round - 1}`)
  }
}

t.test('snapshots, restores, forks and collections leave nothing wrong', async (t) => {
  const sample = await sampleFor(t, { segmentBytesMax: 200_000 })
  const { service } = sample.test
  const clean = async (what: string): Promise<unknown> => t.strictSame(await sample.findings(), [], what)
  for (let round = 0; round < 4; round++) {
    change(sample, round)
    await service.snapshotCreate('/workspace/a', { name: `s${round}` })
    await service.snapshotCreate('/workspace/a/d', { name: `d${round}` })
    await clean(`snapshots ${round}`)
  }
  for (const [where, name] of [
    ['/workspace/a/d', 's1'],
    ['/workspace/a/d/e', 's3'],
    ['/workspace/a/d', 'd2'],
    ['/workspace/a', 's0'],
    ['/workspace/a/d', 's3'],
    ['/workspace/a', 's2'],
  ] as const) {
    await service.restore(where, name, {})
    await clean(`restore of ${where} to ${name}`)
    sample.test.write('/workspace/a/d/big', 'more', 400_000)
  }
  await service.fork('/workspace/a', '/workspace/c', {})
  await service.fork('/workspace/a', '/workspace/e', { snapshot: 's1' })
  await clean('forks')
  await service.workspaceRename('/workspace/c', '/workspace/renamed')
  await service.snapshotDelete('/workspace/a', 's1')
  await clean('a rename and a deleted snapshot')
  await service.workspaceDelete('/workspace/b')
  await service.workspaceDelete('/workspace/a')
  await clean('deleted workspaces')
  const { segments } = await service.collect()
  t.ok(segments > 0)
  await clean('a collection')
})

t.test('what a check reads stays while the collector is at work, and goes when it is done', async (t) => {
  const sample = await sampleFor(t, { segmentBytesMax: 100_000, nodeCacheBytesMax: 1000 })
  const { service, engine } = sample.test
  for (let i = 0; i < 30; i++) sample.test.write(`/workspace/a/n${i}`, bigContent.subarray(i * 1000, i * 1000 + 40_000))
  await service.snapshotCreate('/workspace/a', { name: 'one' })
  const captured = await capture(engine.volumes, (roots) => engine.hold(roots))
  await service.workspaceDelete('/workspace/a')
  await service.collect()
  const lost = async (): Promise<number> => {
    let count = 0
    const needs = {
      node: () => undefined,
      chunk: () => undefined,
      lost: () => {
        count++
      },
    }
    for (const { root } of captured.states) await new Pace().run(needsOf(engine.volumes.tree, root, needs))
    return count
  }
  t.equal(await lost(), 0)
  captured.release()
  await service.collect()
  t.ok((await lost()) > 0)
  t.strictSame(await sample.findings(), [])
})
