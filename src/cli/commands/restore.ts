/** `nexusctl restore` */
import { type Command, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { RestoreInfo } from '../../api/snapshots.ts'
import { countChanges, describeChanges } from '../changes.ts'
import { elapsed, printable } from '../format.ts'
import { examples, limitOption } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

export interface RestoreArguments {
  path: string
  snapshot: string
  dryRun?: boolean
  limit?: number
  force?: boolean
  stop?: boolean
}

export async function runRestore(
  service: Service,
  { path, snapshot, ...options }: RestoreArguments,
  output: Output,
): Promise<void> {
  const info = await service.restore(path, snapshot, options)
  output.result(info, () => (info.dry_run ? describeDryRun(info) : describeRestore(info)))
}

function describeDryRun(info: RestoreInfo): string {
  const summary = `${countChanges(info)} would restore ${printable(info.path)} to ${printable(info.restored)}; nothing was changed`
  return [describeChanges(info.changes), ...describeWriters(info), summary].filter((text) => text !== '').join('\n')
}

function describeWriters({ writers, writers_hidden }: RestoreInfo): string[] {
  const lines = writers.map(({ pid, command, files }) => {
    return `${printable(command)} (${pid}) has ${files} ${files === 1 ? 'file' : 'files'} open for writing there`
  })
  if (writers_hidden === 0) return lines
  const others = writers_hidden === 1 ? '1 process of another user has' : `${writers_hidden} processes of other users have`
  return [...lines, `${others} files open for writing there`]
}

function describeRestore(info: RestoreInfo): string {
  const path = printable(info.path)
  const done = `restored ${path} to ${printable(info.restored)} in ${elapsed(info.elapsed_ms)}`
  return info.undo === null ? done : `${done}\nundo with: nexusctl restore ${printable(info.undo_path ?? info.path)} ${info.undo}`
}

export function addRestoreCommand(program: Command, open: OpenSession): void {
  program
    .command('restore <PATH> <SNAPSHOT>')
    .description('set a workspace or directory back to a snapshot, after taking one that undoes this')
    .option('--dry-run', 'show what would change, and change nothing')
    .option('--force', 'restore also while processes have files there open for writing')
    .addOption(new Option('--stop', 'end those processes first (SIGTERM)').conflicts('force'))
    .addOption(limitOption())
    .addHelpText(
      'after',
      '\nOf the snapshots that restores take, the newest 10 of a workspace are kept: see workspace update --meta keep-undos=N',
    )
    .addHelpText('after', examples('restore /workspace/acme before-upgrade --dry-run'))
    .action(async (path: string, snapshot: string, options: Omit<RestoreArguments, 'path' | 'snapshot'>) => {
      const { service, output, resolve } = open()
      await runRestore(service, { path: await resolve(path), snapshot, ...options }, output)
    })
}
