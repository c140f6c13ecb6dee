/** The commands about who may, as functions: what people read. */
import { runCheck, runExplain, runGrant, runGrants, runRevoke, runWhatCan, runWhoCan } from '../../src/cli/commands/grant.ts'
import { runGroupAdd, runGroupList, runGroupRemove } from '../../src/cli/commands/group.ts'
import { runIdentityAdd, runIdentityList, runIdentityRemove } from '../../src/cli/commands/identity.ts'
import { runModelApply, runModelShow } from '../../src/cli/commands/model.ts'
import { runTenantOnboard } from '../../src/cli/commands/tenant.ts'
import { checked, explained, granted, group, identity, model, reach, snapshot, tenant } from '../service/fake-service.ts'
import { type CommandRow, checkCommands } from './command-rows.ts'

process.env['TZ'] = 'UTC'

const path = '/workspace/acme'
const subject = 'alice'
const editor = { subject, relation: 'editor', path }
const write = { subject, permission: 'write', path }
const expires_at = '2026-02-01T00:00:00.000Z'

const rows: CommandRow[] = [
  {
    name: 'identity add',
    run: (service, output) => runIdentityAdd(service, { subject, uid: 1001 }, output),
    want: ['user:alice is uid 1000, 1001'],
  },
  {
    name: 'identity list',
    run: runIdentityList,
    service: { identityList: async () => [{ subject: 'agent:coder-7', uids: [2007] }, identity] },
    want: ['SUBJECT        UIDS', 'agent:coder-7  2007', 'user:alice     1000, 1001'],
  },
  {
    name: 'identity list of none',
    run: runIdentityList,
    service: { identityList: async () => [] },
    want: ['no identities: say who a uid is with "nexusctl identity add NAME --uid N"'],
  },
  {
    name: 'identity remove of one uid',
    run: (service, output) => runIdentityRemove(service, { subject, uid: 1001 }, output),
    service: { identityRemove: async () => ({ ...identity, uids: [1000] }) },
    want: ['user:alice is uid 1000'],
  },
  {
    name: 'identity remove of the last uid',
    run: (service, output) => runIdentityRemove(service, { subject }, output),
    service: { identityRemove: async () => ({ ...identity, uids: [] }) },
    want: ['user:alice has no uid any more'],
  },
  {
    name: 'grant',
    run: (service, output) => runGrant(service, editor, output),
    want: ['granted editor on /workspace/acme to user:alice'],
  },
  {
    name: 'grant that ends',
    run: (service, output) => runGrant(service, { ...editor, expires: expires_at }, output),
    service: { grant: async () => ({ ...granted, subject: 'group:eng#member', expires_at }) },
    want: ['granted editor on /workspace/acme to group:eng#member until 2026-02-01 00:00:00'],
  },
  {
    name: 'revoke',
    run: (service, output) => runRevoke(service, editor, output),
    want: ['revoked editor on /workspace/acme from user:alice'],
  },
  {
    name: 'grants',
    run: (service, output) => runGrants(service, `${path}/evil\u001b[2J`, output),
    service: {
      grants: async () => [
        { ...granted, subject: 'user:*', relation: 'viewer', path: `${path}/evil\u001b[2J`, expires_at },
        { ...granted, inherited: true },
      ],
    },
    want: [
      'SUBJECT     RELATION  ON                           GRANTED              EXPIRES',
      'user:*      viewer    /workspace/acme/evil\\x1b[2J  2026-01-31 12:36:00  2026-02-01 00:00:00',
      'user:alice  editor    /workspace/acme              2026-01-31 12:36:00  never',
    ],
  },
  {
    name: 'grants of none',
    run: (service, output) => runGrants(service, path, output),
    service: { grants: async () => [] },
    want: ['no grants: give one with "nexusctl grant SUBJECT viewer /workspace/acme"'],
  },
  { name: 'check', run: (service, output) => runCheck(service, write, output), want: ['yes'] },
  {
    name: 'check that fails',
    run: (service, output) => runCheck(service, write, output),
    service: { check: async () => ({ ...checked, allowed: false }) },
    want: ['no'],
  },
  {
    name: 'explain',
    run: (service, output) => runExplain(service, write, output),
    want: [
      'yes, user:alice has write on /workspace/acme',
      '  write is given by editor',
      '  user:alice is editor of /workspace/evil\\x1b[2J',
    ],
  },
  {
    name: 'explain a refusal',
    run: (service, output) => runExplain(service, write, output),
    service: { explain: async () => ({ ...explained, allowed: false, steps: ['nothing was granted'] }) },
    want: ['no, user:alice has not write on /workspace/acme', '  nothing was granted'],
  },
  {
    name: 'who-can',
    run: (service, output) => runWhoCan(service, { permission: 'read', path }, output),
    service: { whoCan: async () => ({ subjects: ['agent:coder-7', 'user:alice'] }) },
    want: ['agent:coder-7', 'user:alice'],
  },
  {
    name: 'who-can of nobody',
    run: (service, output) => runWhoCan(service, { permission: 'read', path }, output),
    service: { whoCan: async () => ({ subjects: [] }) },
    want: ['nobody but the administrator'],
  },
  {
    name: 'what-can',
    run: (service, output) => runWhatCan(service, subject, output),
    service: { whatCan: async () => [reach, { path: '/workspace/acme/docs', permissions: ['share'] }] },
    want: ['PATH                  PERMISSIONS', '/workspace/acme       read, write', '/workspace/acme/docs  share'],
  },
  {
    name: 'what-can of nothing',
    run: (service, output) => runWhatCan(service, 'bob', output),
    service: { whatCan: async () => [] },
    want: ['bob has rights nowhere'],
  },
  {
    name: 'group add',
    run: (service, output) => runGroupAdd(service, { group: 'eng', members: ['alice', 'agent:coder-7'] }, output),
    want: ['group eng: agent:coder-7, user:alice'],
  },
  {
    name: 'group remove of the last member',
    run: (service, output) => runGroupRemove(service, { group: 'eng', members: ['alice'] }, output),
    service: { groupRemove: async () => ({ ...group, members: [] }) },
    want: ['group eng: no members'],
  },
  {
    name: 'group list',
    run: runGroupList,
    service: { groupList: async () => [group, { group: 'leads', members: [] }] },
    want: ['GROUP  MEMBERS', 'eng    agent:coder-7, user:alice', 'leads  -'],
  },
  {
    name: 'group list of none',
    run: runGroupList,
    service: { groupList: async () => [] },
    want: ['no groups: make one with "nexusctl group add NAME MEMBER"'],
  },
  { name: 'model show', run: runModelShow, want: ['model', '  schema 1.1', 'type user'] },
  {
    name: 'model show keeps tabs, and nothing that a terminal obeys',
    run: runModelShow,
    service: { modelShow: async () => ({ text: 'model\r\n\tschema 1.1 # \u001b[2J\n\n', builtin: false }) },
    want: ['model', '\tschema 1.1 # \\x1b[2J'],
  },
  {
    name: 'model apply',
    run: (service, output) => runModelApply(service, model.text, output),
    want: ['applied: every check follows this model from now on'],
  },
  {
    name: 'tenant onboard',
    run: (service, output) => runTenantOnboard(service, { id: 'acme', admin: 'alice' }, output),
    want: [
      'tenant       acme',
      'workspace    /tenants/acme',
      'admin        user:alice',
      'directories  data, models, exports',
      `snapshot     ${snapshot.snapshot_id} (initial-setup)`,
    ],
  },
  {
    name: 'tenant onboard without directories',
    run: (service, output) => runTenantOnboard(service, { id: 'acme', admin: 'alice', directories: [] }, output),
    service: { tenantOnboard: async () => ({ ...tenant, directories: [], snapshot: { ...snapshot, name: null } }) },
    want: [
      'tenant       acme',
      'workspace    /tenants/acme',
      'admin        user:alice',
      'directories  -',
      `snapshot     ${snapshot.snapshot_id}`,
    ],
  },
]

checkCommands(rows)
