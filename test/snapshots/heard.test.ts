/** A kernel that refuses what it is told fails the command, not the daemon: nothing is rejected that nobody hears of. */
import t from 'tap'
import { NexusError } from '../../src/errors.ts'
import { engineFor } from './support.ts'

const FILES = 3000

t.test('a restore whose kernel refuses every notify', async (t) => {
  const rejections: unknown[] = []
  const note = (reason: unknown): void => void rejections.push(reason)
  process.on('unhandledRejection', note)
  t.teardown(() => process.off('unhandledRejection', note))
  const made = await engineFor(t)
  for (let i = 0; i < FILES; i++) made.write(`/workspace/a/${i}`, 'one')
  await made.service.snapshotCreate('/workspace/a', { name: 'then' })
  for (let i = 0; i < FILES; i++) made.write(`/workspace/a/${i}`, 'two')
  const refuse = async (): Promise<void> => {
    throw new NexusError('NEXUS_INTERNAL', 'refused by the test')
  }
  Object.assign(made.kernel, { invalidateNode: refuse, invalidateEntry: refuse, deleteEntry: refuse })
  await t.rejects(made.service.restore('/workspace/a', 'then', {}), { message: 'refused by the test' })
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.same(rejections, [])
  t.equal(made.read('/workspace/a/7'), 'one')
})
