/** The default ACL that is not decoded for each file is one that changes nothing. */
import t from 'tap'
import { type AclEntry, decodeAcl, encodeAcl, inheritAcl, isOpenAcl, OPEN_ACL } from '../../src/vfs/acl.ts'

t.test('what is made below an open default ACL has the mode that was asked for, and no ACL', async (t) => {
  t.ok(isOpenAcl(encodeAcl(OPEN_ACL)))
  const inherited = decodeAcl(encodeAcl(OPEN_ACL))
  for (let mode = 0; mode <= 0o7777; mode++) {
    const given = inheritAcl(inherited, 0o100000 | mode)
    if (given.mode !== (0o100000 | mode) || given.access !== undefined) t.fail(`mode ${mode.toString(8)}`)
  }
})

t.test('an ACL that takes something away, or names somebody, is not open', async (t) => {
  const [owner, group, other] = OPEN_ACL as [AclEntry, AclEntry, AclEntry]
  t.notOk(isOpenAcl(encodeAcl([owner, group, { ...other, perm: 5 }])))
  t.notOk(isOpenAcl(encodeAcl([owner, { tag: 0x02, perm: 7, id: 1000 }, group, { tag: 0x10, perm: 7, id: 0 }, other])))
  t.notOk(isOpenAcl(Buffer.alloc(0)))
})
