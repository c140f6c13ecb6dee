/** `nexusctl gc` and `df`: what takes space, and giving it back. */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { CollectStatusInfo, DiskUsageInfo } from '../../api/store.ts'
import { align, count, elapsed, localTime, size, table } from '../format.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

/** Shows a line that takes the place of the one before; the empty one ends it. */
export type Progress = (line: string) => void

const POLL_MS = 200
const BAR_CELLS = 24

/** @param progress for who watches */
export async function runCollect(service: Service, output: Output, progress?: Progress): Promise<void> {
  const collecting = service.collect()
  if (progress !== undefined) await follow(service, collecting, progress)
  const info = await collecting
  const freed = `${size(info.freed_bytes)} freed, ${size(info.copied_bytes)} moved`
  output.result(info, () => `${freed}, ${info.forgotten} dead chunks and nodes forgotten, in ${elapsed(info.elapsed_ms)}`)
}

async function follow(service: Service, collecting: Promise<unknown>, progress: Progress): Promise<void> {
  let isOver = false
  const ended = collecting.then(
    () => (isOver = true),
    () => (isOver = true),
  )
  try {
    while (!isOver) {
      progress(describeProgress(await service.collectStatus()))
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, POLL_MS))])
    }
  } catch {
    // Whatever it is, the collection has the same trouble, and says so.
  } finally {
    progress('')
  }
}

export function describeProgress({ phase, done, total }: CollectStatusInfo): string {
  const amount = phase === 'move' ? size(done) : String(done)
  if (total === 0) return `${phase.padEnd(6)} ${amount}`
  const full = Math.min(BAR_CELLS, Math.floor((done / total) * BAR_CELLS))
  const of = phase === 'move' ? size(total) : String(total)
  return `${phase.padEnd(6)} [${'#'.repeat(full).padEnd(BAR_CELLS, '.')}] ${amount} of ${of}`
}

export async function runDiskUsage(service: Service, path: string | null, output: Output): Promise<void> {
  const info = await service.diskUsage(path)
  output.result(info, () => describeDiskUsage(info))
}

function describeDiskUsage(info: DiskUsageInfo): string {
  const store = align([
    ['live', size(info.live_bytes)],
    ['only in snapshots', size(info.snapshot_bytes)],
    ['reclaimable', size(info.reclaimable_bytes)],
    ['on disk', size(info.physical_bytes)],
    ['files as they look', `${size(info.logical_bytes)}, ${info.deduplication.toFixed(2)} times what is stored of them`],
    ['measured', localTime(info.measured_at)],
  ])
  const rows = info.workspaces.map((one) => [
    one.path,
    size(one.bytes),
    String(one.file_count),
    count(one.snapshot_count, 'snapshot'),
  ])
  const columns = [
    { title: 'WORKSPACE' },
    { title: 'SIZE', align: 'right' },
    { title: 'FILES', align: 'right' },
    { title: '' },
  ] as const
  // A user is told nothing of the store as a whole.
  return info.physical_bytes === 0 ? table(columns, rows) : `${store}\n\n${table(columns, rows)}`
}

export function addSpaceCommands(program: Command, open: OpenSession): void {
  program
    .command('gc')
    .description('give back the space of what was deleted (the daemon also does so by itself)')
    .addHelpText('after', examples('gc'))
    .action(async () => {
      const { service, output, progress } = open()
      await runCollect(service, output, progress)
    })
  program
    .command('df [PATH]')
    .description('show what takes space: live files, snapshots, what a gc would give back')
    .addHelpText('after', examples('df', 'df /workspace/acme --json'))
    .action(async (path: string | undefined) => {
      const { service, output, resolve } = open()
      await runDiskUsage(service, path === undefined ? null : await resolve(path), output)
    })
}
