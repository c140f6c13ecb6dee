/** How values from outside are shown in messages, and the error that says that they are off. */
import { NexusError } from '../errors.ts'

const SHOWN_CHARS_MAX = 80

/** A NEXUS_USAGE error, for `throw`. */
export function usage(message: string): NexusError {
  return new NexusError('NEXUS_USAGE', message)
}

/** A value as a message shows it: quoted, control characters escaped, cut when long. */
export function shown(value: string): string {
  const text = value.length > SHOWN_CHARS_MAX ? `${value.slice(0, SHOWN_CHARS_MAX)}…` : value
  return JSON.stringify(text).replace(/\p{Cc}/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
