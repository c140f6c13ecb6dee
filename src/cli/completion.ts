/**
 * Completion: scripts for shells that offer commands, options and paths. They are made from the same tree of commands as
 * `--help`, so a new command is in them by itself.
 */
import type { Argument, Command, Option } from 'commander'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type CompletionShell = (typeof SHELLS)[number]

/** One command as a shell has to know it. */
export interface Word {
  /** names from the program down to this command, without the program's own: `['snapshot', 'list']` */
  path: readonly string[]
  /** names and one-line descriptions of the commands below it */
  commands: readonly { name: string; description: string }[]
  options: readonly { flags: readonly string[]; description: string; takesValue: boolean }[]
  /** whether one of its arguments is a path of files */
  takesPath: boolean
}

/** Placeholders of arguments that name a file or directory. */
const PATHS: readonly string[] = ['PATH', 'NEWPATH', 'FILE', 'mountpoint']

/** Every command of a program that its help shows, the program itself first. */
export function wordsOf(program: Command): Word[] {
  const found: Word[] = []
  const visit = (command: Command, path: readonly string[], inherited: readonly Option[]): void => {
    const help = command.createHelp()
    const options = [...inherited, ...help.visibleOptions(command)]
    const below = help.visibleCommands(command).filter((one) => one.name() !== 'help')
    found.push({
      path,
      commands: below.map((one) => ({ name: one.name(), description: firstLine(one.description()) })),
      options: options.map(shownOption),
      takesPath: command.registeredArguments.some(isPath),
    })
    for (const one of below) visit(one, [...path, one.name()], globalOptions(program))
  }
  visit(program, [], [])
  return found
}

/** The script of one shell, for the user to source. */
export function completionScript(shell: CompletionShell, program: Command): string {
  const words = wordsOf(program)
  return { bash, zsh, fish }[shell](program.name(), words)
}

function globalOptions(program: Command): readonly Option[] {
  return program.options.filter((option) => option.long !== '--version')
}

function shownOption(option: Option): Word['options'][number] {
  const flags = [option.short, option.long].filter((flag) => flag !== undefined)
  return { flags, description: firstLine(option.description), takesValue: option.required || option.optional }
}

function isPath(argument: Argument): boolean {
  return PATHS.includes(argument.name())
}

function firstLine(text: string): string {
  return text.split('\n')[0] ?? ''
}

/** Everything but the words of a command line that are options and their values. */
function bash(name: string, words: readonly Word[]): string {
  const cases = words.map(({ path, commands, options, takesPath }) => {
    const offered = [...commands.map((one) => one.name), ...options.flatMap(({ flags }) => flags)]
    return `    ${quoted(path.join(' '))}) words=${quoted(offered.join(' '))}; paths=${takesPath ? 1 : 0} ;;`
  })
  const valued = [...new Set(words.flatMap(({ options }) => options.filter((one) => one.takesValue).flatMap((one) => one.flags)))]
  return `# bash completion of ${name}: source it, or save it as /usr/share/bash-completion/completions/${name}
_${name}_words() {
  case "$1" in
${cases.join('\n')}
    *) return 1 ;;
  esac
}
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} path= words= paths=0 word next i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case " ${valued.join(' ')} " in *" $word "*) i=$((i + 1)); continue ;; esac
    [[ $word == -* ]] && continue
    next="\${path:+$path }$word"
    _${name}_words "$next" && path=$next
  done
  _${name}_words "$path"
  COMPREPLY=()
  local IFS=$' \\t\\n'
  if [[ $paths == 1 && $current != -* ]]; then
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$current")
  fi
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$words" -- "$current")
}
complete -F _${name} ${name}
`
}

function zsh(name: string, words: readonly Word[]): string {
  const described = (flag: string, description: string): string => quoted(`${flag.replaceAll(':', '\\:')}:${description}`)
  const cases = words.map(({ path, commands, options, takesPath }) => {
    const offered = [
      ...commands.map((one) => described(one.name, one.description)),
      ...options.flatMap(({ flags, description }) => flags.map((flag) => described(flag, description))),
    ]
    return `    ${quoted(path.join(' '))}) offered=(${offered.join(' ')}); paths=${takesPath ? 1 : 0} ;;`
  })
  return `#compdef ${name}
# zsh completion of ${name}: save it as _${name} in a directory of $fpath
_${name}_offered() {
  case "$1" in
${cases.join('\n')}
    *) return 1 ;;
  esac
}
_${name}() {
  local at= next word paths=0 ret=1
  local -a offered
  for word in "\${(@)words[2,CURRENT-1]}"; do
    [[ $word == -* ]] && continue
    next="\${at:+$at }$word"
    _${name}_offered "$next" && at=$next
  done
  _${name}_offered "$at"
  _describe '${name}' offered && ret=0
  (( paths )) && _files && ret=0
  return ret
}
(( $+functions[compdef] )) && compdef _${name} ${name}
`
}

function fish(name: string, words: readonly Word[]): string {
  const lines = words.flatMap(({ path, commands, options, takesPath }) => {
    const at = `-n ${quoted(`__${name}_at ${path.join(' ')}`.trimEnd())}`
    return [
      ...commands.map((one) => `complete -c ${name} ${at} -a ${quoted(one.name)} -d ${quoted(one.description)}`),
      ...options.map(({ flags, description, takesValue }) => {
        const given = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`)).join(' ')
        return `complete -c ${name} ${at} ${given}${takesValue ? ' -x' : ''} -d ${quoted(description)}`
      }),
      ...(takesPath ? [`complete -c ${name} ${at} -F`] : []),
    ]
  })
  const paths = words.filter(({ path }) => path.length > 0).map(({ path }) => quoted(path.join(' ')))
  return `# fish completion of ${name}: save it as ~/.config/fish/completions/${name}.fish
function __${name}_at
    set -l known ${paths.join(' ')}
    set -l at ''
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; and continue
        set -l next (string trim "$at $word")
        contains -- "$next" $known; and set at $next
    end
    test "$at" = "$argv"
end
complete -c ${name} -f
${lines.join('\n')}
`
}

/** As one word of a shell: between single quotes, of which those inside are closed, escaped and opened again. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
