/** `nexusctl identity …` */
import type { Command } from 'commander'
import type { IdentityInfo } from '../../api/access.ts'
import type { Service } from '../../api/calls.ts'
import { printable, table } from '../format.ts'
import { examples, uidOption } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

export async function runIdentityAdd(
  service: Service,
  { subject, uid }: { subject: string; uid: number },
  output: Output,
): Promise<void> {
  const info = await service.identityAdd(subject, uid)
  output.result(info, () => describeIdentity(info))
}

export async function runIdentityList(service: Service, output: Output): Promise<void> {
  const infos = await service.identityList()
  output.result(infos, () => describeList(infos))
}

export async function runIdentityRemove(
  service: Service,
  { subject, ...options }: { subject: string; uid?: number },
  output: Output,
): Promise<void> {
  const info = await service.identityRemove(subject, options)
  output.result(info, () => describeIdentity(info))
}

function describeIdentity(info: IdentityInfo): string {
  const subject = printable(info.subject)
  return info.uids.length === 0 ? `${subject} has no uid any more` : `${subject} is uid ${info.uids.join(', ')}`
}

function describeList(infos: IdentityInfo[]): string {
  if (infos.length === 0) return 'no identities: say who a uid is with "nexusctl identity add NAME --uid N"'
  return table(
    [{ title: 'SUBJECT' }, { title: 'UIDS' }],
    infos.map((info) => [info.subject, info.uids.join(', ')]),
  )
}

export function addIdentityCommands(program: Command, open: OpenSession): void {
  const identity = program.command('identity').description('say which users and agents the processes of a uid are')
  identity.addHelpText('after', examples('identity add alice --uid 1000', 'identity list'))
  addAdd(identity, open)
  addList(identity, open)
  addRemove(identity, open)
}

function addAdd(identity: Command, open: OpenSession): void {
  identity
    .command('add <SUBJECT>')
    .description('from now on processes with this uid are that user or agent, who may have several')
    .addOption(uidOption('number of a user of this system').makeOptionMandatory())
    .addHelpText('after', examples('identity add alice --uid 1000', 'identity add agent:coder-7 --uid 2007'))
    .action(async (subject: string, { uid }: { uid: number }) => {
      const { service, output } = open()
      await runIdentityAdd(service, { subject, uid }, output)
    })
}

function addList(identity: Command, open: OpenSession): void {
  identity
    .command('list')
    .description('list users and agents with their uids')
    .addHelpText('after', examples('identity list --json'))
    .action(async () => {
      const { service, output } = open()
      await runIdentityList(service, output)
    })
}

function addRemove(identity: Command, open: OpenSession): void {
  identity
    .command('remove <SUBJECT>')
    .description('take a uid from a user or agent, or all uids; grants stay')
    .addOption(uidOption('only this one'))
    .addHelpText('after', examples('identity remove alice --uid 1000'))
    .action(async (subject: string, options: { uid?: number }) => {
      const { service, output } = open()
      await runIdentityRemove(service, { subject, ...options }, output)
    })
}
