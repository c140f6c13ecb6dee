/** The mask beside a mode, and what workspaces of stores from before have in its place. */
import t from 'tap'
import { ByteReader } from '../../src/bytes.ts'
import { encodeAcl, OPEN_ACL } from '../../src/vfs/acl.ts'
import { nodeOf } from '../../src/vfs/place.ts'
import { altered, encodeAttr, MODE_BITS, maskOf, readAttr, withMask } from '../../src/volume/attr.ts'
import { ROOT_INO } from '../../src/volume/keys.ts'
import { engineFor } from '../snapshots/support.ts'

const root = { uid: 0, gid: 0, pid: 1 }
const DEFAULT_ACL = 'system.posix_acl_default'

t.test('a mask is kept for each mode, and lost when a program that does not know it changes the group', async (t) => {
  let wrong = 0
  for (let bits = 0; bits <= 0o7777; bits++) {
    const mode = 0o100000 | bits
    const group = (bits >> 3) & 7
    for (let mask = 0; mask <= 7; mask++) {
      const stored = withMask(mode, mask)
      if ((stored & MODE_BITS) !== mode || stored < 0 || maskOf(stored) !== (group === 0 ? 0 : mask)) wrong++
      for (const to of [0o000, 0o010, 0o040, 0o044, 0o060, 0o066, 0o075]) {
        // As chmod(2) was carried out before there was a mask.
        const changed = (stored & ~0o7777) | (bits & ~0o077) | to
        const wanted = (to & 0o070) === 0 ? 0 : to === (bits & 0o077) ? mask : ((to >> 3) | to) & 7
        if (maskOf(changed) !== wanted) wrong++
      }
    }
    if (maskOf(mode) !== (group === 0 ? 0 : group | (bits & 7))) wrong++
  }
  t.equal(wrong, 0)
})

t.test('an inode is stored with its mask, and the kernel is not shown it', async (t) => {
  const { fs, volume } = await workspace(t)
  const made = fs.create(root, nodeOf(volume, ROOT_INO), 'f', 0o666, 0o022, 0)
  t.equal(made.mode, 0o100644)
  const attr = fs.core.place(made.node).attr
  t.equal(maskOf(attr.mode), 6)
  t.same(readAttr(new ByteReader(encodeAttr(attr))), attr)
  t.equal(fs.lookup(root, nodeOf(volume, ROOT_INO), 'f')?.mode, 0o100644)
  t.equal(fs.getattr(root, made.node).mode, 0o100644)
  t.equal(fs.setattr(root, made.node, { mode: 0o4755 }).mode, 0o104755)
  t.equal(maskOf(fs.core.place(made.node).attr.mode), 5)
  t.equal(fs.setattr(root, made.node, { killSuidGid: true }).mode, 0o100755)
  t.equal(maskOf(fs.core.place(made.node).attr.mode), 5, 'clearing set-id bits is no chmod')
})

t.test('the open default ACL of workspaces from before is as if it were not there', async (t) => {
  const { fs, volume } = await workspace(t)
  const node = nodeOf(volume, ROOT_INO)
  const { attr } = fs.core.place(node)
  fs.core.volumes.commit([
    { kind: 'attr', volume, ino: ROOT_INO, attr: altered(attr, { mode: 0o040777, xattrs: 1 }) },
    { kind: 'xattr', volume, ino: ROOT_INO, name: DEFAULT_ACL, value: encodeAcl(OPEN_ACL) },
  ])
  t.same(fs.listxattr(root, node), [])
  t.throws(() => fs.getxattr(root, node, DEFAULT_ACL), { code: 'ENODATA' })
  const directory = fs.mkdir(root, node, 'd', 0o777, 0o022)
  t.equal(directory.mode, 0o040755)
  t.equal(fs.core.place(directory.node).attr.xattrs, 0, 'it is not inherited')
  t.equal(fs.create(root, node, 'private', 0o666, 0o077, 0).mode, 0o100600)

  fs.setxattr(root, node, DEFAULT_ACL, encodeAcl(OPEN_ACL), 0, false)
  t.same(fs.listxattr(root, node), [DEFAULT_ACL], 'one that a program sets is')
  t.equal(fs.create(root, node, 'open', 0o666, 0o077, 0).mode, 0o100666)
  const inner = fs.mkdir(root, node, 'e', 0o777, 0o077)
  t.equal(inner.mode, 0o040777)
  t.same(fs.listxattr(root, inner.node), [DEFAULT_ACL], 'and is inherited')
  fs.removexattr(root, node, DEFAULT_ACL)
  t.same(fs.listxattr(root, node), [])
  t.equal(fs.create(root, node, 'shut', 0o666, 0o077, 0).mode, 0o100600)
})

t.test('an inode from before keeps what its group and others have together', async (t) => {
  const { fs, volume } = await workspace(t)
  const made = fs.create(root, nodeOf(volume, ROOT_INO), 'f', 0o666, 0, 0)
  const place = fs.core.place(made.node)
  fs.core.volumes.commit([{ kind: 'attr', volume, ino: place.ino, attr: altered(place.attr, { mode: 0o100646 }) }])
  t.equal(fs.getattr(root, made.node).mode, 0o100646)
  t.equal(maskOf(fs.core.place(made.node).attr.mode), 6)
})

async function workspace(t: Parameters<typeof engineFor>[0]) {
  const { engine, service } = await engineFor(t)
  await service.workspaceCreate('/workspace/w', {})
  const { fs } = engine
  const parent = fs.lookup(root, nodeOf(0, ROOT_INO), 'workspace')
  const found = fs.lookup(root, parent?.node ?? 0, 'w')
  return { fs, volume: Math.floor((found?.node ?? 0) / 2 ** 32) }
}
