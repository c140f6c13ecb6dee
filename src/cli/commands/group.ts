/** `nexusctl group …` */
import type { Command } from 'commander'
import type { GroupInfo } from '../../api/access.ts'
import type { Service } from '../../api/calls.ts'
import { checkSubject } from '../../api/parameters-access.ts'
import { printable, table } from '../format.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

export interface GroupArguments {
  group: string
  /** one at least */
  members: readonly string[]
}

export async function runGroupAdd(service: Service, { group, members }: GroupArguments, output: Output): Promise<void> {
  const infos = await inTurn(members, (member) => service.groupAdd(group, member))
  output.result(infos.at(-1), () => infos.slice(-1).map(describeGroup).join())
}

export async function runGroupRemove(service: Service, { group, members }: GroupArguments, output: Output): Promise<void> {
  const infos = await inTurn(members, (member) => service.groupRemove(group, member))
  output.result(infos.at(-1), () => infos.slice(-1).map(describeGroup).join())
}

export async function runGroupList(service: Service, output: Output): Promise<void> {
  const infos = await service.groupList()
  output.result(infos, () => describeList(infos))
}

/** Calls for one member after the other. All are looked at first: wrong usage must leave everything as it was. */
async function inTurn(members: readonly string[], call: (member: string) => Promise<GroupInfo>): Promise<GroupInfo[]> {
  const infos: GroupInfo[] = []
  for (const member of members.map((text) => checkSubject(text, 'member'))) infos.push(await call(member))
  return infos
}

function describeGroup({ group, members }: GroupInfo): string {
  return printable(`group ${group}: ${members.join(', ') || 'no members'}`)
}

function describeList(infos: GroupInfo[]): string {
  if (infos.length === 0) return 'no groups: make one with "nexusctl group add NAME MEMBER"'
  return table(
    [{ title: 'GROUP' }, { title: 'MEMBERS' }],
    infos.map(({ group, members }) => [group, members.join(', ') || '-']),
  )
}

export function addGroupCommands(program: Command, open: OpenSession): void {
  const group = program.command('group').description('put users, agents and other groups into groups')
  group.addHelpText('after', examples('group add eng alice agent:coder-7', 'group list'))
  addAdd(group, open)
  addRemove(group, open)
  addList(group, open)
}

function addAdd(group: Command, open: OpenSession): void {
  group
    .command('add <GROUP> <MEMBER...>')
    .description('add members, in turn; a group is there as soon as it has one')
    .addHelpText('after', examples('group add eng alice agent:coder-7 group:leads'))
    .action(async (name: string, members: string[]) => {
      const { service, output } = open()
      await runGroupAdd(service, { group: name, members }, output)
    })
}

function addRemove(group: Command, open: OpenSession): void {
  group
    .command('remove <GROUP> <MEMBER...>')
    .description('remove members, in turn')
    .addHelpText('after', examples('group remove eng alice'))
    .action(async (name: string, members: string[]) => {
      const { service, output } = open()
      await runGroupRemove(service, { group: name, members }, output)
    })
}

function addList(group: Command, open: OpenSession): void {
  group
    .command('list')
    .description('list all groups with their members')
    .addHelpText('after', examples('group list --json'))
    .action(async () => {
      const { service, output } = open()
      await runGroupList(service, output)
    })
}
