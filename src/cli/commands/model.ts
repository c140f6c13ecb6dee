/** `nexusctl model …` */
import type { Command } from 'commander'
import type { Service } from '../../api/calls.ts'
import { MODEL_BYTES_MAX } from '../../api/parameters-access.ts'
import { printable } from '../format.ts'
import { readText } from '../input.ts'
import { examples } from '../options.ts'
import type { Output } from '../output.ts'
import type { OpenSession } from '../session.ts'

export async function runModelShow(service: Service, output: Output): Promise<void> {
  const info = await service.modelShow()
  output.result(info, () => printableLines(info.text))
}

export async function runModelApply(service: Service, text: string, output: Output): Promise<void> {
  const info = await service.modelApply(text)
  output.result(info, () => 'applied: every check follows this model from now on')
}

/** Fit for `model apply` again: its lines and tabs stay. */
function printableLines(text: string): string {
  const lines = text.trimEnd().split(/\r?\n/)
  return lines.map((line) => line.split('\t').map(printable).join('\t')).join('\n')
}

export function addModelCommands(program: Command, open: OpenSession): void {
  const model = program.command('model').description('show or replace the rules by which relations give permissions')
  model.addHelpText('after', examples('model show', 'model apply model.fga'))
  model
    .command('show')
    .description("print the model that is in force, in OpenFGA's language")
    .addHelpText('after', examples('model show > model.fga'))
    .action(async () => {
      const { service, output } = open()
      await runModelShow(service, output)
    })
  model
    .command('apply <FILE>')
    .description('replace the model by that in a file, or in stdin for -')
    .addHelpText('after', examples('model apply model.fga', 'model apply - < model.fga'))
    .action(async (file: string) => {
      const { service, output } = open()
      await runModelApply(service, await readText(file, { bytesMax: MODEL_BYTES_MAX }), output)
    })
}
