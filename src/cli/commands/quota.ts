/** `nexusctl quota …` */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { QuotaInfo, QuotaShowInfo } from '../../api/quotas.ts'
import { usage } from '../../api/text.ts'
import { align, printable, size, table } from '../format.ts'
import { examples, parseSize } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

/** Absent: stays as it is. */
export interface QuotaFlags {
  bytes?: number | 'none'
  inodes?: number | 'none'
}

export async function runQuotaSet(service: Service, path: string, flags: QuotaFlags, output: Output): Promise<void> {
  if (flags.bytes === undefined && flags.inodes === undefined) throw usage('nothing to set: give --bytes, --inodes or both')
  const limits = Object.entries<number | 'none'>({ ...flags }).map(([what, limit]) => [what, limit === 'none' ? null : limit])
  const info = await service.quotaSet(path, Object.fromEntries(limits))
  output.result(info, () => describeQuotas([info]))
}

export async function runQuotaShow(service: Service, path: string, output: Output): Promise<void> {
  const info = await service.quotaShow(path)
  output.result(info, () => describeQuota(info))
}

export async function runQuotaList(service: Service, output: Output): Promise<void> {
  const infos = await service.quotaList()
  const none = 'no quotas: set one with "nexusctl quota set PATH --bytes 10GiB"'
  output.result(infos, () => (infos.length === 0 ? none : describeQuotas(infos)))
}

function describeQuota({ around, ...info }: QuotaShowInfo): string {
  const own = align([
    ['workspace', info.path],
    ['bytes', amount(info.bytes_used, info.bytes_limit, size)],
    ['inodes', amount(info.inodes_used, info.inodes_limit, String)],
  ])
  return around.length === 0 ? own : `${own}\n\n${printable('it counts for those that it lies in:')}\n${describeQuotas(around)}`
}

function amount(used: number, limit: number | null, shown: (value: number) => string): string {
  return limit === null
    ? `${shown(used)}, no limit`
    : `${shown(used)} of ${shown(limit)}, ${shown(Math.max(0, limit - used))} left`
}

function describeQuotas(infos: readonly QuotaInfo[]): string {
  const columns = [
    { title: 'WORKSPACE' },
    ...['BYTES', 'LIMIT', 'LEFT', 'INODES', 'LIMIT', 'LEFT'].map((title) => ({ title, align: 'right' as const })),
  ]
  const orDash = (value: number | null, shown: (value: number) => string): string => (value === null ? '-' : shown(value))
  return table(
    columns,
    infos.map((one) => [
      one.path,
      ...[size(one.bytes_used), orDash(one.bytes_limit, size), orDash(one.bytes_remaining, size)],
      ...[String(one.inodes_used), orDash(one.inodes_limit, String), orDash(one.inodes_remaining, String)],
    ]),
  )
}

/** `--bytes 10GiB`, `--inodes 100000`, or `none`. */
export function quotaOptions(prefix = ''): [bytes: Option, inodes: Option] {
  const none = prefix === '' ? ', or none' : ''
  const parse =
    (parseLimit: (text: string) => number) =>
    (text: string): number | 'none' =>
      text === 'none' && prefix === '' ? text : parseLimit(text)
  return [
    new Option(`--${prefix}bytes <SIZE>`, `bytes that it may take, such as 10GiB${none}`).argParser(parse(parseSize)),
    new Option(`--${prefix}inodes <N>`, `files and directories that it may have${none}`).argParser(parse(parseCount)),
  ]
}

function parseCount(text: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number, such as 100000.')
  return Number(text)
}

export function addQuotaCommands(program: Command, open: OpenSession): void {
  const quota = program.command('quota').description('limit what a workspace or tenant may take, with all that lie in it')
  quota.addHelpText('after', examples('quota set /tenants/acme --bytes 10GiB --inodes 1000000', 'quota show /tenants/acme'))
  const [bytes, inodes] = quotaOptions()
  quota
    .command('set <PATH>')
    .description('set limits, at once and for everybody, root too; what is not given stays')
    .addOption(bytes)
    .addOption(inodes)
    .addHelpText('after', examples('quota set /tenants/acme --bytes 10GiB', 'quota set /tenants/acme --inodes none'))
    .action(async (path: string, flags: QuotaFlags) => {
      const { service, output, resolve } = open()
      await runQuotaSet(service, await resolve(path), flags, output)
    })
  quota
    .command('show <PATH>')
    .description('show what a workspace takes and may take, and those that it lies in')
    .addHelpText('after', examples('quota show /tenants/acme'))
    .action(async (path: string) => {
      const { service, output, resolve } = open()
      await runQuotaShow(service, await resolve(path), output)
    })
  quota
    .command('list')
    .description('list the quotas of all workspaces that you may read')
    .addHelpText('after', examples('quota list --json'))
    .action(async () => {
      const { service, output } = open()
      await runQuotaList(service, output)
    })
}
