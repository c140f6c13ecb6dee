/** How much of the processor a process gets beside others (sched(7), setpriority(2)). */
import { readdirSync, readFileSync } from 'node:fs'
import os from 'node:os'
import { systemCode } from '../errors.ts'

/** capability.h: without it, who went back can never come forward again */
const CAP_SYS_NICE = 23n
/** user_namespaces(7): the identity, as in the first namespace; the capability counts in no other */
const FIRST_NAMESPACE = /^\s*0\s+0\s+4294967295\s*$/
/** Beside one at 0, a third of what it would get: with a tenth it would take a minute to load on a very busy machine. */
const BACK = 5

/**
 * Sets it for all threads of a process that this one has started. Does nothing where this process could not undo it, nor for
 * one that is gone.
 * @throws a system error
 */
export function usePriority(pid: number, priority: 'low' | 'normal'): void {
  if (!mayRaise()) return
  const own = os.getPriority()
  const nice = priority === 'low' ? Math.min(os.constants.priority.PRIORITY_LOW, own + BACK) : own
  // Linux keeps it by thread.
  for (const thread of threadsOf(pid)) setUnlessGone(thread, nice)
}

function setUnlessGone(thread: number, nice: number): void {
  try {
    os.setPriority(thread, nice)
  } catch (error) {
    if ((error as { info?: { code?: string } }).info?.code !== 'ESRCH') throw error
  }
}

function threadsOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number)
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ESRCH') return []
    throw error
  }
}

let raises: boolean | undefined

function mayRaise(): boolean {
  raises ??= hasCapability() && FIRST_NAMESPACE.test(readFileSync('/proc/self/uid_map', 'utf8'))
  return raises
}

/** proc_pid_status(5) */
function hasCapability(): boolean {
  const [, mask = '0'] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  return ((BigInt(`0x${mask}`) >> CAP_SYS_NICE) & 1n) === 1n
}
