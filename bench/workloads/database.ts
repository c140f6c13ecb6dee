/** SQLite with full synchronisation: transactions of one row, and one of many rows. */
import type { Workload } from '../workload.ts'
import { expectEqual } from '../workload.ts'

const COMMITS = { full: 1_000, quick: 50, budget: 20 }
const INSERTS = { full: 100_000, quick: 10_000, budget: 500 }
const programs = { sqlite3: 'sqlite3' }
const PRAGMAS = 'PRAGMA synchronous=FULL;'

function sqlite(name: string, mode: 'delete' | 'wal', sizes: typeof COMMITS, isOne: boolean): Workload {
  return {
    ...{ name, measure: 'time', aim: 1.3, sizes, each: isOne ? 'row' : 'commit', programs },
    prepare: async ({ shell, directory, inputs, size }) => {
      inputs.sql(size, isOne)
      await shell.run(directory, `sqlite3 f.db "PRAGMA journal_mode=${mode}; CREATE TABLE t (id INTEGER PRIMARY KEY, text);"`)
    },
    run: ({ shell, directory, inputs, size }) =>
      shell.time(directory, `sqlite3 -cmd '${PRAGMAS}' f.db < ${inputs.sql(size, isOne)}`),
    verify: async ({ shell, directory, size }) => {
      expectEqual('rows', await shell.run(directory, 'sqlite3 f.db "SELECT count(*) FROM t"'), size)
      expectEqual('integrity', await shell.run(directory, 'sqlite3 f.db "PRAGMA integrity_check"'), 'ok')
    },
  }
}

export const database: readonly Workload[] = [
  sqlite('SQLite, commits, rollback journal', 'delete', COMMITS, false),
  sqlite('SQLite, commits, WAL', 'wal', COMMITS, false),
  sqlite('SQLite, inserts in one transaction', 'delete', INSERTS, true),
]
