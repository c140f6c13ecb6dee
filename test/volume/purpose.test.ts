/** What commits are for, by the operations that make them. */
import t from 'tap'
import { Engine } from '../../src/engine/engine.ts'
import type { Blocks } from '../../src/journal/space.ts'
import { silentLogger } from '../../src/logger.ts'
import { dataFor } from '../crash/pair.ts'
import { caller, TestEngine } from '../snapshots/support.ts'

const MIB = 1024 * 1024
const SET_MTIME = { mtime: { s: 1, ns: 0 } }

t.test('on a full disk what ends something goes through, and what adds something does not', async (t) => {
  const disk = { free: 90 * MIB }
  const blocks = (): Blocks => {
    const blocksFree = disk.free / 4096
    return { blockBytes: 4096, blocks: (100 * MIB) / 4096, blocksFree, blocksAvailable: blocksFree }
  }
  const engine = await Engine.open({ data: dataFor(t), logger: silentLogger, space: blocks, singleUser: true })
  t.teardown(() => engine.close())
  const made = new TestEngine(engine)
  const { service } = made
  const top = made.mkdir('/workspace/a')
  made.mkdir('/workspace/b')
  made.mkdir('/workspace/a/directory')
  for (const name of ['f', 'g', 'h', 'long']) made.write(`/workspace/a/${name}`, 'x'.repeat(10_000))
  engine.fs.setxattr(caller, made.stat('/workspace/a/f').node, 'user.a', Buffer.from('1'), 0, false)
  await service.snapshotCreate('/workspace/a', { name: 'one' })
  await service.snapshotCreate('/workspace/a', { name: 'two' })
  await service.grant('user:u', 'viewer', '/workspace/a', {})
  const f = made.stat('/workspace/a/f').node
  const long = made.stat('/workspace/a/long').node

  const adds: Record<string, () => unknown> = {
    write: () => made.write('/workspace/a/f', 'y', 10_000),
    create: () => made.write('/workspace/a/new', ''),
    mkdir: () => made.mkdir('/workspace/a/new'),
    workspace: () => made.mkdir('/workspace/new'),
    symlink: () => engine.fs.symlink(caller, top, 'link', Buffer.from('f')),
    link: () => engine.fs.link(caller, f, top, 'link'),
    setxattr: () => engine.fs.setxattr(caller, f, 'user.b', Buffer.from('1'), 0, false),
    copy: () => engine.fs.copyFileRange(caller, f, 0, long, 0, 100),
    snapshot: () => service.snapshotCreate('/workspace/a', {}),
    restore: () => service.restore('/workspace/a', 'one', {}),
    fork: () => service.fork('/workspace/a', '/workspace/c', {}),
    grant: () => service.grant('user:v', 'viewer', '/workspace/a', {}),
    metadata: () => service.workspaceUpdate('/workspace/a', { metadata: { a: 'b' } }),
    tenant: () => service.tenantOnboard('t', { admin: 'user:u' }),
  }
  disk.free = 14 * MIB
  await new Promise((resolve) => setTimeout(resolve, 60))
  for (const [name, work] of Object.entries(adds)) {
    await t.rejects(async () => await work(), { code: 'NEXUS_NO_SPACE', message: /delete files or snapshots/ }, name)
  }
  t.throws(() => engine.fs.fallocate(caller, f, 0, 0, MIB), { code: 'ENOSPC' })
  t.equal(engine.state.state, 'full')
  t.equal(engine.fs.statfs(caller, 1).blocksAvailable, 0)

  made.write('/workspace/a/f', 'over')
  engine.fs.setattr(caller, f, SET_MTIME)
  engine.fs.rename(caller, top, 'g', top, 'renamed', 0)
  disk.free = 6 * MIB
  await new Promise((resolve) => setTimeout(resolve, 60))
  t.throws(() => made.write('/workspace/a/f', 'over'), { code: 'NEXUS_NO_SPACE' })
  t.throws(() => engine.fs.setattr(caller, f, SET_MTIME), { code: 'NEXUS_NO_SPACE' })
  t.throws(() => engine.fs.rename(caller, top, 'renamed', top, 'g', 0), { code: 'NEXUS_NO_SPACE' })

  made.unlink('/workspace/a/h')
  engine.fs.rmdir(caller, top, 'directory')
  engine.fs.setattr(caller, long, { size: 10 })
  engine.fs.fallocate(caller, f, 3, 0, 4096)
  engine.fs.removexattr(caller, f, 'user.a')
  await service.revoke('user:u', 'viewer', '/workspace/a')
  await service.snapshotDelete('/workspace/a', 'one')
  await service.checkpoint()
  await service.collect()
  await service.workspaceDelete('/workspace/a')
  t.same(made.list('/workspace'), ['b'])

  disk.free = 90 * MIB
  await new Promise((resolve) => setTimeout(resolve, 60))
  made.write('/workspace/b/f', 'as ever')
  t.equal(engine.state.state, 'ok')
})
