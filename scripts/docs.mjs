/** npm run docs: writes the tables of docs/cli-abi.md that come from the table of calls. A test compares them. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, ROOT } from './lib.mjs'

build()
const { withTables } = await import('../dist/src/api/pages.js')
const page = join(ROOT, 'docs/cli-abi.md')
writeFileSync(page, withTables(readFileSync(page, 'utf8')))
