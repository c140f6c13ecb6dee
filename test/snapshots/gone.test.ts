/** A directory that is gone is restored from its own snapshot, or from its workspace's. */
import t, { type Test } from 'tap'
import { systemCode } from '../../src/errors.ts'
import { caller, engineFor, type TestEngine } from './support.ts'

const W = '/workspace/a'
const SRC = `${W}/x/y/src`

async function worldFor(t: Test): Promise<TestEngine> {
  const made = await engineFor(t)
  for (const directory of [`${W}/x`, `${W}/x/y`, SRC, `${SRC}/deep`]) made.mkdir(directory)
  made.write(`${SRC}/file`, 'first')
  made.write(`${SRC}/deep/other`, 'other')
  made.engine.fs.setattr(caller, made.stat(`${W}/x`).node, { mode: 0o750, uid: 5 })
  made.engine.fs.setattr(caller, made.stat(SRC).node, { mode: 0o701, gid: 6 })
  await made.service.snapshotCreate(SRC, { name: 'own' })
  await made.service.snapshotCreate(W, { name: 'all' })
  return made
}

function remove(made: TestEngine, path: string): void {
  const { fs } = made.engine
  for (const name of made.list(path)) {
    const stat = made.stat(`${path}/${name}`)
    if ((stat.mode & 0o170000) === 0o040000) remove(made, `${path}/${name}`)
    else fs.unlink(caller, made.stat(path).node, name)
  }
  fs.rmdir(caller, made.stat(path.slice(0, path.lastIndexOf('/'))).node, path.slice(path.lastIndexOf('/') + 1))
}

function shape(made: TestEngine, path: string): number[] {
  const { mode, uid, gid, nlink, node } = made.stat(path)
  return [mode, uid, gid, nlink, node]
}

async function outcome(call: Promise<unknown>): Promise<string> {
  return await call.then(
    () => 'ok',
    (error: unknown) => systemCode(error) ?? String(error),
  )
}

for (const snapshot of ['own', 'all']) {
  for (const gone of [SRC, `${W}/x/y`, `${W}/x`]) {
    t.test(`${gone} is gone, and ${SRC} comes back from ${snapshot}`, async (t) => {
      const made = await worldFor(t)
      const { service } = made
      const before = [SRC, `${W}/x`].map((path) => shape(made, path))
      remove(made, gone)
      const dry = await service.restore(SRC, snapshot, { dryRun: true })
      t.same(dry.changes.map(({ path, change }) => `${change} ${path}`).sort(), ['added deep', 'added deep/other', 'added file'])
      t.equal(dry.undo, null)
      t.throws(() => made.stat(SRC), 'a dry run makes nothing')
      const done = await service.restore(SRC, snapshot, {})
      t.same(done.changes, dry.changes)
      t.equal(made.read(`${SRC}/file`), 'first')
      t.equal(made.read(`${SRC}/deep/other`), 'other')
      t.same(
        [SRC, `${W}/x`].map((path) => shape(made, path)),
        before,
        'with owners, modes, links, and the inode that grants are on',
      )
      t.same((await service.fsck()).findings, [])
      t.equal(done.undo_path, gone.slice(0, gone.lastIndexOf('/')), 'what was there around it')
      const undone = await service.restore(done.undo_path ?? '', done.undo ?? '', {})
      t.throws(() => made.stat(gone), 'an undo takes it away again')
      await service.restore(undone.undo_path ?? '', undone.undo ?? '', {})
      t.equal(made.read(`${SRC}/deep/other`), 'other', 'and its undo brings it back')
      t.same((await service.fsck()).findings, [])
    })
  }
}

t.test('a directory that was moved away comes back as a copy', async (t) => {
  const made = await worldFor(t)
  const { fs } = made.engine
  fs.rename(caller, made.stat(`${W}/x/y`).node, 'src', made.stat(W).node, 'moved', 0)
  made.write(`${W}/moved/file`, 'later')
  await made.service.restore(SRC, 'own', {})
  t.equal(made.read(`${SRC}/file`), 'first')
  t.equal(made.read(`${W}/moved/file`), 'later', 'where it is now it stays as it is')
  t.not(made.stat(SRC).node, made.stat(`${W}/moved`).node)
  t.same((await made.service.fsck()).findings, [])
})

t.test('a workspace that lay inside comes back with it', async (t) => {
  const made = await worldFor(t)
  const { service } = made
  await service.workspaceCreate(`${SRC}/inner`, {})
  made.write(`${SRC}/inner/text`, 'inside')
  await service.snapshotCreate(SRC, { name: 'nested' })
  await service.workspaceDelete(`${SRC}/inner`)
  remove(made, `${W}/x`)
  await service.restore(SRC, 'nested', {})
  t.equal(made.read(`${SRC}/inner/text`), 'inside')
  t.same((await service.fsck()).findings, [])
})

t.test('what cannot be restored is refused with words', async (t) => {
  const made = await worldFor(t)
  const { service } = made
  remove(made, `${W}/x`)
  t.equal(await outcome(service.restore(`${W}/never`, 'all', {})), 'NEXUS_NOT_FOUND')
  t.equal(await outcome(service.restore(`${W}/x`, 'own', {})), 'NEXUS_USAGE', 'it holds only what is in it')
  t.equal(await outcome(service.restore(`${W}/x/y/src/deep`, 'own', {})), 'ok', 'which may be restored alone')
  remove(made, `${W}/x`)
  made.write(`${W}/x`, 'a file')
  await t.rejects(service.restore(SRC, 'own', {}), { code: 'NEXUS_EXISTS', message: `${W}/x is in the way and not a directory` })
  t.equal(made.read(`${W}/x`), 'a file')
  t.equal(await outcome(service.restore('/workspace/none/dir', 'own', {})), 'NEXUS_NOT_FOUND')
  made.unlink(`${W}/x`)
  made.kernel.writeBack = async () => {
    made.mkdir(`${W}/x`)
  }
  t.equal(await outcome(service.restore(SRC, 'own', {})), 'NEXUS_BUSY', 'made while it waited')
  t.same(made.list(`${W}/x`), [])
})

t.test('the nearest directory that is there decides who may', async (t) => {
  const made = await worldFor(t)
  const { service } = made
  const users = { ofWorkspace: 2001, ofY: 2002, ofX: 2003, viewer: 2004, stranger: 2005 }
  for (const [name, uid] of Object.entries(users)) await service.identityAdd(`user:${name}`, uid)
  for (const path of [W, `${W}/x`, `${W}/x/y`]) made.engine.fs.setattr(caller, made.stat(path).node, { mode: 0o777 })
  await service.grant('user:ofWorkspace', 'owner', W, {})
  await service.grant('user:viewer', 'viewer', W, {})
  await service.grant('user:ofX', 'owner', `${W}/x`, {})
  await service.grant('user:ofY', 'owner', `${W}/x/y`, {})
  const may = async (gone: string): Promise<Record<string, string>> => {
    const outcomes: Record<string, string> = {}
    for (const [name, uid] of Object.entries(users)) {
      remove(made, gone)
      outcomes[name] = await outcome(service.forUser(uid).restore(SRC, 'own', {}))
      if (outcomes[name] !== 'ok') await service.restore(SRC, 'own', {})
    }
    return outcomes
  }
  const denied = { viewer: 'NEXUS_DENIED', stranger: 'NEXUS_DENIED' }
  t.same(await may(SRC), { ofWorkspace: 'ok', ofX: 'ok', ofY: 'ok', ...denied })
  // From here on the workspace is around it: what is gone gives no rights.
  t.same(await may(`${W}/x`), { ofWorkspace: 'ok', ofX: 'NEXUS_DENIED', ofY: 'NEXUS_DENIED', ...denied })
})
