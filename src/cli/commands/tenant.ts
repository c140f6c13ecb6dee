/** `nexusctl tenant …` */
import { type Command, Option } from 'commander'
import type { Service } from '../../api/calls.ts'
import type { TenantInfo } from '../../api/tenants.ts'
import type { Metadata } from '../../api/workspaces.ts'
import { align } from '../format.ts'
import { examples, type MetaOptions, metadataOf, metaOption } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'
import { quotaOptions } from './quota.ts'

const usualDirectories = ['data', 'models', 'exports']

export interface OnboardArguments {
  id: string
  admin: string
  metadata?: Metadata
  directories?: string[]
  quotaBytes?: number
  quotaInodes?: number
}

export async function runTenantOnboard(service: Service, { id, ...options }: OnboardArguments, output: Output): Promise<void> {
  const info = await service.tenantOnboard(id, options)
  output.result(info, () => describeTenant(info))
}

function describeTenant({ tenant, workspace, admin, directories, snapshot }: TenantInfo): string {
  return align([
    ['tenant', tenant],
    ['workspace', workspace.path],
    ['admin', admin],
    ['directories', directories.join(', ') || '-'],
    ['snapshot', `${snapshot.snapshot_id}${snapshot.name === null ? '' : ` (${snapshot.name})`}`],
  ])
}

export function addTenantCommands(program: Command, open: OpenSession): void {
  const tenant = program.command('tenant').description('set up tenants: a workspace each, under /tenants')
  tenant.addHelpText('after', examples('tenant onboard acme --admin alice'))
  const [bytes, inodes] = quotaOptions('quota-')
  tenant
    .command('onboard <ID>')
    .description('make /tenants/ID with its directories, its owner and a first snapshot: all of it or nothing')
    .requiredOption('--admin <SUBJECT>', 'who owns it')
    .addOption(metaOption())
    .addOption(directoriesOption())
    .addOption(bytes)
    .addOption(inodes)
    .addHelpText('after', examples('tenant onboard acme --admin alice --meta plan=gold --dirs data,models'))
    .action(async (id: string, { meta, dirs, ...others }: MetaOptions & TenantOptions) => {
      const { service, output } = open()
      const metadata = metadataOf(meta === undefined ? {} : { meta })
      await runTenantOnboard(service, { id, ...others, ...metadata, directories: dirs }, output)
    })
}

interface TenantOptions {
  admin: string
  dirs: string[]
  quotaBytes?: number
  quotaInodes?: number
}

/** `--dirs a,b`; an empty list for none. */
function directoriesOption(): Option {
  const option = new Option('--dirs <names>', 'directories to make in it, with commas between')
  return option.default(usualDirectories, usualDirectories.join(',')).argParser(splitNames)
}

function splitNames(text: string): string[] {
  return text === '' ? [] : text.split(',').map((name) => name.trim())
}
