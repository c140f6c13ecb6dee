/** `nexusctl grant`, `revoke`, `grants`, and the questions: `check`, `explain`, `who-can`, `what-can`. */
import type { Command } from 'commander'
import type { ExplainInfo, GrantInfo, ReachInfo } from '../../api/access.ts'
import type { Service } from '../../api/calls.ts'
import { localTime, printable, table } from '../format.ts'
import { examples, expiresOption } from '../options.ts'
import type { Output } from '../output.ts'
import { AnswerIsNo, type OpenSession } from '../session.ts'

export interface GrantArguments {
  subject: string
  relation: string
  path: string
}

export interface Question {
  subject: string
  permission: string
  path: string
}

export async function runGrant(
  service: Service,
  { subject, relation, path, ...options }: GrantArguments & { expires?: string },
  output: Output,
): Promise<void> {
  const info = await service.grant(subject, relation, path, options)
  const until = info.expires_at === null ? '' : ` until ${localTime(info.expires_at)}`
  output.result(info, () => `granted ${nameGrant(info)} to ${printable(info.subject)}${until}`)
}

export async function runRevoke(service: Service, { subject, relation, path }: GrantArguments, output: Output): Promise<void> {
  const info = await service.revoke(subject, relation, path)
  output.result(info, () => `revoked ${nameGrant(info)} from ${printable(info.subject)}`)
}

export async function runGrants(service: Service, path: string, output: Output): Promise<void> {
  const infos = await service.grants(path)
  output.result(infos, () => describeGrants(infos, path))
}

/** @returns the answer, after it went out */
export async function runCheck(service: Service, { subject, permission, path }: Question, output: Output): Promise<boolean> {
  const info = await service.check(subject, permission, path)
  output.result(info, () => (info.allowed ? 'yes' : 'no'))
  return info.allowed
}

export async function runExplain(service: Service, { subject, permission, path }: Question, output: Output): Promise<void> {
  const info = await service.explain(subject, permission, path)
  output.result(info, () => describeExplanation(info))
}

export async function runWhoCan(
  service: Service,
  { permission, path }: { permission: string; path: string },
  output: Output,
): Promise<void> {
  const info = await service.whoCan(permission, path)
  output.result(info, () => info.subjects.map(printable).join('\n') || 'nobody but the administrator')
}

export async function runWhatCan(service: Service, subject: string, output: Output): Promise<void> {
  const infos = await service.whatCan(subject)
  output.result(infos, () => describeReach(infos, subject))
}

function nameGrant({ relation, path }: GrantInfo): string {
  return `${printable(relation)} on ${printable(path)}`
}

/** An inherited grant shows the directory that it was given on. */
function describeGrants(infos: GrantInfo[], path: string): string {
  if (infos.length === 0) return `no grants: give one with "nexusctl grant SUBJECT viewer ${printable(path)}"`
  return table(
    [{ title: 'SUBJECT' }, { title: 'RELATION' }, { title: 'ON' }, { title: 'GRANTED' }, { title: 'EXPIRES' }],
    infos.map((info) => [
      info.subject,
      info.relation,
      info.path,
      localTime(info.created_at),
      info.expires_at === null ? 'never' : localTime(info.expires_at),
    ]),
  )
}

function describeExplanation({ subject, permission, path, allowed, steps }: ExplainInfo): string {
  const answer = `${allowed ? 'yes' : 'no'}, ${subject} ${allowed ? 'has' : 'has not'} ${permission} on ${path}`
  return [printable(answer), ...steps.map((step) => `  ${printable(step)}`)].join('\n')
}

function describeReach(infos: ReachInfo[], subject: string): string {
  if (infos.length === 0) return `${printable(subject)} has rights nowhere`
  return table(
    [{ title: 'PATH' }, { title: 'PERMISSIONS' }],
    infos.map((info) => [info.path, info.permissions.join(', ')]),
  )
}

export function addGrantCommands(program: Command, open: OpenSession): void {
  addGrant(program, open)
  addRevoke(program, open)
  addGrants(program, open)
  addCheck(program, open)
  addExplain(program, open)
  addWhoCan(program, open)
  addWhatCan(program, open)
}

function addGrant(program: Command, open: OpenSession): void {
  program
    .command('grant <SUBJECT> <RELATION> <PATH>')
    .description('make a subject owner, editor or viewer of a workspace, directory or file, and of all below it')
    .addOption(expiresOption())
    .addHelpText(
      'after',
      examples('grant alice editor /workspace/acme', 'grant agent:coder-7 viewer /workspace/acme/src --expires 12h'),
    )
    .action(async (subject: string, relation: string, path: string, options: { expires?: string }) => {
      const { service, output, resolve } = open()
      await runGrant(service, { subject, relation, path: await resolve(path), ...options }, output)
    })
}

function addRevoke(program: Command, open: OpenSession): void {
  program
    .command('revoke <SUBJECT> <RELATION> <PATH>')
    .description('take back what was granted on that very path')
    .addHelpText('after', examples('revoke alice editor /workspace/acme'))
    .action(async (subject: string, relation: string, path: string) => {
      const { service, output, resolve } = open()
      await runRevoke(service, { subject, relation, path: await resolve(path) }, output)
    })
}

function addGrants(program: Command, open: OpenSession): void {
  program
    .command('grants <PATH>')
    .description('list what was granted on a path, then what it inherits from above')
    .addHelpText('after', examples('grants /workspace/acme/src'))
    .action(async (path: string) => {
      const { service, output, resolve } = open()
      await runGrants(service, await resolve(path), output)
    })
}

function addCheck(program: Command, open: OpenSession): void {
  program
    .command('check <SUBJECT> <PERMISSION> <PATH>')
    .description('say whether a subject has a permission: yes with exit status 0, no with 1')
    .addHelpText('after', examples('check alice write /workspace/acme/src/main.ts'))
    .action(async (subject: string, permission: string, path: string) => {
      const { service, output, resolve } = open()
      const allowed = await runCheck(service, { subject, permission, path: await resolve(path) }, output)
      if (!allowed) throw new AnswerIsNo()
    })
}

function addExplain(program: Command, open: OpenSession): void {
  program
    .command('explain <SUBJECT> <PERMISSION> <PATH>')
    .description('say why a subject has a permission or has it not')
    .addHelpText('after', examples('explain alice write /workspace/acme/src/main.ts'))
    .action(async (subject: string, permission: string, path: string) => {
      const { service, output, resolve } = open()
      await runExplain(service, { subject, permission, path: await resolve(path) }, output)
    })
}

function addWhoCan(program: Command, open: OpenSession): void {
  program
    .command('who-can <PERMISSION> <PATH>')
    .description('list the users and agents who have a permission')
    .addHelpText('after', examples('who-can write /workspace/acme'))
    .action(async (permission: string, path: string) => {
      const { service, output, resolve } = open()
      await runWhoCan(service, { permission, path: await resolve(path) }, output)
    })
}

function addWhatCan(program: Command, open: OpenSession): void {
  program
    .command('what-can <SUBJECT>')
    .description('list where the rights of a subject begin; all below inherits them')
    .addHelpText('after', examples('what-can agent:coder-7'))
    .action(async (subject: string) => {
      const { service, output } = open()
      await runWhatCan(service, subject, output)
    })
}
