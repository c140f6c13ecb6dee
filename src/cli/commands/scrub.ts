/** `nexusctl scrub`: reads everything that is stored, in the background, and says what has gone bad. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { BadContent, ScrubInfo } from '../../api/store.ts'
import { localTime, printable, size } from '../format.ts'
import { bytesOf, examples } from '../options.ts'
import type { Output } from '../output.ts'
import { AnswerIsNo, type Host, type OpenSession } from '../session.ts'

export interface ScrubFlags {
  rate?: number
  wait?: boolean
  status?: boolean
  stop?: boolean
}

const POLL_MS = 200
const BAR_CELLS = 30
const FINISHED: ReadonlySet<ScrubInfo['state']> = new Set(['none', 'stopped', 'done', 'failed'])

/**
 * @param watch told how far it is, while it is waited for
 * @returns false when something bad is known
 */
export async function runScrub(
  service: Service,
  flags: ScrubFlags,
  output: Output,
  watch: (info: ScrubInfo) => void = () => undefined,
): Promise<boolean> {
  let info = await called(service, flags)
  if (flags.wait === true) {
    while (!FINISHED.has(info.state)) {
      watch(info)
      await sleep(POLL_MS)
      info = await service.scrubStatus()
    }
  }
  output.result(info, () => describeScrub(info))
  return info.bad.length === 0 && info.state !== 'failed'
}

function called(service: Service, { rate, status, stop }: ScrubFlags): Promise<ScrubInfo> {
  if (stop === true) return service.scrubStop()
  if (status === true) return service.scrubStatus()
  return service.scrub(rate === undefined ? {} : { rate })
}

export function describeScrub(info: ScrubInfo): string {
  return [...info.bad.flatMap(describeBad), describeState(info)].join('\n')
}

function describeBad({ kind, address, segment, offset, files }: BadContent): string[] {
  const place = segment === null ? 'is nowhere' : `in segment ${segment} at byte ${offset} is not what was stored`
  const lines = files.map(({ path, live, snapshots }) => `  ${path} (${[...(live ? ['live'] : []), ...snapshots].join(', ')})`)
  return [`${kind} ${address.slice(0, 16)} ${place}`, ...lines].map(printable)
}

function describeState({ state, started_at, finished_at, done_bytes, total_bytes, bad }: ScrubInfo): string {
  const verdict = bad.length === 0 ? 'nothing bad found' : `${bad.length} bad`
  const progress = total_bytes === 0 ? '' : `, ${size(done_bytes)} of ${size(total_bytes)} read`
  switch (state) {
    case 'none':
      return 'there was no scrub yet'
    case 'running':
      return `running since ${localTime(started_at ?? '')}${progress}, ${verdict} so far`
    case 'stopped':
      return `stopped${progress}, ${verdict} so far: "nexusctl scrub" goes on`
    case 'done':
      return `done at ${localTime(finished_at ?? '')}${progress}, ${verdict}`
    case 'failed':
      return `failed${progress}: the daemon's log says why; "nexusctl scrub" begins again`
  }
}

/** One line that is written over and over. */
export function progressBar({ done_bytes, total_bytes }: ScrubInfo): string {
  const share = total_bytes === 0 ? 0 : done_bytes / total_bytes
  const full = Math.round(share * BAR_CELLS)
  const bar = '#'.repeat(full) + '.'.repeat(BAR_CELLS - full)
  return `\r[${bar}] ${Math.floor(share * 100)} %, ${size(done_bytes)} of ${size(total_bytes)} `
}

/** `50MiB`: bytes a second. */
export function parseRate(text: string): number {
  const [, number, unit = ''] = /^(\d{1,9})(KiB|MiB|GiB)?$/.exec(text) ?? []
  const rate = Number(number) * (bytesOf[unit] ?? Number.NaN)
  if (rate > 0) return rate
  throw new InvalidArgumentError('It must be a number of bytes a second, such as 50MiB.')
}

export function addScrubCommand(program: Command, open: OpenSession, host: Host): void {
  program
    .command('scrub')
    .description('read everything that is stored, in the background; exit status 1 when something bad is known')
    .addOption(new Option('--rate <RATE>', 'at most so much a second (50MiB)').argParser(parseRate))
    .addOption(new Option('--wait', 'return when it is done').conflicts(['status', 'stop']))
    .addOption(new Option('--status', 'only say how far it is').conflicts(['rate', 'stop']))
    .addOption(new Option('--stop', 'stop it; the next scrub goes on from there').conflicts(['rate']))
    .addHelpText('after', examples('scrub --rate 50MiB', 'scrub --wait'))
    .action(async (flags: ScrubFlags) => {
      const { service, output } = open()
      const isWatched = host.isWatched === true
      const watch = isWatched ? (info: ScrubInfo) => host.stderr(progressBar(info)) : undefined
      let isShown = false
      const show = (info: ScrubInfo): void => {
        isShown = true
        watch?.(info)
      }
      const isSound = await runScrub(service, flags, output, show).finally(() => {
        if (isWatched && isShown) host.stderr('\n')
      })
      if (!isSound) throw new AnswerIsNo()
    })
}
