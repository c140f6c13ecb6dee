/** `nexusctl workspace …` */
import { type Command, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import { usage } from '../../api/text.ts'
import type { Metadata, WorkspaceInfo, WorkspaceWish } from '../../api/workspaces.ts'
import { align, count, localTime, printable, size, table } from '../format.ts'
import { examples, type MetaOptions, metadataOf, metaOption } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'
import { quotaOptions } from './quota.ts'

export async function runWorkspaceCreate(
  service: Service,
  { path, ...options }: { path: string; metadata?: Metadata } & NewOptions,
  output: Output,
): Promise<void> {
  const info = await service.workspaceCreate(path, options)
  output.result(info, () => `created workspace ${printable(info.path)}`)
}

export async function runWorkspaceList(service: Service, output: Output): Promise<void> {
  const infos = await service.workspaceList()
  output.result(infos, () => describeList(infos))
}

export async function runWorkspaceShow(service: Service, path: string, output: Output): Promise<void> {
  const info = await service.workspaceShow(path)
  output.result(info, () => describeWorkspace(info))
}

export async function runWorkspaceDelete(service: Service, path: string, output: Output): Promise<void> {
  const info = await service.workspaceDelete(path)
  const contents = `${count(info.file_count, 'file')}, ${size(info.bytes)}`
  output.result(info, () => `deleted workspace ${printable(info.path)} (${contents})`)
}

export async function runWorkspaceRename(
  service: Service,
  { path, newPath }: { path: string; newPath: string },
  output: Output,
): Promise<void> {
  const info = await service.workspaceRename(path, newPath)
  output.result(info, () => `renamed workspace ${printable(path)} to ${printable(info.path)}`)
}

export async function runWorkspaceUpdate(
  service: Service,
  { path, ...wish }: { path: string } & WorkspaceWish,
  output: Output,
): Promise<void> {
  const info = await service.workspaceUpdate(path, wish)
  output.result(info, () => describeWorkspace(info))
}

/** What is to be done where snapshots cannot be seen. */
const hiddenNote = ' (hidden: it has a file or directory of that name; see workspace update --snapshot-dir)'

function describeWorkspace(info: WorkspaceInfo): string {
  return align([
    ['path', info.path],
    ['created', localTime(info.created_at)],
    ['files', String(info.file_count)],
    ['directories', String(info.directory_count)],
    ['size', size(info.bytes)],
    ['snapshots', String(info.snapshot_count)],
    ['parent', info.parent ?? '-'],
    ['seen under', `${info.snapshot_dir}${info.snapshot_dir_hidden ? hiddenNote : ''}`],
    ...Object.entries(info.metadata).map(([key, value]) => ['meta', `${key}=${value}`]),
  ])
}

function describeList(infos: WorkspaceInfo[]): string {
  if (infos.length === 0) return 'no workspaces: make one with "nexusctl workspace create /workspace/NAME"'
  return table(
    [
      { title: 'PATH' },
      { title: 'FILES', align: 'right' },
      { title: 'SIZE', align: 'right' },
      { title: 'SNAPSHOTS', align: 'right' },
      { title: 'CREATED' },
    ],
    infos.map((info) => [
      info.path,
      String(info.file_count),
      size(info.bytes),
      String(info.snapshot_count),
      localTime(info.created_at),
    ]),
  )
}

export function addWorkspaceCommands(program: Command, open: OpenSession): void {
  const workspace = program.command('workspace').description('make, list, change and delete workspaces')
  workspace.addHelpText('after', examples('workspace create /workspace/acme --meta team=red', 'workspace list'))
  addCreate(workspace, open)
  addList(workspace, open)
  addShow(workspace, open)
  addDelete(workspace, open)
  addRename(workspace, open)
  addUpdate(workspace, open)
}

function addCreate(workspace: Command, open: OpenSession): void {
  const [bytes, inodes] = quotaOptions('quota-')
  workspace
    .command('create <PATH>')
    .description('make an empty workspace; mkdir under /workspace does the same')
    .addOption(metaOption())
    .option('--owner <SUBJECT>', 'grant this subject owner on it')
    .addOption(bytes)
    .addOption(inodes)
    .addOption(snapshotDirOption())
    .addHelpText('after', examples('workspace create /workspace/acme --meta team=red --owner alice'))
    .action(async (path: string, { meta, ...others }: MetaOptions & NewOptions) => {
      const { service, output, resolve } = open()
      const metadata = metadataOf(meta === undefined ? {} : { meta })
      await runWorkspaceCreate(service, { path: await resolve(path), ...metadata, ...others }, output)
    })
}

interface NewOptions {
  owner?: string
  quotaBytes?: number
  quotaInodes?: number
  snapshotDir?: string
}

/** For trees that have a `.snapshots` of their own. */
function snapshotDirOption(): Option {
  return new Option('--snapshot-dir <NAME>', 'the name in it under which its snapshots are seen (default: .snapshots)')
}

function addList(workspace: Command, open: OpenSession): void {
  workspace
    .command('list')
    .description('list the workspaces that you may read')
    .addHelpText('after', examples('workspace list --json'))
    .action(async () => {
      const { service, output } = open()
      await runWorkspaceList(service, output)
    })
}

function addShow(workspace: Command, open: OpenSession): void {
  workspace
    .command('show <PATH>')
    .description('show a workspace')
    .addHelpText('after', examples('workspace show /workspace/acme'))
    .action(async (path: string) => {
      const { service, output, resolve } = open()
      await runWorkspaceShow(service, await resolve(path), output)
    })
}

function addDelete(workspace: Command, open: OpenSession): void {
  workspace
    .command('delete <PATH>')
    .description('delete a workspace with all its files and snapshots, at once')
    .addHelpText('after', examples('workspace delete /workspace/acme'))
    .action(async (path: string) => {
      const { service, output, resolve } = open()
      await runWorkspaceDelete(service, await resolve(path), output)
    })
}

function addRename(workspace: Command, open: OpenSession): void {
  workspace
    .command('rename <PATH> <NEWPATH>')
    .description('give a workspace another path')
    .addHelpText('after', examples('workspace rename /workspace/acme /workspace/apex'))
    .action(async (path: string, newPath: string) => {
      const { service, output, resolve } = open()
      await runWorkspaceRename(service, { path: await resolve(path), newPath: await resolve(newPath) }, output)
    })
}

function addUpdate(workspace: Command, open: OpenSession): void {
  workspace
    .command('update <PATH>')
    .description('set metadata, where a key with an empty value is removed, or the name that its snapshots are seen under')
    .addOption(metaOption())
    .addOption(snapshotDirOption())
    .addHelpText(
      'after',
      examples('workspace update /workspace/acme --meta team=blue --meta old=', 'workspace update . --snapshot-dir .history'),
    )
    .action(async (path: string, { meta, snapshotDir }: MetaOptions & { snapshotDir?: string }) => {
      if (meta === undefined && snapshotDir === undefined) throw usage('nothing to change: give --meta or --snapshot-dir')
      const { service, output, resolve } = open()
      const wish = { ...metadataOf(meta === undefined ? {} : { meta }), ...(snapshotDir !== undefined && { snapshotDir }) }
      await runWorkspaceUpdate(service, { path: await resolve(path), ...wish }, output)
    })
}
