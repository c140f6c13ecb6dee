/** All workloads, in the order in which they run and are reported. */
import type { Workload } from '../workload.ts'
import { bulk } from './bulk.ts'
import { database } from './database.ts'
import { git } from './git.ts'
import { names } from './names.ts'
import { npm } from './npm.ts'
import { small } from './small.ts'
import { store } from './store.ts'

export const kinds: Readonly<Record<string, readonly Workload[]>> = { names, small, git, npm, bulk, database, store }
