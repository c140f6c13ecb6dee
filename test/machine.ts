/** What a test may expect of the machine that it runs on. */
import { availableParallelism, loadavg } from 'node:os'

/**
 * How many times longer than alone a test may take here: how many processes want each processor, as of the test's start.
 * For limits that end what hangs, and for budgets of time; never for what is promised to users.
 */
export const SLACK = Math.max(1, (loadavg()[0] ?? 0) / availableParallelism())
