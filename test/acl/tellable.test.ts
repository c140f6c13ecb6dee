/** Who shares a workspace is told whom it was shared with, and not who is in the groups and tenants of others. */
import t from 'tap'
import { engineFor } from '../snapshots/support.ts'

const MINE = '/tenants/mine'
const uids: Record<string, number> = { ann: 2001, paul: 2002, connie: 2003, dan: 2004, gil: 2005, zoe: 2006 }

t.test('names are told to those who may know them', async (t) => {
  const { service } = await engineFor(t)
  for (const [name, uid] of Object.entries(uids)) await service.identityAdd(`user:${name}`, uid)
  await service.tenantOnboard('mine', { admin: 'user:ann', directories: ['d'] })
  await service.tenantOnboard('partner', { admin: 'user:paul' })
  await service.grant('user:connie', 'viewer', '/tenants/partner', {})
  await service.groupAdd('inner', 'user:dan')
  await service.groupAdd('eng', 'group:inner#member')
  await service.groupAdd('eng', 'user:gil')
  await service.grant('tenant:partner#member', 'viewer', MINE, {})
  await service.grant('group:eng#member', 'editor', MINE, {})
  const whoCan = async (name: string, at = MINE): Promise<string[]> =>
    (await service.forUser(uids[name] ?? 0).whoCan('read', at)).subjects
  const explained = async (asker: string, subject: string): Promise<string> =>
    (await service.forUser(uids[asker] ?? 0).explain(subject, 'read', MINE)).steps.join('\n')

  t.same(
    (await service.forUser(0).whoCan('read', MINE)).subjects,
    ['ann', 'connie', 'dan', 'gil', 'paul'].map((one) => `user:${one}`),
  )
  for (const at of [MINE, `${MINE}/d`]) {
    t.same(await whoCan('ann', at), ['group:eng#member', 'tenant:partner#member', 'user:ann'], `the owner, of ${at}`)
  }
  t.equal(
    (await service.forUser(uids['ann'] ?? 0).check('user:connie', 'read', MINE)).allowed,
    true,
    'an owner may ask about a name',
  )
  for (const one of ['user:connie', 'user:dan', 'user:gil', 'user:zoe']) {
    const steps = await explained('ann', one)
    t.notMatch(
      steps,
      /is viewer of tenant:partner($|\n)|is viewer of \/tenants\/partner/,
      `${one}: how somebody is in the tenant`,
    )
    t.notMatch(steps, /inner/, `${one}: nor what a group is made of`)
    t.match(steps, /is told to those who are in it/, `${one}: and it says so`)
  }
  t.match(await explained('ann', 'user:connie'), /tenant:partner#member is viewer of tenant:mine/, 'that the tenant was given it')

  // gil is in eng, but not in the group that eng contains; paul owns the tenant.
  await service.grant('user:gil', 'owner', MINE, {})
  await service.grant('user:paul', 'owner', MINE, {})
  t.same(await whoCan('gil'), [
    'group:eng#member',
    'group:inner#member',
    'tenant:partner#member',
    'user:ann',
    'user:gil',
    'user:paul',
  ])
  t.same(await whoCan('paul'), ['group:eng#member', 'tenant:partner#member', 'user:ann', 'user:connie', 'user:gil', 'user:paul'])
  t.match(await explained('paul', 'user:connie'), /user:connie is viewer of tenant:partner/)
  t.same(await whoCan('ann'), ['group:eng#member', 'tenant:partner#member', 'user:ann', 'user:gil', 'user:paul'])

  await service.grant('user:*', 'viewer', MINE, {})
  t.same(
    await whoCan('ann'),
    ['group:eng#member', 'tenant:partner#member', 'user:*', 'user:ann', 'user:gil', 'user:paul'],
    'all is not a list',
  )
  t.same(
    (await service.forUser(uids['ann'] ?? 0).grants(MINE)).map(({ subject }) => subject).sort(),
    ['group:eng#member', 'tenant:partner#member', 'user:*', 'user:ann', 'user:gil', 'user:paul'],
    'grants tell the same',
  )
})
