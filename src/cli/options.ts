/** Values of options that more than one command takes. */
import { InvalidArgumentError, Option } from 'commander'
import type { Metadata } from '../control/service.ts'

const changesShown = 1000

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
