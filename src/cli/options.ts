/** Values of options that more than one command takes. */
import { InvalidArgumentError, Option } from 'commander'
import type { Metadata } from '../api/workspaces.ts'

const changesShown = 1000
const INTERVAL_MS = 2000
const INTERVAL_MS_MIN = 100
const INTERVAL_MS_MAX = 3_600_000
const secondsOf: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 7 * 86_400 }

/** Bytes in what may stand behind a number of them; each command says which it takes. */
export const bytesOf: Readonly<Record<string, number>> = { '': 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 }

/** What `--meta` leaves in a command's options. */
export interface MetaOptions {
  meta?: Metadata
}

/** `--meta k=v`, as often as there are pairs. */
export function metaOption(description = 'metadata, repeatable'): Option {
  return new Option('--meta <k=v>', description).argParser(addPair)
}

/** `--limit N` for the number of changes to list. */
export function limitOption(): Option {
  return new Option('--limit <n>', 'list at most so many changes').default(changesShown).argParser(parseLimit)
}

/** `--expires TIME|DURATION`; a duration counts from now. */
export function expiresOption(): Option {
  const description = 'ends by itself: a time (2027-01-31T18:00Z) or a duration (30s, 15m, 12h, 7d, 4w)'
  return new Option('--expires <TIME>', description).argParser((text) => parseExpires(text, Date.now()))
}

/** What begins like a date is left to the daemon, which checks times for every client. */
export function parseExpires(text: string, now: number): string {
  if (/^\d{4}-/.test(text)) return text
  const [, number, unit = ''] = /^([1-9]\d{0,4})([smhdw])$/.exec(text) ?? []
  const seconds = secondsOf[unit]
  if (number === undefined || seconds === undefined) {
    throw new InvalidArgumentError('It must be a time such as 2027-01-31T18:00Z, or 1 to 99999 of s, m, h, d or w such as 12h.')
  }
  return new Date(now + Number(number) * seconds * 1000).toISOString()
}

/** `--uid N`; which numbers are users' is for the daemon to say. */
export function uidOption(description: string): Option {
  return new Option('--uid <n>', description).argParser(parseUid)
}

function parseUid(text: string): number {
  if (!/^[0-9]{1,10}$/.test(text)) throw new InvalidArgumentError('It must be a whole number, such as 1000.')
  return Number(text)
}

/** `--interval DURATION`, in milliseconds. */
export function intervalOption(): Option {
  const option = new Option('--interval <TIME>', 'how long to look before a frame is shown, from 100ms to 1h')
  return option.default(INTERVAL_MS, '2s').argParser(parseInterval)
}

export function parseInterval(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text) ?? []
  const ms = Math.round(Number(number) * (unit === 'ms' ? 1 : (secondsOf[unit || 's'] ?? 1) * 1000))
  if (!(ms >= INTERVAL_MS_MIN && ms <= INTERVAL_MS_MAX)) {
    throw new InvalidArgumentError('It must be a time from 100ms to 1h, such as 500ms or 2s.')
  }
  return ms
}

/** Bytes: `10GiB`. @throws InvalidArgumentError */
export function parseSize(text: string): number {
  const [, number, unit = ''] = /^([0-9]{1,16})([KMGT]iB)?$/.exec(text) ?? []
  const bytes = Number(number) * (bytesOf[unit] as number)
  if (number === undefined || !Number.isSafeInteger(bytes)) {
    throw new InvalidArgumentError('It must be bytes, or a number of KiB, MiB, GiB or TiB such as 10GiB.')
  }
  return bytes
}

function addPair(pair: string, before: Metadata | undefined): Metadata {
  const at = pair.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('It must be KEY=VALUE.')
  // fromEntries, because assignment would lose a key named __proto__.
  return Object.fromEntries([...Object.entries(before ?? {}), [pair.slice(0, at), pair.slice(at + 1)]])
}

function parseLimit(text: string): number {
  if (!/^[0-9]{1,6}$/.test(text) || Number(text) > 100_000) {
    throw new InvalidArgumentError('It must be a whole number from 0 to 100000.')
  }
  return Number(text)
}

/** The call's `metadata` for the command's `--meta`: absent when not given. */
export function metadataOf({ meta }: MetaOptions): { metadata?: Metadata } {
  return meta === undefined ? {} : { metadata: meta }
}

/** Example lines at the end of a command's `--help`. */
export function examples(...lines: string[]): string {
  return `\nExample${lines.length === 1 ? '' : 's'}:\n${lines.map((line) => `  $ nexusctl ${line}`).join('\n')}`
}
