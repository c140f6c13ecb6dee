/** `--stat`: the counts of a patch, for people as `git diff --stat` shows them, and for scripts. */
import { count } from '../format.ts'
import type { Part } from './patch.ts'
import { quoted } from './text.ts'

export interface FileStat {
  path: string
  change: Part['change']
  from?: string
  added: number | null
  removed: number | null
  uncounted: Part['uncounted']
}

export interface DiffStat {
  from: string
  to: string
  files: FileStat[]
  added: number
  removed: number
  left_out: number
}

const GRAPH_WIDTH = 40
const NAME_WIDTH_MAX = 60

export function diffStat(
  ends: { from: string; to: string },
  { parts, leftOut }: { parts: readonly Part[]; leftOut: number },
): DiffStat {
  const sum = (of: 'added' | 'removed'): number => parts.reduce((total, part) => total + (part[of] ?? 0), 0)
  const files = parts.map(({ name, change, from, added, removed, uncounted }): FileStat => {
    return { path: shown(name), change, ...(from !== undefined && { from: shown(from) }), added, removed, uncounted }
  })
  return { ...ends, files, added: sum('added'), removed: sum('removed'), left_out: leftOut }
}

/** As the daemon shows names (`shownName` there): UTF-8, or else \xNN for odd bytes. */
function shown(name: string): string {
  const plain = name.replace(/\\(?=x[0-9a-f]{2})/g, '\\x5c')
  const bytes = Buffer.from(plain, 'latin1')
  const text = bytes.toString('utf8')
  if (Buffer.from(text).equals(bytes)) return text
  return plain.replace(/[^ -~]/g, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** Lines as those of git: a name, how many lines, and how many of them were added and removed. */
export function describeStat(parts: readonly Part[]): string {
  const names = parts.map(({ name, from }) => (from === undefined ? quoted(name) : `${quoted(from)} => ${quoted(name)}`))
  const width = Math.min(NAME_WIDTH_MAX, Math.max(0, ...names.map((name) => name.length)))
  const most = Math.max(1, ...parts.map(({ added, removed }) => (added ?? 0) + (removed ?? 0)))
  const digits = Math.max(parts.some(({ added }) => added === null) ? 3 : 1, String(most).length)
  const lines = parts.map((part, i) => ` ${(names[i] ?? '').padEnd(width)} | ${countsOf(part, digits, most)}`.trimEnd())
  return [...lines, ` ${totals(parts)}`].join('\n')
}

function countsOf({ added, removed, uncounted, oldSize, newSize }: Part, digits: number, most: number): string {
  if (added === null || removed === null) {
    return `${'Bin'.padStart(digits)} ${oldSize} -> ${newSize} bytes${uncounted === 'too large' ? ' (too large to count)' : ''}`
  }
  const scaled = (lines: number): number =>
    most <= GRAPH_WIDTH || lines === 0 ? lines : Math.max(1, Math.floor((lines * GRAPH_WIDTH) / most))
  return `${String(added + removed).padStart(digits)} ${'+'.repeat(scaled(added))}${'-'.repeat(scaled(removed))}`
}

function totals(parts: readonly Part[]): string {
  const sum = (of: 'added' | 'removed'): number => parts.reduce((total, part) => total + (part[of] ?? 0), 0)
  const [added, removed] = [sum('added'), sum('removed')]
  const words = [`${count(parts.length, 'file')} changed`]
  if (added > 0 || removed === 0) words.push(`${count(added, 'insertion')}(+)`)
  if (removed > 0 || added === 0) words.push(`${count(removed, 'deletion')}(-)`)
  return words.join(', ')
}
