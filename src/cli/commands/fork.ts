/** `nexusctl fork` */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import { elapsed, printable } from '../format.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

interface ForkOptions {
  snapshot?: string
  withGrants?: boolean
  owner?: string
}

export async function runFork(
  service: Service,
  { path, newPath, ...options }: { path: string; newPath: string } & ForkOptions,
  output: Output,
): Promise<void> {
  const info = await service.fork(path, newPath, options)
  const at = info.snapshot === null ? '' : ` at ${printable(info.snapshot)}`
  output.result(info, () => `forked ${printable(info.source)}${at} to ${printable(info.path)} in ${elapsed(info.elapsed_ms)}`)
}

export function addForkCommand(program: Command, open: OpenSession): void {
  program
    .command('fork <PATH> <NEWPATH>')
    .description('make a new workspace with the contents of another, at once')
    .option('--snapshot <SNAPSHOT>', 'start from a snapshot instead of the live state')
    .option('--with-grants', 'copy the grants too, those of the workspace and those in it')
    .option('--owner <SUBJECT>', 'grant this subject owner on the new workspace')
    .addHelpText(
      'after',
      examples(
        'fork /workspace/acme /workspace/trial --snapshot before-upgrade',
        'fork /workspace/acme /workspace/trial --owner agent:coder-7',
      ),
    )
    .action(async (path: string, newPath: string, options: ForkOptions) => {
      const { service, output, resolve } = open()
      await runFork(service, { path: await resolve(path), newPath: await resolve(newPath), ...options }, output)
    })
}
