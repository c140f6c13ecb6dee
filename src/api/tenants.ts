/** Calls of tenants. */
import type * as v from 'valibot'
import { call, optional, parameter } from './call.ts'
import { metadata, quota } from './parameters.ts'
import { directories, subject, tenant } from './parameters-access.ts'
import { field, listOf, record, text } from './schema.ts'
import { snapshotInfo } from './snapshots.ts'
import { workspaceInfo } from './workspaces.ts'

export const tenantInfo = record('Tenant', {
  tenant: field(text, 'its id'),
  workspace: field(workspaceInfo, '`/tenants/ID`'),
  admin: field(text, 'the subject that owns it'),
  directories: field(listOf(text), 'names of those made in it'),
  snapshot: field(snapshotInfo, 'the first one, `initial-setup`'),
})
export type TenantInfo = v.InferOutput<typeof tenantInfo>

export const tenantCalls = {
  tenantOnboard: call({
    summary: 'make /tenants/ID with its directories, its owner and a first snapshot: all of it or nothing',
    effect: 'change',
    params: [parameter('id', tenant)],
    options: {
      admin: subject,
      metadata: optional(metadata),
      directories: optional(directories),
      quotaBytes: optional(quota),
      quotaInodes: optional(quota),
    },
    answer: tenantInfo,
  }),
}
