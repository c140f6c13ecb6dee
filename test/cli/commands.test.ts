/** The commands as functions: what they ask of the service and what people read. */

import type { MetricsInfo, OperationInfo } from '../../src/api/metrics.ts'
import { runFork } from '../../src/cli/commands/fork.ts'
import { runRestore } from '../../src/cli/commands/restore.ts'
import {
  runSnapshotCreate,
  runSnapshotDelete,
  runSnapshotDiff,
  runSnapshotList,
  runSnapshotShow,
} from '../../src/cli/commands/snapshot.ts'
import { runCollect, runDiskUsage } from '../../src/cli/commands/space.ts'
import { runCheckpoint, runStatus } from '../../src/cli/commands/status.ts'
import { runTop } from '../../src/cli/commands/top.ts'
import {
  runWorkspaceCreate,
  runWorkspaceDelete,
  runWorkspaceList,
  runWorkspaceRename,
  runWorkspaceShow,
  runWorkspaceUpdate,
} from '../../src/cli/commands/workspace.ts'
import type { Distribution } from '../../src/histogram.ts'
import { diff, forked, metrics, restored, snapshot, status, workspace } from '../service/fake-service.ts'
import { type CommandRow, checkCommands } from './command-rows.ts'

process.env['TZ'] = 'UTC'

const path = '/workspace/acme'
const before = { path, snapshot: 'before' }
const id = snapshot.snapshot_id
const undo = restored.undo ?? ''
const changeLines = ['modified  a.txt         content, mtime', 'added     evil\\x1b[2J/']

/** The metrics, and what they are two seconds later. */
function twoAnswers(): () => Promise<MetricsInfo> {
  const { LOOKUP, WRITE, FORGET } = metrics.operations as Record<'LOOKUP' | 'WRITE' | 'FORGET', OperationInfo>
  const latency: Distribution = {
    count: 50,
    sum_us: LOOKUP.latency.sum_us + 300,
    max_us: 320,
    buckets: [[3, 35], ...LOOKUP.latency.buckets, [320, 5]],
  }
  const before = { ...metrics, operations: { LOOKUP, FORGET } }
  const after: MetricsInfo = {
    ...metrics,
    at: '2026-01-31T13:00:02.000Z',
    operations: { LOOKUP: { count: 50, errors: { EACCES: 2, EIO: 1 }, latency }, WRITE: { ...WRITE, count: 2 }, FORGET },
    written_bytes: metrics.written_bytes + 4096,
    tree_cache: { hits: 34, misses: 11 },
  }
  const answers = [before, after, before, after]
  return async () => answers.shift() as MetricsInfo
}

const rows: CommandRow[] = [
  {
    name: 'workspace create',
    run: (service, output) => runWorkspaceCreate(service, { path }, output),
    want: ['created workspace /workspace/acme'],
  },
  {
    name: 'workspace list',
    run: runWorkspaceList,
    service: { workspaceList: async () => [workspace, { ...workspace, path: '/workspace/b', file_count: 1_000_000 }] },
    want: [
      'PATH               FILES     SIZE  SNAPSHOTS  CREATED',
      '/workspace/acme       12  1.5 KiB          1  2026-01-31 12:34:56',
      '/workspace/b     1000000  1.5 KiB          1  2026-01-31 12:34:56',
    ],
  },
  {
    name: 'workspace list of none',
    run: runWorkspaceList,
    service: { workspaceList: async () => [] },
    want: ['no workspaces: make one with "nexusctl workspace create /workspace/NAME"'],
  },
  {
    name: 'workspace show',
    run: (service, output) => runWorkspaceShow(service, path, output),
    want: [
      'path         /workspace/acme',
      'created      2026-01-31 12:34:56',
      'files        12',
      'directories  3',
      'size         1.5 KiB',
      'snapshots    1',
      'parent       -',
      'seen under   .snapshots',
      'meta         team=red',
    ],
  },
  {
    name: 'workspace update shows the outcome',
    run: (service, output) => runWorkspaceUpdate(service, { path, metadata: { a: 'b' } }, output),
    service: { workspaceUpdate: async () => ({ ...workspace, parent: id, metadata: { a: 'line\nbreak', b: '' } }) },
    want: [
      'path         /workspace/acme',
      'created      2026-01-31 12:34:56',
      'files        12',
      'directories  3',
      'size         1.5 KiB',
      'snapshots    1',
      `parent       ${id}`,
      'seen under   .snapshots',
      'meta         a=line\\x0abreak',
      'meta         b=',
    ],
  },
  {
    name: 'workspace delete',
    run: (service, output) => runWorkspaceDelete(service, path, output),
    want: ['deleted workspace /workspace/acme (12 files, 1.5 KiB)'],
  },
  {
    name: 'workspace rename',
    run: (service, output) => runWorkspaceRename(service, { path: '/workspace/old', newPath: path }, output),
    want: ['renamed workspace /workspace/old to /workspace/acme'],
  },
  {
    name: 'snapshot create',
    run: (service, output) => runSnapshotCreate(service, { path, name: 'before' }, output),
    want: [`${id}  snapshot "before" of /workspace/acme, 1 file, 100 B in 4.3 ms`],
  },
  {
    name: 'snapshot create of a plain directory',
    run: (service, output) => runSnapshotCreate(service, { path }, output),
    service: { snapshotCreate: async () => ({ ...snapshot, name: null, file_count: null, bytes: null }) },
    want: [`${id}  snapshot of /workspace/acme, not counted in 4.3 ms`],
  },
  {
    name: 'snapshot list',
    run: (service, output) => runSnapshotList(service, path, output),
    service: {
      snapshotList: async () => [
        { ...snapshot, name: null, automatic: true },
        { ...snapshot, name: null, path: '/workspace/acme/src', file_count: null, bytes: null },
        snapshot,
      ],
    },
    want: [
      'SNAPSHOT                         NAME         CREATED              FILES   SIZE  PATH',
      `${id}  (automatic)  2026-01-31 12:35:00      1  100 B  /workspace/acme`,
      `${id}  -            2026-01-31 12:35:00      -      -  /workspace/acme/src`,
      `${id}  before       2026-01-31 12:35:00      1  100 B  /workspace/acme`,
    ],
  },
  {
    name: 'snapshot list of none',
    run: (service, output) => runSnapshotList(service, path, output),
    service: { snapshotList: async () => [] },
    want: ['no snapshots: take one with "nexusctl snapshot /workspace/acme"'],
  },
  {
    name: 'snapshot show',
    run: (service, output) => runSnapshotShow(service, before, output),
    service: { snapshotShow: async () => ({ ...snapshot, metadata: { ticket: '42' } }) },
    want: [
      `id         ${id}`,
      'name       before',
      'path       /workspace/acme',
      'created    2026-01-31 12:35:00',
      'contents   1 file, 100 B',
      `root       ${'ab'.repeat(32)}`,
      'parent     -',
      'automatic  no',
      'meta       ticket=42',
    ],
  },
  {
    name: 'snapshot delete',
    run: (service, output) => runSnapshotDelete(service, before, output),
    want: [`deleted snapshot "before" ${id} of /workspace/acme`],
  },
  {
    name: 'snapshot diff',
    run: (service, output) => runSnapshotDiff(service, { path, from: 'before', to: null, limit: 10 }, output),
    want: [...changeLines, '2 changes'],
  },
  {
    name: 'snapshot diff without a difference',
    run: (service, output) => runSnapshotDiff(service, { path, from: 'a', to: 'b', limit: 10 }, output),
    service: { snapshotDiff: async () => ({ ...diff, changes: [] }) },
    want: [`no difference between ${id} and live`],
  },
  {
    name: 'snapshot diff with --limit 0',
    run: (service, output) => runSnapshotDiff(service, { path, from: 'a', to: 'b', limit: 0 }, output),
    service: { snapshotDiff: async () => ({ ...diff, changes: [], truncated: true }) },
    want: ['0 changes and more (raise --limit to see them)'],
  },
  {
    name: 'snapshot diff of the directory itself',
    run: (service, output) => runSnapshotDiff(service, { path, from: 'a', to: 'b', limit: 10 }, output),
    service: {
      snapshotDiff: async () => ({
        ...diff,
        changes: [{ path: '', change: 'modified', kind: 'directory', what: ['mode'] }],
      }),
    },
    want: ['modified  ./  mode', '1 change'],
  },
  {
    name: 'restore',
    run: (service, output) => runRestore(service, before, output),
    want: [`restored /workspace/acme to ${id} in 3.0 ms`, `undo with: nexusctl restore /workspace/acme ${undo}`],
  },
  {
    name: 'restore --dry-run',
    run: (service, output) => runRestore(service, { ...before, dryRun: true }, output),
    service: { restore: async () => ({ ...restored, undo: null, dry_run: true }) },
    want: [
      ...changeLines,
      'evil\\x1b[2J (4711) has 2 files open for writing there',
      '3 processes of other users have files open for writing there',
      `2 changes and more (raise --limit to see them) would restore /workspace/acme to ${id}; nothing was changed`,
    ],
  },
  {
    name: 'fork',
    run: (service, output) => runFork(service, { path, newPath: '/workspace/trial' }, output),
    want: ['forked /workspace/acme to /workspace/trial in 1.5 ms'],
  },
  {
    name: 'fork of a snapshot',
    run: (service, output) => runFork(service, { path, newPath: '/workspace/trial', snapshot: 'before' }, output),
    service: { fork: async () => ({ ...forked, snapshot: id }) },
    want: [`forked /workspace/acme at ${id} to /workspace/trial in 1.5 ms`],
  },
  { name: 'checkpoint', run: runCheckpoint, want: ['everything is written out, in 7.0 ms'] },
  {
    name: 'gc',
    run: (service, output) => runCollect(service, output),
    want: ['128.0 MiB freed, 1.0 MiB moved, 12 dead chunks and nodes forgotten, in 40.0 ms'],
  },
  {
    name: 'status',
    run: runStatus,
    want: [
      'nexusd      0.1.0, pid 4321',
      'state       ok',
      'mountpoint  /mnt/nexus',
      'data        /var/lib/nexus',
      'started     2026-01-31 12:00:00 (1 h 2 min ago)',
      'protocol    7.40',
      'workspaces  2',
      'snapshots   5',
      'memory      90.0 MiB',
      'log         2.0 KiB, 0 B since the last checkpoint',
      'requests    LOOKUP=10, GETATTR=3',
      'stalls      1 request of more than 50 ms',
      'disk        50.0 MiB free',
      'limits      1000 workspaces, any number of snapshots, 8 calls at a time for each user and agent',
      'taken over  2 times, last 2026-01-31 12:50:00',
    ],
  },
  {
    name: 'status for a user, who is told nothing of the whole',
    run: runStatus,
    service: { status: async () => ({ ...status, pid: 0, workspaces: 0, memory_bytes: 0, taken_over_at: null }) },
    want: [
      'nexusd      0.1.0',
      'state       ok',
      'mountpoint  /mnt/nexus',
      'data        /var/lib/nexus',
      'started     2026-01-31 12:00:00 (1 h 2 min ago)',
      'protocol    7.40',
      'limits      1000 workspaces, any number of snapshots, 8 calls at a time for each user and agent',
    ],
  },
  {
    name: 'gc with somebody who watches',
    run: async (service, output) => {
      const lines: string[] = []
      await runCollect(service, output, (line) => lines.push(line))
      if (lines[0] !== 'sweep  [######..................] 250 of 1000' || lines.at(-1) !== '') throw new Error(lines.join('|'))
    },
    want: ['128.0 MiB freed, 1.0 MiB moved, 12 dead chunks and nodes forgotten, in 40.0 ms'],
  },
  {
    name: 'df',
    run: (service, output) => runDiskUsage(service, null, output),
    want: [
      'live                60.0 MiB',
      'only in snapshots   30.0 MiB',
      'reclaimable         10.0 MiB',
      'on disk             100.0 MiB',
      'files as they look  120.0 MiB, 2.50 times what is stored of them',
      'measured            2026-01-31 12:40:00',
      '',
      'WORKSPACE             SIZE  FILES',
      '/workspace/acme  120.0 MiB      3  1 snapshot',
    ],
  },
  {
    name: 'top',
    run: (service, output) => runTop(service, { intervalMs: 1, once: true }, output),
    service: { metrics: twoAnswers() },
    want: [
      'nexusd      pid 4321, up 10 min 2 s, 2026-01-31 13:00:02, 2.00 s',
      'requests    21/s, besides what the kernel answers by itself',
      'content     0 B/s read, 2.0 KiB/s written',
      'caches      tree 80.0 %, chunks - found',
      'log         2.0 KiB, 1.0 KiB since the last checkpoint; 0 checkpoints done',
      'collection  idle',
      'disk        50.0 MiB of 100.0 MiB free',
      'memory      90.0 MiB; the kernel holds 7 inodes',
      'access      0 checks, 0 refusals',
      '',
      'OPERATION                   /S  P50 µs  P99 µs  MAX µs  ERRORS',
      'LOOKUP                      20     3.0     320     320       1',
      'WRITE                      1.0   60000   60000   60000',
      '(fsync of the log)         0.0       -       -       -',
      '(delay of the event loop)            -       -       -',
      '',
      'WORST STALLS         OPERATION  TOOK',
      '2026-01-31 12:59:59  WRITE      60.0 ms  held all others',
    ],
  },
]

checkCommands(rows)
