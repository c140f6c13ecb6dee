/** How results look to people: aligned columns, readable sizes and times, nothing that a terminal obeys. */

const columnGap = '  '
const sizeUnits = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']
/** From here on a size would round to 1024.0 of its unit. */
const sizeCarry = 1023.95

export interface Column {
  title: string
  align?: 'right'
}

/**
 * Text from outside, safe to print on one line: names in a filesystem may hold escape sequences,
 * newlines, and marks that turn the direction of what follows.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, escaped)
}

function escaped(character: string): string {
  const code = character.charCodeAt(0)
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
}

/** Lines under their titles, each column as wide as its widest cell. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  return align([columns.map((column) => column.title), ...rows], columns)
}

/** Lines of cells without titles. */
export function align(rows: readonly (readonly string[])[], columns: readonly Partial<Column>[] = []): string {
  const lines = rows.map((row) => row.map(printable))
  const width = (i: number) => Math.max(...lines.map((row) => row[i]?.length ?? 0))
  const widths = Array.from({ length: Math.max(0, ...lines.map((row) => row.length)) }, (_, i) => width(i))
  const pad = (cell: string, i: number) =>
    columns[i]?.align === 'right' ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)
  return lines.map((row) => row.map(pad).join(columnGap).trimEnd()).join('\n')
}

/** `0 B`, `1023 B`, `1.5 KiB` … */
export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  let value = bytes / 1024
  let unit = 0
  while (value >= sizeCarry && unit < sizeUnits.length - 1) {
    value /= 1024
    unit++
  }
  return `${value.toFixed(1)} ${sizeUnits[unit]}`
}

/** `1 file`, `2 files`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

/** An ISO-8601 time as the clock on the wall shows it, to the second: `2026-01-31 12:34:56`. */
export function localTime(iso: string): string {
  const at = new Date(iso)
  if (Number.isNaN(at.getTime())) return iso
  const two = (number: number) => String(number).padStart(2, '0')
  const date = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join('-')
  return `${date} ${[at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':')}`
}

/** `0.4 ms`, `12.0 ms`, `3.25 s`. */
export function elapsed(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`
}

/** A long time by its two largest units: `45 s`, `3 min 5 s`, `2 h 0 min`, `9 d 4 h`. */
export function uptime(seconds: number): string {
  const s = Math.floor(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

/** `a=1, b=2` */
export function pairs(record: Readonly<Record<string, string | number>>): string {
  return Object.entries(record)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ')
}
