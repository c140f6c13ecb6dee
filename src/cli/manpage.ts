/**
 * Man pages, in the man(7) macros, made from the same tree of commands as `--help`: one page a program, a subsection a
 * command. `npm run build` writes them to dist/man, where `npm install -g` finds them.
 */
import type { EventEmitter } from 'node:events'
import type { Command } from 'commander'
import { packageVersion } from '../host/version.ts'

/** What no tree of commands tells. */
export interface PageInfo {
  /** 1 for what users call, 8 for what the administrator does (man-pages(7)) */
  section: 1 | 8
  /** exit statuses with what they mean */
  exits: readonly (readonly [status: string, meaning: string])[]
  /** environment variables with what they do */
  environment: readonly (readonly [name: string, meaning: string])[]
  files: readonly (readonly [path: string, meaning: string])[]
  seeAlso: readonly string[]
}

/** The page of a program, ready for man(1). */
export function manPage(program: Command, info: PageInfo): string {
  const name = program.name()
  const help = program.createHelp()
  const commands = commandsOf(program)
  return [
    `.TH ${name.toUpperCase()} ${info.section} "" "nexus ${packageVersion()}" "nexus"`,
    '.SH NAME',
    `${name} \\- ${line(firstSentence(program.description()))}`,
    '.SH SYNOPSIS',
    ...commands.flatMap(({ path, command }) => ['.br', `\\fB${line([name, ...path].join(' '))}\\fR ${line(usageOf(command))}`]),
    '.SH DESCRIPTION',
    line(program.description()),
    ...afterHelp(program),
    '.SH OPTIONS',
    ...help.visibleOptions(program).flatMap((option) => tagged(option.flags, option.description)),
    '.SH COMMANDS',
    ...commands.flatMap(({ path, command }) => describe(path, command)),
    ...section('EXIT STATUS', info.exits),
    ...section('ENVIRONMENT', info.environment),
    ...section('FILES', info.files),
    '.SH SEE ALSO',
    info.seeAlso.map((page) => page.replace(/^(.*)\((\d)\)$/, '\\fB$1\\fR($2)')).join(', '),
    '',
  ].join('\n')
}

interface Shown {
  path: readonly string[]
  command: Command
}

/** The commands that do something, outer before inner, as the help lists them. */
function commandsOf(command: Command, path: readonly string[] = []): Shown[] {
  const below = command.createHelp().visibleCommands(command)
  return below
    .filter((one) => one.name() !== 'help')
    .flatMap((one) => [{ path: [...path, one.name()], command: one }, ...commandsOf(one, [...path, one.name()])])
}

function describe(path: readonly string[], command: Command): string[] {
  const help = command.createHelp()
  const options = help.visibleOptions(command).filter((option) => option.long !== '--help')
  return [
    `.SS ${path.join(' ')} ${line(usageOf(command))}`.trimEnd(),
    line(sentence(command.description())),
    ...options.flatMap((option) => tagged(option.flags, option.description)),
    ...afterHelp(command),
  ]
}

/** Arguments, and whether there are options of its own. */
function usageOf(command: Command): string {
  if (command.createHelp().visibleCommands(command).length > 0) return 'COMMAND'
  const shown = command.registeredArguments.map((argument) => {
    const name = argument.variadic ? `${argument.name()}...` : argument.name()
    return argument.required ? name : `[${name}]`
  })
  const hasOptions = command.options.length > 0
  return [...(hasOptions ? ['[options]'] : []), ...shown].join(' ')
}

/** What `addHelpText('after', …)` adds: examples, and how arguments are written. */
function afterHelp(command: Command): string[] {
  let text = ''
  // Commander keeps such texts as listeners of this event, and calls them with where to write. Its types leave the emitter out.
  const emitter = command as Command & Pick<EventEmitter, 'emit'>
  emitter.emit('afterHelp', { error: false, command, write: (added: string) => (text += added) })
  const lines = text.trim().split('\n')
  if (text.trim() === '') return []
  return ['.PP', '.nf', ...lines.map(line), '.fi']
}

function section(title: string, rows: readonly (readonly [string, string])[]): string[] {
  return [`.SH ${title}`, ...rows.flatMap(([name, meaning]) => tagged(name, meaning))]
}

function tagged(tag: string, text: string): string[] {
  return ['.TP', `\\fB${line(tag)}\\fR`, line(sentence(text))]
}

function firstSentence(text: string): string {
  return text.replace(/\.$/, '').split('\n')[0]?.toLowerCase() ?? ''
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1)
  return /[.:)]$/.test(begun) ? begun : `${begun}.`
}

/** Text of one line as roff takes it: no escapes, no macros, hyphens that can be copied. */
function line(text: string): string {
  const escaped = text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('\n', ' ')
  return escaped.replace(/^([.'])/, '\\&$1')
}
