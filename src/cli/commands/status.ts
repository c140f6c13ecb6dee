/** `nexusctl status` and `checkpoint`: the daemon as a whole. */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { StatusInfo } from '../../api/store.ts'
import { align, count, elapsed, localTime, pairs, size, uptime } from '../format.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

export async function runStatus(service: Service, output: Output): Promise<void> {
  const info = await service.status()
  output.result(info, () => describeStatus(info))
}

export async function runCheckpoint(service: Service, output: Output): Promise<void> {
  const info = await service.checkpoint()
  output.result(info, () => `everything is written out, in ${elapsed(info.elapsed_ms)}`)
}

/** Exported for `nexusd status`, which says the same. */
export function describeStatus(info: StatusInfo): string {
  // Users other than root are told nothing of the store as a whole (docs/cli-abi.md): zeros that are no figures.
  const isWhole = info.pid !== 0
  return align([
    ['nexusd', [info.version, ...(isWhole ? [`pid ${info.pid}`] : []), ...(info.single_user ? ['single user'] : [])].join(', ')],
    ['state', info.reason === null ? info.state : `${info.state}: ${info.reason}`],
    ['mountpoint', info.mountpoint],
    ['data', info.data],
    ['started', `${localTime(info.started_at)} (${uptime(info.uptime_s)} ago)`],
    ['protocol', info.kernel_protocol],
    ...(isWhole ? describeStore(info) : []),
    ['limits', describeLimits(info)],
    ...(info.taken_over_at === null ? [] : [['taken over', `${times(info.takeovers)}, last ${localTime(info.taken_over_at)}`]]),
  ])
}

function describeStore(info: StatusInfo): string[][] {
  return [
    ['workspaces', String(info.workspaces)],
    ['snapshots', String(info.snapshots)],
    ['memory', size(info.memory_bytes)],
    ['log', `${size(info.log_bytes)}, ${size(info.dirty_bytes)} since the last checkpoint`],
    ['requests', pairs(info.requests) || '-'],
    ['stalls', `${count(info.stalls, 'request')} of more than 50 ms`],
    ['disk', `${size(info.disk_free_bytes)} free`],
  ]
}

/** Of each user and agent, and what the caller has of it. */
function describeLimits({ limits, used }: StatusInfo): string {
  const words = (['workspaces', 'snapshots'] as const).map((what) => {
    const of = used === null ? '' : `${used[what]} of `
    return limits[what] === null ? `${of}any number of ${what}` : `${of}${limits[what]} ${what}`
  })
  const calls = limits.calls === null ? [] : [`${limits.calls} calls at a time`]
  return `${[...words, ...calls].join(', ')} for each user and agent`
}

function times(number: number): string {
  return number === 1 ? 'once' : `${number} times`
}

export function addStatusCommands(program: Command, open: OpenSession): void {
  program
    .command('status')
    .description('show the daemon: where it is mounted, since when, what it holds')
    .addHelpText('after', examples('status --json'))
    .action(async () => {
      const { service, output } = open()
      await runStatus(service, output)
    })
  program
    .command('checkpoint')
    .description('write everything out, which makes the next start quick')
    .addHelpText('after', examples('checkpoint'))
    .action(async () => {
      const { service, output } = open()
      await runCheckpoint(service, output)
    })
}
