/** Commands of the benchmark: every one of them has an end. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { execute, Limit, Shell, SlowError } from '../../bench/shell.ts'
import { isRunning } from '../mount/nexusd.ts'

const LIMIT_MS = 300
/** far more than the limit, and far less than what is waited for */
const SOON_MS = 8000

function scratchFor(t: Test): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nexus-test-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}

function limited(msMax: number, isMeasured: boolean): Limit {
  const limit = new Limit()
  limit.begin(msMax, isMeasured)
  return limit
}

t.test('a command returns what it printed, and fails with what it said', async (t) => {
  const shell = new Shell(process.getuid?.() ?? 0, '/', '/nowhere', limited(60_000, false))
  t.equal(await shell.run('/usr', 'pwd'), '/usr\n')
  await t.rejects(shell.run('/', 'echo no such luck >&2; false'), { name: 'Error', message: /no such luck/ })
  await t.rejects(shell.run('/nowhere', 'true'), { message: /No such file/ })
  await t.rejects(execute(['/nowhere/program'], 1000), { code: 'ENOENT' })
})

t.test('what takes too long is killed with all that it started', async (t) => {
  const directory = scratchFor(t)
  const shell = new Shell(process.getuid?.() ?? 0, '/', '/nowhere', limited(LIMIT_MS, true))
  const begun = performance.now()
  // What runs beside it keeps its stdout open.
  const script = `sleep 60 & echo $! > ${directory}/pid; sleep 60`
  const error: unknown = await shell.run('/', script).catch((error: unknown) => error)
  t.ok(error instanceof SlowError && error.isMeasured && error.msMax === LIMIT_MS, String(error))
  t.ok(performance.now() - begun < SOON_MS)
  t.notOk(isRunning(Number(fs.readFileSync(path.join(directory, 'pid'), 'utf8'))))
})
