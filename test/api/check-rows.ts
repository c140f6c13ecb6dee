/** Tables of values for the checks of the control API. */
import t from 'tap'
import type { Check } from '../../src/api/schema.ts'

/** A row whose `want` is a RegExp is refused with a message like it. */
export interface Row {
  in: unknown
  want: unknown
}

/** A test for each check, with its name. */
export function checkRows(suites: [string, Check<unknown>, Row[]][]): void {
  for (const [name, check, rows] of suites) {
    t.test(name, async (t) => {
      for (const row of rows) {
        const title = String(JSON.stringify(row.in)).slice(0, 60)
        if (row.want instanceof RegExp) {
          t.throws(() => check(row.in, 'value'), { name: 'NexusError', code: 'NEXUS_USAGE', message: row.want }, title)
        } else {
          t.strictSame(check(row.in, 'value'), row.want, title)
        }
      }
    })
  }
}
