/** Pages that mappings dirtied and that cannot be stored, or never end, are their own workspace's: others take their snapshots. */
import fs from 'node:fs'
import t from 'tap'
import { accessMountFor, Person, skip, uids } from './access.ts'

const timeout = 180_000
/** Longest that a snapshot may take beside somebody who dirties pages without end: half of what it waited for before. */
const SNAPSHOT_MS_MAX = 15_000

const MAPPED = `
import mmap, threading
def mapped(name, size):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    os.ftruncate(fd, size)
    return mmap.mmap(fd, size), fd

def dirty(memory, fd, again):
    while True:
        for at in range(0, len(memory), 8192):
            memory[at] = (memory[at] + 1) % 256
        libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 2)
        if not again:
            return
`

t.test('a page that cannot be stored fails nobody else, and no snapshot of what is stored', { skip, timeout }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.tenantOnboard('beta', { admin: 'user:bob', directories: ['data'] })
  await service.quotaSet('/tenants/acme', { bytes: 1 << 20 })
  const alice = await Person.start(t, uids.alice, mount.at('tenants/acme/data'))
  t.equal(await alice.run(MAPPED), null)
  // Sparse, so that it costs nothing until a page is stored.
  t.equal(await alice.run("m, fd = mapped('big', 8 << 20)"), null)
  t.equal(await alice.try('dirty(m, fd, False)'), 'ok')
  await service.snapshotCreate('/tenants/beta', { name: 'other' })
  t.equal(await alice.try('dirty(m, fd, False)'), 'ok')
  await service.snapshotCreate('/tenants/acme', { name: 'own' })
  t.equal(await alice.try('m.flush()'), 'EDQUOT', 'the one who dirtied it is told')
  t.ok(fs.existsSync(mount.at('tenants/acme/.snapshots/own/data/big')))
})

t.test('who dirties pages without end holds up no snapshot of others', { skip, timeout }, async (t) => {
  const { mount, service } = await accessMountFor(t)
  await service.tenantOnboard('beta', { admin: 'user:bob', directories: ['data'] })
  const alice = await Person.start(t, uids.alice, mount.at('tenants/acme/data'))
  t.equal(await alice.run(MAPPED), null)
  const bob = await Person.start(t, uids.bob, mount.at('tenants/beta/data'))
  t.equal(await bob.run(MAPPED), null)
  t.equal(await bob.run("m, fd = mapped('f', 1 << 20)"), null)
  const starts = `for i in range(4): threading.Thread(target=dirty, args=(*mapped('big%d' % i, 4 << 20), True), daemon=True).start()`
  t.equal(await alice.run(starts), null)
  for (let round = 1; round <= 3; round++) {
    t.equal(await bob.try(`m[0] = ${round}`), 'ok')
    const begun = performance.now()
    await service.snapshotCreate('/tenants/beta', { name: `s${round}` })
    const ms = performance.now() - begun
    t.comment(`${ms.toFixed(0)} ms`)
    t.ok(ms < SNAPSHOT_MS_MAX, `${ms} ms`)
    const file = fs.readFileSync(mount.at('tenants/beta/.snapshots', `s${round}`, 'data/f'))
    t.equal(file[0], round, 'and it has what its own mapping dirtied')
  }
})
