/** `nexusctl completion SHELL` and `nexusd completion SHELL` */
import { Argument, type Command } from 'commander'
import { type CompletionShell, completionScript, SHELLS } from '../completion.ts'

/** @param write takes the script */
export function addCompletionCommand(program: Command, write: (text: string) => void): void {
  const name = program.name()
  program
    .command('completion')
    .description('print the completion of commands, options and paths for a shell')
    .addArgument(new Argument('<SHELL>', 'which shell').choices(SHELLS))
    .addHelpText(
      'after',
      `\nExamples:\n  $ source <(${name} completion bash)\n  $ ${name} completion fish > ~/.config/fish/completions/${name}.fish`,
    )
    .action((shell: CompletionShell) => write(completionScript(shell, program)))
}
