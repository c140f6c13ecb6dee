/**
 * The table of calls. A call is an object in the file of its noun, a handler (src/service/handlers.ts), a row of the policy
 * (src/service/policy.ts), and a command; the types demand the handler and the row.
 */
import { accessCalls } from './access.ts'
import { type AnswerOf, type ArgumentsOf, type Call, decode, encode, type Fields, fieldsOf } from './call.ts'
import { metricsCalls } from './metrics.ts'
import { quotaCalls } from './quotas.ts'
import { checkLike } from './schema.ts'
import { snapshotCalls } from './snapshots.ts'
import { storeCalls } from './store.ts'
import { tenantCalls } from './tenants.ts'
import { workspaceCalls } from './workspaces.ts'

export const calls = {
  ...workspaceCalls,
  ...snapshotCalls,
  ...accessCalls,
  ...tenantCalls,
  ...quotaCalls,
  ...storeCalls,
  ...metricsCalls,
}

export type CallName = keyof typeof calls
export type Arguments<K extends CallName> = ArgumentsOf<(typeof calls)[K]>
export type Answer<K extends CallName> = AnswerOf<(typeof calls)[K]>

/**
 * All calls as methods: what the daemon does, and what a client has in another process. Times are ISO-8601 strings, sizes are
 * bytes, paths are absolute in the filesystem (`/workspace/acme`), never of the host. Every call may reject with a
 * `NexusError`.
 */
export type Service = { [K in CallName]: (...args: Arguments<K>) => Promise<Answer<K>> }

export const callNames = Object.keys(calls) as CallName[]

/** Whether a word from outside names a call; inherited names such as `constructor` do not. */
export function isCallName(name: string): name is CallName {
  return Object.hasOwn(calls, name)
}

/** A call without the types of its parts, which TypeScript cannot follow from a variable name. */
export function callOf(name: CallName): Call {
  return calls[name] as unknown as Call
}

export function namesOfFields(name: CallName): string[] {
  return fieldsOf(callOf(name))
}

/** The body that carries these arguments; `args` must be those of the method. */
export function encodeCall(name: CallName, args: readonly unknown[]): Fields {
  return encode(callOf(name), args)
}

/**
 * Runs a call whose body came from outside.
 * @throws NexusError NEXUS_USAGE when the body does not fit; otherwise what the call throws
 */
export async function invokeCall(service: Service, name: CallName, body: unknown): Promise<unknown> {
  const args = decode(name, callOf(name), body)
  const method = service[name] as (...args: unknown[]) => Promise<unknown>
  return await method.apply(service, args)
}

/** @throws UnlikeAnswer when it is no answer to this call */
export function checkAnswer(name: CallName, answer: unknown): void {
  checkLike(callOf(name).answer, answer)
}
