/** Quotas: what random operations do not come by. */
import t from 'tap'
import { nodeOf, volumeOf } from '../../src/vfs/place.ts'
import { Kind, plainKey } from '../../src/volume/keys.ts'
import { encodeSuper, type Volume } from '../../src/volume/volume.ts'
import { caller, engineFor, type TestEngine } from './support.ts'

const A = '/workspace/a'
const EDQUOT = { code: 'EDQUOT' }
const KIB = 1024

function volumeAt(test: TestEngine, path: string): Volume {
  return test.engine.volumes.get(volumeOf(test.stat(path).node)) as Volume
}

t.test('a copy is refused before anything is changed', async (t) => {
  const test = await engineFor(t)
  const from = test.write(`${A}/from`, Buffer.alloc(10 * KIB, 'x'))
  const to = test.write(`${A}/to`, 'old')
  await test.service.quotaSet(A, { bytes: 15 * KIB })
  t.throws(() => test.engine.fs.copyFileRange(caller, from, 0, to, 0, 10 * KIB), EDQUOT)
  t.equal(test.read(`${A}/to`), 'old')
  test.engine.fs.copyFileRange(caller, from, 0, to, 0, 4 * KIB)
  t.match(await test.service.quotaShow(A), { bytes_used: 14 * KIB, bytes_remaining: KIB, inodes_limit: null })
})

t.test('below use, only what does not add goes on', async (t) => {
  const test = await engineFor(t)
  const node = test.write(`${A}/f`, Buffer.alloc(8 * KIB, 'x'))
  await test.service.quotaSet(A, { bytes: KIB, inodes: 1 })
  t.match(await test.service.quotaShow(A), { bytes_remaining: 0, inodes_remaining: 0 })
  test.write(`${A}/f`, 'over')
  t.throws(() => test.write(`${A}/f`, 'behind', 8 * KIB), EDQUOT)
  test.engine.fs.setattr(caller, node, { size: 2 ** 40 })
  t.throws(() => test.mkdir(`${A}/d`), EDQUOT)
  t.throws(() => test.engine.fs.mkdir({ uid: 0, gid: 0, pid: 1 }, test.stat(A).node, 'd', 0o755, 0), EDQUOT, 'root too')
  test.engine.fs.link(caller, node, test.stat(A).node, 'g')
  t.throws(() => test.engine.fs.setxattr(caller, node, 'user.x', Buffer.alloc(1000), 0, false), EDQUOT)
  test.engine.fs.setattr(caller, node, { size: 0 })
  test.write(`${A}/f`, Buffer.alloc(KIB))
  t.throws(() => test.write(`${A}/f`, 'x', KIB), EDQUOT)
  await test.service.quotaSet(A, { bytes: null })
  test.write(`${A}/f`, Buffer.alloc(64 * KIB))
  t.match(await test.service.quotaShow(A), { bytes_limit: null, inodes_limit: 1 }, 'what is not given stays')
})

t.test('a restore may go beyond the quota of its workspace, and not beyond those around it', async (t) => {
  const test = await engineFor(t)
  await test.service.workspaceCreate(`${A}/n`, { quotaBytes: 20 * KIB })
  test.mkdir(`${A}/n/d`)
  test.write(`${A}/n/d/f`, Buffer.alloc(20 * KIB))
  const { snapshot_id } = await test.service.snapshotCreate(`${A}/n`, {})
  test.unlink(`${A}/n/d/f`)
  // The kernel gives it back, or else a restore finds it still open.
  test.engine.fs.forget(nodeOf(volumeAt(test, `${A}/n`).number, 4), 1000)
  t.match(await test.service.quotaShow(`${A}/n`), { bytes_used: 0 })
  await test.service.quotaSet(`${A}/n`, { bytes: 4 * KIB })
  const refused = (path: string, around: string) =>
    t.rejects(test.service.restore(path, snapshot_id, {}), {
      code: 'NEXUS_NO_SPACE',
      message: new RegExp(`quota of ${around} leaves`),
    })
  await refused(`${A}/n/d`, `${A}/n`)
  await test.service.quotaSet(A, { bytes: 19 * KIB })
  await refused(`${A}/n`, A)
  await test.service.quotaSet(A, { bytes: 20 * KIB })
  await test.service.restore(`${A}/n`, snapshot_id, {})
  const shown = { bytes_used: 20 * KIB, bytes_limit: 4 * KIB, bytes_remaining: 0 }
  t.match(await test.service.quotaShow(`${A}/n`), {
    ...shown,
    around: [{ path: A, bytes_used: 20 * KIB, bytes_limit: 20 * KIB }],
  })
  t.throws(() => test.write(`${A}/n/g`, 'x'), EDQUOT)
  t.match(await test.service.quotaList(), [{ path: A }, { path: `${A}/n` }])
})

t.test('what a restore removed and somebody has open counts until it goes', async (t) => {
  const test = await engineFor(t)
  const { snapshot_id } = await test.service.snapshotCreate(A, {})
  const node = test.write(`${A}/open`, Buffer.alloc(4 * KIB, 'x'))
  await test.service.quotaSet(A, { bytes: 4 * KIB, inodes: 2 })
  await test.service.restore(A, snapshot_id, {})
  const into = Buffer.alloc(4 * KIB)
  t.equal(test.engine.fs.read(caller, node, 0, 4 * KIB, into, 0), 4 * KIB, 'it can be read, whatever the quota')
  t.match(await test.service.quotaShow(A), { bytes_used: 4 * KIB, inodes_used: 2 })
  t.throws(() => test.mkdir(`${A}/d`), EDQUOT)
  test.engine.fs.forget(node, 1000)
  test.mkdir(`${A}/d`)
  t.match(await test.service.quotaShow(A), { bytes_used: 0, inodes_used: 2 })
})

const oldTrees = [
  { name: 'there were quotas', unknown: { allocated: Number.NaN, inodes: Number.NaN }, size: 32 },
  { name: 'extended attributes counted', unknown: { xattrBytes: Number.NaN }, size: 48 },
]
for (const { name, unknown, size } of oldTrees)
  t.test(`trees of before ${name} are counted`, async (t) => {
    const test = await engineFor(t)
    const { volumes } = test.engine
    test.write(`${A}/f`, Buffer.alloc(5 * KIB))
    await volumes.checkpoint()
    const volume = volumeAt(test, A)
    const old = encodeSuper({ ...volume.super, ...unknown })
    t.equal(old.length, size, 'as they were stored')
    const root = volumes.tree.editNow(volume.root, [{ key: plainKey(0, Kind.super), value: old }])
    volumes.commit([{ kind: 'root', volume: volume.number, root, domain: volume.domain, inoNext: volume.super.inoNext }])
    test.write(`${A}/g`, Buffer.alloc(3 * KIB))
    t.equal((await test.engine.check()).total, 0, 'nothing is wrong with that')
    test.write(`${A}/f`, Buffer.alloc(KIB), 5 * KIB)
    test.engine.fs.setxattr(caller, test.stat(`${A}/f`).node, 'user.x', Buffer.alloc(KIB - 22), 0, false)
    t.match(await test.service.quotaSet(A, { bytes: 11 * KIB }), { bytes_used: 10 * KIB, inodes_used: 3 })
    await volumes.checkpoint()
    test.unlink(`${A}/g`)
    await volumes.checkpoint()
    t.match(await test.service.quotaShow(A), { bytes_used: 10 * KIB, inodes_used: 3 }, 'held still')
    t.equal((await test.engine.check()).total, 0)
  })

t.test('extended attributes count, and so do those that come with a fork or a restore', async (t) => {
  const test = await engineFor(t)
  const { fs } = test.engine
  const used = async (path: string): Promise<number> => (await test.service.quotaShow(path)).bytes_used
  const put = (file: string, name: string, bytes: number): void =>
    fs.setxattr(caller, test.stat(file).node, name, Buffer.alloc(bytes, 1), 0, false)
  const cost = (name: string, bytes: number): number => 16 + name.length + bytes
  await test.service.quotaSet(A, { bytes: 100 * KIB })
  test.write(`${A}/f`, '')
  test.mkdir(`${A}/d`)
  const { node } = test.stat(`${A}/d`)
  const g = fs.create(caller, node, 'g', 0o644, 0, 0).node
  t.equal(await used(A), 0, 'what comes with an inode does not')
  put(`${A}/f`, 'user.a', 1000)
  t.equal(await used(A), cost('user.a', 1000))
  put(`${A}/f`, 'user.a', 10)
  put(`${A}/f`, 'user.bb', 0)
  t.equal(await used(A), cost('user.a', 10) + cost('user.bb', 0))
  put(`${A}/d/g`, 'user.big', 60 * KIB)
  t.throws(() => put(`${A}/f`, 'user.big', 60 * KIB), EDQUOT)
  t.throws(() => put(`${A}/d`, 'user.big', 60 * KIB), EDQUOT)
  fs.removexattr(caller, test.stat(`${A}/f`).node, 'user.bb')
  const all = cost('user.a', 10) + cost('user.big', 60 * KIB)
  t.equal(await used(A), all)

  // Where it lies in the tree, in the layers, or in both.
  await test.engine.volumes.checkpoint()
  put(`${A}/f`, 'user.a', 20)
  t.equal(await used(A), all + 10)
  put(`${A}/f`, 'user.a', 10)
  const { snapshot_id } = await test.service.snapshotCreate(A, {})
  await test.service.fork(A, '/workspace/b', {})
  t.equal(await used('/workspace/b'), all)
  test.unlink(`${A}/d/g`)
  fs.forget(g, 1000)
  t.equal(await used(A), cost('user.a', 10), 'what is gone counts no more')
  put(`${A}/f`, 'user.big', 60 * KIB)
  // A directory comes back beside what was added since: together that is too much.
  await t.rejects(test.service.restore(`${A}/d`, snapshot_id, {}), { code: 'NEXUS_NO_SPACE' })
  fs.removexattr(caller, test.stat(`${A}/f`).node, 'user.big')
  await test.service.restore(`${A}/d`, snapshot_id, {})
  t.equal(await used(A), all)
  put(`${A}/d`, 'user.new', 100)
  await test.service.restore(A, snapshot_id, {})
  t.equal(await used(A), all)
  t.equal((await test.engine.check()).total, 0)
  await test.engine.volumes.checkpoint()
  t.equal((await test.engine.check()).total, 0)
})

t.test('a large ACL counts, and each inode that inherits it', async (t) => {
  // Where relations decide, an ACL names no one, and is small.
  const test = await engineFor(t, {}, true)
  const { fs } = test.engine
  const entry = (tag: number, id: number): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeUInt16LE(tag, 0)
    bytes.writeUInt16LE(7, 2)
    bytes.writeUInt32LE(id, 4)
    return bytes
  }
  const none = 0xffff_ffff
  const named = Array.from({ length: 1000 }, (_, i) => entry(2, 5000 + i))
  const acl = Buffer.concat([Buffer.from([2, 0, 0, 0]), entry(1, none), ...named, ...[4, 16, 32].map((tag) => entry(tag, none))])
  const cost = 16 + 'system.posix_acl_default'.length + acl.length
  // A directory inherits it twice: as its own ACL, and to hand on.
  const inherited = cost + 16 + 'system.posix_acl_access'.length + acl.length
  await test.service.quotaSet(A, { bytes: cost + Math.floor(1.5 * inherited) })
  test.mkdir(`${A}/d`)
  fs.setxattr(caller, test.stat(`${A}/d`).node, 'system.posix_acl_default', acl, 0, false)
  t.match(await test.service.quotaShow(A), { bytes_used: cost })
  test.mkdir(`${A}/d/sub`)
  t.match(await test.service.quotaShow(A), { bytes_used: cost + inherited })
  t.throws(() => test.mkdir(`${A}/d/more`), EDQUOT)
  t.equal((await test.engine.check()).total, 0)
})

t.test('one inode has no more than so many bytes of extended attributes', async (t) => {
  const test = await engineFor(t)
  const { fs } = test.engine
  const node = test.write(`${A}/f`, '')
  const put = (name: string, bytes: number): void => fs.setxattr(caller, node, name, Buffer.alloc(bytes), 0, false)
  put('user.a', 64 * KIB)
  put('user.b', 64 * KIB)
  t.throws(() => put('user.c', KIB), { code: 'ENOSPC' })
  put('user.b', 63 * KIB)
  put('user.c', KIB)
  const many = test.write(`${A}/g`, '')
  let count = 0
  const fill = (): void => {
    for (; count < 10_000; count++) fs.setxattr(caller, many, `user.${count}`, Buffer.alloc(0), 0, false)
  }
  t.throws(fill, { code: 'ENOSPC' })
  t.ok(count > 4000, `${count} small ones`)
  t.equal((await test.engine.check()).total, 0)
})

t.test('df shows what is left of the tightest quota around', async (t) => {
  const test = await engineFor(t)
  const { fs } = test.engine
  await test.service.workspaceCreate(`${A}/n`, {})
  const disk = fs.statfs(caller, test.stat('/workspace').node)
  const { blockBytes } = disk
  await test.service.quotaSet(A, { bytes: 100 * blockBytes, inodes: 10 })
  await test.service.quotaSet(`${A}/n`, { bytes: 50 * blockBytes })
  test.write(`${A}/f`, Buffer.alloc(60 * blockBytes))
  const shown = (path: string) => fs.statfs(caller, test.stat(path).node)
  t.match(shown(`${A}/n`), { blocks: 100, blocksFree: 40, blocksAvailable: 40, files: 10, filesFree: 7 })
  test.write(`${A}/n/g`, Buffer.alloc(15 * blockBytes))
  t.match(shown(`${A}/n`), { blocks: 100, blocksAvailable: 25, filesFree: 6 })
  await test.service.quotaSet(`${A}/n`, { bytes: 20 * blockBytes })
  t.match(shown(`${A}/n`), { blocks: 20, blocksAvailable: 5 })
  await test.service.quotaSet(`${A}/n`, { bytes: 10 * blockBytes })
  t.match(shown(`${A}/n`), { blocks: 10, blocksFree: 0, blocksAvailable: 0 })
  await test.service.quotaSet(A, { bytes: Number.MAX_SAFE_INTEGER })
  t.ok(shown(A).blocks <= disk.blocks && shown(A).blocksAvailable <= disk.blocks, 'never more than the disk has')
  t.strictSame(shown('/workspace').blocks, disk.blocks)
})

t.test('a fork has no quota, and a tenant may be made with one', async (t) => {
  const test = await engineFor(t)
  await test.service.tenantOnboard('acme', { admin: 'user:alice', directories: ['x', 'y'], quotaBytes: 4 * KIB, quotaInodes: 4 })
  t.match(await test.service.quotaShow('/tenants/acme'), { bytes_limit: 4 * KIB, inodes_used: 3, inodes_remaining: 1 })
  await t.rejects(test.service.tenantOnboard('b', { admin: 'user:b', directories: ['x', 'y'], quotaInodes: 2 }), {
    code: 'NEXUS_NO_SPACE',
  })
  t.strictSame(test.list('/tenants'), ['acme'])
  await test.service.fork('/tenants/acme', '/workspace/copy', {})
  t.match(await test.service.quotaShow('/workspace/copy'), { bytes_limit: null, inodes_limit: null, inodes_used: 3 })
  await t.rejects(
    test.service.fork(A, '/tenants/acme/x/copy', {}).then(() => test.service.workspaceCreate('/tenants/acme/y/n', {})),
    {
      code: 'NEXUS_NO_SPACE',
      message: /takes 1 inodes more, and the quota of \/tenants\/acme leaves 0/,
    },
  )
})
