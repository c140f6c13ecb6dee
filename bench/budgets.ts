/**
 * How many requests a workload may cost: a count, which does not depend on the machine or its load. The table is
 * bench/budgets.json; `npm run bench -- --budgets` writes it, test/mount/requests.test.ts holds the mount against it.
 */
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Runner, Sample } from './runner.ts'
import type { Place, Workload } from './workload.ts'
import { kinds } from './workloads/index.ts'

/** By name of the workload and operation: requests for one of what the workload's size counts. */
export type Budgets = Record<string, Record<string, number>>

const FILE = fileURLToPath(new URL('../../bench/budgets.json', import.meta.url))
/** Nobody waits for these, and when they come is the kernel's to say. */
const UNCOUNTED = new Set(['FORGET', 'BATCH_FORGET', 'INTERRUPT'])
/** What a program does at its start or end, a listing that is asked for in one part more: not for each of many. */
const SPARE_REQUESTS = 6
const SPARE_SHARE = 0.02
/** of a request; more precise than any program is */
const PRECISION = 1000

/** Workloads whose requests are told by what they do: not by how far the kernel reads ahead of who reads what is not cached. */
export function budgeted(): Workload[] {
  const all = Object.values(kinds).flat()
  return all.filter(({ noBudget, cold }) => noBudget !== true && cold === undefined)
}

export function readBudgets(): Budgets {
  return JSON.parse(fs.readFileSync(FILE, 'utf8')) as Budgets
}

/** The most of several rounds at all places: git reads a file again if it may have changed within the tick of the clock. */
export async function measureBudgets(runner: Runner, places: readonly Place[], rounds: number): Promise<Budgets> {
  const budgets: Budgets = {}
  for (const workload of budgeted()) {
    const most = new Map<string, number>()
    for (let round = 0; round < rounds; round++)
      for (const place of placesOf(workload, places))
        for (const [name, count] of (await runner.measure(workload, place, round)).requests ?? [])
          if (!UNCOUNTED.has(name)) most.set(name, Math.max(most.get(name) ?? 0, count))
    for (const place of places) await runner.clean(place)
    const each = [...most].map(([name, count]) => [name, roundUp(count / runner.sizeOf(workload))])
    budgets[workload.name] = Object.fromEntries(each.sort())
  }
  return budgets
}

/** What asks the store is the owner's alone. */
export function placesOf({ onlyStore }: Workload, places: readonly Place[]): readonly Place[] {
  return onlyStore === true ? places.slice(0, 1) : places
}

function roundUp(value: number): number {
  return Math.ceil(value * PRECISION) / PRECISION
}

export function writeBudgets(budgets: Budgets): void {
  fs.writeFileSync(FILE, `${JSON.stringify(budgets, null, 2)}\n`)
}

/** What is more than the budget allows, one line an operation; none if all is well. */
export function excess(
  { requests }: Pick<Sample, 'requests'>,
  budget: Record<string, number> | undefined,
  size: number,
): string[] {
  if (budget === undefined) return ['it has no budget: write them anew with npm run bench -- --budgets']
  return [...(requests ?? [])]
    .filter(([name, count]) => !UNCOUNTED.has(name) && count > (budget[name] ?? 0) * size * (1 + SPARE_SHARE) + SPARE_REQUESTS)
    .map(([name, count]) => `${name}: ${(count / size).toFixed(3)} for each of ${size}, the budget is ${budget[name] ?? 0}`)
}
