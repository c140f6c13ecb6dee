/** Tables of commands as functions, with what people read. */
import t from 'tap'
import type { Service } from '../../src/api/calls.ts'
import { jsonOutput, type Output, textOutput } from '../../src/cli/output.ts'
import { fakeService } from '../service/fake-service.ts'

export interface CommandRow {
  name: string
  run(service: Service, output: Output): Promise<unknown>
  service?: Partial<Service>
  want: string[]
}

/** A test for each command: its text, and that `--json` makes one document. */
export function checkCommands(rows: readonly CommandRow[]): void {
  for (const { name, run, service = {}, want } of rows) {
    t.test(name, async (t) => {
      const text: string[] = []
      await run(
        fakeService(service),
        textOutput((part) => text.push(part)),
      )
      t.equal(text.join(''), `${want.join('\n')}\n`)
      const json: string[] = []
      await run(
        fakeService(service),
        jsonOutput((part) => json.push(part)),
      )
      t.equal(json.length, 1, 'one document')
      t.type(JSON.parse(json.join('')), 'object')
    })
  }
}
