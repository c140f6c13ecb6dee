/** Snapshots that restores take do not pile up. */
import t from 'tap'
import { engineFor } from './support.ts'

const W = '/workspace/a'

t.test('the newest ten of a workspace stay', async (t) => {
  const made = await engineFor(t)
  const { service } = made
  made.write(`${W}/file`, '0')
  const { snapshot_id: own } = await service.snapshotCreate(W, { name: 'own' })
  const undos: string[] = []
  for (let i = 1; i <= 14; i++) {
    made.write(`${W}/file`, String(i % 10))
    undos.push((await service.restore(W, 'own', {})).undo ?? '')
    const all = await service.snapshotList(W)
    t.same(
      all.map((one) => one.snapshot_id),
      [own, ...undos.slice(-10)],
    )
    t.equal((await service.workspaceShow(W)).parent, own)
  }
  await service.restore(W, undos.at(-10) ?? '', {})
  t.equal(made.read(`${W}/file`), '5', 'the oldest that is left can still be used, and may go with that')
  t.same((await service.fsck()).findings, [])

  await service.workspaceUpdate(W, { metadata: { 'keep-undos': '2' } })
  await service.restore(W, 'own', {})
  t.equal((await service.snapshotList(W)).filter(({ automatic }) => automatic).length, 2, 'as many as the workspace says')
  for (const [text, count] of [
    ['0', 1],
    ['3', 2],
    ['many', 3],
  ] as const) {
    await service.workspaceUpdate(W, { metadata: { 'keep-undos': text } })
    await service.restore(W, 'own', {})
    t.equal((await service.snapshotList(W)).filter(({ automatic }) => automatic).length, count, `keep-undos=${text}`)
  }
})

t.test('one that alone can bring back a workspace with snapshots stays', async (t) => {
  const made = await engineFor(t)
  const { service } = made
  await service.workspaceUpdate(W, { metadata: { 'keep-undos': '1' } })
  await service.snapshotCreate(W, { name: 'before' })
  await service.workspaceCreate(`${W}/inner`, {})
  made.write(`${W}/inner/text`, 'inside')
  await service.snapshotCreate(`${W}/inner`, { name: 'of-inner' })
  const { undo } = await service.restore(W, 'before', {})
  for (let i = 0; i < 3; i++) await service.restore(W, 'before', {})
  t.equal((await service.snapshotList(W)).filter(({ automatic }) => automatic).length, 2)
  await service.restore(W, undo ?? '', {})
  t.equal(made.read(`${W}/inner/text`), 'inside')
  t.same(
    (await service.snapshotList(`${W}/inner`)).map(({ name }) => name),
    ['of-inner'],
  )
  t.same((await service.fsck()).findings, [])
})
