/** What happens while a call waits for the kernel to write back: it holds the directory that was asked about, and asks again. */
import t, { type Test } from 'tap'
import type { Service } from '../../src/api/calls.ts'
import type { DiffInfo, RestoreInfo } from '../../src/api/snapshots.ts'
import { systemCode } from '../../src/errors.ts'
import { caller, engineFor, type TestEngine } from './support.ts'

const SPACE = '/workspace/vic'
const UID = 1001

interface World {
  made: TestEngine
  user: Service
  /** runs while the next call waits */
  meanwhile(run: () => unknown): void
}

/** A workspace of another's, in which a user owns `pub`, and not `priv`. */
async function worldFor(t: Test): Promise<World> {
  const made = await engineFor(t)
  const { service, kernel } = made
  await service.identityAdd('user:tenant', UID)
  await service.identityAdd('user:vic', 1000)
  await service.workspaceCreate(SPACE, { owner: 'user:vic' })
  for (const name of ['pub', 'priv']) {
    made.mkdir(`${SPACE}/${name}`)
    made.engine.fs.setattr(caller, made.stat(`${SPACE}/${name}`).node, { mode: 0o777 })
  }
  made.engine.fs.setattr(caller, made.stat(SPACE).node, { mode: 0o755 })
  made.write(`${SPACE}/pub/own`, 'own')
  made.write(`${SPACE}/priv/secret`, 'secret')
  await service.grant('user:tenant', 'owner', `${SPACE}/pub`, {})
  await service.snapshotCreate(SPACE, { name: 'all' })
  await service.snapshotCreate(`${SPACE}/pub`, { name: 'pub' })
  made.write(`${SPACE}/pub/more`, 'more')
  made.write(`${SPACE}/priv/secret2`, 'secret')
  let next: (() => unknown) | undefined
  kernel.writeBack = async () => {
    const run = next
    next = undefined
    await run?.()
  }
  return {
    made,
    user: service.forUser(UID),
    meanwhile: (run) => {
      next = run
    },
  }
}

function swap(made: TestEngine): void {
  const { node } = made.stat(SPACE)
  made.engine.fs.rename(caller, node, 'pub', node, 'priv', 2)
}

async function outcome<T>(call: Promise<T>): Promise<T | string> {
  return await call.catch((error: unknown) => systemCode(error) ?? String(error))
}

const calls: Record<string, (service: Service) => Promise<unknown>> = {
  diff: (service) => service.snapshotDiff(`${SPACE}/pub`, 'pub', null, 100),
  'dry run': (service) => service.restore(`${SPACE}/pub`, 'pub', { dryRun: true }),
  restore: (service) => service.restore(`${SPACE}/pub`, 'pub', {}),
  snapshot: (service) => service.snapshotCreate(`${SPACE}/pub`, {}),
}

t.test('a directory that is swapped for another, and rights that end, while a call waits', async (t) => {
  for (const [name, call] of Object.entries(calls)) {
    await t.test(name, async (t) => {
      const world = await worldFor(t)
      const { made, user, meanwhile } = world
      t.type(await outcome(call(user)), 'object', 'may be done otherwise')
      meanwhile(() => swap(made))
      t.equal(await outcome(call(user)), 'NEXUS_DENIED', 'now another lies there')
      swap(made)
      meanwhile(() => made.service.revoke('user:tenant', 'owner', `${SPACE}/pub`))
      t.equal(await outcome(call(user)), 'NEXUS_DENIED', 'rights have ended')
      t.same((await made.service.fsck()).findings, [])
    })
  }
})

t.test('a restored directory stays where it was moved to meanwhile', async (t) => {
  const { made, meanwhile, user } = await worldFor(t)
  const { service } = made
  meanwhile(() => swap(made))
  const restored = (await service.restore(`${SPACE}/pub`, 'pub', {})) as RestoreInfo
  t.same(
    restored.changes.map(({ path }) => path),
    ['more'],
  )
  t.same(made.list(`${SPACE}/priv`), ['own'], 'the directory that was asked for, under its new name')
  t.same(made.list(`${SPACE}/pub`), ['secret', 'secret2'])
  t.same((await service.fsck()).findings, [], 'every directory is recorded to lie where it lies')
  swap(made)
  const diff = (await user.snapshotDiff(`${SPACE}/pub`, 'all', null, 100)) as DiffInfo
  t.notMatch(JSON.stringify(diff.changes), /secret/, 'nothing of the other directory is told')
})

t.test('a directory that is removed meanwhile', async (t) => {
  for (const [name, call] of Object.entries(calls)) {
    const { made, meanwhile } = await worldFor(t)
    meanwhile(async () => {
      for (const file of made.list(`${SPACE}/pub`)) made.unlink(`${SPACE}/pub/${file}`)
      made.engine.fs.rmdir(caller, made.stat(SPACE).node, 'pub')
      made.mkdir(`${SPACE}/pub`)
    })
    t.equal(await outcome(call(made.service)), 'NEXUS_BUSY', name)
    t.same(made.list(`${SPACE}/pub`), [], `${name}: nothing was done to the new one`)
  }
})

t.test('a fork takes what was asked for', async (t) => {
  const { made, meanwhile, user } = await worldFor(t)
  const { service } = made
  await service.grant('user:tenant', 'viewer', SPACE, {})
  const fork = (): Promise<unknown> => user.fork(SPACE, '/workspace/mine', {})
  meanwhile(() => service.revoke('user:tenant', 'viewer', SPACE))
  t.equal(await outcome(fork()), 'NEXUS_DENIED', 'rights have ended')
  await service.grant('user:tenant', 'viewer', SPACE, {})
  meanwhile(() => service.workspaceRename(SPACE, '/workspace/else'))
  t.equal(await outcome(fork()), 'NEXUS_NOT_FOUND', 'another would lie there')
  await service.workspaceRename('/workspace/else', SPACE)
  t.type(await outcome(fork()), 'object')
})

t.test('a directory that is younger than a snapshot shows no workspaces of elsewhere', async (t) => {
  const { made } = await worldFor(t)
  const { service } = made
  await service.workspaceCreate(`${SPACE}/priv/inner`, {})
  made.write(`${SPACE}/priv/inner/hidden`, 'x')
  await service.snapshotCreate(SPACE, { name: 'a' })
  made.write(`${SPACE}/priv/inner/hidden2`, 'x')
  made.mkdir(`${SPACE}/new`)
  made.write(`${SPACE}/new/file`, 'x')
  await service.snapshotCreate(SPACE, { name: 'b' })
  for (const to of ['b', null]) {
    const diff = await service.snapshotDiff(`${SPACE}/new`, 'a', to, 100)
    t.same(
      diff.changes.map(({ path }) => path),
      ['file'],
    )
  }
  const whole = await service.snapshotDiff(SPACE, 'a', 'b', 100)
  t.ok(
    whole.changes.some(({ path }) => path === 'priv/inner/hidden2'),
    'those inside are shown',
  )
})
