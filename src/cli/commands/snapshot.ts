/** `nexusctl snapshot …` */
import { type Command, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { DiffInfo, SnapshotInfo } from '../../api/snapshots.ts'
import { usage } from '../../api/text.ts'
import type { Metadata } from '../../api/workspaces.ts'
import { NexusError } from '../../errors.ts'
import { countChanges, describeChanges } from '../changes.ts'
import { align, count, elapsed, localTime, printable, size, table } from '../format.ts'
import { examples, limitOption, type MetaOptions, metadataOf, metaOption } from '../options.ts'
import type { Output } from '../output.ts'
import { pairsOf } from '../patch/pairs.ts'
import { type Part, writePart } from '../patch/patch.ts'
import { bytesOf, Side } from '../patch/side.ts'
import { Spool } from '../patch/spool.ts'
import { describeStat, diffStat } from '../patch/stat.ts'
import type { Invocation, OpenSession } from '../session.ts'

export async function runSnapshotCreate(
  service: Service,
  { path, ...options }: { path: string; name?: string; metadata?: Metadata },
  output: Output,
): Promise<void> {
  const info = await service.snapshotCreate(path, options)
  const took = info.elapsed_ms === undefined ? '' : ` in ${elapsed(info.elapsed_ms)}`
  output.result(info, () => `${info.snapshot_id}  ${title(info)} of ${printable(info.path)}, ${contents(info)}${took}`)
}

export async function runSnapshotList(service: Service, path: string, output: Output): Promise<void> {
  const infos = await service.snapshotList(path)
  output.result(infos, () => describeList(infos, path))
}

export async function runSnapshotShow(
  service: Service,
  { path, snapshot }: { path: string; snapshot: string },
  output: Output,
): Promise<void> {
  const info = await service.snapshotShow(path, snapshot)
  output.result(info, () => describeSnapshot(info))
}

export async function runSnapshotDelete(
  service: Service,
  { path, snapshot }: { path: string; snapshot: string },
  output: Output,
): Promise<void> {
  const info = await service.snapshotDelete(path, snapshot)
  output.result(info, () => `deleted ${title(info)} ${info.snapshot_id} of ${printable(info.path)}`)
}

/** @param to another snapshot, or null for the live state */
export async function runSnapshotDiff(
  service: Service,
  { path, from, to, limit }: { path: string; from: string; to: string | null; limit: number },
  output: Output,
): Promise<void> {
  const diff = await service.snapshotDiff(path, from, to, limit)
  output.result(diff, () => describeDiff(diff))
}

/** As many as the daemon tells in one answer. */
const CHANGES_MAX = 100_000

export interface PatchWish {
  path: string
  from: string
  to: string | null
  patch: boolean
  stat: boolean
}

/** The lines that differ, or their counts: the daemon tells which files, and their contents are read through the mount. */
export async function runSnapshotPatch(
  session: Pick<Invocation, 'service' | 'output' | 'hostPath' | 'isJson' | 'write' | 'note'>,
  { path, from, to, patch, stat }: PatchWish,
): Promise<void> {
  const { service, output, hostPath, isJson } = session
  if (patch && isJson) throw usage('a patch is text: leave out --json, or take --stat for the counts')
  const diff = await service.snapshotDiff(path, from, to, CHANGES_MAX)
  if (diff.truncated) {
    throw new NexusError('NEXUS_UNSUPPORTED', `more than ${CHANGES_MAX} changes: compare a directory in ${path}`)
  }
  const sideAt = async (place: string | null): Promise<Side | undefined> => {
    if (place === null) return undefined
    const host = await hostPath(place)
    if (host !== undefined) return new Side(bytesOf(host), place)
    throw new NexusError(
      'NEXUS_UNSUPPORTED',
      `${place} is not mounted where this program runs, and files are read through the mount`,
    )
  }
  const sides = { before: await sideAt(diff.from_path), after: await sideAt(diff.to_path) }
  const { pairs, leftOut } = pairsOf(diff, sides)
  const spool = new Spool()
  try {
    const parts: Part[] = []
    let silent = leftOut
    for (const pair of pairs) {
      const part = writePart(pair, sides, (text) => patch && spool.write(text))
      if (part === undefined) silent++
      else parts.push(part)
    }
    if (stat) output.result(diffStat(diff, { parts, leftOut: silent }), () => describeStat(parts) + (patch ? '\n' : ''))
    if (patch) spool.drain(session.write)
    if (patch && silent > 0) session.note(`nexusctl: ${count(silent, 'change')} ${leftOutNote}\n`)
  } finally {
    spool.close()
  }
}

const leftOutNote = 'not in a patch: rights, owners, times, empty directories, special files (see "snapshot diff" without -p)'

function title({ name, automatic }: SnapshotInfo): string {
  if (name !== null) return `snapshot "${printable(name)}"`
  return automatic ? 'automatic snapshot' : 'snapshot'
}

function contents({ file_count, bytes }: SnapshotInfo): string {
  return file_count === null || bytes === null ? 'not counted' : `${count(file_count, 'file')}, ${size(bytes)}`
}

function describeSnapshot(info: SnapshotInfo): string {
  return align([
    ['id', info.snapshot_id],
    ['name', info.name ?? '-'],
    ['path', info.path],
    ['created', localTime(info.created_at)],
    ['contents', contents(info)],
    ['root', info.root],
    ['parent', info.parent ?? '-'],
    ['automatic', info.automatic ? 'yes' : 'no'],
    ...Object.entries(info.metadata).map(([key, value]) => ['meta', `${key}=${value}`]),
  ])
}

function describeList(infos: SnapshotInfo[], path: string): string {
  if (infos.length === 0) return `no snapshots: take one with "nexusctl snapshot ${printable(path)}"`
  return table(
    [
      { title: 'SNAPSHOT' },
      { title: 'NAME' },
      { title: 'CREATED' },
      { title: 'FILES', align: 'right' },
      { title: 'SIZE', align: 'right' },
      { title: 'PATH' },
    ],
    infos.map((info) => [
      info.snapshot_id,
      info.name ?? (info.automatic ? '(automatic)' : '-'),
      localTime(info.created_at),
      info.file_count === null ? '-' : String(info.file_count),
      info.bytes === null ? '-' : size(info.bytes),
      info.path,
    ]),
  )
}

function describeDiff(diff: DiffInfo): string {
  if (diff.changes.length === 0 && !diff.truncated) {
    return `no difference between ${printable(diff.from)} and ${printable(diff.to)}`
  }
  return [describeChanges(diff.changes), countChanges(diff)].filter((text) => text !== '').join('\n')
}

/**
 * `create` is the default subcommand, so that `snapshot PATH` needs no word more: a PATH that is
 * spelt like one of the subcommands is written `./list`.
 */
export function addSnapshotCommands(program: Command, open: OpenSession): void {
  const snapshot = program
    .command('snapshot')
    .usage('PATH [--name N] [--meta k=v]\n       nexusctl snapshot create|list|show|diff|delete PATH ...')
    .description('take a snapshot of a workspace or directory; list, show, compare and delete them')
  snapshot.addHelpText('after', examples('snapshot /workspace/acme --name before-upgrade', 'snapshot list /workspace/acme'))
  addCreate(snapshot, open)
  addList(snapshot, open)
  addShow(snapshot, open)
  addDiff(snapshot, open)
  addDelete(snapshot, open)
}

function addCreate(snapshot: Command, open: OpenSession): void {
  snapshot
    .command('create <PATH>', { isDefault: true })
    .description('take a snapshot; the word "create" may be left out')
    .option('--name <name>', 'a name, unique in the workspace')
    .addOption(metaOption())
    .addHelpText('after', examples('snapshot /workspace/acme --name before-upgrade --meta ticket=42'))
    .action(async (path: string, { meta, ...name }: MetaOptions & { name?: string }) => {
      const { service, output, resolve } = open()
      const metadata = metadataOf(meta === undefined ? {} : { meta })
      await runSnapshotCreate(service, { path: await resolve(path), ...name, ...metadata }, output)
    })
}

function addList(snapshot: Command, open: OpenSession): void {
  snapshot
    .command('list <PATH>')
    .description('list the snapshots of a workspace, newest last')
    .addHelpText('after', examples('snapshot list /workspace/acme'))
    .action(async (path: string) => {
      const { service, output, resolve } = open()
      await runSnapshotList(service, await resolve(path), output)
    })
}

function addShow(snapshot: Command, open: OpenSession): void {
  snapshot
    .command('show <PATH> <SNAPSHOT>')
    .description('show a snapshot, given by id, start of an id, or name')
    .addHelpText('after', examples('snapshot show /workspace/acme before-upgrade'))
    .action(async (path: string, name: string) => {
      const { service, output, resolve } = open()
      await runSnapshotShow(service, { path: await resolve(path), snapshot: name }, output)
    })
}

function addDiff(snapshot: Command, open: OpenSession): void {
  snapshot
    .command('diff <PATH> <FROM> [TO]')
    .description('show what changed from one snapshot to another, or to the live state')
    .addOption(limitOption())
    .addOption(new Option('-p, --patch', 'show the lines that differ, for git apply or patch -p1').conflicts('limit'))
    .addOption(new Option('--stat', 'show how many lines were added and removed').conflicts('limit'))
    .addHelpText(
      'after',
      examples('snapshot diff /workspace/acme before-upgrade', 'snapshot diff -p . before-upgrade | git apply -R'),
    )
    .action(async (path: string, from: string, to: string | undefined, { limit, patch, stat }: DiffOptions) => {
      const session = open()
      const wish = { path: await session.resolve(path), from, to: to ?? null }
      if (patch !== true && stat !== true) await runSnapshotDiff(session.service, { ...wish, limit }, session.output)
      else await runSnapshotPatch(session, { ...wish, patch: patch === true, stat: stat === true })
    })
}

interface DiffOptions {
  limit: number
  patch?: true
  stat?: true
}

function addDelete(snapshot: Command, open: OpenSession): void {
  snapshot
    .command('delete <PATH> <SNAPSHOT>')
    .description('delete a snapshot; the files of the workspace stay as they are')
    .addHelpText('after', examples('snapshot delete /workspace/acme before-upgrade'))
    .action(async (path: string, name: string) => {
      const { service, output, resolve } = open()
      await runSnapshotDelete(service, { path: await resolve(path), snapshot: name }, output)
    })
}
