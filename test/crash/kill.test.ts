/**
 * SIGKILL of a real daemon under load, at random moments, again and again: after each start all that
 * was acknowledged is there, and what was under way is there whole or not at all.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { SLACK } from '../machine.ts'
import { mountFor, noMount, plainFor } from '../mount/harness.ts'
import { difference, readTree, replayLog, type Tree } from './writer.ts'

const ROUNDS = 16
const WRITERS = 3
const KILL_MS = { min: 30, max: 900 }
/** A writer that is still there so long after the death of the daemon is ended. */
const PATIENCE_MS = 3000 * SLACK
const writer = fileURLToPath(new URL('./writer.js', import.meta.url))
const seed = Number(process.env['NEXUS_SEED'] ?? Date.now() % 1_000_000)

interface Job {
  directory: string
  sideLog: string
  child: ChildProcess
}

function startWriter(directory: string, sideLog: string, number: number): Job {
  fs.mkdirSync(directory, { recursive: true })
  const child = spawn(process.execPath, [writer, directory, sideLog, String(number)], { stdio: 'inherit', cwd: '/' })
  return { directory, sideLog, child }
}

/** Waits until the writer has seen the death of the mount; one that hangs is killed and says so. */
async function ended({ child }: Job): Promise<boolean> {
  if (child.exitCode !== null || child.signalCode !== null) return true
  const exit = once(child, 'exit')
  const inTime = await Promise.race([exit.then(() => true), sleep(PATIENCE_MS, false, { ref: false })])
  if (!inTime) {
    child.kill('SIGKILL')
    await exit
  }
  return inTime
}

t.test(
  `${ROUNDS} times SIGKILL under load lose nothing (seed ${seed})`,
  { skip: noMount ?? false, timeout: 180_000 * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    const logs = plainFor(t)
    const finished: { directory: string; tree: Tree }[] = []
    let acknowledged = 0
    let underWay = 0
    for (let round = 0; round < ROUNDS; round++) {
      const jobs = Array.from({ length: WRITERS }, (_, i) => {
        const name = `${round}-${i}`
        return startWriter(mount.at('workspace', `w${i}`, name), path.join(logs, name), seed + round * WRITERS + i)
      })
      // The writers' own start-up comes before the random moment.
      while (jobs.some(({ sideLog }) => !fs.existsSync(sideLog))) await sleep(10)
      await sleep(KILL_MS.min + (((seed + round * 7919) * 104_729) % (KILL_MS.max - KILL_MS.min)))
      await mount.kill()
      t.ok((await Promise.all(jobs.map(ended))).every(Boolean), 'nobody hangs')
      await mount.start()
      for (const { directory, sideLog } of jobs) {
        const { allowed, acknowledged: count, failures } = replayLog(fs.readFileSync(sideLog, 'utf8'))
        const found = readTree(directory)
        const differences = allowed.map((tree) => difference(found, tree))
        const fits = differences.indexOf(undefined)
        if (fits === -1)
          t.fail(`round ${round}, seed ${seed}: ${path.basename(directory)} after ${count} calls: ${differences.join('; or ')}`)
        t.same(failures, [], 'no call was refused that should not be')
        acknowledged += count
        underWay += fits > 0 ? 1 : 0
        finished.push({ directory, tree: found })
      }
    }
    for (const { directory, tree } of finished) {
      const changed = difference(readTree(directory), tree)
      if (changed !== undefined) t.fail(`${directory} changed later: ${changed}`)
    }
    t.ok(
      acknowledged > ROUNDS * WRITERS * 10,
      `${acknowledged} calls acknowledged, ${underWay} that were under way are there too`,
    )
    t.equal(await mount.stop(), 0)
    await mount.start()
    for (const { directory, tree } of finished.slice(-WRITERS)) t.equal(difference(readTree(directory), tree), undefined)
  },
)

/** Commits rows one by one and says so; ends when the mount does. */
const SQLITE_WRITER = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
assert db.execute('PRAGMA journal_mode=WAL').fetchone()[0] == 'wal'
db.execute('PRAGMA synchronous=FULL')
db.execute('PRAGMA wal_autocheckpoint=50')
db.execute('CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body TEXT)')
n = db.execute('SELECT coalesce(max(id), 0) FROM rows').fetchone()[0]
while True:
    n += 1
    db.execute('INSERT INTO rows VALUES (?, ?)', (n, str(n) * 50))
    print(n, flush=True)
`

const SQLITE_CHECK = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert [row[0] for row in db.execute('PRAGMA integrity_check')] == ['ok'], 'integrity_check'
rows = db.execute('SELECT id, body FROM rows ORDER BY id').fetchall()
assert all(row == (i + 1, str(i + 1) * 50) for i, row in enumerate(rows)), 'rows'
print(len(rows))
`

t.test(
  'an SQLite database in WAL mode keeps every committed row',
  { skip: noMount ?? false, timeout: 60_000 * SLACK },
  async (t) => {
    const mount = await mountFor(t)
    fs.mkdirSync(mount.at('workspace', 'db'))
    const file = mount.at('workspace', 'db', 'test.db')
    let last = 0
    for (const ms of [700, 300, 1100]) {
      const child = spawn('python3', ['-c', SQLITE_WRITER, file], { stdio: ['ignore', 'pipe', 'ignore'], cwd: '/' })
      let output = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output += text
      })
      await once(child.stdout, 'data')
      await sleep(ms)
      const exit = once(child, 'close')
      await mount.kill()
      await exit
      // The last line may be torn.
      last = Math.max(last, ...output.split('\n').slice(0, -1).map(Number))
      await mount.start()
      const rows = Number(await outputOf('python3', ['-c', SQLITE_CHECK, file]))
      t.ok(rows === last || rows === last + 1, `${rows} rows, ${last} were committed`)
      last = rows
    }
    t.ok(last > 20)
  },
)

async function outputOf(command: string, args: string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' })
  let [output, errors] = ['', '']
  child.stdout.on('data', (text: Buffer) => {
    output += text.toString()
  })
  child.stderr.on('data', (text: Buffer) => {
    errors += text.toString()
  })
  const [status] = (await once(child, 'close')) as [number | null]
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${errors}`)
  return output
}
