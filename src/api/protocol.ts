/**
 * What server and client agree on besides the calls: `POST /v1/<call>` with the arguments as a
 * JSON object; the answer is the result as JSON with status 200, or `{error:{code,message}}`.
 */
import { type ErrorCode, NexusError } from '../errors.ts'

/** In front of every call's name. A change that old clients cannot live with gets a new one. */
export const callPrefix = '/v1/'

/** The HTTP status for each code (docs/cli-abi.md). */
export const httpStatusOf: Record<ErrorCode, number> = {
  NEXUS_USAGE: 400,
  NEXUS_NOT_FOUND: 404,
  NEXUS_EXISTS: 409,
  NEXUS_AMBIGUOUS: 409,
  NEXUS_NOT_EMPTY: 409,
  NEXUS_BUSY: 423,
  NEXUS_NOT_RUNNING: 503,
  NEXUS_READ_ONLY: 403,
  NEXUS_NO_SPACE: 507,
  NEXUS_CORRUPT: 500,
  NEXUS_TOO_NEW: 500,
  NEXUS_DENIED: 403,
  NEXUS_UNSUPPORTED: 501,
  NEXUS_TIMEOUT: 504,
  NEXUS_INTERNAL: 500,
}

export interface ErrorAnswer {
  error: { code: ErrorCode; message: string }
}

export function toErrorAnswer(error: NexusError): ErrorAnswer {
  return { error: { code: error.code, message: error.message } }
}

/** The error that an answer speaks of; undefined when it has not the shape of one. */
export function fromErrorAnswer(answer: unknown): NexusError | undefined {
  if (typeof answer !== 'object' || answer === null || !('error' in answer)) return undefined
  const { error } = answer
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error)) return undefined
  if (typeof error.message !== 'string') return undefined
  return new NexusError(knownCode(error.code), error.message)
}

/** A newer daemon may know codes that we do not; its message is still the best there is. */
function knownCode(code: unknown): ErrorCode {
  return typeof code === 'string' && Object.hasOwn(httpStatusOf, code) ? (code as ErrorCode) : 'NEXUS_INTERNAL'
}
