/** docs/cli-abi.md says what the code does. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { httpStatusOf } from '../../src/api/protocol.ts'
import { summary } from '../../src/cli/commands/top.ts'
import type { DiffStat, FileStat } from '../../src/cli/patch/stat.ts'
import { changeBetween } from '../../src/client/metrics.ts'
import { type ErrorCode, NexusError, toExitStatus } from '../../src/errors.ts'
import { packageRoot } from '../../src/host/version.ts'
import {
  bad,
  checked,
  collected,
  diff,
  diskUsage,
  explained,
  finding,
  forked,
  fsck,
  granted,
  group,
  identity,
  metrics,
  model,
  quota,
  quotaShown,
  reach,
  renamed,
  restored,
  scrub,
  snapshot,
  status,
  tenant,
  workspace,
} from '../service/fake-service.ts'

const fileStat: Required<FileStat> = { path: '', change: 'renamed', from: '', added: 1, removed: null, uncounted: null }
const frame = summary(changeBetween(metrics, { ...metrics, pid: metrics.pid + 1 }))
const page = readFileSync(join(packageRoot(), 'docs/cli-abi.md'), 'utf8')

/** The rows of the table under a heading, without its title row; code marks are taken off. */
function tableUnder(heading: string): string[][] {
  const section = page.split(/^#+ /m).find((part) => part.startsWith(`${heading}\n`)) ?? ''
  const lines = section.split('\n').filter((line) => line.startsWith('|'))
  return lines.slice(2).map((line) => line.split('|').slice(1, -1).map(plain))
}

function plain(cell: string): string {
  return cell.trim().replaceAll('`', '')
}

t.test('error codes, exit statuses and HTTP statuses', async (t) => {
  const codes = Object.keys(httpStatusOf) as ErrorCode[]
  t.strictSame(
    tableUnder('Error codes').map((row) => row.slice(0, 3)),
    codes.map((code) => [code, String(toExitStatus(new NexusError(code, ''))), String(httpStatusOf[code])]),
  )
})

t.test('exit statuses are all there', async (t) => {
  const codes = Object.keys(httpStatusOf) as ErrorCode[]
  const used = new Set([0, toExitStatus(new Error('a bug')), ...codes.map((code) => toExitStatus(new NexusError(code, '')))])
  t.strictSame(
    tableUnder('Exit status').map(([exit]) => Number(exit)),
    [...used].sort(),
  )
})

t.test('fields and types of the JSON documents', async (t) => {
  const documents: Record<string, object> = {
    Workspace: workspace,
    Snapshot: snapshot,
    Diff: diff,
    'Diff in numbers': { from: '', to: '', files: [], added: 1, removed: 1, left_out: 0 } satisfies DiffStat,
    'File in numbers': fileStat,
    Change: renamed,
    Restore: restored,
    Writer: restored.writers[0] ?? {},
    Fork: forked,
    Checkpoint: { elapsed_ms: 1 },
    Identity: identity,
    Grant: granted,
    Check: checked,
    Explanation: explained,
    Subjects: { subjects: [] },
    Reach: reach,
    Group: group,
    Model: model,
    Tenant: tenant,
    Status: status,
    Limits: status.limits,
    Collection: collected,
    'Disk usage': diskUsage,
    'Disk usage of a workspace': diskUsage.workspaces[0] ?? {},
    Quota: quota,
    'Quota shown': quotaShown,
    Fsck: fsck,
    Scrub: scrub,
    'Bad content': bad,
    Finding: finding,
    Metrics: metrics,
    'Requests of a kind': metrics.operations['LOOKUP'] ?? {},
    Stall: metrics.stalls[0] ?? {},
    Distribution: metrics.fsync,
    Frame: frame,
    'Requests of a kind in a frame': frame.operations[0] ?? {},
    Times: frame.fsync,
  }
  for (const [heading, document] of Object.entries(documents)) {
    const rows = tableUnder(heading)
    t.strictSame(
      rows.map(([field]) => field),
      Object.keys(document),
      heading,
    )
    for (const [field = '', type = ''] of rows) {
      const value = document[field as keyof typeof document] as unknown
      t.match(type, typeWords(value), `${heading}.${field}`)
    }
  }
})

/** Words, one of which the page uses for the type of such a value. */
function typeWords(value: unknown): RegExp {
  if (value === null) return /or null$/
  if (Array.isArray(value)) return /^array of /
  if (typeof value === 'object') return /^(object of |a )/
  if (typeof value === 'number') return /^(integer|number)( or null)?$/
  return typeof value === 'boolean' ? /^boolean$/ : /^(string|time)( or null)?$/
}
