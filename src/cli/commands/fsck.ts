/** `nexusctl fsck`: is everything as it must be? */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { Finding, FsckInfo } from '../../api/store.ts'
import { count, elapsed, printable } from '../format.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import { AnswerIsNo, type OpenSession } from '../session.ts'

/** @returns whether all is as it must be */
export async function runFsck(service: Service, output: Output): Promise<boolean> {
  const info = await service.fsck()
  output.result(info, () => describeFsck(info))
  return info.clean
}

export function describeFsck(info: FsckInfo): string {
  const { inodes, workspaces, snapshots, chunks, total, findings } = info
  const counts = [count(inodes, 'inode'), count(chunks, 'chunk'), count(workspaces, 'workspace'), count(snapshots, 'snapshot')]
  const left = total - findings.length
  return [
    ...findings.map(describeFinding),
    ...(left > 0 ? [`… and ${left} more`] : []),
    ...(info.repaired > 0 ? [`${count(info.repaired, 'finding')} repaired`] : []),
    `${total === 0 ? 'clean' : count(total, 'finding')}: ${counts.join(', ')} in ${elapsed(info.elapsed_ms)}`,
  ].join('\n')
}

function describeFinding({ kind, severity, workspace, path, live, snapshots, text }: Finding): string {
  const where = [...(live ? ['live'] : []), ...snapshots].join(', ')
  return printable(`${severity} ${kind}: ${path ?? workspace}${where === '' ? '' : ` (${where})`}: ${text}`)
}

export function addFsckCommand(program: Command, open: OpenSession): void {
  program
    .command('fsck')
    .description('check everything, beside running writers; exit status 1 when something is wrong')
    .addHelpText('after', examples('fsck'))
    .action(async () => {
      const { service, output } = open()
      if (!(await runFsck(service, output))) throw new AnswerIsNo()
    })
}
